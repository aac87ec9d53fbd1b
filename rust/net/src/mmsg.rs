//! Linux: many datagrams per system call, and many of one size as one buffer.

use std::io;
use std::mem;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::AsRawFd;
use std::ptr;
use std::sync::atomic::Ordering;

use socket2::SockAddr;

use crate::batch::{Piece, RecvBuffers, SEND_BATCH};
use crate::socket::{MulticastReceiver, MulticastSender};

/// The most datagrams that the kernel cuts one buffer into (64 before Linux 6.9).
const MAX_SEGMENTS: usize = 64;

/// The most bytes of one buffer, an IPv4 header and a UDP header kept free.
const MAX_SEGMENTED_BYTES: usize = 65_535 - 20 - 8;

const MAX_RECEIVE_SLOTS: usize = 64;

/// Room for one control message with an `int`, aligned as `cmsghdr` wants it.
type Control = [u64; 3];

const CONTROL_BYTES: usize = size_of::<Control>();

const _: () = {
    // SAFETY: computes a size from its argument; declared unsafe for the sake of the older macros.
    let needed = unsafe { libc::CMSG_SPACE(size_of::<libc::c_int>() as libc::c_uint) };
    assert!(needed as usize <= CONTROL_BYTES);
};

/// Sends as many of at most `SEND_BATCH` datagrams as the kernel takes at once, one at least.
pub(crate) fn send_some(sender: &MulticastSender, datagrams: &[&[u8]]) -> io::Result<usize> {
    let datagrams = &datagrams[..datagrams.len().min(SEND_BATCH)];
    if sender.segmentation_offload.load(Ordering::Relaxed) {
        let result = send_runs(sender, datagrams, run_length);
        // EIO: a device in the way cannot. EINVAL: the route cannot, or a datagram exceeds the MTU, which newer kernels call
        // EMSGSIZE. Without the offload the same datagrams go, or get an error that says what is wrong with them.
        let code = match &result {
            Err(error) => error.raw_os_error(),
            Ok(_) => return result,
        };
        if !matches!(code, Some(libc::EIO | libc::EINVAL | libc::EMSGSIZE)) {
            return result;
        }
        let result = send_runs(sender, datagrams, |_| 1);
        // What is only too large for one piece says nothing about the next batch.
        if result.is_ok() && code != Some(libc::EMSGSIZE) {
            sender.segmentation_offload.store(false, Ordering::Relaxed);
        }
        return result;
    }
    send_runs(sender, datagrams, |_| 1)
}

/// How many datagrams from the first on fit one buffer: all of the first one's size, the last may be shorter.
fn run_length(datagrams: &[&[u8]]) -> usize {
    let size = datagrams[0].len();
    if size == 0 {
        return 1;
    }
    let fitting = datagrams
        .len()
        .min(MAX_SEGMENTS)
        .min((MAX_SEGMENTED_BYTES / size).max(1));
    let same = datagrams[..fitting]
        .iter()
        .take_while(|datagram| datagram.len() == size)
        .count();
    let shorter_end = datagrams[same..fitting]
        .first()
        .is_some_and(|last| !last.is_empty() && last.len() < size);
    same + usize::from(shorter_end)
}

