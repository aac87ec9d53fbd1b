//! Many datagrams per system call, into and out of memory that is allocated once.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

#[cfg(target_os = "linux")]
use crate::mmsg as system;
use crate::socket::{MulticastReceiver, MulticastSender};
use crate::wake::Waited;

/// The most datagrams that one system call sends; a longer batch takes several.
pub const SEND_BATCH: usize = 64;

/// Room for datagrams one by one: above what any Ethernet without jumbo frames carries.
const DATAGRAM_SLOTS: Slots = Slots {
    count: 64,
    bytes: 2_048,
};

/// Room for what receive offload joins: up to 64 KiB each. The odd KiB keeps the slots from sharing cache sets.
const OFFLOAD_SLOTS: Slots = Slots {
    count: 16,
    bytes: 65 * 1_024,
};

#[derive(Clone, Copy, Debug)]
struct Slots {
    count: usize,
    bytes: usize,
}

/// One received datagram within the storage of [`RecvBuffers`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece {
    pub(crate) start: usize,
    pub(crate) length: usize,
    pub(crate) source: Option<SocketAddr>,
}

/// Memory for one batch of received datagrams; made by [`MulticastReceiver::buffers`], used over and over.
#[derive(Debug)]
pub struct RecvBuffers {
    pub(crate) storage: Box<[u8]>,
    pub(crate) slot_bytes: usize,
    pub(crate) pieces: Vec<Piece>,
    pub(crate) oversized: u64,
}

impl RecvBuffers {
    fn new(slots: Slots) -> Self {
        Self {
            storage: vec![0; slots.count * slots.bytes].into_boxed_slice(),
            slot_bytes: slots.bytes,
            pieces: Vec::with_capacity(slots.count * 64),
            oversized: 0,
        }
    }

    /// How many datagrams the last batch brought.
    pub fn len(&self) -> usize {
        self.pieces.len()
    }

    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// The datagrams of the last batch, in the order of arrival.
    pub fn datagrams(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.pieces
            .iter()
            .map(|piece| &self.storage[piece.start..piece.start + piece.length])
    }

    /// Where a datagram of the last batch says it comes from: for diagnosis only, anyone can write what they like there.
    pub fn source(&self, position: usize) -> Option<SocketAddr> {
        self.pieces.get(position)?.source
    }

    /// Datagrams dropped since the start because they were larger than a slot; no packet of ours is.
    pub fn oversized(&self) -> u64 {
        self.oversized
    }
}

impl MulticastSender {
    /// Sends the datagrams in order and says how many went out. Fewer than all means that the next one met an error,
    /// which a call with the rest returns; an error means that none went out.
    pub fn send_batch(&self, datagrams: &[&[u8]]) -> io::Result<usize> {
        let mut sent = 0;
        while sent < datagrams.len() {
            let end = datagrams.len().min(sent + SEND_BATCH);
            match self.send_some(&datagrams[sent..end]) {
                Ok(count) => sent += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if sent == 0 => return Err(error),
                Err(_) => break,
            }
        }
        Ok(sent)
    }

    /// Sends a few of at most [`SEND_BATCH`] datagrams, one at least.
    fn send_some(&self, datagrams: &[&[u8]]) -> io::Result<usize> {
        #[cfg(target_os = "linux")]
        match system::send_some(self, datagrams) {
            // A sandbox may lack the call for many.
            Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => {}
            result => return result,
        }
        self.send_one(datagrams[0]).map(|()| 1)
    }

    fn send_one(&self, datagram: &[u8]) -> io::Result<()> {
        self.socket.send_to(datagram, self.destination).map(|_| ())
    }
}

impl MulticastReceiver {
    /// Memory that fits this receiver's batches.
    pub fn buffers(&self) -> RecvBuffers {
        RecvBuffers::new(if self.receive_offload {
            OFFLOAD_SLOTS
        } else {
            DATAGRAM_SLOTS
        })
    }

    /// Waits for datagrams and takes as many as are there and fit, replacing what `buffers` held.
    ///
    /// Returns how many. 0 means that the time is over (`None`: never) or that a [`crate::Waker`] was used; the caller
    /// knows from its own state which matters. A waker is looked at only when nothing is there to receive, so a caller
    /// under load looks at its state after each batch.
    pub fn recv_batch(&mut self, buffers: &mut RecvBuffers, timeout: Option<Duration>) -> io::Result<usize> {
        // A wait too long for the clock to tell its end is for ever.
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        loop {
            buffers.pieces.clear();
            match self.take(buffers) {
                Ok(()) if !buffers.is_empty() => return Ok(buffers.len()),
                Ok(()) => {} // all were oversized
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    match self.wake_up.wait(&self.socket, deadline)? {
                        Waited::Readable => {}
                        Waited::Woken | Waited::TimedOut => return Ok(0),
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Takes what is there, without waiting.
    fn take(&self, buffers: &mut RecvBuffers) -> io::Result<()> {
        #[cfg(target_os = "linux")]
        match system::take(self, buffers) {
            Err(error) if error.raw_os_error() == Some(libc::ENOSYS) && !self.receive_offload => {}
            result => return result,
        }
        self.take_one_by_one(buffers)
    }

    fn take_one_by_one(&self, buffers: &mut RecvBuffers) -> io::Result<()> {
        for (position, slot) in buffers.storage.chunks_exact_mut(buffers.slot_bytes).enumerate() {
            match self.socket.recv_from(slot) {
                // Unix cuts what is longer to the slot without a word: a full slot is taken for a cut one.
                Ok((length, _)) if length == slot.len() => buffers.oversized += 1,
                Ok((length, source)) => {
                    let start = position * buffers.slot_bytes;
                    buffers.pieces.push(Piece {
                        start,
                        length,
                        source: Some(source),
                    });
                }
                Err(error) if is_cut(&error) => buffers.oversized += 1,
                // What came before is delivered first; the next call meets the error again.
                Err(_) if position > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Whether an error means that a datagram was longer than its slot; Windows says so.
fn is_cut(error: &io::Error) -> bool {
    const WSAEMSGSIZE: i32 = 10_040;
    cfg!(windows) && error.raw_os_error() == Some(WSAEMSGSIZE)
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;
    use crate::{Interface, ReceiverConfig, SenderConfig};

    /// The paths of systems without calls for many, tried where those calls exist too.
    #[test]
    fn one_by_one_works_like_many() {
        let interface = Interface::resolve("127.0.0.1").unwrap();
        let port = UdpSocket::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let group = SocketAddr::from(([239, 255, 79, 1], port));
        let config = ReceiverConfig {
            receive_offload: false,
            ..ReceiverConfig::new(group, interface.clone())
        };
        let receiver = MulticastReceiver::open(config).unwrap();
        let sender = MulticastSender::open(SenderConfig::new(group, interface)).unwrap();
        let mut buffers = receiver.buffers();
        let nothing = receiver.take_one_by_one(&mut buffers).unwrap_err();
        assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
        for datagram in [&b"one"[..], &[0; 3_000], b"two"] {
            sender.send_one(datagram).unwrap();
        }
        receiver.take_one_by_one(&mut buffers).unwrap();
        assert_eq!(buffers.datagrams().collect::<Vec<_>>(), [b"one", b"two"]);
        assert_eq!(buffers.oversized(), 1);
        assert!(buffers.source(1).unwrap().ip().is_loopback());
        assert_eq!(buffers.source(2), None);
    }
}
