//! Bodies of the side channel, as this end writes and reads them.
//!
//! Spec: side-channel.md.

use rustls_pki_types::IpAddr;

use crate::crypto::Secret;
use crate::retention::Datagram;
use crate::signed::{CborReader, CborWriter, MalformedObject};
use crate::wire::{ChannelId, MAX_SEQUENCE, StreamId, Time};

const MAX_SLOTS: usize = 64;
const MAX_STREAMS: usize = 4096;
const MAX_EARLIER: usize = 8;
const MAX_GATES: usize = 320;
const MAX_REPAIR_NODES: usize = 64;
const MAX_ISSUERS: usize = 8;
const MAX_PACKETS: usize = 1024;
const MAX_RANGES: usize = 64;
const MAX_REPORTS: usize = 64;
/// Of answers and marks (SC-50).
const MAX_NUMBER: u64 = (1 << 63) - 1;
/// A day, in milliseconds (SC-49).
const MAX_INTERVAL: u64 = 24 * 3600 * 1000;
/// An error is a word of registry.md.
const MAX_ERROR_BYTES: usize = 64;

/// Gate key and credential key of one epoch of a reply's generation (KM-21).
#[derive(Debug)]
pub struct GateGrant {
    pub slot: u32,
    pub step: u8,
    pub gate: Secret,
    pub credential: Secret,
}

/// SC-3; of a repair node SC-39.
#[derive(Debug)]
pub struct KeysReply<'a> {
    pub beacon: &'a [u8],
    pub slots: Vec<(u32, Secret)>,
    pub generation: u32,
    /// Of the secret; 0 without one.
    pub step: u8,
    /// None to a repair node, which is given gates in its place.
    pub secret: Option<Secret>,
    pub gates: Vec<GateGrant>,
    pub time: Time,
    /// Generations that turned since our admission: number, secret of step 0, beacon that commits to it (KM-18).
    pub earlier: Vec<(u32, Secret, &'a [u8])>,
}

/// SC-5.
#[derive(Clone, Debug)]
pub struct StreamEntry<'a> {
    pub stream: StreamId,
    pub device: &'a str,
    pub instance: &'a str,
    pub bundle: &'a [u8],
    pub head: Option<&'a [u8]>,
    pub endpoint: Option<(&'a str, u16)>,
}

/// SC-40.
#[derive(Clone, Debug)]
pub struct NodeEntry<'a> {
    pub device: &'a str,
    pub host: &'a str,
    pub port: u16,
}

/// The live streams, and whom else to ask for their packets.
#[derive(Clone, Debug, Default)]
pub struct Directory<'a> {
    pub streams: Vec<StreamEntry<'a>>,
    pub repair_nodes: Vec<NodeEntry<'a>>,
}

/// SC-4.
#[derive(Debug)]
pub struct JoinReply<'a> {
    pub keys: KeysReply<'a>,
    pub policy: &'a [u8],
    pub crl: &'a [u8],
    pub key_server: &'a [u8],
    pub directory: Directory<'a>,
    /// How many take part at most, where the key server says so.
    pub members: Option<u64>,
}

type Parsed<T> = Result<T, MalformedObject>;

fn slot_secret(r: &mut CborReader<'_>) -> Parsed<(u32, Secret)> {
    r.array_of(2)?;
    let slot = u32::try_from(r.uint()?).map_err(|_| MalformedObject)?;
    Ok((slot, Secret::new(r.fixed()?)))
}

fn generation_secret(r: &mut CborReader<'_>) -> Parsed<(u32, u8, Secret)> {
    r.array_of(3)?;
    let generation = u32::try_from(r.uint()?).map_err(|_| MalformedObject)?;
    let step = u8::try_from(r.uint()?).map_err(|_| MalformedObject)?;
    Ok((generation, step, Secret::new(r.fixed()?)))
}

