//! The life of a stream: start, crash, succession, end; large messages; orders of delivery; bounds.

use crate::common::forge::message;
use crate::common::{Link, MILLI, MINUTE, SECOND, World, payload};
use sealcast_core::credential::encode_bundle;
use sealcast_core::event::Event;
use sealcast_core::fec::Fec;
use sealcast_core::sender::{SendError, UnfitCredential};
use sealcast_core::signed::CREDENTIAL_CONTEXT;
use sealcast_core::stream::Delivery;
use sealcast_core::wire::PacketType;

fn count(world: &World, subscriber: usize, wanted: impl Fn(&Event) -> bool) -> usize {
    world.subscribers[subscriber]
        .events
        .iter()
        .filter(|event| wanted(event))
        .count()
}

#[test]
fn a_graceful_end_is_told_when_all_has_been_delivered() {
    let mut world = World::new(1);
    let subscriber = world.add_subscriber();
    let publisher = world.add_publisher();
    world.settle();
    world.subscribers[subscriber].link.loss = 300;
    let stream = world.stream(publisher);
    world.send(publisher, 100, 1100);
    let now = world.now;
    world.sender(publisher).finish(None, now);
    assert_eq!(world.sender(publisher).send(None, vec![1]), Err(SendError::Ended));
    assert!(world.run_until(5 * SECOND, |world| world.sender(publisher).is_finished()));
    world.finish(subscriber, stream, 10 * SECOND);
    let ended = |event: &Event| {
        matches!(
            event,
            Event::StreamEnded {
                next_sequence: 100,
                successor: None,
                ..
            }
        )
    };
    assert_eq!(count(&world, subscriber, ended), 1);
    let last = world.subscribers[subscriber].events.last().unwrap();
    assert!(ended(last), "{last:?}");
    // Who comes now is not told of it, and asks for nothing of it.
    let late = world.add_subscriber();
    world.run_for(10 * SECOND);
    assert_eq!(
        count(&world, late, |event| matches!(event, Event::StreamStarted { .. })),
        0
    );
}

/// Every credential is lost until after the end: it is repeated while the publisher lives, and nothing is missed (DP-31).
#[test]
fn a_stream_whose_credentials_were_lost_is_found_after_its_end() {
    let mut world = World::new(1);
    let subscriber = world.add_subscriber();
    world.settle();
    world.drop_if = Some(Box::new(|_, datagram| {
        datagram[5] == PacketType::Credential as u8
    }));
    let publisher = world.add_publisher();
    world.settle();
    let stream = world.stream(publisher);
    world.send(publisher, 20, 1100);
    let now = world.now;
    world.sender(publisher).finish(None, now);
    assert!(world.run_until(5 * SECOND, |world| world.sender(publisher).is_finished()));
    world.run_for(SECOND);
    assert!(world.ids(subscriber, stream).is_empty());
    world.drop_if = None;
    world.finish(subscriber, stream, 10 * SECOND);
    assert_eq!(world.ids(subscriber, stream), (0..20).collect::<Vec<_>>());
}

/// What was not sealed never was; the message that was cut is told as lost, and the end at once.
#[test]
fn a_publisher_that_gives_up_its_queue_says_its_end() {
    let mut world = World::new(1);
    let subscriber = world.add_subscriber();
    let publisher = world.add_publisher();
    world.settle();
    let stream = world.stream(publisher);
    world.queue_messages(publisher, 3, 50_000);
    let now = world.now;
    let sender = world.sender(publisher);
    assert_eq!(sender.seal_block(now, [1; 16]), 64);
    sender.abandon();
    sender.finish(None, now);
    assert_eq!((sender.has_queued(), sender.queued_bytes()), (false, 0));
    let counters = sender.counters();
    assert_eq!((counters.messages, counters.abandoned), (3, 2));
    assert!(world.run_until(SECOND, |world| world.sender(publisher).is_finished()));
    world.run_for(SECOND);
    world.assert_authentic();
    assert_eq!(world.ids(subscriber, stream), [0]);
    let lost = |event: &Event| matches!(event, Event::MessageLost { message_id: 1, .. });
    let ended = |event: &Event| {
        matches!(
            event,
            Event::StreamEnded {
                next_sequence: 64,
                ..
            }
        )
    };
    assert_eq!(
        (count(&world, subscriber, lost), count(&world, subscriber, ended)),
        (1, 1)
    );
}

