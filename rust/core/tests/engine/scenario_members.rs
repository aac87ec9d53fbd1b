//! Keys and members: slots turn, members come and go, key servers restart, while packets are lost.

use crate::common::forge::message;
use crate::common::{Forge, HOUR, MILLI, MINUTE, SECOND, START, World};
use sealcast_core::crypto::Secret;
use sealcast_core::event::Event;
use sealcast_core::keyring::Lookup;
use sealcast_core::rejection::Rejection;
use sealcast_core::wire::PacketType;

/// The longest time between two messages of the same stream at one subscriber.
fn longest_pause(world: &World, subscriber: usize) -> u64 {
    let times: Vec<_> = world.subscribers[subscriber]
        .messages
        .iter()
        .map(|message| message.time)
        .collect();
    times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0)
}

#[test]
fn slots_turn_during_loss_without_a_loss() {
    for seed in 1..=3 {
        let mut world = World::new(seed);
        world.key_server.policy.slot_length = 20 * SECOND;
        world.key_server.policy.slot_origin_time = START - 10 * SECOND;
        world.key_server.set_policy(|_| ());
        let subscriber = world.add_subscriber();
        let publisher = world.add_publisher();
        world.settle();
        world.subscribers[subscriber].link.loss = 200;
        let stream = world.stream(publisher);
        world.send_steadily(publisher, 2000, 300, 50 * MILLI);
        world.finish(subscriber, stream, 20 * SECOND);
        let messages = &world.subscribers[subscriber].messages;
        assert!(messages.last().unwrap().epoch.slot - messages[0].epoch.slot >= 4);
        assert!(
            longest_pause(&world, subscriber) < SECOND,
            "the publisher stalled"
        );
        let fetches = world.subscribers[subscriber]
            .commands
            .iter()
            .filter(|command| command.path.ends_with("/keys"));
        assert!(fetches.count() < 30);
    }
}

/// Prefetched slots carry traffic over an outage of the key server.
#[test]
fn traffic_outlives_an_outage_of_the_key_server() {
    let mut world = World::new(1);
    let subscriber = world.add_subscriber();
    let publisher = world.add_publisher();
    world.settle();
    let stream = world.stream(publisher);
    world.key_server_down = true;
    world.send_steadily(publisher, 180, 300, MINUTE);
    world.finish(subscriber, stream, SECOND);
    let epochs: Vec<_> = world.subscribers[subscriber]
        .messages
        .iter()
        .map(|message| message.epoch.slot)
        .collect();
    assert_eq!(epochs.last().unwrap() - epochs[0], 3);
}

/// KM-20: who slept longer than receivers bear with an old generation asks how the keys stand before it seals.
#[test]
fn km_20_a_publisher_that_slept_seals_nothing_under_keys_that_turned_meanwhile() {
    let (mut world, subscriber, publisher) = World::in_mid_stream(1, 10);
    let stream = world.stream(publisher);
    let asleep = world.publishers[publisher].sender.take();
    world.run_for(MINUTE);
    world.key_server.remove("subscriber-7");
    world.run_for(2 * MINUTE);
    world.publishers[publisher].sender = asleep;
    world.key_server_down = true;
    world.send(publisher, 10, 1100);
    world.run_for(5 * SECOND);
    assert_eq!(world.ids(subscriber, stream).len(), 10);
    let blocked = |event: &&Event| matches!(event, Event::Blocked { .. });
    assert_eq!(
        world.publishers[publisher].events.iter().filter(blocked).count(),
        1
    );
    world.key_server_down = false;
    world.finish(subscriber, stream, 20 * SECOND);
    assert_eq!(world.ids(subscriber, stream).len(), 20);
    assert_eq!(world.gaps(subscriber, stream), []);
    let last = world.subscribers[subscriber].messages.last().unwrap();
    assert_eq!(last.epoch.generation, 6);
}

/// KM-20: whoever does not pause is not stopped by an outage, for which there are prefetched slots; and after a pause that
/// receivers bear with, nobody is asked.
#[test]
fn km_20_neither_an_outage_nor_a_short_pause_holds_a_publisher_up() {
    let (mut world, subscriber, publisher) = World::in_mid_stream(1, 10);
    let stream = world.stream(publisher);
    world.key_server_down = true;
    world.run_for(5 * MINUTE);
    world.send(publisher, 10, 1100);
    world.run_for(SECOND);
    assert_eq!(world.ids(subscriber, stream).len(), 20);
    world.key_server_down = false;
    world.run_for(30 * SECOND);
    world.key_server_down = true;
    let asleep = world.publishers[publisher].sender.take();
    world.run_for(MINUTE / 2);
    world.publishers[publisher].sender = asleep;
    world.send(publisher, 10, 1100);
    world.run_for(SECOND);
    assert_eq!(world.ids(subscriber, stream).len(), 30);
}

