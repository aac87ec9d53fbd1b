//! What the key server's answers and beacons do to a member. Nothing is taken before all that vouches for it has been checked.
//!
//! Spec: keys.md sections 2 and 3; side-channel.md section 1.

use super::{Admitted, FETCH_INTERVAL, Member, Outcome, Purpose, Purposes};
use crate::control::{BeaconError, ControlState, VerifiedBeacon};
use crate::credential::VerifiedCredential;
use crate::crl::CrlSet;
use crate::event::{Event, Response};
use crate::keyring::{InstallError, Keyring, KeyringLimits};
use crate::messages::{self, KeysReply, parse_error};
use crate::policy::{Policy, PolicyError};
use crate::signed::MalformedObject;
use crate::validator::{Certificate, Role};
use crate::wire::Time;

impl Member {
    /// Takes the answer to command `id`.
    pub fn handle_response<'a>(&mut self, id: u64, response: Response<'a>, now: Time) -> Outcome<'a> {
        let Some(purpose) = self.pending.remove(&id) else {
            return Outcome::Nothing;
        };
        if purpose == Purposes::PutStream || purpose.is_of_stream() {
            return Outcome::Other(purpose, response);
        }
        let Response::Answer { status, body } = response else {
            self.retry(purpose, now);
            return Outcome::Nothing;
        };
        if status != 200 {
            if matches!(status, 401 | 403 | 404) {
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
            Purposes::PutStream
            | Purposes::Repair(_)
            | Purposes::Follow(_)
            | Purposes::ReportLoss(_)
            | Purposes::Wanted(_) => Ok(Outcome::Nothing),
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

    /// SC-4, KM-19.
    fn joined<'a>(&mut self, body: &'a [u8], now: Time) -> Result<Outcome<'a>, MalformedObject> {
        let reply = messages::parse_join_reply(body)?;
        let crls = CrlSet::parse(reply.crl).ok_or(MalformedObject)?;
        let (stated, floors) = (crls.version(), self.floors());
        if stated.number < floors.crl_number || !self.may_take(&crls) {
            let (number, known) = (stated.number, floors.crl_number);
            return Err(self.note_refusal(format!("CRL {number} is older than {known}, which is known")));
        }
        // All is judged by the new CRL, and nothing is taken before all of it has been judged.
        let mut validator = self.config.validator.clone();
        validator.set_crls(Some(crls));
        // The chain tells which site CA speaks; the policy it signed tells the suite; then all else can be judged.
        let chain = bundle_chain(reply.key_server)?;
        let date = self.date(now);
        let peer = validator.verify_peer(&chain, Role::KeyServer, date);
        let peer = peer.map_err(|error| self.note_refusal(format!("key server: {error}")))?;
        if peer.site != self.config.site {
            return Err(self.note_refusal("key server: another site".to_owned()));
        }
        let issuer = Certificate::parse(&peer.issuer).ok_or(MalformedObject)?;
        let policy = Policy::verify(
            reply.policy,
            &issuer,
            &self.config.site,
            &self.config.channel_name,
            floors.policy_version,
            date,
        )
        .map_err(|error| {
            self.note_refusal(match error {
                PolicyError::Backwards => {
                    format!(
                        "policy: older than version {}, which is known",
                        floors.policy_version
                    )
                }
                other => format!("policy: {other:?}"),
            })
        })?;
        self.check_kind(&reply.keys)?;
        let suite = policy.policy.suite;
        let credential = VerifiedCredential::verify(
            reply.key_server,
            &validator,
            Role::KeyServer,
            &self.channel,
            suite,
            date,
        )
        .map_err(|error| self.note_refusal(format!("key server credential: {error:?}")))?;
        let known = self.admitted.as_ref().map(|admitted| &admitted.control);
        let is_same_suite = self.suite() == Some(suite);
        let control = match known {
            Some(known) if is_same_suite => known.with_credential(credential),
            _ => ControlState::new(credential, suite, self.channel),
        };
        let beacon = control.verify(reply.keys.beacon).map_err(|_| MalformedObject)?;
        if beacon.body.crl != stated {
            return Err(self.note_refusal("CRL: not the one that the beacon names".to_owned()));
        }
        // Another suite means other keys, not another past.
        let goes_back = !is_same_suite && known.is_some_and(|known| !known.is_ahead(&beacon));
        if goes_back || beacon.epoch.generation < self.config.floors.generation {
            let (number, known) = (beacon.epoch.generation, floors.generation);
            return Err(self.note_refusal(format!("generation {number}: {known} is known")));
        }
        if stated.number > floors.crl_number {
            let issued = validator.crls().map_or(0, CrlSet::issued);
            self.dates.take_signed(issued, now);
        }
        if let Some(crls) = validator.crls() {
            self.crl_numbers.take(crls);
        }
        if policy.policy.version > floors.policy_version {
            self.dates.take_signed(policy.policy.issued, now);
        }
        self.config.validator = validator;
        let (keyring, generation_since) = match self.admitted.take() {
            Some(before) if is_same_suite => (before.keyring, before.generation_since),
            _ => (Keyring::new(suite, self.channel, KeyringLimits::default()), 0),
        };
        self.admitted = Some(Admitted {
            policy,
            keyring,
            control,
            issuer,
            generation_since,
        });
        let listed = || self.policy().map_or(1, |policy| policy.subscribers.len() as u64);
        self.subscribers = reply.members.unwrap_or_else(listed);
        self.note_word(Purposes::Join, &beacon);
        self.install(&reply.keys, &beacon, now);
        self.due.insert(Purposes::Poll, now);
        if let Some(beacon) = self.admitted.as_ref().and_then(|a| a.control.last()) {
            self.events.push_back(Event::Joined { epoch: beacon.epoch });
        }
        Ok(Outcome::Joined(reply.directory))
    }

    fn note_refusal(&mut self, reason: String) -> MalformedObject {
        self.events.push_back(Event::Refused { reason });
        MalformedObject
    }

    fn polled<'a>(&mut self, body: &'a [u8], now: Time) -> Result<Outcome<'a>, MalformedObject> {
        let (beacon, directory) = messages::parse_poll_reply(body)?;
        if let (Some(known), Some(told)) = (&mut self.directory, directory)
            && *known != told
        {
            *known = told;
            self.want_anew(Purposes::Directory, now);
        }
        if self.is_allowed() {
            self.due.insert(Purposes::Poll, now);
        }
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
            Ok(beacon) => {
                self.note_word(Purposes::Poll, &beacon);
                self.obey(&beacon, now);
            }
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

    /// The key server itself has said this, asked for `purpose`; to be called before it is obeyed.
    fn note_word(&mut self, purpose: Purposes, beacon: &VerifiedBeacon) {
        let last = self.admitted.as_ref().and_then(|a| a.control.last());
        if last.is_none_or(|last| beacon.body.counter >= last.body.counter) {
            self.informed = self.informed.max(self.last_sent.get(&purpose).copied());
        }
    }

    fn obey(&mut self, beacon: &VerifiedBeacon, now: Time) {
        let Some(admitted) = &mut self.admitted else {
            return;
        };
        if !admitted.control.advance(beacon) {
            return;
        }
        let date = self.dates.date(now);
        self.dates.take_beacon(beacon.time, now);
        // Silence is counted from the join at the latest, also where the clocks disagree.
        if beacon.is_fresh(date) || self.last_contact.is_none() {
            self.last_contact = Some(now);
            self.silence_told = false;
        }
        let before = admitted.keyring.announced();
        admitted.keyring.announce(beacon);
        if before.is_none_or(|(generation, _)| generation < beacon.epoch.generation) {
            admitted.generation_since = beacon.time;
        }
        let current = admitted.keyring.is_current() && admitted.keyring.has_slot(beacon.epoch.slot);
        let policy_behind = beacon.body.policy.number > admitted.policy.policy.version;
        let crl = self.config.validator.crls().map(CrlSet::version);
        let crl_behind = crl != Some(beacon.body.crl);
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
        self.check_kind(&reply)?;
        let Some(admitted) = &self.admitted else {
            return Ok(Outcome::Nothing);
        };
        match admitted.control.verify(reply.beacon) {
            Ok(beacon) => {
                self.note_word(Purposes::Keys, &beacon);
                self.install(&reply, &beacon, now);
                Ok(Outcome::KeysChanged)
            }
            Err(error) => self.beacon_refused(error, now).map(|()| Outcome::Nothing),
        }
    }

    /// A repair node takes no secret that opens anything, whoever hands it out; to others gates are no keys (KM-21).
    fn check_kind(&mut self, reply: &KeysReply<'_>) -> Result<(), MalformedObject> {
        let is_node = self.config.purpose == Purpose::Repair;
        if is_node == reply.secret.is_none() && (!is_node || reply.earlier.is_empty()) {
            return Ok(());
        }
        Err(self.note_refusal("keys: not those of the role that was asked for".to_owned()))
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
        let present = match &reply.secret {
            Some(secret) => {
                let install = if self.wants_since_admission {
                    Keyring::install_since
                } else {
                    Keyring::install_step
                };
                install(
                    &mut admitted.keyring,
                    reply.generation,
                    reply.step,
                    secret.clone(),
                    beacon,
                )
            }
            None => admitted
                .keyring
                .install_gates(reply.generation, &reply.gates, beacon),
        };
        match present {
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
        let left = end.saturating_sub(self.dates.date(now));
        let wait = left - left / 3 + self.jitter.below(left / 3 / 2);
        self.due.insert(Purposes::Keys, now + wait.max(FETCH_INTERVAL));
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
            self.dates.date(now),
        );
        if let Err(PolicyError::Signature) = verified {
            // Another site CA speaks for the site now: who that is, is told and judged with a join.
            self.want(Purposes::Join, now);
            return Ok(Outcome::Nothing);
        }
        let verified = verified.map_err(|_| MalformedObject)?;
        let version = verified.policy.version;
        let issued = verified.policy.issued;
        admitted.policy = verified;
        if version == known {
            return Ok(Outcome::Nothing);
        }
        self.dates.take_signed(issued, now);
        self.events.push_back(Event::PolicyChanged { version });
        if !self.is_allowed() {
            // What the key server says to a join now tells the host; it is asked on, until the policy lets us in again.
            self.due.remove(&Purposes::Poll);
            self.due.insert(Purposes::Join, now);
        }
        Ok(Outcome::TrustChanged)
    }

    /// KM-19.
    fn crl_came<'a>(&mut self, body: &'a [u8], now: Time) -> Result<Outcome<'a>, MalformedObject> {
        let crls = CrlSet::parse(messages::parse_crl_reply(body)?).ok_or(MalformedObject)?;
        let Some(admitted) = &self.admitted else {
            return Ok(Outcome::Nothing);
        };
        // The signed beacon names the CRL; one that it does not name is older or newer: ask again.
        if admitted
            .control
            .last()
            .is_some_and(|beacon| beacon.body.crl != crls.version())
        {
            self.want(Purposes::Crl, now);
            return Ok(Outcome::Nothing);
        }
        if crls.version().number < self.floors().crl_number || !self.may_take(&crls) {
            return Err(MalformedObject);
        }
        if crls.version().number > self.floors().crl_number {
            self.dates.take_signed(crls.issued(), now);
        }
        self.crl_numbers.take(&crls);
        self.config.validator.set_crls(Some(crls));
        Ok(Outcome::TrustChanged)
    }

    /// No list of any issuer goes back, also where it was missing meanwhile (TR-29).
    fn may_take(&self, crls: &CrlSet) -> bool {
        let held = self.config.validator.crls();
        self.crl_numbers.permits(crls) && held.is_none_or(|held| crls.may_replace(held))
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
