//! Known answers of single functions.

use sealcast_core::block::{Tree, leaf_hashes, sign_input, signed_statement};
use sealcast_core::control::BeaconBody;
use sealcast_core::credential::{Credential, VerifiedCredential};
use sealcast_core::crypto::{BlockKey, GateKey, Gated, Secret, SigningKey, VerifyingKey, kdf, spki_of};
use sealcast_core::fec::{Fec, Ratio, encode, write_symbol};
use sealcast_core::frames::{Frames, MessageFrame};
use sealcast_core::messages::{self, JoinReply, KeysReply, RepairReply};
use sealcast_core::policy::Policy;
use sealcast_core::schedule::{
    EpochKeys, block_key, channel_id, commit_generation, commit_slot, control_gate_key, step_secret,
    stream_id,
};
use sealcast_core::signed::SignedObject;
use sealcast_core::stream::Heartbeat;
use sealcast_core::validator::{Certificate, Role, Validator};
use sealcast_core::wire::{
    BlockId, ChannelId, Epoch, Header, PacketType, PacketView, SiteId, StreamId, put_varint, take_varint,
};
use serde_json::Value;

use super::{bytes, check, fixed, hex, is_valid, packets, suite, uint};

fn secret(value: &Value, field: &str) -> Secret {
    Secret::new(fixed(value, field))
}

/// What `frames` should be, as the vectors write them.
pub(crate) fn assert_frame(frame: &MessageFrame<'_>, wanted: &Value) {
    assert_eq!(frame.message_id, uint(wanted, "messageId"));
    assert_eq!(frame.part.map(|(offset, _)| offset), wanted["offset"].as_u64());
    assert_eq!(frame.part.map(|(_, total)| total), wanted["total"].as_u64());
    assert_eq!(frame.topic, wanted["topic"].as_str());
    match (&frame.origin, &wanted["retained"]) {
        (None, Value::Null) => {}
        (Some(origin), wanted) => {
            assert_eq!(origin.stream.0, fixed(wanted, "streamId"));
            assert_eq!(
                (origin.sequence, origin.time),
                (uint(wanted, "sequence"), uint(wanted, "time"))
            );
        }
        (None, wanted) => panic!("no origin, but {wanted}"),
    }
    assert_eq!(frame.data, bytes(wanted, "data"));
}

#[test]
fn varint() {
    check("varint", |case| {
        let encoding = bytes(&case.test, "encoding");
        let mut input = &encoding[..];
        let value = take_varint(&mut input).filter(|_| input.is_empty());
        assert_eq!(value, case.test["value"].as_u64());
        if let Some(value) = value {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            assert_eq!(out, encoding);
        }
    });
}

#[test]
fn parity() {
    check("parity", |case| {
        let list = |field: &str| -> Vec<Vec<u8>> {
            let values = case.test[field].as_array().expect("a list").iter();
            values.map(|value| hex(value.as_str().expect("text"))).collect()
        };
        let (packets, wanted) = (list("packets"), list("symbols"));
        let mut symbols: Vec<Vec<u8>> = packets
            .iter()
            .map(|covered| {
                let mut symbol = Vec::new();
                write_symbol(covered, &mut symbol);
                symbol
            })
            .collect();
        symbols
            .iter_mut()
            .for_each(|symbol| symbol.resize(wanted[0].len(), 0));
        let symbols: Vec<&[u8]> = symbols.iter().map(Vec::as_slice).collect();
        assert_eq!(encode(&symbols, wanted.len() as u8), wanted);
    });
}

#[test]
fn slot() {
    check("slot", |case| {
        let mut policy = packets::any_policy();
        policy.slot_origin_time = uint(&case.group, "originTime");
        policy.slot_origin_number = uint(&case.group, "originNumber") as u32;
        policy.slot_length = uint(&case.test, "slotLength");
        assert_eq!(
            u64::from(policy.slot_at(uint(&case.test, "time"))),
            uint(&case.test, "slot")
        );
    });
}

