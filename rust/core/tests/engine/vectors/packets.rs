//! Known answers of a whole receiver: what becomes of a datagram, and of a sequence of them.

use sealcast_core::control::{BeaconError, ControlState};
use sealcast_core::credential::{Credential, Publisher, VerifiedCredential};
use sealcast_core::crypto::{Secret, VerifyingKey};
use sealcast_core::event::{Event, Message, Response};
use sealcast_core::frames::Frames;
use sealcast_core::member::{Floors, MemberConfig, Purpose};
use sealcast_core::policy::Policy;
use sealcast_core::receiver::{Receiver, ReceiverConfig};
use sealcast_core::rejection::Rejection;
use sealcast_core::schedule::{block_key, control_gate_key, stream_id};
use sealcast_core::signed::CborWriter;
use sealcast_core::stream::Delivery;
use sealcast_core::validator::Role;
use sealcast_core::wire::{
    BlockId, ChannelId, Epoch, Header, PacketType, PacketView, SiteId, StreamId, Time, associated_data,
};
use serde_json::Value;

use super::functions::assert_frame;
use super::{bytes, check, fixed, hex, is_valid, suite, uint};
use crate::common::key_server::Entry;
use crate::common::{CHANNEL, DAY, HOUR, Identity, KeyServer, MILLI, SECOND, Site};

/// A moment within all that the vectors seal.
const NOW: Time = 1_767_225_601 * SECOND;
/// The site of the vectors' channel.
const SITE: &str = "6db5ee09ff92328781b139d7cf684cdf";

fn site_id() -> SiteId {
    SiteId(hex(SITE).try_into().unwrap())
}

/// A policy to be filled in.
pub(crate) fn any_policy() -> Policy {
    let names = || vec!["device".to_owned()];
    KeyServer::new(
        Site::new(site_id()),
        sealcast_core::crypto::Suite::Aes256Gcm,
        names(),
        names(),
    )
    .policy
}

pub(crate) fn any_header() -> Header {
    Header {
        packet_type: PacketType::Data,
        stream: StreamId([1; 16]),
        epoch: Epoch {
            slot: 1,
            generation: 1,
            step: 1,
        },
        block: BlockId([2; 16]),
        first_sequence: 0,
        index: 0,
        count: 1,
        time: NOW,
    }
}

/// A subscriber that holds what a group of vectors says: two slots, one step, one stream.
struct Bench {
    receiver: Receiver,
    key_server: KeyServer,
    publisher: Identity,
    now: Time,
    messages: Vec<Message>,
    events: Vec<Event>,
}

impl Bench {
    /// `None` if the stream's key cannot be vouched for.
    fn new(group: &Value, delivery: Delivery) -> Self {
        let suite = suite(group);
        let names = |name: &str| vec![name.to_owned()];
        let mut key_server = KeyServer::new(
            Site::new(site_id()),
            suite,
            names("publisher"),
            names("subscriber"),
        );
        assert_eq!(key_server.channel.0, fixed(group, "channelId"));
        for slot in group["slots"].as_array().unwrap() {
            key_server
                .slot_secrets
                .insert(uint(slot, "slot") as u32, Secret::new(fixed(slot, "secret")));
        }
        let last = *key_server.slot_secrets.keys().next_back().unwrap();
        key_server.policy.slot_origin_time = NOW;
        key_server.policy.slot_origin_number = last;
        key_server.policy.slot_length = DAY;
        key_server.prefetch = 0;
        key_server.set_policy(|_| ());
        let generation = &group["generations"][0];
        (key_server.generation, key_server.step) = (
            uint(generation, "generation") as u32,
            uint(generation, "step") as u8,
        );
        let step = (key_server.step, Secret::new(fixed(generation, "secret")));
        key_server.step_secrets.insert(key_server.generation, step);
        // A member already, so that joining adds no step.
        key_server
            .members
            .insert("subscriber".to_owned(), "subscribe".to_owned());
        let publisher = key_server.site.issue(Role::Device, "publisher");
        let public_key = fixed(group, "streamPublicKey");
        key_server.directory.push(Entry {
            stream: stream_id(&public_key),
            device: "publisher".to_owned(),
            instance: String::new(),
            bundle: publisher.bundle(&credential(&publisher, &key_server, public_key)),
            head: None,
            endpoint: Some(("publisher".to_owned(), 7000)),
        });
        let member = MemberConfig {
            site: site_id(),
            channel_name: CHANNEL.to_owned(),
            device_site: site_id(),
            device: "subscriber".to_owned(),
            purpose: Purpose::Subscribe,
            validator: key_server.site.validator(),
            jitter_seed: 1,
            floors: Floors::default(),
            crl_numbers: Vec::new(),
            signed_time: 0,
        };
        let mut config = ReceiverConfig::new(member);
        config.stream.delivery = delivery;
        let mut bench = Self {
            receiver: Receiver::new(config, NOW),
            key_server,
            publisher,
            now: NOW,
            messages: Vec::new(),
            events: Vec::new(),
        };
        bench.wait(0);
        bench.events.clear();
        assert!(bench.receiver.member().policy().is_some(), "not joined");
        bench
    }

