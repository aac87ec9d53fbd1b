//! A socket that sends to a group, and one that receives from it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
#[cfg(target_os = "linux")]
use std::sync::atomic::AtomicBool;

use socket2::{Domain, InterfaceIndexOrAddress, Protocol, SockAddr, Socket, Type};

use crate::error::NetError;
use crate::interface::Interface;
use crate::sockopt;
use crate::wake::{WakeUp, Waker};

pub use crate::sockopt::BufferSize;

/// Room for 30 ms of a 4 Gbit/s stream in which the receiving thread does not run.
const DEFAULT_RECEIVE_BUFFER_BYTES: usize = 16 << 20;

/// Enough for several batches in flight; more would only add delay behind the pacing.
const DEFAULT_SEND_BUFFER_BYTES: usize = 1 << 20;

/// How a [`MulticastSender`] sends.
#[derive(Clone, Debug)]
pub struct SenderConfig {
    /// Where to: a multicast address and a port that is not 0.
    pub group: SocketAddr,
    pub interface: Interface,
    /// Routers that a datagram may pass, plus 1; default 1: it stays on the network that it was sent on.
    pub ttl: u8,
    /// Whether receivers on this machine get it too; default yes.
    pub loopback: bool,
    /// Differentiated services code point, 0 to 63; default 0, best effort.
    pub dscp: u8,
    pub send_buffer_bytes: usize,
    /// Whether a datagram above the interface's MTU is cut up by the system instead of refused; default no, since one
    /// lost fragment loses the datagram. Only Linux can refuse.
    pub allow_fragments: bool,
    /// Whether datagrams of one size are handed to the system as one (`UDP_SEGMENT`), where it can; default yes.
    ///
    /// On the wire nothing changes. Turn it off where something below the socket counts or loses whole buffers, as
    /// `tc netem` does: it would lose 40 datagrams where one was meant.
    pub segmentation_offload: bool,
}

impl SenderConfig {
    pub fn new(group: SocketAddr, interface: Interface) -> Self {
        Self {
            group,
            interface,
            ttl: 1,
            loopback: true,
            dscp: 0,
            send_buffer_bytes: DEFAULT_SEND_BUFFER_BYTES,
            allow_fragments: false,
            segmentation_offload: true,
        }
    }
}

/// How a [`MulticastReceiver`] receives.
#[derive(Clone, Debug)]
pub struct ReceiverConfig {
    /// What to receive: a group to join, or an address of this machine, to receive unicast (behind a relay or in a
    /// test); port 0 there lets the system choose.
    pub group: SocketAddr,
    pub interface: Interface,
    /// The only host whose datagrams are wanted: source-specific multicast (RFC 4607), by IGMPv3 or MLDv2. None: any source.
    pub source: Option<IpAddr>,
    pub receive_buffer_bytes: usize,
    /// Whether the system may hand over datagrams of one size as one (`UDP_GRO`), where it can; default yes.
    pub receive_offload: bool,
}

impl ReceiverConfig {
    pub fn new(group: SocketAddr, interface: Interface) -> Self {
        Self {
            group,
            interface,
            source: None,
            receive_buffer_bytes: DEFAULT_RECEIVE_BUFFER_BYTES,
            receive_offload: true,
        }
    }
}

/// Sends datagrams to one group out of one interface. Blocks while the send buffer is full; any thread may send.
#[derive(Debug)]
pub struct MulticastSender {
    pub(crate) socket: UdpSocket,
    pub(crate) destination: SocketAddr,
    /// Cleared for good when the system refuses the offload for this route.
    #[cfg(target_os = "linux")]
    pub(crate) segmentation_offload: AtomicBool,
    group: SocketAddr,
    send_buffer: BufferSize,
    max_datagram_bytes: usize,
}

