//! What is sent to a group arrives at each of its receivers, on the loopback interface.

#![cfg(target_os = "linux")]

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::thread;
use std::time::Duration;

use sealcast_net::{
    Interface, MulticastReceiver, MulticastSender, ReceiverConfig, RecvBuffers, SenderConfig,
};

/// Far longer than any machine needs; only a failure waits for it.
const PATIENCE: Option<Duration> = Some(Duration::from_secs(10));

fn loopback() -> Interface {
    Interface::resolve("lo").unwrap()
}

/// A port that nobody uses; with a group for each test, no two tests meet.
fn group(last: u8) -> SocketAddr {
    let port = UdpSocket::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    SocketAddr::from(([239, 255, 78, last], port))
}

fn receiver(group: SocketAddr) -> (MulticastReceiver, RecvBuffers) {
    let receiver = MulticastReceiver::open(ReceiverConfig::new(group, loopback())).unwrap();
    let buffers = receiver.buffers();
    (receiver, buffers)
}

fn receive(receiver: &mut MulticastReceiver, buffers: &mut RecvBuffers, count: usize) -> Vec<Vec<u8>> {
    let mut received = Vec::new();
    while received.len() < count {
        assert_ne!(
            receiver.recv_batch(buffers, PATIENCE).unwrap(),
            0,
            "only {} came",
            received.len()
        );
        received.extend(buffers.datagrams().map(<[u8]>::to_vec));
    }
    received
}

/// Runs of equal sizes, shorter ends, single ones, an empty one: every way in which they are joined and cut.
fn datagrams() -> Vec<Vec<u8>> {
    let sizes = [1_400; 100]
        .into_iter()
        .chain([900, 1_200, 1_200, 7, 7, 7, 0, 1_452, 1, 1_300, 1_300, 1_299]);
    sizes
        .enumerate()
        .map(|(number, size)| vec![number as u8; size])
        .collect()
}

fn round_trip(group: SocketAddr, offload_in_sending: bool, offload_in_receiving: bool) {
    let mut config = ReceiverConfig::new(group, loopback());
    config.receive_offload = offload_in_receiving;
    let mut receivers = [config.clone(), config].map(|config| {
        let receiver = MulticastReceiver::open(config).unwrap();
        let buffers = receiver.buffers();
        (receiver, buffers)
    });
    let mut config = SenderConfig::new(group, loopback());
    config.segmentation_offload = offload_in_sending;
    let sender = MulticastSender::open(config).unwrap();
    let datagrams = datagrams();
    let slices: Vec<&[u8]> = datagrams.iter().map(Vec::as_slice).collect();
    assert_eq!(sender.send_batch(&slices).unwrap(), slices.len());
    for (receiver, buffers) in &mut receivers {
        assert_eq!(receive(receiver, buffers, datagrams.len()), datagrams);
        assert!(buffers.source(0).unwrap().ip().is_loopback());
        assert_eq!(buffers.oversized(), 0);
        assert_eq!(receiver.dropped_by_kernel(), Some(0));
    }
}

#[test]
fn a_batch_reaches_every_receiver_in_order() {
    for (last, (sending, receiving)) in [(false, false), (false, true), (true, false), (true, true)]
        .into_iter()
        .enumerate()
    {
        round_trip(group(last as u8), sending, receiving);
    }
}

#[test]
fn ipv6_receivers_join_their_group() {
    let Some(interface) = Interface::list().unwrap().into_iter().find(|interface| {
        interface.up && interface.multicast && interface.addresses.iter().any(|address| address.is_ipv6())
    }) else {
        eprintln!("no interface with IPv6 multicast here: joining is not tried");
        return;
    };
    let group = SocketAddr::new("ff15::7365:616c".parse().unwrap(), group(9).port());
    let mut receiver = MulticastReceiver::open(ReceiverConfig::new(group, interface.clone())).unwrap();
    let mut buffers = receiver.buffers();
    let sender = MulticastSender::open(SenderConfig::new(group, interface)).unwrap();
    assert_eq!(sender.send_batch(&[b"one", b"two"]).unwrap(), 2);
    assert_eq!(receive(&mut receiver, &mut buffers, 2), [b"one", b"two"]);
}

#[test]
fn only_the_joined_group_is_received() {
    let (ours, other) = (group(10), group(11));
    let other = SocketAddr::new(other.ip(), ours.port());
    let (mut receiver, mut buffers) = receiver(ours);
    let _joined_elsewhere = MulticastReceiver::open(ReceiverConfig::new(other, loopback())).unwrap();
    let send = |group, datagram: &[u8]| {
        let sender = MulticastSender::open(SenderConfig::new(group, loopback())).unwrap();
        assert_eq!(sender.send_batch(&[datagram]).unwrap(), 1);
    };
    send(other, b"theirs");
    UdpSocket::bind("127.0.0.1:0")
        .unwrap()
        .send_to(b"unicast", ("127.0.0.1", ours.port()))
        .unwrap();
    send(ours, b"ours");
    assert_eq!(receive(&mut receiver, &mut buffers, 1), [b"ours"]);
    assert_eq!(
        receiver.recv_batch(&mut buffers, Some(Duration::ZERO)).unwrap(),
        0
    );
    assert!(buffers.is_empty());
}

