//! Which stream continues which (DP-32), and that a signed end is the last word (DP-27).

use crate::common::forge::message;
use crate::common::{Forge, SECOND, World};
use sealcast_core::block::leaf_hashes;
use sealcast_core::crypto::{Secret, VerifyingKey};
use sealcast_core::event::{Claim, Event, Evidence};
use sealcast_core::rejection::Rejection;
use sealcast_core::stream::Heartbeat;
use sealcast_core::wire::{Header, PacketType, StreamId};

/// What `subscriber` was told each new stream continues, in order.
fn started(world: &World, subscriber: usize) -> Vec<Option<StreamId>> {
    let events = world.subscribers[subscriber].events.iter();
    let succeeds = |event: &Event| match event {
        Event::StreamStarted { succeeds, .. } => Some(*succeeds),
        _ => None,
    };
    events.filter_map(succeeds).collect()
}

fn conflicts(world: &World, subscriber: usize) -> Vec<(StreamId, Claim, Claim)> {
    let events = world.subscribers[subscriber].events.iter();
    let conflict = |event: &Event| match event {
        Event::SuccessionConflict {
            predecessor,
            first,
            second,
        } => Some((*predecessor, first.clone(), second.clone())),
        _ => None,
    };
    events.filter_map(conflict).collect()
}

/// A stream that `publisher`'s device vouches for and that claims to continue another, with its bundle.
fn successor(world: &World, publisher: usize, seed: u8, old: StreamId) -> (Forge, Vec<u8>) {
    let forge = world.forge_with([seed; 32]);
    let bundle = world.publishers[publisher].bundle_of_successor(&forge, world.now, Some(old));
    (forge, bundle)
}

fn heartbeat(forge: &Forge, block: u8, now: u64, heartbeat: Heartbeat) -> Vec<u8> {
    let header = Header {
        packet_type: PacketType::Heartbeat,
        ..forge.data_header(block, 0, 1, now)
    };
    forge.block(header, &[heartbeat.encode()]).remove(0)
}

#[test]
fn dp_32_two_successors_are_a_conflict_that_both_credentials_prove() {
    let (mut world, subscriber, publisher) = World::in_mid_stream(1, 10);
    let old = world.stream(publisher);
    world.crash_publisher(publisher);
    let (one, one_bundle) = successor(&world, publisher, 0x21, old);
    let (two, two_bundle) = successor(&world, publisher, 0x22, old);
    assert_eq!(world.announce(subscriber, &one, &one_bundle), None);
    assert_eq!(world.gaps(subscriber, old), [(10, None)]);
    assert_eq!(world.announce(subscriber, &two, &two_bundle), None);
    assert_eq!(started(&world, subscriber), [None, Some(old), None]);
    let told = conflicts(&world, subscriber);
    let claim = |forge: &Forge, bundle: &[u8]| Claim {
        stream: forge.stream,
        credential: Some(bundle.to_vec()),
    };
    assert_eq!(told, [(old, claim(&one, &one_bundle), claim(&two, &two_bundle))]);
    // Whoever trusts the site's root sees what one device has signed twice.
    for proof in [&told[0].1, &told[0].2] {
        let (member, now) = (
            world.subscribers[subscriber].receiver.as_ref().unwrap().member(),
            world.now,
        );
        let proven = member
            .verify_stream(proof.credential.as_ref().unwrap(), now)
            .unwrap();
        assert_eq!(proven.stream(), proof.stream);
        assert_eq!(proven.credential.succeeds, Some(old));
    }
    // The same again is no further conflict.
    assert_eq!(
        world.announce(subscriber, &two, &two_bundle),
        Some(Rejection::Duplicate)
    );
    assert_eq!(conflicts(&world, subscriber).len(), 1);
}

/// Another device, and another instance of the same one.
#[test]
fn dp_32_a_foreign_claim_on_a_running_stream_is_ignored() {
    let (mut world, subscriber, publisher) = World::in_mid_stream(1, 10);
    let other = world.add_publisher();
    world.settle();
    let old = world.stream(publisher);
    let (thief, bundle) = successor(&world, other, 0x21, old);
    assert_eq!(world.announce(subscriber, &thief, &bundle), None);
    // It may speak, as a stream that continues nothing.
    let datagram = &thief.block(thief.data_header(1, 0, 1, world.now), &[message(0, b"mine")])[0];
    assert_eq!(world.feed(subscriber, datagram), None);
    assert_eq!(started(&world, subscriber), [None, None, None]);
    assert_eq!(conflicts(&world, subscriber), []);
    assert_eq!(world.gaps(subscriber, old), []);
    assert_eq!(world.receiver(subscriber).counters().foreign_successions, 1);
    world.send(publisher, 10, 1100);
    world.run_for(SECOND);
    assert_eq!(world.ids(subscriber, old).len(), 20);
    // The genuine one finds its place free.
    let (genuine, bundle) = successor(&world, publisher, 0x22, old);
    assert_eq!(world.announce(subscriber, &genuine, &bundle), None);
    assert_eq!(started(&world, subscriber).last(), Some(&Some(old)));
    assert_eq!(conflicts(&world, subscriber), []);
}

