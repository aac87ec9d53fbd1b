//! What publishers and subscribers share: admission, keys, policy, CRL, and the polls that keep them fresh.
//!
//! Spec: keys.md section 2 and 3; side-channel.md section 1.

use std::collections::{HashMap, VecDeque};

use crate::budget::Budget;
use crate::control::{BeaconError, ControlState, VerifiedBeacon};
use crate::credential::VerifiedCredential;
use crate::crypto::{Jitter, Suite, sha256};
use crate::event::{Command, Event, Response, Target};
use crate::keyring::{InstallError, Keyring, KeyringLimits};
use crate::messages::{
    self, KeysReply, StreamEntry, empty_request, join_request, parse_error, path_segment, poll_request,
};
use crate::policy::{Policy, VerifiedPolicy};
use crate::schedule::channel_id;
use crate::signed::MalformedObject;
use crate::validator::{Certificate, Role, Validator};
use crate::wire::{ChannelId, Epoch, SiteId, StreamId, Time};

const SECOND: u64 = 1_000_000;
/// The key server holds a poll for up to 25 s (side-channel.md); a little more means that it is gone.
const POLL_TIMEOUT: u64 = 35 * SECOND;
const REQUEST_TIMEOUT: u64 = 10 * SECOND;
const RETRY: u64 = SECOND / 4;
const RETRY_MAX: u64 = 5 * SECOND;
/// After the key server has refused us, ask again only this often.
const REFUSED_RETRY: u64 = 10 * SECOND;
/// A poll is answered within 25 s: no shorter silence says anything.
const SILENCE_MIN: u64 = 40 * SECOND;
/// At most one fetch of a kind a second, whatever packets say (KM-14).
const FETCH_INTERVAL: u64 = SECOND;
/// Signatures of multicast beacons checked in a second; one in two seconds is genuine.
const BEACON_CHECKS: u64 = 10;

/// What a member asks to be on its channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    Publish,
    Subscribe,
}

impl Purpose {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Subscribe => "subscribe",
        }
    }
}

/// What a member is made from.
#[derive(Debug)]
pub struct MemberConfig {
    pub site: SiteId,
    pub channel_name: String,
    /// This device's name, to find itself in policy and directory.
    pub device: String,
    pub purpose: Purpose,
    pub validator: Validator,
    /// Seeds the jitter of requests; no secret.
    pub jitter_seed: u64,
}

/// What a pending request was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Purposes {
    Join,
    Poll,
    Keys,
    Policy,
    Crl,
    Directory,
    PutStream,
    Repair(StreamId),
}

/// A request that has no id yet.
#[derive(Debug)]
pub struct Outgoing {
    pub target: Target,
    pub method: &'static str,
    pub path: String,
    pub body: Vec<u8>,
    /// Microseconds.
    pub timeout: u64,
}

