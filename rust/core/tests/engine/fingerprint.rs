//! The digest of a subscriber's state, by which tests show that a refused packet changes nothing (invariant 1): it moves with
//! each kind of state that a genuine packet or answer changes, and stays where budgets and counters alone do.

use crate::common::forge::message;
use crate::common::{Forge, MILLI, SECOND, World};
use sealcast_core::block::Hash;
use sealcast_core::frames::MessageFrame;
use sealcast_core::rejection::Rejection;
use sealcast_core::stream::Heartbeat;
use sealcast_core::wire::{Header, PacketType};

/// A subscriber in mid-stream, its publisher and a thief of its stream key.
struct Bench {
    world: World,
    subscriber: usize,
    publisher: usize,
    forge: Forge,
}

impl Bench {
    fn new() -> Self {
        let (world, subscriber, publisher) = World::in_mid_stream(1, 10);
        let forge = world.forge(publisher);
        Self {
            world,
            subscriber,
            publisher,
            forge,
        }
    }

    fn digest(&mut self) -> Hash {
        self.world.receiver(self.subscriber).fingerprint()
    }

    /// Does something that changes state, and sees the digest move.
    #[track_caller]
    fn moves(&mut self, what: &str, act: impl FnOnce(&mut Self)) {
        let before = self.digest();
        act(self);
        assert_ne!(self.digest(), before, "{what} does not show");
    }

    fn feed(&mut self, datagram: &[u8]) -> Option<Rejection> {
        let now = self.world.now;
        // Events are left where they are: they count.
        self.world
            .receiver(self.subscriber)
            .receive_datagram(datagram, now)
    }

    fn single(&self, block: u8, sequence: u64, plaintext: &[u8]) -> Vec<u8> {
        let header = self.forge.data_header(block, sequence, 1, self.world.now);
        self.forge.block(header, &[plaintext.to_vec()]).remove(0)
    }

    fn heartbeat(&self, block: u8, heartbeat: Heartbeat) -> Vec<u8> {
        let header = Header {
            packet_type: PacketType::Heartbeat,
            ..self.forge.data_header(block, 0, 1, self.world.now)
        };
        self.forge.block(header, &[heartbeat.encode()]).remove(0)
    }
}

fn beat(counter: u64, next_sequence: u64, is_final: bool) -> Heartbeat {
    Heartbeat {
        counter,
        next_sequence,
        is_final,
        successor: None,
    }
}

fn part(id: u64, offset: u64, data: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let frame = MessageFrame {
        message_id: id,
        part: Some((offset, 100)),
        topic: None,
        origin: None,
        data,
    };
    frame.write(&mut out);
    out
}

#[test]
fn packets_of_a_stream_show() {
    let mut bench = Bench::new();
    let now = bench.world.now;
    bench.moves("a packet in order", |b| {
        assert_eq!(b.feed(&b.single(1, 10, &message(10, b"a"))), None)
    });
    bench.moves("one that waits for a gap", |b| {
        assert_eq!(b.feed(&b.single(2, 13, &message(13, b"b"))), None);
    });
    bench.moves("the gap, mended", |b| {
        assert_eq!(b.feed(&b.single(3, 11, &message(11, b"c"))), None);
        assert_eq!(b.feed(&b.single(4, 12, &message(12, b"d"))), None);
    });
    bench.moves("a part of a message", |b| {
        assert_eq!(b.feed(&b.single(5, 14, &part(14, 0, b"begins"))), None)
    });
    bench.moves("the head alone", |b| {
        assert_eq!(
            b.feed(&b.single(6, 1 << 40, &message(1, b"far"))),
            Some(Rejection::BeyondWindow)
        );
    });
    bench.moves("a heartbeat", |b| {
        assert_eq!(b.feed(&b.heartbeat(7, beat(1 << 20, 1, false))), None)
    });
    bench.moves("when it was last heard", |b| {
        b.world.now = now + 1;
        assert_eq!(b.feed(&b.heartbeat(8, beat((1 << 20) + 1, 1, false))), None);
    });
    bench.moves("a conflict, told", |b| {
        assert_eq!(
            b.feed(&b.single(9, 10, &message(10, b"z"))),
            Some(Rejection::Equivocation)
        );
    });
}

/// Two subscribers in one state get the same packets with one thing different: what is inside shows, not only how much.
#[test]
fn contents_show() {
    type Make = fn(&Bench, &[u8]) -> Vec<u8>;
    let waiting: Make = |b, text| b.single(1, 12, &message(12, text));
    let part_of_a_message: Make = |b, text| b.single(1, 10, &part(10, 0, text));
    let verified_block: Make = |b, text| b.single(text[0], 10, &message(10, b"the same"));
    let end: Make = |b, text| b.heartbeat(1, beat(1 << 20, 12, text[0] == b'1'));
    let part_of_a_credential: Make = |b, text| {
        let header = Header {
            packet_type: PacketType::Credential,
            ..b.forge.data_header(1, 0, 2, b.world.now)
        };
        b.forge
            .block(header, &[text.to_vec(), b"the rest".to_vec()])
            .remove(0)
    };
    for make in [
        waiting,
        part_of_a_message,
        verified_block,
        end,
        part_of_a_credential,
    ] {
        for (twins_get, is_same) in [([b"1", b"1"], true), ([b"1", b"2"], false)] {
            let mut bench = Bench::new();
            let twin = bench.world.add_subscriber();
            bench.world.settle();
            // Members already, so that both are let in at one step.
            let subscribers = [bench.subscriber, twin];
            for subscriber in subscribers {
                bench
                    .world
                    .start_subscriber(subscriber, |config| config.member.jitter_seed = 1);
            }
            bench.world.run_for(5 * SECOND);
            bench.forge = bench.world.forge(bench.publisher);
            let mut digests = Vec::new();
            for (subscriber, text) in subscribers.into_iter().zip(twins_get) {
                bench.subscriber = subscriber;
                digests.push(bench.digest());
                let datagram = make(&bench, text);
                assert_eq!(bench.feed(&datagram), None);
                digests.push(bench.digest());
            }
            assert_eq!(digests[0], digests[2], "no twins");
            assert_eq!(digests[1] == digests[3], is_same);
        }
    }
}

