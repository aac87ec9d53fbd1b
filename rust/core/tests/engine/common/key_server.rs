//! A small key server: control stream, slots, generations and steps, directory, CBOR answers (spec/side-channel.md section 1).

use std::collections::BTreeMap;

use sealcast_core::control::{BeaconBody, DocumentVersion};
use sealcast_core::credential::{Credential, VerifiedCredential};
use sealcast_core::crypto::{Secret, Suite, sha256};
use sealcast_core::fec::Fec;
use sealcast_core::policy::{Policy, member_name};
use sealcast_core::retention::Datagram;
use sealcast_core::schedule::{EpochKeys, channel_id, commit_generation, commit_slot, step_secret};
use sealcast_core::sealer::Sealer;
use sealcast_core::signed::{CborReader, CborWriter, POLICY_CONTEXT};
use sealcast_core::validator::Role;
use sealcast_core::wire::{ChannelId, Epoch, StreamId, Time};

use super::site::{Identity, Site};
use super::world::Node;
use super::{CHANNEL, DAY, HOUR, MINUTE, SECOND};

/// Slots handed out beyond the present one.
const PREFETCH: u32 = 3;
/// How long a poll is held (side-channel.md).
const POLL_HOLD: Time = 25 * SECOND;

pub struct Entry {
    pub stream: StreamId,
    pub device: String,
    pub instance: String,
    pub bundle: Vec<u8>,
    pub head: Option<Vec<u8>>,
    pub endpoint: Option<(String, u16)>,
}

struct Poll {
    waiter: Node,
    command: u64,
    device: String,
    counter: u64,
    until: Time,
}

/// What the server says to a request: at once, or when a poll is over.
pub enum Reply {
    Now(u16, Vec<u8>),
    Later,
}

pub struct KeyServer {
    pub site: Site,
    pub channel: ChannelId,
    pub policy: Policy,
    pub directory: Vec<Entry>,
    pub members: BTreeMap<String, String>,
    pub generation: u32,
    pub step: u8,
    pub counter: u64,
    /// Hands out secrets that it did not commit to (KM-8).
    pub lies_about_secrets: bool,
    /// Gives beacons, in joins and keys replies, that its control stream did not sign.
    pub spoils_beacons_in_answers: bool,
    /// Given instead of the true answer.
    pub canned_keys: Option<Vec<u8>>,
    pub canned_policy: Option<Vec<u8>>,
    pub canned_crl: Option<Vec<u8>>,
    /// What beacons say the CRL's number is, if not what it says itself.
    pub told_crl_number: Option<u64>,
    start: Time,
    identity: Identity,
    sealer: Sealer,
    bundle: Vec<u8>,
    signed_policy: Vec<u8>,
    changed_at: u64,
    polls: Vec<Poll>,
    randomness: u64,
}

fn error(status: u16, name: &str) -> Reply {
    let body = CborWriter::new()
        .map(2)
        .text("error")
        .text(name)
        .text("detail")
        .text("");
    Reply::Now(status, body.finish())
}

impl KeyServer {
    pub fn new(
        start: Time,
        mut site: Site,
        suite: Suite,
        publishers: Vec<String>,
        subscribers: Vec<String>,
    ) -> Self {
        let channel = channel_id(&site.id, CHANNEL);
        let identity = site.issue(Role::KeyServer, "keys-1");
        let policy = Policy {
            site: site.id,
            channel_name: CHANNEL.to_owned(),
            channel,
            version: 1,
            issued: start,
            next_update: start + 30 * DAY,
            suite,
            group: "239.1.2.3".to_owned(),
            port: 5000,
            interface: None,
            rate: 100_000_000,
            slot_origin_time: start - 10 * MINUTE,
            slot_origin_number: 1000,
            slot_length: HOUR,
            retention: 30 * SECOND,
            retention_bytes: 64 << 20,
            publisher_limit: MINUTE,
            fec: Fec::Off,
            publishers,
            subscribers,
        };
        let signed_policy = site.sign(POLICY_CONTEXT, &policy.encode());
        let (sealer, bundle) = control_stream(&identity, suite, channel, (1, start));
        Self {
            site,
            channel,
            policy,
            directory: Vec::new(),
            members: BTreeMap::new(),
            generation: 5,
            step: 0,
            counter: 100,
            lies_about_secrets: false,
            spoils_beacons_in_answers: false,
            canned_keys: None,
            canned_policy: None,
            canned_crl: None,
            told_crl_number: None,
            start,
            identity,
            sealer,
            bundle,
            signed_policy,
            changed_at: 0,
            polls: Vec::new(),
            randomness: 0,
        }
    }

    pub fn suite(&self) -> Suite {
        self.policy.suite
    }

    // -- secrets: a function of their numbers, so that a test can derive whatever it needs ------------------------------