#[test]
fn channel_ids() {
    check("channel_id", |case| {
        // Which names there may be is judged where a name enters: in policies (below).
        if is_valid(&case.test) {
            let name = case.test["channelName"].as_str().unwrap();
            let id = channel_id(&SiteId(fixed(&case.test, "siteId")), name);
            assert_eq!(id.0, fixed(&case.test, "channelId"));
        }
    });
}

#[test]
fn stream_ids() {
    check("stream_id", |case| {
        let key = SigningKey::from_seed(&secret(&case.test, "seed"));
        assert_eq!(*key.public_key(), fixed(&case.test, "publicKey"));
        assert_eq!(spki_of(key.public_key()).to_vec(), bytes(&case.test, "spki"));
        assert_eq!(stream_id(key.public_key()).0, fixed(&case.test, "streamId"));
    });
}

#[test]
fn key_derivation() {
    check("kdf", |case| {
        let label = case.test["label"].as_str().unwrap();
        let output = kdf(&bytes(&case.test, "key"), label, &[&bytes(&case.test, "context")]);
        assert_eq!(*output.expose(), fixed(&case.test, "output"));
    });
}

#[test]
fn key_schedule() {
    check("key_schedule", |case| {
        let (suite, test) = (suite(&case.group), &case.test);
        let channel = ChannelId(fixed(&case.group, "channelId"));
        let epoch = Epoch {
            slot: uint(test, "slot") as u32,
            generation: uint(test, "generation") as u32,
            step: uint(test, "step") as u8,
        };
        assert_eq!(epoch.to_bytes(), fixed(test, "epoch"));
        assert_eq!(Epoch::from_bytes(&epoch.to_bytes()), epoch);
        let slot = secret(test, "slotSecret");
        let step = (0..epoch.step).fold(secret(test, "generationSecret"), |secret, before| {
            step_secret(&secret, &channel, epoch.generation, before + 1)
        });
        assert_eq!(*step.expose(), fixed(test, "stepSecret"));
        let keys = EpochKeys::derive(suite, &channel, epoch, &slot, &step);
        let stream = StreamId(fixed(test, "streamId"));
        let block = BlockId(fixed(test, "blockId"));
        let stream_secret = keys.stream_secret(&stream).unwrap();
        assert_eq!(*stream_secret.expose(), fixed(test, "streamSecret"));
        // Keys stay inside their types: they are the same if they do the same.
        let gated = Gated {
            leaf: &[1; 32],
            path: &[2; 32],
            signature: &[3; 64],
        };
        let tag = |key: &GateKey| key.tags(&[gated]);
        let seal = |key: &BlockKey| key.seal(9, b"aad", &mut [5; 40]);
        assert_eq!(
            tag(&keys.gate),
            tag(&GateKey::new(suite, &secret(test, "gateKey")))
        );
        let control = control_gate_key(suite, &slot, &channel, epoch.slot);
        assert_eq!(
            tag(&control),
            tag(&GateKey::new(suite, &secret(test, "controlGateKey")))
        );
        let wanted = BlockKey::new(suite, &secret(test, "blockKey"));
        assert_eq!(seal(&block_key(suite, &stream_secret, &block)), seal(&wanted));
        let wanted = BlockKey::new(suite, &secret(test, "credentialBlockKey"));
        assert_eq!(seal(&keys.credential_block_key(&stream, &block)), seal(&wanted));
    });
}

#[test]
fn commitments() {
    check("commitments", |case| {
        let (channel, test) = (ChannelId(fixed(&case.group, "channelId")), &case.test);
        let secret = secret(test, "secret");
        let commitment = if case.group["kind"] == "slot" {
            commit_slot(&secret, &channel, uint(test, "slot") as u32)
        } else {
            let (generation, step) = (uint(test, "generation") as u32, uint(test, "step") as u8);
            commit_generation(&secret, &channel, generation, step)
        };
        assert_eq!(commitment == fixed::<32>(test, "commitment"), is_valid(test));
    });
}

