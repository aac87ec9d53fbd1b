//! The policy: who signs it, what a change does to whom it concerns, and what holds when no new one comes.

use crate::common::site::Site;
use crate::common::{HOUR, MILLI, MINUTE, SECOND, World};
use sealcast_core::event::Event;
use sealcast_core::policy::{Policy, PolicyError};
use sealcast_core::rejection::Rejection;
use sealcast_core::signed::{CREDENTIAL_CONTEXT, CborReader, CborWriter, POLICY_CONTEXT};
use sealcast_core::validator::{Certificate, Role};
use sealcast_core::wire::PacketType;

fn policy_version(world: &mut World, subscriber: usize) -> u64 {
    world.receiver(subscriber).member().policy().unwrap().version
}

/// A right signature by the wrong signer: any certified device, the CA of another site, a site CA of the same id under
/// another root, and a certificate that comes along inside or beside the policy.
#[test]
fn f13_a_policy_is_taken_from_the_sites_own_ca_alone() {
    let (mut world, subscriber, publisher) = World::in_mid_stream(1, 5);
    let site = world.key_server.site.id;
    let genuine = Certificate::parse(&world.key_server.site.ca_der()).unwrap();
    let now = world.now;
    let mut next = world.key_server.policy.clone();
    next.version += 100;
    next.publishers.push("zz-attacker".to_owned());
    let tbs = next.encode();
    let verdict = |signed: &[u8]| Policy::verify(signed, &genuine, &site, &next.channel_name, 0, now).err();
    let device = &world.publishers[publisher].identity;
    let (elsewhere, same_id) = (Site::new(sealcast_core::wire::SiteId([8; 16])), Site::new(site));
    let genuine_signature = world.key_server.site.sign(POLICY_CONTEXT, &tbs);
    assert!(
        verdict(&genuine_signature).is_none(),
        "what the rest is compared with"
    );
    let with_certificate = {
        let forged = same_id.sign(POLICY_CONTEXT, &tbs);
        let mut r = CborReader::new(&forged);
        r.array_of(3).unwrap();
        let (tbs, algorithm, signature) = (r.bytes().unwrap(), r.uint().unwrap(), r.bytes().unwrap());
        let w = CborWriter::new()
            .array(4)
            .bytes(tbs)
            .uint(algorithm)
            .bytes(signature);
        w.bytes(&same_id.ca_der()).finish()
    };
    let of_elsewhere = {
        let mut theirs = next.clone();
        theirs.site = elsewhere.id;
        theirs.channel = sealcast_core::schedule::channel_id(&elsewhere.id, &theirs.channel_name);
        world.key_server.site.sign(POLICY_CONTEXT, &theirs.encode())
    };
    let forgeries = [
        (
            "a device of the site",
            device.sign(POLICY_CONTEXT, &tbs),
            PolicyError::Signature,
        ),
        (
            "another site's CA",
            elsewhere.sign(POLICY_CONTEXT, &tbs),
            PolicyError::Signature,
        ),
        (
            "a CA with the site's id",
            same_id.sign(POLICY_CONTEXT, &tbs),
            PolicyError::Signature,
        ),
        (
            "the CA, for another use",
            world.key_server.site.sign(CREDENTIAL_CONTEXT, &tbs),
            PolicyError::Signature,
        ),
        ("a certificate inside", with_certificate, PolicyError::Malformed),
        ("of another site", of_elsewhere, PolicyError::Channel),
    ];
    for (name, signed, wanted) in &forgeries {
        assert_eq!(verdict(signed), Some(*wanted), "{name}");
    }
    // The same from the key server, which has no CA key but says what it likes. A member may ask it anew by a join, and
    // then takes the genuine one.
    for (name, signed, _) in forgeries {
        world.key_server.canned_policy = Some(signed);
        world.key_server.set_policy(|policy| policy.rate += 1);
        world.run_for(3 * SECOND);
        let policy = world.receiver(subscriber).member().policy().unwrap();
        assert!(!policy.may_publish(&site, "zz-attacker"), "{name}");
        assert_eq!(policy.site, site, "{name}");
    }
    world.key_server.canned_policy = None;
    world.run_for(10 * SECOND);
    assert_eq!(
        policy_version(&mut world, subscriber),
        world.key_server.policy.version
    );
}

/// The signer is the site CA of the key server's own verified chain: a chain that the attacker brings along counts for
/// nothing, whatever it has signed.
#[test]
fn f13_an_attackers_chain_vouches_for_no_policy() {
    let mut world = World::new(1);
    let genuine = world.key_server.site.validator();
    let mut attacker = Site::new(world.key_server.site.id);
    let server = attacker.issue(Role::KeyServer, "keys-1");
    let chain: Vec<&[u8]> = server.chain.iter().map(Vec::as_slice).collect();
    assert!(genuine.verify_peer(&chain, Role::KeyServer, world.now).is_err());
    // A device of the site that poses as its key server: the role is in its certificate.
    let device = world.key_server.site.issue(Role::Device, "keys-1");
    let chain: Vec<&[u8]> = device.chain.iter().map(Vec::as_slice).collect();
    assert!(genuine.verify_peer(&chain, Role::KeyServer, world.now).is_err());
}

