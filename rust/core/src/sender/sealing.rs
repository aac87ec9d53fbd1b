//! Sealing: what is queued becomes blocks, under the epoch and at the time that a publisher may seal with.
//!
//! Spec: wire.md DP-13; keys.md KM-11, KM-20.

use super::queue::Queued;
use super::{FRAME_ROOM, HEARTBEAT_FIRST, Sender};
use crate::event::Event;
use crate::frames::Origin;
use crate::keyring::Lookup;
use crate::member::Purposes;
use crate::retention::Datagram;
use crate::schedule::block_key;
use crate::sealer::{BlockPlan, Bodies, Sealer};
use crate::wire::{Epoch, MAX_SEQUENCE, PacketType, Time};

impl Sender {
    /// Whether there is something to seal: messages, or parity for what has been sent.
    pub fn has_queued(&self) -> bool {
        !self.queue.is_empty() || self.parity.has_ready()
    }

    /// Drops what waits for sealing, so that an end can be said at once; receivers report the message that was cut.
    pub fn abandon(&mut self) {
        self.counters.abandoned += self.queue.len() as u64;
        self.queue.clear();
    }

    /// Seals what is queued as one block, up to the maximum (DP-13), or parity that is ready. Returns how many packets became
    /// ready. `randomness` is drawn from the operating system for this call.
    pub fn seal_block(&mut self, now: Time, randomness: [u8; 16]) -> usize {
        if self.parity.has_ready() {
            return self.seal_parity(now, randomness);
        }
        if self.queue.is_empty() {
            return 0;
        }
        let Some(epoch) = self.epoch_to_seal(now) else {
            return 0;
        };
        let time = self.time_to_seal(now);
        let left = MAX_SEQUENCE - self.next_sequence;
        let most = usize::from(self.max_block).min(usize::try_from(left).unwrap_or(usize::MAX));
        let queued = self.queue.bytes() as usize + self.queue.len().min(most * FRAME_ROOM) * 8;
        let packets = (queued / self.payload_limit + 1).min(most);
        let mut bodies = Bodies::with_capacity(packets, queued.min(packets * self.payload_limit));
        while bodies.len() < most && !self.queue.is_empty() {
            let sequence = self.next_sequence + bodies.len() as u64;
            bodies.push(|memory| self.queue.write_packet(memory, self.payload_limit));
            if self.last_values.is_enabled() {
                self.keep_last_values(sequence, time);
            }
        }
        let plan = BlockPlan {
            packet_type: PacketType::Data,
            epoch,
            first_sequence: self.next_sequence,
            time,
            randomness,
        };
        let datagrams = self.seal(plan, bodies);
        if let Some(retention) = &mut self.retention {
            for (sequence, datagram) in (self.next_sequence..).zip(&datagrams) {
                retention.push(sequence, now, datagram.clone());
            }
        }
        self.is_fresh |= self.is_awaited;
        self.parity.add(self.next_sequence, &datagrams, now);
        self.next_sequence += datagrams.len() as u64;
        if self.end.is_some() && self.queue.is_empty() {
            self.parity.close();
        }
        self.heartbeat_interval = HEARTBEAT_FIRST;
        self.heartbeat_due = Some(now + HEARTBEAT_FIRST);
        self.queue_datagrams(datagrams)
    }

    fn keep_last_values(&mut self, sequence: u64, time: Time) {
        let origin = Origin {
            stream: self.stream,
            sequence,
            time,
        };
        for (topic, data) in self.queue.take_written() {
            self.last_values.keep(&topic, &data, origin);
        }
    }

    /// Queues a copy of each last value, for those who have come since (DP-45).
    pub(super) fn send_last_values(&mut self, now: Time) {
        if self.queue.has_copies() {
            // The rate has not let the last ones go yet.
            self.last_values.postpone(now);
            return;
        }
        let copies = self.last_values.take(now);
        for (topic, data, origin) in copies.into_iter().filter(|_| self.end.is_none()) {
            if !self.has_numbers_for(data.len() as u64) {
                return;
            }
            self.queue.push(Queued {
                message_id: self.next_message,
                topic: Some(topic),
                origin: Some(origin),
                data,
                sent: 0,
            });
            self.next_message += 1;
        }
    }

