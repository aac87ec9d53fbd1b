//! The FEC groups of one stream as a subscriber sees them: what is kept of verified packets, and what parity may still mend.
//!
//! Changes only for packets whose signature has held (invariant 1). Spec: wire.md section 11 (DP-40, DP-41).

use std::collections::BTreeMap;

use crate::fec::{Group, MAX_SOURCES, MAX_STRIDE, Parity, decode, write_symbol};
use crate::fingerprint::Fingerprint;
use crate::window::Window;
use crate::wire::Time;

const MILLISECOND: u64 = 1_000;
/// How much later than the publisher says parity may come, for the way; and after its first packet, the rest of a group's.
const SETTLE: u64 = 20 * MILLISECOND;
/// No publisher makes us wait longer (DP-41).
const MAX_DELAY: u64 = 2_000 * MILLISECOND;
/// Groups of which parity has come and something is missing; beyond this the one with the lowest sequences goes.
const MAX_GROUPS: usize = 64;
/// Packets that may follow a group before its parity: a block, and some that overtake.
const BEHIND: usize = 128;
/// The longest group reaches over less.
const MAX_KEPT: usize = MAX_SOURCES as usize * MAX_STRIDE as usize + BEHIND;

#[derive(Debug)]
struct Kept {
    sequence: u64,
    symbol: Vec<u8>,
}

#[derive(Debug)]
struct Open {
    /// When the first of its parity came.
    since: Time,
    /// By index.
    symbols: BTreeMap<u8, Vec<u8>>,
}

#[derive(Debug)]
pub struct FecGroups {
    max_bytes: usize,
    bytes: usize,
    /// From a packet to the parity of its group, at most; `None` as long as no parity has been verified.
    delay: Option<u64>,
    /// A ring: the packet of a sequence stands at its remainder.
    kept: Vec<Kept>,
    /// Packets that have been kept since the start.
    count: u64,
    open: BTreeMap<Group, Open>,
}

impl FecGroups {
    /// Keeps at most `max_bytes`, of packets and parity together.
    pub fn new(max_bytes: usize) -> Self {
        Self {
            max_bytes,
            bytes: 0,
            delay: None,
            kept: ring(MAX_KEPT),
            count: 0,
            open: BTreeMap::new(),
        }
    }

    /// Held at present.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether parity of this stream has been verified.
    pub fn is_on(&self) -> bool {
        self.delay.is_some()
    }

    /// Keeps a verified data packet for the groups that it is in: always if the stream has parity, and at its begin until it is
    /// known whether it has.
    pub fn keep(&mut self, sequence: u64, covered: &[u8]) {
        if self.kept.is_empty() {
            return;
        }
        if self.delay.is_none() && self.count == MAX_KEPT as u64 {
            self.kept = Vec::new();
            self.bytes = 0;
            return;
        }
        let at = (sequence % self.kept.len() as u64) as usize;
        let kept = &mut self.kept[at];
        let (old, new) = (kept.symbol.len(), covered.len());
        if (kept.sequence >= sequence && old > 0) || self.bytes - old + new > self.max_bytes {
            return;
        }
        self.count += 1;
        kept.sequence = sequence;
        kept.symbol.clear();
        write_symbol(covered, &mut kept.symbol);
        self.bytes = self.bytes - old + kept.symbol.len();
    }

    fn symbol(&self, sequence: u64) -> Option<&Vec<u8>> {
        let at = sequence.checked_rem(self.kept.len() as u64)? as usize;
        let kept = &self.kept[at];
        (kept.sequence == sequence && !kept.symbol.is_empty()).then_some(&kept.symbol)
    }

    /// Whether a parity packet, not verified yet, would be of use: it tells of parity for the first time, or something of its
    /// group is missing that it may help to mend.
    pub fn is_wanted(&self, parity: &Parity<'_>, window: &Window) -> bool {
        if !self.is_on() {
            return true;
        }
        let is_held = |open: &Open| open.symbols.contains_key(&parity.index);
        let missing = missing(&parity.group, window);
        missing > 0 && !self.open.get(&parity.group).is_some_and(is_held)
    }

    /// Takes verified parity.
    pub fn take(&mut self, parity: &Parity<'_>, window: &Window, now: Time) {
        let group = parity.group;
        self.delay = Some((u64::from(group.delay_ms) * MILLISECOND).min(MAX_DELAY));
        if self.kept.is_empty() {
            self.kept = ring(MAX_KEPT);
        }
        if missing(&group, window) == 0 {
            return;
        }
        self.settle(window);
        let length = parity.symbol.len();
        if self.bytes + length > self.max_bytes {
            return;
        }
        self.bytes += length;
        let open = self.open.entry(group).or_insert_with(|| Open {
            since: now,
            symbols: BTreeMap::new(),
        });
        open.symbols.insert(parity.index, parity.symbol.to_vec());
        if self.open.len() > MAX_GROUPS
            && let Some((_, oldest)) = self.open.pop_first()
        {
            self.bytes -= oldest.bytes();
        }
    }