#[test]
fn a_named_successor_continues_without_a_gap() {
    let mut world = World::new(1);
    let subscriber = world.add_subscriber();
    let publisher = world.add_publisher();
    world.settle();
    let old = world.stream(publisher);
    world.send(publisher, 50, 1100);
    let now = world.now;
    world.sender(publisher).finish(None, now);
    assert!(world.run_until(5 * SECOND, |world| world.sender(publisher).is_finished()));
    world.run_for(SECOND);
    world.start_publisher(publisher, |_| ());
    world.settle();
    let new = world.stream(publisher);
    world.send(publisher, 50, 1100);
    world.finish(subscriber, old, SECOND);
    world.finish(subscriber, new, SECOND);
    let succeeds =
        |event: &Event| matches!(event, Event::StreamStarted { succeeds, .. } if *succeeds == Some(old));
    assert_eq!(count(&world, subscriber, succeeds), 1);
}

/// No signed end: what came is delivered, and a gap of unknown end is told (DP-32).
#[test]
fn a_crashed_sender_is_succeeded_with_a_gap_of_unknown_end() {
    for loss in [0, 200] {
        let mut world = World::new(1);
        let subscriber = world.add_subscriber();
        let publisher = world.add_publisher();
        world.settle();
        world.subscribers[subscriber].link.loss = loss;
        let old = world.stream(publisher);
        world.send(publisher, 50, 1100);
        world.run_for(3 * SECOND);
        world.crash_publisher(publisher);
        world.run_for(5 * SECOND);
        world.start_publisher(publisher, |_| ());
        world.settle();
        let new = world.stream(publisher);
        world.send(publisher, 50, 1100);
        world.finish(subscriber, new, 5 * SECOND);
        assert_eq!(world.ids(subscriber, old).len(), 50);
        assert_eq!(world.gaps(subscriber, old), [(50, None)]);
    }
}

/// What only the crashed sender had is reported with its numbers when retention is over.
#[test]
fn what_a_crashed_sender_takes_with_it_is_reported() {
    let mut world = World::new(1);
    let subscriber = world.add_subscriber();
    let publisher = world.add_publisher();
    world.settle();
    let old = world.stream(publisher);
    world.send_steadily(publisher, 10, 1100, 20 * MILLI);
    world.subscribers[subscriber].link.cut = Some((world.now, world.now + SECOND / 2));
    world.send_steadily(publisher, 10, 1100, 10 * MILLI);
    world.subscribers[subscriber].link.side_cut = true;
    world.run_for(SECOND);
    world.send_steadily(publisher, 10, 1100, 10 * MILLI);
    world.crash_publisher(publisher);
    world.subscribers[subscriber].link.side_cut = false;
    world.run_for(40 * SECOND);
    world.assert_authentic();
    assert_eq!(world.gaps(subscriber, old), [(10, Some(19))]);
    assert!(world.ids(subscriber, old).into_iter().eq((0..10).chain(20..30)));
}

/// More restarts than a subscriber holds streams.
#[test]
fn a_sender_that_crashes_a_hundred_times_is_still_heard() {
    let mut world = World::new(1);
    let subscriber = world.add_subscriber();
    let publisher = world.add_publisher();
    world.settle();
    for _ in 0..100 {
        let stream = world.stream(publisher);
        world.send(publisher, 3, 100);
        world.finish(subscriber, stream, 5 * SECOND);
        world.crash_publisher(publisher);
        world.start_publisher(publisher, |_| ());
        world.settle();
    }
    let streams = world.receiver(subscriber).streams().count();
    assert!(streams <= 64, "{streams} streams are held");
}

