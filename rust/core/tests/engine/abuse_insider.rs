//! Packets from members of the group, who hold its keys, and from publishers who sign what they should not.

use crate::common::forge::message;
use crate::common::{Forge, MILLI, SECOND, World};
use sealcast_core::block::{Tree, sign_input, signed_statement};
use sealcast_core::credential::Credential;
use sealcast_core::crypto::{Jitter, Secret, VerifyingKey, sha256};
use sealcast_core::event::Event;
use sealcast_core::rejection::Rejection;
use sealcast_core::signed::{CREDENTIAL_CONTEXT, POLICY_CONTEXT};
use sealcast_core::stream::Heartbeat;
use sealcast_core::wire::{BlockId, Epoch, Header, NODE_BYTES, PacketType, PacketView};

/// Another member: right group keys, a stream key of its own.
fn insider(world: &World) -> Forge {
    world.forge_with([0x11; 32])
}

/// A block as `victim` would make it, but signed with the insider's key.
fn forged_block(insider: &Forge, victim: &Forge, header: Header, plaintexts: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let header = Header {
        stream: victim.stream,
        ..header
    };
    insider.block(header, plaintexts)
}

#[test]
fn c1_a_colleague_cannot_be_forged() {
    let (mut world, subscriber, publisher) = World::in_mid_stream(1, 10);
    let (victim, insider) = (world.forge(publisher), insider(&world));
    for count in [1u8, 2, 3, 16, 64] {
        let header = insider.data_header(count, 10, count, world.now);
        let plaintexts: Vec<_> = (0..count)
            .map(|i| message(10 + u64::from(i), b"give 100 mg"))
            .collect();
        for datagram in forged_block(&insider, &victim, header, &plaintexts) {
            assert_eq!(world.refused(subscriber, &datagram), Rejection::Signature);
        }
    }
    // A signature of the victim's over something else, and none at all.
    let genuine = world.captured_of(PacketType::Data).pop().unwrap();
    let genuine = *PacketView::parse(&genuine).unwrap().signature;
    let header = victim.data_header(1, 10, 1, world.now);
    let body = victim.seal_body(&header, &message(10, b"give 100 mg"));
    for signature in [genuine, [0; 64], [0xff; 64]] {
        let datagram = victim.datagram(&header, &body, &[], &signature);
        assert_eq!(world.refused(subscriber, &datagram), Rejection::Signature);
    }
    world.send(publisher, 10, 1100);
    world.finish(subscriber, victim.stream, SECOND);
}

#[test]
fn c3_half_finished_blocks_push_out_nothing_that_was_verified() {
    let mut world = World::new(1);
    let subscriber = world.add_subscriber_with(|config| config.stream.failed_signatures = 1_000_000);
    let publisher = world.add_publisher();
    world.settle();
    world.send(publisher, 64, 1100);
    // Of one block, half arrives; then thousands of roots that nobody signed; then the other half.
    let block: Vec<_> = world.captured_of(PacketType::Data);
    world.drop_if = Some(Box::new(|_, _| true));
    for datagram in block.iter().step_by(2) {
        assert_eq!(world.feed(subscriber, datagram), None);
    }
    let (victim, insider) = (world.forge(publisher), insider(&world));
    let flood = if cfg!(debug_assertions) { 2_000 } else { 20_000u32 };
    for n in 0..flood {
        let mut header = insider.data_header(0, 100 + u64::from(n), 64, world.now);
        header.block.0[..4].copy_from_slice(&n.to_be_bytes());
        header.stream = victim.stream;
        let body = insider.seal_body(&header, &message(1, b"junk"));
        let datagram = insider.datagram(&header, &body, &[0; 6 * NODE_BYTES], &[7; 64]);
        assert_eq!(world.refused(subscriber, &datagram), Rejection::Signature);
    }
    let signatures = world.receiver(subscriber).counters().signatures;
    for datagram in block.iter().skip(1).step_by(2) {
        assert_eq!(world.feed(subscriber, datagram), None);
    }
    assert_eq!(
        world.receiver(subscriber).counters().signatures,
        signatures,
        "the block's root was known"
    );
    assert_eq!(world.subscribers[subscriber].messages.len(), 64);
}