/// A key server that gives no later slots is not asked more than once a second.
#[test]
fn a_key_server_that_runs_out_of_slots_is_not_stormed() {
    let (mut world, subscriber, _) = World::in_mid_stream(1, 5);
    let canned = world.key_server.keys_reply(world.now);
    world.key_server.canned_keys = Some(canned);
    // The last slot that it gave ends after 3 h 50 min.
    world.run_for(3 * HOUR + 51 * MINUTE);
    let counted = |world: &World| {
        let keys = |command: &&sealcast_core::event::Command| command.path.ends_with("/keys");
        world.subscribers[subscriber].commands.iter().filter(keys).count()
    };
    let before = counted(&world);
    world.run_for(MINUTE);
    let fetches = counted(&world) - before;
    assert!(fetches <= 61, "{fetches} fetches in a minute");
}

/// E1: from its removal on, a member opens nothing, whatever it kept and hears; the others lose nothing.
#[test]
fn e1_a_removed_member_opens_nothing_and_the_others_lose_nothing() {
    for seed in 1..=3 {
        let mut world = World::new(seed);
        let (stays, goes) = (world.add_subscriber(), world.add_subscriber());
        let publisher = world.add_publisher();
        world.settle();
        world.subscribers[stays].link.loss = 100;
        let stream = world.stream(publisher);
        world.send_steadily(publisher, 100, 1100, 10 * MILLI);
        world.key_server.remove("subscriber-1");
        world.send_steadily(publisher, 300, 1100, 10 * MILLI);
        world.finish(stays, stream, 10 * SECOND);
        assert!(longest_pause(&world, stays) < SECOND, "the publisher stalled");
        let got = world.subscribers[goes].messages.iter();
        assert!(got.clone().all(|message| message.epoch.generation == 5));
        let last = got.map(|message| message.message_id).max().unwrap();
        assert!(last < 110, "sealed for it until {last}");
        let events = &world.subscribers[goes].events;
        assert!(events.iter().any(|event| matches!(event, Event::Refused { .. })));
        // All that it holds, against all that was sent since: no key of the new generation can be made.
        let captured = world.captured_of(PacketType::Data);
        let admitted = world.receiver(goes).member_mut().admitted_mut().unwrap();
        let new = captured
            .iter()
            .filter(|datagram| datagram[26..30] == 6u32.to_be_bytes());
        let mut tried = 0;
        for datagram in new {
            let view = sealcast_core::wire::PacketView::parse(datagram).unwrap();
            assert!(!matches!(
                admitted.keyring.lookup(view.header.epoch),
                Lookup::Held(_)
            ));
            tried += 1;
        }
        assert!(tried > 250);
    }
}

/// A removed publisher is silenced at once, with all its keys (invariant 5).
#[test]
fn a_removed_publisher_is_silenced() {
    let mut world = World::new(1);
    let subscriber = world.add_subscriber();
    let (stays, goes) = (world.add_publisher(), world.add_publisher());
    world.settle();
    let (kept, cut) = (world.stream(stays), world.stream(goes));
    world.send(goes, 10, 1100);
    world.finish(subscriber, cut, SECOND);
    let old = world.forge(goes);
    world.key_server.remove("publisher-1");
    world.run_for(SECOND);
    let closed =
        |event: &Event| matches!(event, Event::StreamClosed { publisher, .. } if publisher.stream == cut);
    assert!(world.subscribers[subscriber].events.iter().any(closed));
    // It seals on with what it has; and with what another member might give it.
    let header = old.data_header(1, 10, 1, world.now);
    let datagram = &old.block(header, &[message(10, b"still here")])[0];
    assert_eq!(world.refused(subscriber, datagram), Rejection::UnknownStream);
    let bundle = world.publishers[goes].bundle(&old, world.now);
    let new = Forge::new(
        &world.key_server,
        world.key_server.epoch(world.now),
        &Secret::new(world.publishers[goes].seed),
    );
    for forge in [&old, &new] {
        let parts: Vec<Vec<u8>> = bundle.chunks(1204).map(<[u8]>::to_vec).collect();
        let header = sealcast_core::wire::Header {
            packet_type: PacketType::Credential,
            count: parts.len() as u8,
            ..forge.data_header(2, 0, 1, world.now)
        };
        let verdicts: Vec<_> = forge
            .block(header, &parts)
            .iter()
            .map(|datagram| world.feed(subscriber, datagram))
            .collect();
        assert!(
            matches!(verdicts.last().unwrap(), Some(Rejection::Credential)),
            "{verdicts:?}"
        );
    }
    world.send(stays, 10, 1100);
    world.finish(subscriber, kept, SECOND);
}

