//! What the two engines share on their way to Python: construction, policy, notification.

use std::path::PathBuf;
use std::sync::Arc;

use pyo3::IntoPyObjectExt;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use sealcast_core::crl::CrlSet;
use sealcast_core::fec::Fec;
use sealcast_core::member::{Floors, Member, MemberConfig, Purpose};
use sealcast_core::wire::ChannelId;
use sealcast_net::{Interface, Notifier};

use crate::error::malformed;
use crate::error::no_socket;
use crate::trust::{AnchorArgument, site, thirty_two, validator};

/// The CRLs that were held, and issuer id and number of each list that was seen (TR-29).
pub(crate) type HeldCrls<'a> = (Option<&'a [u8]>, Vec<(Vec<u8>, u64)>);

#[allow(clippy::too_many_arguments)] // The constructors' own, named in Python.
pub(crate) fn config(
    py: Python<'_>,
    site_id: &[u8],
    channel: &str,
    (device_site, device): (&[u8], &str),
    anchors: &[AnchorArgument],
    issuers: &[Vec<u8>],
    jitter_seed: u64,
    (policy_version, crl_number, generation): (u64, u64, u32),
    (crl, crl_numbers): HeldCrls<'_>,
    signed_time: u64,
) -> PyResult<MemberConfig> {
    let crls = crl.map(|der| CrlSet::parse(der).ok_or_else(|| malformed(py, "the CRL")));
    let mut validator = validator(py, anchors, issuers)?;
    validator.set_crls(crls.transpose()?);
    let crl_numbers = crl_numbers
        .into_iter()
        .map(|(issuer, number)| Ok((thirty_two(&issuer, "an issuer's id")?, number)))
        .collect::<PyResult<_>>()?;
    Ok(MemberConfig {
        site: site(site_id)?,
        channel_name: channel.to_owned(),
        device_site: site(device_site)?,
        device: device.to_owned(),
        purpose: Purpose::Subscribe,
        validator,
        jitter_seed,
        floors: Floors {
            policy_version,
            crl_number,
            generation,
        },
        crl_numbers,
        signed_time,
    })
}

/// Policy version, CRL number and generation: the highest seen.
pub(crate) fn floors(member: &Member) -> (u64, u64, u32) {
    let floors = member.floors();
    (floors.policy_version, floors.crl_number, floors.generation)
}

/// TR-27.
#[pyfunction]
pub(crate) fn later_signed_time(known: u64, signed: u64, wall: u64) -> u64 {
    sealcast_core::date::later_signed_time(known, signed, wall)
}

/// The engine's `now` (TR-28).
#[pyfunction]
pub(crate) fn steady_time() -> u64 {
    sealcast_net::steady_clock()
}

/// The policy in force as a dictionary of TR-13's fields, or None before the join.
pub(crate) fn policy<'py>(py: Python<'py>, member: &Member) -> PyResult<Option<Bound<'py, PyDict>>> {
    let Some(policy) = member.policy() else {
        return Ok(None);
    };
    let fields = PyDict::new(py);
    fields.set_item("version", policy.version)?;
    fields.set_item("suite", policy.suite as u8)?;
    fields.set_item("group", &policy.group)?;
    fields.set_item("port", policy.port)?;
    fields.set_item("interface", &policy.interface)?;
    fields.set_item("rate", policy.rate)?;
    fields.set_item("slot_length", policy.slot_length)?;
    fields.set_item("retention", policy.retention)?;
    fields.set_item("fec", fec(py, policy.fec)?)?;
    fields.set_item("publishers", &policy.publishers)?;
    fields.set_item("subscribers", &policy.subscribers)?;
    Ok(Some(fields))
}

/// Parity as Python writes it: data and parity packets of a group, "auto" or "off".
pub(crate) fn fec(py: Python<'_>, fec: Fec) -> PyResult<Py<PyAny>> {
    Ok(match fec {
        Fec::Off => "off".into_py_any(py)?,
        Fec::Adaptive => "auto".into_py_any(py)?,
        Fec::Fixed(ratio) => (ratio.sources, ratio.parities).into_py_any(py)?,
    })
}

pub(crate) fn is_member(member: &Member, device: &str) -> bool {
    member.policy().is_some_and(|policy| policy.names(device))
}

/// (slot, generation, step) of what this member would seal under now.
pub(crate) fn epoch(member: &Member, now: u64) -> Option<(u32, u32, u8)> {
    member
        .sealing_epoch(now)
        .map(|epoch| (epoch.slot, epoch.generation, epoch.step))
}

/// Tells Python by a byte on a socket that an event loop can watch. `descriptor` belongs to the caller, who keeps it open
/// until the driver has stopped.
pub(crate) fn notifier(descriptor: i32) -> PyResult<Arc<Notifier>> {
    let socket = sealcast_net::SignalSocket::duplicate(descriptor)
        .map_err(|error| PyValueError::new_err(format!("not a socket to signal on: {error}")))?;
    Ok(Arc::new(Notifier::new(move || socket.signal())))
}

pub(crate) fn interface(py: Python<'_>, name: &str) -> PyResult<Interface> {
    Interface::resolve(name).map_err(|error| no_socket(py, &error))
}

/// One of the subscribers that a device has on a channel.
#[pyclass(frozen, module = "sealcast._core")]
#[derive(Debug)]
pub(crate) struct Presence(sealcast_net::Presence);

#[pymethods]
impl Presence {
    /// Raises OSError.
    #[new]
    fn enter(py: Python<'_>, device_folder: PathBuf, channel_id: &[u8]) -> PyResult<Self> {
        let channel = ChannelId(thirty_two(channel_id, "a channel's id")?);
        Ok(Self(py.detach(|| {
            sealcast_net::Presence::enter(&device_folder, &channel)
        })?))
    }

    fn is_last(&self) -> bool {
        self.0.is_last()
    }
}

/// Names and first addresses of the machine's interfaces that do multicast.
#[pyfunction]
pub(crate) fn list_interfaces() -> PyResult<Vec<String>> {
    let found = Interface::list()?;
    Ok(found
        .iter()
        .filter(|interface| interface.does_multicast())
        .map(ToString::to_string)
        .collect())
}