/// The two nodes under a root, offered as the content of a leaf; and inner nodes as the leaves of a smaller block.
#[test]
fn c4_an_inner_node_is_no_leaf() {
    let (mut world, subscriber, publisher) = World::in_mid_stream(1, 10);
    let forge = world.forge(publisher);
    for count in [2u8, 4, 8, 64] {
        let header = forge.data_header(count, 10, count, world.now);
        let plaintexts: Vec<_> = (0..count)
            .map(|i| message(10 + u64::from(i), b"genuine"))
            .collect();
        let block = forge.block(header, &plaintexts);
        let views: Vec<_> = block
            .iter()
            .map(|datagram| PacketView::parse(datagram).unwrap())
            .collect();
        let signature = *views[0].signature;
        let leaves = views.iter().map(|view| view.leaf_hash(forge.suite)).collect();
        let tree = Tree::build(forge.suite, &header.block, leaves);
        let half = usize::from(count) / 2;
        // The siblings at the top, as each side's packets carry them.
        let right = &views[0].path[views[0].path.len() - NODE_BYTES..];
        let left = &views[half].path[views[half].path.len() - NODE_BYTES..];
        let node = [
            &[1, forge.suite as u8][..],
            &header.block.0,
            &[views[0].path.len() as u8 / 16, 0],
            left,
            right,
        ]
        .concat();
        assert_eq!(sha256(&[&node]), *tree.root(), "this is what the root is made of");
        let small = Header { count: 1, ..header };
        for body in [[left, right].concat(), node[1..].to_vec(), node.clone()] {
            for header in [header, small] {
                let path = if header.count == 1 { &[][..] } else { views[0].path };
                let datagram = forge.datagram(&header, &body, path, &signature);
                assert_eq!(world.refused(subscriber, &datagram), Rejection::Signature);
            }
        }
        // A shorter path that begins above the leaves.
        for smaller in 1..count {
            let header = Header {
                count: smaller,
                ..header
            };
            let depth = sealcast_core::block::depth(0, smaller);
            let path = &views[0].path[views[0].path.len() - (NODE_BYTES * depth).min(views[0].path.len())..];
            if path.len() == NODE_BYTES * depth {
                let datagram = forge.datagram(&header, views[0].body, path, &signature);
                assert_eq!(world.refused(subscriber, &datagram), Rejection::Signature);
            }
        }
    }
}

/// CVE-2012-2459: [1, 2, 3] and [1, 2, 3, 3] must not have one root; nor may a packet stand at two places.
#[test]
fn c5_a_packet_has_one_place_and_one_path() {
    let (mut world, subscriber, publisher) = World::in_mid_stream(1, 10);
    let forge = world.forge(publisher);
    for count in 1..=9u8 {
        let header = forge.data_header(count, 10, count, world.now);
        let plaintexts: Vec<_> = (0..count)
            .map(|i| message(10 + u64::from(i), b"genuine"))
            .collect();
        for datagram in forge.block(header, &plaintexts) {
            let view = PacketView::parse(&datagram).unwrap();
            let signature = view.signature;
            // Any other place, with the same body and every path that can be made of the old one.
            for index in 0..12 {
                for other_count in index + 1..=12 {
                    let moved = Header {
                        index,
                        count: other_count,
                        ..view.header
                    };
                    if moved == view.header {
                        continue;
                    }
                    let wanted = NODE_BYTES * sealcast_core::block::depth(index, other_count);
                    let leaf = forge.leaf(&view.header, view.body);
                    let doubled = [view.path, &leaf[..NODE_BYTES]].concat();
                    let twin = [&leaf[..NODE_BYTES], view.path].concat();
                    for path in [view.path.to_vec(), doubled, twin] {
                        // Time for the budget of failed signatures to recover.
                        world.now += 10 * MILLI;
                        let mut path = path;
                        path.resize(wanted, 0);
                        let datagram = forge.datagram(&moved, view.body, &path, signature);
                        assert_eq!(world.refused(subscriber, &datagram), Rejection::Signature);
                    }
                }
            }
            // Nodes too many or too few: they become part of the body, or are taken from it.
            for extra in [1, NODE_BYTES, 2 * NODE_BYTES] {
                let path = [view.path, &vec![0; extra]].concat();
                let datagram = forge.datagram(&view.header, view.body, &path, signature);
                let verdict = world.refused(subscriber, &datagram);
                assert!(
                    matches!(verdict, Rejection::Gate | Rejection::Signature),
                    "{verdict:?}"
                );
            }
        }
    }
}

