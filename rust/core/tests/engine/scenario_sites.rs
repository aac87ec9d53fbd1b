//! Devices of two sites on one channel. Both site CAs have one name, and devices of both may have one name.

use crate::common::{MILLI, SECOND, World};
use proptest::prelude::*;
use sealcast_core::crl::{CrlSet, Signature};
use sealcast_core::event::Event;
use sealcast_core::policy::{member_name, parse_member};
use sealcast_core::validator::Certificate;
use sealcast_core::wire::{SiteId, StreamId};

const OWN: SiteId = SiteId([7; 16]);
const GUEST: SiteId = SiteId([8; 16]);

/// Lists `publishers` and `subscribers`, each with its site.
fn allow(world: &mut World, publishers: &[(SiteId, &str)], subscribers: &[(SiteId, &str)]) {
    let listed = |devices: &[(SiteId, &str)]| {
        let mut names: Vec<String> = devices
            .iter()
            .map(|(site, name)| member_name(&OWN, site, name))
            .collect();
        names.sort();
        names
    };
    let (publishers, subscribers) = (listed(publishers), listed(subscribers));
    world.key_server.set_policy(|policy| {
        (policy.publishers, policy.subscribers) = (publishers, subscribers);
    });
}

/// A publisher and a subscriber of each site; of the publishers both have one name, as have the subscribers.
fn world_of_two(seed: u64) -> (World, [usize; 2], [usize; 2]) {
    let mut world = World::with_guest(seed);
    let both = |name| [(OWN, name), (GUEST, name)];
    allow(&mut world, &both("publisher-0"), &both("subscriber-0"));
    let publishers = [world.add_publisher(), world.add_guest_publisher("publisher-0")];
    let subscribers = [world.add_subscriber(), world.add_guest_subscriber("subscriber-0")];
    world.settle();
    (world, publishers, subscribers)
}

/// Why a subscriber closed a stream.
fn closed(world: &World, subscriber: usize, stream: StreamId) -> Option<&str> {
    world.subscribers[subscriber]
        .events
        .iter()
        .find_map(|event| match event {
            Event::StreamClosed { publisher, reason } if publisher.stream == stream => Some(&reason[..]),
            _ => None,
        })
}

#[test]
fn devices_of_two_sites_publish_and_subscribe_on_one_channel_and_mend_losses() {
    for seed in 1..=3 {
        let (mut world, publishers, subscribers) = world_of_two(seed);
        for subscriber in subscribers {
            world.subscribers[subscriber].link.loss = 200;
        }
        for publisher in publishers {
            world.send_steadily(publisher, 200, 300, 5 * MILLI);
        }
        for subscriber in subscribers {
            for (publisher, site) in publishers.into_iter().zip([OWN, GUEST]) {
                let stream = world.stream(publisher);
                world.finish(subscriber, stream, 20 * SECOND);
                let messages = &world.subscribers[subscriber].messages;
                let of_stream = messages
                    .iter()
                    .filter(|message| message.publisher.stream == stream);
                assert!(of_stream.clone().all(|message| message.publisher.site == site));
                assert_eq!(of_stream.count(), 200);
            }
            let asked = &world.subscribers[subscriber].commands;
            assert!(asked.iter().any(|command| command.path == "/v1/repair"));
        }
    }
}

/// Of two devices of one name the policy lists one, and only that one takes part, whichever it is.
#[test]
fn f6_a_policy_that_lists_a_device_lets_no_namesake_of_another_site_in() {
    for (listed, other) in [(0, 1), (1, 0)] {
        let (mut world, publishers, subscribers) = world_of_two(9);
        let sites = [OWN, GUEST];
        let only = |name| [(sites[listed], name)];
        allow(&mut world, &only("publisher-0"), &only("subscriber-0"));
        world.key_server.turn_generation();
        world.run_for(3 * SECOND);
        for publisher in publishers {
            world.send(publisher, 50, 300);
        }
        world.run_for(3 * SECOND);
        let (good, bad) = (world.stream(publishers[listed]), world.stream(publishers[other]));
        world.finish(subscribers[listed], good, 5 * SECOND);
        assert_eq!(world.ids(subscribers[listed], bad).len(), 0);
        assert_eq!(closed(&world, subscribers[listed], bad), Some("not-allowed"));
        assert_eq!(world.ids(subscribers[other], good).len(), 0);
        assert!(world.sender(publishers[listed]).member().is_allowed());
        assert!(!world.sender(publishers[listed]).member().is_refused());
        assert!(world.sender(publishers[other]).member().is_refused());
    }
}

