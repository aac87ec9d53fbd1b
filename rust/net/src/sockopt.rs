//! Socket options that socket2 does not offer, each with what stands in for it on other systems.

use std::io;

use socket2::Socket;

use crate::interface::Interface;

/// What was asked for a socket buffer and what the system gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BufferSize {
    pub requested_bytes: usize,
    /// Read back from the system; room for its own bookkeeping not counted.
    pub granted_bytes: usize,
}

impl BufferSize {
    /// Whether the system gave less than was asked: worth a warning, since a burst may then be dropped by the kernel
    /// (Linux: sysctl net.core.rmem_max, net.core.wmem_max).
    pub fn is_capped(&self) -> bool {
        self.granted_bytes < self.requested_bytes
    }
}

/// Sets the receive buffer, past the system's limit where this program may (`CAP_NET_ADMIN`).
pub(crate) fn set_receive_buffer(socket: &Socket, requested_bytes: usize) -> io::Result<BufferSize> {
    if system::force_receive_buffer(socket, requested_bytes).is_err() {
        socket.set_recv_buffer_size(clamp_to_int(requested_bytes))?;
    }
    let granted_bytes = socket.recv_buffer_size()? / system::BUFFER_ACCOUNTING;
    Ok(BufferSize {
        requested_bytes,
        granted_bytes,
    })
}

/// Sets the send buffer, past the system's limit where this program may (`CAP_NET_ADMIN`).
pub(crate) fn set_send_buffer(socket: &Socket, requested_bytes: usize) -> io::Result<BufferSize> {
    if system::force_send_buffer(socket, requested_bytes).is_err() {
        socket.set_send_buffer_size(clamp_to_int(requested_bytes))?;
    }
    let granted_bytes = socket.send_buffer_size()? / system::BUFFER_ACCOUNTING;
    Ok(BufferSize {
        requested_bytes,
        granted_bytes,
    })
}

/// Sends IPv4 multicast out of this interface. By index on Linux, since an address may stand on two interfaces.
pub(crate) fn set_multicast_interface_v4(socket: &Socket, interface: &Interface) -> io::Result<()> {
    system::set_multicast_interface_v4(socket, interface)
}

#[cfg(unix)]
pub(crate) use system::interface_mtu;
#[cfg(target_os = "linux")]
pub(crate) use system::supports_segmentation_offload;
pub(crate) use system::{
    dropped_by_kernel, enable_receive_offload, forbid_fragments, join_source, takes_many,
};

/// The kernel takes an `int`; a larger wish is a wish for the most there is.
fn clamp_to_int(bytes: usize) -> usize {
    bytes.min(i32::MAX as usize)
}

#[cfg(target_os = "linux")]
mod system {
    use std::ffi::CStr;
    use std::io;
    use std::mem;
    use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
    use std::os::fd::{AsFd, AsRawFd};
    use std::ptr;

    use socket2::{Domain, SockAddr, SockAddrStorage, Socket, Type};

    use super::clamp_to_int;
    use crate::interface::Interface;

    /// Linux doubles what is asked, for its own bookkeeping, and reports the double.
    pub(super) const BUFFER_ACCOUNTING: usize = 2;

    const MCAST_JOIN_SOURCE_GROUP: libc::c_int = 46; // include/uapi/linux/in.h

    /// `group_source_req` of include/uapi/linux/in.h.
    #[repr(C)]
    struct GroupSource {
        interface: u32,
        group: SockAddrStorage,
        source: SockAddrStorage,
    }

    const SO_MEMINFO: libc::c_int = 55; // include/uapi/asm-generic/socket.h; libc has the offsets only

    fn set_option<T>(socket: &Socket, level: libc::c_int, name: libc::c_int, value: T) -> io::Result<()> {
        // SAFETY: the descriptor is open while `socket` is borrowed, and the length is that of the value pointed to.
        let result = unsafe {
            libc::setsockopt(
                socket.as_fd().as_raw_fd(),
                level,
                name,
                (&raw const value).cast(),
                size_of::<T>() as libc::socklen_t,
            )
        };
        if result == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    }