    pub fn slot_secret(&self, slot: u32) -> Secret {
        Secret::new(sha256(&[b"test slot", &slot.to_be_bytes()]))
    }

    pub fn step_secret(&self, generation: u32, step: u8) -> Secret {
        let first = Secret::new(sha256(&[b"test generation", &generation.to_be_bytes()]));
        (0..step).fold(first, |secret, before| {
            step_secret(&secret, &self.channel, generation, before + 1)
        })
    }

    pub fn epoch(&self, now: Time) -> Epoch {
        Epoch {
            slot: self.policy.slot_at(now),
            generation: self.generation,
            step: self.step,
        }
    }

    pub fn epoch_keys(&self, epoch: Epoch) -> EpochKeys {
        let slot = self.slot_secret(epoch.slot);
        let step = self.step_secret(epoch.generation, epoch.step);
        EpochKeys::derive(self.suite(), &self.channel, epoch, &slot, &step)
    }

    // -- what changes --------------------------------------------------------------------------------------------------

    pub fn signed_policy(&self) -> Vec<u8> {
        self.signed_policy.clone()
    }

    /// A new signed policy with one more version.
    pub fn set_policy(&mut self, change: impl FnOnce(&mut Policy)) {
        change(&mut self.policy);
        self.policy.version += 1;
        self.signed_policy = self.site.sign(POLICY_CONTEXT, &self.policy.encode());
        self.changed();
    }

    /// SC-6; KM-9 when the steps are used up.
    fn add_step(&mut self) {
        (self.generation, self.step) = match self.step.checked_add(1) {
            Some(step) => (self.generation, step),
            None => (self.generation + 1, 0),
        };
        self.changed();
    }

    /// Somebody else joins.
    pub fn admit(&mut self, device: String) {
        self.members.insert(device, "subscribe".to_owned());
        self.add_step();
    }

    /// A fresh generation, though nobody was removed.
    pub fn turn_generation(&mut self) {
        self.generation += 1;
        self.step = 0;
        self.changed();
    }

    /// Takes a device out: policy, membership and a new generation, as one change.
    pub fn remove(&mut self, device: &str) {
        self.members.remove(device);
        self.generation += 1;
        self.step = 0;
        self.set_policy(|policy| {
            policy.publishers.retain(|name| name != device);
            policy.subscribers.retain(|name| name != device);
        });
    }

    pub fn revoke(&mut self, serial: u64) {
        self.site.revoke(serial);
        self.changed();
    }

    /// Polls that know less than this are answered.
    fn changed(&mut self) {
        self.changed_at = self.counter + 1;
    }

    /// A new process: another control stream, all else kept. Gives the polls that are cut off: (waiter, command).
    pub fn restart(&mut self, seed: u8) -> Vec<(Node, u64)> {
        (self.sealer, self.bundle) =
            control_stream(&self.identity, self.suite(), self.channel, (seed, self.start));
        self.changed();
        self.polls
            .drain(..)
            .map(|poll| (poll.waiter, poll.command))
            .collect()
    }

    // -- what is signed ------------------------------------------------------------------------------------------------

    pub fn beacon(&mut self, now: Time) -> Datagram {
        self.counter += 1;
        let epoch = self.epoch(now);
        let (first, count) = (epoch.slot - 1, PREFETCH + 2);
        let commitments =
            (first..first + count).map(|slot| commit_slot(&self.slot_secret(slot), &self.channel, slot));
        let step = self.step_secret(epoch.generation, epoch.step);
        let body = BeaconBody {
            counter: self.counter,
            policy: DocumentVersion {
                number: self.policy.version,
                hash: sha256(&[&self.signed_policy]),
            },
            crl: DocumentVersion {
                number: self.told_crl_number.unwrap_or(self.site.crl_number()),
                hash: sha256(&[&self.site.crl()]),
            },
            bundle: DocumentVersion {
                number: 0,
                hash: [0; 32],
            },
            generation_commitment: commit_generation(&step, &self.channel, epoch.generation, epoch.step),
            first_slot: first,
            slot_commitments: commitments.collect(),
        };
        self.seal_beacon(epoch, &body, now)
    }

    pub fn seal_beacon(&mut self, epoch: Epoch, body: &BeaconBody, now: Time) -> Datagram {
        self.randomness += 1;
        let mut randomness = [0xBE; 16];
        randomness[..8].copy_from_slice(&self.randomness.to_be_bytes());
        let secret = self.slot_secret(epoch.slot);
        self.sealer.seal_beacon(epoch, &secret, body, now, randomness)
    }