#[test]
fn dp_32_a_foreign_claim_on_a_suspended_stream_is_ignored() {
    for genuine in [false, true] {
        let (mut world, subscriber, publisher) = World::in_mid_stream(1, 10);
        let other = world.add_publisher();
        world.settle();
        let old = world.stream(publisher);
        world
            .key_server
            .set_policy(|policy| policy.publishers.retain(|name| name != "publisher-0"));
        world.run_for(3 * SECOND);
        let closed =
            |event: &Event| matches!(event, Event::StreamClosed { publisher, .. } if publisher.stream == old);
        assert!(world.subscribers[subscriber].events.iter().any(closed));
        let (thief, bundle) = successor(&world, other, 0x21, old);
        assert_eq!(world.announce(subscriber, &thief, &bundle), None);
        assert_eq!(started(&world, subscriber), [None, None, None]);
        assert_eq!(world.gaps(subscriber, old), []);
        let publishers = (0..8).map(|n| format!("publisher-{n}")).collect();
        world
            .key_server
            .set_policy(|policy| policy.publishers = publishers);
        if genuine {
            // Before the old stream is accepted again: nobody will speak for it any more.
            world.publishers[publisher].sender = None;
            world.key_server.directory.retain(|entry| entry.stream != old);
            world.run_for(3 * SECOND);
            let (heir, bundle) = successor(&world, publisher, 0x22, old);
            assert_eq!(world.announce(subscriber, &heir, &bundle), None);
            assert_eq!(world.gaps(subscriber, old), [(10, None)]);
            assert_eq!(started(&world, subscriber).last(), Some(&Some(old)));
        } else {
            // It goes on where it stood.
            world.run_for(3 * SECOND);
            world.send(publisher, 10, 1100);
            world.finish(subscriber, old, 5 * SECOND);
        }
        assert_eq!(conflicts(&world, subscriber), []);
    }
}

/// Whom the end names continues the stream, in whatever order the three are heard of.
#[test]
fn dp_32_the_successor_that_a_signed_end_names_decides() {
    for end_first in [true, false] {
        let (mut world, subscriber, publisher) = World::in_mid_stream(1, 10);
        let old = world.stream(publisher);
        let (named, named_bundle) = successor(&world, publisher, 0x21, old);
        let (other, other_bundle) = successor(&world, publisher, 0x22, old);
        let end = |world: &mut World| {
            let now = world.now;
            world.sender(publisher).finish(Some(named.stream), now);
            world.run_for(SECOND);
        };
        if end_first {
            end(&mut world);
        }
        assert_eq!(world.announce(subscriber, &other, &other_bundle), None);
        if !end_first {
            end(&mut world);
        }
        let is_first = (!end_first).then_some(old);
        assert_eq!(started(&world, subscriber), [None, is_first]);
        let first = Claim {
            stream: named.stream,
            credential: None,
        };
        let second = Claim {
            stream: other.stream,
            credential: Some(other_bundle),
        };
        assert_eq!(conflicts(&world, subscriber), [(old, first, second)]);
        assert_eq!(world.announce(subscriber, &named, &named_bundle), None);
        assert_eq!(started(&world, subscriber), [None, is_first, Some(old)]);
        assert_eq!(conflicts(&world, subscriber).len(), 1);
    }
}

/// The directory tells a newcomer of an ended stream: who continues it is judged by the same rule.
#[test]
fn dp_32_a_stream_that_ended_before_we_came_is_continued_once() {
    let mut world = World::new(1);
    let publisher = world.add_publisher();
    let other = world.add_publisher();
    world.settle();
    let old = world.stream(publisher);
    let now = world.now;
    world.sender(publisher).finish(None, now);
    world.run_for(3 * SECOND);
    let subscriber = world.add_subscriber();
    world.settle();
    for (device, seed) in [(other, 0x21), (publisher, 0x22), (publisher, 0x23)] {
        let (forge, bundle) = successor(&world, device, seed, old);
        assert_eq!(world.announce(subscriber, &forge, &bundle), None);
    }
    assert_eq!(started(&world, subscriber), [None, None, Some(old), None]);
    let told = conflicts(&world, subscriber);
    assert_eq!(told.len(), 1);
    assert!(told[0].1.credential.is_some() && told[0].2.credential.is_some());
}

