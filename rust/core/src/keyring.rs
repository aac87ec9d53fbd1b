//! The keyring: the secrets of slots and generations that a member holds, and the epochs derived from them.
//!
//! Numbers only move forward; a secret once taken for a number stays (KM-8). Spec: keys.md sections 1 and 2.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

use crate::control::VerifiedBeacon;
use crate::crypto::{GateKey, Secret, Suite};
use crate::fingerprint::Fingerprint;
use crate::messages::GateGrant;
use crate::schedule::{EpochKeys, commit_generation, commit_slot, control_gate_key, step_secret};
use crate::wire::{ChannelId, Epoch};

/// How many steps a member may derive beyond the last signed announcement (KM-9).
const STEPS_AHEAD: u8 = 4;
/// Epochs that were only claimed so far and whose keys are kept all the same, so that claims in turn cost a gate each and no
/// derivation. More than that are in use at no time.
const CLAIMED_EPOCHS: usize = 64;

/// Bounds on what is kept (design invariant 10).
#[derive(Clone, Copy, Debug)]
pub struct KeyringLimits {
    pub slots: usize,
    pub generations: usize,
    /// Epochs whose derived keys are cached.
    pub epochs: usize,
}

impl Default for KeyringLimits {
    fn default() -> Self {
        Self {
            slots: 64,
            generations: 64,
            epochs: 128,
        }
    }
}

/// Why a secret was not taken (KM-8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InstallError {
    /// The beacon has no commitment for this number.
    NotCommitted,
    /// The secret is not the one that the key server signed for.
    CommitmentMismatch,
    /// Another secret is already held for this number.
    SecondSecret,
    /// Below what the last verified beacon announced.
    Backwards,
}

/// What a packet's epoch is to this member.
#[derive(Debug)]
pub enum Lookup<'a> {
    Held(&'a EpochKeys),
    /// Ahead of what is held: worth a fetch (KM-14).
    Ahead,
    /// Before this member's admission, or numbers that can't be.
    NotOurs,
}

#[derive(Debug)]
pub struct Keyring {
    suite: Suite,
    channel: ChannelId,
    limits: KeyringLimits,
    slots: BTreeMap<u32, Secret>,
    /// Secrets by generation and step; the lowest step of a generation is what was handed out.
    steps: BTreeMap<(u32, u8), Secret>,
    admission: Option<(u32, u8)>,
    /// The lowest slot that was ever handed to this member.
    first_slot: Option<u32>,
    announced: Option<(u32, u8)>,
    /// The present one is the last.
    derived: VecDeque<(Epoch, EpochKeys)>,
    /// Keys of epochs that were only claimed so far; other claims displace them, and nothing else.
    claimed: VecDeque<(Epoch, EpochKeys)>,
    derivations: u64,
    /// Of a repair node, which has neither slots nor steps: what it was given of each epoch (KM-21).
    gates: BTreeMap<((u32, u8), u32), EpochKeys>,
}

/// Epochs whose gates a repair node keeps: the steps that are handed out with each of the slots, and a few generations back.
const GATES: usize = 1024;

impl Keyring {
    pub fn new(suite: Suite, channel: ChannelId, limits: KeyringLimits) -> Self {
        Self {
            suite,
            channel,
            limits,
            slots: BTreeMap::new(),
            steps: BTreeMap::new(),
            admission: None,
            first_slot: None,
            announced: None,
            derived: VecDeque::new(),
            claimed: VecDeque::new(),
            derivations: 0,
            gates: BTreeMap::new(),
        }
    }

    /// The present membership according to the last verified beacon.
    pub fn announced(&self) -> Option<(u32, u8)> {
        self.announced
    }

    pub fn last_slot(&self) -> Option<u32> {
        let given = self.gates.keys().map(|&(_, slot)| slot).max();
        self.slots.keys().next_back().copied().max(given)
    }

    pub fn has_slot(&self, slot: u32) -> bool {
        self.slots.contains_key(&slot) || self.gates.keys().any(|&(_, given)| given == slot)
    }

    /// Takes note of a verified beacon; the caller has checked that it does not go back.
    pub fn announce(&mut self, beacon: &VerifiedBeacon) {
        self.announced = self.announced.max(Some(beacon.epoch.membership()));
    }