fn contexts() -> Vec<&'static str> {
    let blocks = (1..=7).filter_map(PacketType::from_code).map(PacketType::context);
    let others = [
        CREDENTIAL_CONTEXT,
        POLICY_CONTEXT,
        "sealcast/1 trust bundle",
        "sealcast/1 renewal proof",
    ];
    blocks.chain(others).collect()
}

#[test]
fn c6_a_signature_holds_in_one_context_only() {
    let (mut world, subscriber, publisher) = World::in_mid_stream(1, 10);
    let forge = world.forge(publisher);
    let key = VerifyingKey::new(forge.signing.public_key()).unwrap();
    let contexts = contexts();
    assert_eq!(contexts.len(), 11);
    for made in &contexts {
        for used in &contexts {
            let signature = forge.signing.sign(&sign_input(made, b"any message"));
            assert_eq!(
                key.verifies(&sign_input(used, b"any message"), &signature),
                made == used
            );
        }
    }
    // The same for whole packets: each type that is taken, under every context.
    let kinds = [
        PacketType::Data,
        PacketType::Heartbeat,
        PacketType::Credential,
        PacketType::Beacon,
    ];
    for kind in kinds {
        for context in &contexts {
            let is_data = kind == PacketType::Data;
            let header = Header {
                packet_type: kind,
                first_sequence: if is_data { 10 } else { 0 },
                ..forge.data_header(9, 0, 1, world.now)
            };
            let heartbeat = Heartbeat {
                counter: 1 << 30,
                next_sequence: 10,
                is_final: false,
                successor: None,
            };
            let plaintext = if is_data {
                message(10, b"hello")
            } else {
                heartbeat.encode()
            };
            let body = forge.seal_body(&header, &plaintext);
            let statement =
                signed_statement(forge.suite, &forge.channel, &header, &forge.leaf(&header, &body));
            let statement = &statement[1 + kind.context().len()..];
            let signature = forge.signing.sign(&sign_input(context, statement));
            let datagram = forge.datagram(&header, &body, &[], &signature);
            if *context != kind.context() {
                world.now += 10 * MILLI;
                let verdict = world.refused(subscriber, &datagram);
                let wanted = match kind {
                    PacketType::Credential => Rejection::Credential,
                    PacketType::Beacon => Rejection::Beacon,
                    _ => Rejection::Signature,
                };
                assert_eq!(verdict, wanted);
            }
        }
    }
    // A genuine bundle in a block that was signed for another use makes no stream known.
    let other = insider(&world);
    let bundle = world.publishers[publisher].bundle(&other, world.now);
    let right = PacketType::Credential.context();
    let wrong = contexts.iter().filter(|&&context| context != right);
    for context in wrong.chain([&right]) {
        world.now += SECOND;
        let is_right = *context == right;
        let header = Header {
            packet_type: PacketType::Credential,
            count: bundle.chunks(1204).len() as u8,
            ..other.data_header(context.len() as u8, 0, 1, world.now)
        };
        let parts: Vec<Vec<u8>> = bundle.chunks(1204).map(<[u8]>::to_vec).collect();
        let verdicts: Vec<_> = other
            .block_in_context(context, header, &parts)
            .iter()
            .map(|datagram| world.feed(subscriber, datagram))
            .collect();
        let wanted = if is_right {
            None
        } else {
            Some(Rejection::Signature)
        };
        assert_eq!(*verdicts.last().unwrap(), wanted, "{context}");
        let known = world
            .receiver(subscriber)
            .streams()
            .any(|stream| stream.publisher.stream == other.stream);
        assert_eq!(known, is_right);
    }
    // What a device key signs: a credential is no policy, a policy no credential.
    let identity = &world.publishers[publisher].identity;
    let credential = Credential {
        public_key: *forge.signing.public_key(),
        channel: forge.channel,
        suite: forge.suite,
        site: identity.site,
        device: identity.name.clone(),
        certificate_hash: identity.certificate_hash(),
        not_before: world.now,
        not_after: world.now + SECOND,
        start_nonce: [0; 16],
        instance: String::new(),
        succeeds: None,
    };
    for context in &contexts {
        let identity = &world.publishers[publisher].identity;
        let signed = identity.sign(context, &credential.encode());
        let bundle = sealcast_core::credential::encode_bundle(&signed, &identity.chain);
        let now = world.now;
        let verdict = world.receiver(subscriber).member().verify_stream(&bundle, now);
        assert_eq!(verdict.is_ok(), *context == CREDENTIAL_CONTEXT);
    }
}

