//! What a network does to datagrams: everything sent is delivered once and in order, whatever it is (O1 to O4).

use crate::common::{Link, MILLI, SECOND, World};
use sealcast_core::rejection::Rejection;

/// A stream of blocks of several sizes and single messages over `link`, to two subscribers, one of them on a good line.
fn over(seed: u64, link: Link) -> World {
    let mut world = World::new(seed);
    let far = world.add_subscriber();
    let near = world.add_subscriber();
    let publisher = world.add_publisher();
    world.settle();
    world.subscribers[far].link = link;
    let stream = world.stream(publisher);
    for count in [1, 5, 64, 200, 3] {
        world.send(publisher, count, 900);
        world.run_for(50 * MILLI);
    }
    world.send_steadily(publisher, 100, 300, 5 * MILLI);
    world.run_for(SECOND);
    world.send(publisher, 1, 10);
    world.finish(near, stream, 5 * SECOND);
    world.finish(far, stream, 60 * SECOND);
    world
}

/// Several seeds, since each has other packets hit; `SEALCAST_SEEDS` makes a soak of it.
fn over_seeds(link: &Link) -> Vec<World> {
    let seeds = std::env::var("SEALCAST_SEEDS").map_or(5, |seeds| seeds.parse().expect("a number"));
    (1..=seeds)
        .map(|seed| {
            println!("seed {seed}");
            over(seed, link.clone())
        })
        .collect()
}

#[test]
fn loss_of_5_percent_is_mended() {
    let link = Link {
        loss: 50,
        ..Link::default()
    };
    for world in over_seeds(&link) {
        assert!(world.repair_requests > 0);
        assert!(world.repair_requests < 200, "{} requests", world.repair_requests);
    }
}

#[test]
fn loss_of_30_percent_is_mended() {
    over_seeds(&Link {
        loss: 300,
        ..Link::default()
    });
}

#[test]
fn bursts_of_10_are_mended() {
    over_seeds(&Link {
        burst: (20, 10),
        ..Link::default()
    });
}

#[test]
fn reordering_of_25_percent_loses_nothing() {
    over_seeds(&Link {
        reorder: (250, 750 * MILLI),
        ..Link::default()
    });
}

#[test]
fn duplicates_are_delivered_once() {
    for mut world in over_seeds(&Link {
        duplicate: 500,
        ..Link::default()
    }) {
        assert!(world.receiver(0).counters().rejected(Rejection::Duplicate) > 100);
    }
}

/// A10: none delivered wrong, all delivered by repair.
#[test]
fn a10_corruption_of_30_percent_changes_nothing() {
    over_seeds(&Link {
        corrupt: 300,
        ..Link::default()
    });
}

#[test]
fn everything_at_once() {
    over_seeds(&Link {
        loss: 100,
        burst: (5, 10),
        reorder: (250, 200 * MILLI),
        duplicate: 100,
        corrupt: 100,
        ..Link::default()
    });
}

#[test]
fn a_partition_of_5_seconds_is_caught_up() {
    for seed in 1..=5 {
        let mut world = World::new(seed);
        let subscriber = world.add_subscriber();
        let publisher = world.add_publisher();
        world.settle();
        let stream = world.stream(publisher);
        world.send_steadily(publisher, 50, 500, 20 * MILLI);
        world.subscribers[subscriber].link.cut = Some((world.now, world.now + 5 * SECOND));
        // More than one repair answer holds.
        world.send_steadily(publisher, 6000, 500, MILLI);
        world.finish(subscriber, stream, 30 * SECOND);
    }
}

/// The tail of a stream: what comes last is missed by nobody, because heartbeats tell of it (DP-28).
#[test]
fn a_lost_last_packet_is_noticed_within_seconds() {
    let mut world = World::new(1);
    let subscriber = world.add_subscriber();
    let publisher = world.add_publisher();
    world.settle();
    let stream = world.stream(publisher);
    world.send(publisher, 10, 100);
    world.run_for(SECOND);
    world.subscribers[subscriber].link.cut = Some((world.now, world.now + 10 * MILLI));
    world.send(publisher, 1, 100);
    let told = world.run_until(2 * SECOND, |world| world.ids(subscriber, stream).len() == 11);
    assert!(told);
    world.assert_complete(subscriber, stream);
}

/// What no longer is with the publisher is reported, not waited for.
#[test]
fn loss_beyond_retention_is_a_reported_gap() {
    let mut world = World::new(1);
    let subscriber = world.add_subscriber();
    let publisher = world.add_publisher();
    world
        .key_server
        .set_policy(|policy| policy.retention = 3 * SECOND);
    world.settle();
    let publisher_two = world.add_publisher();
    world.settle();
    let stream = world.stream(publisher_two);
    // One message a packet: ids are sequences.
    world.send_steadily(publisher_two, 20, 1100, 20 * MILLI);
    world.subscribers[subscriber].link.cut = Some((world.now, world.now + 8 * SECOND));
    world.send_steadily(publisher_two, 100, 1100, 20 * MILLI);
    world.run_for(7 * SECOND);
    world.send_steadily(publisher_two, 20, 1100, 20 * MILLI);
    world.run_for(5 * SECOND);
    world.assert_authentic();
    assert_eq!(world.gaps(subscriber, stream), [(20, Some(119))]);
    assert!(
        world
            .ids(subscriber, stream)
            .into_iter()
            .eq((0..20).chain(120..140))
    );
    let _ = publisher;
}
