//! Answers of a whole receiver: what becomes of a datagram, and of a sequence of them.

use sealcast_core::block::signed_statement;
use sealcast_core::control::{BeaconError, ControlState, MAX_COMMITMENTS};
use sealcast_core::credential::{Publisher, VerifiedCredential};
use sealcast_core::crypto::{Secret, Suite, VerifyingKey};
use sealcast_core::event::{Event, Message, Response};
use sealcast_core::frames::Frames;
use sealcast_core::member::{Floors, MemberConfig, Purpose};
use sealcast_core::receiver::{Path, Receiver, ReceiverConfig};
use sealcast_core::rejection::Rejection;
use sealcast_core::schedule::{EpochKeys, block_key, control_gate_key, step_secret, stream_id};
use sealcast_core::signed::CborWriter;
use sealcast_core::stream::Delivery;
use sealcast_core::wire::{ChannelId, Epoch, PacketType, PacketView, StreamId, Time, associated_data};

use crate::functions::{self, secret, suite};
use crate::site::{CHANNEL, KEY_SERVER, NOW, SITE, SUBSCRIBER, Site};
use crate::value::{Value, hex, map};
use crate::{Answered, Error, Reason, invalid, valid};

const MILLI: Time = 1_000;
const SECOND: Time = 1_000_000;
/// Where a datagram says its type (DP-6).
const TYPE_BYTE: usize = 5;
/// Slots are counted in 24 bits (KM-1).
const MAX_SLOT: u32 = (1 << 24) - 1;
/// How far ahead of what it has a receiver takes packets.
const WINDOW: u64 = 4096;

/// The site of a case: its secrets, and its stream unless that is the control stream.
fn site_of(case: &Value) -> Result<Site, Error> {
    let mut site = Site::new(suite(case)?);
    if site.policy.channel.0 != case.fixed("channelId")? {
        let text = format!("'channelId': the cases are of {CHANNEL} at {}", SITE.hex());
        return Err(Error::case(text));
    }
    for slot in case.list("slots")? {
        site.slots.insert(slot.number("slot")?, secret(slot, "secret")?);
    }
    let (Some((&first, _)), Some((&last, _))) = (site.slots.first_key_value(), site.slots.last_key_value())
    else {
        return Err(Error::case("'slots': there is none"));
    };
    if (last - first) as usize != site.slots.len() - 1
        || site.slots.len() > MAX_COMMITMENTS
        || last > MAX_SLOT
    {
        let text =
            format!("'slots': {first} to {last} are no {MAX_COMMITMENTS} or fewer that follow each other");
        return Err(Error::case(text));
    }
    site.policy.slot_origin_number = last;
    let generation = case.list("generations")?.first();
    site.generation = step_of(generation.ok_or_else(|| Error::case("'generations': there is none"))?)?;
    site.stream_key = match case.is_set("control") {
        // Its stream is no publisher's: nobody put it into the directory.
        true => None,
        false => Some(case.fixed("streamPublicKey")?),
    };
    Ok(site)
}

fn step_of(value: &Value) -> Result<(u32, u8, Secret), Error> {
    Ok((
        value.number("generation")?,
        value.number("step")?,
        secret(value, "secret")?,
    ))
}

/// A subscriber that holds what a case says.
struct Bench {
    receiver: Receiver,
    site: Site,
    now: Time,
    /// The last request for packets that is still open.
    asked: Option<u64>,
    messages: Vec<Message>,
    events: Vec<Event>,
}

impl Bench {
    fn new(site: Site, delivery: Delivery, path: Path) -> Result<Self, Error> {
        let member = MemberConfig {
            site: SITE,
            channel_name: CHANNEL.to_owned(),
            device_site: SITE,
            device: SUBSCRIBER.to_owned(),
            purpose: Purpose::Subscribe,
            validator: site.validator()?,
            jitter_seed: 1,
            floors: Floors::default(),
            crl_numbers: Vec::new(),
            signed_time: 0,
        };
        let mut config = ReceiverConfig::new(member);
        config.stream.delivery = delivery;
        config.stream.window_packets = WINDOW;
        config.path = path;
        let mut bench = Self {
            receiver: Receiver::new(config, NOW),
            site,
            now: NOW,
            asked: None,
            messages: Vec::new(),
            events: Vec::new(),
        };
        bench.wait(0);
        bench.events.clear();
        if bench.receiver.member().policy().is_none() {
            return Err(Error::fault("the receiver does not join the site of the cases"));
        }
        Ok(bench)
    }