fn send_runs(
    sender: &MulticastSender,
    datagrams: &[&[u8]],
    run_length: impl Fn(&[&[u8]]) -> usize,
) -> io::Result<usize> {
    // SAFETY: `iovec` and `mmsghdr` are plain data, for which all zero (null, empty) is a value.
    let (mut slices, mut messages): ([libc::iovec; SEND_BATCH], [libc::mmsghdr; SEND_BATCH]) =
        unsafe { mem::zeroed() };
    let mut controls: [Control; SEND_BATCH] = [[0; 3]; SEND_BATCH];
    let mut run_lengths = [0_usize; SEND_BATCH];
    let mut runs = 0;
    for (slice, datagram) in slices.iter_mut().zip(datagrams) {
        *slice = libc::iovec {
            iov_base: datagram.as_ptr().cast_mut().cast(),
            iov_len: datagram.len(),
        };
    }
    let destination = SockAddr::from(sender.destination);
    let mut first = 0;
    while first < datagrams.len() {
        let count = run_length(&datagrams[first..]);
        let header = &mut messages[runs].msg_hdr;
        header.msg_name = destination.as_ptr().cast_mut().cast();
        header.msg_namelen = destination.len();
        header.msg_iov = slices[first..].as_mut_ptr();
        header.msg_iovlen = count as _;
        if count > 1 {
            header.msg_control = controls[runs].as_mut_ptr().cast();
            put_segment_size(header, datagrams[first].len());
        }
        run_lengths[runs] = count;
        runs += 1;
        first += count;
    }
    // SAFETY: the first `runs` headers are filled; what they point to (destination, slices, controls, datagrams) lives
    // until after the call and is only read by it, lengths fitting.
    let sent = unsafe {
        libc::sendmmsg(
            sender.socket.as_raw_fd(),
            messages.as_mut_ptr(),
            runs as libc::c_uint,
            0,
        )
    };
    match usize::try_from(sent) {
        Ok(sent) => Ok(run_lengths[..sent].iter().sum()),
        Err(_) => Err(io::Error::last_os_error()),
    }
}

/// Writes the control message that tells the kernel where to cut. The header's control pointer is set by the caller.
fn put_segment_size(header: &mut libc::msghdr, bytes: usize) {
    let size = bytes as u16; // at most MAX_SEGMENTED_BYTES
    let size_bytes = size_of::<u16>() as libc::c_uint;
    // SAFETY: computes a size.
    header.msg_controllen = unsafe { libc::CMSG_SPACE(size_bytes) } as _;
    // SAFETY: the header names a control buffer that is larger than one `cmsghdr`.
    let control = unsafe { libc::CMSG_FIRSTHDR(header) };
    // SAFETY: computes a size.
    let length = unsafe { libc::CMSG_LEN(size_bytes) };
    // SAFETY: the pointer is not null (see above) and points into the aligned, zeroed control buffer.
    let message = unsafe { &mut *control };
    message.cmsg_level = libc::SOL_UDP;
    message.cmsg_type = libc::UDP_SEGMENT;
    message.cmsg_len = length as _;
    // SAFETY: CMSG_SPACE left room for the data behind the message's header.
    let data = unsafe { libc::CMSG_DATA(control) };
    // SAFETY: as above; the place need not be aligned.
    unsafe { ptr::write_unaligned(data.cast::<u16>(), size) };
}

/// Takes what is there, without waiting, and cuts apart what the kernel has joined.
pub(crate) fn take(receiver: &MulticastReceiver, buffers: &mut RecvBuffers) -> io::Result<()> {
    // SAFETY: these are plain data, for which all zero (null, empty) is a value.
    let (mut slices, mut messages, mut sources): (
        [libc::iovec; MAX_RECEIVE_SLOTS],
        [libc::mmsghdr; MAX_RECEIVE_SLOTS],
        [libc::sockaddr_storage; MAX_RECEIVE_SLOTS],
    ) = unsafe { mem::zeroed() };
    let mut controls: [Control; MAX_RECEIVE_SLOTS] = [[0; 3]; MAX_RECEIVE_SLOTS];
    let mut slots = 0;
    for slot in buffers
        .storage
        .chunks_exact_mut(buffers.slot_bytes)
        .take(MAX_RECEIVE_SLOTS)
    {
        slices[slots] = libc::iovec {
            iov_base: slot.as_mut_ptr().cast(),
            iov_len: slot.len(),
        };
        let header = &mut messages[slots].msg_hdr;
        header.msg_name = (&raw mut sources[slots]).cast();
        header.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
        header.msg_iov = &raw mut slices[slots];
        header.msg_iovlen = 1;
        if receiver.receive_offload {
            header.msg_control = controls[slots].as_mut_ptr().cast();
            header.msg_controllen = CONTROL_BYTES as _;
        }
        slots += 1;
    }
    // SAFETY: the first `slots` headers are filled; what they point to is distinct for each, lives until after the call
    // and is as long as they say. No timeout is given.
    let received = unsafe {
        libc::recvmmsg(
            receiver.socket.as_raw_fd(),
            messages.as_mut_ptr(),
            slots as libc::c_uint,
            libc::MSG_DONTWAIT as _,
            ptr::null_mut(),
        )
    };
    let received = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
    for (position, (message, source)) in messages.iter().zip(&sources).take(received).enumerate() {
        let length = message.msg_len as usize;
        let start = position * buffers.slot_bytes;
        if message.msg_hdr.msg_flags & libc::MSG_TRUNC != 0 {
            buffers.oversized += 1;
            continue;
        }
        let source = socket_address(source);
        let piece_length = segment_size(&message.msg_hdr)
            .unwrap_or(length)
            .clamp(1, length.max(1));
        let mut offset = 0;
        while offset < length || length == 0 {
            let length_here = piece_length.min(length - offset);
            buffers.pieces.push(Piece {
                start: start + offset,
                length: length_here,
                source,
            });
            offset += length_here;
            if length == 0 {
                break;
            }
        }
    }
    Ok(())
}