fn earlier_generation<'a>(r: &mut CborReader<'a>) -> Parsed<(u32, Secret, &'a [u8])> {
    r.array_of(3)?;
    let generation = u32::try_from(r.uint()?).map_err(|_| MalformedObject)?;
    Ok((generation, Secret::new(r.fixed()?), r.bytes()?))
}

fn gate_grant(r: &mut CborReader<'_>) -> Parsed<GateGrant> {
    r.array_of(4)?;
    Ok(GateGrant {
        slot: u32::try_from(r.uint()?).map_err(|_| MalformedObject)?,
        step: u8::try_from(r.uint()?).map_err(|_| MalformedObject)?,
        gate: Secret::new(r.fixed()?),
        credential: Secret::new(r.fixed()?),
    })
}

fn gates(r: &mut CborReader<'_>) -> Parsed<(u32, Vec<GateGrant>)> {
    r.array_of(2)?;
    let generation = u32::try_from(r.uint()?).map_err(|_| MalformedObject)?;
    Ok((generation, r.list(MAX_GATES, gate_grant)?))
}

fn node_entry<'a>(r: &mut CborReader<'a>) -> Parsed<NodeEntry<'a>> {
    let (mut device, mut at) = (None, None);
    for _ in 0..r.map()? {
        match r.text()? {
            "device" => device = Some(r.text()?),
            "endpoint" => at = Some(endpoint(r)?),
            _ => r.skip()?,
        }
    }
    let (host, port) = at.ok_or(MalformedObject)?;
    Ok(NodeEntry {
        device: device.ok_or(MalformedObject)?,
        host,
        port,
    })
}

fn endpoint<'a>(r: &mut CborReader<'a>) -> Parsed<(&'a str, u16)> {
    r.array_of(2)?;
    let host = r.text()?;
    let port = u16::try_from(r.uint()?).map_err(|_| MalformedObject)?;
    if port == 0 || !is_host(host) {
        return Err(MalformedObject);
    }
    Ok((host, port))
}

/// Whether this is an IP address or a DNS name: it goes into URLs, in every language (SC-5).
pub fn is_host(text: &str) -> bool {
    let is_label = |label: &str| {
        let mut bytes = label.bytes();
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    IpAddr::try_from(text).is_ok() || (text.len() <= 253 && text.split('.').all(is_label))
}

fn stream_entry<'a>(r: &mut CborReader<'a>) -> Parsed<StreamEntry<'a>> {
    let (mut stream, mut device, mut instance, mut bundle, mut head, mut at) =
        (None, None, None, None, None, None);
    for _ in 0..r.map()? {
        match r.text()? {
            "stream" => stream = Some(StreamId(r.fixed()?)),
            "device" => device = Some(r.text()?),
            "instance" => instance = Some(r.text()?),
            "credential" => bundle = Some(r.bytes()?),
            "head" => head = r.optional(CborReader::bytes)?,
            "endpoint" => at = r.optional(endpoint)?,
            _ => r.skip()?,
        }
    }
    Ok(StreamEntry {
        stream: stream.ok_or(MalformedObject)?,
        device: device.ok_or(MalformedObject)?,
        instance: instance.ok_or(MalformedObject)?,
        bundle: bundle.ok_or(MalformedObject)?,
        head,
        endpoint: at,
    })
}

/// Everything that a join or keys reply can hold; absent fields stay `None`.
#[derive(Default)]
struct ReplyFields<'a> {
    beacon: Option<&'a [u8]>,
    slots: Option<Vec<(u32, Secret)>>,
    generation: Option<(u32, u8, Secret)>,
    gates: Option<(u32, Vec<GateGrant>)>,
    earlier: Vec<(u32, Secret, &'a [u8])>,
    time: Option<Time>,
    policy: Option<&'a [u8]>,
    crl: Option<&'a [u8]>,
    key_server: Option<&'a [u8]>,
    streams: Option<Vec<StreamEntry<'a>>>,
    repair_nodes: Vec<NodeEntry<'a>>,
    packets: Option<Vec<&'a [u8]>>,
    oldest: Option<u64>,
    head: Option<&'a [u8]>,
    directory: Option<[u8; 32]>,
    members: Option<u64>,
    interval: Option<u64>,
}

