//! The publisher's engine and the thread that seals, paces and sends.

use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyBytes, PyDict};
use sealcast_core::event::Event;
use sealcast_core::fec::{Fec, Ratio};
use sealcast_core::sender::{LARGE_BYTES, RetainLimits, SendError, Sender, SenderConfig, gather};
use sealcast_core::wire::StreamId;
use sealcast_net::{Notifier, SendDriver};

use crate::error::{credential_not_taken, malformed, no_socket, not_sent};
use crate::member;
use crate::output::{PyCommand, event, response};
use crate::trust::{AnchorArgument, lock, secret, site, sixteen, thirty_two, validator};

/// A publisher without I/O: messages, answers and time go in; datagrams, events and commands come out.
#[pyclass(frozen, module = "sealcast._core")]
pub(crate) struct SendEngine(Arc<Mutex<Sender>>);

fn stream(bytes: Option<&[u8]>) -> PyResult<Option<StreamId>> {
    bytes
        .map(|id| StreamId::from_slice(id).ok_or_else(|| PyValueError::new_err("a stream id has 16 bytes")))
        .transpose()
}

/// As `member::policy` gives it: data and parity packets of a group, or a word.
#[derive(FromPyObject)]
enum FecArgument {
    Ratio((u8, u8)),
    Word(String),
}

impl FecArgument {
    fn read(self) -> PyResult<Fec> {
        match self {
            Self::Ratio((sources, parities)) => {
                Ratio::new(sources, parities).map(Fec::Fixed).ok_or_else(|| {
                    PyValueError::new_err(format!("no parity of {parities} packets for {sources}"))
                })
            }
            Self::Word(word) if word == "auto" => Ok(Fec::Adaptive),
            Self::Word(word) if word == "off" => Ok(Fec::Off),
            Self::Word(word) => Err(PyValueError::new_err(format!("there is no parity {word:?}"))),
        }
    }
}