/// A subscriber that restarts gets nothing twice, whatever was on its way (O2).
#[test]
fn a_restarted_subscriber_gets_nothing_twice() {
    for seed in 1..=8 {
        let mut world = World::new(seed);
        let subscriber = world.add_subscriber();
        let publisher = world.add_publisher();
        world.settle();
        world.subscribers[subscriber].link.loss = 50;
        let stream = world.stream(publisher);
        world.send_steadily(publisher, 100, 1100, 10 * MILLI + seed * 777);
        let position: Vec<_> = world.receiver(subscriber).positions().collect();
        world.start_subscriber(subscriber, |config| config.resume = position);
        world.send_steadily(publisher, 300, 1100, 10 * MILLI);
        world.run_for(5 * SECOND);
        world.assert_authentic();
        // Nor is anything lost: it goes on where it stood.
        world.assert_complete(subscriber, stream);
    }
}

/// From now, with a head that is not older than a directory's: what the last run had is not delivered again.
#[test]
fn a_subscriber_without_a_memory_starts_at_the_told_head() {
    let mut world = World::new(3);
    let subscriber = world.add_subscriber();
    let publisher = world.add_publisher();
    world.settle();
    let stream = world.stream(publisher);
    world.send(publisher, 100, 1100);
    // Longer than the directory's interval, so that the head it tells is the present one.
    world.run_for(5 * SECOND);
    world.start_subscriber(subscriber, |_| ());
    world.settle();
    world.send(publisher, 100, 1100);
    world.finish(subscriber, stream, 5 * SECOND);
}

#[test]
fn messages_of_16_mib_arrive_whole_over_a_lossy_link() {
    let mut world = World::new(1);
    let subscriber = world.add_subscriber();
    let publisher = world.add_publisher();
    world.settle();
    world.subscribers[subscriber].link = Link {
        loss: 50,
        reorder: (100, 20 * MILLI),
        ..Link::default()
    };
    let stream = world.stream(publisher);
    world.send(publisher, 1, 10);
    world.send(publisher, 1, 16 << 20);
    world.send(publisher, 1, 10);
    world.send(publisher, 2, 3 << 20);
    let too_long = world.sender(publisher).send(None, vec![0; (16 << 20) + 1]);
    assert_eq!(too_long, Err(SendError::TooLong { limit: 16 << 20 }));
    world.finish(subscriber, stream, 60 * SECOND);
    assert_eq!(
        world
            .receiver(subscriber)
            .streams()
            .next()
            .unwrap()
            .buffered_bytes(),
        0
    );
}

#[test]
fn topics_are_delivered_with_their_messages() {
    let mut world = World::new(1);
    let subscriber = world.add_subscriber();
    let publisher = world.add_publisher();
    world.settle();
    let long = "t".repeat(255);
    for (topic, length) in [
        (None, 5),
        (Some("vitals/spo2"), 5),
        (Some(""), 0),
        (Some(&long[..]), 5000),
        (None, 0),
    ] {
        world.sender(publisher).send(topic, vec![9; length]).unwrap();
    }
    let refused = world.sender(publisher).send(Some(&"t".repeat(256)), Vec::new());
    assert_eq!(refused, Err(SendError::TopicTooLong { limit: 255 }));
    world.pump_publisher(publisher);
    world.run_for(SECOND);
    let got: Vec<_> = world.subscribers[subscriber]
        .messages
        .iter()
        .map(|message| (message.topic.as_deref(), message.data.len()))
        .collect();
    assert_eq!(
        got,
        [
            (None, 5),
            (Some("vitals/spo2"), 5),
            (Some(""), 0),
            (Some(&long[..]), 5000),
            (None, 0)
        ]
    );
}

