//! What an application gets, and when: deadlines, large and small messages, how far back.

use crate::common::{MILLI, SECOND, World, payload};
use sealcast_core::event::{Event, Message};
use sealcast_core::sender::RetainLimits;
use sealcast_core::stream::{Delivery, Start};
use sealcast_core::wire::Time;

fn realtime(world: &mut World, deadline: Time) -> usize {
    world.add_subscriber_with(|config| config.stream.delivery = Delivery::Realtime { deadline })
}

/// Sends a message every `interval`; gives, for each that has come, how long after its sealing that was.
fn delays(world: &mut World, subscriber: usize, publisher: usize, count: usize, interval: Time) -> Vec<Time> {
    let mut delays = Vec::new();
    for _ in 0..count {
        world.send(publisher, 1, 1100);
        let end = world.now + interval;
        while world.step(end) {
            let messages = &world.subscribers[subscriber].messages;
            let fresh = messages[delays.len()..]
                .iter()
                .map(|message| world.now - message.time);
            delays.extend(fresh.collect::<Vec<_>>());
        }
    }
    delays
}

/// Nobody answers repairs: what is lost is passed over when its time is up, and told in its place (DP-43).
#[test]
fn realtime_passes_over_what_is_late_and_says_so() {
    let deadline = 50 * MILLI;
    let mut world = World::new(1);
    let subscriber = realtime(&mut world, deadline);
    let patient = world.add_subscriber();
    let publisher = world.add_publisher();
    world.settle();
    for index in [subscriber, patient] {
        world.subscribers[index].link.side_cut = true;
        world.subscribers[index].link.loss = 100;
    }
    let stream = world.stream(publisher);
    let delays = delays(&mut world, subscriber, publisher, 300, 5 * MILLI);
    world.run_for(SECOND);
    let ids = world.ids(subscriber, stream);
    assert!(ids.is_sorted() && ids.len() < 300);
    let missing: Vec<u64> = (0..300).filter(|id| !ids.contains(id)).collect();
    let told: Vec<u64> = world
        .gaps(subscriber, stream)
        .into_iter()
        .flat_map(|(first, last)| first..=last.unwrap())
        .collect();
    assert_eq!(told, missing);
    // What waits behind a gap waits for the gap's time, and for no second one: a loss shows with the next packet.
    let longest = delays.iter().max().copied().unwrap_or(0);
    assert!((deadline..=deadline + 10 * MILLI).contains(&longest), "{longest}");
    // Who waits has all up to its first loss, and nothing of it is told so far.
    let waited = world.ids(patient, stream);
    assert!(waited.len() < 200 && waited.iter().copied().eq(0..waited.len() as u64));
    assert_eq!(world.gaps(patient, stream), []);
    world.assert_authentic();
}

/// Repair has its tries within the deadline: what it brings in time is delivered, in order.
#[test]
fn realtime_is_complete_where_repair_is_faster_than_the_deadline() {
    let mut world = World::new(1);
    let subscriber = realtime(&mut world, 200 * MILLI);
    let publisher = world.add_publisher();
    world.settle();
    world.subscribers[subscriber].link.loss = 100;
    let stream = world.stream(publisher);
    world.send_steadily(publisher, 400, 1100, 5 * MILLI);
    world.finish(subscriber, stream, 5 * SECOND);
    assert!(world.repair_requests > 10);
}

