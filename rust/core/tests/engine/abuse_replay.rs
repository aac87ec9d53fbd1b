//! Replay, reuse and rollback: nothing comes twice, no key and nonce serve twice, nothing goes back.

use std::collections::HashSet;

use crate::common::forge::message;
use crate::common::{Forge, HOUR, KeyServer, MINUTE, SECOND, START, World};
use sealcast_core::control::VerifiedBeacon;
use sealcast_core::crypto::{Secret, Suite, kdf};
use sealcast_core::event::Event;
use sealcast_core::keyring::{InstallError, Keyring, KeyringLimits};
use sealcast_core::member::Floors;
use sealcast_core::rejection::Rejection;
use sealcast_core::schedule::{commit_generation, commit_slot, step_secret};
use sealcast_core::wire::{ChannelId, Epoch, PacketType, PacketView};

/// The table of windows: what a sequence meets when it is new, held, at an edge, behind, or far ahead.
#[test]
fn b1_at_most_once_at_every_edge_of_the_window() {
    let mut world = World::new(1);
    let subscriber = world.add_subscriber_with(|config| {
        config.stream.window_packets = 64;
        config.stream.history_packets = 16;
    });
    let publisher = world.add_publisher();
    world.settle();
    let forge = world.forge(publisher);
    let now = world.now;
    let packet = |sequence: u64| {
        let mut header = forge.data_header(0, sequence, 1, now);
        header.block.0[..8].copy_from_slice(&sequence.to_be_bytes());
        forge
            .block(header, &[message(sequence, &sequence.to_be_bytes())])
            .remove(0)
    };
    let table: [(&str, u64, Option<Rejection>); 24] = [
        ("the first", 0, None),
        ("the first again", 0, Some(Rejection::Duplicate)),
        ("the next", 1, None),
        ("ahead, leaving a gap", 5, None),
        ("ahead again", 5, Some(Rejection::Duplicate)),
        ("in the gap", 3, None),
        ("in the gap again", 3, Some(Rejection::Duplicate)),
        ("the gap's first", 2, None),
        ("the gap's last", 4, None),
        ("delivered after waiting", 5, Some(Rejection::Duplicate)),
        ("the last that fits the window", 6 + 63, None),
        ("it again", 6 + 63, Some(Rejection::Duplicate)),
        ("the first beyond", 6 + 64, Some(Rejection::BeyondWindow)),
        ("far beyond", 1 << 40, Some(Rejection::BeyondWindow)),
        (
            "the highest there is",
            (1 << 62) - 1,
            Some(Rejection::BeyondWindow),
        ),
        ("above the highest", 1 << 62, Some(Rejection::Malformed)),
        (
            "the highest that 64 bits hold",
            u64::MAX,
            Some(Rejection::Malformed),
        ),
        ("the first, held as history", 0, Some(Rejection::Duplicate)),
        ("where the window has moved on", 6, None),
        ("what was beyond", 6 + 64, None),
        ("and the next beyond", 6 + 65, Some(Rejection::BeyondWindow)),
        ("8", 8, None),
        ("7, which joins 6 and 8", 7, None),
        ("7 again", 7, Some(Rejection::Duplicate)),
    ];
    for (what, sequence, wanted) in table {
        let verdict = if sequence >= 1 << 62 {
            // No sealer makes it: write it into a genuine one.
            let mut datagram = packet(9);
            datagram[46..54].copy_from_slice(&sequence.to_be_bytes());
            world.feed(subscriber, &datagram)
        } else {
            world.feed(subscriber, &packet(sequence))
        };
        assert_eq!(verdict, wanted, "{what}");
    }
    for sequence in 9..40 {
        assert_eq!(world.feed(subscriber, &packet(sequence)), None);
    }
    for sequence in 0..24 {
        assert_eq!(
            world.refused(subscriber, &packet(sequence)),
            Rejection::BelowWindow
        );
    }
    for sequence in 24..40 {
        assert_eq!(world.refused(subscriber, &packet(sequence)), Rejection::Duplicate);
    }
    let ids = world.ids(subscriber, forge.stream);
    assert!(ids.into_iter().eq(0..40));
}