impl<'a> ReplyFields<'a> {
    fn parse(body: &'a [u8]) -> Parsed<Self> {
        let mut r = CborReader::new(body);
        let mut fields = Self::default();
        for _ in 0..r.map()? {
            match r.text()? {
                "beacon" => fields.beacon = Some(r.bytes()?),
                "slots" => fields.slots = Some(r.list(MAX_SLOTS, slot_secret)?),
                "generation" => fields.generation = Some(generation_secret(&mut r)?),
                "gates" => fields.gates = Some(gates(&mut r)?),
                "earlier" => fields.earlier = r.list(MAX_EARLIER, earlier_generation)?,
                "time" => fields.time = Some(r.uint()?),
                "policy" => fields.policy = Some(r.bytes()?),
                "crl" => fields.crl = Some(r.bytes()?),
                "issuers" => drop(r.list(MAX_ISSUERS, CborReader::bytes)?),
                "key-server" => fields.key_server = Some(r.bytes()?),
                "streams" => fields.streams = Some(r.list(MAX_STREAMS, stream_entry)?),
                "repair-nodes" => fields.repair_nodes = r.list(MAX_REPAIR_NODES, node_entry)?,
                "packets" => fields.packets = Some(r.list(MAX_PACKETS, CborReader::bytes)?),
                "oldest" => fields.oldest = Some(r.uint()?),
                "head" => fields.head = r.optional(CborReader::bytes)?,
                "members" => fields.members = Some(r.uint()?),
                "interval" => fields.interval = Some(at_most(r.uint()?, MAX_INTERVAL)?),
                "directory" => fields.directory = Some(r.fixed()?),
                _ => r.skip()?,
            }
        }
        r.end()?;
        Ok(fields)
    }

    fn keys(&mut self) -> Parsed<KeysReply<'a>> {
        let mut reply = KeysReply {
            beacon: self.beacon.ok_or(MalformedObject)?,
            slots: Vec::new(),
            generation: 0,
            step: 0,
            secret: None,
            gates: Vec::new(),
            time: self.time.ok_or(MalformedObject)?,
            earlier: core::mem::take(&mut self.earlier),
        };
        match (self.gates.take(), self.generation.take()) {
            (Some((generation, gates)), None) if self.slots.is_none() => {
                (reply.generation, reply.gates) = (generation, gates);
            }
            (None, Some((generation, step, secret))) => {
                (reply.generation, reply.step, reply.secret) = (generation, step, Some(secret));
                reply.slots = self.slots.take().ok_or(MalformedObject)?;
            }
            _ => return Err(MalformedObject),
        }
        Ok(reply)
    }

    fn directory(&mut self) -> Parsed<Directory<'a>> {
        Ok(Directory {
            streams: self.streams.take().ok_or(MalformedObject)?,
            repair_nodes: core::mem::take(&mut self.repair_nodes),
        })
    }
}

pub fn parse_join_reply(body: &[u8]) -> Parsed<JoinReply<'_>> {
    let mut fields = ReplyFields::parse(body)?;
    Ok(JoinReply {
        keys: fields.keys()?,
        policy: fields.policy.ok_or(MalformedObject)?,
        crl: fields.crl.ok_or(MalformedObject)?,
        key_server: fields.key_server.ok_or(MalformedObject)?,
        directory: fields.directory()?,
        members: fields.members,
    })
}

pub fn parse_keys_reply(body: &[u8]) -> Parsed<KeysReply<'_>> {
    ReplyFields::parse(body)?.keys()
}

/// The beacon, and what the directory is known by (SC-45) where that was asked for.
pub fn parse_poll_reply(body: &[u8]) -> Parsed<(&[u8], Option<[u8; 32]>)> {
    let fields = ReplyFields::parse(body)?;
    Ok((fields.beacon.ok_or(MalformedObject)?, fields.directory))
}