/// The tail too: a heartbeat shows the loss, from then on the time runs, and no deadline stays in the past.
#[test]
fn realtime_gives_up_the_tail_and_sleeps() {
    let mut world = World::new(1);
    let subscriber = realtime(&mut world, 30 * MILLI);
    let publisher = world.add_publisher();
    world.settle();
    let stream = world.stream(publisher);
    world.send(publisher, 3, 1100);
    world.run_for(10 * MILLI);
    world.subscribers[subscriber].link.side_cut = true;
    world.subscribers[subscriber].link.loss = 1000;
    world.send(publisher, 2, 1100);
    world.run_for(2 * MILLI);
    world.subscribers[subscriber].link.loss = 0;
    world.run_for(SECOND);
    assert_eq!(world.gaps(subscriber, stream), [(3, Some(4))]);
    // Whoever comes after its time is not heard any more.
    let now = world.now;
    let late = world.sender(publisher).repair(&[(3, 4)], now).0;
    for datagram in &late {
        assert!(world.feed(subscriber, datagram).is_some());
    }
    assert_eq!(world.ids(subscriber, stream), [0, 1, 2]);
    world.send(publisher, 1, 1100);
    world.run_for(SECOND);
    assert_eq!(world.ids(subscriber, stream), [0, 1, 2, 5]);
    let lost = |event: &&Event| matches!(event, Event::MessageLost { .. });
    assert_eq!(
        world.subscribers[subscriber].events.iter().filter(lost).count(),
        0
    );
}

// -- large messages ------------------------------------------------------------------------------------------------------

/// A message of 64 MiB under loss: what is sent after it passes it, and it arrives whole (DP-25). Memory holds no more than it
/// and what waits for a gap.
#[test]
fn a_message_of_64_mebibytes_holds_up_no_small_one() {
    const LARGE: usize = 64 << 20;
    let mut world = World::new(1);
    let subscriber = world.add_subscriber_with(|config| {
        config.stream.max_message_bytes = LARGE as u64;
        config.stream.buffer_bytes = 4 << 20;
        config.queue_bytes = 128 << 20;
    });
    let publisher = world.add_publisher();
    world.start_publisher(publisher, |config| config.max_message_bytes = LARGE as u64);
    world.settle();
    world.subscribers[subscriber].link.loss = 10;
    let stream = world.stream(publisher);
    let data = payload(stream, 0, LARGE);
    world.publishers[publisher].is_held_back = true;
    assert_eq!(world.sender(publisher).send(Some("image"), data.clone()), Ok(0));
    let (mut waits, mut asked, mut blocks) = (Vec::new(), 0, 0);
    loop {
        // A block at a time, as a driver that paces would; a small message comes in between.
        if blocks % 50 == 0 && blocks < 800 {
            asked += 1;
            let sent = world.sender(publisher).send(None, vec![asked as u8; 100]);
            assert_eq!(sent, Ok(asked));
            waits.push(world.sender(publisher).next_sequence());
        }
        blocks += 1;
        if !world.send_block(publisher) {
            break;
        }
        world.captured.clear();
        world.run_for(MILLI);
        let held = world
            .receiver(subscriber)
            .streams()
            .next()
            .unwrap()
            .buffered_bytes();
        assert!(held <= LARGE as u64 + (4 << 20) + 2000, "{held}");
    }
    let all = world.run_until(60 * SECOND, |world| {
        world.subscribers[subscriber].messages.len() == asked as usize + 1
    });
    assert!(all, "{} of {asked}", world.subscribers[subscriber].messages.len());
    let messages = &world.subscribers[subscriber].messages;
    let (large, small) = messages.split_last().unwrap();
    assert!(large.message_id == 0 && large.data == data);
    for (message, queued) in small.iter().zip(&waits) {
        assert_eq!(message.sequence, *queued, "it left with the next packet");
    }
    assert_eq!(world.gaps(subscriber, stream), []);
}

/// Who joins in the midst of a large message gets what is whole, and is told of no loss (DP-34).
#[test]
fn a_newcomer_owes_nobody_the_message_that_was_under_way() {
    let mut world = World::new(1);
    let publisher = world.add_publisher();
    world.settle();
    let stream = world.stream(publisher);
    world.publishers[publisher].is_held_back = true;
    world.queue_messages(publisher, 1, 1 << 20);
    let (mut late, mut blocks) = (None, 0);
    while world.send_block(publisher) {
        blocks += 1;
        if blocks == 5 {
            late = Some(world.add_subscriber());
        }
        world.run_for(20 * MILLI);
    }
    world.publishers[publisher].is_held_back = false;
    let late = late.unwrap();
    world.send(publisher, 3, 100);
    world.run_for(5 * SECOND);
    assert_eq!(world.gaps(late, stream), []);
    let lost = |event: &&Event| matches!(event, Event::MessageLost { .. });
    assert_eq!(world.subscribers[late].events.iter().filter(lost).count(), 0);
    assert_eq!(world.ids(late, stream), [1, 2, 3]);
}