/// Replay of everything, in order and in reverse, at once and after an hour.
#[test]
fn b1_a_replayed_stream_is_not_delivered_again() {
    let (mut world, subscriber, publisher) = World::in_mid_stream(1, 200);
    let stream = world.stream(publisher);
    let captured: Vec<_> = world
        .captured
        .iter()
        .map(|(_, datagram)| datagram.clone())
        .collect();
    for pause in [0, MINUTE, HOUR] {
        world.run_for(pause);
        for datagram in captured.iter().chain(captured.iter().rev()) {
            world.feed(subscriber, datagram);
        }
    }
    world.run_for(SECOND);
    world.assert_complete(subscriber, stream);
}

/// Every (key, nonce) that data and credential packets on the wire were sealed with.
pub(crate) fn pairs_of(key_server: &KeyServer, captured: &[impl AsRef<[u8]>]) -> Vec<([u8; 32], u8)> {
    let mut pairs = Vec::new();
    for datagram in captured {
        let view = PacketView::parse(datagram.as_ref()).unwrap();
        let header = view.header;
        let keys = key_server.epoch_keys(header.epoch);
        let key = match header.packet_type {
            PacketType::Data => kdf(
                keys.stream_secret(&header.stream).unwrap().expose(),
                "block",
                &[&header.block.0],
            ),
            PacketType::Credential => {
                // The credential key itself stays inside: the epoch and the context stand for it.
                let context = [&header.epoch.to_bytes()[..], &header.stream.0, &header.block.0].concat();
                kdf(&[0; 32], "credential block", &[&context])
            }
            _ => continue,
        };
        pairs.push((*key.expose(), header.index));
    }
    pairs
}

fn assert_unique(pairs: &[([u8; 32], u8)]) {
    let unique: HashSet<_> = pairs.iter().collect();
    assert_eq!(unique.len(), pairs.len(), "a key and nonce were used twice");
}

#[test]
fn b4_no_key_and_nonce_repeat_over_sender_restarts() {
    let restarts = if cfg!(debug_assertions) { 100 } else { 1000 };
    let mut world = World::new(1);
    world.beacon_interval = None;
    let publisher = world.add_publisher();
    let mut pairs = Vec::new();
    for _ in 0..restarts {
        assert!(world.run_until(SECOND, |world| world.sender(publisher).head().is_some()));
        world.send(publisher, 3, 1100);
        world.send(publisher, 1, 10);
        let captured: Vec<_> = world.captured.drain(..).map(|(_, datagram)| datagram).collect();
        pairs.extend(pairs_of(&world.key_server, &captured));
        world.crash_publisher(publisher);
        world.start_publisher(publisher, |_| ());
        world.key_server.directory.truncate(3);
    }
    assert!(pairs.len() >= restarts * 5);
    assert_unique(&pairs);
}

/// Clones of one sender, from one snapshot: same seed, same position, same time. Only the operating system's randomness
/// differs, and that is enough (DP-12).
#[test]
fn b5_no_key_and_nonce_repeat_over_clones() {
    let clone = |seed: u64| {
        let mut world = World::new(seed);
        let publisher = world.add_publisher();
        assert!(world.run_until(SECOND, |world| world.sender(publisher).head().is_some()));
        for _ in 0..4 {
            world.send(publisher, 3, 1100);
        }
        let captured: Vec<_> = world
            .captured
            .iter()
            .map(|(_, datagram)| datagram.clone())
            .collect();
        (world.stream(publisher), pairs_of(&world.key_server, &captured))
    };
    let clones: Vec<_> = (0..100).map(clone).collect();
    assert!(
        clones.iter().all(|(stream, _)| *stream == clones[0].0),
        "all clones are one stream"
    );
    let pairs: Vec<_> = clones.into_iter().flat_map(|(_, pairs)| pairs).collect();
    assert!(pairs.len() >= 100 * 13);
    assert_unique(&pairs);
    // The test can see a repetition: with the same randomness there is one.
    let (again, first) = (clone(5).1, clone(5).1);
    assert!(again.iter().any(|pair| first.contains(pair)));
}