    fn keys_fields(
        &mut self,
        writer: CborWriter,
        now: Time,
        rest: impl FnOnce(&mut Self, CborWriter) -> CborWriter,
    ) -> Vec<u8> {
        let mut beacon = self.beacon(now).to_vec();
        if self.spoils_beacons_in_answers {
            let signature = beacon.len() - 72;
            beacon[signature] ^= 1;
        }
        let epoch = self.epoch(now);
        let mut writer = writer
            .text("time")
            .uint(now)
            .text("slots")
            .array(PREFETCH as usize + 2);
        for slot in epoch.slot - 1..=epoch.slot + PREFETCH {
            writer = writer
                .array(2)
                .uint(u64::from(slot))
                .bytes(self.slot_secret(slot).expose());
        }
        let writer = writer.text("beacon").bytes(&beacon);
        let mut secret = self.step_secret(epoch.generation, epoch.step);
        if self.lies_about_secrets {
            secret = Secret::new([0x66; 32]);
        }
        let writer = rest(self, writer);
        writer
            .text("generation")
            .array(3)
            .uint(u64::from(epoch.generation))
            .uint(u64::from(epoch.step))
            .bytes(secret.expose())
            .finish()
    }

    pub fn keys_reply(&mut self, now: Time) -> Vec<u8> {
        self.keys_fields(CborWriter::new().map(5), now, |this, writer| {
            // KM-18, of the present generation alone: a member that asks a moment late opens its first packets all the same.
            let writer = writer.text("earlier");
            if this.step == 0 {
                return writer.array(0);
            }
            let (generation, beacon) = (this.generation, this.beacon(now));
            let first = this.step_secret(generation, 0);
            let writer = writer.array(1).array(3).uint(u64::from(generation));
            writer.bytes(first.expose()).bytes(&beacon)
        })
    }

    pub fn join_reply(&mut self, now: Time) -> Vec<u8> {
        let crl = self.site.crl();
        let writer = CborWriter::new().map(9).text("crl").bytes(&crl);
        self.keys_fields(writer, now, |this, writer| {
            let writer = writer.text("policy").bytes(&this.signed_policy);
            let writer = writer.text("issuers").array(1).bytes(&this.site.ca_der());
            let writer = this.streams(writer.text("streams"));
            writer.text("key-server").bytes(&this.bundle)
        })
    }

    fn streams(&self, mut writer: CborWriter) -> CborWriter {
        writer = writer.array(self.directory.len());
        for entry in &self.directory {
            writer = writer.map(6).text("head").optional_bytes(entry.head.as_deref());
            writer = writer.text("device").text(&entry.device);
            writer = writer.text("stream").bytes(&entry.stream.0).text("endpoint");
            writer = match &entry.endpoint {
                Some((host, port)) => writer.array(2).text(host).uint(u64::from(*port)),
                None => writer.null(),
            };
            writer = writer.text("instance").text(&entry.instance);
            writer = writer.text("credential").bytes(&entry.bundle);
        }
        writer
    }

    // -- requests ------------------------------------------------------------------------------------------------------

    /// Answers what `device`, proven by TLS, asks for.
    pub fn handle(
        &mut self,
        waiter: Node,
        device: &str,
        command: &sealcast_core::event::Command,
        now: Time,
    ) -> Reply {
        let prefix = format!("/v1/channels/{}/", sealcast_core::messages::path_segment(CHANNEL));
        let path = command.path.strip_prefix(&prefix).unwrap_or(&command.path);
        let allowed = |names: &[String]| names.iter().any(|name| name == device);
        let (publishes, subscribes) = (
            allowed(&self.policy.publishers),
            allowed(&self.policy.subscribers),
        );
        if !publishes && !subscribes {
            return error(403, "not-allowed");
        }
        match (command.method, path) {
            ("POST", "join") => {
                let role = read_role(&command.body);
                if !(role == "publish" && publishes || role == "subscribe" && subscribes) {
                    return error(403, "not-allowed");
                }
                if self.members.insert(device.to_owned(), role).is_none() {
                    self.add_step();
                }
                Reply::Now(200, self.join_reply(now))
            }
            _ if !self.members.contains_key(device) => error(403, "not-allowed"),
            ("POST", "keys") => {
                let canned = self.canned_keys.clone();
                Reply::Now(200, canned.unwrap_or_else(|| self.keys_reply(now)))
            }
            ("POST", "poll") => {
                self.polls.push(Poll {
                    waiter,
                    command: command.id,
                    device: device.to_owned(),
                    counter: read_counter(&command.body),
                    until: now + POLL_HOLD,
                });
                Reply::Later
            }
            ("GET", "policy") => {
                let signed = self.canned_policy.as_ref().unwrap_or(&self.signed_policy);
                let body = CborWriter::new().map(2).text("policy").bytes(signed);
                Reply::Now(
                    200,
                    body.text("issuers").array(1).bytes(&self.site.ca_der()).finish(),
                )
            }
            ("GET", "streams") => Reply::Now(
                200,
                self.streams(CborWriter::new().map(1).text("streams")).finish(),
            ),
            ("GET", "/v1/crl") => {
                let crl = self.canned_crl.clone().unwrap_or(self.site.crl());
                let body = CborWriter::new().map(2).text("crl").bytes(&crl);
                Reply::Now(
                    200,
                    body.text("issuers").array(1).bytes(&self.site.ca_der()).finish(),
                )
            }
            ("PUT", path) if path.starts_with("streams/") => self.put_stream(device, &command.body, now),
            _ => error(404, "unknown-channel"),
        }
    }

