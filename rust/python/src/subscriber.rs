//! The subscriber's engine and the thread that feeds it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};
use sealcast_core::event::Event;
use sealcast_core::packet_store::{Admission, Found, Shelf};
use sealcast_core::receiver::{KeepLimits, Path, Receiver, ReceiverConfig};
use sealcast_core::rejection::Rejection;
use sealcast_core::stream::{Delivery, Start};
use sealcast_core::wire::StreamId;
use sealcast_net::{DiskShelf, Notifier, ReceiveDriver};

use crate::error::{malformed, no_socket};
use crate::member;
use crate::output::{PyCommand, PyMessage, event, response};
use crate::trust::{AnchorArgument, lock, validator};

/// A repair node follows as many streams as a directory lists, and buffers nothing of them for an application.
const MAX_KEPT_STREAMS: usize = 1024;

type Served<'py> = (Vec<Bound<'py, PyBytes>>, u64, Option<Bound<'py, PyBytes>>);

/// A subscriber without I/O: datagrams, answers and time go in; messages, events and commands come out.
#[pyclass(frozen, module = "sealcast._core")]
pub(crate) struct ReceiveEngine(Arc<Mutex<Receiver>>, Mutex<Option<Arc<DiskShelf>>>);

#[pymethods]
impl ReceiveEngine {
    #[new]
    #[pyo3(signature = (*, site_id, channel, device_site_id, device, anchors, issuers, now, jitter_seed, delivery="reliable",
                        deadline=None, start="now", max_message_bytes=16 << 20, buffer_bytes=64 << 20, window_packets=65536,
                        policy_version_floor=0, crl_number_floor=0, generation_floor=0, signed_time=0, crl=None, crl_numbers=vec![],
                        keep=None, side_channel=false))]
    #[allow(clippy::too_many_arguments)] // Named in Python.
    fn new(
        py: Python<'_>,
        site_id: &[u8],
        channel: &str,
        device_site_id: &[u8],
        device: &str,
        anchors: Vec<AnchorArgument>,
        issuers: Vec<Vec<u8>>,
        now: u64,
        jitter_seed: u64,
        delivery: &str,
        deadline: Option<u64>,
        start: &str,
        max_message_bytes: u64,
        buffer_bytes: u64,
        window_packets: u64,
        policy_version_floor: u64,
        crl_number_floor: u64,
        generation_floor: u32,
        signed_time: u64,
        crl: Option<Vec<u8>>,
        crl_numbers: Vec<(Vec<u8>, u64)>,
        keep: Option<(u64, u64)>,
        side_channel: bool,
    ) -> PyResult<Self> {
        let floors = (policy_version_floor, crl_number_floor, generation_floor);
        let member = member::config(
            py,
            site_id,
            channel,
            (device_site_id, device),
            &anchors,
            &issuers,
            jitter_seed,
            floors,
            (crl.as_deref(), crl_numbers),
            signed_time,
        )?;
        let mut config = ReceiverConfig::new(member);
        config.stream.delivery = match (delivery, deadline) {
            ("reliable", None) => Delivery::Reliable,
            ("realtime", Some(deadline)) => Delivery::Realtime { deadline },
            ("unordered", None) => Delivery::Unordered,
            _ => {
                return Err(PyValueError::new_err(format!(
                    "no delivery {delivery:?} with deadline {deadline:?}"
                )));
            }
        };
        config.start = match start {
            "now" => Start::Now,
            "last" => Start::Last,
            "start" => Start::Oldest,
            _ => return Err(PyValueError::new_err(format!("no start {start:?}"))),
        };
        if side_channel {
            config.path = Path::SideChannel;
        }
        config.stream.max_message_bytes = max_message_bytes;
        config.stream.buffer_bytes = buffer_bytes;
        config.stream.window_packets = window_packets;
        config.queue_bytes = buffer_bytes;
        let receiver = match keep {
            Some((bytes, age)) => {
                config.max_streams = MAX_KEPT_STREAMS;
                Receiver::repair_node(config, KeepLimits { bytes, age }, now)
            }
            None => Receiver::new(config, now),
        };
        Ok(Self(Arc::new(Mutex::new(receiver)), Mutex::new(None)))
    }

    /// Takes datagrams of the group; returns the reason why each was refused, None where it was taken.
    fn receive_datagrams(
        &self,
        py: Python<'_>,
        datagrams: Vec<Vec<u8>>,
        now: u64,
    ) -> Vec<Option<&'static str>> {
        py.detach(|| {
            let mut engine = lock(&self.0);
            datagrams
                .iter()
                .map(|datagram| engine.receive_datagram(datagram, now).map(Rejection::as_str))
                .collect()
        })
    }

    /// At most `limit` messages and events, in order.
    fn poll_events(&self, py: Python<'_>, limit: usize) -> PyResult<Vec<Py<PyAny>>> {
        let (taken, site): (Vec<Event>, _) = py.detach(|| {
            let mut engine = lock(&self.0);
            let taken = std::iter::from_fn(|| engine.poll_event()).take(limit).collect();
            (taken, engine.member().config.site)
        });
        taken.into_iter().map(|taken| event(py, taken, &site)).collect()
    }

    /// At most `limit` messages, up to the next event that is none.
    fn poll_messages(&self, py: Python<'_>, limit: usize) -> Vec<PyMessage> {
        py.detach(|| {
            let mut engine = lock(&self.0);
            let site = engine.member().config.site;
            let mut messages = Vec::with_capacity(limit.min(engine.waiting()));
            let taken = std::iter::from_fn(|| engine.poll_message()).take(limit);
            messages.extend(taken.map(|message| PyMessage::new(message, site)));
            messages
        })
    }

    fn poll_commands(&self, py: Python<'_>) -> Vec<PyCommand> {
        let mut engine = lock(&self.0);
        std::iter::from_fn(|| engine.poll_command())
            .map(|command| PyCommand::new(py, command))
            .collect()
    }

    fn handle_response(&self, py: Python<'_>, id: u64, status: Option<u16>, body: Vec<u8>, now: u64) {
        py.detach(|| lock(&self.0).handle_response(id, response(status, &body), now));
    }

    fn next_deadline(&self) -> Option<u64> {
        lock(&self.0).next_deadline()
    }

    fn handle_deadline(&self, now: u64) {
        lock(&self.0).handle_deadline(now);
    }

    fn policy<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyDict>>> {
        member::policy(py, lock(&self.0).member())
    }

    /// The DER CRL in force.
    fn crl<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyBytes>> {
        lock(&self.0).member().crl().map(|crl| PyBytes::new(py, crl))
    }

    /// Believes in other anchors from now on (TR-21).
    fn set_trust(
        &self,
        py: Python<'_>,
        anchors: Vec<AnchorArgument>,
        issuers: Vec<Vec<u8>>,
        now: u64,
    ) -> PyResult<()> {
        lock(&self.0).set_trust(validator(py, &anchors, &issuers)?, now);
        Ok(())
    }

    /// Policy version, CRL number and generation: the highest seen, to be stored and given to a later engine.
    fn floors(&self) -> (u64, u64, u32) {
        member::floors(lock(&self.0).member())
    }

    /// The wall clock says `wall` at `now`; until it is told, `now` is the date.
    fn set_wall(&self, now: u64, wall: u64) {
        lock(&self.0).member_mut().set_wall(now, wall);
    }

    /// What validity goes by at `now` (TR-27).
    fn date(&self, now: u64) -> u64 {
        lock(&self.0).member().date(now)
    }

    /// The latest signed time, to be stored and given to a later engine.
    fn signed_time(&self) -> u64 {
        lock(&self.0).member().signed_time()
    }

    /// Whether the policy lists the device, written as TR-13 says, in either list.
    fn is_member(&self, device: &str) -> bool {
        member::is_member(lock(&self.0).member(), device)
    }

    fn epoch(&self, now: u64) -> Option<(u32, u32, u8)> {
        member::epoch(lock(&self.0).member(), now)
    }

    /// Counters by name; refusals under their reason.
    fn counters<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let engine = lock(&self.0);
        let (counters, fields) = (engine.counters(), PyDict::new(py));
        fields.set_item("accepted", counters.accepted)?;
        fields.set_item("repaired", counters.repaired)?;
        fields.set_item("followed", counters.followed)?;
        fields.set_item("rebuilt", counters.rebuilt)?;
        fields.set_item("requests", counters.requests)?;
        fields.set_item("lost", counters.lost)?;
        fields.set_item("heartbeats", counters.heartbeats)?;
        fields.set_item("foreign_successions", counters.foreign_successions)?;
        fields.set_item("signatures", counters.signatures)?;
        fields.set_item("streams", engine.streams().count())?;
        for reason in Rejection::ALL {
            fields.set_item(reason.as_str(), counters.rejected(reason))?;
        }
        Ok(fields)
    }

    /// Each running stream: id, device as the policy writes it, next sequence to resolve, head.
    fn streams<'py>(&self, py: Python<'py>) -> Vec<(Bound<'py, PyBytes>, String, u64, u64)> {
        let engine = lock(&self.0);
        let mut streams: Vec<_> = engine
            .streams()
            .map(|s| {
                (
                    s.publisher.stream,
                    engine.member().name_of(&s.publisher),
                    s.window.next(),
                    s.window.head(),
                )
            })
            .collect();
        streams.sort();
        streams
            .into_iter()
            .map(|(id, device, next, head)| (PyBytes::new(py, &id.0), device, next, head))
            .collect()
    }

    /// Each stream that has not ended: id, device as the policy writes it, when it was last heard.
    fn last_heard<'py>(&self, py: Python<'py>) -> Vec<(Bound<'py, PyBytes>, String, u64)> {
        let engine = lock(&self.0);
        let open = engine.streams().filter(|s| !s.is_finished() && !s.is_succeeded());
        open.map(|s| {
            let id = PyBytes::new(py, &s.publisher.stream.0);
            (id, engine.member().name_of(&s.publisher), s.last_heard)
        })
        .collect()
    }

    /// What a repair node keeps of a stream within `ranges`, for a member admitted at `admission` (generation, step, time of
    /// joining): packets, lowest sequence kept, latest heartbeat. None: it knows nothing of the stream.
    fn served<'py>(
        &self,
        py: Python<'py>,
        stream: &[u8],
        ranges: Vec<(u64, u64)>,
        admission: (u32, u8, u64),
        now: u64,
    ) -> PyResult<Option<Served<'py>>> {
        let stream = StreamId::from_slice(stream).ok_or_else(|| malformed(py, "a stream id"))?;
        let (generation, step, joined) = admission;
        let admission = Admission {
            generation,
            step,
            joined,
        };
        let served = py.detach(|| {
            let found = lock(&self.0).served(&stream, &ranges, &admission, now);
            // A disk may be slow: the engine is not held meanwhile.
            found.map(Found::read)
        });
        Ok(served.map(|served| {
            let packets = served.packets.iter().map(|packet| PyBytes::new(py, packet));
            let head = served.head.as_ref().map(|head| PyBytes::new(py, head));
            (packets.collect(), served.oldest, head)
        }))
    }

    /// One above the highest sequence that a repair node keeps of a stream, and whether its end is; None: it knows nothing of it.
    fn reach(&self, py: Python<'_>, stream: &[u8]) -> PyResult<Option<(u64, bool)>> {
        let stream = StreamId::from_slice(stream).ok_or_else(|| malformed(py, "a stream id"))?;
        Ok(lock(&self.0).reach(&stream))
    }

    /// Have it told when there is more to serve.
    fn await_fresh(&self) {
        lock(&self.0).await_fresh();
    }

    /// The streams of which more can be served since that was awaited, and whether it goes on to be.
    fn take_fresh<'py>(&self, py: Python<'py>, goes_on: bool) -> Vec<Bound<'py, PyBytes>> {
        let fresh = lock(&self.0).take_fresh(goes_on);
        fresh.iter().map(|stream| PyBytes::new(py, &stream.0)).collect()
    }

    /// Has a repair node keep packets in a folder, and takes up what an earlier process has left there.
    ///
    /// `now`, `wall`: what the clock that is never set and the wall clock say. Raises OSError.
    fn use_shelf(
        &self,
        py: Python<'_>,
        folder: PathBuf,
        segment_bytes: u64,
        now: u64,
        wall: u64,
    ) -> PyResult<()> {
        py.detach(|| {
            let mut engine = lock(&self.0);
            let shelf = DiskShelf::open(&folder, segment_bytes, (now, wall), |place, arrived, datagram| {
                engine.restore(place, arrived, datagram);
            });
            let shelf = Arc::new(shelf?);
            engine.use_shelf(Arc::clone(&shelf) as Arc<dyn Shelf>);
            engine.expire_kept(now);
            *lock(&self.1) = Some(shelf);
            Ok(())
        })
    }

    /// Writes what has not been written yet, and keeps nothing any more.
    fn leave_shelf(&self, py: Python<'_>) {
        py.detach(|| {
            lock(&self.0).leave_shelf();
            lock(&self.1).take();
        });
    }

    /// What the disk says, as long as it takes nothing; and how many packets it has not taken since the start.
    fn shelf_trouble(&self) -> (Option<String>, u64) {
        let trouble = lock(&self.1).as_ref().and_then(|shelf| shelf.trouble());
        (trouble, lock(&self.0).unkept())
    }

    /// Drops what is kept beyond its time.
    fn expire_kept(&self, py: Python<'_>, now: u64) {
        py.detach(|| lock(&self.0).expire_kept(now));
    }

    /// Packets and bytes that a repair node keeps.
    fn kept(&self) -> (u64, u64) {
        lock(&self.0).kept()
    }

    /// Numbers of the slot secrets, and of generations and steps, that are held: none of either in a repair node.
    fn held_secrets(&self) -> (Vec<u32>, Vec<(u32, u8)>) {
        let engine = lock(&self.0);
        let admitted = engine.member().admitted();
        admitted.map_or_else(Default::default, |admitted| admitted.keyring.held_epoch_numbers())
    }

    /// A digest of all state that a packet may change: equal before and after a refusal.
    fn fingerprint<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &lock(&self.0).fingerprint())
    }
}