/// Packets of an epoch ahead are refused for now, and kept: the one refusal that is meant to change something (KM-14).
#[test]
fn what_is_held_for_a_key_shows() {
    let mut bench = Bench::new();
    bench.world.key_server_down = true;
    bench.world.key_server.turn_generation();
    bench.forge = bench.world.forge(bench.publisher);
    for (block, text) in [(1, b"one"), (2, b"two")] {
        bench.moves("a held packet", |b| {
            let datagram = b.single(block, 10 + u64::from(block), &message(10, text));
            assert_eq!(b.feed(&datagram), Some(Rejection::UnknownEpoch));
        });
    }
    let again = bench.single(1, 11, &message(10, b"one"));
    let before = bench.digest();
    assert_eq!(bench.feed(&again), Some(Rejection::UnknownEpoch));
    assert_eq!(bench.digest(), before, "held twice");
}

#[test]
fn streams_and_their_places_show() {
    let mut bench = Bench::new();
    let old = bench.world.stream(bench.publisher);
    let other = bench.world.forge_with([0x31; 32]);
    let bundle =
        bench.world.publishers[bench.publisher].bundle_of_successor(&other, bench.world.now, Some(old));
    bench.moves("a new stream and whom it continues", |b| {
        assert_eq!(b.world.announce(b.subscriber, &other, &bundle), None);
    });
    let renewed =
        bench.world.publishers[bench.publisher].bundle_of_successor(&other, bench.world.now + 1, Some(old));
    bench.world.now += SECOND;
    bench.moves("a renewed credential", |b| {
        assert_eq!(b.world.announce(b.subscriber, &other, &renewed), None);
    });
    bench.moves("streams that are no longer accepted", |b| {
        b.world
            .key_server
            .set_policy(|policy| policy.publishers.retain(|name| name != "publisher-0"));
        let before = b.world.receiver(b.subscriber).streams().count();
        b.world.run_for(MILLI * 600);
        assert_ne!(b.world.receiver(b.subscriber).streams().count(), before);
    });
}

#[test]
fn the_place_of_a_closed_stream_shows() {
    let places = |next: u64| {
        let mut world = World::new(1);
        let resume = vec![(sealcast_core::wire::StreamId([9; 16]), next)];
        let subscriber = world.add_subscriber_with(|config| config.resume = resume);
        world.receiver(subscriber).fingerprint()
    };
    assert_eq!(places(7), places(7));
    assert_ne!(places(7), places(8));
}

#[test]
fn what_the_key_server_says_shows() {
    let mut bench = Bench::new();
    bench.world.subscribers[bench.subscriber].link.side_cut = true;
    bench.world.run_for(SECOND);
    let now = bench.world.now;
    bench.moves("a beacon", |b| {
        let beacon = b.world.key_server.beacon(now);
        assert_eq!(b.feed(&beacon), None);
    });
    bench.moves(
        "one that announces a generation, and what is to be asked for",
        |b| {
            b.world.key_server.turn_generation();
            let beacon = b.world.key_server.beacon(now);
            assert_eq!(b.feed(&beacon), None);
        },
    );
    bench.moves("requests on their way", |b| {
        b.world.receiver(b.subscriber).handle_deadline(now + SECOND);
    });
    bench.world.subscribers[bench.subscriber].link.side_cut = false;
    for (what, act) in [
        (
            "keys",
            (|world| world.key_server.turn_generation()) as fn(&mut World),
        ),
        ("a policy", |world| {
            world.key_server.set_policy(|policy| policy.rate += 1)
        }),
        ("a CRL", |world| world.key_server.revoke(1)),
        ("a join", |world| world.restart_key_server(2)),
    ] {
        bench.moves(what, |b| {
            act(&mut b.world);
            b.world.run_for(3 * SECOND);
        });
    }
}

#[test]
fn a_repair_that_is_planned_shows() {
    let mut bench = Bench::new();
    assert_eq!(bench.feed(&bench.single(1, 12, &message(12, b"a"))), None);
    bench.moves("the plan", |b| {
        let now = b.world.now;
        b.world.receiver(b.subscriber).handle_deadline(now);
    });
    let due = bench.world.receiver(bench.subscriber).next_deadline().unwrap();
    bench.moves("the request", |b| {
        b.world.receiver(b.subscriber).handle_deadline(due + 50 * MILLI)
    });
}

/// Budgets, counters and refusals are no part of it, also when they run dry.
#[test]
fn budgets_and_counters_do_not_show() {
    let mut bench = Bench::new();
    let insider = bench.world.forge_with([0x11; 32]);
    let before = bench.digest();
    let mut verdicts = Vec::new();
    for n in 0..1000u64 {
        let mut header = insider.data_header(0, 100 + n, 1, bench.world.now);
        header.block.0[..8].copy_from_slice(&n.to_be_bytes());
        header.stream = bench.forge.stream;
        let body = insider.seal_body(&header, b"junk");
        let datagram = insider.datagram(&header, &body, &[], &[7; 64]);
        verdicts.push(bench.feed(&datagram));
    }
    assert_eq!(bench.digest(), before);
    for reason in [Rejection::Signature, Rejection::SignatureBudget] {
        assert!(verdicts.contains(&Some(reason)), "{reason:?}");
    }
}