// -- how far back --------------------------------------------------------------------------------------------------------

/// A subscriber that was away, and had been admitted before, gets what was sent meanwhile as far as it is retained (DP-44).
#[test]
fn from_the_start_is_as_far_back_as_retention_goes() {
    let mut world = World::new(1);
    let (subscriber, publisher) = (world.add_subscriber(), world.add_publisher());
    world.settle();
    let stream = world.stream(publisher);
    world.subscribers[subscriber].receiver = None;
    // Retention is 30 s: of 40 s the first ten are gone.
    world.send_steadily(publisher, 400, 1100, 100 * MILLI);
    world.start_subscriber(subscriber, |config| config.start = Start::Oldest);
    world.send_steadily(publisher, 50, 1100, 10 * MILLI);
    world.run_for(5 * SECOND);
    world.assert_authentic();
    let ids = world.ids(subscriber, stream);
    let first = ids[0];
    assert!((90..110).contains(&first), "{first}");
    assert!(ids.iter().copied().eq(first..450));
    assert_eq!(world.gaps(subscriber, stream), []);
    // Without it, nothing of before is given.
    world.start_subscriber(subscriber, |_| ());
    world.run_for(5 * SECOND);
    assert_eq!(world.ids(subscriber, stream).len(), ids.len());
}

/// A new member gets nothing from before its admission, is told of no gap, and little of it is fetched (DP-34, DP-44).
#[test]
fn from_the_start_ends_at_the_admission() {
    let mut world = World::new(1);
    let publisher = world.add_publisher();
    world.settle();
    let stream = world.stream(publisher);
    world.send_steadily(publisher, 2000, 1100, MILLI);
    // Somebody else is admitted; then comes ours, and what is sent in between is not for it.
    world.add_subscriber();
    world.run_for(SECOND);
    world.send_steadily(publisher, 2000, 1100, MILLI);
    // Until the directory is told of the head.
    world.run_for(3 * SECOND);
    let late = world.add_subscriber_with(|config| config.start = Start::Oldest);
    world.run_for(SECOND);
    world.send_steadily(publisher, 100, 1100, MILLI);
    world.run_for(5 * SECOND);
    assert_eq!(world.gaps(late, stream), []);
    let admitted = world.subscribers[late]
        .events
        .iter()
        .find_map(|event| match event {
            Event::Joined { epoch } => Some(epoch.membership()),
            _ => None,
        });
    let messages = &world.subscribers[late].messages;
    assert!(
        messages
            .iter()
            .all(|message| Some(message.epoch.membership()) >= admitted)
    );
    assert!(world.ids(late, stream).iter().copied().eq(4000..4100));
    let fetched = world.receiver(late).counters().repaired;
    assert!(fetched <= 200, "{fetched}");
}

/// A publisher that nobody reaches: the stream begins at the head told at joining, and no gap is made of what was before.
#[test]
fn from_the_start_without_a_source_is_from_now() {
    let mut world = World::new(1);
    let (subscriber, publisher) = (world.add_subscriber(), world.add_publisher());
    world.settle();
    let stream = world.stream(publisher);
    world.send(publisher, 50, 1100);
    world.run_for(3 * SECOND);
    let before = world.ids(subscriber, stream).len();
    world.start_subscriber(subscriber, |config| config.start = Start::Oldest);
    let joined = world.run_until(SECOND, |world| world.receiver(subscriber).streams().count() == 1);
    assert!(joined);
    world.subscribers[subscriber].link.side_cut = true;
    world.send(publisher, 5, 1100);
    // Once retention is over.
    world.run_for(35 * SECOND);
    assert_eq!(world.gaps(subscriber, stream), []);
    assert_eq!(world.ids(subscriber, stream)[before..], [50, 51, 52, 53, 54]);
}

// -- last values ---------------------------------------------------------------------------------------------------------