#[test]
fn block_ids() {
    check("block_id", |case| {
        let key = SigningKey::from_seed(&secret(&case.group, "seed"));
        let test = &case.test;
        let kind = uint(test, "type") as u8;
        let id = key.block_id(
            &fixed(test, "randomness"),
            kind,
            uint(test, "firstSequence"),
            uint(test, "time"),
        );
        assert_eq!(id, fixed(test, "blockId"));
    });
}

/// A header from its bytes; a body of one packet's least length makes it a datagram.
fn header_of(header: &[u8]) -> Header {
    let mut alone = header.to_vec();
    (alone[54], alone[55]) = (0, 1);
    alone.resize(64 + 72, 0);
    Header {
        index: header[54],
        count: header[55],
        ..PacketView::parse(&alone).unwrap().header
    }
}

#[test]
fn block_trees() {
    check("block_tree", |case| {
        let (suite, test) = (suite(&case.group), &case.test);
        let first = header_of(&bytes(test, "header"));
        let bodies: Vec<Vec<u8>> = test["bodies"]
            .as_array()
            .unwrap()
            .iter()
            .map(|body| hex(body.as_str().unwrap()))
            .collect();
        assert_eq!(bodies.len() as u64, uint(test, "count"));
        let packets: Vec<Vec<u8>> = (0..)
            .zip(&bodies)
            .map(|(index, body)| [&Header { index, ..first }.to_bytes()[..], body].concat())
            .collect();
        let packets: Vec<&[u8]> = packets.iter().map(Vec::as_slice).collect();
        let leaves = leaf_hashes(suite, &packets);
        for (leaf, wanted) in leaves.iter().zip(test["leaves"].as_array().unwrap()) {
            assert_eq!(leaf.to_vec(), hex(wanted.as_str().unwrap()));
        }
        let tree = Tree::build(suite, &first.block, leaves);
        assert_eq!(*tree.root(), fixed(test, "root"));
        for (index, wanted) in test["paths"].as_array().unwrap().iter().enumerate() {
            assert_eq!(tree.path(index), hex(wanted.as_str().unwrap()));
        }
    });
}

#[test]
fn block_paths() {
    check("block_path", |case| {
        let (suite, test) = (suite(&case.group), &case.test);
        let (index, count) = (uint(test, "index") as u8, uint(test, "count") as u8);
        let path = bytes(test, "path");
        // A path of another length is no packet: what is over or short becomes body.
        let fits = index < count && path.len() == 16 * sealcast_core::block::depth(index, count);
        let holds = fits && {
            let mut header = packets::any_header();
            header.block = BlockId(fixed(&case.group, "blockId"));
            (header.index, header.count) = (index, count);
            let datagram = [&header.to_bytes()[..], &path, &[0; 72]].concat();
            let view = PacketView::parse(&datagram).unwrap();
            view.claimed_root(suite, &fixed(test, "leaf")) == fixed::<32>(test, "root")
        };
        assert_eq!(holds, is_valid(test));
    });
}

#[test]
fn statements() {
    check("statement", |case| {
        let test = &case.test;
        let header = Header {
            packet_type: PacketType::from_code(uint(test, "type") as u8).unwrap(),
            stream: StreamId(fixed(test, "streamId")),
            epoch: Epoch {
                slot: uint(test, "slot") as u32,
                generation: uint(test, "generation") as u32,
                step: uint(test, "step") as u8,
            },
            block: BlockId(fixed(test, "blockId")),
            first_sequence: uint(test, "firstSequence"),
            index: 0,
            count: uint(test, "count") as u8,
            time: uint(test, "time"),
        };
        let statement = signed_statement(
            suite(test),
            &ChannelId(fixed(test, "channelId")),
            &header,
            &fixed(test, "root"),
        );
        assert_eq!(header.packet_type.context(), test["context"].as_str().unwrap());
        assert_eq!(
            sign_input(header.packet_type.context(), &bytes(test, "statement")),
            statement
        );
        assert_eq!(statement, bytes(test, "signInput"));
        let key = VerifyingKey::new(&fixed(&case.group, "publicKey")).unwrap();
        assert_eq!(
            key.verifies(&statement, &fixed(test, "signature")),
            is_valid(test)
        );
        if is_valid(test) {
            let key = SigningKey::from_seed(&secret(&case.group, "seed"));
            assert_eq!(key.sign(&statement), fixed(test, "signature"));
        }
    });
}