#[pymethods]
impl SendEngine {
    #[new]
    #[pyo3(signature = (*, site_id, channel, device_site_id, device, anchors, issuers, now, jitter_seed, seed, start_nonce, instance="",
                        mtu=1500, max_block=64, fec=None, fec_delay=100_000, max_message_bytes=16 << 20, queue_bytes=64 << 20,
                        retain_topics=0, retain_bytes=0, adaptive_rate=true,
                        policy_version_floor=0, crl_number_floor=0, generation_floor=0, signed_time=0, crl=None, crl_numbers=vec![]))]
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
        seed: &[u8],
        start_nonce: &[u8],
        instance: &str,
        mtu: usize,
        max_block: u8,
        fec: Option<FecArgument>,
        fec_delay: u64,
        max_message_bytes: u64,
        queue_bytes: u64,
        retain_topics: usize,
        retain_bytes: u64,
        adaptive_rate: bool,
        policy_version_floor: u64,
        crl_number_floor: u64,
        generation_floor: u32,
        signed_time: u64,
        crl: Option<Vec<u8>>,
        crl_numbers: Vec<(Vec<u8>, u64)>,
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
        if !(576..=9000).contains(&mtu) {
            return Err(PyValueError::new_err(format!(
                "an MTU of {mtu} bytes is not between 576 and 9000"
            )));
        }
        let mut config = SenderConfig::new(member, secret(seed)?, sixteen(start_nonce, "a start nonce")?);
        instance.clone_into(&mut config.instance);
        config.mtu = mtu;
        config.max_block = max_block;
        config.fec = fec.map(FecArgument::read).transpose()?;
        config.fec_delay = fec_delay;
        config.adaptive_rate = adaptive_rate;
        config.max_message_bytes = max_message_bytes;
        config.queue_bytes = queue_bytes;
        config.retain = RetainLimits {
            topics: retain_topics,
            bytes: retain_bytes,
        };
        Ok(Self(Arc::new(Mutex::new(Sender::new(config, now)))))
    }

    /// What share of the packets, in thousandths, the worse of the subscribers lose; for adaptive parity.
    fn set_loss(&self, permille: u16) {
        lock(&self.0).set_loss(permille);
    }

    /// A subscriber reports what it lost of the packets sent in a moment. Returns the milliseconds after which its next report is
    /// wanted; None: there are too many for now.
    fn take_report(&self, device: &str, lost: u64, sent: u64, now: u64) -> Option<u64> {
        lock(&self.0).take_report(device, (lost, sent), now)
    }

    /// The parity of the packets that come: data and parity packets of a group, "auto" or "off".
    #[getter]
    fn fec(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        member::fec(py, lock(&self.0).fec())
    }

    /// What of the policy's rate is sent at, in thousandths.
    #[getter]
    fn pace(&self) -> u16 {
        lock(&self.0).pace()
    }

    #[getter]
    fn stream_id<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &lock(&self.0).stream().0)
    }

    /// Queues a message; returns its id.
    #[pyo3(signature = (data, topic=None))]
    fn send(&self, py: Python<'_>, data: PyBackedBytes, topic: Option<&str>) -> PyResult<u64> {
        // What is large is used where it lies: its memory is Python's until the last part is sealed.
        let data = if data.len() as u64 > LARGE_BYTES {
            Bytes::from_owner(data)
        } else {
            Bytes::copy_from_slice(&data)
        };
        lock(&self.0)
            .send(topic, data)
            .map_err(|error| not_sent(py, error))
    }

    /// Queues messages until the queue is full; returns how many were taken.
    #[pyo3(signature = (messages, topic=None))]
    fn send_many(
        &self,
        py: Python<'_>,
        messages: Vec<PyBackedBytes>,
        topic: Option<&str>,
    ) -> PyResult<usize> {
        let taken = py.detach(|| {
            let parts: Vec<&[u8]> = messages.iter().map(|message| &message[..]).collect();
            let room = lock(&self.0).room();
            let parts = gather(&parts, room);
            lock(&self.0).send_many(topic, parts)
        });
        match taken {
            Ok(taken) => Ok(taken),
            Err(SendError::QueueFull) => Ok(0),
            Err(error) => Err(not_sent(py, error)),
        }
    }

    /// Seals the next block; for hosts without a driver. Returns how many packets became ready.
    fn seal_block(&self, now: u64, randomness: &[u8]) -> PyResult<usize> {
        let randomness = sixteen(randomness, "the randomness")?;
        Ok(lock(&self.0).seal_block(now, randomness))
    }

    /// Datagrams that are ready for the group, at most `limit`; for hosts without a driver.
    fn poll_transmit<'py>(&self, py: Python<'py>, limit: usize) -> Vec<Bound<'py, PyBytes>> {
        let mut engine = lock(&self.0);
        std::iter::from_fn(|| engine.poll_transmit())
            .take(limit)
            .map(|d| PyBytes::new(py, &d))
            .collect()
    }

    fn poll_events(&self, py: Python<'_>, limit: usize) -> PyResult<Vec<Py<PyAny>>> {
        let (taken, site): (Vec<Event>, _) = {
            let mut engine = lock(&self.0);
            let taken = std::iter::from_fn(|| engine.poll_event()).take(limit).collect();
            (taken, engine.member().config.site)
        };
        taken.into_iter().map(|taken| event(py, taken, &site)).collect()
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

    /// Does what is due; `randomness`: 32 fresh bytes, for up to two blocks.
    fn handle_deadline(&self, now: u64, randomness: &[u8]) -> PyResult<()> {
        let (first, second) = randomness.split_at(randomness.len() / 2);
        let what = "each half of the randomness";
        let randomness = [sixteen(first, what)?, sixteen(second, what)?];
        lock(&self.0).handle_deadline(now, randomness);
        Ok(())
    }

    /// What the device key has to sign (TR-11); None before the join.
    #[pyo3(signature = (*, site_id, name, certificate_hash, not_before, not_after, succeeds=None))]
    #[allow(clippy::too_many_arguments)] // Named in Python.
    fn credential_tbs<'py>(
        &self,
        py: Python<'py>,
        site_id: &[u8],
        name: &str,
        certificate_hash: &[u8],
        not_before: u64,
        not_after: u64,
        succeeds: Option<&[u8]>,
    ) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let hash = thirty_two(certificate_hash, "a certificate hash")?;
        let (site, succeeds) = (site(site_id)?, stream(succeeds)?);
        let tbs = lock(&self.0).credential_tbs(site, name, hash, not_before, not_after, succeeds);
        Ok(tbs.map(|tbs| PyBytes::new(py, &tbs)))
    }

    /// Takes the signed credential and its chain, DER, end entity first.
    fn set_credential(
        &self,
        py: Python<'_>,
        signed: &[u8],
        chain: Vec<Vec<u8>>,
        not_after: u64,
        now: u64,
    ) -> PyResult<()> {
        lock(&self.0)
            .set_credential(signed, &chain, not_after, now)
            .map_err(|error| credential_not_taken(py, &error))
    }

    /// Has repair nodes asked what they want, in place of an endpoint; before the join.
    fn serve_outbound(&self) {
        lock(&self.0).serve_outbound();
    }

    fn set_endpoint(&self, host: &str, port: u16) {
        lock(&self.0).set_endpoint(host.to_owned(), port);
    }

    /// The stream that this device and instance published before, as the directory says.
    fn predecessor<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyBytes>> {
        lock(&self.0).predecessor().map(|id| PyBytes::new(py, &id.0))
    }

    #[getter]
    fn is_registered(&self) -> bool {
        lock(&self.0).is_registered()
    }

    #[getter]
    fn is_finished(&self) -> bool {
        lock(&self.0).is_finished()
    }

    #[getter]
    fn has_queued(&self) -> bool {
        let engine = lock(&self.0);
        engine.has_queued() || engine.has_transmit()
    }

    #[getter]
    fn payload_limit(&self) -> usize {
        lock(&self.0).payload_limit()
    }

    /// For tests of what happens where numbers end: those of the first packet and message, before the join.
    fn _begin_at(&self, sequence: u64, message_id: u64) {
        lock(&self.0).begin_at(sequence, message_id);
    }

    #[getter]
    fn next_sequence(&self) -> u64 {
        lock(&self.0).next_sequence()
    }

    /// Ends the stream once all that is queued is sealed.
    #[pyo3(signature = (now, successor=None))]
    fn finish(&self, now: u64, successor: Option<&[u8]>) -> PyResult<()> {
        let successor = stream(successor)?;
        lock(&self.0).finish(successor, now);
        Ok(())
    }

    /// Drops what waits for sealing, so that the end can be said at once.
    fn abandon(&self) {
        lock(&self.0).abandon();
    }

    /// Packets that are still held of `ranges`, the oldest sequence held, the latest heartbeat (SC-8).
    #[allow(clippy::type_complexity)]
    fn repair<'py>(
        &self,
        py: Python<'py>,
        ranges: Vec<(u64, u64)>,
        now: u64,
    ) -> (Vec<Bound<'py, PyBytes>>, u64, Option<Bound<'py, PyBytes>>) {
        let mut engine = lock(&self.0);
        let (packets, oldest) = engine.repair(&ranges, now);
        let head = engine.head().map(|head| PyBytes::new(py, head));
        (
            packets.iter().map(|packet| PyBytes::new(py, packet)).collect(),
            oldest,
            head,
        )
    }

    /// One above the highest sequence that is retained, and whether the end of the stream has been said.
    fn reach(&self) -> (u64, bool) {
        lock(&self.0).reach()
    }

    /// Have it told when there is more to serve.
    fn await_fresh(&self) {
        lock(&self.0).await_fresh();
    }

    /// The stream, if more of it can be served since that was awaited, and whether it goes on to be.
    fn take_fresh<'py>(&self, py: Python<'py>, goes_on: bool) -> Vec<Bound<'py, PyBytes>> {
        let mut engine = lock(&self.0);
        let fresh = engine.take_fresh(goes_on).then(|| engine.stream());
        fresh.iter().map(|stream| PyBytes::new(py, &stream.0)).collect()
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
        lock(&self.0)
            .member_mut()
            .set_trust(validator(py, &anchors, &issuers)?, now);
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

    /// What is sealed at `now` bears about this time.
    fn sealing_date(&self, now: u64) -> u64 {
        lock(&self.0).member().sealing_date(now)
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

    fn counters<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let engine = lock(&self.0);
        let (counters, fields) = (engine.counters(), PyDict::new(py));
        fields.set_item("messages", counters.messages)?;
        fields.set_item("abandoned", counters.abandoned)?;
        fields.set_item("packets", counters.packets)?;
        fields.set_item("blocks", counters.blocks)?;
        fields.set_item("bytes", counters.bytes)?;
        fields.set_item("parity", counters.parity)?;
        fields.set_item("repairs_served", counters.repairs_served)?;
        fields.set_item("pace", engine.pace())?;
        fields.set_item("queued_bytes", engine.queued_bytes())?;
        Ok(fields)
    }
}