pub fn parse_policy_reply(body: &[u8]) -> Parsed<&[u8]> {
    ReplyFields::parse(body)?.policy.ok_or(MalformedObject)
}

pub fn parse_crl_reply(body: &[u8]) -> Parsed<&[u8]> {
    ReplyFields::parse(body)?.crl.ok_or(MalformedObject)
}

pub fn parse_streams_reply(body: &[u8]) -> Parsed<Directory<'_>> {
    ReplyFields::parse(body)?.directory()
}

/// SC-8.
#[derive(Debug)]
pub struct RepairReply<'a> {
    pub packets: Vec<&'a [u8]>,
    pub oldest: u64,
    pub head: Option<&'a [u8]>,
}

pub fn parse_repair_reply(body: &[u8]) -> Parsed<RepairReply<'_>> {
    let fields = ReplyFields::parse(body)?;
    Ok(RepairReply {
        packets: fields.packets.ok_or(MalformedObject)?,
        oldest: fields.oldest.ok_or(MalformedObject)?,
        head: fields.head,
    })
}

/// SC-50.
#[derive(Debug, Default)]
pub struct WantedReply<'a> {
    /// Of the answer; 0: nothing is wanted.
    pub number: u64,
    pub ranges: Vec<(u64, u64)>,
    /// What devices tell of files: mark, device as the policy writes it, report.
    pub reports: Vec<(u64, &'a str, &'a [u8])>,
}

pub fn parse_wanted_reply(body: &[u8]) -> Parsed<WantedReply<'_>> {
    let mut r = CborReader::new(body);
    let (mut number, mut ranges, mut reports) = (None, None, Vec::new());
    for _ in 0..r.map()? {
        match r.text()? {
            "number" => number = Some(at_most(r.uint()?, MAX_NUMBER)?),
            "ranges" => ranges = Some(r.list(MAX_RANGES, range)?),
            "reports" => reports = r.list(MAX_REPORTS, report)?,
            _ => r.skip()?,
        }
    }
    r.end()?;
    Ok(WantedReply {
        number: number.ok_or(MalformedObject)?,
        ranges: ranges.ok_or(MalformedObject)?,
        reports,
    })
}

fn report<'a>(r: &mut CborReader<'a>) -> Parsed<(u64, &'a str, &'a [u8])> {
    r.array_of(3)?;
    Ok((at_most(r.uint()?, MAX_NUMBER)?, r.text()?, r.bytes()?))
}

fn range(r: &mut CborReader<'_>) -> Parsed<(u64, u64)> {
    r.array_of(2)?;
    let (first, last) = (r.uint()?, r.uint()?);
    if first <= last && last < MAX_SEQUENCE {
        Ok((first, last))
    } else {
        Err(MalformedObject)
    }
}

fn at_most(number: u64, most: u64) -> Parsed<u64> {
    if number <= most {
        Ok(number)
    } else {
        Err(MalformedObject)
    }
}

/// Milliseconds after which the next report is wanted (SC-49).
pub fn parse_report_reply(body: &[u8]) -> Parsed<u64> {
    ReplyFields::parse(body)?.interval.ok_or(MalformedObject)
}

/// Seconds after which a peer that refuses for now may be asked again (SC-42), or None.
pub fn parse_retry_after(body: &[u8]) -> Option<u64> {
    let mut r = CborReader::new(body);
    let mut seconds = None;
    for _ in 0..r.map().ok()? {
        match r.text().ok()? {
            "retry-after" => seconds = Some(r.uint().ok()?),
            _ => r.skip().ok()?,
        }
    }
    seconds
}

/// The `error` of an error body, or the empty string.
pub fn parse_error(body: &[u8]) -> String {
    fn read(body: &[u8]) -> Parsed<String> {
        let mut r = CborReader::new(body);
        let mut error = String::new();
        for _ in 0..r.map()? {
            match r.text()? {
                "error" => {
                    let word = r.text()?;
                    if word.len() > MAX_ERROR_BYTES {
                        return Err(MalformedObject);
                    }
                    error = word.to_owned();
                }
                _ => r.skip()?,
            }
        }
        Ok(error)
    }
    read(body).unwrap_or_default()
}