#[test]
fn ed25519() {
    check("ed25519", |case| {
        let test = &case.test;
        let verdict = VerifyingKey::new(&fixed(test, "publicKey")).is_some_and(|key| {
            let signature = <[u8; 64]>::try_from(bytes(test, "signature"));
            signature.is_ok_and(|signature| key.verifies(&bytes(test, "message"), &signature))
        });
        assert_eq!(verdict, is_valid(test));
    });
}

#[test]
fn frames() {
    check("frames", |case| {
        let plaintext = bytes(&case.test, "plaintext");
        let mut wanted = case.test["frames"].as_array().unwrap().iter();
        let mut malformed = false;
        for frame in Frames::new(&plaintext) {
            match frame {
                Ok(frame) => assert_frame(&frame, wanted.next().expect("a frame too many")),
                Err(_) => malformed = true,
            }
        }
        assert_eq!(wanted.count(), 0, "frames are missing");
        assert_eq!(malformed, !is_valid(&case.test));
    });
}

#[test]
fn heartbeats() {
    check("heartbeat", |case| {
        let (test, body) = (&case.test, bytes(&case.test, "body"));
        let Some(heartbeat) = Heartbeat::parse(&body) else {
            assert!(!is_valid(test));
            return;
        };
        assert!(is_valid(test));
        assert_eq!(heartbeat.counter, uint(test, "counter"));
        assert_eq!(heartbeat.next_sequence, uint(test, "nextSequence"));
        assert_eq!(heartbeat.is_final, test["ended"].as_bool().unwrap());
        assert_eq!(
            heartbeat.successor.map(|id| id.hex()).as_deref(),
            test["successor"].as_str()
        );
        if test["flags"].as_array().unwrap().is_empty() {
            assert_eq!(heartbeat.encode(), body);
        }
    });
}

#[test]
fn beacons() {
    check("beacon", |case| {
        let (test, body) = (&case.test, bytes(&case.test, "body"));
        let Some(beacon) = BeaconBody::parse(&body) else {
            assert!(!is_valid(test));
            return;
        };
        assert!(is_valid(test));
        assert_eq!(beacon.encode(), body);
        assert_eq!(beacon.counter, uint(test, "counter"));
        let documents = [
            (beacon.policy, "policyVersion", "policyHash"),
            (beacon.crl, "crlNumber", "crlHash"),
        ];
        for (document, number, hash) in
            documents
                .into_iter()
                .chain([(beacon.bundle, "bundleVersion", "bundleHash")])
        {
            assert_eq!(
                (document.number, document.hash),
                (uint(test, number), fixed(test, hash))
            );
        }
        assert_eq!(beacon.generation_commitment, fixed(test, "generationCommitment"));
        assert_eq!(u64::from(beacon.first_slot), uint(test, "firstSlot"));
        let wanted = test["slotCommitments"].as_array().unwrap();
        assert_eq!(beacon.slot_commitments.len(), wanted.len());
        for (commitment, wanted) in beacon.slot_commitments.iter().zip(wanted) {
            assert_eq!(commitment.to_vec(), hex(wanted.as_str().unwrap()));
        }
    });
}