    /// Whether the present membership's secret is held or can be derived.
    pub fn is_current(&mut self) -> bool {
        self.announced.is_some_and(|(generation, step)| {
            self.has_gates(generation, step) || self.derive_step(generation, step)
        })
    }

    fn has_gates(&self, generation: u32, step: u8) -> bool {
        let membership = (generation, step);
        let given = self.gates.range((membership, 0)..=(membership, u32::MAX)).next();
        given.is_some()
    }

    /// Takes what a repair node is given (KM-21). Nothing is committed to but what it follows from, which a node never
    /// learns: it believes whom TLS and the beacon prove. A second key for an epoch is not taken (KM-8).
    pub fn install_gates(
        &mut self,
        generation: u32,
        grants: &[GateGrant],
        beacon: &VerifiedBeacon,
    ) -> Result<(), InstallError> {
        if generation != beacon.epoch.generation {
            return Err(InstallError::NotCommitted);
        }
        if self
            .announced
            .is_some_and(|(announced, _)| generation < announced)
        {
            return Err(InstallError::Backwards);
        }
        for grant in grants {
            let at = ((generation, grant.step), grant.slot);
            self.gates.entry(at).or_insert_with(|| {
                EpochKeys::given(self.suite, &self.channel, &grant.gate, grant.credential.clone())
            });
        }
        self.admission.get_or_insert(beacon.epoch.membership());
        while self.gates.len() > GATES {
            self.gates.pop_first();
        }
        Ok(())
    }

    /// Takes a slot secret that `beacon` commits to.
    pub fn install_slot(
        &mut self,
        slot: u32,
        secret: Secret,
        beacon: &VerifiedBeacon,
    ) -> Result<(), InstallError> {
        let committed = beacon
            .body
            .slot_commitment(slot)
            .ok_or(InstallError::NotCommitted)?;
        if commit_slot(&secret, &self.channel, slot) != *committed {
            return Err(InstallError::CommitmentMismatch);
        }
        match self.slots.get(&slot) {
            Some(held) if held.same(&secret) => return Ok(()),
            Some(_) => return Err(InstallError::SecondSecret),
            None => {}
        }
        self.first_slot = Some(self.first_slot.map_or(slot, |first| first.min(slot)));
        self.slots.insert(slot, secret);
        while self.slots.len() > self.limits.slots {
            self.slots.pop_first();
        }
        Ok(())
    }

    /// Takes the secret of the membership that `beacon` announces; of an older step of its generation, what follows from it (KM-10).
    pub fn install_step(
        &mut self,
        generation: u32,
        step: u8,
        secret: Secret,
        beacon: &VerifiedBeacon,
    ) -> Result<(), InstallError> {
        let (announced, last_step) = beacon.epoch.membership();
        if generation != announced || step > last_step {
            return Err(InstallError::NotCommitted);
        }
        let last = self.stepped(generation, secret, step..last_step);
        if commit_generation(&last, &self.channel, generation, last_step) != beacon.body.generation_commitment
        {
            return Err(InstallError::CommitmentMismatch);
        }
        if self.announced > Some((generation, last_step)) {
            return Err(InstallError::Backwards);
        }
        // A held step of this generation determines all later ones.
        if self.derive_step(generation, last_step) {
            let same = self.steps[&(generation, last_step)].same(&last);
            return if same {
                Ok(())
            } else {
                Err(InstallError::SecondSecret)
            };
        }
        self.steps.insert((generation, last_step), last);
        self.admission.get_or_insert((generation, last_step));
        self.forget_old_generations();
        Ok(())
    }

    /// As [`Self::install_step`], for one that joins again from its admission on: that is the step that it is given, unless it
    /// holds a secret already.
    pub fn install_since(
        &mut self,
        generation: u32,
        step: u8,
        secret: Secret,
        beacon: &VerifiedBeacon,
    ) -> Result<(), InstallError> {
        let is_fresh = self.steps.is_empty();
        self.install_step(generation, step, secret.clone(), beacon)?;
        if is_fresh {
            self.steps = BTreeMap::from([((generation, step), secret)]);
            self.derive_step(generation, beacon.epoch.step);
            self.admission = Some((generation, step));
        }
        Ok(())
    }