/// What a directory says of a stream has to be what its credential says, the site included.
#[test]
fn f6_the_directory_cannot_give_a_stream_to_a_namesake_of_another_site() {
    let (mut world, publishers, subscribers) = world_of_two(4);
    world.send(publishers[0], 10, 300);
    world.run_for(SECOND);
    for entry in &mut world.key_server.directory {
        entry.device = match parse_member(&OWN, &entry.device).unwrap() {
            (OWN, name) => member_name(&OWN, &GUEST, name),
            (_, name) => name.to_owned(),
        };
    }
    let late = world.add_guest_subscriber("subscriber-0");
    world.subscribers[late].link.loss = 1000;
    world.run_for(3 * SECOND);
    assert_eq!(world.receiver(late).streams().count(), 0, "neither is believed");
    assert_eq!(world.receiver(subscribers[0]).streams().count(), 2);
}

/// A predecessor is looked for under the site and the name, not under the name alone.
#[test]
fn f6_a_restarted_publisher_succeeds_its_own_stream_and_no_namesake() {
    for index in [0, 1] {
        let (mut world, publishers, subscribers) = world_of_two(5);
        let before = world.stream(publishers[index]);
        world.crash_publisher(publishers[index]);
        world.run_for(SECOND);
        world.start_publisher(publishers[index], |_| ());
        world.run_for(3 * SECOND);
        let after = world.stream(publishers[index]);
        let events = &world.subscribers[subscribers[0]].events;
        let succeeds = events.iter().find_map(|event| match event {
            Event::StreamStarted { publisher, succeeds } if publisher.stream == after => *succeeds,
            _ => None,
        });
        assert_eq!(succeeds, Some(before));
    }
}

/// The other site revokes; its list counts for its own certificates alone, though the issuers have one name and the same
/// serial number is in use at both.
#[test]
fn f10_a_list_of_another_issuer_with_the_same_serial_revokes_nobody_else() {
    let (mut world, publishers, subscribers) = world_of_two(6);
    let guest_serial = world.publishers[publishers[1]].identity.serial;
    let own_serial = world.publishers[publishers[0]].identity.serial;
    let (own, guest) = (world.stream(publishers[0]), world.stream(publishers[1]));
    // The guest's list names the serial number of the own publisher's certificate.
    for (serial, is_closed) in [(own_serial, false), (guest_serial, true)] {
        let site = world.guest.as_mut().unwrap();
        site.revoke(serial);
        let crl = site.crl();
        world.key_server.site.others = crl;
        world.key_server.site.renew_crl();
        world.key_server.turn_generation();
        world.run_for(3 * SECOND);
        for subscriber in subscribers {
            assert_eq!(closed(&world, subscriber, own), None);
            assert_eq!(closed(&world, subscriber, guest).is_some(), is_closed);
        }
    }
    assert_eq!(closed(&world, subscribers[0], guest), Some("revoked"));
    world.send(publishers[0], 20, 300);
    world.finish(subscribers[1], own, 5 * SECOND);
}

/// Past its grace the other site's list lets no new stream of that site in; those that run go on, also when something else
/// makes all be judged again.
#[test]
fn f10_a_stale_list_of_another_site_refuses_its_new_streams_and_stops_none_that_runs() {
    let (mut world, publishers, subscribers) = world_of_two(7);
    let running = world.stream(publishers[1]);
    let site = world.guest.as_mut().unwrap();
    site.is_late = true;
    site.renew_crl();
    let crl = site.crl();
    world.key_server.site.others = crl.clone();
    world.key_server.site.renew_crl();
    world.key_server.turn_generation();
    world.run_for(3 * SECOND);
    for (round, subscriber) in subscribers.into_iter().enumerate() {
        assert_eq!(closed(&world, subscriber, running), None);
        world.send(publishers[1], 20, 300);
        world.finish(subscriber, running, (5 + round as u64) * SECOND);
    }
    world.crash_publisher(publishers[1]);
    world.start_publisher(publishers[1], |_| ());
    world.run_for(3 * SECOND);
    let fresh = world.stream(publishers[1]);
    world.send(publishers[1], 5, 300);
    world.run_for(3 * SECOND);
    for subscriber in subscribers {
        assert_eq!(world.ids(subscriber, fresh).len(), 0);
    }
    // A list that is missing is another matter: it refuses what runs as well.
    world.key_server.site.others = Vec::new();
    world.key_server.site.renew_crl();
    world.key_server.turn_generation();
    world.run_for(3 * SECOND);
    assert!(closed(&world, subscribers[0], running).is_some());
}

