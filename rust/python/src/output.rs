//! Events and commands as Python sees them.

use std::ffi::c_int;

use pyo3::IntoPyObjectExt;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};
use sealcast_core::credential::Publisher;
use sealcast_core::event::{Claim, Command, Event, Evidence, Message, Response, Target};
use sealcast_core::policy::member_name;
use sealcast_core::wire::{SiteId, StreamId};

/// A verified message. What is asked of it is made when it is asked; it keeps the packet in memory that it came in.
#[pyclass(name = "Message", frozen, module = "sealcast._core")]
pub(crate) struct PyMessage {
    message: Message,
    /// Of the channel.
    site: SiteId,
}

impl PyMessage {
    pub(crate) fn new(message: Message, site: SiteId) -> Self {
        Self { message, site }
    }
}

#[pymethods]
impl PyMessage {
    /// A copy; `memoryview(message)` makes none.
    #[getter]
    fn data<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.message.data)
    }

    #[getter]
    fn topic(&self) -> Option<&str> {
        self.message.topic.as_deref()
    }

    /// As the channel's policy writes it.
    #[getter]
    fn publisher(&self) -> String {
        let publisher = &self.message.publisher;
        member_name(&self.site, &publisher.site, &publisher.device)
    }

    #[getter]
    fn instance(&self) -> &str {
        &self.message.publisher.instance
    }

    #[getter]
    fn site_id<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.message.publisher.site.0)
    }

    #[getter]
    fn stream_id<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.message.publisher.stream.0)
    }

    #[getter]
    fn sequence(&self) -> u64 {
        self.message.sequence
    }

    #[getter]
    fn message_id(&self) -> u64 {
        self.message.message_id
    }

    #[getter]
    fn epoch(&self) -> (u32, u32, u8) {
        let epoch = self.message.epoch;
        (epoch.slot, epoch.generation, epoch.step)
    }

    #[getter]
    fn time(&self) -> u64 {
        self.message.time
    }

    /// Of a last value that was sealed again (DP-45): stream id, sequence and time of the original.
    #[getter]
    fn origin<'py>(&self, py: Python<'py>) -> Option<(Bound<'py, PyBytes>, u64, u64)> {
        let origin = self.message.origin.as_ref()?;
        Some((PyBytes::new(py, &origin.stream.0), origin.sequence, origin.time))
    }

    fn __len__(&self) -> usize {
        self.message.data.len()
    }

    /// The data as a read-only buffer of bytes, which keeps the message alive.
    unsafe fn __getbuffer__(slf: PyRef<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        let py = slf.py();
        let (start, length) = (slf.message.data.as_ptr(), slf.message.data.len());
        // SAFETY: `view` is the interpreter's; the bytes are never changed and live as long as `slf`, which the view owns.
        let filled = unsafe {
            ffi::PyBuffer_FillInfo(
                view,
                slf.as_ptr(),
                start.cast_mut().cast(),
                length as ffi::Py_ssize_t,
                1,
                flags,
            )
        };
        if filled == 0 {
            Ok(())
        } else {
            Err(PyErr::fetch(py))
        }
    }

    fn __repr__(&self) -> String {
        let (sequence, length) = (self.message.sequence, self.message.data.len());
        format!(
            "<Message from {:?}, sequence {sequence}, {length} bytes>",
            self.publisher()
        )
    }
}

type PyPeer = (Py<PyBytes>, String, String, u16);

/// A request that the host is to make.
#[pyclass(name = "Command", frozen, get_all, module = "sealcast._core")]
pub(crate) struct PyCommand {
    id: u64,
    /// None: the key server; else (site id, device, host, port) of peers, in order.
    peers: Option<Vec<PyPeer>>,
    method: &'static str,
    path: String,
    body: Py<PyBytes>,
    timeout: u64,
}

impl PyCommand {
    pub(crate) fn new(py: Python<'_>, command: Command) -> Self {
        let peers = match command.target {
            Target::KeyServer => None,
            Target::Peers(sources) => Some(
                sources
                    .into_iter()
                    .map(|source| {
                        let site = PyBytes::new(py, &source.site.0).unbind();
                        (site, source.device, source.host, source.port)
                    })
                    .collect(),
            ),
        };
        Self {
            id: command.id,
            peers,
            method: command.method,
            path: command.path,
            body: PyBytes::new(py, &command.body).unbind(),
            timeout: command.timeout,
        }
    }
}

/// The engine's view of an answer; no status is no answer.
pub(crate) fn response(status: Option<u16>, body: &[u8]) -> Response<'_> {
    match status {
        Some(status) => Response::Answer { status, body },
        None => Response::Failed,
    }
}

struct Fields<'a, 'py> {
    dict: Bound<'py, PyDict>,
    site: &'a SiteId,
}

