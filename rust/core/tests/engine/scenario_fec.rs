//! Parity: what the ratio allows is mended without a request, within the delay that the publisher states; the rest by repair
//! (DP-40, DP-41).

use crate::common::{Link, MILLI, SECOND, World};
use sealcast_core::fec::{Fec, Parity, Ratio};
use sealcast_core::wire::{PacketType, PacketView, Time};

const DELAY: Time = 100 * MILLI;

fn fixed(sources: u8, parities: u8) -> Fec {
    Fec::Fixed(Ratio::new(sources, parities).unwrap())
}

/// A subscriber and a publisher with parity, of which some has been heard.
fn world(seed: u64, fec: Fec) -> World {
    let mut world = World::new(seed);
    let (subscriber, publisher) = (world.add_subscriber(), world.add_publisher());
    assert_eq!((subscriber, publisher), (0, 0));
    world.start_publisher(publisher, |config| {
        (config.fec, config.fec_delay) = (Some(fec), DELAY)
    });
    world.settle();
    world.send(publisher, 3, 500);
    world.run_for(SECOND);
    world
}

/// Blocks of many sizes, then single messages one after the other.
fn send_much(world: &mut World) {
    for count in [1, 5, 64, 200, 3, 300] {
        world.send(0, count, 900);
        world.run_for(20 * MILLI);
    }
    world.send_steadily(0, 600, 300, 2 * MILLI);
    world.run_for(SECOND);
}

fn rebuilt(world: &mut World) -> u64 {
    world.receiver(0).counters().rebuilt
}

#[test]
fn losses_are_mended_without_a_request_as_far_as_the_ratio_allows() {
    for (loss, fec) in [(10, fixed(20, 4)), (50, fixed(20, 10)), (200, fixed(10, 16))] {
        for seed in 1..=5 {
            println!("loss {loss}, seed {seed}");
            let mut world = world(seed, fec);
            world.subscribers[0].link = Link {
                loss,
                ..Link::default()
            };
            send_much(&mut world);
            let stream = world.stream(0);
            world.finish(0, stream, 10 * SECOND);
            assert_eq!(world.repair_requests, 0);
            assert!(rebuilt(&mut world) > loss / 10);
        }
    }
}

#[test]
fn what_parity_cannot_mend_comes_by_repair() {
    let lost_by_repair = |fec: Fec| {
        let mut world = world(1, fec);
        world.subscribers[0].link.loss = 200;
        send_much(&mut world);
        let stream = world.stream(0);
        world.finish(0, stream, 30 * SECOND);
        (world.receiver(0).counters().repaired, rebuilt(&mut world))
    };
    let (without, none) = lost_by_repair(Fec::Off);
    let (with, mended) = lost_by_repair(fixed(20, 4));
    assert_eq!(none, 0);
    assert!(with > 0 && mended > 0);
    assert!(with < without, "{with} repaired with parity, {without} without");
}

/// Ten datagrams in a row, whatever they are, every so often; at several rates (DP-42).
#[test]
fn bursts_of_10_are_mended_within_the_stated_delay() {
    for (sources, parities) in [(8, 2), (20, 5), (40, 10), (30, 3)] {
        for interval in [MILLI / 4, 2 * MILLI, 8 * MILLI] {
            println!("{sources}+{parities}, one each {interval} us");
            let mut world = world(1, fixed(sources, parities));
            let (mut seen, every) = (
                0,
                3 * u64::from(sources) * 10_u64.div_ceil(u64::from(parities)) + 7,
            );
            world.drop_if = Some(Box::new(move |_, datagram| {
                let counts = [PacketType::Data as u8, PacketType::Parity as u8].contains(&datagram[5]);
                seen += u64::from(counts);
                counts && seen % every >= every - 10
            }));
            let stream = world.stream(0);
            let mut sent = Vec::new();
            for _ in 0..every * 4 {
                world.send(0, 1, 400);
                sent.push(world.now);
                world.run_for(interval);
                let due = sent.partition_point(|&at| at + DELAY + 2 * MILLI < world.now);
                assert!(world.ids(0, stream).len() >= due + 3);
            }
            world.finish(0, stream, SECOND);
            assert_eq!(world.repair_requests, 0);
            assert!(rebuilt(&mut world) >= 10);
        }
    }
}

