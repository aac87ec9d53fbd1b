//! Answers of one function at a time.

use sealcast_core::block::{Tree, depth, leaf_hashes, sign_input, signed_statement};
use sealcast_core::control::BeaconBody;
use sealcast_core::crypto::{
    BlockKey, GateKey, Gated, Secret, SigningKey, Suite, VerifyingKey, kdf, spki_of,
};
use sealcast_core::fec::{MAX_PARITIES, MAX_SOURCES, encode, write_symbol};
use sealcast_core::frames::{Frames, MessageFrame};
use sealcast_core::schedule::{
    EpochKeys, block_key, channel_id, commit_generation, commit_slot, control_gate_key, step_secret,
    stream_id,
};
use sealcast_core::stream::Heartbeat;
use sealcast_core::validator::is_channel_name;
use sealcast_core::wire::{
    BlockId, ChannelId, Epoch, HEADER_BYTES, Header, INDEX_BYTE, NODE_BYTES, PacketType, PacketView, SiteId,
    StreamId, put_varint, take_varint,
};

use crate::site::Site;
use crate::value::{Value, hex, map};
use crate::{Answered, Error, invalid, judged, valid};

/// The body of the shortest packet: a signature and a gate tag.
const LEAST_BODY: usize = 72;
/// Where a heartbeat has its flags, and those that mean something (DP-26).
const FLAGS_BYTE: usize = 16;
const KNOWN_FLAGS: u8 = 3;

pub(crate) fn suite(case: &Value) -> Result<Suite, Error> {
    let code = case.number("suite")?;
    Suite::from_code(code).ok_or_else(|| Error::case(format!("'suite': {code} is none")))
}

pub(crate) fn secret(case: &Value, name: &str) -> Result<Secret, Error> {
    case.fixed(name).map(Secret::new)
}

fn epoch(case: &Value) -> Result<Epoch, Error> {
    Ok(Epoch {
        slot: case.number("slot")?,
        generation: case.number("generation")?,
        step: case.number("step")?,
    })
}

pub(crate) fn varint(case: &Value) -> Answered {
    let encoding = case.bytes("encoding")?;
    let mut input = &encoding[..];
    let Some(value) = take_varint(&mut input).filter(|_| input.is_empty()) else {
        return Ok(invalid("malformed"));
    };
    let mut again = Vec::new();
    put_varint(&mut again, value);
    Ok(valid(vec![("value", value.into()), ("encoding", hex(&again))]))
}

pub(crate) fn parity(case: &Value) -> Answered {
    let packets = case.all_bytes("packets")?;
    let parities = case.number("parities")?;
    let fits = (1..=usize::from(MAX_SOURCES)).contains(&packets.len())
        && (1..=MAX_PARITIES).contains(&parities)
        && packets.iter().all(|packet| packet.len() >= HEADER_BYTES);
    if !fits {
        let text = format!(
            "'packets' and 'parities': no group of {}+{parities}",
            packets.len()
        );
        return Err(Error::case(text));
    }
    let mut symbols: Vec<Vec<u8>> = packets
        .iter()
        .map(|covered| {
            let mut symbol = Vec::new();
            write_symbol(covered, &mut symbol);
            symbol
        })
        .collect();
    let longest = symbols.iter().map(Vec::len).max().unwrap_or_default();
    symbols.iter_mut().for_each(|symbol| symbol.resize(longest, 0));
    let symbols: Vec<&[u8]> = symbols.iter().map(Vec::as_slice).collect();
    let parity = encode(&symbols, parities);
    Ok(valid(vec![(
        "symbols",
        parity.iter().map(|symbol| hex(symbol)).collect(),
    )]))
}

pub(crate) fn slot(case: &Value) -> Answered {
    let mut policy = Site::new(Suite::Aes256Gcm).policy;
    policy.slot_origin_time = case.number("originTime")?;
    policy.slot_origin_number = case.number("originNumber")?;
    policy.slot_length = case.number("slotLength")?;
    if policy.slot_length == 0 {
        return Err(Error::case("'slotLength': a slot has a length"));
    }
    Ok(valid(vec![("slot", policy.slot_at(case.number("time")?).into())]))
}