fn credential_of(signed: &[u8], context: &str, key: &VerifyingKey) -> Option<Credential> {
    let object = SignedObject::parse(signed).ok()?;
    let signature = object.signature.try_into().ok()?;
    let holds = object.algorithm == 2 && key.verifies(&sign_input(context, object.tbs), signature);
    holds.then(|| Credential::parse(object.tbs).ok())?
}

#[test]
fn credentials() {
    check("credential", |case| {
        let test = &case.test;
        let key = VerifyingKey::new(&fixed(&case.group, "devicePublicKey")).unwrap();
        let context = case.group["context"].as_str().unwrap();
        let Some(credential) = credential_of(&bytes(test, "signed"), context, &key) else {
            assert!(!is_valid(test));
            return;
        };
        assert!(is_valid(test));
        let fields = &test["fields"];
        assert_eq!(credential.encode(), bytes(test, "tbs"));
        assert_eq!(spki_of(&credential.public_key).to_vec(), bytes(fields, "spki"));
        assert_eq!(credential.channel.0, fixed(fields, "channelId"));
        assert_eq!(credential.suite, suite(fields));
        assert_eq!(credential.site.0, fixed(fields, "siteId"));
        assert_eq!(credential.device, fields["device"].as_str().unwrap());
        assert_eq!(credential.certificate_hash, fixed(fields, "certificateHash"));
        let life = (uint(fields, "notBefore"), uint(fields, "notAfter"));
        assert_eq!((credential.not_before, credential.not_after), life);
        assert_eq!(credential.start_nonce, fixed(fields, "startNonce"));
        assert_eq!(credential.instance, fields["instance"].as_str().unwrap());
        assert_eq!(
            credential.succeeds.map(|id| id.hex()).as_deref(),
            fields["succeeds"].as_str()
        );
    });
}

#[test]
fn bundles() {
    check("bundle", |case| {
        let (group, test) = (&case.group, &case.test);
        let anchors: Vec<Vec<u8>> = group["anchors"]
            .as_array()
            .unwrap()
            .iter()
            .map(|der| hex(der.as_str().unwrap()))
            .collect();
        let anchors: Vec<&[u8]> = anchors.iter().map(|der| &der[..]).collect();
        let validator = Validator::new(&anchors, &[]).unwrap();
        let policy = bytes(group, "policy");
        let policy = Policy::parse(SignedObject::parse(&policy).unwrap().tbs).unwrap();
        let role = Role::parse(test["role"].as_str().unwrap()).unwrap();
        let channel = ChannelId(fixed(group, "channelId"));
        let (now, packet_time) = (uint(test, "now"), uint(test, "packetTime"));
        let verified = VerifiedCredential::verify(
            &bytes(test, "bundle"),
            &validator,
            role,
            &channel,
            suite(group),
            now,
        );
        let accepted = verified.is_ok_and(|verified| {
            let publisher = &verified.publisher;
            let life = verified.credential.not_before..=verified.credential.not_after;
            verified.stream().0 == fixed(test, "streamId")
                && life.contains(&packet_time)
                && (role == Role::KeyServer || policy.may_publish(&publisher.site, &publisher.device))
        });
        assert_eq!(accepted, is_valid(test));
    });
}