impl MulticastSender {
    pub fn open(config: SenderConfig) -> Result<Self, NetError> {
        let SenderConfig { group, interface, .. } = config;
        if !group.ip().is_multicast() {
            return Err(NetError::NotMulticast { address: group.ip() });
        }
        if group.port() == 0 {
            return Err(NetError::NoPort { group });
        }
        interface.check_usable(group.ip())?;
        let socket = udp_socket(group)?;
        let setting = |option: &str| format!("set {option} for sending to {group}");
        let class = u32::from(config.dscp) << 2; // the lower two bits are ECN's
        let ttl = u32::from(config.ttl);
        match group {
            SocketAddr::V4(_) => {
                sockopt::set_multicast_interface_v4(&socket, &interface)
                    .and_then(|()| socket.set_multicast_ttl_v4(ttl))
                    .and_then(|()| socket.set_multicast_loop_v4(config.loopback))
                    .map_err(|error| NetError::system(setting("interface, TTL and loopback"), error))?;
                socket
                    .set_tos_v4(class)
                    .map_err(|error| NetError::system(setting("DSCP"), error))?;
            }
            SocketAddr::V6(_) => {
                socket
                    .set_multicast_if_v6(interface.index)
                    .and_then(|()| socket.set_multicast_hops_v6(ttl))
                    .and_then(|()| socket.set_multicast_loop_v6(config.loopback))
                    .map_err(|error| NetError::system(setting("interface, hop limit and loopback"), error))?;
                #[cfg(unix)]
                socket
                    .set_tclass_v6(class)
                    .map_err(|error| NetError::system(setting("DSCP"), error))?;
            }
        }
        if !config.allow_fragments {
            sockopt::forbid_fragments(&socket, group.is_ipv6())
                .map_err(|error| NetError::system(setting("the ban on fragments"), error))?;
        }
        let send_buffer = sockopt::set_send_buffer(&socket, config.send_buffer_bytes)
            .map_err(|error| NetError::system(setting("the send buffer"), error))?;
        Ok(Self {
            destination: on_interface(group, &interface),
            #[cfg(target_os = "linux")]
            segmentation_offload: AtomicBool::new(
                config.segmentation_offload && sockopt::supports_segmentation_offload(&socket),
            ),
            socket: socket.into(),
            group,
            send_buffer,
            max_datagram_bytes: max_datagram_bytes(group, &interface),
        })
    }

    pub fn group(&self) -> SocketAddr {
        self.group
    }

    pub fn send_buffer(&self) -> BufferSize {
        self.send_buffer
    }

    /// The largest datagram that fits the interface's MTU as it was when opened, in bytes of UDP payload; larger ones
    /// are refused (`EMSGSIZE`) unless fragments were allowed.
    pub fn max_datagram_bytes(&self) -> usize {
        self.max_datagram_bytes
    }
}

/// Receives the datagrams of one group on one interface.
///
/// Several programs may receive the same group and port. Nothing is ever sent from this socket, the reports of group
/// membership by the kernel aside.
#[derive(Debug)]
pub struct MulticastReceiver {
    pub(crate) socket: UdpSocket,
    pub(crate) wake_up: WakeUp,
    pub(crate) receive_offload: bool,
    local_address: SocketAddr,
    receive_buffer: BufferSize,
}

impl MulticastReceiver {
    pub fn open(config: ReceiverConfig) -> Result<Self, NetError> {
        let ReceiverConfig {
            group,
            interface,
            source,
            receive_buffer_bytes,
            receive_offload,
        } = config;
        if let Some(source) = source {
            check_source(group.ip(), source)?;
        }
        let socket = udp_socket(group)?;
        if group.ip().is_multicast() {
            interface.check_usable(group.ip())?;
            share_port(&socket).map_err(|error| NetError::system(format!("share {group}"), error))?;
        }
        // Before the bind, so that nothing arrives at a small buffer.
        let receive_buffer = sockopt::set_receive_buffer(&socket, receive_buffer_bytes)
            .map_err(|error| NetError::system(format!("set the receive buffer for {group}"), error))?;
        let receive_offload =
            receive_offload && sockopt::takes_many(&socket) && sockopt::enable_receive_offload(&socket);
        bind(&socket, group, &interface)?;
        if group.ip().is_multicast() {
            join(&socket, group.ip(), source, &interface)?;
        }
        let opened = || -> io::Result<Self> {
            socket.set_nonblocking(true)?;
            let socket = UdpSocket::from(socket);
            let local_address = socket.local_addr()?;
            Ok(Self {
                socket,
                wake_up: WakeUp::new()?,
                receive_offload,
                local_address,
                receive_buffer,
            })
        };
        opened().map_err(|error| NetError::system(format!("receive on {group}"), error))
    }

    /// Where it listens; with the port that the system chose.
    pub fn local_address(&self) -> SocketAddr {
        self.local_address
    }

    pub fn receive_buffer(&self) -> BufferSize {
        self.receive_buffer
    }

    /// Something for other threads to end [`MulticastReceiver::recv_batch`] by.
    pub fn waker(&self) -> Waker {
        self.wake_up.waker()
    }

    /// Datagrams that the kernel dropped here because the receive buffer was full, modulo 2^32; `None` where the
    /// system does not tell (other than Linux).
    pub fn dropped_by_kernel(&self) -> Option<u32> {
        sockopt::dropped_by_kernel(&self.socket)
    }
}

fn udp_socket(group: SocketAddr) -> Result<Socket, NetError> {
    let socket = Socket::new(Domain::for_address(group), Type::DGRAM, Some(Protocol::UDP))
        .map_err(|error| NetError::system(format!("open a UDP socket for {group}"), error))?;
    if group.is_ipv6() {
        socket
            .set_only_v6(true)
            .map_err(|error| NetError::system(format!("keep {group} to IPv6"), error))?;
    }
    Ok(socket)
}