/// Every packet of a stream fits its MTU, whatever is sent, down to IPv6's least (DP-6).
#[test]
fn no_packet_is_longer_than_the_mtu_allows() {
    for mtu in [576, 1280, 1500, 9000] {
        let mut world = World::new(1);
        let subscriber = world.add_subscriber();
        let publisher = world.add_publisher();
        world.start_publisher(publisher, |config| config.mtu = mtu);
        world.settle();
        let stream = world.stream(publisher);
        for length in (0..40).map(|i| i * 97).chain([mtu - 300, mtu, 70_000]) {
            world.send(publisher, 1, length);
        }
        world.send(publisher, 64, 3000);
        let longest_topic = if mtu == 576 { 208 } else { 255 };
        let too_long = "t".repeat(longest_topic + 1);
        assert_eq!(
            world.sender(publisher).send(Some(&too_long), vec![1]),
            Err(SendError::TopicTooLong { limit: longest_topic })
        );
        for topic in [1, 100, longest_topic] {
            let id = world.sent[&stream].len() as u64;
            let data = payload(stream, id, 3000);
            world
                .sender(publisher)
                .send(Some(&"t".repeat(topic)), data.clone())
                .unwrap();
            world.sent.get_mut(&stream).unwrap().push(data.into());
        }
        world.send(publisher, 1, 1);
        world.finish(subscriber, stream, 5 * SECOND);
        let longest = world
            .captured
            .iter()
            .filter(|(_, d)| d[5] != 5)
            .map(|(_, d)| d.len())
            .max()
            .unwrap();
        assert!(longest <= mtu - 48, "{longest} bytes at MTU {mtu}");
        assert!(
            longest > mtu - 48 - 100,
            "the MTU is not used: {longest} of {mtu}"
        );
    }
}

/// What no subscriber could put together is refused where it can still be told what to do about it (DP-29, TR-12).
#[test]
fn a_credential_that_no_eight_packets_carry_is_refused_with_the_mtu_it_needs() {
    let mut world = World::new(1);
    let publisher = world.add_publisher();
    world.settle();
    let identity = &world.publishers[publisher].identity;
    let (chain, now) = (identity.chain.clone(), world.now);
    let signed = identity.sign(CREDENTIAL_CONTEXT, &[0; 300]);
    // Certificates of a long chain, in bytes.
    let longer = |bytes: usize| [chain.clone(), vec![vec![0x30; bytes]]].concat();
    for (mtu, bytes) in [(576, 2_000), (1280, 7_500), (1500, 8_000), (9000, 8_000)] {
        world.start_publisher(publisher, |config| {
            (config.mtu, config.fec) = (mtu, Some(Fec::Off))
        });
        let chain = longer(bytes);
        let parts = encode_bundle(&signed, &chain).len().div_ceil(8);
        let taken = world
            .sender(publisher)
            .set_credential(&signed, &chain, now + SECOND, now);
        let needed = parts + 48 + 248;
        if needed <= mtu {
            assert_eq!(taken, Ok(()));
            continue;
        }
        assert_eq!(taken, Err(UnfitCredential::MtuTooSmall { mtu, needed }));
        world.start_publisher(publisher, |config| {
            (config.mtu, config.fec) = (needed, Some(Fec::Off))
        });
        let taken = world
            .sender(publisher)
            .set_credential(&signed, &chain, now + SECOND, now);
        assert_eq!(taken, Ok(()), "the MTU that it names is enough");
        world.start_publisher(publisher, |config| {
            (config.mtu, config.fec) = (needed - 1, Some(Fec::Off))
        });
        let taken = world
            .sender(publisher)
            .set_credential(&signed, &chain, now + SECOND, now);
        assert!(taken.is_err());
    }
    let taken = world
        .sender(publisher)
        .set_credential(&signed, &longer(9_000), now + SECOND, now);
    assert!(matches!(taken, Err(UnfitCredential::TooLong { bytes }) if bytes > 9_632));
}