/// The thread between a [`SendEngine`] and the group's socket.
#[pyclass(name = "SendDriver", frozen, module = "sealcast._core")]
pub(crate) struct PySendDriver {
    driver: Mutex<Option<SendDriver>>,
    notifier: Arc<Notifier>,
}

#[pymethods]
impl PySendDriver {
    /// `rate`: bits per second. `notify`: descriptor of a socket that gets a byte when the engine has output.
    #[new]
    #[pyo3(signature = (engine, *, group, port, interface, rate, notify, ttl=1, dscp=0))]
    #[allow(clippy::too_many_arguments)] // Named in Python.
    fn new(
        py: Python<'_>,
        engine: &SendEngine,
        group: &str,
        port: u16,
        interface: &str,
        rate: u64,
        notify: i32,
        ttl: u8,
        dscp: u8,
    ) -> PyResult<Self> {
        let address = group
            .parse()
            .map_err(|_| malformed(py, &format!("the address {group:?}")))?;
        let rate =
            NonZeroU64::new(rate).ok_or_else(|| PyValueError::new_err("a rate of 0 bit/s sends nothing"))?;
        let interface = member::interface(py, interface)?;
        let mut config = sealcast_net::SenderConfig::new(SocketAddr::new(address, port), interface);
        config.ttl = ttl;
        config.dscp = dscp;
        let notifier = member::notifier(notify)?;
        let driver = SendDriver::start(Arc::clone(&engine.0), config, rate, Arc::clone(&notifier))
            .map_err(|error| no_socket(py, &error))?;
        Ok(Self {
            driver: Mutex::new(Some(driver)),
            notifier,
        })
    }

    fn rearm(&self) {
        self.notifier.rearm();
    }

    fn wake(&self) {
        if let Some(driver) = &*lock(&self.driver) {
            driver.wake();
        }
    }

    /// Notify once when the queue has drained by half.
    fn want_room(&self) {
        if let Some(driver) = &*lock(&self.driver) {
            driver.want_room();
        }
    }

    /// Datagrams sent, sends that the system refused, and its number for the last of them.
    fn statistics(&self) -> (u64, u64, i32) {
        lock(&self.driver).as_ref().map_or((0, 0, 0), |driver| {
            (driver.sent(), driver.errors(), driver.last_error())
        })
    }

    fn stop(&self, py: Python<'_>) {
        let driver = lock(&self.driver).take();
        py.detach(|| drop(driver));
    }
}