pub(crate) fn channel_id_of(case: &Value) -> Answered {
    let name = case.text("channelName")?;
    if !is_channel_name(name) {
        return Ok(invalid("name"));
    }
    let id = channel_id(&SiteId(case.fixed("siteId")?), name);
    Ok(valid(vec![("channelId", hex(&id.0))]))
}

pub(crate) fn stream_id_of(case: &Value) -> Answered {
    let key = SigningKey::from_seed(&secret(case, "seed")?);
    Ok(valid(vec![
        ("publicKey", hex(key.public_key())),
        ("spki", hex(&spki_of(key.public_key()))),
        ("streamId", hex(&stream_id(key.public_key()).0)),
    ]))
}

pub(crate) fn key_derivation(case: &Value) -> Answered {
    let output = kdf(
        &case.bytes("key")?,
        case.text("label")?,
        &[&case.bytes("context")?],
    );
    Ok(valid(vec![("output", hex(output.expose()))]))
}

/// Keys stay inside their types: one that does what the file's does is the file's.
pub(crate) fn key_schedule(case: &Value) -> Answered {
    let (suite, epoch) = (suite(case)?, epoch(case)?);
    let channel = ChannelId(case.fixed("channelId")?);
    let stream = StreamId(case.fixed("streamId")?);
    let block = BlockId(case.fixed("blockId")?);
    if Epoch::from_bytes(&epoch.to_bytes()) != epoch {
        return Err(Error::fault("an epoch is not read as it is written"));
    }
    let slot = secret(case, "slotSecret")?;
    let step = (0..epoch.step).fold(secret(case, "generationSecret")?, |secret, before| {
        step_secret(&secret, &channel, epoch.generation, before + 1)
    });
    let keys = EpochKeys::derive(suite, &channel, epoch, &slot, &step);
    let stream_secret = keys
        .stream_secret(&stream)
        .ok_or_else(|| Error::fault("an epoch with its secrets has no stream secret"))?;
    let gate = |key: &GateKey, name: &str| -> Answered {
        let gated = Gated {
            leaf: &[1; 32],
            path: &[2; 32],
            signature: &[3; 64],
        };
        let given = GateKey::new(suite, &secret(case, name)?);
        same(key.tags(&[gated]) == given.tags(&[gated]), case, name)
    };
    let sealing = |key: &BlockKey, name: &str| -> Answered {
        let seal = |key: &BlockKey| {
            let mut text = [5; 40];
            let tag = key.seal(9, b"associated", &mut text);
            (text, tag)
        };
        let given = BlockKey::new(suite, &secret(case, name)?);
        same(seal(key) == seal(&given), case, name)
    };
    let control = control_gate_key(suite, &slot, &channel, epoch.slot);
    let credential = keys.credential_block_key(&stream, &block);
    Ok(valid(vec![
        ("epoch", hex(&epoch.to_bytes())),
        ("stepSecret", hex(step.expose())),
        ("streamSecret", hex(stream_secret.expose())),
        ("gateKey", gate(&keys.gate, "gateKey")?),
        ("controlGateKey", gate(&control, "controlGateKey")?),
        (
            "blockKey",
            sealing(&block_key(suite, &stream_secret, &block), "blockKey")?,
        ),
        ("credentialBlockKey", sealing(&credential, "credentialBlockKey")?),
    ]))
}

/// The key that was given, if the engine's does the same.
fn same(is_same: bool, case: &Value, name: &str) -> Answered {
    if is_same {
        case.get(name).cloned()
    } else {
        Ok(Value::Null)
    }
}

pub(crate) fn commitments(case: &Value) -> Answered {
    let (channel, secret) = (ChannelId(case.fixed("channelId")?), secret(case, "secret")?);
    let commitment = match case.text("kind")? {
        "slot" => commit_slot(&secret, &channel, case.number("slot")?),
        "generation" => commit_generation(
            &secret,
            &channel,
            case.number("generation")?,
            case.number("step")?,
        ),
        other => {
            return Err(Error::case(format!(
                "'kind': '{other}' is neither slot nor generation"
            )));
        }
    };
    Ok(if commitment == case.fixed::<32>("commitment")? {
        valid(Vec::new())
    } else {
        invalid("commitment")
    })
}