    /// Lets time pass; the key server answers, and requests for packets stay open.
    fn wait(&mut self, time: Time) {
        let end = self.now + time;
        loop {
            self.receiver.handle_deadline(self.now);
            while let Some(command) = self.receiver.poll_command() {
                match command.path.rsplit('/').next() {
                    Some("join") => {
                        let body = self.site.join_reply(self.now);
                        self.answer(command.id, &body);
                    }
                    Some("keys") => {
                        let body = self.site.keys_reply(self.now);
                        self.answer(command.id, &body);
                    }
                    Some("repair" | "follow") => self.asked = Some(command.id),
                    _ => {}
                }
            }
            self.drain();
            match self.receiver.next_deadline() {
                Some(next) if next <= end => self.now = next.max(self.now + 1),
                _ => break,
            }
        }
        self.now = end;
    }

    fn answer(&mut self, id: u64, body: &[u8]) {
        let response = Response::Answer { status: 200, body };
        self.receiver.handle_response(id, response, self.now);
    }

    fn drain(&mut self) {
        while let Some(event) = self.receiver.poll_event() {
            match event {
                Event::Message(message) => self.messages.push(message),
                event => self.events.push(event),
            }
        }
    }

    /// Gives a datagram as the case says that it came.
    fn receive(&mut self, datagram: &[u8], is_side_channel: bool) -> Result<Option<Rejection>, Error> {
        if !is_side_channel {
            let verdict = self.receiver.receive_datagram(datagram, self.now);
            self.drain();
            return Ok(verdict);
        }
        let before = self.refusals();
        self.bring(&[datagram], 0)?;
        let after = self.refusals();
        let refused = (0..before.len()).find(|&at| after[at] > before[at]);
        Ok(refused.map(|at| Rejection::ALL[at]))
    }

    fn refusals(&self) -> Vec<u64> {
        let counters = self.receiver.counters();
        Rejection::ALL
            .iter()
            .map(|&reason| counters.rejected(reason))
            .collect()
    }

    /// Answers the request that the receiver makes for what it misses, or for what comes next.
    fn bring(&mut self, packets: &[&[u8]], oldest: u64) -> Result<(), Error> {
        self.wait(200 * MILLI);
        let asked = self.asked.take();
        let id = asked.ok_or_else(|| Error::fault("the receiver does not ask for packets that it lacks"))?;
        let body = CborWriter::new()
            .map(3)
            .text("head")
            .null()
            .text("oldest")
            .uint(oldest);
        let body = body.text("packets").array(packets.len());
        let body = packets.iter().fold(body, |body, packet| body.bytes(packet));
        self.answer(id, &body.finish());
        self.drain();
        Ok(())
    }
}

/// The file's word for what the engine says of a datagram of a type.
fn reason_of(verdict: Rejection, packet_type: Option<&u8>, has_key: bool) -> Reason {
    match verdict {
        // A key that no verifier takes makes no stream, and no signature holds by it.
        Rejection::UnknownStream if !has_key => "signature",
        Rejection::EpochNotOurs => "unknown-epoch",
        Rejection::ReservedType => "unknown-type",
        Rejection::BelowWindow => "window",
        Rejection::Equivocation => "conflict",
        Rejection::Duplicate if packet_type == Some(&(PacketType::Heartbeat as u8)) => "counter",
        other => other.as_str(),
    }
}

pub(crate) fn datagram(case: &Value) -> Answered {
    let datagram = case.bytes("datagram")?;
    let packet_type = datagram.get(TYPE_BYTE);
    let (site, is_side_channel) = (site_of(case)?, case.is_set("sideChannel"));
    if packet_type == Some(&(PacketType::Beacon as u8)) {
        return beacon(case, &site, &datagram);
    }
    // Who follows a stream takes packets without missing one; a repair is in the cases of delivery.
    let path = if is_side_channel {
        Path::SideChannel
    } else {
        Path::Multicast
    };
    let has_key = site
        .stream_key
        .is_none_or(|key| VerifyingKey::new(&key).is_some());
    let mut bench = Bench::new(site, Delivery::Unordered, path)?;
    let (before, streams) = (bench.receiver.fingerprint(), bench.receiver.streams().count());
    let verdict = bench.receive(&datagram, is_side_channel)?;
    if bench.receiver.streams().count() != streams {
        return Err(Error::fault("a datagram made a stream that nobody vouches for"));
    }
    let is_credential = packet_type == Some(&(PacketType::Credential as u8));
    match verdict {
        None => {}
        // Its place is beyond what is held, which says nothing against it.
        Some(Rejection::BeyondWindow) => {}
        // What the parts together say is for nobody to believe; each is judged by itself below.
        Some(Rejection::Credential | Rejection::Duplicate) if is_credential => {}
        Some(verdict) => {
            if !bench.messages.is_empty() {
                return Err(Error::fault(format!(
                    "a datagram refused by '{}' was delivered",
                    verdict.as_str()
                )));
            }
            // A packet that is the publisher's and does not open is remembered.
            let is_traceless = !is_side_channel && verdict != Rejection::Open;
            if is_traceless && bench.receiver.fingerprint() != before {
                return Err(Error::fault(format!(
                    "a datagram refused by '{}' left a trace",
                    verdict.as_str()
                )));
            }
            return Ok(invalid(reason_of(verdict, packet_type, has_key)));
        }
    }
    accepted(case, &bench, &datagram, verdict == Some(Rejection::BeyondWindow))
}