/// Invariant 10: what a device may take of the places of streams is what others leave.
#[test]
fn invariant_10_no_device_takes_the_places_of_others() {
    let mut world = World::new(1);
    let subscriber = world.add_subscriber_with(|config| config.max_streams = 8);
    let publisher = world.add_publisher();
    world.settle();
    let quiet = world.stream(publisher);
    world.send(publisher, 10, 1100);
    world.run_for(SECOND);
    let greedy = world.add_publisher();
    world.settle();
    // A stream each, and each speaks: none of them is idle.
    let mut kept = 0;
    for seed in 0..30 {
        let forge = world.forge_with([0x40 + seed; 32]);
        let bundle = world.publishers[greedy].bundle(&forge, world.now);
        assert_eq!(world.announce(subscriber, &forge, &bundle), None);
        let datagram = forge
            .block(forge.data_header(1, 0, 1, world.now), &[message(0, b"more")])
            .remove(0);
        kept += usize::from(world.feed(subscriber, &datagram).is_none());
        world.run_for(SECOND / 2);
    }
    let held = |world: &mut World| -> Vec<String> {
        let streams = world.receiver(subscriber).streams();
        let mut devices: Vec<_> = streams.map(|stream| stream.publisher.device.clone()).collect();
        devices.sort();
        devices
    };
    assert_eq!(kept, 6, "one of eight is the quiet one's, one its own");
    assert_eq!(
        held(&mut world)
            .iter()
            .filter(|device| **device == "publisher-1")
            .count(),
        7
    );
    // Others come: the greedy one makes room, down to its share.
    for n in 2..5 {
        let other = world.add_publisher();
        world.run_for(3 * SECOND);
        assert!(held(&mut world).contains(&format!("publisher-{n}")));
        let stream = world.stream(other);
        world.send(other, 5, 1100);
        world.run_for(SECOND);
        assert_eq!(world.ids(subscriber, stream).len(), 5);
    }
    let closed = |event: &Event| matches!(event, Event::StreamClosed { reason, .. } if reason == "too many streams of its device");
    assert_eq!(count(&world, subscriber, closed), 3);
    world.send(publisher, 10, 1100);
    world.run_for(SECOND);
    assert_eq!(world.ids(subscriber, quiet).len(), 20);
}

/// Invariant 10: a request that was made is not remembered by each stream there ever was.
#[test]
fn invariant_10_repairs_leave_nothing_behind() {
    let mut world = World::new(1);
    let subscriber = world.add_subscriber();
    let publisher = world.add_publisher();
    world.settle();
    world.subscribers[subscriber].link.loss = 300;
    for _ in 0..10 {
        let stream = world.stream(publisher);
        world.send(publisher, 50, 1100);
        world.finish(subscriber, stream, 10 * SECOND);
        world.crash_publisher(publisher);
        world.start_publisher(publisher, |_| ());
        world.settle();
    }
    assert!(world.repair_requests >= 10);
    world.run_for(10 * SECOND);
    let member = format!("{:?}", world.receiver(subscriber).member());
    assert!(!member.contains("Repair("), "{member}");
}

#[test]
fn unordered_delivers_each_message_once_when_it_is_complete() {
    let mut world = World::new(1);
    let subscriber = world.add_subscriber_with(|config| config.stream.delivery = Delivery::Unordered);
    let publisher = world.add_publisher();
    world.settle();
    world.subscribers[subscriber].link = Link {
        loss: 100,
        reorder: (250, 300 * MILLI),
        duplicate: 100,
        ..Link::default()
    };
    let stream = world.stream(publisher);
    for _ in 0..10 {
        world.send(publisher, 20, 1100);
        world.send(publisher, 2, 50_000);
        world.run_for(20 * MILLI);
    }
    let all = world.run_until(20 * SECOND, |world| world.ids(subscriber, stream).len() == 220);
    assert!(all, "{} of 220", world.ids(subscriber, stream).len());
    world.run_for(5 * SECOND);
    world.assert_authentic();
    let ids = world.ids(subscriber, stream);
    assert!(!ids.is_sorted(), "nothing was overtaken");
    assert_eq!(ids.len(), 220);
    assert_eq!(world.gaps(subscriber, stream), []);
}