pub(crate) fn block_id(case: &Value) -> Answered {
    let key = SigningKey::from_seed(&secret(case, "seed")?);
    let randomness = case.fixed("randomness")?;
    let (kind, first) = (case.number("type")?, case.number("firstSequence")?);
    let id = key.block_id(&randomness, kind, first, case.number("time")?);
    Ok(valid(vec![("blockId", hex(&id))]))
}

/// A header alone; a body of the least length makes it a datagram.
fn header_of(bytes: [u8; HEADER_BYTES]) -> Result<Header, Error> {
    let mut alone = bytes.to_vec();
    (alone[INDEX_BYTE], alone[INDEX_BYTE + 1]) = (0, 1);
    alone.resize(HEADER_BYTES + LEAST_BODY, 0);
    let view = PacketView::parse(&alone).map_err(|_| Error::case("'header': malformed"))?;
    Ok(Header {
        index: bytes[INDEX_BYTE],
        count: bytes[INDEX_BYTE + 1],
        ..view.header
    })
}

pub(crate) fn block_tree(case: &Value) -> Answered {
    let (suite, first) = (suite(case)?, header_of(case.fixed("header")?)?);
    let bodies = case.all_bytes("bodies")?;
    if bodies.len() != usize::from(first.count) || bodies.is_empty() {
        let text = format!("'bodies': {}, and the header says {}", bodies.len(), first.count);
        return Err(Error::case(text));
    }
    let packets: Vec<Vec<u8>> = (0..)
        .zip(&bodies)
        .map(|(index, body)| [&Header { index, ..first }.to_bytes()[..], body].concat())
        .collect();
    let packets: Vec<&[u8]> = packets.iter().map(Vec::as_slice).collect();
    let tree = Tree::build(suite, &first.block, leaf_hashes(suite, &packets));
    Ok(valid(vec![
        ("leaves", tree.leaves().iter().map(|leaf| hex(leaf)).collect()),
        (
            "paths",
            (0..bodies.len()).map(|index| hex(&tree.path(index))).collect(),
        ),
        ("root", hex(tree.root())),
    ]))
}

pub(crate) fn block_path(case: &Value) -> Answered {
    let (suite, path) = (suite(case)?, case.bytes("path")?);
    let (index, count) = (case.number::<u8>("index")?, case.number("count")?);
    let (leaf, root) = (case.fixed("leaf")?, case.fixed::<32>("root")?);
    let header = Header {
        packet_type: PacketType::Data,
        stream: StreamId([1; 16]),
        epoch: Epoch {
            slot: 1,
            generation: 1,
            step: 1,
        },
        block: BlockId(case.fixed("blockId")?),
        first_sequence: 0,
        index,
        count,
        time: 0,
    };
    // A path of another length is no packet: what is over or short becomes body.
    let fits = index < count && path.len() == NODE_BYTES * depth(index, count);
    let datagram = [&header.to_bytes()[..], &path, &[0; LEAST_BODY]].concat();
    let holds =
        fits && PacketView::parse(&datagram).is_ok_and(|view| view.claimed_root(suite, &leaf) == root);
    Ok(if holds { valid(Vec::new()) } else { invalid("path") })
}

