//! Parity from those who would use it to spoil, to stall or to fill memory.

use crate::common::forge::message;
use crate::common::{Forge, MILLI, SECOND, World};
use sealcast_core::crypto::Jitter;
use sealcast_core::event::Event;
use sealcast_core::fec::{Fec, Group, Parity, Ratio, encode, write_symbol};
use sealcast_core::rejection::Rejection;
use sealcast_core::retention::Datagram;
use sealcast_core::wire::{Header, PacketType, PacketView};

/// A subscriber that knows that the stream has parity, and what the publisher sent since, which nobody has got.
fn bench(sent: usize) -> (World, Vec<Datagram>, Vec<Datagram>) {
    let mut world = World::new(1);
    let (_, publisher) = (world.add_subscriber(), world.add_publisher());
    world.start_publisher(publisher, |config| {
        config.fec = Some(Fec::Fixed(Ratio::new(8, 2).unwrap()));
    });
    world.settle();
    world.send(publisher, 40, 500);
    world.run_for(3 * SECOND);
    world.captured.clear();
    world.drop_if = Some(Box::new(|_, _| true));
    world.send(publisher, sent, 500);
    world.run_for(200 * MILLI);
    let (data, parity) = (
        world.captured_of(PacketType::Data),
        world.captured_of(PacketType::Parity),
    );
    (world, data, parity)
}

fn parity_header(forge: &Forge, block: u8, count: u8, world: &World) -> Header {
    Header {
        packet_type: PacketType::Parity,
        ..forge.data_header(block, 0, count, world.now)
    }
}

fn parity_body(group: Group, index: u8, symbol: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    Parity { group, index, symbol }.write(&mut body);
    body
}

/// Among genuine parity, bogus one from outsiders and insiders: none enters the decoder, and none makes us ask.
#[test]
fn c10_bogus_parity_enters_no_decoder() {
    for percent in [1, 10, 50] {
        let (mut world, data, parity) = bench(720);
        let insider = world.forge_with([0x11; 32]);
        let stream = world.stream(0);
        let mut random = Jitter::new(percent);
        for (at, datagram) in data.iter().enumerate() {
            // One of each nine is lost, of another group each time.
            if at % 9 != 3 {
                world.feed(0, datagram);
            }
        }
        let mut bogus = 0;
        for datagram in &parity {
            while random.below(100) < percent {
                bogus += 1;
                let view = PacketView::parse(datagram).unwrap();
                let at = 64 + random.below(view.body.len() as u64) as usize;
                let mut spoiled = datagram.to_vec();
                spoiled[at] ^= 1 << random.below(8);
                let verdict = world.refused(0, &spoiled);
                let body = PacketView::parse(&spoiled).unwrap().body.to_vec();
                assert!(
                    [Rejection::Gate, Rejection::Malformed, Rejection::Duplicate].contains(&verdict),
                    "{verdict:?}"
                );
                // The same from one who holds the group's keys, with a signature of its own.
                let header = Header {
                    stream,
                    ..parity_header(&insider, 7, 1, &world)
                };
                let forged = insider.block(header, &[body]);
                let verdict = world.refused(0, &forged[0]);
                assert!(
                    [
                        Rejection::Signature,
                        Rejection::SignatureBudget,
                        Rejection::Malformed,
                        Rejection::Duplicate
                    ]
                    .contains(&verdict),
                    "{verdict:?}"
                );
            }
            world.feed(0, datagram);
        }
        assert!(bogus > 0);
        let lost = (0..data.len()).filter(|at| at % 9 == 3).count();
        assert!(lost >= 40);
        assert_eq!(world.receiver(0).counters().rebuilt, lost as u64);
        assert_eq!(world.repair_requests, 0);
        world.drop_if = None;
        world.finish(0, stream, SECOND);
        assert_eq!(world.repair_requests, 0, "asked for what parity had mended");
    }
}

#[test]
fn a6_lying_descriptions_of_parity_are_refused() {
    let (mut world, _, parity) = bench(40);
    let forge = world.forge(0);
    let genuine = PacketView::parse(&parity[0]).unwrap().body.to_vec();
    let with = |at: usize, bytes: &[u8]| {
        let mut body = genuine.clone();
        body[at..at + bytes.len()].copy_from_slice(bytes);
        body
    };
    let lies = [
        // First sequence beyond the end of all sequences.
        with(0, &[0xff; 8]),
        with(0, &(1u64 << 62).to_be_bytes()),
        with(0, &((1u64 << 62) - 1).to_be_bytes()),
        // Stride, k, parity count, index.
        with(8, &[0]),
        with(8, &[17]),
        with(8, &[255]),
        with(9, &[0]),
        with(9, &[65]),
        with(9, &[255]),
        with(10, &[0]),
        with(10, &[17]),
        with(10, &[255]),
        with(11, &[genuine[10]]),
        with(11, &[255]),
        with(8, &[255; 4]),
        with(8, &[0; 4]),
    ];
    for (block, body) in (10u8..).zip(lies) {
        let header = parity_header(&forge, block, 1, &world);
        let datagram = forge.block(header, &[body]).remove(0);
        assert_eq!(world.refused(0, &datagram), Rejection::Malformed);
    }
    for length in 0..14 + 2 + 42 {
        let header = parity_header(&forge, 50, 1, &world);
        let datagram = forge.block(header, &[genuine[..length].to_vec()]).remove(0);
        assert_eq!(
            world.refused(0, &datagram),
            Rejection::Malformed,
            "{length} bytes"
        );
    }
    // More parity in a block than there is room for its paths.
    let header = parity_header(&forge, 51, 17, &world);
    for datagram in forge.block(header, &vec![genuine.clone(); 17]) {
        assert_eq!(world.refused(0, &datagram), Rejection::Malformed);
    }
}