/// KRACK: old replies and beacons, sent again, install nothing and move nothing back.
#[test]
fn b6_replayed_keys_replies_and_beacons_move_nothing_back() {
    let (mut world, subscriber, publisher) = World::in_mid_stream(1, 10);
    let stream = world.stream(publisher);
    let old_reply = world.key_server.keys_reply(world.now);
    let old_beacons = world.captured_of(PacketType::Beacon);
    world.key_server.remove("subscriber-6");
    world.run_for(3 * SECOND);
    let state = |world: &mut World| {
        let admitted = world.receiver(subscriber).member().admitted().unwrap();
        (
            admitted.keyring.announced(),
            admitted.keyring.held_epoch_numbers(),
        )
    };
    let before = state(&mut world);
    assert_eq!(before.0, Some((6, 0)));
    for beacon in &old_beacons {
        assert_eq!(world.refused(subscriber, beacon), Rejection::Beacon);
    }
    // The next fetch is answered with the recorded reply, for a minute.
    world.key_server.canned_keys = Some(old_reply);
    world.key_server.remove("subscriber-7");
    world.run_for(MINUTE);
    let after = state(&mut world);
    assert_eq!(after.0, Some((7, 0)), "announced by the beacon");
    assert_eq!(after.1, before.1, "nothing was installed");
    world.key_server.canned_keys = None;
    world.run_for(10 * SECOND);
    let after = state(&mut world);
    assert_eq!(after.1.1.last(), Some(&(7, 0)));
    world.send(publisher, 5, 1100);
    world.finish(subscriber, stream, 5 * SECOND);
}

/// An older policy or CRL that was validly signed once.
#[test]
fn b7_an_older_policy_is_not_taken() {
    let (mut world, subscriber, _) = World::in_mid_stream(1, 10);
    let old = world.key_server.signed_policy();
    world.key_server.set_policy(|policy| policy.rate += 1);
    world.run_for(3 * SECOND);
    let version = |world: &mut World| world.receiver(subscriber).member().policy().unwrap().version;
    assert_eq!(version(&mut world), 2);
    world.key_server.canned_policy = Some(old);
    world.key_server.set_policy(|policy| policy.rate += 1);
    world.run_for(MINUTE);
    assert_eq!(version(&mut world), 2);
    world.key_server.canned_policy = None;
    world.run_for(10 * SECOND);
    assert_eq!(version(&mut world), 3);
}

fn crl_number(world: &mut World, subscriber: usize) -> u64 {
    world.receiver(subscriber).member().floors().crl_number
}

fn refusals(world: &World, subscriber: usize, word: &str) -> usize {
    let events = world.subscribers[subscriber].events.iter();
    let told = |event: &&Event| matches!(event, Event::Refused { reason } if reason.contains(word));
    events.filter(told).count()
}

/// An older CRL, validly signed once, that somebody on the way still has.
#[test]
fn b7_an_older_crl_is_not_taken() {
    let (mut world, subscriber, publisher) = World::in_mid_stream(1, 10);
    let stream = world.stream(publisher);
    let old = world.key_server.site.crl();
    world.key_server.revoke(1);
    world.run_for(3 * SECOND);
    assert_eq!(crl_number(&mut world, subscriber), 2);
    world.key_server.canned_crl = Some(old.clone());
    world.key_server.revoke(2);
    world.run_for(MINUTE);
    assert_eq!(crl_number(&mut world, subscriber), 2);
    // The key server itself goes back, and starts anew: neither its beacons nor a join with it are obeyed.
    world.key_server.canned_crl = None;
    let newest = world.key_server.site.crl();
    world.key_server.site.roll_crl_back(old, 1);
    world.restart_key_server(2);
    world.run_for(MINUTE);
    assert_eq!(crl_number(&mut world, subscriber), 2);
    assert!(refusals(&world, subscriber, "CRL 1 is older than 2") > 0);
    world.key_server.site.roll_crl_back(newest, 3);
    world.run_for(20 * SECOND);
    assert_eq!(crl_number(&mut world, subscriber), 3);
    world.send(publisher, 5, 1100);
    world.finish(subscriber, stream, 5 * SECOND);
}