/// The same by the CRL alone: the device's certificate is revoked, its name is still in the policy.
#[test]
fn a_revoked_publisher_is_silenced() {
    let mut world = World::new(1);
    let subscriber = world.add_subscriber();
    let publisher = world.add_publisher();
    world.settle();
    let stream = world.stream(publisher);
    world.send(publisher, 10, 1100);
    world.finish(subscriber, stream, SECOND);
    let serial = world.publishers[publisher].identity.serial;
    world.key_server.revoke(serial);
    world.run_for(2 * SECOND);
    world.send(publisher, 10, 1100);
    world.run_for(5 * SECOND);
    assert_eq!(world.ids(subscriber, stream).len(), 10);
    let closed = |event: &&Event| matches!(event, Event::StreamClosed { .. });
    assert_eq!(
        world.subscribers[subscriber].events.iter().filter(closed).count(),
        1
    );
}

/// Starts at its admission: nothing from before, nothing lost after.
#[test]
fn a_late_joiner_gets_everything_from_its_admission_on() {
    for seed in 1..=5 {
        let mut world = World::new(seed);
        let early = world.add_subscriber();
        let publisher = world.add_publisher();
        world.settle();
        let stream = world.stream(publisher);
        world.send_steadily(publisher, 100, 1100, 10 * MILLI);
        let late = world.add_subscriber();
        world.subscribers[late].link.loss = 100;
        world.send_steadily(publisher, 200, 1100, 10 * MILLI);
        world.finish(early, stream, 10 * SECOND);
        world.run_for(5 * SECOND);
        world.assert_authentic();
        let ids = world.ids(late, stream);
        let first = *ids.first().expect("it got something");
        assert!((100..140).contains(&first), "it began at {first}");
        assert!(ids.into_iter().eq(first..300));
        assert_eq!(world.gaps(late, stream), []);
        let admission = world.subscribers[late].messages[0].epoch;
        assert!(
            world.subscribers[late]
                .messages
                .iter()
                .all(|m| m.epoch.membership() >= admission.membership())
        );
    }
}

/// Many joins in a row, up to where the steps of a generation are used up (KM-9).
#[test]
fn steps_of_a_generation_may_be_used_up() {
    let (mut world, subscriber, publisher) = World::in_mid_stream(1, 5);
    let stream = world.stream(publisher);
    for _ in 0..300 {
        world.key_server.members.remove("subscriber-5");
        let device = "subscriber-5".to_owned();
        world.key_server.admit(device);
        world.send(publisher, 1, 1100);
        world.run_for(100 * MILLI);
    }
    world.finish(subscriber, stream, 5 * SECOND);
    assert_eq!(world.key_server.generation, 6);
}

/// Beacons are lost, polls fail for a while: whoever comes back finds its way (E5).
#[test]
fn e5_a_member_that_missed_generations_recovers() {
    let (mut world, subscriber, publisher) = World::in_mid_stream(1, 5);
    let stream = world.stream(publisher);
    world.subscribers[subscriber].link.cut = Some((world.now, world.now + 10 * SECOND));
    for n in 2..6 {
        world.key_server.remove(&format!("subscriber-{n}"));
        world.send_steadily(publisher, 20, 1100, 100 * MILLI);
    }
    world.run_for(2 * SECOND);
    world.send_steadily(publisher, 20, 1100, 100 * MILLI);
    world.run_for(40 * SECOND);
    world.assert_authentic();
    // Generations that came and went while it was away were never handed to it: their packets are told as lost, or came.
    let got = world.ids(subscriber, stream).len() as u64;
    let lost: u64 = world
        .gaps(subscriber, stream)
        .iter()
        .map(|(first, last)| last.unwrap() - first + 1)
        .sum();
    assert_eq!(
        got + lost,
        world.sent[&stream].len() as u64,
        "{got} delivered and {lost} reported"
    );
    assert!(
        world
            .ids(subscriber, stream)
            .contains(&(world.sent[&stream].len() as u64 - 1))
    );
}