#[test]
fn c7_a_signed_packet_cannot_be_sealed_anew_elsewhere() {
    let (mut world, subscriber, publisher) = World::in_mid_stream(1, 10);
    let (alice, insider) = (world.forge(publisher), insider(&world));
    let header = alice.data_header(9, 10, 1, world.now);
    let plaintext = message(10, b"from alice");
    let genuine = &alice.block(header, std::slice::from_ref(&plaintext))[0];
    let signature = *PacketView::parse(genuine).unwrap().signature;
    let elsewhere = [
        Header {
            first_sequence: 11,
            ..header
        },
        Header {
            time: header.time + 1,
            ..header
        },
        Header {
            block: BlockId([1; 16]),
            ..header
        },
        Header {
            stream: insider.stream,
            ..header
        },
        Header {
            epoch: Epoch {
                step: header.epoch.step + 1,
                ..header.epoch
            },
            ..header
        },
        Header {
            epoch: Epoch {
                slot: header.epoch.slot + 1,
                ..header.epoch
            },
            ..header
        },
        Header {
            epoch: Epoch {
                slot: header.epoch.slot - 1,
                ..header.epoch
            },
            ..header
        },
    ];
    for moved in elsewhere {
        let forge = Forge::new(&world.key_server, moved.epoch, &Secret::new([0x11; 32]));
        // Once sealed anew, once moved as it is.
        for body in [
            forge.seal_body(&moved, &plaintext),
            alice.seal_body(&header, &plaintext),
        ] {
            let datagram = forge.datagram(&moved, &body, &[], &signature);
            let verdict = world.refused(subscriber, &datagram);
            assert!(
                matches!(verdict, Rejection::Signature | Rejection::UnknownStream),
                "{verdict:?}"
            );
        }
    }
    assert_eq!(world.feed(subscriber, genuine), None);
    assert_eq!(
        world.subscribers[subscriber].messages.last().unwrap().data,
        b"from alice"[..]
    );
}

/// B3 belongs here by its means: the header of an old packet rewritten to a newer epoch, gated for it by an insider.
#[test]
fn b3_an_old_packet_does_not_pass_in_a_new_epoch() {
    let (mut world, subscriber, _) = World::in_mid_stream(1, 10);
    let old = world.captured_of(PacketType::Data);
    world.key_server.remove("subscriber-7");
    world.run_for(2 * SECOND);
    let new = insider(&world);
    for datagram in old {
        let view = PacketView::parse(&datagram).unwrap();
        for first_sequence in [view.header.first_sequence, 10, 64] {
            let header = Header {
                epoch: new.epoch,
                first_sequence,
                ..view.header
            };
            let datagram = new.datagram(&header, view.body, view.path, view.signature);
            assert_eq!(world.refused(subscriber, &datagram), Rejection::Signature);
        }
    }
}

// -- C8: a ciphertext that opens under two keys ------------------------------------------------------------------------