    pub(super) fn queue_datagrams(&mut self, datagrams: Vec<Datagram>) -> usize {
        let count = datagrams.len();
        self.counters.blocks += 1;
        self.counters.packets += count as u64;
        self.counters.bytes += datagrams.iter().map(|d| d.len() as u64).sum::<u64>();
        self.transmit.extend(datagrams);
        count
    }

    /// The epoch to seal under, if its keys are held and the credential is in force; else says why, once.
    pub(super) fn epoch_to_seal(&mut self, now: Time) -> Option<Epoch> {
        let reason = self.obstacle(now);
        if let Some(reason) = reason {
            if self.blocked != Some(reason) {
                self.blocked = Some(reason);
                self.member.events.push_back(Event::Blocked { reason });
            }
            return None;
        }
        self.blocked = None;
        let epoch = self.sealing_epoch(now)?;
        self.last_sealed = Some(now);
        if self.last_epoch != Some(epoch) {
            // DP-31: who only has the new keys can learn of us; and the directory's head is of the new membership.
            let turned = self
                .last_epoch
                .is_some_and(|last| last.membership() != epoch.membership());
            if self.last_epoch.is_some() {
                self.credential_due = Some(now);
                self.member.events.push_back(Event::EpochChanged { epoch });
            }
            if turned {
                self.directory_due = Some(now);
                self.last_values.want(now, &mut self.member.jitter);
            }
            self.last_epoch = Some(epoch);
        }
        Some(epoch)
    }

    /// The date, which never goes back within a stream, whatever becomes of the clock (TR-27).
    pub(super) fn time_to_seal(&mut self, now: Time) -> Time {
        self.last_time = self.last_time.max(self.member.sealing_date(now));
        self.last_time
    }

    /// KM-11: the member's, but never an earlier slot than before, though the clock may have been set back.
    fn sealing_epoch(&self, now: Time) -> Option<Epoch> {
        let mut epoch = self.member.sealing_epoch(now)?;
        epoch.slot = epoch.slot.max(self.last_epoch.map_or(0, |last| last.slot));
        Some(epoch)
    }

    fn obstacle(&mut self, now: Time) -> Option<&'static str> {
        let Some(certified) = &self.certified else {
            return Some("no stream credential");
        };
        if self.member.sealing_date(now) > certified.not_after {
            return Some("the stream credential has expired");
        }
        let Some(policy) = self.member.policy() else {
            return Some("not joined");
        };
        if self.member.date(now) >= policy.next_update {
            return Some("the policy is past its nextUpdate");
        }
        if !self.member.is_allowed() {
            return Some("the policy does not list this device as publisher");
        }
        let Some(epoch) = self.sealing_epoch(now) else {
            return Some("not joined");
        };
        let admitted = self.member.admitted_mut()?;
        if let Lookup::Held(_) = admitted.keyring.lookup(epoch) {
            admitted.keyring.keep(epoch);
        } else {
            self.member.want(Purposes::Keys, now);
            return Some("no key for the present epoch");
        }
        if self.member.must_hear_first(self.last_sealed, now) {
            return Some("no word of the key server since a pause: there may be newer keys");
        }
        None
    }

    pub(super) fn seal(&mut self, plan: BlockPlan, bodies: Bodies) -> Vec<Datagram> {
        let Some(suite) = self.member.suite() else {
            return Vec::new();
        };
        let channel = *self.member.channel();
        let sealer = self
            .sealer
            .get_or_insert_with(|| Sealer::new(&self.seed, suite, channel));
        let Some(admitted) = self.member.admitted_mut() else {
            return Vec::new();
        };
        let Lookup::Held(keys) = admitted.keyring.lookup(plan.epoch) else {
            return Vec::new();
        };
        sealer.seal(plan, bodies, &keys.gate, |stream, block| match plan.packet_type {
            PacketType::Data => {
                let secret = keys.stream_secret(stream)?;
                Some(block_key(suite, &secret, block))
            }
            PacketType::Credential => Some(keys.credential_block_key(stream, block)),
            _ => None,
        })
    }
}