/// KM-19: number and hash are the signed beacon's; a CRL that says another number of itself is not the one.
#[test]
fn b7_a_crl_whose_number_is_not_the_one_told_is_not_taken() {
    let (mut world, subscriber, _) = World::in_mid_stream(1, 10);
    world.key_server.told_crl_number = Some(9);
    world.key_server.revoke(1);
    world.run_for(MINUTE);
    assert_eq!(crl_number(&mut world, subscriber), 1);
    let newcomer = world.add_subscriber();
    world.run_for(20 * SECOND);
    assert!(world.receiver(newcomer).member().policy().is_none());
    assert!(refusals(&world, newcomer, "CRL") > 0);
    world.key_server.told_crl_number = None;
    // The counter goes on, the number that was told does not come back: only a higher one is obeyed.
    while world.key_server.site.crl_number() < 9 {
        world.key_server.revoke(1);
    }
    world.run_for(20 * SECOND);
    assert_eq!(crl_number(&mut world, subscriber), 9);
    assert_eq!(crl_number(&mut world, newcomer), 9);
}

/// A join reply of which one part does not hold changes nothing of a member that runs.
#[test]
fn b7_a_join_that_does_not_hold_leaves_everything_as_it_was() {
    let (mut world, subscriber, publisher) = World::in_mid_stream(1, 10);
    let stream = world.stream(publisher);
    let held = |world: &mut World| {
        let receiver = world.receiver(subscriber);
        let admitted = receiver.member().admitted().unwrap();
        let numbers = admitted.keyring.held_epoch_numbers();
        (
            receiver.member().floors(),
            numbers,
            admitted.control.last().cloned(),
        )
    };
    world.run_for(3 * SECOND);
    world.beacon_interval = None;
    let before = held(&mut world);
    // A key server that was broken into: a later policy and CRL, and a beacon of a control stream that nobody vouches for.
    let genuine = world.key_server.generation;
    world.key_server.spoils_beacons_in_answers = true;
    world.key_server.set_policy(|policy| policy.rate += 1);
    world.key_server.revoke(1);
    world.restart_key_server(2);
    world.run_for(20 * SECOND);
    assert_eq!(held(&mut world), before);
    assert_eq!(genuine, world.key_server.generation);
    world.send(publisher, 5, 1100);
    world.finish(subscriber, stream, 5 * SECOND);
    world.key_server.spoils_beacons_in_answers = false;
    world.run_for(20 * SECOND);
    let after = held(&mut world).0;
    assert_eq!((after.policy_version, after.crl_number), (2, 2));
}

/// What an earlier run has seen, handed to a new one: nothing below it is accepted.
#[test]
fn b7_nothing_goes_back_over_a_restart() {
    let (mut world, subscriber, _) = World::in_mid_stream(1, 10);
    world.key_server.remove("subscriber-7");
    world.key_server.revoke(1);
    world.run_for(3 * SECOND);
    let seen = world.receiver(subscriber).member().floors();
    assert_eq!((seen.policy_version, seen.crl_number, seen.generation), (2, 2, 6));
    let higher = [
        Floors {
            policy_version: 3,
            ..seen
        },
        Floors {
            crl_number: 3,
            ..seen
        },
        Floors {
            generation: 7,
            ..seen
        },
    ];
    for (floors, word) in higher.into_iter().zip(["policy", "CRL", "generation"]) {
        world.start_subscriber(subscriber, |config| config.member.floors = floors);
        world.run_for(5 * SECOND);
        assert!(world.receiver(subscriber).member().policy().is_none(), "{word}");
        assert!(refusals(&world, subscriber, word) > 0, "{word}");
        assert_eq!(world.receiver(subscriber).member().floors(), floors);
    }
    world.start_subscriber(subscriber, |config| config.member.floors = seen);
    world.settle();
    assert_eq!(world.receiver(subscriber).member().floors(), seen);
}

