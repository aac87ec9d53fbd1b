//! What publishers and subscribers share: admission, keys, policy, CRL, and the polls that keep them fresh.
//!
//! Spec: keys.md section 2 and 3; side-channel.md section 1.

use std::collections::{HashMap, VecDeque};

use crate::budget::Budget;
use crate::control::ControlState;
use crate::credential::{Publisher, VerifiedCredential};
use crate::crl::{CrlSet, IssuerId, ListNumbers};
use crate::crypto::{Jitter, Suite};
use crate::date::Dates;
use crate::event::{Command, Event, Response, Target};
use crate::fingerprint::Fingerprint;
use crate::keyring::Keyring;
use crate::messages::{Directory, empty_request, join_request, path_segment, poll_request};
use crate::policy::{Policy, VerifiedPolicy, member_name, parse_member};
use crate::schedule::channel_id;
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
/// What tells one subscriber to ask tells all of them: they spread over this. A publisher asks at once.
const FETCH_JITTER: u64 = SECOND / 4;
/// Over how long the subscribers of a channel that are told of a new trust bundle at one moment join again.
const TRUST_SPREAD: u64 = 5 * SECOND;
/// Signatures of multicast beacons checked in a second; one in two seconds is genuine.
const BEACON_CHECKS: u64 = 10;

mod answers;

/// What a member asks to be on its channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    Publish,
    Subscribe,
    /// Verifies and keeps packets for others, and opens none (KM-21).
    Repair,
}

impl Purpose {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Subscribe => "subscribe",
            Self::Repair => "repair",
        }
    }
}

/// The lowest numbers that a member accepts: what was seen before, also by an earlier run (invariant 8).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Floors {
    pub policy_version: u64,
    pub crl_number: u64,
    pub generation: u32,
}

/// What a member is made from.
#[derive(Debug)]
pub struct MemberConfig {
    /// The channel's: its key server and its policy are of this site.
    pub site: SiteId,
    pub channel_name: String,
    /// This device's own site, which may be another, and its name: to find itself in policy and directory.
    pub device_site: SiteId,
    pub device: String,
    pub purpose: Purpose,
    pub validator: Validator,
    /// Seeds the jitter of requests; no secret.
    pub jitter_seed: u64,
    /// What the host has durably seen ([`Member::floors`]).
    pub floors: Floors,
    /// The number of each issuer's CRL that the host has durably seen (TR-29).
    pub crl_numbers: Vec<(IssuerId, u64)>,
    /// The latest signed time that the host remembers ([`Member::signed_time`]).
    pub signed_time: Time,
}

/// What a pending request was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Purposes {
    Join,
    Poll,
    Keys,
    Policy,
    Crl,
    Directory,
    PutStream,
    Repair(StreamId),
    Follow(StreamId),
    ReportLoss(StreamId),
    /// Of a publisher that does not listen: the place of a repair node.
    Wanted(u8),
}

impl Purposes {
    /// Whether it has a schedule of its own, and is for whoever is on top of the member.
    fn is_of_stream(&self) -> bool {
        matches!(
            self,
            Self::Repair(_) | Self::Follow(_) | Self::ReportLoss(_) | Self::Wanted(_)
        )
    }