/// Lets other receivers of the group on this machine have the port too; each gets every datagram.
fn share_port(socket: &Socket) -> io::Result<()> {
    socket.set_reuse_address(true)?;
    // Elsewhere than on Linux the port option is what shares; there it would deal datagrams out among the sockets.
    #[cfg(all(unix, not(target_os = "linux")))]
    socket.set_reuse_port(true)?;
    Ok(())
}

fn bind(socket: &Socket, group: SocketAddr, interface: &Interface) -> Result<(), NetError> {
    // Bound to the group, the socket gets no unicast and nothing of other groups on the same port. Windows cannot.
    let address = if cfg!(unix) || !group.ip().is_multicast() {
        on_interface(group, interface)
    } else if group.is_ipv4() {
        SocketAddr::from((Ipv4Addr::UNSPECIFIED, group.port()))
    } else {
        SocketAddr::from((Ipv6Addr::UNSPECIFIED, group.port()))
    };
    socket
        .bind(&SockAddr::from(address))
        .map_err(|error| match error.kind() {
            io::ErrorKind::AddrInUse => NetError::AddressInUse { address },
            io::ErrorKind::AddrNotAvailable => NetError::AddressNotHere { address },
            _ => NetError::system(format!("bind to {address}"), error),
        })
}

fn check_source(group: IpAddr, source: IpAddr) -> Result<(), NetError> {
    let is_host = !source.is_multicast() && !source.is_unspecified();
    if group.is_multicast() && is_host && group.is_ipv4() == source.is_ipv4() {
        return Ok(());
    }
    Err(NetError::NotASource { source, group })
}

fn join(
    socket: &Socket,
    group: IpAddr,
    source: Option<IpAddr>,
    interface: &Interface,
) -> Result<(), NetError> {
    let joined = only_joined(socket, group).and_then(|()| match (group, source) {
        (_, Some(source)) => sockopt::join_source(socket, group, source, interface),
        (IpAddr::V4(group), None) => socket.join_multicast_v4_n(&group, &index_or_address(interface)),
        (IpAddr::V6(group), None) => socket.join_multicast_v6(&group, interface.index),
    });
    joined.map_err(|error| {
        let interface = interface.name.clone();
        if is_membership_limit(&error) {
            return NetError::TooManyGroups { group, interface };
        }
        NetError::system(format!("join {group} on {interface}"), error)
    })
}

fn only_joined(socket: &Socket, group: IpAddr) -> io::Result<()> {
    if group.is_ipv4() {
        only_joined_v4(socket)
    } else {
        only_joined_v6(socket)
    }
}

/// By default Linux hands a socket what *any* program of the machine has joined, on any interface.
fn only_joined_v4(socket: &Socket) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    return socket.set_multicast_all_v4(false);
    #[cfg(not(target_os = "linux"))]
    {
        let _ = socket;
        Ok(())
    }
}

/// See [`only_joined_v4`]. The IPv6 side compares the group alone: another interface of this machine on which somebody
/// joined the same group is let through. What it brings is verified like everything else.
fn only_joined_v6(socket: &Socket) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    return socket.set_multicast_all_v6(false);
    #[cfg(not(target_os = "linux"))]
    {
        let _ = socket;
        Ok(())
    }
}

fn index_or_address(interface: &Interface) -> InterfaceIndexOrAddress {
    match (interface.index, interface.ipv4) {
        (0, Some(address)) => InterfaceIndexOrAddress::Address(address),
        (index, _) => InterfaceIndexOrAddress::Index(index),
    }
}

fn is_membership_limit(error: &io::Error) -> bool {
    #[cfg(unix)]
    return error.raw_os_error() == Some(libc::ENOBUFS);
    #[cfg(not(unix))]
    {
        let _ = error;
        false
    }
}

/// A link-local IPv6 address means nothing without its interface.
fn on_interface(address: SocketAddr, interface: &Interface) -> SocketAddr {
    match address {
        SocketAddr::V6(v6) if v6.scope_id() == 0 && is_link_local(v6.ip()) => {
            SocketAddrV6::new(*v6.ip(), v6.port(), v6.flowinfo(), interface.index).into()
        }
        other => other,
    }
}

fn is_link_local(address: &Ipv6Addr) -> bool {
    let [first, second, ..] = address.octets();
    let multicast_of_link_or_interface = first == 0xff && matches!(second & 0x0f, 1 | 2);
    multicast_of_link_or_interface || address.is_unicast_link_local()
}