/// What an answer meant, for the publisher or subscriber on top.
#[derive(Debug)]
pub enum Outcome<'a> {
    Nothing,
    /// First admission, or a new one; with the live streams.
    Joined(Vec<StreamEntry<'a>>),
    Directory(Vec<StreamEntry<'a>>),
    /// Policy or CRL changed: running streams are to be judged again.
    TrustChanged,
    KeysChanged,
    /// Not a request of the member's own.
    Other(Purposes, Response<'a>),
}

/// The state that depends on the policy's suite, hence exists once joined.
#[derive(Debug)]
pub struct Admitted {
    pub policy: VerifiedPolicy,
    pub keyring: Keyring,
    pub control: ControlState,
    issuer: Certificate,
    crl_hash: [u8; 32],
    crl: Vec<u8>,
    /// When the key server first announced the present generation.
    pub generation_since: Time,
}

#[derive(Debug)]
pub struct Member {
    pub config: MemberConfig,
    channel: ChannelId,
    admitted: Option<Admitted>,
    pending: HashMap<u64, Purposes>,
    next_request: u64,
    pub commands: VecDeque<Command>,
    pub events: VecDeque<Event>,
    pub jitter: Jitter,
    /// When each of the member's own requests is next due.
    due: HashMap<Purposes, Time>,
    last_sent: HashMap<Purposes, Time>,
    failures: u32,
    last_contact: Option<Time>,
    silence_told: bool,
    beacon_budget: Budget,
    refused: bool,
}

impl Member {
    pub fn new(config: MemberConfig, now: Time) -> Self {
        let channel = channel_id(&config.site, &config.channel_name);
        let jitter = Jitter::new(config.jitter_seed);
        Self {
            config,
            channel,
            admitted: None,
            pending: HashMap::new(),
            next_request: 1,
            commands: VecDeque::new(),
            events: VecDeque::new(),
            jitter,
            due: HashMap::from([(Purposes::Join, now)]),
            last_sent: HashMap::new(),
            failures: 0,
            last_contact: None,
            silence_told: false,
            beacon_budget: Budget::new(BEACON_CHECKS, BEACON_CHECKS),
            refused: false,
        }
    }

    pub fn channel(&self) -> &ChannelId {
        &self.channel
    }

    pub fn admitted(&self) -> Option<&Admitted> {
        self.admitted.as_ref()
    }

    pub fn admitted_mut(&mut self) -> Option<&mut Admitted> {
        self.admitted.as_mut()
    }

    pub fn policy(&self) -> Option<&Policy> {
        self.admitted.as_ref().map(|a| &a.policy.policy)
    }

    /// The DER CRL in force, for judging TLS peers by.
    pub fn crl(&self) -> Option<&[u8]> {
        self.admitted.as_ref().map(|admitted| &admitted.crl[..])
    }

    /// When a verified beacon last said how things stand.
    pub fn last_contact(&self) -> Option<Time> {
        self.last_contact
    }

    pub fn is_refused(&self) -> bool {
        self.refused
    }

    /// Judges a stream's credential as TR-14 says, policy included.
    pub fn verify_stream(
        &self,
        bundle: &[u8],
        now: Time,
    ) -> Result<VerifiedCredential, crate::credential::CredentialError> {
        use crate::credential::CredentialError;
        let admitted = self.admitted.as_ref().ok_or(CredentialError::NotAllowed)?;
        let policy = &admitted.policy.policy;
        let verified = VerifiedCredential::verify(
            bundle,
            &self.config.validator,
            Role::Device,
            &self.channel,
            policy.suite,
            now,
        )?;
        if now >= policy.next_update
            || !policy.may_publish(&verified.publisher.site, &verified.publisher.device)
        {
            return Err(CredentialError::NotAllowed);
        }
        Ok(verified)
    }

    // -- requests ------------------------------------------------------------------------------------------------------

    /// Puts a request on the way; its answer comes back through [`Self::handle_response`].
    pub fn request(&mut self, purpose: Purposes, outgoing: Outgoing, now: Time) {
        let Outgoing {
            target,
            method,
            path,
            body,
            timeout,
        } = outgoing;
        let id = self.next_request;
        self.next_request += 1;
        self.pending.insert(id, purpose);
        self.last_sent.insert(purpose, now);
        self.commands.push_back(Command {
            id,
            target,
            method,
            path,
            body,
            timeout,
        });
    }

    pub fn key_server_path(&self, rest: &str) -> String {
        format!("/v1/channels/{}/{rest}", path_segment(&self.config.channel_name))
    }

    fn is_pending(&self, purpose: Purposes) -> bool {
        self.pending.values().any(|&p| p == purpose)
    }

    /// Asks for something soon, but never more often than once a second and one at a time.
    pub fn want(&mut self, purpose: Purposes, now: Time) {
        if self.is_pending(purpose) {
            return;
        }
        let earliest = self
            .last_sent
            .get(&purpose)
            .map_or(now, |&sent| now.max(sent + FETCH_INTERVAL));
        let due = self.due.entry(purpose).or_insert(earliest);
        *due = (*due).min(earliest);
    }

    fn retry(&mut self, purpose: Purposes, now: Time) {
        self.failures = self.failures.saturating_add(1);
        let wait = (RETRY << self.failures.min(6)).min(RETRY_MAX);
        let wait = if self.refused { REFUSED_RETRY } else { wait };
        let at = now + wait / 2 + self.jitter.below(wait / 2);
        self.due.insert(purpose, at);
    }

    pub fn next_deadline(&self) -> Option<Time> {
        self.due.values().copied().chain(self.silence_deadline()).min()
    }

    /// When silence of the key server becomes worth an alarm: after the policy's publisher limit.
    fn silence_deadline(&self) -> Option<Time> {
        let limit = self.policy()?.publisher_limit.max(SILENCE_MIN);
        self.last_contact
            .filter(|_| !self.silence_told)
            .map(|since| since.saturating_add(limit))
    }

    /// Sends what is due.
    pub fn handle_deadline(&mut self, now: Time) {
        if self.silence_deadline().is_some_and(|at| at <= now)
            && let Some(since) = self.last_contact
        {
            self.silence_told = true;
            self.events.push_back(Event::OutOfContact { since });
        }
        let mut due: Vec<Purposes> = self
            .due
            .iter()
            .filter(|&(_, &at)| at <= now)
            .map(|(&p, _)| p)
            .collect();
        // A fixed order keeps a seeded simulation repeatable.
        due.sort_by_key(|p| match p {
            Purposes::Join => 0,
            Purposes::Keys => 1,
            Purposes::Policy => 2,
            Purposes::Crl => 3,
            Purposes::Directory => 4,
            _ => 5,
        });
        for purpose in due {
            self.due.remove(&purpose);
            if self.is_pending(purpose) {
                continue;
            }
            let (method, path, body, timeout) = match purpose {
                Purposes::Join => {
                    let body = join_request(self.config.purpose.as_str());
                    ("POST", self.key_server_path("join"), body, REQUEST_TIMEOUT)
                }
                Purposes::Poll => {
                    let counter = self
                        .admitted
                        .as_ref()
                        .and_then(|a| a.control.last())
                        .map_or(0, |b| b.body.counter);
                    (
                        "POST",
                        self.key_server_path("poll"),
                        poll_request(counter),
                        POLL_TIMEOUT,
                    )
                }
                Purposes::Keys => (
                    "POST",
                    self.key_server_path("keys"),
                    empty_request(),
                    REQUEST_TIMEOUT,
                ),
                Purposes::Policy => ("GET", self.key_server_path("policy"), Vec::new(), REQUEST_TIMEOUT),
                Purposes::Crl => ("GET", "/v1/crl".to_owned(), Vec::new(), REQUEST_TIMEOUT),
                Purposes::Directory => (
                    "GET",
                    self.key_server_path("streams"),
                    Vec::new(),
                    REQUEST_TIMEOUT,
                ),
                Purposes::PutStream | Purposes::Repair(_) => continue,
            };
            self.request(
                purpose,
                Outgoing {
                    target: Target::KeyServer,
                    method,
                    path,
                    body,
                    timeout,
                },
                now,
            );
        }
    }

    // -- answers -------------------------------------------------------------------------------------------------------

    /// Takes the answer to command `id`.
    pub fn handle_response<'a>(&mut self, id: u64, response: Response<'a>, now: Time) -> Outcome<'a> {
        let Some(purpose) = self.pending.remove(&id) else {
            return Outcome::Nothing;
        };
        if matches!(purpose, Purposes::PutStream | Purposes::Repair(_)) {
            return Outcome::Other(purpose, response);
        }
        let Response::Answer { status, body } = response else {
            self.retry(purpose, now);
            return Outcome::Nothing;
        };
        if status != 200 {
            if status == 403 || status == 404 {
                let reason = parse_error(body);
                if !self.refused {
                    self.refused = true;
                    self.events.push_back(Event::Refused { reason });
                }
            }
            // Whoever is no member any more may be admitted again, and only then gets keys and news.
            let lost_membership = status == 403 && matches!(purpose, Purposes::Poll | Purposes::Keys);
            self.retry(if lost_membership { Purposes::Join } else { purpose }, now);
            return Outcome::Nothing;
        }
        let outcome = match purpose {
            Purposes::Join => self.joined(body, now),
            Purposes::Poll => self.polled(body, now),
            Purposes::Keys => self.keys_came(body, now),
            Purposes::Policy => self.policy_came(body, now),
            Purposes::Crl => self.crl_came(body, now),
            Purposes::Directory => messages::parse_streams_reply(body).map(Outcome::Directory),
            Purposes::PutStream | Purposes::Repair(_) => Ok(Outcome::Nothing),
        };
        match outcome {
            Ok(outcome) => {
                self.failures = 0;
                self.refused = false;
                outcome
            }
            Err(MalformedObject) => {
                self.retry(purpose, now);
                Outcome::Nothing
            }
        }
    }

    fn joined<'a>(&mut self, body: &'a [u8], now: Time) -> Result<Outcome<'a>, MalformedObject> {
        let reply = messages::parse_join_reply(body)?;
        let chain = bundle_chain(reply.key_server)?;
        // The chain tells which site CA speaks; the policy it signed tells the suite; then all else can be judged.
        let peer = self.config.validator.verify_peer(&chain, Role::KeyServer, now);
        let peer = peer.map_err(|error| self.note_refusal(format!("key server: {error}")))?;
        if peer.site != self.config.site {
            return Err(self.note_refusal("key server: another site".to_owned()));
        }
        let issuer = Certificate::parse(&peer.issuer).ok_or(MalformedObject)?;
        let known = self.policy().map_or(0, |policy| policy.version);
        let policy = Policy::verify(
            reply.policy,
            &issuer,
            &self.config.site,
            &self.config.channel_name,
            known,
            now,
        )
        .map_err(|error| self.note_refusal(format!("policy: {error:?}")))?;
        let suite = policy.policy.suite;
        self.config.validator.set_crl(reply.crl).ok_or(MalformedObject)?;
        let credential = VerifiedCredential::verify(
            reply.key_server,
            &self.config.validator,
            Role::KeyServer,
            &self.channel,
            suite,
            now,
        )
        .map_err(|error| self.note_refusal(format!("key server credential: {error:?}")))?;
        let mut admitted = match self.admitted.take() {
            Some(mut admitted) if admitted.policy.policy.suite == suite => {
                admitted.control.replace_credential(credential);
                admitted.policy = policy;
                admitted.issuer = issuer;
                admitted
            }
            _ => Admitted {
                policy,
                keyring: Keyring::new(suite, self.channel, KeyringLimits::default()),
                control: ControlState::new(credential, suite, self.channel),
                issuer,
                crl_hash: [0; 32],
                crl: Vec::new(),
                generation_since: 0,
            },
        };
        admitted.crl_hash = sha256(&[reply.crl]);
        admitted.crl = reply.crl.to_vec();
        let beacon = admitted.control.verify(reply.keys.beacon);
        self.admitted = Some(admitted);
        self.install(&reply.keys, &beacon.map_err(|_| MalformedObject)?, now);
        self.due.insert(Purposes::Poll, now);
        if let Some(beacon) = self.admitted.as_ref().and_then(|a| a.control.last()) {
            self.events.push_back(Event::Joined { epoch: beacon.epoch });
        }
        Ok(Outcome::Joined(reply.streams))
    }

    fn note_refusal(&mut self, reason: String) -> MalformedObject {
        self.events.push_back(Event::Refused { reason });
        MalformedObject
    }

    fn polled<'a>(&mut self, body: &'a [u8], now: Time) -> Result<Outcome<'a>, MalformedObject> {
        let beacon = messages::parse_poll_reply(body)?;
        self.due.insert(Purposes::Poll, now);
        let before = self.sealing_membership();
        self.obey_beacon(beacon, now)?;
        Ok(if before == self.sealing_membership() {
            Outcome::Nothing
        } else {
            Outcome::KeysChanged
        })
    }

    fn sealing_membership(&self) -> Option<(u32, u8)> {
        self.admitted.as_ref().and_then(|a| a.keyring.announced())
    }

    fn obey_beacon(&mut self, datagram: &[u8], now: Time) -> Result<(), MalformedObject> {
        let Some(admitted) = &self.admitted else {
            return Ok(());
        };
        match admitted.control.verify(datagram) {
            Ok(beacon) => self.obey(&beacon, now),
            Err(error) => self.beacon_refused(error, now)?,
        }
        Ok(())
    }

    fn beacon_refused(&mut self, error: BeaconError, now: Time) -> Result<(), MalformedObject> {
        match error {
            // The key server has a new control stream (a restart): its credential comes with a join.
            BeaconError::UnknownStream | BeaconError::NotInForce => {
                self.due.remove(&Purposes::Poll);
                self.want(Purposes::Join, now);
                Ok(())
            }
            _ => Err(MalformedObject),
        }
    }

    /// A beacon that came by multicast, gated by its slot's control gate key.
    pub fn receive_beacon(&mut self, datagram: &[u8], now: Time) -> Result<(), BeaconError> {
        let admitted = self.admitted.as_ref().ok_or(BeaconError::UnknownStream)?;
        let gate = |slot| admitted.keyring.control_gate(slot);
        admitted.control.screen(datagram, gate)?;
        // Every member can gate a beacon: what they forge must not cost more than this.
        if !self.beacon_budget.take(now) {
            return Err(BeaconError::Budget);
        }
        let beacon = admitted.control.verify(datagram)?;
        self.obey(&beacon, now);
        Ok(())
    }

    fn obey(&mut self, beacon: &VerifiedBeacon, now: Time) {
        let Some(admitted) = &mut self.admitted else {
            return;
        };
        if !admitted.control.advance(beacon) {
            return;
        }
        self.last_contact = Some(now);
        self.silence_told = false;
        let before = admitted.keyring.announced();
        admitted.keyring.announce(beacon);
        if before.is_none_or(|(generation, _)| generation < beacon.epoch.generation) {
            admitted.generation_since = beacon.time;
        }
        let current = admitted.keyring.is_current() && admitted.keyring.has_slot(beacon.epoch.slot);
        let policy_behind = beacon.body.policy.number > admitted.policy.policy.version;
        let crl_behind = beacon.body.crl.hash != admitted.crl_hash;
        if before != admitted.keyring.announced() {
            self.events.push_back(Event::EpochChanged { epoch: beacon.epoch });
        }
        if !current {
            // A removal must be followed at once: not held back by an earlier fetch.
            self.last_sent.remove(&Purposes::Keys);
            self.want(Purposes::Keys, now);
        }
        if policy_behind {
            self.want(Purposes::Policy, now);
        }
        if crl_behind {
            self.last_sent.remove(&Purposes::Crl);
            self.want(Purposes::Crl, now);
        }
    }

    fn keys_came<'a>(&mut self, body: &'a [u8], now: Time) -> Result<Outcome<'a>, MalformedObject> {
        let reply = messages::parse_keys_reply(body)?;
        let Some(admitted) = &self.admitted else {
            return Ok(Outcome::Nothing);
        };
        match admitted.control.verify(reply.beacon) {
            Ok(beacon) => {
                self.install(&reply, &beacon, now);
                Ok(Outcome::KeysChanged)
            }
            Err(error) => self.beacon_refused(error, now).map(|()| Outcome::Nothing),
        }
    }

    fn install(&mut self, reply: &KeysReply<'_>, beacon: &VerifiedBeacon, now: Time) {
        let Some(admitted) = &mut self.admitted else {
            return;
        };
        let mut refused: Option<String> = None;
        for (slot, secret) in &reply.slots {
            if let Err(error) = admitted.keyring.install_slot(*slot, secret.clone(), beacon) {
                refused = Some(format!("slot {slot}: {error:?}"));
            }
        }
        match admitted
            .keyring
            .install_step(reply.generation, reply.step, reply.secret.clone(), beacon)
        {
            Ok(()) | Err(InstallError::Backwards) => {}
            Err(error) => {
                refused = Some(format!(
                    "generation {}.{}: {error:?}",
                    reply.generation, reply.step
                ))
            }
        }
        for (generation, secret, datagram) in &reply.earlier {
            // One of another control stream (a key server that restarted) proves nothing, and is passed over.
            let Ok(committed) = admitted.control.verify(datagram) else {
                continue;
            };
            if let Err(InstallError::CommitmentMismatch | InstallError::SecondSecret) = admitted
                .keyring
                .install_earlier(*generation, secret.clone(), &committed)
            {
                refused = Some(format!("generation {generation}.0"));
            }
        }
        if let Some(detail) = refused {
            self.events.push_back(Event::CommitmentMismatch { detail });
        }
        self.obey(beacon, now);
        self.schedule_prefetch(now);
    }

    /// KM-13: at a random moment of the last third of what is held.
    fn schedule_prefetch(&mut self, now: Time) {
        let Some(admitted) = &self.admitted else { return };
        let Some(last) = admitted.keyring.last_slot() else {
            return;
        };
        let end = admitted.policy.policy.slot_start(last + 1);
        let third = end.saturating_sub(now) / 3;
        let at = end - third + self.jitter.below(third / 2);
        self.due.insert(Purposes::Keys, at.max(now + FETCH_INTERVAL));
    }

    fn policy_came<'a>(&mut self, body: &'a [u8], now: Time) -> Result<Outcome<'a>, MalformedObject> {
        let signed = messages::parse_policy_reply(body)?;
        let Some(admitted) = &mut self.admitted else {
            return Ok(Outcome::Nothing);
        };
        let known = admitted.policy.policy.version;
        let verified = Policy::verify(
            signed,
            &admitted.issuer,
            &self.config.site,
            &self.config.channel_name,
            known,
            now,
        )
        .map_err(|_| MalformedObject)?;
        let version = verified.policy.version;
        admitted.policy = verified;
        if version == known {
            return Ok(Outcome::Nothing);
        }
        self.events.push_back(Event::PolicyChanged { version });
        Ok(Outcome::TrustChanged)
    }

    fn crl_came<'a>(&mut self, body: &'a [u8], now: Time) -> Result<Outcome<'a>, MalformedObject> {
        let crl = messages::parse_crl_reply(body)?;
        let Some(admitted) = &mut self.admitted else {
            return Ok(Outcome::Nothing);
        };
        let hash = sha256(&[crl]);
        // The signed beacon names the CRL; one that it does not name is older or newer: ask again.
        if admitted
            .control
            .last()
            .is_some_and(|beacon| beacon.body.crl.hash != hash)
        {
            self.want(Purposes::Crl, now);
            return Ok(Outcome::Nothing);
        }
        self.config.validator.set_crl(crl).ok_or(MalformedObject)?;
        admitted.crl_hash = hash;
        admitted.crl = crl.to_vec();
        Ok(Outcome::TrustChanged)
    }

    pub fn suite(&self) -> Option<Suite> {
        self.policy().map(|policy| policy.suite)
    }

    /// KM-11: the later of the clock's slot and the beacon's, in the announced membership.
    pub fn sealing_epoch(&self, now: Time) -> Option<Epoch> {
        let admitted = self.admitted.as_ref()?;
        let (generation, step) = admitted.keyring.announced()?;
        let clock = admitted.policy.policy.slot_at(now);
        let told = admitted.control.last().map_or(0, |beacon| beacon.epoch.slot);
        Some(Epoch {
            slot: clock.max(told),
            generation,
            step,
        })
    }
}

/// The certificates of a credential bundle (TR-12), unverified.
fn bundle_chain(bundle: &[u8]) -> Result<Vec<&[u8]>, MalformedObject> {
    use crate::signed::CborReader;
    let mut r = CborReader::new(bundle);
    r.array_of(2)?;
    r.bytes()?;
    r.list(crate::credential::MAX_CHAIN, CborReader::bytes)
}