/// A beacon that was held up says how things stood (KM-16): it is obeyed, and ends no silence.
#[test]
fn km_16_a_delayed_beacon_does_not_end_silence() {
    let mut world = World::new(1);
    world
        .key_server
        .set_policy(|policy| policy.publisher_limit = 3 * MINUTE);
    let subscriber = world.add_subscriber();
    world.settle();
    world.key_server_down = true;
    world.run_for(SECOND);
    let contact = |world: &mut World| world.receiver(subscriber).member().last_contact();
    let before = contact(&mut world);
    let (delayed, later) = (
        world.key_server.beacon(world.now),
        world.key_server.beacon(world.now),
    );
    world.run_for(59 * SECOND);
    assert_eq!(world.feed(subscriber, &delayed), None);
    assert_eq!(contact(&mut world), Some(world.now), "within the allowance");
    world.run_for(2 * SECOND);
    assert_eq!(world.feed(subscriber, &later), None);
    assert_eq!(contact(&mut world), Some(world.now - 2 * SECOND));
    let silent = |world: &World| {
        let events = world.subscribers[subscriber].events.iter();
        events
            .filter(|event| matches!(event, Event::OutOfContact { .. }))
            .count()
    };
    world.run_for(2 * MINUTE + 57 * SECOND);
    assert_eq!(silent(&world), 0);
    world.run_for(2 * SECOND);
    assert_eq!(silent(&world), 1);
    assert!(before < contact(&mut world));
    let fresh = world.key_server.beacon(world.now);
    assert_eq!(world.feed(subscriber, &fresh), None);
    assert_eq!(contact(&mut world), Some(world.now));
}

/// A stream that ended an hour ago, replayed to a subscriber that started anew and still gets its keys.
#[test]
fn b2_an_old_stream_is_not_delivered_to_a_fresh_receiver() {
    for graceful in [true, false] {
        let mut world = World::new(1);
        let subscriber = world.add_subscriber();
        let publisher = world.add_publisher();
        world.settle();
        let stream = world.stream(publisher);
        world.send(publisher, 50, 1100);
        world.run_for(3 * SECOND);
        if graceful {
            let now = world.now;
            world.sender(publisher).finish(None, now);
        }
        world.run_for(3 * SECOND);
        world.crash_publisher(publisher);
        assert_eq!(world.ids(subscriber, stream).len(), 50);
        let captured: Vec<_> = world
            .captured
            .iter()
            .map(|(_, datagram)| datagram.clone())
            .collect();
        // Still the same slot and membership: every old packet would open.
        world.run_for(30 * MINUTE);
        world.start_subscriber(subscriber, |_| ());
        world.run_for(3 * SECOND);
        for datagram in captured.iter().chain(&captured) {
            world.feed(subscriber, datagram);
            world.run_for(SECOND / 100);
        }
        world.run_for(5 * SECOND);
        assert_eq!(world.ids(subscriber, stream).len(), 50, "graceful: {graceful}");
        // A receiver that has never been here gets nothing of it either.
        let late = world.add_subscriber();
        world.run_for(3 * SECOND);
        for datagram in captured.iter().chain(&captured) {
            world.feed(late, datagram);
            world.run_for(SECOND / 100);
        }
        assert_eq!(world.ids(late, stream).len(), 0);
    }
}

/// KM-8: a secret that was not committed to opens nothing, and is told.
#[test]
fn a_key_server_that_hands_out_an_uncommitted_secret_is_caught() {
    let (mut world, subscriber, publisher) = World::in_mid_stream(1, 10);
    world.key_server.lies_about_secrets = true;
    world.key_server.remove("subscriber-7");
    world.run_for(10 * SECOND);
    let told = |event: &Event| matches!(event, Event::CommitmentMismatch { .. });
    assert!(world.subscribers[subscriber].events.iter().any(told));
    assert!(world.publishers[publisher].events.iter().any(told));
    let keyring = &world.receiver(subscriber).member().admitted().unwrap().keyring;
    assert_eq!(keyring.held_epoch_numbers().1.last().unwrap().0, 5);
    // The publisher does not seal under it.
    world.captured.clear();
    world.queue_messages(publisher, 1, 100);
    world.run_for(SECOND);
    assert!(world.captured_of(PacketType::Data).is_empty());
    // It comes to its senses.
    world.key_server.lies_about_secrets = false;
    let stream = world.stream(publisher);
    world.finish(subscriber, stream, 20 * SECOND);
}