/// TR-29: who once knows that another site has revoked somebody, knows it for good: after a document without that site's
/// list, and after a restart.
#[test]
fn b7_an_older_list_of_another_site_is_not_taken_after_one_that_leaves_it_out() {
    let (mut world, publishers, subscribers) = world_of_two(8);
    let guest = world.stream(publishers[1]);
    let serial = world.publishers[publishers[1]].identity.serial;
    let site = world.guest.as_mut().unwrap();
    let old = site.crl();
    site.revoke(serial);
    let new = site.crl();
    let number = |world: &mut World| world.receiver(subscribers[0]).member().floors().crl_number;
    let hand_out = |world: &mut World, others: &[u8]| {
        world.key_server.site.others = others.to_vec();
        world.key_server.site.renew_crl();
        world.key_server.turn_generation();
        world.run_for(5 * SECOND);
        world.key_server.site.crl_number()
    };
    let with = hand_out(&mut world, &new);
    assert_eq!(closed(&world, subscribers[0], guest), Some("revoked"));
    let without = hand_out(&mut world, &[]);
    assert_eq!((number(&mut world), without), (with + 1, with + 1));
    hand_out(&mut world, &old);
    assert_eq!(number(&mut world), without, "it is not taken");
    let seen = CrlSet::parse(&new).unwrap();
    let seen: Vec<_> = seen.versions().map(|list| (list.issuer, list.number)).collect();
    let subscriber = subscribers[0];
    world.start_subscriber(subscriber, |config| config.member.crl_numbers = seen.clone());
    world.run_for(5 * SECOND);
    assert!(world.receiver(subscriber).member().policy().is_none());
    hand_out(&mut world, &new);
    world.run_for(20 * SECOND);
    assert!(world.receiver(subscriber).member().policy().is_some());
    // A start with the document itself is the same.
    let mut held = world.key_server.site.validator();
    held.set_crls(CrlSet::parse(&world.key_server.site.crl()));
    hand_out(&mut world, &old);
    world.start_subscriber(subscriber, |config| config.member.validator = held.clone());
    world.run_for(5 * SECOND);
    assert!(world.receiver(subscriber).member().policy().is_none());
}

/// What is stored of a list is what its issuer has signed, and nothing that only claims to be of it.
#[test]
fn tr_29_a_list_counts_for_an_issuer_that_has_signed_it() {
    let world = World::with_guest(1);
    let guest = world.guest.as_ref().unwrap();
    let own_ca = Certificate::parse(&world.key_server.site.ca_der()).unwrap();
    let guest_ca = Certificate::parse(&guest.ca_der()).unwrap();
    let both = [own_ca, guest_ca];
    let mut document = world.key_server.site.crl();
    let signatures = |document: &[u8], known| CrlSet::parse(document).unwrap().signatures(known);
    assert_eq!(signatures(&document, &both), [Signature::Genuine; 2]);
    assert_eq!(
        signatures(&document, &both[..1]),
        [Signature::Genuine, Signature::Unknown]
    );
    assert_eq!(signatures(&document, &[]), [Signature::Unknown; 2]);
    // The last byte is in the signature of the last list.
    *document.last_mut().unwrap() ^= 1;
    assert_eq!(
        signatures(&document, &both),
        [Signature::Genuine, Signature::Forged]
    );
}

fn a_site() -> impl Strategy<Value = SiteId> {
    prop_oneof![Just([7u8; 16]), Just([8u8; 16]), any::<[u8; 16]>()].prop_map(SiteId)
}

fn a_name() -> impl Strategy<Value = String> {
    prop_oneof![Just("bed12".to_owned()), "[A-Za-z0-9][A-Za-z0-9._-]{0,62}"]
}

proptest! {
    #[test]
    fn f6_two_devices_are_never_written_alike(
        channel in a_site(), one in (a_site(), a_name()), other in (a_site(), a_name()),
    ) {
        let written = |(site, name): &(SiteId, String)| member_name(&channel, site, name);
        prop_assert_eq!(written(&one) == written(&other), one == other);
        let text = written(&one);
        prop_assert_eq!(parse_member(&channel, &text), Some((one.0, &one.1[..])));
    }

    #[test]
    fn a_device_is_read_from_its_one_spelling_alone(channel in a_site(), text in "([0-9a-fA-F]{32}:)?[A-Za-z:._-]{0,8}") {
        if let Some((site, name)) = parse_member(&channel, &text) {
            prop_assert_eq!(member_name(&channel, &site, name), text);
        }
    }
}