/// The size of the datagrams in a buffer, if the kernel has joined several.
fn segment_size(header: &libc::msghdr) -> Option<usize> {
    // SAFETY: the header is one that the kernel has filled; its control buffer is still there.
    let mut next = unsafe { libc::CMSG_FIRSTHDR(header) };
    // SAFETY: the pointer is null or within the control buffer.
    while let Some(control) = unsafe { next.as_ref() } {
        if control.cmsg_level == libc::SOL_UDP && control.cmsg_type == libc::UDP_GRO {
            // SAFETY: the data follows the control message's header.
            let data = unsafe { libc::CMSG_DATA(control) };
            // SAFETY: for this type it is an `int`, aligned or not.
            let size = unsafe { ptr::read_unaligned(data.cast::<libc::c_int>()) };
            return usize::try_from(size).ok();
        }
        // SAFETY: both are those of this walk through one control buffer.
        next = unsafe { libc::CMSG_NXTHDR(header, control) };
    }
    None
}

fn socket_address(storage: &libc::sockaddr_storage) -> Option<SocketAddr> {
    let start = ptr::from_ref(storage);
    match i32::from(storage.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says what the storage, larger and aligned for each kind, holds.
            let address = unsafe { &*start.cast::<libc::sockaddr_in>() };
            let ip = Ipv4Addr::from(address.sin_addr.s_addr.to_ne_bytes());
            Some(SocketAddr::new(IpAddr::V4(ip), u16::from_be(address.sin_port)))
        }
        libc::AF_INET6 => {
            // SAFETY: as above.
            let address = unsafe { &*start.cast::<libc::sockaddr_in6>() };
            let ip = Ipv6Addr::from(address.sin6_addr.s6_addr);
            let port = u16::from_be(address.sin6_port);
            Some(SocketAddrV6::new(ip, port, address.sin6_flowinfo, address.sin6_scope_id).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_of_one_size_with_a_shorter_end() {
        let (long, short) = (&[0_u8; 1_400][..], &[0_u8; 700][..]);
        assert_eq!(run_length(&[long]), 1);
        assert_eq!(run_length(&[long, long, short, short]), 3);
        assert_eq!(run_length(&[short, long]), 1);
        assert_eq!(run_length(&[long, &[]]), 1);
        assert_eq!(run_length(&[&[], &[]]), 1);
        assert_eq!(run_length(&[long; 64]), 46); // 46 × 1,400 is the most below 65,507
        assert_eq!(run_length(&[short; 80]), 64);
        let huge = &[0_u8; 65_507][..];
        assert_eq!(run_length(&[huge, short]), 1);
    }
}