fn max_datagram_bytes(group: SocketAddr, interface: &Interface) -> usize {
    const UDP_HEADER: usize = 8;
    let ip_header = if group.is_ipv4() { 20 } else { 40 };
    let mtu_bytes = interface.mtu_bytes.map_or(1_500, |mtu| mtu as usize);
    // An IPv4 packet, header included, ends at 65,535 bytes; the loopback interface promises one more.
    mtu_bytes.min(65_535).saturating_sub(ip_header + UDP_HEADER)
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    fn loopback() -> Interface {
        Interface::resolve("127.0.0.1").unwrap()
    }

    fn free_port() -> u16 {
        UdpSocket::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port()
    }

    fn group(last: u8, port: u16) -> SocketAddr {
        SocketAddr::from(([239, 255, 77, last], port))
    }

    #[test]
    fn a_sender_asks_for_a_group_and_a_port() {
        let unicast = SenderConfig::new("192.0.2.1:7000".parse().unwrap(), loopback());
        let error = MulticastSender::open(unicast).unwrap_err();
        assert!(matches!(error, NetError::NotMulticast { .. }));
        assert!(error.to_string().contains("192.0.2.1"), "{error}");
        let error = MulticastSender::open(SenderConfig::new(group(1, 0), loopback())).unwrap_err();
        assert!(matches!(error, NetError::NoPort { .. }));
    }

    #[test]
    fn a_source_is_a_host_of_the_groups_family() {
        for source in ["239.1.1.1", "0.0.0.0", "::1"] {
            let config = ReceiverConfig {
                source: Some(source.parse().unwrap()),
                ..ReceiverConfig::new(group(6, free_port()), loopback())
            };
            let error = MulticastReceiver::open(config).unwrap_err();
            assert!(matches!(error, NetError::NotASource { .. }), "{error}");
            assert!(error.to_string().contains(source), "{error}");
        }
    }

    #[test]
    fn a_port_that_is_not_shared_is_in_use() {
        let holder = UdpSocket::bind("0.0.0.0:0").unwrap();
        let port = holder.local_addr().unwrap().port();
        let error = MulticastReceiver::open(ReceiverConfig::new(group(2, port), loopback())).unwrap_err();
        assert!(
            matches!(error, NetError::AddressInUse { address } if address == group(2, port)),
            "{error}"
        );
        assert!(error.to_string().contains(&port.to_string()));
    }

    #[test]
    fn unicast_is_received_at_an_address_of_this_machine_only() {
        let here = ReceiverConfig::new("127.0.0.1:0".parse().unwrap(), loopback());
        let receiver = MulticastReceiver::open(here).unwrap();
        assert_ne!(receiver.local_address().port(), 0);
        let taken = ReceiverConfig::new(receiver.local_address(), loopback());
        assert!(matches!(
            MulticastReceiver::open(taken),
            Err(NetError::AddressInUse { .. })
        ));
        let elsewhere = ReceiverConfig::new("198.51.100.9:0".parse().unwrap(), loopback());
        assert!(matches!(
            MulticastReceiver::open(elsewhere),
            Err(NetError::AddressNotHere { .. })
        ));
    }

    #[test]
    fn a_capped_buffer_is_reported() {
        let port = free_port();
        let modest = ReceiverConfig {
            receive_buffer_bytes: 64 << 10,
            ..ReceiverConfig::new(group(3, port), loopback())
        };
        let receiver = MulticastReceiver::open(modest).unwrap();
        assert!(
            !receiver.receive_buffer().is_capped(),
            "{:?}",
            receiver.receive_buffer()
        );
        // No privilege lifts a buffer above half of what an `int` counts.
        let greedy = ReceiverConfig {
            receive_buffer_bytes: 3 << 30,
            ..ReceiverConfig::new(group(3, port), loopback())
        };
        let receiver = MulticastReceiver::open(greedy).unwrap();
        assert!(
            receiver.receive_buffer().is_capped(),
            "{:?}",
            receiver.receive_buffer()
        );
        assert_eq!(receiver.receive_buffer().requested_bytes, 3 << 30);
    }

    #[test]
    fn the_largest_datagram_follows_the_mtu() {
        let interface = Interface {
            mtu_bytes: Some(1_500),
            ..loopback()
        };
        assert_eq!(max_datagram_bytes(group(4, 1), &interface), 1_472);
        assert_eq!(
            max_datagram_bytes("[ff15::1]:1".parse().unwrap(), &interface),
            1_452
        );
        let interface = Interface {
            mtu_bytes: Some(65_536),
            ..loopback()
        };
        assert_eq!(max_datagram_bytes(group(4, 1), &interface), 65_507);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_limit_of_memberships_is_named() {
        let error = NetError::TooManyGroups {
            group: group(5, 1).ip(),
            interface: "lo".into(),
        };
        assert!(error.to_string().contains("igmp_max_memberships"));
        assert!(is_membership_limit(&io::Error::from_raw_os_error(libc::ENOBUFS)));
    }
}