#[test]
fn policies() {
    let valid = super::cases("policy").into_iter().next().unwrap().test;
    let site = SiteId(fixed(&valid["fields"], "siteId"));
    check("policy", |case| {
        let test = &case.test;
        let issuer = hex(case.group["issuers"][0].as_str().unwrap());
        let issuer = Certificate::parse(&issuer).unwrap();
        let name = valid["fields"]["channel"].as_str().unwrap();
        let (known, now) = (uint(test, "knownVersion"), uint(test, "now"));
        let verified = Policy::verify(&bytes(test, "signed"), &issuer, &site, name, known, now);
        assert_eq!(verified.is_ok(), is_valid(test), "{:?}", verified.err());
        let Ok(verified) = verified else { return };
        let (policy, fields) = (verified.policy, &test["fields"]);
        assert_eq!(policy.encode(), bytes(test, "tbs"));
        assert_eq!(policy.version, uint(fields, "version"));
        assert_eq!(
            (policy.issued, policy.next_update),
            (uint(fields, "issued"), uint(fields, "nextUpdate"))
        );
        assert_eq!(policy.suite, suite(fields));
        assert_eq!(policy.group, fields["group"].as_str().unwrap());
        assert_eq!(u64::from(policy.port), uint(fields, "port"));
        assert_eq!(policy.interface.as_deref(), fields["interface"].as_str());
        assert_eq!(policy.rate, uint(fields, "rate"));
        let origin = (
            policy.slot_origin_time,
            u64::from(policy.slot_origin_number),
            policy.slot_length,
        );
        assert_eq!(
            origin,
            (
                uint(fields, "originTime"),
                uint(fields, "originNumber"),
                uint(fields, "slotLength")
            )
        );
        let kept = (policy.retention, policy.retention_bytes, policy.publisher_limit);
        assert_eq!(
            kept,
            (
                uint(fields, "retention"),
                uint(fields, "retentionBytes"),
                uint(fields, "publisherLimit")
            )
        );
        let fec = match fields["fec"].as_array().map(Vec::as_slice) {
            None => Fec::Off,
            Some([]) => Fec::Adaptive,
            Some(ratio) => {
                let number = |place: usize| u8::try_from(ratio[place].as_u64().unwrap()).unwrap();
                Fec::Fixed(Ratio::new(number(0), number(1)).unwrap())
            }
        };
        assert_eq!(policy.fec, fec);
        for (names, wanted) in [
            (&policy.publishers, "publishers"),
            (&policy.subscribers, "subscribers"),
        ] {
            let wanted: Vec<_> = fields[wanted]
                .as_array()
                .unwrap()
                .iter()
                .map(|name| name.as_str().unwrap())
                .collect();
            assert_eq!(*names, wanted);
        }
    });
}

fn assert_keys(keys: &KeysReply<'_>, fields: &Value) {
    assert_eq!(keys.beacon, bytes(fields, "beacon"));
    let slots = fields["slots"].as_array().unwrap();
    assert_eq!(keys.slots.len(), slots.len());
    for ((number, secret), wanted) in keys.slots.iter().zip(slots) {
        assert_eq!(Some(u64::from(*number)), wanted[0].as_u64());
        assert_eq!(secret.expose().to_vec(), hex(wanted[1].as_str().unwrap()));
    }
    let generation = &fields["generation"];
    assert_eq!(Some(u64::from(keys.generation)), generation[0].as_u64());
    assert_eq!(Some(u64::from(keys.step)), generation[1].as_u64());
    assert_eq!(
        keys.secret.as_ref().unwrap().expose().to_vec(),
        hex(generation[2].as_str().unwrap())
    );
    assert_eq!(keys.time, uint(fields, "time"));
    let earlier = fields["earlier"].as_array().map_or(&[][..], |list| &list[..]);
    assert_eq!(keys.earlier.len(), earlier.len());
    for ((number, secret, beacon), wanted) in keys.earlier.iter().zip(earlier) {
        assert_eq!(Some(u64::from(*number)), wanted[0].as_u64());
        assert_eq!(secret.expose().to_vec(), hex(wanted[1].as_str().unwrap()));
        assert_eq!(beacon.to_vec(), hex(wanted[2].as_str().unwrap()));
    }
}