    /// Lets go of groups of which nothing is missing any more.
    fn settle(&mut self, window: &Window) {
        let bytes = &mut self.bytes;
        self.open.retain(|group, open| {
            let is_open = missing(group, window) > 0;
            *bytes -= if is_open { 0 } else { open.bytes() };
            is_open
        });
    }

    /// What can be rebuilt of the groups that `sequence` is in: symbols by sequence. These groups are then let go of.
    pub fn mend(&mut self, sequence: u64, window: &Window) -> Vec<(u64, Vec<u8>)> {
        if self.open.is_empty() {
            return Vec::new();
        }
        let ready: Vec<Group> = self
            .open
            .iter()
            .filter(|(group, open)| {
                group.place(sequence).is_some()
                    && group.sequences().filter(|&at| self.symbol(at).is_none()).count() <= open.symbols.len()
            })
            .map(|(group, _)| *group)
            .collect();
        let mut rebuilt = Vec::new();
        for group in ready {
            let Some(open) = self.open.remove(&group) else {
                continue;
            };
            self.bytes -= open.bytes();
            for (place, symbol) in self.rebuild(&group, &open).unwrap_or_default() {
                let sequence = group.first_sequence + u64::from(place) * u64::from(group.stride);
                if window.is_open(sequence) {
                    rebuilt.push((sequence, symbol));
                }
            }
        }
        rebuilt
    }

    fn rebuild(&self, group: &Group, open: &Open) -> Option<Vec<(u8, Vec<u8>)>> {
        let length = open.symbols.values().map(Vec::len).next()?;
        let mut padded = Vec::with_capacity(usize::from(group.sources));
        for (place, sequence) in (0u8..).zip(group.sequences()) {
            let Some(symbol) = self.symbol(sequence) else {
                continue;
            };
            let mut symbol = symbol.clone();
            if symbol.len() > length {
                return None;
            }
            symbol.resize(length, 0);
            padded.push((place, symbol));
        }
        let missing = usize::from(group.sources) - padded.len();
        let parities: Vec<(u8, &[u8])> = open
            .symbols
            .iter()
            .take(missing)
            .map(|(&index, symbol)| (index, symbol.as_slice()))
            .collect();
        if parities.iter().any(|(_, symbol)| symbol.len() != length) {
            return None;
        }
        let sources: Vec<(u8, &[u8])> = padded
            .iter()
            .map(|(place, symbol)| (*place, symbol.as_slice()))
            .collect();
        decode(group.sources, &sources, &parities)
    }

    /// Of missing ranges (first, last included), those that parity will not mend any more, and when it is to be seen again
    /// whether it has mended the others (DP-41).
    pub fn release(
        &self,
        ranges: Vec<(u64, u64)>,
        window: &Window,
        now: Time,
    ) -> (Vec<(u64, u64)>, Option<Time>) {
        let Some(delay) = self.delay else {
            return (ranges, None);
        };
        let mut released: Vec<(u64, u64)> = Vec::new();
        let mut held_until = None;
        for sequence in ranges.into_iter().flat_map(|(first, last)| first..=last) {
            let until = self.hold_until(sequence, delay, window);
            if until > now {
                held_until = Some(held_until.map_or(until, |earliest: Time| earliest.min(until)));
                continue;
            }
            match released.last_mut() {
                Some(last) if last.1 + 1 == sequence => last.1 = sequence,
                _ => released.push((sequence, sequence)),
            }
        }
        (released, held_until)
    }

    fn hold_until(&self, sequence: u64, delay: u64, window: &Window) -> Time {
        let longest = window.noticed(sequence).unwrap_or(0) + delay + SETTLE;
        let own = self
            .open
            .iter()
            .find(|(group, _)| group.place(sequence).is_some());
        match own {
            Some((group, _)) if missing(group, window) > usize::from(group.parities) => 0,
            Some((_, open)) => longest.min(open.since + SETTLE),
            None => longest,
        }
    }

    /// Whether parity has come of a group of a sequence that misses more than all its parity can mend.
    pub fn is_beyond_mending(&self, group: &Group, window: &Window) -> bool {
        missing(group, window) > usize::from(group.parities)
    }

    pub fn fingerprint(&self, into: &mut Fingerprint) {
        into.optional(self.delay).number(self.bytes as u64);
        // What is kept has its leaf in the window.
        into.number(self.kept.len() as u64).number(self.count);
        into.number(self.open.len() as u64);
        for (group, open) in &self.open {
            into.number(group.first_sequence).number(open.since);
            into.bytes(&[group.stride, group.sources, group.parities]);
            into.number(group.delay_ms);
            for (index, symbol) in &open.symbols {
                into.number(*index).bytes(symbol);
            }
        }
    }
}

fn ring(length: usize) -> Vec<Kept> {
    let empty = || Kept {
        sequence: 0,
        symbol: Vec::new(),
    };
    core::iter::repeat_with(empty).take(length).collect()
}

impl Open {
    fn bytes(&self) -> usize {
        self.symbols.values().map(Vec::len).sum()
    }
}

/// How many packets of a group are neither there nor given up.
fn missing(group: &Group, window: &Window) -> usize {
    group
        .sequences()
        .filter(|&sequence| window.is_open(sequence))
        .count()
}