    /// Lets time pass; the key server answers, repair requests stay open. Returns the last of these.
    fn wait(&mut self, time: Time) -> Option<u64> {
        let mut repair = None;
        let end = self.now + time;
        loop {
            self.receiver.handle_deadline(self.now);
            while let Some(command) = self.receiver.poll_command() {
                match command.path.rsplit('/').next().unwrap() {
                    "join" => {
                        let body = self.key_server.join_reply(self.now);
                        self.answer(command.id, &body);
                    }
                    "keys" => {
                        let body = self.key_server.keys_reply(self.now);
                        self.answer(command.id, &body);
                    }
                    "repair" => repair = Some(command.id),
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
        repair
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

    /// Gives a datagram as the vectors say that it came.
    fn receive(&mut self, datagram: &[u8], side_channel: bool) -> Option<Rejection> {
        if !side_channel {
            let verdict = self.receiver.receive_datagram(datagram, self.now);
            self.drain();
            return verdict;
        }
        let before = self.refusals();
        self.repair(&[datagram], 0);
        let after = self.refusals();
        (0..before.len())
            .find(|&n| after[n] > before[n])
            .map(|n| Rejection::ALL[n])
    }

    fn refusals(&self) -> Vec<u64> {
        Rejection::ALL
            .iter()
            .map(|&reason| self.receiver.counters().rejected(reason))
            .collect()
    }

    /// Answers the repair request that the receiver makes for what it misses.
    fn repair(&mut self, packets: &[&[u8]], oldest: u64) {
        let id = self
            .wait(200 * MILLI)
            .expect("something is missing, so it is asked for");
        let mut body = CborWriter::new()
            .map(3)
            .text("head")
            .null()
            .text("oldest")
            .uint(oldest);
        body = body.text("packets").array(packets.len());
        let body = packets
            .iter()
            .fold(body, |body, packet| body.bytes(packet))
            .finish();
        self.answer(id, &body);
        self.drain();
    }
}

fn credential(identity: &Identity, key_server: &KeyServer, public_key: [u8; 32]) -> Credential {
    Credential {
        public_key,
        channel: key_server.channel,
        suite: key_server.suite(),
        site: identity.site,
        device: identity.name.clone(),
        certificate_hash: identity.certificate_hash(),
        not_before: NOW - HOUR,
        not_after: NOW + 30 * DAY,
        start_nonce: [0; 16],
        instance: String::new(),
        succeeds: None,
    }
}

/// Whether the engine's reason is the one of the vectors.
fn is_reason(verdict: Rejection, reason: &str, packet_type: Option<&u8>) -> bool {
    use Rejection as R;
    match (reason, verdict) {
        // A control stream's reasons are told as one; a stream key that no verifier takes makes no stream.
        (_, R::Beacon) => packet_type == Some(&5),
        ("signature", R::UnknownStream) => true,
        ("gate", R::Gate)
        | ("malformed", R::Malformed)
        | ("open", R::Open)
        | ("signature", R::Signature)
        | ("unknown-epoch", R::EpochNotOurs)
        | ("unknown-stream", R::UnknownStream)
        | ("unknown-type", R::UnknownType | R::ReservedType)
        | ("window", R::BelowWindow)
        | ("duplicate" | "counter", R::Duplicate)
        | ("conflict", R::Equivocation) => true,
        // The signature of a credential is the last thing to be judged, when its bundle has been (DP-30).
        ("signature", R::Credential) => packet_type == Some(&4),
        _ => false,
    }
}

#[test]
fn datagrams() {
    check("datagram", |case| {
        let (group, test) = (&case.group, &case.test);
        let datagram = bytes(test, "datagram");
        let packet_type = datagram.get(5);
        if group["control"] == true && packet_type == Some(&5) {
            return judge_beacon(group, test, &datagram);
        }
        let mut bench = Bench::new(group, Delivery::Unordered);
        if group["control"] == true {
            // Its stream is no publisher's: nobody put it into the directory.
            bench = {
                let mut other = group.clone();
                other["streamPublicKey"] =
                    Value::String("2f6a5b9d374826de28bb3665ca19a03e283b3d1f150f066107650d58b467015e".into());
                Bench::new(&other, Delivery::Unordered)
            };
        }
        let side_channel = test["sideChannel"] == true;
        if side_channel {
            // So that there is something to ask for: a heartbeat of the same file.
            let heartbeat = super::cases("datagram").into_iter().find(|other| {
                other.test["type"] == 3 && is_valid(&other.test) && other.group["suite"] == group["suite"]
            });
            let heartbeat = bytes(&heartbeat.unwrap().test, "datagram");
            assert_eq!(bench.receiver.receive_datagram(&heartbeat, NOW), None);
        }
        let before = bench.receiver.fingerprint();
        let verdict = bench.receive(&datagram, side_channel);
        if packet_type == Some(&4) {
            // No test has a whole bundle that this site vouches for: no stream comes of it.
            assert_eq!(bench.receiver.streams().count(), 1);
            if is_valid(test) {
                assert!(
                    matches!(verdict, None | Some(Rejection::Credential | Rejection::Duplicate)),
                    "{verdict:?}"
                );
                assert_opens(group, test, &datagram);
            } else {
                let reason = test["reason"].as_str().unwrap();
                let early = verdict.is_none() && reason == "signature";
                assert!(
                    early || is_reason(verdict.unwrap(), reason, packet_type),
                    "{verdict:?}, not {reason}"
                );
            }
            return;
        }
        match test["reason"].as_str() {
            None => {
                let far = test["flags"][0] == "HighSequence" && packet_type == Some(&1);
                assert_eq!(verdict, far.then_some(Rejection::BeyondWindow));
                if packet_type == Some(&1) {
                    assert_opens(group, test, &datagram);
                    let whole = |frame: &&Value| frame["total"].is_null();
                    let wanted: Vec<_> = test["frames"].as_array().unwrap().iter().filter(whole).collect();
                    assert!(far || bench.messages.len() == wanted.len());
                    for (message, wanted) in bench.messages.iter().zip(wanted) {
                        assert_eq!(message.data, bytes(wanted, "data"));
                        assert_eq!(message.sequence, uint(test, "sequence"));
                        assert_eq!(message.time, uint(test, "time"));
                    }
                }
            }
            Some(reason) => {
                assert!(
                    is_reason(verdict.expect(reason), reason, packet_type),
                    "{verdict:?}, not {reason}"
                );
                assert!(bench.messages.is_empty());
                if verdict != Some(Rejection::Open) && !side_channel {
                    assert_eq!(bench.receiver.fingerprint(), before);
                }
            }
        }
    });
}

/// Leaf, root, signature and plaintext, taken by hand.
fn assert_opens(group: &Value, test: &Value, datagram: &[u8]) {
    let (suite, channel) = (suite(group), ChannelId(fixed(group, "channelId")));
    let view = PacketView::parse(datagram).unwrap();
    let leaf = view.leaf_hash(suite);
    if view.header.packet_type == PacketType::Data {
        assert_eq!(leaf, fixed(test, "leaf"));
        assert_eq!(view.claimed_root(suite, &leaf), fixed(test, "root"));
    }
    assert_eq!(view.header.time, uint(test, "time"));
    let names = || vec!["device".to_owned()];
    let mut key_server = KeyServer::new(Site::new(site_id()), suite, names(), names());
    for slot in group["slots"].as_array().unwrap() {
        key_server
            .slot_secrets
            .insert(uint(slot, "slot") as u32, Secret::new(fixed(slot, "secret")));
    }
    let generation = &group["generations"][0];
    let step = (
        uint(generation, "step") as u8,
        Secret::new(fixed(generation, "secret")),
    );
    key_server
        .step_secrets
        .insert(uint(generation, "generation") as u32, step);
    let keys = key_server.epoch_keys(view.header.epoch);
    let key = match view.header.packet_type {
        PacketType::Data => {
            assert_eq!(view.header.sequence(), uint(test, "sequence"));
            block_key(
                suite,
                &keys.stream_secret(&view.header.stream).unwrap(),
                &view.header.block,
            )
        }
        _ => keys.credential_block_key(&view.header.stream, &view.header.block),
    };
    let plaintext = key
        .open(
            view.header.index,
            &associated_data(view.header_bytes, &channel),
            view.body,
        )
        .unwrap();
    assert_eq!(plaintext, bytes(test, "plaintext"));
    if view.header.packet_type == PacketType::Data {
        let frames: Vec<_> = Frames::new(&plaintext).map(Result::unwrap).collect();
        let wanted = test["frames"].as_array().unwrap();
        assert_eq!(frames.len(), wanted.len());
        for (frame, wanted) in frames.iter().zip(wanted) {
            assert_frame(frame, wanted);
        }
    }
}

/// Beacons go to the control stream, whose key the vectors give.
fn judge_beacon(group: &Value, test: &Value, datagram: &[u8]) {
    let (suite, channel) = (suite(group), ChannelId(fixed(group, "channelId")));
    let bench = Bench::new(group, Delivery::Reliable);
    let public_key = fixed(group, "streamPublicKey");
    let publisher = Publisher {
        stream: stream_id(&public_key),
        site: site_id(),
        device: "keys-1".to_owned(),
        instance: String::new(),
    };
    let verified = VerifiedCredential {
        publisher: publisher.into(),
        credential: credential(&bench.publisher, &bench.key_server, public_key),
        key: VerifyingKey::new(&public_key).unwrap(),
        bundle: Vec::new(),
    };
    let control = ControlState::new(verified, suite, channel);
    let gate = |slot: u32| {
        let held = bench.key_server.slot_secrets.get(&slot)?;
        Some(control_gate_key(suite, held, &channel, slot))
    };
    let verdict = control
        .screen(datagram, gate)
        .and_then(|()| control.verify(datagram));
    match (verdict, test["reason"].as_str()) {
        (Ok(beacon), None) => {
            assert_eq!(beacon.body.encode(), bytes(test, "body"));
            assert_eq!(beacon.time, uint(test, "time"));
        }
        (Err(error), Some(reason)) => assert!(
            matches!(
                (error, reason),
                (BeaconError::Malformed, "malformed")
                    | (BeaconError::UnknownStream, "unknown-stream")
                    | (BeaconError::Gate, "gate" | "unknown-epoch")
                    | (BeaconError::Signature, "signature")
            ),
            "{error:?}, not {reason}"
        ),
        (verdict, reason) => panic!("{verdict:?}, not {reason:?}"),
    }
}

#[test]
fn delivery() {
    check("delivery", |case| {
        let (group, test) = (&case.group, &case.test);
        let mut bench = Bench::new(group, Delivery::Reliable);
        let stream = StreamId(fixed(group, "streamId"));
        for step in test["steps"].as_array().unwrap() {
            match step["do"].as_str().unwrap() {
                "receive" => {
                    let datagram = bytes(step, "datagram");
                    let verdict = bench.receive(&datagram, step["sideChannel"] == true);
                    match (verdict, step["reason"].as_str()) {
                        // Held, sealed, until its key is there (KM-14).
                        (None, None) | (Some(Rejection::UnknownEpoch), None) => {}
                        (Some(verdict), Some(reason)) if is_reason(verdict, reason, datagram.get(5)) => {}
                        (verdict, reason) => panic!("{verdict:?}, not {reason:?}"),
                    }
                }
                "abandon" => bench.repair(&[], uint(step, "below")),
                "addSlot" => {
                    let slot = uint(step, "slot") as u32;
                    bench
                        .key_server
                        .slot_secrets
                        .insert(slot, Secret::new(fixed(step, "secret")));
                    bench.key_server.prefetch = 1;
                    bench.wait(2 * SECOND);
                }
                "addGeneration" => {
                    bench.key_server.generation = uint(step, "generation") as u32;
                    bench.key_server.step = uint(step, "step") as u8;
                    let secret = (bench.key_server.step, Secret::new(fixed(step, "secret")));
                    bench
                        .key_server
                        .step_secrets
                        .insert(bench.key_server.generation, secret);
                    bench.wait(2 * SECOND);
                }
                other => panic!("{other}"),
            }
        }
        let got: Vec<_> = bench
            .messages
            .iter()
            .map(|m| (m.message_id, m.topic.clone(), m.data.to_vec(), m.sequence))
            .collect();
        let wanted: Vec<_> = test["messages"]
            .as_array()
            .unwrap()
            .iter()
            .map(|m| {
                let topic = m["topic"].as_str().map(str::to_owned);
                (uint(m, "messageId"), topic, bytes(m, "data"), uint(m, "sequence"))
            })
            .collect();
        assert_eq!(got, wanted);
        let (mut gaps, mut lost, mut conflicts) = (Vec::new(), Vec::new(), Vec::new());
        for event in &bench.events {
            match event {
                Event::Gap { first, last, .. } => gaps.push((*first, last.unwrap())),
                Event::MessageLost { message_id, .. } => lost.push(*message_id),
                Event::Equivocation { sequence, .. } => conflicts.push(*sequence),
                _ => {}
            }
        }
        let numbers = |field: &str| -> Vec<u64> {
            test[field]
                .as_array()
                .unwrap()
                .iter()
                .map(|n| n.as_u64().unwrap())
                .collect()
        };
        let ranges = |field: &str| -> Vec<(u64, u64)> {
            let range = |range: &Value| (range[0].as_u64().unwrap(), range[1].as_u64().unwrap());
            test[field].as_array().unwrap().iter().map(range).collect()
        };
        // A packet with malformed frames is told as a gap of one.
        let mut wanted = ranges("gaps");
        wanted.extend(numbers("malformedPackets").iter().map(|&n| (n, n)));
        wanted.sort_unstable();
        assert_eq!(gaps, wanted);
        assert_eq!(lost, numbers("lostMessages"));
        assert_eq!(conflicts, numbers("conflicts"));
        let stream = bench
            .receiver
            .streams()
            .find(|s| s.publisher.stream == stream)
            .unwrap();
        assert_eq!(stream.window.repairable(Time::MAX, 64, 1024), ranges("missing"));
    });
}