fn assert_join(join: &JoinReply<'_>, fields: &Value) {
    assert_keys(&join.keys, fields);
    assert_eq!(join.policy, bytes(fields, "policy"));
    assert_eq!(join.crl, bytes(fields, "crl"));
    assert_eq!(join.key_server, bytes(fields, "key-server"));
    let streams = fields["streams"].as_array().unwrap();
    assert_eq!(join.directory.streams.len(), streams.len());
    for (entry, wanted) in join.directory.streams.iter().zip(streams) {
        assert_eq!(entry.stream.0, fixed(wanted, "stream"));
        assert_eq!(Some(entry.device), wanted["device"].as_str());
        assert_eq!(Some(entry.instance), wanted["instance"].as_str());
        assert_eq!(entry.bundle, bytes(wanted, "credential"));
        assert_eq!(entry.head.map(<[u8]>::to_vec), wanted["head"].as_str().map(hex));
        let endpoint = entry
            .endpoint
            .map(|(host, port)| (Some(host), Some(u64::from(port))));
        let place = &wanted["endpoint"];
        let told = (!place.is_null()).then(|| (place[0].as_str(), place[1].as_u64()));
        assert_eq!(endpoint, told);
    }
}

fn assert_repair(repair: &RepairReply<'_>, fields: &Value) {
    let packets = fields["packets"].as_array().unwrap();
    let packets: Vec<_> = packets
        .iter()
        .map(|packet| hex(packet.as_str().unwrap()))
        .collect();
    assert_eq!(repair.packets, packets);
    assert_eq!(repair.oldest, uint(fields, "oldest"));
    assert_eq!(repair.head.map(<[u8]>::to_vec), fields["head"].as_str().map(hex));
}

/// What the engine lets pass in an answer. It comes over TLS from a peer whose identity was proved, nothing is signed
/// over these bytes, and what they say is checked against signed objects.
const LET_PASS: [&str; 8] = [
    "a slot beyond 24 bits",
    "its size in another byte",
    "the first name's length in another byte",
    "the fields the other way round",
    "a field twice",
    "without issuers",
    "without head",
    "a stream without a head",
];

/// What the engine says in a request: it reads none.
fn request(kind: &str, fields: &Value) -> Option<Vec<u8>> {
    match kind {
        "join request" => Some(messages::join_request(fields["role"].as_str().unwrap())),
        "poll request" => Some(messages::poll_request(uint(fields, "counter"), None)),
        "repair request" => {
            let ranges = fields["ranges"].as_array().unwrap().iter();
            let ranges: Vec<_> = ranges
                .map(|range| (range[0].as_u64().unwrap(), range[1].as_u64().unwrap()))
                .collect();
            let channel = ChannelId(fixed(fields, "channel"));
            let stream = StreamId(fixed(fields, "stream"));
            Some(messages::repair_request(&channel, &stream, &ranges))
        }
        "follow request" => {
            let channel = ChannelId(fixed(fields, "channel"));
            let stream = StreamId(fixed(fields, "stream"));
            Some(messages::follow_request(&channel, &stream, uint(fields, "from")))
        }
        _ => None,
    }
}

#[test]
fn side_channel_bodies() {
    check("side_channel", |case| {
        let (kind, test) = (case.group["kind"].as_str().unwrap(), &case.test);
        let (body, fields) = (bytes(test, "body"), &test["fields"]);
        let accepted = match kind {
            "join reply" => messages::parse_join_reply(&body).map(|join| {
                if is_valid(test) {
                    assert_join(&join, fields);
                }
            }),
            "keys reply" => messages::parse_keys_reply(&body).map(|keys| {
                if is_valid(test) {
                    assert_keys(&keys, fields);
                }
            }),
            "poll reply" => messages::parse_poll_reply(&body).map(|(beacon, _)| {
                if is_valid(test) {
                    assert_eq!(beacon, bytes(fields, "beacon"));
                }
            }),
            "repair reply" => messages::parse_repair_reply(&body).map(|repair| {
                if is_valid(test) {
                    assert_repair(&repair, fields);
                }
            }),
            _ => {
                if is_valid(test) && test["flags"].as_array().unwrap().is_empty() {
                    assert_eq!(request(kind, fields).unwrap_or(body.clone()), body);
                }
                return;
            }
        };
        let comment = test["comment"].as_str().unwrap();
        if !LET_PASS.contains(&comment) {
            assert_eq!(accepted.is_ok(), is_valid(test));
        }
    });
}
