//! Tests: what the kernel refuses, other calls take the place of, chosen while the program runs.

use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use crate::{Interface, MulticastReceiver, MulticastSender, ReceiverConfig, SenderConfig};

const PATIENCE: Option<Duration> = Some(Duration::from_secs(10));

/// What a thread may not do from now on.
#[derive(Clone, Copy, Debug)]
struct Refused {
    /// `sendmmsg` and `recvmmsg`, as in a sandbox that knows them not.
    many: bool,
    /// The options for `UDP_SEGMENT` and `UDP_GRO`, as in an older kernel.
    offload: bool,
}

/// Has the kernel itself refuse calls of this thread, which cannot be taken back.
fn refuse(refused: Refused) {
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const JUMP_IF: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    const NUMBER: u32 = 0; // places in `seccomp_data`
    const LEVEL: u32 = 16 + 8;
    let statement = |code, k| libc::sock_filter {
        code,
        jt: 0,
        jf: 0,
        k,
    };
    let unless = |k, jf| libc::sock_filter {
        code: JUMP_IF,
        jt: 0,
        jf,
        k,
    };
    let mut program = Vec::new();
    if refused.many {
        for call in [libc::SYS_sendmmsg, libc::SYS_recvmmsg] {
            program.extend([
                statement(LOAD, NUMBER),
                unless(call as u32, 1),
                statement(RETURN, libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32),
            ]);
        }
    }
    if refused.offload {
        // No other option of that level is used.
        program.extend([
            statement(LOAD, NUMBER),
            unless(libc::SYS_setsockopt as u32, 3),
            statement(LOAD, LEVEL),
            unless(libc::SOL_UDP as u32, 1),
            statement(RETURN, libc::SECCOMP_RET_ERRNO | libc::ENOPROTOOPT as u32),
        ]);
    }
    program.push(statement(RETURN, libc::SECCOMP_RET_ALLOW));
    let filter = libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_mut_ptr(),
    };
    // SAFETY: takes numbers alone; it forbids this thread to gain privileges, which it does not want.
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }, 0);
    // SAFETY: the filter and its program live until after the call, which copies them.
    let result = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

fn ends(last: u8) -> (MulticastSender, MulticastReceiver) {
    let interface = Interface::resolve("lo").unwrap();
    let port = UdpSocket::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let group = SocketAddr::from(([239, 255, 80, last], port));
    let receiver = MulticastReceiver::open(ReceiverConfig::new(group, interface.clone())).unwrap();
    (
        MulticastSender::open(SenderConfig::new(group, interface)).unwrap(),
        receiver,
    )
}

/// Runs of one size, which offload joins, and others.
fn datagrams() -> Vec<Vec<u8>> {
    let sizes = [1_400; 70].into_iter().chain([900, 7, 7, 7, 1_452]);
    sizes
        .enumerate()
        .map(|(number, size)| vec![number as u8; size])
        .collect()
}

fn arrive(sender: &MulticastSender, receiver: &mut MulticastReceiver) {
    let datagrams = datagrams();
    let slices: Vec<&[u8]> = datagrams.iter().map(Vec::as_slice).collect();
    assert_eq!(sender.send_batch(&slices).unwrap(), slices.len());
    let mut buffers = receiver.buffers();
    let mut received = Vec::new();
    while received.len() < datagrams.len() {
        assert_ne!(
            receiver.recv_batch(&mut buffers, PATIENCE).unwrap(),
            0,
            "only {}",
            received.len()
        );
        received.extend(buffers.datagrams().map(<[u8]>::to_vec));
    }
    assert_eq!(received, datagrams);
    assert_eq!(buffers.oversized(), 0);
}

#[test]
fn each_way_of_sending_and_receiving_is_chosen_by_what_the_kernel_refuses() {
    for (last, (many, offload)) in [(false, false), (false, true), (true, false), (true, true)]
        .into_iter()
        .enumerate()
    {
        let refused = Refused { many, offload };
        thread::spawn(move || {
            refuse(refused);
            let (sender, mut receiver) = ends(last as u8);
            assert_eq!(
                sender.segmentation_offload.load(Ordering::Relaxed),
                !offload,
                "{refused:?}"
            );
            // One by one, what was joined could not be told apart.
            assert_eq!(receiver.receive_offload, !offload && !many, "{refused:?}");
            arrive(&sender, &mut receiver);
        })
        .join()
        .unwrap();
    }
}

#[test]
fn what_cannot_be_cut_up_on_its_route_is_sent_as_it_is_and_not_joined_again() {
    let (sender, mut receiver) = ends(4);
    let yes: libc::c_int = 1;
    // SAFETY: the descriptor is open while `sender` lives; the value is an `int` of the length given.
    let result = unsafe {
        libc::setsockopt(
            sender.socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NO_CHECK,
            (&raw const yes).cast(),
            size_of_val(&yes) as libc::socklen_t,
        )
    };
    assert_eq!(result, 0);
    assert!(sender.segmentation_offload.load(Ordering::Relaxed));
    // Without checksums the kernel refuses to cut a buffer, and says so only when it is to send one.
    arrive(&sender, &mut receiver);
    assert!(!sender.segmentation_offload.load(Ordering::Relaxed));
    arrive(&sender, &mut receiver);
}