/// GHASH's field: bit 0 is the highest bit of the first byte.
mod field {
    pub(super) fn multiply(a: u128, b: u128) -> u128 {
        let (mut product, mut v) = (0, b);
        for i in 0..128 {
            if a >> (127 - i) & 1 == 1 {
                product ^= v;
            }
            v = (v >> 1) ^ (if v & 1 == 1 { 0xe1 << 120 } else { 0 });
        }
        product
    }

    pub(super) fn power(base: u128, mut exponent: u128) -> u128 {
        let (mut result, mut square) = (1 << 127, base);
        while exponent > 0 {
            if exponent & 1 == 1 {
                result = multiply(result, square);
            }
            square = multiply(square, square);
            exponent >>= 1;
        }
        result
    }

    pub(super) fn inverse(a: u128) -> u128 {
        power(a, u128::MAX - 1)
    }
}

/// One AES-256-GCM key, taken apart.
struct Gcm {
    h: u128,
    /// Key stream block 0, which masks the tag, then those of the text.
    stream: Vec<u128>,
}

impl Gcm {
    fn new(key: &[u8; 32], nonce: [u8; 12], blocks: usize) -> Self {
        use aws_lc_rs::cipher::{AES_256, EncryptingKey, UnboundCipherKey};
        let encrypt = |block: u128| {
            let key = UnboundCipherKey::new(&AES_256, key).unwrap();
            let mut bytes = block.to_be_bytes();
            EncryptingKey::ecb(key).unwrap().encrypt(&mut bytes).unwrap();
            u128::from_be_bytes(bytes)
        };
        let mut counter = [0; 16];
        counter[..12].copy_from_slice(&nonce);
        let counter = u128::from_be_bytes(counter);
        Self {
            h: encrypt(0),
            stream: (0..=blocks as u128).map(|i| encrypt(counter + 1 + i)).collect(),
        }
    }

    fn tag(&self, aad: &[u128], text: &[u128]) -> u128 {
        let lengths = ((aad.len() as u128 * 128) << 64) | (text.len() as u128 * 128);
        let blocks = aad.iter().chain(text).chain([&lengths]);
        blocks.fold(0, |sum, block| field::multiply(sum ^ block, self.h)) ^ self.stream[0]
    }
}

fn blocks_of(bytes: &[u8]) -> Vec<u128> {
    bytes
        .chunks(16)
        .map(|block| u128::from_be_bytes(block.try_into().unwrap()))
        .collect()
}

/// A body that opens under the keys of two headers. The first opening is `plaintext`, but for its last block.
fn salamander(forges: [&Forge; 2], headers: [Header; 2], plaintext: &[u8]) -> Vec<u8> {
    let parts: Vec<(Gcm, Vec<u128>)> = forges
        .iter()
        .zip(headers)
        .map(|(forge, header)| {
            let secret = forge.keys.stream_secret(&header.stream).unwrap();
            let key = sealcast_core::crypto::kdf(secret.expose(), "block", &[&header.block.0]);
            let aad = sealcast_core::wire::associated_data(&header.to_bytes(), &forge.channel);
            (
                Gcm::new(key.expose(), [0; 12], plaintext.len() / 16),
                blocks_of(&aad),
            )
        })
        .collect();
    let [(first, first_aad), (second, second_aad)] = &parts[..] else {
        unreachable!()
    };
    let mut text: Vec<u128> = blocks_of(plaintext)
        .iter()
        .zip(&first.stream[1..])
        .map(|(plain, stream)| plain ^ stream)
        .collect();
    // The last block is free: its weight in each tag is H squared. Solve for equal tags.
    *text.last_mut().unwrap() = 0;
    let difference = first.tag(first_aad, &text) ^ second.tag(second_aad, &text);
    let weight = field::power(first.h, 2) ^ field::power(second.h, 2);
    *text.last_mut().unwrap() = field::multiply(difference, field::inverse(weight));
    let tag = first.tag(first_aad, &text);
    assert_eq!(tag, second.tag(second_aad, &text));
    text.iter()
        .chain([&tag])
        .flat_map(|block| block.to_be_bytes())
        .collect()
}