impl<'a, 'py> Fields<'a, 'py> {
    fn new(py: Python<'py>, site: &'a SiteId) -> Self {
        Self {
            dict: PyDict::new(py),
            site,
        }
    }

    fn with(self, name: &str, value: impl IntoPyObjectExt<'py>) -> PyResult<Self> {
        let py = self.dict.py();
        self.dict.set_item(name, value.into_bound_py_any(py)?)?;
        Ok(self)
    }

    fn stream(self, name: &str, id: Option<StreamId>) -> PyResult<Self> {
        let bytes = id.map(|id| PyBytes::new(self.dict.py(), &id.0));
        self.with(name, bytes)
    }

    fn publisher(self, publisher: &Publisher) -> PyResult<Self> {
        let name = member_name(self.site, &publisher.site, &publisher.device);
        self.with("publisher", name)?
            .with("instance", publisher.instance.as_str())?
            .stream("stream_id", Some(publisher.stream))
    }

    fn evidence(self, name: &str, evidence: Option<&Evidence>) -> PyResult<Self> {
        let py = self.dict.py();
        let Some(evidence) = evidence else {
            return self.with(name, py.None());
        };
        let (statement, signature) = (
            PyBytes::new(py, &evidence.statement),
            PyBytes::new(py, &evidence.signature),
        );
        let body = PyBytes::new(py, &evidence.body);
        self.with(name, (statement, signature, evidence.index, body))
    }

    fn claim(self, name: &str, claim: &Claim) -> PyResult<Self> {
        let bundle = claim.credential.as_deref();
        let bundle = bundle.map(|bundle| PyBytes::new(self.dict.py(), bundle));
        self.stream(name, Some(claim.stream))?
            .with(&format!("{name}_credential"), bundle)
    }
}

/// A message as it is; any other event as its name and its fields. `site` is the channel's.
pub(crate) fn event(py: Python<'_>, event: Event, site: &SiteId) -> PyResult<Py<PyAny>> {
    let fields = Fields::new(py, site);
    let (name, fields) = match event {
        Event::Message(message) => return PyMessage::new(message, *site).into_py_any(py),
        Event::Joined { epoch } => (
            "joined",
            fields.with("epoch", (epoch.slot, epoch.generation, epoch.step))?,
        ),
        Event::EpochChanged { epoch } => (
            "epoch-changed",
            fields.with("epoch", (epoch.slot, epoch.generation, epoch.step))?,
        ),
        Event::Gap {
            publisher,
            first,
            last,
        } => (
            "gap",
            fields
                .publisher(&publisher)?
                .with("first", first)?
                .with("last", last)?,
        ),
        Event::MessageLost {
            publisher,
            message_id,
            reason,
        } => (
            "message-lost",
            fields
                .publisher(&publisher)?
                .with("message_id", message_id)?
                .with("reason", reason)?,
        ),
        Event::StreamStarted { publisher, succeeds } => (
            "stream-started",
            fields.publisher(&publisher)?.stream("succeeds", succeeds)?,
        ),
        Event::StreamEnded {
            publisher,
            next_sequence,
            successor,
        } => (
            "stream-ended",
            fields
                .publisher(&publisher)?
                .with("next_sequence", next_sequence)?
                .stream("successor", successor)?,
        ),
        Event::StreamClosed { publisher, reason } => (
            "stream-closed",
            fields.publisher(&publisher)?.with("reason", reason)?,
        ),
        Event::Equivocation {
            publisher,
            sequence,
            first,
            second,
        } => (
            "equivocation",
            fields
                .publisher(&publisher)?
                .with("sequence", sequence)?
                .evidence("first", first.as_ref())?
                .evidence("second", Some(&second))?,
        ),
        Event::SuccessionConflict {
            predecessor,
            first,
            second,
        } => (
            "succession-conflict",
            fields
                .stream("predecessor", Some(predecessor))?
                .claim("first", &first)?
                .claim("second", &second)?,
        ),
        Event::CommitmentMismatch { detail } => ("commitment-mismatch", fields.with("detail", detail)?),
        Event::PolicyChanged { version } => ("policy-changed", fields.with("version", version)?),
        Event::Refused { reason } => ("refused", fields.with("reason", reason)?),
        Event::OutOfContact { since } => ("out-of-contact", fields.with("since", since)?),
        Event::SourcePassedOver { source, reason } => (
            "source-passed-over",
            fields
                .with("source", member_name(site, &source.site, &source.device))?
                .with("endpoint", (source.host, source.port))?
                .with("reason", reason)?,
        ),
        Event::FileReport { device, report } => (
            "file-report",
            fields
                .with("device", device)?
                .with("report", PyBytes::new(py, &report))?,
        ),
        Event::Blocked { reason } => ("blocked", fields.with("reason", reason)?),
    };
    (name, fields.dict).into_py_any(py)
}