#[test]
fn a_key_server_that_restarts_is_found_again() {
    let (mut world, subscriber, publisher) = World::in_mid_stream(1, 5);
    let stream = world.stream(publisher);
    world.key_server_down = true;
    world.send_steadily(publisher, 50, 1100, 100 * MILLI);
    world.restart_key_server(2);
    world.key_server_down = false;
    world.send_steadily(publisher, 300, 1100, 100 * MILLI);
    world.key_server.remove("subscriber-7");
    world.send_steadily(publisher, 50, 1100, 100 * MILLI);
    world.finish(subscriber, stream, 5 * SECOND);
    let generation = world.subscribers[subscriber]
        .messages
        .last()
        .unwrap()
        .epoch
        .generation;
    assert_eq!(generation, 6);
}

/// A device that is not in the policy is refused, and asks again seldom.
#[test]
fn a_stranger_is_refused_and_does_not_storm() {
    let mut world = World::new(1);
    world.key_server.set_policy(|policy| policy.subscribers.clear());
    let subscriber = world.add_subscriber();
    world.run_for(MINUTE);
    let events = &world.subscribers[subscriber].events;
    let refused = events
        .iter()
        .filter(|event| matches!(event, Event::Refused { .. }))
        .count();
    assert_eq!(refused, 1);
    assert!(world.subscribers[subscriber].commands.len() <= 15);
}

/// Three publishers, four subscribers, removals and joins every few seconds, all links bad: the sum of it all.
#[test]
fn rotations_under_loss_lose_nothing() {
    for seed in 1..=3 {
        let mut world = World::new(seed);
        let subscribers: Vec<_> = (0..4).map(|_| world.add_subscriber()).collect();
        let publishers: Vec<_> = (0..3).map(|_| world.add_publisher()).collect();
        world.settle();
        for &subscriber in &subscribers {
            world.subscribers[subscriber].link.loss = 20;
            world.subscribers[subscriber].link.burst = (5, 3);
        }
        for round in 0..20 {
            match round % 4 {
                0 => {
                    world.key_server.members.remove("subscriber-6");
                    world.key_server.admit("subscriber-6".to_owned());
                }
                2 => world.key_server.turn_generation(),
                _ => {}
            }
            for _ in 0..25 {
                for &publisher in &publishers {
                    world.send(publisher, 2, 600);
                }
                world.run_for(20 * MILLI);
            }
        }
        for &publisher in &publishers {
            let stream = world.stream(publisher);
            for &subscriber in &subscribers {
                world.finish(subscriber, stream, 20 * SECOND);
            }
        }
    }
}

/// KM-14: what tells one subscriber that keys are missing tells all of them. They spread; a publisher, who stalls, does not wait.
#[test]
fn km_14_subscribers_spread_their_fetches_and_publishers_ask_at_once() {
    let mut world = World::new(1);
    let subscribers: Vec<_> = (0..8).map(|_| world.add_subscriber()).collect();
    let publisher = world.add_publisher();
    world.settle();
    let asked = |world: &World, subscriber: usize| {
        let commands = world.subscribers[subscriber].commands.iter();
        commands.filter(|command| command.path.ends_with("/keys")).count()
    };
    // No poll tells them: one beacon does, in the same moment.
    for subscriber in &subscribers {
        world.subscribers[*subscriber].link.side_cut = true;
    }
    world.run_for(SECOND);
    let before: Vec<_> = subscribers.iter().map(|&s| asked(&world, s)).collect();
    world.key_server.generation += 1;
    let beacon = world.key_server.beacon(world.now);
    let now = world.now;
    let sender = world.sender(publisher);
    sender.member_mut().receive_beacon(&beacon, now).unwrap();
    assert_eq!(sender.next_deadline(), Some(now));
    world.multicast(&beacon);
    // Packets that come all the time must not wear the spread down.
    let forge = world.forge(publisher);
    let datagram = forge
        .block(forge.data_header(1, 0, 1, now), &[message(0, b"ahead")])
        .remove(0);
    let mut times = vec![None; subscribers.len()];
    for _ in 0..300 {
        world.multicast(&datagram);
        world.run_for(MILLI);
        for &subscriber in &subscribers {
            if times[subscriber].is_none() && asked(&world, subscriber) > before[subscriber] {
                times[subscriber] = Some((world.now - now) / MILLI);
            }
        }
    }
    let mut times: Vec<u64> = times
        .into_iter()
        .map(|time| time.expect("asked within 300 ms"))
        .collect();
    times.sort_unstable();
    assert!(times[7] <= 255, "{times:?}");
    assert!(times[7] - times[0] > 100, "all at once: {times:?}");
}