    /// The secret that follows from one by these steps.
    fn stepped(&self, generation: u32, secret: Secret, steps: Range<u8>) -> Secret {
        steps.fold(secret, |secret, before| {
            step_secret(&secret, &self.channel, generation, before + 1)
        })
    }

    /// Takes the first secret of a generation that turned while we were a member and out of reach (KM-18). `beacon` commits
    /// to a step of it. It only lets us read what is older than the present; nothing goes back.
    pub fn install_earlier(
        &mut self,
        generation: u32,
        secret: Secret,
        beacon: &VerifiedBeacon,
    ) -> Result<(), InstallError> {
        let (committed, step) = beacon.epoch.membership();
        if committed != generation {
            return Err(InstallError::NotCommitted);
        }
        if self.admission.is_none_or(|(admitted, _)| generation <= admitted) {
            return Err(InstallError::Backwards);
        }
        let last = self.stepped(generation, secret.clone(), 0..step);
        if commit_generation(&last, &self.channel, generation, step) != beacon.body.generation_commitment {
            return Err(InstallError::CommitmentMismatch);
        }
        match self.steps.get(&(generation, step)) {
            Some(held) if !held.same(&last) => return Err(InstallError::SecondSecret),
            _ => {}
        }
        self.steps.entry((generation, 0)).or_insert(secret);
        self.forget_old_generations();
        Ok(())
    }

    fn forget_old_generations(&mut self) {
        let mut generations: Vec<u32> = self.steps.keys().map(|&(generation, _)| generation).collect();
        generations.dedup();
        if let Some(surplus) = generations.len().checked_sub(self.limits.generations) {
            for generation in &generations[..surplus] {
                self.steps.retain(|&(g, _), _| g != *generation);
            }
        }
    }

    /// Derives and keeps a step that the key server has announced.
    fn derive_step(&mut self, generation: u32, step: u8) -> bool {
        let Some((&(_, from), held)) = self.steps.range((generation, 0)..=(generation, step)).next_back()
        else {
            return false;
        };
        let mut secret = held.clone();
        for next in (from..step).map(|before| before + 1) {
            secret = step_secret(&secret, &self.channel, generation, next);
            self.steps.insert((generation, next), secret.clone());
        }
        true
    }

    /// The held secret that a claimed step follows from: a few beyond what is held and announced, since the publisher may have
    /// heard of a join before us (KM-9). Told by the numbers alone.
    fn held_below(&self, generation: u32, step: u8) -> Option<(u8, &Secret)> {
        let (&(_, from), held) = self
            .steps
            .range((generation, 0)..=(generation, step))
            .next_back()?;
        let told = self.announced.filter(|&(present, _)| present == generation);
        let limit = told.map_or(from, |(_, announced)| announced.max(from));
        (step - from <= STEPS_AHEAD && step <= limit.saturating_add(STEPS_AHEAD)).then_some((from, held))
    }