/// The final heartbeat and a packet beyond it: both are signed, the first stands.
#[test]
fn dp_27_nothing_comes_after_a_signed_end() {
    let (mut world, subscriber, publisher) = World::in_mid_stream(1, 10);
    world.crash_publisher(publisher);
    let forge = Forge::new(
        &world.key_server,
        world.key_server.epoch(world.now),
        &Secret::new(world.publishers[publisher].seed),
    );
    let now = world.now;
    let single = |sequence: u64| {
        let header = forge.data_header(sequence as u8, sequence, 1, now);
        forge.block(header, &[message(sequence, b"late")]).remove(0)
    };
    let beat = |counter, next_sequence, is_final| Heartbeat {
        counter,
        next_sequence,
        is_final,
        successor: None,
    };
    // One packet before the end is still missing.
    let end = heartbeat(&forge, 0xE0, now, beat(1 << 40, 11, true));
    assert_eq!(world.feed(subscriber, &end), None);
    for (counter, next_sequence, is_final) in [(1 << 41, 20, false), (1 << 42, 20, true), (1 << 43, 5, true)]
    {
        let later = heartbeat(&forge, 0xE1, now, beat(counter, next_sequence, is_final));
        assert_eq!(world.refused(subscriber, &later), Rejection::Duplicate);
    }
    for sequence in [11, 12, 1 << 40] {
        assert_eq!(
            world.feed(subscriber, &single(sequence)),
            Some(Rejection::Equivocation)
        );
        let Some(Event::Equivocation {
            sequence: told,
            first: Some(first),
            second,
            ..
        }) = world.subscribers[subscriber].events.last()
        else {
            panic!("not reported: {:?}", world.subscribers[subscriber].events.last());
        };
        assert_eq!(*told, sequence);
        assert_proves(&forge, first, PacketType::Heartbeat);
        assert_proves(&forge, second, PacketType::Data);
        assert_eq!(Heartbeat::parse(&first.body), Some(beat(1 << 40, 11, true)));
    }
    let head = world.receiver(subscriber).streams().next().unwrap().window.head();
    assert_eq!(head, 11);
    assert_eq!(world.feed(subscriber, &single(10)), None);
    let ended = |event: &Event| {
        matches!(
            event,
            Event::StreamEnded {
                next_sequence: 11,
                ..
            }
        )
    };
    assert!(world.subscribers[subscriber].events.iter().any(ended));
    assert_eq!(world.subscribers[subscriber].messages.len(), 11);
    // The budget of conflicts is small, and its own.
    let signatures = world.receiver(subscriber).counters().signatures;
    for sequence in 100..300 {
        assert!(world.feed(subscriber, &single(sequence)).is_some());
    }
    assert!(world.receiver(subscriber).counters().signatures - signatures <= 10);
}

#[test]
fn dp_27_an_end_before_what_was_signed_ends_nothing() {
    let (mut world, subscriber, publisher) = World::in_mid_stream(1, 10);
    let forge = world.forge(publisher);
    let stream = world.stream(publisher);
    let lie = Heartbeat {
        counter: 1 << 40,
        next_sequence: 7,
        is_final: true,
        successor: None,
    };
    let lie = heartbeat(&forge, 0xE0, world.now, lie);
    assert_eq!(world.feed(subscriber, &lie), Some(Rejection::Equivocation));
    let Some(Event::Equivocation {
        sequence: 9,
        first: Some(first),
        second,
        ..
    }) = world.subscribers[subscriber].events.last()
    else {
        panic!("not reported: {:?}", world.subscribers[subscriber].events.last());
    };
    assert_proves(&forge, first, PacketType::Data);
    assert_proves(&forge, second, PacketType::Heartbeat);
    world.send(publisher, 10, 1100);
    world.finish(subscriber, stream, SECOND);
}

/// The signature is the stream's over the statement; a heartbeat's body is what the statement's root is the hash of.
#[track_caller]
fn assert_proves(forge: &Forge, evidence: &Evidence, packet_type: PacketType) {
    let key = VerifyingKey::new(forge.signing.public_key()).unwrap();
    assert!(key.verifies(&evidence.statement, &evidence.signature));
    let (context, statement) = evidence.statement[1..].split_at(packet_type.context().len());
    assert_eq!(context, packet_type.context().as_bytes());
    if packet_type == PacketType::Data {
        assert!(evidence.body.is_empty());
        return;
    }
    let at = 1 + 32 + 16;
    let header = Header {
        packet_type,
        stream: forge.stream,
        epoch: forge.epoch,
        block: sealcast_core::wire::BlockId(statement[at + 8..at + 24].try_into().unwrap()),
        first_sequence: 0,
        index: evidence.index,
        count: statement[at + 32],
        time: u64::from_be_bytes(statement[at + 33..at + 41].try_into().unwrap()),
    };
    let leaf = leaf_hashes(forge.suite, &[&[&header.to_bytes()[..], &evidence.body].concat()])[0];
    assert_eq!(statement[at + 41..], leaf);
}