/// The thread between a group's socket and a [`ReceiveEngine`].
#[pyclass(name = "ReceiveDriver", frozen, module = "sealcast._core")]
pub(crate) struct PyReceiveDriver {
    driver: Mutex<Option<ReceiveDriver>>,
    notifier: Arc<Notifier>,
}

#[pymethods]
impl PyReceiveDriver {
    /// `group`, `port`: a multicast group to join, or an own address to listen on. `source`: the only host that is listened to. `notify`: descriptor of a socket that gets
    /// a byte when the engine has output.
    #[new]
    #[pyo3(signature = (engine, *, group, port, interface, notify, source=None, receive_buffer_bytes=16 << 20))]
    #[allow(clippy::too_many_arguments)] // Named in Python.
    fn new(
        py: Python<'_>,
        engine: &ReceiveEngine,
        group: &str,
        port: u16,
        interface: &str,
        notify: i32,
        source: Option<&str>,
        receive_buffer_bytes: usize,
    ) -> PyResult<Self> {
        let address = group
            .parse()
            .map_err(|_| malformed(py, &format!("the address {group:?}")))?;
        let interface = member::interface(py, interface)?;
        let mut config = sealcast_net::ReceiverConfig::new(SocketAddr::new(address, port), interface);
        config.receive_buffer_bytes = receive_buffer_bytes;
        config.source = source
            .map(|source| {
                source
                    .parse()
                    .map_err(|_| malformed(py, &format!("the source {source:?}")))
            })
            .transpose()?;
        let notifier = member::notifier(notify)?;
        let driver = ReceiveDriver::start(Arc::clone(&engine.0), config, Arc::clone(&notifier))
            .map_err(|error| no_socket(py, &error))?;
        Ok(Self {
            driver: Mutex::new(Some(driver)),
            notifier,
        })
    }

    /// To be called before output is taken: what comes later is notified anew.
    fn rearm(&self) {
        self.notifier.rearm();
    }

    fn wake(&self) {
        if let Some(driver) = &*lock(&self.driver) {
            driver.wake();
        }
    }

    /// Datagrams received, datagrams dropped by the kernel, bytes of the socket's buffer, whether the system capped it.
    fn statistics(&self) -> (u64, u64, usize, bool) {
        lock(&self.driver).as_ref().map_or((0, 0, 0, false), |driver| {
            let (bytes, capped) = driver.receive_buffer();
            (driver.datagrams(), driver.dropped_by_kernel(), bytes, capped)
        })
    }

    fn stop(&self, py: Python<'_>) {
        let driver = lock(&self.driver).take();
        py.detach(|| drop(driver));
    }
}