    fn put_stream(&mut self, device: &str, body: &[u8], now: Time) -> Reply {
        let (bundle, head, endpoint) = read_put(body);
        let validator = self.site.validator();
        let verified = VerifiedCredential::verify(
            &bundle,
            &validator,
            Role::Device,
            &self.channel,
            self.suite(),
            now,
        );
        let Some(verified) = verified.ok().filter(|verified| {
            let publisher = &verified.publisher;
            member_name(&self.site.id, &publisher.site, &publisher.device) == device
        }) else {
            return error(403, "not-allowed");
        };
        let entry = Entry {
            stream: verified.stream(),
            device: device.to_owned(),
            instance: verified.publisher.instance.clone(),
            bundle,
            head,
            endpoint,
        };
        match self
            .directory
            .iter_mut()
            .find(|known| known.stream == entry.stream)
        {
            Some(known) => *known = entry,
            None => self.directory.push(entry),
        }
        Reply::Now(200, CborWriter::new().map(0).finish())
    }

    /// The polls that are over: (waiter, command, status, body).
    pub fn finished_polls(&mut self, now: Time) -> Vec<(Node, u64, u16, Vec<u8>)> {
        let changed_at = self.changed_at;
        let (done, waiting) = core::mem::take(&mut self.polls)
            .into_iter()
            .partition(|poll: &Poll| poll.counter < changed_at || poll.until <= now);
        self.polls = waiting;
        let answer = |poll: Poll| {
            let (status, body) = if self.members.contains_key(&poll.device) {
                let body = CborWriter::new().map(1).text("beacon").bytes(&self.beacon(now));
                (200, body.finish())
            } else {
                (
                    403,
                    CborWriter::new()
                        .map(1)
                        .text("error")
                        .text("not-allowed")
                        .finish(),
                )
            };
            (poll.waiter, poll.command, status, body)
        };
        let done: Vec<Poll> = done;
        done.into_iter().map(answer).collect()
    }

    pub fn next_poll_deadline(&self) -> Option<Time> {
        self.polls.iter().map(|poll| poll.until).min()
    }
}

fn control_stream(
    identity: &Identity,
    suite: Suite,
    channel: ChannelId,
    (seed, start): (u8, Time),
) -> (Sealer, Vec<u8>) {
    let sealer = Sealer::new(&Secret::new(sha256(&[b"test control", &[seed]])), suite, channel);
    let bundle = identity.bundle(&Credential {
        public_key: *sealer.public_key(),
        channel,
        suite,
        site: identity.site,
        device: identity.name.clone(),
        certificate_hash: identity.certificate_hash(),
        not_before: start - 400 * DAY,
        not_after: start + 60 * DAY,
        start_nonce: [seed; 16],
        instance: String::new(),
        succeeds: None,
    });
    (sealer, bundle)
}

fn read_role(body: &[u8]) -> String {
    let mut reader = CborReader::new(body);
    assert_eq!(reader.map(), Ok(1));
    assert_eq!(reader.text(), Ok("role"));
    reader.text().unwrap().to_owned()
}

fn read_counter(body: &[u8]) -> u64 {
    let mut reader = CborReader::new(body);
    assert_eq!(reader.map(), Ok(1));
    assert_eq!(reader.text(), Ok("counter"));
    reader.uint().unwrap()
}

type Put = (Vec<u8>, Option<Vec<u8>>, Option<(String, u16)>);

fn read_put(body: &[u8]) -> Put {
    let mut reader = CborReader::new(body);
    assert_eq!(reader.map(), Ok(3));
    assert_eq!(reader.text(), Ok("head"));
    let head = reader.optional(|r| Ok(r.bytes()?.to_vec())).unwrap();
    assert_eq!(reader.text(), Ok("endpoint"));
    let endpoint = reader.optional(|r| {
        r.array_of(2)?;
        Ok((r.text()?.to_owned(), r.uint()? as u16))
    });
    assert_eq!(reader.text(), Ok("credential"));
    let bundle = reader.bytes().unwrap().to_vec();
    reader.end().unwrap();
    (bundle, head, endpoint.unwrap())
}