    fn fingerprint(&self, into: &mut Fingerprint) {
        let stream = match self {
            Self::Repair(stream) | Self::Follow(stream) | Self::ReportLoss(stream) => &stream.0[..],
            Self::Wanted(place) => core::slice::from_ref(place),
            _ => &[],
        };
        let code = match self {
            Self::Join => 0u8,
            Self::Poll => 1,
            Self::Keys => 2,
            Self::Policy => 3,
            Self::Crl => 4,
            Self::Directory => 5,
            Self::PutStream => 6,
            Self::Repair(_) => 7,
            Self::Follow(_) => 8,
            Self::ReportLoss(_) => 9,
            Self::Wanted(_) => 10,
        };
        into.number(code).bytes(stream);
    }
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
    Joined(Directory<'a>),
    Directory(Directory<'a>),
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
    /// When the key server first announced the present generation.
    pub generation_since: Time,
}

#[derive(Debug)]
pub struct Member {
    pub config: MemberConfig,
    channel: ChannelId,
    dates: Dates,
    crl_numbers: ListNumbers,
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
    /// The key server has said how things stood at this moment or later: when it was asked for what it answered.
    informed: Option<Time>,
    silence_told: bool,
    beacon_budget: Budget,
    /// What the directory was last known by, of whoever wants to be told of another (SC-45).
    directory: Option<[u8; 32]>,
    /// How many subscribed when we joined.
    pub subscribers: u64,
    /// Whether what was sent since an admission of an earlier run is wanted (KM-10).
    pub wants_since_admission: bool,
    refused: bool,
}

impl Member {
    pub fn new(config: MemberConfig, now: Time) -> Self {
        let channel = channel_id(&config.site, &config.channel_name);
        let jitter = Jitter::new(config.jitter_seed);
        let mut crl_numbers = ListNumbers::new(config.crl_numbers.iter().copied());
        if let Some(crls) = config.validator.crls() {
            crl_numbers.take(crls);
        }
        Self {
            crl_numbers,
            dates: Dates::new(config.signed_time),
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
            informed: None,
            silence_told: false,
            beacon_budget: Budget::new(BEACON_CHECKS, BEACON_CHECKS),
            directory: None,
            subscribers: 1,
            wants_since_admission: false,
            refused: false,
        }
    }

    /// The host's wall clock says `wall` at `now`; to be called whenever that may have changed. Until then `now` is the date.
    pub fn set_wall(&mut self, now: Time, wall: Time) {
        self.dates.set_wall(now, wall);
    }

    /// The date: what validity, slots and the time of sealing go by (TR-27).
    #[must_use]
    pub fn date(&self, now: Time) -> Time {
        self.dates.date(now)
    }

    /// The date for what is sealed here and judged by others (TR-27).
    #[must_use]
    pub fn sealing_date(&self, now: Time) -> Time {
        self.dates.sealing_date(now)
    }

    /// The latest signed time, for the host to store and to hand to a later run (TR-27).
    #[must_use]
    pub fn signed_time(&self) -> Time {
        self.dates.signed()
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

    /// Whether the policy in force lets this device do what it is here for.
    pub fn is_allowed(&self) -> bool {
        let MemberConfig {
            device_site,
            device,
            purpose,
            ..
        } = &self.config;
        self.policy().is_some_and(|policy| match purpose {
            Purpose::Publish => policy.may_publish(device_site, device),
            Purpose::Subscribe | Purpose::Repair => policy.may_subscribe(device_site, device),
        })
    }

    /// Whether the directory's `member` is this device.
    pub fn is_self(&self, member: &str) -> bool {
        let MemberConfig {
            site,
            device_site,
            device,
            ..
        } = &self.config;
        parse_member(site, member) == Some((*device_site, device))
    }

    /// How the channel's policy writes a publisher, which tells devices of one name at two sites apart.
    pub fn name_of(&self, publisher: &Publisher) -> String {
        member_name(&self.config.site, &publisher.site, &publisher.device)
    }

    /// The DER CRL in force, for judging TLS peers by.
    pub fn crl(&self) -> Option<&[u8]> {
        self.config.validator.crls().map(CrlSet::der)
    }

    /// The highest numbers seen, for the host to store and to hand to a later run.
    pub fn floors(&self) -> Floors {
        let given = self.config.floors;
        let policy = self.policy().map_or(0, |policy| policy.version);
        let crl = self
            .config
            .validator
            .crls()
            .map_or(0, |crls| crls.version().number);
        let announced = self.admitted.as_ref().and_then(|a| a.keyring.announced());
        Floors {
            policy_version: policy.max(given.policy_version),
            crl_number: crl.max(given.crl_number),
            generation: announced
                .map_or(0, |(generation, _)| generation)
                .max(given.generation),
        }
    }

    /// Believes in other anchors from now on (TR-21). The key server's chain is judged anew by a join; running streams are for
    /// the caller to judge.
    pub fn set_trust(&mut self, anchors: Validator, now: Time) {
        self.config.validator.replace_anchors(anchors);
        if self.admitted.is_some() {
            let spread = match self.config.purpose {
                Purpose::Publish => 0,
                Purpose::Subscribe | Purpose::Repair => self.jitter.below(TRUST_SPREAD),
            };
            self.want(Purposes::Join, now + spread);
        }
    }

    /// When a verified and fresh beacon last said how things stand.
    pub fn last_contact(&self) -> Option<Time> {
        self.last_contact
    }

    pub fn is_refused(&self) -> bool {
        self.refused
    }

    /// The device has a new certificate: whoever was refused, maybe by the old one, asks at once and not at the pace of the refused.
    pub fn note_renewal(&mut self, now: Time) {
        if self.refused {
            self.want(Purposes::Join, now);
        }
    }

    /// Whether more time than receivers bear with an old generation (KM-12) has passed since `since`; of nothing, it has. No
    /// answer takes longer than a request may, so a slow link is not waited for in vain.
    fn is_past_limit(&self, since: Option<Time>, now: Time) -> bool {
        let limit = self.policy().map_or(0, |policy| policy.publisher_limit);
        since.is_none_or(|since| now.saturating_sub(since) > limit.max(REQUEST_TIMEOUT))
    }

    /// Whether a publisher that sealed last at `last_sealed` has to hear how the keys stand before it goes on (KM-20); if so, it
    /// asks. An answer counts from when it was asked for: it may have lain here while the machine slept.
    pub fn must_hear_first(&mut self, last_sealed: Option<Time>, now: Time) -> bool {
        if !self.is_past_limit(last_sealed, now) || !self.is_past_limit(self.informed, now) {
            return false;
        }
        // Whoever was refused joins again, at the pace of that.
        if !self.refused {
            self.want(Purposes::Keys, now);
        }
        true
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
        let date = self.date(now);
        let verified = VerifiedCredential::verify(
            bundle,
            &self.config.validator,
            Role::Device,
            &self.channel,
            policy.suite,
            date,
        )?;
        if date >= policy.next_update
            || !self.is_allowed()
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
        // An entry for each stream there ever was would never end.
        if !purpose.is_of_stream() {
            self.last_sent.insert(purpose, now);
        }
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
        let spread = match self.config.purpose {
            Purpose::Publish | Purpose::Repair => 0,
            Purpose::Subscribe => FETCH_JITTER,
        };
        // Drawn once: a reason that comes again and again must not wear the spread down.
        if self.due.get(&purpose).is_none_or(|&at| at > earliest + spread) {
            let at = earliest + self.jitter.below(spread);
            self.due.insert(purpose, at);
        }
    }

    /// The same, also while an answer is on the way: that may be from before.
    fn want_anew(&mut self, purpose: Purposes, now: Time) {
        if self.is_pending(purpose) {
            self.due.insert(purpose, now + FETCH_INTERVAL);
        } else {
            self.want(purpose, now);
        }
    }

    /// The polls tell from now on when there is another directory: for who hears of no stream by multicast.
    pub fn follow_directory(&mut self) {
        self.directory = Some([0; 32]);
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
            let since = self.date(since);
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
                if purpose == Purposes::Directory {
                    self.due.insert(purpose, now + FETCH_INTERVAL);
                }
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
                        poll_request(counter, self.directory.as_ref()),
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
                Purposes::PutStream
                | Purposes::Repair(_)
                | Purposes::Follow(_)
                | Purposes::ReportLoss(_)
                | Purposes::Wanted(_) => {
                    continue;
                }
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

    /// All state that a packet may change, and all that an answer changes; budgets aside.
    pub fn fingerprint(&self, into: &mut Fingerprint) {
        if let Some(admitted) = &self.admitted {
            into.number(self.dates.signed())
                .bytes(&admitted.policy.hash)
                .bytes(admitted.issuer.der())
                .number(admitted.generation_since);
            admitted.keyring.fingerprint(into);
            admitted.control.fingerprint(into);
        }
        let crl = self.config.validator.crls().map(CrlSet::version);
        into.bytes(&crl.map_or([0; 32], |crl| crl.hash));
        for (issuer, &number) in self.crl_numbers.iter() {
            into.bytes(issuer).number(number);
        }
        for times in [&self.due, &self.last_sent] {
            let mut times: Vec<(Purposes, Time)> = times.iter().map(|(&p, &at)| (p, at)).collect();
            times.sort_unstable();
            into.number(times.len() as u64);
            for (purpose, at) in times {
                purpose.fingerprint(into);
                into.number(at);
            }
        }
        let mut pending: Vec<(u64, Purposes)> = self.pending.iter().map(|(&id, &p)| (id, p)).collect();
        pending.sort_unstable();
        into.number(pending.len() as u64);
        for (id, purpose) in pending {
            into.number(id);
            purpose.fingerprint(into);
        }
        into.number(self.next_request)
            .number(self.commands.len() as u64)
            .number(self.events.len() as u64)
            .number(self.failures)
            .optional(self.last_contact)
            .optional(self.informed)
            .number(self.silence_told)
            .bytes(&self.directory.unwrap_or_default())
            .number(self.refused);
    }

    pub fn suite(&self) -> Option<Suite> {
        self.policy().map(|policy| policy.suite)
    }

    /// KM-11: the later of the date's slot and the beacon's, in the announced membership.
    pub fn sealing_epoch(&self, now: Time) -> Option<Epoch> {
        let admitted = self.admitted.as_ref()?;
        let (generation, step) = admitted.keyring.announced()?;
        let clock = admitted.policy.policy.slot_at(self.sealing_date(now));
        let told = admitted.control.last().map_or(0, |beacon| beacon.epoch.slot);
        Some(Epoch {
            slot: clock.max(told),
            generation,
            step,
        })
    }
}