/// An application that stops reading: memory is bounded, the engine sleeps, and nothing is lost once it reads again.
#[test]
fn a_slow_application_is_waited_for_without_spinning() {
    let mut world = World::new(1);
    let subscriber = world.add_subscriber_with(|config| config.queue_bytes = 50_000);
    let publisher = world.add_publisher();
    world.settle();
    let stream = world.stream(publisher);
    world.subscribers[subscriber].reads = false;
    world.send_steadily(publisher, 200, 1100, 5 * MILLI);
    let mut wakes = 0;
    let end = world.now + SECOND;
    while world.step(end) {
        wakes += 1;
    }
    assert!(wakes < 200, "{wakes} wakes in a second with nothing to do");
    world.subscribers[subscriber].reads = true;
    world.pump_subscriber(subscriber);
    world.finish(subscriber, stream, 20 * SECOND);
}

/// The clock of a publisher goes back and forth: times and slots of its packets never go back (DP-14, KM-11).
#[test]
fn a_publisher_whose_clock_jumps_keeps_its_stream_going() {
    let mut world = World::new(1);
    world.beacon_interval = None;
    let subscriber = world.add_subscriber();
    let publisher = world.add_publisher();
    world.settle();
    let stream = world.stream(publisher);
    // An hour is a slot; the skew stays within the slots that members hold.
    for clock in [0, 3600, 0, -60, 1800, -5] {
        world.publishers[publisher].clock = clock * SECOND as i64;
        world.send(publisher, 10, 1100);
        world.run_for(5 * SECOND);
        world.send(publisher, 10, 1100);
        world.run_for(5 * SECOND);
    }
    world.finish(subscriber, stream, MINUTE);
    let messages = &world.subscribers[subscriber].messages;
    assert!(messages.is_sorted_by_key(|message| message.time));
    assert!(messages.is_sorted_by_key(|message| message.epoch.slot));
}

/// DP-31: a stream that was over before any announcement of it came is told of by its end, and mended.
#[test]
fn a_short_stream_whose_announcements_were_lost_is_heard_of_by_its_end() {
    let mut world = World::new(1);
    let subscriber = world.add_subscriber();
    let publisher = world.add_publisher();
    world.settle();
    world.crash_publisher(publisher);
    world.start_publisher(publisher, |_| ());
    let stream = world.stream(publisher);
    let ended = std::rc::Rc::new(std::cell::Cell::new(false));
    let is_over = std::rc::Rc::clone(&ended);
    world.drop_if = Some(Box::new(move |_, datagram| {
        !is_over.get() && datagram[5] == PacketType::Credential as u8 && datagram[6..22] == stream.0
    }));
    world.send(publisher, 20, 300);
    world.run_for(50 * MILLI);
    assert!(world.ids(subscriber, stream).is_empty(), "nobody has told of it");
    ended.set(true);
    let now = world.now;
    world.sender(publisher).finish(None, now);
    // Sooner than the repetition that comes every so often.
    world.run_for(20 * MILLI);
    let heard = world
        .receiver(subscriber)
        .streams()
        .any(|known| known.publisher.stream == stream);
    assert!(heard);
    world.finish(subscriber, stream, 5 * SECOND);
}

#[test]
fn before_a_credential_vouches_for_a_stream_nothing_of_it_is_due() {
    let mut world = World::new(1);
    let publisher = world.add_publisher();
    world.publishers[publisher].certified = true;
    world.run_for(SECOND);
    let now = world.now;
    let sender = world.sender(publisher);
    sender.finish(None, now);
    sender.handle_deadline(now, [[0; 16]; 2]);
    assert!(sender.next_deadline().is_some_and(|at| at > now));
}