    pub(super) fn force_receive_buffer(socket: &Socket, bytes: usize) -> io::Result<()> {
        set_option(
            socket,
            libc::SOL_SOCKET,
            libc::SO_RCVBUFFORCE,
            clamp_to_int(bytes) as libc::c_int,
        )
    }

    pub(super) fn force_send_buffer(socket: &Socket, bytes: usize) -> io::Result<()> {
        set_option(
            socket,
            libc::SOL_SOCKET,
            libc::SO_SNDBUFFORCE,
            clamp_to_int(bytes) as libc::c_int,
        )
    }

    pub(super) fn set_multicast_interface_v4(socket: &Socket, interface: &Interface) -> io::Result<()> {
        let in_addr = |address: Ipv4Addr| libc::in_addr {
            s_addr: u32::from(address).to_be(),
        };
        let request = libc::ip_mreqn {
            imr_multiaddr: in_addr(Ipv4Addr::UNSPECIFIED),
            imr_address: in_addr(source_to_pin(interface)),
            imr_ifindex: interface.index as libc::c_int,
        };
        set_option(socket, libc::IPPROTO_IP, libc::IP_MULTICAST_IF, request)
    }

    /// Receives what one host sends to a group (RFC 3678 section 5.1), of either family.
    pub(crate) fn join_source(
        socket: &Socket,
        group: IpAddr,
        source: IpAddr,
        interface: &Interface,
    ) -> io::Result<()> {
        let level = if group.is_ipv4() {
            libc::IPPROTO_IP
        } else {
            libc::IPPROTO_IPV6
        };
        let request = GroupSource {
            interface: interface.index,
            group: SockAddr::from(SocketAddr::new(group, 0)).as_storage(),
            source: SockAddr::from(SocketAddr::new(source, 0)).as_storage(),
        };
        set_option(socket, level, MCAST_JOIN_SOURCE_GROUP, request)
    }

    /// The source address to insist on; unspecified lets the system choose at each datagram, which outlives a change of
    /// the address. It never chooses the loopback address, nor another than an interface's first.
    fn source_to_pin(interface: &Interface) -> Ipv4Addr {
        let first = interface
            .addresses
            .iter()
            .find(|address| address.is_ipv4())
            .copied();
        match interface.ipv4 {
            Some(wanted) if interface.loopback || first != Some(IpAddr::V4(wanted)) => wanted,
            _ => Ipv4Addr::UNSPECIFIED,
        }
    }

    /// Datagrams larger than the interface's MTU are refused instead of cut up. A path MTU from ICMP is not believed:
    /// there is none for a group, and anyone could send one.
    pub(crate) fn forbid_fragments(socket: &Socket, ipv6: bool) -> io::Result<()> {
        if ipv6 {
            set_option(
                socket,
                libc::IPPROTO_IPV6,
                libc::IPV6_MTU_DISCOVER,
                libc::IPV6_PMTUDISC_PROBE,
            )
        } else {
            set_option(
                socket,
                libc::IPPROTO_IP,
                libc::IP_MTU_DISCOVER,
                libc::IP_PMTUDISC_PROBE,
            )
        }
    }

    /// Whether this kernel knows `UDP_SEGMENT` (Linux 4.18).
    pub(crate) fn supports_segmentation_offload(socket: &Socket) -> bool {
        set_option(socket, libc::SOL_UDP, libc::UDP_SEGMENT, 0 as libc::c_int).is_ok()
    }

    /// Lets the kernel hand over several datagrams of one size as one (Linux 5.0); says whether it will.
    pub(crate) fn enable_receive_offload(socket: &Socket) -> bool {
        set_option(socket, libc::SOL_UDP, libc::UDP_GRO, 1 as libc::c_int).is_ok()
    }