/// What is in a datagram that the receiver took: leaf, root, signature and plaintext, by hand.
fn accepted(case: &Value, bench: &Bench, datagram: &[u8], is_far: bool) -> Answered {
    let (suite, channel) = (bench.site.policy.suite, bench.site.policy.channel);
    let view = PacketView::parse(datagram).map_err(|_| Error::fault("a malformed datagram was taken"))?;
    let header = &view.header;
    let leaf = view.leaf_hash(suite);
    let root = view.claimed_root(suite, &leaf);
    let kind = Value::from(header.packet_type as u8);
    let key = match header.packet_type {
        PacketType::Heartbeat => {
            return Ok(valid(vec![
                ("type", kind),
                ("time", header.time.into()),
                ("body", hex(view.body)),
            ]));
        }
        PacketType::Data => {
            let secret = epoch_keys(bench, header.epoch)?.stream_secret(&header.stream);
            let secret =
                secret.ok_or_else(|| Error::fault("an epoch with its secrets has no stream secret"))?;
            block_key(suite, &secret, &header.block)
        }
        _ => epoch_keys(bench, header.epoch)?.credential_block_key(&header.stream, &header.block),
    };
    let associated = associated_data(view.header_bytes, &channel);
    let plaintext = key.open(header.index, &associated, view.body);
    let plaintext = plaintext.ok_or_else(|| Error::fault("a datagram that does not open was taken"))?;
    if header.packet_type == PacketType::Credential {
        // The last thing to be judged of it, when its bundle has been (DP-30).
        let said = signed_statement(suite, &channel, header, &root);
        let holds = VerifyingKey::new(&case.fixed("streamPublicKey")?)
            .is_some_and(|key| key.verifies(&said, view.signature));
        return Ok(if holds {
            valid(vec![
                ("type", kind),
                ("time", header.time.into()),
                ("plaintext", hex(&plaintext)),
            ])
        } else {
            invalid("signature")
        });
    }
    let frames: Vec<_> = Frames::new(&plaintext).flatten().collect();
    let whole = frames.iter().filter(|frame| frame.part.is_none());
    let wanted: Vec<_> = whole
        .map(|frame| (frame.data, header.sequence(), header.time))
        .collect();
    let came: Vec<_> = bench
        .messages
        .iter()
        .map(|m| (&m.data[..], m.sequence, m.time))
        .collect();
    if is_far != (header.sequence() >= WINDOW) || (!is_far && came != wanted) {
        return Err(Error::fault("what was delivered is not what the datagram holds"));
    }
    Ok(valid(vec![
        ("type", kind),
        ("time", header.time.into()),
        ("sequence", header.sequence().into()),
        ("leaf", hex(&leaf)),
        ("root", hex(&root)),
        ("plaintext", hex(&plaintext)),
        ("frames", frames.iter().map(functions::frame).collect()),
    ]))
}

/// The keys of an epoch that the case gives.
fn epoch_keys(bench: &Bench, epoch: Epoch) -> Result<EpochKeys, Error> {
    let (suite, channel): (Suite, ChannelId) = (bench.site.policy.suite, bench.site.policy.channel);
    let (generation, first, secret) = &bench.site.generation;
    let slot = bench
        .site
        .slots
        .get(&epoch.slot)
        .filter(|_| *generation == epoch.generation);
    let slot = slot.ok_or_else(|| Error::fault("a datagram of an unknown epoch was taken"))?;
    let step = (*first..epoch.step).fold(secret.clone(), |secret, before| {
        step_secret(&secret, &channel, epoch.generation, before + 1)
    });
    Ok(EpochKeys::derive(suite, &channel, epoch, slot, &step))
}