fn values(messages: &[Message]) -> Vec<(&str, &[u8], Option<u64>)> {
    messages
        .iter()
        .map(|message| {
            let origin = message.origin.map(|origin| origin.sequence);
            (message.topic.as_deref().unwrap_or(""), &message.data[..], origin)
        })
        .collect()
}

/// Who comes late gets the last value of each topic once, with its origin; who had it does not get it again (DP-45).
#[test]
fn a_late_joiner_gets_last_values_and_nobody_gets_them_twice() {
    let mut world = World::new(1);
    let early = world.add_subscriber_with(|config| config.start = Start::Last);
    let publisher = world.add_publisher();
    world.start_publisher(publisher, |config| {
        config.retain = RetainLimits {
            topics: 10,
            bytes: 100_000,
        };
    });
    world.settle();
    let stream = world.stream(publisher);
    let say = |world: &mut World, topic: Option<&str>, data: &[u8]| {
        world.sender(publisher).send(topic, data.to_vec()).unwrap();
        world.pump_publisher(publisher);
        world.run_for(20 * MILLI);
    };
    for (topic, data) in [
        (Some("a"), b"a1"),
        (Some("b"), b"b1"),
        (None, b"xx"),
        (Some("a"), b"a2"),
    ] {
        say(&mut world, topic, data);
    }
    say(&mut world, Some("big"), &[7; 10_000]);
    // As long as it takes until the directory is told of the head.
    world.run_for(5 * SECOND);
    let had = world.subscribers[early].messages.len();
    let late = world.add_subscriber_with(|config| config.start = Start::Last);
    let now_only = world.add_subscriber();
    world.run_for(SECOND);
    let got = values(&world.subscribers[late].messages);
    let big = [7; 10_000];
    assert_eq!(
        got,
        [
            ("b", &b"b1"[..], Some(1)),
            ("a", b"a2", Some(3)),
            ("big", &big, Some(12))
        ]
    );
    let origin = world.subscribers[late].messages[0].origin.unwrap();
    assert!(origin.stream == stream && origin.time < world.now - 5 * SECOND);
    assert_eq!(world.subscribers[early].messages.len(), had);
    assert!(world.subscribers[now_only].messages.is_empty());
    // Another newcomer, and a new value: each once.
    say(&mut world, Some("a"), b"a3");
    world.run_for(5 * SECOND);
    let later = world.add_subscriber_with(|config| config.start = Start::Last);
    world.run_for(5 * SECOND);
    assert_eq!(
        values(&world.subscribers[late].messages)[3..],
        [("a", &b"a3"[..], None)]
    );
    assert_eq!(world.subscribers[later].messages.len(), 3);
    for index in [early, late, now_only, later] {
        assert_eq!(world.gaps(index, stream), []);
    }
}

/// Copies are lost like other packets, and come back like them.
#[test]
fn last_values_come_through_loss_in_every_mode() {
    for delivery in [
        Delivery::Reliable,
        Delivery::Unordered,
        Delivery::Realtime { deadline: SECOND },
    ] {
        let mut world = World::new(3);
        let publisher = world.add_publisher();
        world.start_publisher(publisher, |config| {
            config.retain = RetainLimits {
                topics: 100,
                bytes: 1 << 20,
            };
        });
        world.settle();
        for id in 0..200 {
            let topic = format!("topic-{}", id % 100);
            let taken = world.sender(publisher).send(Some(&topic), vec![id as u8; 900]);
            assert!(taken.is_ok());
        }
        world.pump_publisher(publisher);
        world.run_for(5 * SECOND);
        let mut late = Vec::new();
        for _ in 0..3 {
            let index = world.add_subscriber_with(|config| {
                config.start = Start::Last;
                config.stream.delivery = delivery;
            });
            world.subscribers[index].link.loss = 300;
            late.push(index);
            world.run_for(5 * SECOND);
        }
        for index in late {
            let mut got: Vec<u8> = world.subscribers[index]
                .messages
                .iter()
                .map(|m| m.data[0])
                .collect();
            got.sort_unstable();
            assert!(got.iter().copied().eq(100..200), "{delivery:?}: {got:?}");
        }
    }
}