/// A lone message is safe too: its parity comes after the delay.
#[test]
fn a_lone_message_that_was_lost_comes_with_its_parity() {
    let mut world = world(1, fixed(8, 2));
    let stream = world.stream(0);
    world.subscribers[0].link.cut = Some((world.now, world.now + 10 * MILLI));
    world.send(0, 1, 100);
    let start = world.now;
    assert!(world.run_until(SECOND, |world| world.ids(0, stream).len() == 4));
    assert!(world.now - start <= DELAY + 2 * MILLI);
    world.finish(0, stream, SECOND);
    assert_eq!(world.repair_requests, 0);
}

#[test]
fn parity_comes_before_the_end_of_a_stream() {
    let mut world = world(1, fixed(8, 2));
    let stream = world.stream(0);
    world.subscribers[0].link.cut = Some((world.now, world.now + MILLI / 2));
    world.send(0, 1, 100);
    world.run_for(MILLI);
    let now = world.now;
    world.sender(0).finish(None, now);
    world.pump_publisher(0);
    world.run_for(2 * MILLI);
    assert_eq!(world.ids(0, stream).len(), 4);
    world.finish(0, stream, SECOND);
    assert_eq!(world.repair_requests, 0);
}

/// Nobody who misses nothing checks a signature for parity.
#[test]
fn parity_that_nobody_needs_costs_no_signature() {
    let mut world = world(1, fixed(8, 2));
    let before = world.receiver(0).counters().signatures;
    let blocks = world.sender(0).counters().clone();
    world.send(0, 400, 900);
    let parity = world.sender(0).counters().parity - blocks.parity;
    let data_blocks = 400_u64.div_ceil(64);
    assert!(parity >= 100);
    world.run_for(30 * MILLI);
    assert_eq!(world.receiver(0).counters().signatures - before, data_blocks);
}

#[test]
fn adaptive_parity_follows_the_losses_that_are_told() {
    let mut world = world(1, Fec::Adaptive);
    let mut share = |permille: u16| {
        world.sender(0).set_loss(permille);
        let before = world.sender(0).counters().clone();
        world.send(0, 1280, 900);
        world.run_for(SECOND);
        let after = world.sender(0).counters().clone();
        let parity = after.parity - before.parity;
        parity as f64 / (after.packets - before.packets - parity) as f64
    };
    let shares = [0, 10, 50, 200, 10, 0].map(&mut share);
    assert!(
        shares[0] < 0.04 && shares[1] < 0.15 && shares[2] < 0.3 && shares[3] < 0.8,
        "{shares:?}"
    );
    assert!(shares[..4].is_sorted(), "{shares:?}");
    assert!(shares[4] < shares[3] && shares[5] <= shares[4], "{shares:?}");
}

/// TR-13: a publisher without an opinion of its own does as the policy says, and follows it.
#[test]
fn parity_is_what_the_policy_says() {
    fn has_share(world: &mut World, publisher: usize, percent: u64) {
        let before = world.sender(publisher).counters().clone();
        world.send(publisher, 640, 900);
        world.run_for(SECOND);
        let after = world.sender(publisher).counters().clone();
        let parity = after.parity - before.parity;
        let share = 100 * parity / (after.packets - before.packets - parity);
        // Heartbeats and credentials are among the packets, and a span that is closed early has more.
        assert!(
            (percent - percent / 10..=percent + 6).contains(&share),
            "{share} for {percent}"
        );
    }
    let mut world = World::new(1);
    world.key_server.set_policy(|policy| policy.fec = fixed(8, 2));
    world.add_subscriber();
    let [follows, off, own] = [0; 3].map(|_| world.add_publisher());
    world.start_publisher(off, |config| config.fec = Some(Fec::Off));
    world.start_publisher(own, |config| config.fec = Some(fixed(10, 10)));
    world.settle();
    let of_policy = [
        (fixed(8, 2), 25),
        (fixed(4, 2), 50),
        (Fec::Off, 0),
        (fixed(8, 2), 25),
    ];
    for (fec, percent) in of_policy {
        world.key_server.set_policy(|policy| policy.fec = fec);
        world.settle();
        assert_eq!(world.sender(follows).fec(), fec);
        has_share(&mut world, follows, percent);
        assert_eq!(world.sender(off).fec(), Fec::Off);
        assert_eq!(world.sender(own).fec(), fixed(10, 10));
    }
    has_share(&mut world, off, 0);
    has_share(&mut world, own, 100);
}