    /// Whether there is `recvmmsg`, which a sandbox may lack. Without it nothing tells how to cut what offload joins.
    pub(crate) fn takes_many(socket: &Socket) -> bool {
        // SAFETY: no message is named, so that nothing is read, written or waited for.
        let result = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                ptr::null_mut(),
                0,
                libc::MSG_DONTWAIT as _,
                ptr::null_mut(),
            )
        };
        result == 0
    }

    /// Datagrams dropped at this socket since it was opened, modulo 2^32: the receive buffer was full.
    pub(crate) fn dropped_by_kernel(socket: &UdpSocket) -> Option<u32> {
        let mut counters = [0_u32; libc::SK_MEMINFO_DROPS as usize + 1];
        let mut length = size_of_val(&counters) as libc::socklen_t;
        // SAFETY: the descriptor is open while `socket` is borrowed; the kernel writes at most `length` bytes.
        let result = unsafe {
            libc::getsockopt(
                socket.as_fd().as_raw_fd(),
                libc::SOL_SOCKET,
                SO_MEMINFO,
                counters.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        let complete = result == 0 && length as usize == size_of_val(&counters);
        complete.then(|| counters[libc::SK_MEMINFO_DROPS as usize])
    }

    pub(crate) fn interface_mtu(name: &CStr) -> Option<u32> {
        let any_socket = Socket::new(Domain::IPV4, Type::DGRAM, None).ok()?;
        // SAFETY: `ifreq` is plain data, for which all zero is a value.
        let mut request: libc::ifreq = unsafe { mem::zeroed() };
        let bytes = name.to_bytes();
        if bytes.len() >= request.ifr_name.len() {
            return None;
        }
        for (to, from) in request.ifr_name.iter_mut().zip(bytes) {
            *to = *from as libc::c_char;
        }
        // SAFETY: this request reads a name that ends in NUL from the structure and writes the MTU into it.
        let result = unsafe { libc::ioctl(any_socket.as_raw_fd(), libc::SIOCGIFMTU as _, &raw mut request) };
        if result != 0 {
            return None;
        }
        // SAFETY: on success the kernel has filled this member of the union.
        u32::try_from(unsafe { request.ifr_ifru.ifru_mtu }).ok()
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    use std::io;
    use std::net::{IpAddr, UdpSocket};

    use socket2::Socket;

    use crate::interface::Interface;

    pub(super) const BUFFER_ACCOUNTING: usize = 1;

    pub(super) fn force_receive_buffer(_: &Socket, _: usize) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(super) fn force_send_buffer(_: &Socket, _: usize) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(super) fn set_multicast_interface_v4(socket: &Socket, interface: &Interface) -> io::Result<()> {
        let address = interface.ipv4.ok_or(io::ErrorKind::AddrNotAvailable)?;
        socket.set_multicast_if_v4(&address)
    }

    pub(crate) fn join_source(
        socket: &Socket,
        group: IpAddr,
        source: IpAddr,
        interface: &Interface,
    ) -> io::Result<()> {
        match (group, source, interface.ipv4) {
            (IpAddr::V4(group), IpAddr::V4(source), Some(own)) => socket.join_ssm_v4(&source, &group, &own),
            _ => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Left to the system's default, which for multicast is to cut up what is too large.
    #[allow(clippy::unnecessary_wraps)] // the signature of Linux
    pub(crate) fn forbid_fragments(_: &Socket, _ipv6: bool) -> io::Result<()> {
        Ok(())
    }

    pub(crate) fn enable_receive_offload(_: &Socket) -> bool {
        false
    }

    pub(crate) fn takes_many(_: &Socket) -> bool {
        false
    }

    pub(crate) fn dropped_by_kernel(_: &UdpSocket) -> Option<u32> {
        None
    }

    #[cfg(unix)]
    pub(crate) fn interface_mtu(_: &std::ffi::CStr) -> Option<u32> {
        None
    }
}