#[test]
fn c8_a_packet_that_opens_under_two_keys_is_accepted_under_one() {
    let (mut world, subscriber, publisher) = World::in_mid_stream(1, 10);
    let seed = Secret::new(world.publishers[publisher].seed);
    let present = world.key_server.epoch(world.now);
    let later = Epoch {
        slot: present.slot + 1,
        ..present
    };
    let one = Forge::new(&world.key_server, present, &seed);
    let two = Forge::new(&world.key_server, later, &seed);
    let header = one.data_header(9, 10, 1, world.now);
    let other = Header {
        epoch: later,
        ..header
    };
    let plaintext = {
        let mut plaintext = message(10, &[b'A'; 90]);
        plaintext.resize(112, 0);
        plaintext
    };
    let body = salamander([&one, &two], [header, other], &plaintext);
    // It is real: both keys open the same body.
    for (forge, header) in [(&one, header), (&two, other)] {
        let secret = forge.keys.stream_secret(&header.stream).unwrap();
        let key = sealcast_core::schedule::block_key(forge.suite, &secret, &header.block);
        let aad = sealcast_core::wire::associated_data(&header.to_bytes(), &forge.channel);
        assert!(key.open(0, &aad, &body).is_some());
    }
    // One signature is for one epoch: the statement, the leaf and the gate all hold it.
    let signature = one.sign(&header, &one.leaf(&header, &body));
    let datagram = one.datagram(&header, &body, &[], &signature);
    assert_eq!(
        world.refused(subscriber, &two.datagram(&other, &body, &[], &signature)),
        Rejection::Signature
    );
    // Two signatures make two packets for one sequence: the first stands, the second proves the equivocation.
    assert_eq!(world.feed(subscriber, &datagram), None);
    let second = two.sign(&other, &two.leaf(&other, &body));
    let verdict = world.feed(subscriber, &two.datagram(&other, &body, &[], &second));
    assert_eq!(verdict, Some(Rejection::Equivocation));
    let messages = &world.subscribers[subscriber].messages;
    assert_eq!((messages.len(), &messages[10].data[..]), (11, &[b'A'; 90][..]));
    let told = |event: &&Event| matches!(event, Event::Equivocation { sequence: 10, .. });
    assert_eq!(
        world.subscribers[subscriber].events.iter().filter(told).count(),
        1
    );
}

#[test]
fn c9_equivocation_is_reported_with_both_signatures_and_the_first_stands() {
    let (mut world, subscriber, publisher) = World::in_mid_stream(1, 10);
    let forge = world.forge(publisher);
    let key = VerifyingKey::new(forge.signing.public_key()).unwrap();
    let single = |block: u8, sequence: u64, data: &[u8], now| {
        forge
            .block(
                forge.data_header(block, sequence, 1, now),
                &[message(sequence, data)],
            )
            .remove(0)
    };
    let now = world.now;
    // In order; while it waits for a gap; and one that overlaps a genuine block.
    for (n, sequence) in [10u64, 15, 3].into_iter().enumerate() {
        let n = n as u8;
        if sequence > 9 {
            assert_eq!(
                world.feed(subscriber, &single(2 * n, sequence, b"first", now)),
                None
            );
        }
        let second = single(2 * n + 1, sequence, b"second", now);
        assert_eq!(world.feed(subscriber, &second), Some(Rejection::Equivocation));
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
        assert_ne!(first.statement, second.statement);
        assert!(key.verifies(&first.statement, &first.signature));
        assert!(key.verifies(&second.statement, &second.signature));
        // Both say what they are about: first sequence and count of the statement, and the place in it.
        for evidence in [first, second] {
            let at = 1 + PacketType::Data.context().len() + 1 + 32 + 16 + 8 + 16;
            let start = u64::from_be_bytes(evidence.statement[at..at + 8].try_into().unwrap());
            assert_eq!(start + u64::from(evidence.index), sequence);
        }
    }
    for sequence in 11..15 {
        assert_eq!(
            world.feed(
                subscriber,
                &single(100 + sequence as u8, sequence, b"between", now)
            ),
            None
        );
    }
    let messages = &world.subscribers[subscriber].messages;
    assert_eq!(messages[10].data, b"first"[..]);
    assert_eq!(
        messages
            .iter()
            .filter(|message| message.data == b"second"[..])
            .count(),
        0
    );
    assert_eq!(messages.last().unwrap().data, b"first"[..]);
    // A budget of its own: a flood of conflicts is not all checked, and not all told.
    let signatures = world.receiver(subscriber).counters().signatures;
    for n in 0..1000u16 {
        let mut header = forge.data_header(0, 10, 1, now);
        header.block.0[..2].copy_from_slice(&n.to_be_bytes());
        let datagram = forge.block(header, &[message(10, &n.to_be_bytes())]).remove(0);
        assert!(world.feed(subscriber, &datagram).is_some());
    }
    assert!(world.receiver(subscriber).counters().signatures - signatures <= 10);
}