    /// The keys of an epoch, or what its numbers tell. What is derived here is kept for good only by [`Self::keep`].
    pub fn lookup(&mut self, epoch: Epoch) -> Lookup<'_> {
        if !self.gates.is_empty() {
            return self.lookup_gates(epoch);
        }
        if !self.kept().any(|(held, _)| *held == epoch) {
            let membership = epoch.membership();
            if self.admission.is_none_or(|admission| membership < admission) {
                return if self.admission.is_none() {
                    Lookup::Ahead
                } else {
                    Lookup::NotOurs
                };
            }
            let step = self.held_below(epoch.generation, epoch.step);
            // An announced membership whose secret is still on its way counts as ahead.
            let step_ahead =
                step.is_none() && self.announced.is_some_and(|announced| membership >= announced);
            let slot_ahead = self.last_slot().is_none_or(|last| epoch.slot > last);
            match (self.slots.get(&epoch.slot), step) {
                (Some(slot), Some((from, held))) => {
                    let step = self.stepped(epoch.generation, held.clone(), from..epoch.step);
                    let keys = EpochKeys::derive(self.suite, &self.channel, epoch, slot, &step);
                    self.derivations += 1;
                    self.claim(epoch, keys);
                }
                (Some(_), None) if step_ahead => return Lookup::Ahead,
                (None, Some(_)) if slot_ahead => return Lookup::Ahead,
                (None, None) if slot_ahead && step_ahead => return Lookup::Ahead,
                _ => return Lookup::NotOurs,
            }
        }
        match self.kept().find(|(held, _)| *held == epoch) {
            Some((_, keys)) => Lookup::Held(keys),
            None => Lookup::NotOurs,
        }
    }

    /// A repair node derives nothing: what it was not given is ahead of it, or not for it.
    fn lookup_gates(&self, epoch: Epoch) -> Lookup<'_> {
        let membership = epoch.membership();
        match self.gates.get(&(membership, epoch.slot)) {
            Some(keys) => Lookup::Held(keys),
            None if self.admission.is_some_and(|admission| membership < admission) => Lookup::NotOurs,
            None if self.last_slot().is_some_and(|last| epoch.slot > last)
                || self
                    .gates
                    .keys()
                    .next_back()
                    .is_some_and(|&(last, _)| membership > last) =>
            {
                Lookup::Ahead
            }
            None => Lookup::NotOurs,
        }
    }

    fn kept(&self) -> impl Iterator<Item = &(Epoch, EpochKeys)> {
        self.derived.iter().rev().chain(&self.claimed)
    }

    fn claim(&mut self, epoch: Epoch, keys: EpochKeys) {
        self.claimed.push_back((epoch, keys));
        if self.claimed.len() > CLAIMED_EPOCHS {
            self.claimed.pop_front();
        }
    }

    /// Keeps the keys of an epoch that a verified packet, or our own sealing, has proven to be in use.
    pub fn keep(&mut self, epoch: Epoch) {
        let place = self.claimed.iter().position(|(claimed, _)| *claimed == epoch);
        let Some(proven) = place.and_then(|place| self.claimed.remove(place)) else {
            return;
        };
        self.derived.push_back(proven);
        if self.derived.len() > self.limits.epochs {
            self.derived.pop_front();
        }
    }

    /// Whether a verified packet of this epoch was sealed before this member's admission (DP-34).
    pub fn is_before_admission(&self, epoch: Epoch) -> bool {
        self.admission
            .is_some_and(|admission| epoch.membership() < admission)
            || self.first_slot.is_some_and(|first| epoch.slot < first)
    }

    pub fn control_gate(&self, slot: u32) -> Option<GateKey> {
        Some(control_gate_key(
            self.suite,
            self.slots.get(&slot)?,
            &self.channel,
            slot,
        ))
    }

    /// Everything that could open anything, for whoever must show that it opens nothing (removed members in tests).
    pub fn held_epoch_numbers(&self) -> (Vec<u32>, Vec<(u32, u8)>) {
        (
            self.slots.keys().copied().collect(),
            self.steps.keys().copied().collect(),
        )
    }

    /// All but the keys of claimed epochs, which anyone may displace.
    pub fn fingerprint(&self, into: &mut Fingerprint) {
        into.number(self.slots.len() as u64);
        for slot in self.slots.keys() {
            into.number(*slot);
        }
        into.number(self.steps.len() as u64);
        for (generation, step) in self.steps.keys() {
            into.number(*generation).number(*step);
        }
        for membership in [self.admission, self.announced] {
            into.optional(membership.map(|(generation, step)| u64::from(generation) << 8 | u64::from(step)));
        }
        into.optional(self.first_slot);
        into.number(self.gates.len() as u64);
        for ((generation, step), slot) in self.gates.keys() {
            into.number(*generation).number(*step).number(*slot);
        }
        for (epoch, _) in &self.derived {
            into.bytes(&epoch.to_bytes());
        }
    }

    /// Epochs whose keys are kept.
    pub fn cached_epochs(&self) -> usize {
        self.derived.len()
    }

    /// How often the keys of an epoch have been derived: what claims cost besides their gates.
    pub fn derivations(&self) -> u64 {
        self.derivations
    }
}