#[test]
fn of_two_sources_only_the_wanted_one_is_received() {
    let ours = group(16);
    let (wanted, other) = (Ipv4Addr::LOCALHOST, Ipv4Addr::new(127, 0, 0, 2));
    let mut receiver = MulticastReceiver::open(ReceiverConfig {
        source: Some(wanted.into()),
        ..ReceiverConfig::new(ours, loopback())
    })
    .unwrap();
    let mut buffers = receiver.buffers();
    for (source, datagram) in [(other, b"theirs"), (wanted, b"wanted")] {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None).unwrap();
        socket.bind(&SocketAddr::from((source, 0)).into()).unwrap();
        socket.set_multicast_if_v4(&Ipv4Addr::LOCALHOST).unwrap();
        socket.send_to(datagram, &ours.into()).unwrap();
    }
    assert_eq!(receive(&mut receiver, &mut buffers, 1), [b"wanted"]);
    assert_eq!(buffers.source(0).unwrap().ip(), wanted);
}

#[test]
fn without_loopback_nothing_comes_back() {
    // On the loopback interface itself the kernel delivers regardless: this takes a real one.
    let real = |interface: &Interface| interface.up && interface.multicast && interface.ipv4.is_some();
    let Some(interface) = Interface::list().unwrap().into_iter().find(real) else {
        eprintln!("no interface with multicast besides the loopback interface: nothing to try");
        return;
    };
    let group = group(12);
    let mut receiver = MulticastReceiver::open(ReceiverConfig::new(group, interface.clone())).unwrap();
    let mut buffers = receiver.buffers();
    let mut config = SenderConfig::new(group, interface);
    let heard = MulticastSender::open(config.clone()).unwrap();
    config.loopback = false;
    let unheard = MulticastSender::open(config).unwrap();
    assert_eq!(unheard.send_batch(&[b"unheard"]).unwrap(), 1);
    assert_eq!(heard.send_batch(&[b"heard"]).unwrap(), 1);
    assert_eq!(receive(&mut receiver, &mut buffers, 1), [b"heard"]);
}

#[test]
fn an_oversized_datagram_is_counted_and_the_rest_arrives() {
    let group = group(13);
    let mut config = ReceiverConfig::new(group, loopback());
    config.receive_offload = false;
    let mut receiver = MulticastReceiver::open(config).unwrap();
    let mut buffers = receiver.buffers();
    let sender = MulticastSender::open(SenderConfig::new(group, loopback())).unwrap();
    let jumbo = [0; 2_049];
    assert_eq!(
        sender
            .send_batch(&[&jumbo[..], b"fits", &jumbo[..2_048]])
            .unwrap(),
        3
    );
    let received = receive(&mut receiver, &mut buffers, 2);
    assert_eq!(received, [b"fits".to_vec(), vec![0; 2_048]]);
    assert_eq!(buffers.oversized(), 1);
}

#[test]
fn what_exceeds_the_mtu_is_an_error_that_stops_the_batch() {
    let group = group(14);
    let (mut receiver, mut buffers) = receiver(group);
    let sender = MulticastSender::open(SenderConfig::new(group, loopback())).unwrap();
    let too_large = vec![0; sender.max_datagram_bytes() + 1];
    assert_eq!(sender.send_batch(&[b"first", &too_large, b"last"]).unwrap(), 1);
    let error = sender.send_batch(&[&too_large, b"last"]).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EMSGSIZE));
    assert_eq!(receive(&mut receiver, &mut buffers, 1), [b"first"]);
    assert_eq!(sender.send_batch(&[]).unwrap(), 0);
}

#[test]
fn a_waker_ends_the_wait_of_another_thread() {
    let (mut receiver, mut buffers) = receiver(group(15));
    let waker = receiver.waker();
    let waiting = thread::spawn(move || receiver.recv_batch(&mut buffers, None).unwrap());
    waker.wake();
    assert_eq!(waiting.join().unwrap(), 0);
}

#[test]
fn unicast_arrives_like_multicast() {
    let config = ReceiverConfig::new("127.0.0.1:0".parse().unwrap(), loopback());
    let mut receiver = MulticastReceiver::open(config).unwrap();
    let mut buffers = receiver.buffers();
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    sender.send_to(b"relayed", receiver.local_address()).unwrap();
    assert_eq!(receive(&mut receiver, &mut buffers, 1), [b"relayed"]);
    assert_eq!(buffers.source(0), Some(sender.local_addr().unwrap()));
}