/// Single packets fill the memory of blocks fastest.
#[test]
fn c9_both_signatures_are_there_a_thousand_blocks_later() {
    let (mut world, subscriber, publisher) = World::in_mid_stream(1, 10);
    let forge = world.forge(publisher);
    let now = world.now;
    let single = |sequence: u64, data: &[u8]| {
        let mut header = forge.data_header(0, sequence, 1, now);
        header.block.0[..8].copy_from_slice(&sequence.to_be_bytes());
        header.block.0[8] = data[0];
        forge.block(header, &[message(sequence, data)]).remove(0)
    };
    for sequence in 10..3_000 {
        assert_eq!(world.feed(subscriber, &single(sequence, b"first")), None);
    }
    let verdict = world.feed(subscriber, &single(10, b"second"));
    assert_eq!(verdict, Some(Rejection::Equivocation));
    let told = world.subscribers[subscriber].events.last();
    assert!(matches!(
        told,
        Some(Event::Equivocation {
            sequence: 10,
            first: Some(_),
            ..
        })
    ));
}

/// Who floods the channel with credentials hides no new publisher: the directory is looked at.
#[test]
fn c2_a_flood_of_credentials_hides_no_new_stream() {
    let (mut world, subscriber, _) = World::in_mid_stream(1, 10);
    let insider = insider(&world);
    let newcomer = world.add_publisher();
    let stream = world.stream(newcomer);
    let knows = |world: &mut World| {
        let mut known = world.receiver(subscriber).streams();
        known.any(|running| running.publisher.stream == stream)
    };
    let asked = |world: &World| {
        let commands = world.subscribers[subscriber].commands.iter();
        commands
            .filter(|command| command.path.ends_with("/streams"))
            .count()
    };
    let before = asked(&world);
    let mut n = 0u32;
    while !knows(&mut world) {
        n += 1;
        assert!(n < 25_000, "not heard of within 50 s");
        let mut header = Header {
            packet_type: PacketType::Credential,
            ..insider.data_header(0, 0, 2, world.now)
        };
        header.block.0[..4].copy_from_slice(&n.to_be_bytes());
        header.stream.0[..4].copy_from_slice(&n.to_be_bytes());
        let body = insider.seal_body(&header, b"junk");
        let datagram = insider.datagram(&header, &body, &[0; NODE_BYTES], &[7; 64]);
        // As many as it takes, so that nothing is left for the newcomer's own.
        while world.feed(subscriber, &datagram) != Some(Rejection::SignatureBudget) {}
        world.run_for(2 * MILLI);
    }
    assert!(asked(&world) - before <= 3, "the flood makes it ask too often");
}