/// A beacon of generation 3 that commits to these.
fn beacon_of(channel: &ChannelId, step: u8, step_secret: &Secret, slot_secret: &Secret) -> VerifiedBeacon {
    VerifiedBeacon {
        epoch: Epoch {
            slot: 9,
            generation: 3,
            step,
        },
        time: START,
        body: sealcast_core::control::BeaconBody {
            counter: 1,
            policy: NO_DOCUMENT,
            crl: NO_DOCUMENT,
            bundle: NO_DOCUMENT,
            generation_commitment: commit_generation(step_secret, channel, 3, step),
            first_slot: 9,
            slot_commitments: vec![commit_slot(slot_secret, channel, 9)],
        },
    }
}

/// KM-8: two secrets for one number, each with a signed commitment.
#[test]
fn a_key_server_that_hands_out_two_secrets_is_caught() {
    let world = World::new(1);
    let channel = world.key_server.channel;
    let mut keyring = Keyring::new(Suite::Aes256Gcm, channel, KeyringLimits::default());
    let beacon = |step: u8, step_secret: &Secret, slot_secret: &Secret| {
        beacon_of(&channel, step, step_secret, slot_secret)
    };
    let (one, two) = (Secret::new([1; 32]), Secret::new([2; 32]));
    let first = beacon(4, &one, &one);
    assert_eq!(keyring.install_slot(9, one.clone(), &first), Ok(()));
    assert_eq!(keyring.install_step(3, 4, one.clone(), &first), Ok(()));
    // The same again is no news; another one is refused, under the same step and under one that follows from it.
    assert_eq!(keyring.install_step(3, 4, one.clone(), &first), Ok(()));
    let second = beacon(4, &two, &two);
    assert_eq!(
        keyring.install_slot(9, two.clone(), &second),
        Err(InstallError::SecondSecret)
    );
    assert_eq!(
        keyring.install_step(3, 4, two.clone(), &second),
        Err(InstallError::SecondSecret)
    );
    assert_eq!(
        keyring.install_step(3, 7, two.clone(), &beacon(7, &two, &two)),
        Err(InstallError::SecondSecret)
    );
    // Not committed to at all, or to another number.
    assert_eq!(
        keyring.install_slot(9, two.clone(), &first),
        Err(InstallError::CommitmentMismatch)
    );
    assert_eq!(
        keyring.install_slot(10, two.clone(), &first),
        Err(InstallError::NotCommitted)
    );
    assert_eq!(
        keyring.install_step(3, 5, two, &first),
        Err(InstallError::NotCommitted)
    );
    assert_eq!(keyring.held_epoch_numbers().0, [9]);
}

/// KM-10: who joins again is given the step of its admission, which has to lead to the committed one.
#[test]
fn the_step_of_an_admission_is_believed_only_if_the_committed_one_follows_from_it() {
    let (channel, secret) = (World::new(1).key_server.channel, Secret::new([1; 32]));
    let last = (2..9).fold(secret.clone(), |secret, step| {
        step_secret(&secret, &channel, 3, step + 1)
    });
    let beacon = beacon_of(&channel, 9, &last, &secret);
    let fresh = || Keyring::new(Suite::Aes256Gcm, channel, KeyringLimits::default());
    let mut keyring = fresh();
    for wrong in [(2, last.clone()), (1, secret.clone()), (9, secret.clone())] {
        assert_eq!(
            keyring.install_since(3, wrong.0, wrong.1, &beacon),
            Err(InstallError::CommitmentMismatch)
        );
    }
    assert_eq!(
        keyring.install_since(3, 10, secret.clone(), &beacon),
        Err(InstallError::NotCommitted)
    );
    assert_eq!(keyring.install_since(3, 2, secret.clone(), &beacon), Ok(()));
    let epoch = |step| Epoch {
        slot: 9,
        generation: 3,
        step,
    };
    assert!(keyring.is_before_admission(epoch(1)));
    assert!(!keyring.is_before_admission(epoch(2)));
    // One that has a secret of this generation, or wants no older one, gets none by it.
    for first in [Keyring::install_since, Keyring::install_step] {
        let mut keyring = fresh();
        assert_eq!(first(&mut keyring, 3, 9, last.clone(), &beacon), Ok(()));
        assert_eq!(keyring.install_since(3, 2, secret.clone(), &beacon), Ok(()));
        assert!(keyring.is_before_admission(epoch(8)));
    }
    let mut keyring = fresh();
    assert_eq!(keyring.install_step(3, 2, secret, &beacon), Ok(()));
    assert!(keyring.is_before_admission(epoch(8)));
}

