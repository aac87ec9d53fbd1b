//! Multicast UDP for Sealcast: interfaces, sockets, batches of datagrams and pacing; a repair node's packets on disk; and how many
//! subscribers a device has.
//!
//! The sockets know nothing of packets: they move datagrams; only the two drivers know the engine that they run. A site's addresses come in as values that the caller has
//! read from its configuration; what the system refuses comes back as a [`NetError`] that names the value and the cure.
//!
//! Linux is the platform it is made for. Elsewhere the same API works with less behind it:
//!
//! | | Linux | other Unix | Windows |
//! | --- | --- | --- | --- |
//! | sending | `sendmmsg`, segmentation offload | one call a datagram | one call a datagram |
//! | receiving | `recvmmsg`, receive offload | one call a datagram | one call a datagram |
//! | waiting | `ppoll` and an eventfd | `poll` and a pipe | events |
//! | interface named by | name or address | name or address | IPv4 address |
//! | bound to | the group | the group | every address |

mod batch;
mod driver;
mod error;
mod interface;
#[cfg(target_os = "linux")]
mod mmsg;
mod pacing;
mod presence;
mod receive_driver;
#[cfg(all(test, target_os = "linux"))]
mod refusals;
mod send_driver;
mod shelf;
mod socket;
mod sockopt;
mod wake;

pub use batch::{RecvBuffers, SEND_BATCH};
pub use driver::{Notifier, steady_clock, wall_clock};
pub use error::NetError;
pub use interface::Interface;
pub use pacing::Pacer;
pub use presence::Presence;
pub use receive_driver::ReceiveDriver;
pub use send_driver::SendDriver;
pub use shelf::DiskShelf;
pub use socket::{BufferSize, MulticastReceiver, MulticastSender, ReceiverConfig, SenderConfig};
pub use wake::{SignalSocket, Waker};