#[test]
fn c12_a_lying_heartbeat_moves_nothing() {
    let (mut world, subscriber, publisher) = World::in_mid_stream(1, 10);
    let (victim, insider) = (world.forge(publisher), insider(&world));
    let heartbeat = |next_sequence, is_final| {
        let heartbeat = Heartbeat {
            counter: 1 << 40,
            next_sequence,
            is_final,
            successor: is_final.then_some(insider.stream),
        };
        heartbeat.encode()
    };
    for (next_sequence, is_final) in [(1 << 62, false), (1000, false), (10, true), (0, true)] {
        let header = Header {
            packet_type: PacketType::Heartbeat,
            ..insider.data_header(1, 0, 1, world.now)
        };
        let datagrams = forged_block(&insider, &victim, header, &[heartbeat(next_sequence, is_final)]);
        assert_eq!(world.refused(subscriber, &datagrams[0]), Rejection::Signature);
    }
    world.run_for(2 * SECOND);
    assert_eq!(world.repair_requests, 0);
    world.send(publisher, 10, 1100);
    world.finish(subscriber, victim.stream, SECOND);
    // Of several packets, or of another length, it is none (DP-26).
    let header = Header {
        packet_type: PacketType::Heartbeat,
        ..victim.data_header(2, 0, 2, world.now)
    };
    for datagram in victim.block(header, &[heartbeat(1000, false), heartbeat(1000, false)]) {
        assert_eq!(world.refused(subscriber, &datagram), Rejection::Malformed);
    }
    let header = Header { count: 1, ..header };
    let long = [heartbeat(1000, false), vec![0]].concat();
    assert_eq!(
        world.refused(subscriber, &victim.block(header, &[long])[0]),
        Rejection::Malformed
    );
}

/// A publisher that lies about itself: bounded requests, and an end to it when retention is over.
#[test]
fn c12_a_publisher_that_announces_what_it_never_sent_costs_little() {
    let (mut world, subscriber, publisher) = World::in_mid_stream(1, 10);
    let forge = world.forge(publisher);
    let header = Header {
        packet_type: PacketType::Heartbeat,
        ..forge.data_header(1, 0, 1, world.now)
    };
    let heartbeat = Heartbeat {
        counter: 1 << 40,
        next_sequence: 1 << 62,
        is_final: false,
        successor: None,
    };
    assert_eq!(
        world.feed(subscriber, &forge.block(header, &[heartbeat.encode()])[0]),
        None
    );
    world.run_for(60 * SECOND);
    assert!(world.repair_requests < 100, "{} requests", world.repair_requests);
    assert_eq!(world.gaps(subscriber, forge.stream), [(10, Some((1 << 62) - 1))]);
}

/// An insider's flood pushes packets to repair, and loses none (DP-21).
#[test]
fn dp_21_a_flood_of_bad_signatures_pushes_to_repair_and_loses_nothing() {
    let (mut world, subscriber, publisher) = World::in_mid_stream(1, 10);
    let (victim, insider) = (world.forge(publisher), insider(&world));
    let before = world.receiver(subscriber).counters().clone();
    let seconds = 3;
    let mut random = Jitter::new(9);
    for tick in 0..seconds * 100u64 {
        // 2,000 a second, of sequences to come: more than the budget of checks.
        for n in 0..20u64 {
            let mut header = insider.data_header(0, random.below(1 << 20), 1, world.now);
            header.block.0[..8].copy_from_slice(&(tick * 20 + n).to_be_bytes());
            header.stream = victim.stream;
            let body = insider.seal_body(&header, &message(1, b"flood"));
            let signature = [random.below(256) as u8; 64];
            let datagram = insider.datagram(&header, &body, &[], &signature);
            let verdict = world.refused(subscriber, &datagram);
            assert!(
                matches!(
                    verdict,
                    Rejection::Signature | Rejection::SignatureBudget | Rejection::Gate
                ),
                "{verdict:?}"
            );
        }
        if tick % 5 == 0 {
            world.send(publisher, 8, 1100);
        }
        world.run_for(10 * MILLI);
    }
    world.finish(subscriber, victim.stream, 10 * SECOND);
    let after = world.receiver(subscriber).counters();
    let pushed = after.rejected(Rejection::SignatureBudget) - before.rejected(Rejection::SignatureBudget);
    let checked = after.signatures - before.signatures;
    assert!(pushed > 100, "the flood was too small to try the budget");
    assert!(
        checked < 200 * (seconds + 5) + 500,
        "{checked} signatures checked"
    );
    assert!(after.repaired > 0);
}