/// A publisher that signs parity for groups that never come: what is kept of it is bounded.
#[test]
fn c10_parity_of_what_never_comes_is_bounded() {
    let limit = 256 << 10;
    let mut world = World::new(1);
    world.add_subscriber_with(|config| config.stream.fec_bytes = limit);
    let publisher = world.add_publisher();
    world.settle();
    let forge = world.forge(publisher);
    let stream = world.stream(publisher);
    for n in 0..20_000u64 {
        let group = Group {
            first_sequence: n * 16 + n % 3,
            stride: 16,
            sources: 64,
            parities: 16,
            delay_ms: u16::MAX,
        };
        let mut header = parity_header(&forge, 0, 1, &world);
        header.block.0[..8].copy_from_slice(&n.to_be_bytes());
        let datagram = forge
            .block(header, &[parity_body(group, (n % 16) as u8, &[7; 1200])])
            .remove(0);
        world.feed(0, &datagram);
        let stream = world
            .receiver(0)
            .streams()
            .find(|known| known.publisher.stream == stream)
            .unwrap();
        assert!(stream.fec.bytes() <= limit);
    }
    // And nobody waits for it: the publisher is asked within seconds, however long it says that its parity takes.
    world.run_for(3 * SECOND);
    assert!(world.repair_requests > 0);
}

/// A group of two, the first packet of which the publisher hands out by parity alone.
fn hand_out(
    world: &mut World,
    forge: &Forge,
    sequence: u64,
    told: &[u8],
    second: &[u8],
) -> Option<Rejection> {
    let covered = |datagram: &[u8]| PacketView::parse(datagram).unwrap().covered.to_vec();
    let mut symbols: Vec<Vec<u8>> = [told, second]
        .iter()
        .map(|datagram| {
            let mut symbol = Vec::new();
            write_symbol(&covered(datagram), &mut symbol);
            symbol
        })
        .collect();
    let length = symbols.iter().map(Vec::len).max().unwrap();
    symbols.iter_mut().for_each(|symbol| symbol.resize(length, 0));
    let symbols: Vec<&[u8]> = symbols.iter().map(Vec::as_slice).collect();
    let group = Group {
        first_sequence: sequence,
        stride: 1,
        sources: 2,
        parities: 1,
        delay_ms: 10,
    };
    let header = parity_header(forge, 0x77, 1, world);
    let body = parity_body(group, 0, &encode(&symbols, 1)[0]);
    let datagram = forge.block(header, &[body]).remove(0);
    world.feed(0, second);
    world.feed(0, &datagram)
}

/// Parity that tells another packet than was sent: what came first stands, and the other one is evidence.
#[test]
fn c10_parity_that_contradicts_a_packet_is_equivocation() {
    let (mut world, _, _) = bench(0);
    let forge = world.forge(0);
    let now = world.now;
    let single = |sequence: u64, block: u8, text: &[u8]| {
        let header = forge.data_header(block, sequence, 1, now);
        forge.block(header, &[message(sequence, text)]).remove(0)
    };
    let next = world.sender(0).next_sequence();
    let (told, sent, second) = (
        single(next, 0x71, b"told"),
        single(next, 0x72, b"sent"),
        single(next + 1, 0x73, b"second"),
    );
    assert_eq!(hand_out(&mut world, &forge, next, &told, &second), None);
    let texts = |world: &World| -> Vec<Vec<u8>> {
        let messages = world.subscribers[0].messages.iter().rev().take(2);
        messages.map(|message| message.data.to_vec()).collect()
    };
    assert_eq!(texts(&world), [b"second".to_vec(), b"told".to_vec()]);
    assert_eq!(world.feed(0, &told), Some(Rejection::Duplicate));
    assert_eq!(world.feed(0, &sent), Some(Rejection::Equivocation));
    assert_eq!(texts(&world), [b"second".to_vec(), b"told".to_vec()]);
    let told = world.subscribers[0].events.iter();
    assert_eq!(
        told.filter(|event| matches!(event, Event::Equivocation { .. }))
            .count(),
        1
    );
}

/// Parity of a packet that stands elsewhere, was never sealed, or is of another stream brings nothing.
#[test]
fn c10_parity_of_nonsense_is_not_delivered() {
    let (mut world, _, _) = bench(0);
    let forge = world.forge(0);
    let next = world.sender(0).next_sequence();
    let now = world.now;
    let data = |sequence: u64, block: u8| {
        let header = forge.data_header(block, sequence, 1, now);
        (
            header,
            forge.block(header, &[message(sequence, b"genuine")]).remove(0),
        )
    };
    let (_, elsewhere) = data(next + 4, 0x71);
    let (header, _) = data(next, 0x72);
    let unsealed = forge.datagram(&header, b"no such body at all", &[], &[0; 64]);
    let before = world.subscribers[0].messages.len();
    let (_, second) = data(next + 1, 0x73);
    assert_eq!(hand_out(&mut world, &forge, next, &elsewhere, &second), None);
    assert_eq!(world.subscribers[0].messages.len(), before);
    assert_eq!(world.receiver(0).counters().rebuilt, 0);
    // The packet itself still counts.
    let (_, genuine) = data(next, 0x74);
    assert_eq!(world.feed(0, &genuine), None);
    assert_eq!(world.subscribers[0].messages.len(), before + 2);
    let (_, second) = data(next + 3, 0x75);
    assert_eq!(hand_out(&mut world, &forge, next + 2, &unsealed, &second), None);
    assert_eq!(world.subscribers[0].messages.len(), before + 2);
}