const NO_DOCUMENT: sealcast_core::control::DocumentVersion = sealcast_core::control::DocumentVersion {
    number: 0,
    hash: [0; 32],
};

/// A removed publisher, with every key it had, cannot pass off what it seals now as old (KM-12).
#[test]
fn km_12_an_older_generation_is_refused_when_its_time_is_over() {
    let (mut world, subscriber, publisher) = World::in_mid_stream(1, 10);
    let old = world.forge(publisher);
    let packet = |forge: &Forge, sequence: u64, now| {
        forge
            .block(
                forge.data_header(sequence as u8, sequence, 1, now),
                &[message(sequence, b"late")],
            )
            .remove(0)
    };
    let stream = world.stream(publisher);
    world.crash_publisher(publisher);
    world.key_server.remove("subscriber-7");
    world.run_for(3 * SECOND);
    // A publisher that has not heard of the removal yet is still heard.
    let datagram = packet(&old, 10, world.now);
    assert_eq!(world.feed(subscriber, &datagram), None);
    world.run_for(2 * MINUTE);
    let datagram = packet(&old, 11, world.now);
    assert_eq!(
        world.feed(subscriber, &datagram),
        Some(Rejection::StaleGeneration)
    );
    assert_eq!(world.subscribers[subscriber].messages.len(), 11);
    // It is told as lost at once, and nobody is asked for it again and again.
    assert_eq!(world.gaps(subscriber, stream), [(11, Some(11))]);
    assert_eq!(world.refused(subscriber, &datagram), Rejection::Duplicate);
}

/// A packet whose key is on its way is held once, however often it is sent again.
#[test]
fn b1_a_packet_that_is_held_takes_no_room_twice() {
    let (mut world, subscriber, publisher) = World::in_mid_stream(1, 10);
    world.key_server_down = true;
    world.key_server.turn_generation();
    let forge = world.forge(publisher);
    let block = forge.block(
        forge.data_header(1, 10, 2, world.now),
        &[message(10, b"a"), message(11, b"b")],
    );
    for datagram in &block {
        assert_eq!(world.feed(subscriber, datagram), Some(Rejection::UnknownEpoch));
    }
    let before = world.receiver(subscriber).fingerprint();
    for datagram in block.iter().cycle().take(20_000) {
        assert_eq!(world.feed(subscriber, datagram), Some(Rejection::UnknownEpoch));
    }
    assert_eq!(world.receiver(subscriber).fingerprint(), before);
    world.key_server_down = false;
    world.run_for(30 * SECOND);
    let messages = &world.subscribers[subscriber].messages;
    assert_eq!(messages.len(), 12);
    assert_eq!(
        (&messages[10].data[..], &messages[11].data[..]),
        (&b"a"[..], &b"b"[..])
    );
}

/// Its signature has held; the gate has nothing to add, and a copy with another tag must not displace it (KM-14).
#[test]
fn b1_a_held_copy_with_another_gate_tag_displaces_nothing() {
    let (mut world, subscriber, publisher) = World::in_mid_stream(1, 10);
    world.key_server_down = true;
    world.key_server.turn_generation();
    let forge = world.forge(publisher);
    let plaintexts: Vec<_> = (10..14).map(|id| message(id, b"genuine")).collect();
    let block = forge.block(forge.data_header(1, 10, 4, world.now), &plaintexts);
    for datagram in &block {
        let mut copy = datagram.clone();
        let gate = copy.len() - 8;
        copy[gate..].fill(0xEE);
        for datagram in [&copy, datagram] {
            assert_eq!(world.feed(subscriber, datagram), Some(Rejection::UnknownEpoch));
        }
    }
    world.key_server_down = false;
    world.run_for(30 * SECOND);
    let messages = &world.subscribers[subscriber].messages;
    assert_eq!(messages.len(), 14);
    assert!(
        messages[10..]
            .iter()
            .all(|message| message.data == b"genuine"[..])
    );
    let counters = world.receiver(subscriber).counters();
    assert_eq!((counters.rejected(Rejection::Gate), counters.repaired), (0, 0));
}