pub(crate) fn statement(case: &Value) -> Answered {
    let code = case.number("type")?;
    let header = Header {
        packet_type: PacketType::from_code(code)
            .ok_or_else(|| Error::case(format!("'type': {code} is none")))?,
        stream: StreamId(case.fixed("streamId")?),
        epoch: epoch(case)?,
        block: BlockId(case.fixed("blockId")?),
        first_sequence: case.number("firstSequence")?,
        index: 0,
        count: case.number("count")?,
        time: case.number("time")?,
    };
    let (suite, channel) = (suite(case)?, ChannelId(case.fixed("channelId")?));
    let said = signed_statement(suite, &channel, &header, &case.fixed("root")?);
    let context = header.packet_type.context();
    let statement = said
        .strip_prefix(&sign_input(context, &[])[..])
        .ok_or_else(|| Error::fault("a statement is signed without its context"))?;
    let signature = case.fixed("signature")?;
    let key = VerifyingKey::new(&case.fixed("publicKey")?);
    let holds = key.is_some_and(|key| key.verifies(&said, &signature));
    // Signatures are a function of key and words: who signs anew signs the same.
    let again = SigningKey::from_seed(&secret(case, "seed")?).sign(&said);
    if holds && again != signature {
        return Err(Error::fault("two signatures hold over one statement"));
    }
    let verdict = if holds { Ok(()) } else { Err("signature") };
    Ok(judged(
        verdict,
        vec![
            ("context", context.into()),
            ("statement", hex(statement)),
            ("signInput", hex(&said)),
        ],
    ))
}

pub(crate) fn ed25519(case: &Value) -> Answered {
    let (message, signature) = (case.bytes("message")?, case.bytes("signature")?);
    let key = VerifyingKey::new(&case.fixed("publicKey")?);
    let holds = key.is_some_and(|key| {
        let signature = <[u8; 64]>::try_from(signature);
        signature.is_ok_and(|signature| key.verifies(&message, &signature))
    });
    Ok(if holds {
        valid(Vec::new())
    } else {
        invalid("signature")
    })
}

pub(crate) fn frame(frame: &MessageFrame<'_>) -> Value {
    let origin = frame.origin.map(|origin| {
        map(vec![
            ("streamId", hex(&origin.stream.0)),
            ("sequence", origin.sequence.into()),
            ("time", origin.time.into()),
        ])
    });
    map(vec![
        ("messageId", frame.message_id.into()),
        ("offset", frame.part.map(|(offset, _)| offset).into()),
        ("total", frame.part.map(|(_, total)| total).into()),
        ("topic", frame.topic.into()),
        ("retained", origin.into()),
        ("data", hex(frame.data)),
    ])
}

/// Those before the first that is malformed, and whether there is such a one.
pub(crate) fn frames(case: &Value) -> Answered {
    let (plaintext, mut verdict) = (case.bytes("plaintext")?, Ok(()));
    let mut read = Vec::new();
    for one in Frames::new(&plaintext) {
        match one {
            Ok(one) => read.push(frame(&one)),
            Err(_) => verdict = Err("malformed"),
        }
    }
    Ok(judged(verdict, vec![("frames", Value::List(read))]))
}

pub(crate) fn heartbeat(case: &Value) -> Answered {
    let body = case.bytes("body")?;
    let Some(heartbeat) = Heartbeat::parse(&body) else {
        return Ok(invalid("malformed"));
    };
    if body[FLAGS_BYTE] <= KNOWN_FLAGS && heartbeat.encode() != body {
        return Err(Error::fault("a heartbeat is not written as it was read"));
    }
    Ok(valid(vec![
        ("counter", heartbeat.counter.into()),
        ("nextSequence", heartbeat.next_sequence.into()),
        ("ended", heartbeat.is_final.into()),
        ("successor", heartbeat.successor.map(|id| hex(&id.0)).into()),
    ]))
}

pub(crate) fn beacon(case: &Value) -> Answered {
    let Some(beacon) = BeaconBody::parse(&case.bytes("body")?) else {
        return Ok(invalid("malformed"));
    };
    let commitments = beacon.slot_commitments.iter().map(|commitment| hex(commitment));
    Ok(valid(vec![
        ("body", hex(&beacon.encode())),
        ("counter", beacon.counter.into()),
        ("policyVersion", beacon.policy.number.into()),
        ("policyHash", hex(&beacon.policy.hash)),
        ("crlNumber", beacon.crl.number.into()),
        ("crlHash", hex(&beacon.crl.hash)),
        ("bundleVersion", beacon.bundle.number.into()),
        ("bundleHash", hex(&beacon.bundle.hash)),
        ("generationCommitment", hex(&beacon.generation_commitment)),
        ("firstSlot", beacon.first_slot.into()),
        ("slotCommitments", commitments.collect()),
    ]))
}