/// An older policy is refused for ever, also by whoever only knows the number of the newer one.
#[test]
fn b7_an_older_policy_is_refused_by_its_number_alone() {
    let world = World::new(1);
    let issuer = Certificate::parse(&world.key_server.site.ca_der()).unwrap();
    let policy = &world.key_server.policy;
    let verify = |signed: &[u8], known: u64| {
        Policy::verify(
            signed,
            &issuer,
            &policy.site,
            &policy.channel_name,
            known,
            world.now,
        )
        .map(|_| ())
    };
    let signed = world.key_server.signed_policy();
    assert_eq!(verify(&signed, 0), Ok(()));
    assert_eq!(verify(&signed, policy.version), Ok(()));
    assert_eq!(verify(&signed, policy.version + 1), Err(PolicyError::Backwards));
}

fn takes_the_right_away(world: &mut World, device: &str) {
    let device = device.to_owned();
    world.key_server.set_policy(|policy| {
        policy.publishers.retain(|name| *name != device);
        // It may go on reading: nobody turns the generation for it.
        policy.subscribers.push(device.clone());
        policy.subscribers.sort();
    });
}

/// A publisher that loses the right, and nothing else: it stops by itself, and every subscriber stops it, in under 2 s.
#[test]
fn a_publisher_that_may_only_read_from_now_on_stops_everywhere() {
    for seed in 1..=5 {
        let mut world = World::new(seed);
        let subscribers = [
            world.add_subscriber(),
            world.add_subscriber(),
            world.add_subscriber(),
        ];
        let (goes, stays) = (world.add_publisher(), world.add_publisher());
        world.settle();
        let (cut, kept) = (world.stream(goes), world.stream(stays));
        world.send_steadily(goes, 20, 300, 20 * MILLI);
        world.subscribers[subscribers[2]].link.loss = 300;
        let generation = world.key_server.generation;
        takes_the_right_away(&mut world, "publisher-0");
        let told = world.now;
        let closed = |world: &World, subscriber: usize| {
            let events = &world.subscribers[subscriber].events;
            events.iter().any(
                |event| matches!(event, Event::StreamClosed { publisher, .. } if publisher.stream == cut),
            )
        };
        let refused = |world: &World| {
            let events = &world.publishers[goes].events;
            events
                .iter()
                .any(|event| matches!(event, Event::Refused { reason } if reason == "not-allowed"))
        };
        while !(refused(&world) && subscribers.iter().all(|&subscriber| closed(&world, subscriber))) {
            assert!(world.now - told < 2 * SECOND, "seed {seed}: not stopped in time");
            world.run_for(10 * MILLI);
        }
        // With all its keys, which are still good, it seals nothing more.
        let sealed = world.sender(goes).counters().packets;
        let heard = world.ids(subscribers[0], cut).len();
        world.send(goes, 10, 300);
        world.send(stays, 10, 300);
        world.run_for(5 * SECOND);
        assert_eq!(world.sender(goes).counters().packets, sealed);
        for subscriber in subscribers {
            world.finish(subscriber, kept, 10 * SECOND);
            assert!(world.ids(subscriber, cut).len() <= 20);
        }
        assert_eq!(world.ids(subscribers[0], cut).len(), heard);
        assert_eq!(world.key_server.generation, generation);
        // And what was queued goes out when it may publish again, without a restart.
        world
            .key_server
            .set_policy(|policy| policy.publishers.insert(0, "publisher-0".to_owned()));
        world.run_for(15 * SECOND);
        world.finish(subscribers[0], cut, 10 * SECOND);
    }
}

/// The same from the other side: a subscriber that may only publish stops reading, though it could decrypt.
#[test]
fn a_subscriber_that_loses_the_right_stops_reading() {
    let (mut world, subscriber, publisher) = World::in_mid_stream(1, 5);
    let stream = world.stream(publisher);
    let move_it = |policy: &mut Policy, to_publish: bool| {
        let name = "subscriber-0".to_owned();
        let (from, to) = if to_publish {
            (&mut policy.subscribers, &mut policy.publishers)
        } else {
            (&mut policy.publishers, &mut policy.subscribers)
        };
        from.retain(|member| *member != name);
        to.push(name);
        to.sort();
    };
    world.key_server.set_policy(|policy| move_it(policy, true));
    world.run_for(2 * SECOND);
    let refused = |event: &&Event| matches!(event, Event::Refused { reason } if reason == "not-allowed");
    assert_eq!(
        world.subscribers[subscriber]
            .events
            .iter()
            .filter(refused)
            .count(),
        1
    );
    world.send(publisher, 10, 300);
    world.run_for(MINUTE);
    assert_eq!(world.ids(subscriber, stream).len(), 5);
    let asked = |world: &World| world.subscribers[subscriber].commands.len();
    let before = asked(&world);
    world.run_for(MINUTE);
    assert!(asked(&world) - before < 20, "it storms the key server");
    world.key_server.set_policy(|policy| move_it(policy, false));
    world.run_for(15 * SECOND);
    world.send(publisher, 10, 300);
    world.run_for(5 * SECOND);
    assert_eq!(world.ids(subscriber, stream).last(), Some(&24));
}