pub fn join_request(role: &str) -> Vec<u8> {
    CborWriter::new().map(1).text("role").text(role).finish()
}

pub fn empty_request() -> Vec<u8> {
    CborWriter::new().map(0).finish()
}

/// `directory`: what is known of it, by whoever wants to be told of another (SC-45).
pub fn poll_request(counter: u64, directory: Option<&[u8; 32]>) -> Vec<u8> {
    let w = CborWriter::new()
        .map(1 + usize::from(directory.is_some()))
        .text("counter")
        .uint(counter);
    match directory {
        Some(known) => w.text("directory").bytes(known).finish(),
        None => w.finish(),
    }
}

pub fn put_stream_request(bundle: &[u8], head: Option<&[u8]>, endpoint: Option<(&str, u16)>) -> Vec<u8> {
    // Keys in deterministic order: shorter ones first.
    let w = CborWriter::new()
        .map(3)
        .text("head")
        .optional_bytes(head)
        .text("endpoint");
    let w = match endpoint {
        Some((host, port)) => w.array(2).text(host).uint(u64::from(port)),
        None => w.null(),
    };
    w.text("credential").bytes(bundle).finish()
}

pub fn repair_request(channel: &ChannelId, stream: &StreamId, ranges: &[(u64, u64)]) -> Vec<u8> {
    let mut w = CborWriter::new().map(3).text("ranges").array(ranges.len());
    for &(first, last) in ranges {
        w = w.array(2).uint(first).uint(last);
    }
    w.text("stream")
        .bytes(&stream.0)
        .text("channel")
        .bytes(&channel.0)
        .finish()
}

/// SC-44.
pub fn follow_request(channel: &ChannelId, stream: &StreamId, from: u64) -> Vec<u8> {
    CborWriter::new()
        .map(3)
        .text("from")
        .uint(from)
        .text("stream")
        .bytes(&stream.0)
        .text("channel")
        .bytes(&channel.0)
        .finish()
}

/// SC-49.
pub fn loss_report(channel: &ChannelId, stream: &StreamId, (lost, sent): (u64, u64)) -> Vec<u8> {
    CborWriter::new()
        .map(4)
        .text("lost")
        .uint(lost)
        .text("sent")
        .uint(sent)
        .text("stream")
        .bytes(&stream.0)
        .text("channel")
        .bytes(&channel.0)
        .finish()
}

/// SC-50. `number`: of the answer that wanted what is brought, 0: of none; packets, the oldest sequence held, latest heartbeat;
/// `taken`: the marks of the reports in that answer.
pub fn wanted_request(
    channel: &ChannelId,
    stream: &StreamId,
    number: u64,
    (packets, oldest, head): (&[Datagram], u64, Option<&[u8]>),
    taken: &[u64],
) -> Vec<u8> {
    let mut w = CborWriter::new()
        .map(if taken.is_empty() { 6 } else { 7 })
        .text("head")
        .optional_bytes(head);
    if !taken.is_empty() {
        w = w.text("taken").array(taken.len());
        for mark in taken {
            w = w.uint(*mark);
        }
    }
    w = w
        .text("number")
        .uint(number)
        .text("oldest")
        .uint(oldest)
        .text("stream")
        .bytes(&stream.0)
        .text("channel")
        .bytes(&channel.0)
        .text("packets")
        .array(packets.len());
    for packet in packets {
        w = w.bytes(packet);
    }
    w.finish()
}

/// Percent-encodes a channel name as one path segment.
pub fn path_segment(name: &str) -> String {
    name.bytes()
        .map(|b| match b {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(b).to_string(),
            _ => format!("%{b:02X}"),
        })
        .collect()
}