/// A stream's payload limit is fixed (DP-6): where the first policy has left no room for parity there is none until the next stream.
#[test]
fn a_stream_that_began_without_parity_stays_without() {
    let mut world = World::new(1);
    let (_, publisher) = (world.add_subscriber(), world.add_publisher());
    world.settle();
    let limit = world.sender(publisher).payload_limit();
    world.key_server.set_policy(|policy| policy.fec = fixed(8, 2));
    world.settle();
    world.send(publisher, 100, 900);
    world.run_for(SECOND);
    assert_eq!(world.sender(publisher).fec(), Fec::Off);
    assert_eq!(world.sender(publisher).counters().parity, 0);
    assert_eq!(world.sender(publisher).payload_limit(), limit);
    world.crash_publisher(publisher);
    world.start_publisher(publisher, |_| {});
    world.settle();
    assert_eq!(world.sender(publisher).fec(), fixed(8, 2));
    assert!(world.sender(publisher).payload_limit() < limit);
}

/// DP-6: with parity the payload is shorter by what the longest parity packet needs.
#[test]
fn every_packet_fits_the_mtu() {
    for mtu in [576, 1500, 9000] {
        let mut world = World::new(1);
        let (_, publisher) = (world.add_subscriber(), world.add_publisher());
        world.start_publisher(publisher, |config| {
            config.mtu = mtu;
            config.fec = Some(fixed(40, 10));
        });
        world.settle();
        world.send(publisher, 400, mtu);
        world.run_for(SECOND);
        let longest = |packet_type| {
            let captured = world.captured_of(packet_type);
            captured.iter().map(|datagram| datagram.len()).max().unwrap()
        };
        let parity = longest(PacketType::Parity);
        // What frames do not fill to the last byte.
        assert!((mtu - 48 - 4..=mtu - 48).contains(&parity), "{parity} of {mtu}");
        assert!(longest(PacketType::Data) <= mtu - 48);
    }
}

/// Groups reach over blocks, and say so themselves (DP-36, DP-37).
#[test]
fn a_group_spans_blocks() {
    let mut world = world(1, fixed(8, 2));
    world.captured.clear();
    world.send_steadily(0, 40, 300, MILLI);
    let parity = world.captured_of(PacketType::Parity);
    assert_eq!(parity.len(), 10);
    let groups: std::collections::BTreeSet<_> = parity
        .iter()
        .map(|datagram| {
            Parity::parse(PacketView::parse(datagram).unwrap().body)
                .unwrap()
                .group
        })
        .map(|group| {
            (
                group.first_sequence % 5,
                group.stride,
                group.sources,
                group.parities,
            )
        })
        .collect();
    assert_eq!(groups.len(), 5);
    assert!(
        groups
            .iter()
            .all(|&(_, stride, sources, parities)| (stride, sources, parities) == (5, 8, 2))
    );
}

/// A key that turns in the midst of a group, duplicates, and packets that overtake change nothing.
#[test]
fn parity_stands_disorder_and_new_keys() {
    for seed in 1..=3 {
        let mut world = world(seed, fixed(10, 5));
        world.subscribers[0].link = Link {
            loss: 50,
            reorder: (200, 10 * MILLI),
            duplicate: 100,
            ..Link::default()
        };
        let stream = world.stream(0);
        for _ in 0..5 {
            world.send_steadily(0, 50, 300, 2 * MILLI);
            world.key_server.turn_generation();
            send_much(&mut world);
        }
        world.finish(0, stream, 10 * SECOND);
        assert!(rebuilt(&mut world) > 100);
    }
}