/// A device that the policy comes to list is heard without a restart of anybody.
#[test]
fn a_newly_allowed_publisher_is_heard() {
    let mut world = World::new(1);
    world
        .key_server
        .set_policy(|policy| policy.publishers.retain(|name| name != "publisher-1"));
    let (subscriber, first) = (world.add_subscriber(), world.add_publisher());
    world.settle();
    world.send(first, 5, 300);
    let second = world.add_publisher();
    world.run_for(5 * SECOND);
    assert!(
        world.sender(second).member().policy().is_none(),
        "it is not admitted"
    );
    world.key_server.set_policy(|policy| {
        policy.publishers.push("publisher-1".to_owned());
        policy.publishers.sort();
    });
    let allowed = world.now;
    world.run_for(15 * SECOND);
    let stream = world.stream(second);
    world.send(second, 5, 300);
    world.finish(subscriber, stream, 5 * SECOND);
    assert!(world.now - allowed < 25 * SECOND);
}

/// TR-15 past nextUpdate: no new stream is accepted, a publisher seals nothing, and a stream that runs is not cut.
#[test]
fn past_its_next_update_a_policy_admits_nothing_new() {
    let mut world = World::new(1);
    let end = world.now + 2 * HOUR;
    world.key_server.set_policy(|policy| policy.next_update = end);
    let (deaf, hears) = (world.add_subscriber(), world.add_subscriber());
    let (publisher, late) = (world.add_publisher(), world.add_publisher());
    world.settle();
    let running = world.stream(publisher);
    world.send(publisher, 5, 300);
    world.finish(deaf, running, SECOND);
    // A stream begins that one subscriber hears of in time, and the other only when the policy is over.
    world.crash_publisher(late);
    world.start_publisher(late, |_| ());
    let new = world.stream(late);
    world.drop_if = Some(Box::new(move |subscriber, datagram| {
        subscriber == deaf && datagram[6..22] == new.0
    }));
    world.run_for(SECOND);
    let said = world.captured_of(PacketType::Credential);
    let said: Vec<_> = said.iter().filter(|datagram| datagram[6..22] == new.0).collect();
    assert!(!said.is_empty());
    let follows = |world: &mut World, subscriber, stream| {
        let mut streams = world.receiver(subscriber).streams();
        streams.any(|known| known.publisher.stream == stream)
    };
    assert!(follows(&mut world, hears, new) && !follows(&mut world, deaf, new));
    world.key_server_down = true;
    // Its clock lags: what it seals by its own time is still taken from it.
    world.publishers[publisher].clock = -(2 * MINUTE as i64);
    let left = end + MINUTE - world.now;
    world.run_for(left);
    let verdicts: Vec<_> = said
        .iter()
        .filter_map(|datagram| world.feed(deaf, datagram))
        .collect();
    assert!(verdicts.contains(&Rejection::Credential), "{verdicts:?}");
    assert!(!follows(&mut world, deaf, new), "a new stream past nextUpdate");
    for stream in [running, new] {
        assert!(follows(&mut world, hears, stream), "a running stream is cut");
    }
    world.send(publisher, 5, 300);
    world.finish(deaf, running, SECOND);
    // By its own clock too the policy is over then.
    world.run_for(3 * MINUTE);
    let sealed = world.sender(publisher).counters().packets;
    world.send(publisher, 5, 300);
    world.run_for(SECOND);
    assert_eq!(
        world.sender(publisher).counters().packets,
        sealed,
        "it seals past nextUpdate"
    );
    let blocked = |event: &Event| matches!(event, Event::Blocked { reason } if reason.contains("nextUpdate"));
    assert!(world.publishers[publisher].events.iter().any(blocked));
    // Whoever starts now is told why it cannot.
    world.key_server_down = false;
    let newcomer = world.add_subscriber();
    world.run_for(SECOND);
    let stale = |event: &Event| matches!(event, Event::Refused { reason } if reason.contains("Stale"));
    assert!(world.subscribers[newcomer].events.iter().any(stale));
}