/// Beacons go to the control stream, whose key a case of it gives.
fn beacon(case: &Value, site: &Site, datagram: &[u8]) -> Answered {
    let (suite, channel) = (site.policy.suite, site.policy.channel);
    let public_key = match case.is_set("control") {
        true => case.fixed("streamPublicKey")?,
        false => site.control_key(),
    };
    let publisher = Publisher {
        stream: stream_id(&public_key),
        site: SITE,
        device: KEY_SERVER.to_owned(),
        instance: String::new(),
    };
    let verified = VerifiedCredential {
        publisher: publisher.into(),
        credential: site.control_credential(public_key),
        key: VerifyingKey::new(&public_key)
            .ok_or_else(|| Error::case("'streamPublicKey': no key of Ed25519"))?,
        bundle: Vec::new(),
    };
    let (control, mut is_unknown) = (ControlState::new(verified, suite, channel), false);
    let gate = |slot: u32| {
        let held = site.slots.get(&slot);
        is_unknown = held.is_none();
        held.map(|held| control_gate_key(suite, held, &channel, slot))
    };
    let screened = control.screen(datagram, gate);
    Ok(match screened.and_then(|()| control.verify(datagram)) {
        Ok(beacon) => valid(vec![
            ("type", (PacketType::Beacon as u8).into()),
            ("time", beacon.time.into()),
            ("body", hex(&beacon.body.encode())),
        ]),
        Err(error) => invalid(match error {
            BeaconError::Malformed => "malformed",
            BeaconError::UnknownStream => "unknown-stream",
            BeaconError::Gate if is_unknown => "unknown-epoch",
            BeaconError::Gate => "gate",
            BeaconError::Signature => "signature",
            BeaconError::NotInForce => "time",
            BeaconError::Stale => "counter",
            BeaconError::Budget => "budget",
        }),
    })
}

pub(crate) fn delivery(case: &Value) -> Answered {
    let mut bench = Bench::new(site_of(case)?, Delivery::Reliable, Path::Multicast)?;
    let stream = StreamId(case.fixed("streamId")?);
    let (mut steps, mut taken) = (Vec::new(), Vec::new());
    for step in case.list("steps")? {
        match step.text("do")? {
            "receive" => {
                let datagram = step.bytes("datagram")?;
                let verdict = bench.receive(&datagram, step.is_set("sideChannel"))?;
                let reason = match verdict {
                    // Held, sealed, until its key is there (KM-14).
                    None | Some(Rejection::UnknownEpoch) => {
                        taken.extend(PacketView::parse(&datagram).map(|view| view.header.sequence()));
                        None
                    }
                    Some(verdict) => Some(reason_of(verdict, datagram.get(TYPE_BYTE), true)),
                };
                steps.push(map(vec![("reason", reason.into())]));
                continue;
            }
            "abandon" => bench.bring(&[], step.number("below")?)?,
            "addSlot" => {
                bench
                    .site
                    .slots
                    .insert(step.number("slot")?, secret(step, "secret")?);
                bench.wait(2 * SECOND);
            }
            "addGeneration" => {
                bench.site.generation = step_of(step)?;
                bench.wait(2 * SECOND);
            }
            other => return Err(Error::case(format!("'steps': there is no step '{other}'"))),
        }
        steps.push(map(Vec::new()));
    }
    let message = |message: &Message| {
        map(vec![
            ("messageId", message.message_id.into()),
            ("topic", message.topic.as_deref().into()),
            ("data", hex(&message.data)),
            ("sequence", message.sequence.into()),
        ])
    };
    let range = |first: u64, last: u64| Value::List(vec![first.into(), last.into()]);
    let (mut gaps, mut malformed, mut lost, mut conflicts) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for event in &bench.events {
        match *event {
            // A packet with malformed frames is told as a gap of one, though it came.
            Event::Gap {
                first,
                last: Some(last),
                ..
            } if first == last && taken.contains(&first) => {
                malformed.push(Value::from(first));
            }
            Event::Gap { first, last, .. } => gaps.push(range(first, last.unwrap_or(u64::MAX))),
            Event::MessageLost { message_id, .. } => lost.push(Value::from(message_id)),
            Event::Equivocation { sequence, .. } => conflicts.push(Value::from(sequence)),
            _ => {}
        }
    }
    let mut streams = bench.receiver.streams();
    let stream = streams.find(|one| one.publisher.stream == stream);
    let window = &stream
        .ok_or_else(|| Error::case("'streamId': not that of 'streamPublicKey'"))?
        .window;
    let missing = window.repairable(Time::MAX, 64, 1024);
    Ok(valid(vec![
        ("steps", Value::List(steps)),
        ("messages", bench.messages.iter().map(message).collect()),
        ("gaps", Value::List(gaps)),
        (
            "missing",
            missing.iter().map(|&(first, last)| range(first, last)).collect(),
        ),
        ("lostMessages", Value::List(lost)),
        ("malformedPackets", Value::List(malformed)),
        ("conflicts", Value::List(conflicts)),
    ]))
}
