//! Parity for what a publisher has sent: which packets make a group, and when it is closed.
//!
//! A *span* is a run of packets that are dealt out to a few groups in turn, so that a burst of losses takes little of each.
//! Spec: wire.md section 11 (DP-42).

use std::collections::VecDeque;

use super::Sender;
use crate::fec::{self, Fec, Group, MAX_PARITIES, MAX_PARITY_BLOCK, MAX_SOURCES, Parity, Ratio};
use crate::retention::Datagram;
use crate::sealer::{BlockPlan, Bodies};
use crate::wire::{PacketType, PacketView, Time};

/// A burst of so many lost packets is to be mended.
const BURST: usize = 10;

/// Packets that wait for their parity.
#[derive(Debug)]
struct Span {
    first: u64,
    ratio: Ratio,
    opened: Time,
    /// Of each packet (DP-38).
    symbols: Vec<Vec<u8>>,
}

impl Span {
    /// Groups, and parity packets of each, for `count` packets.
    fn plan(&self, count: usize) -> (usize, usize) {
        let (sources, parities) = (usize::from(self.ratio.sources), usize::from(self.ratio.parities));
        if count == self.full() {
            return (count / sources, parities);
        }
        // Closed before it is full: as much as the ratio says, but not less than mends a burst of all of them, up to ten.
        let total = (count * parities).div_ceil(sources).max(count.min(BURST));
        let groups = count
            .div_ceil(usize::from(MAX_SOURCES))
            .max(total.div_ceil(usize::from(MAX_PARITIES)));
        (groups, total.div_ceil(groups))
    }

    /// Packets in a full span: as many groups as spread a burst so that each can mend its share.
    fn full(&self) -> usize {
        usize::from(self.ratio.sources) * BURST.div_ceil(usize::from(self.ratio.parities))
    }
}

#[derive(Debug)]
pub(super) struct ParityMaker {
    fec: Fec,
    /// Whether packets leave room for parity: it is decided once for a stream, as its payload limit is (DP-6).
    has_room: bool,
    /// Microseconds from the first packet of a span to its parity at most.
    delay: u64,
    loss: u16,
    span: Option<Span>,
    /// Bodies of parity packets that wait for sealing.
    ready: VecDeque<Vec<u8>>,
}

impl ParityMaker {
    /// `own`: what the publisher's operator says; `None`: the policy's, which is not known yet.
    pub(super) fn new(own: Option<Fec>, delay: u64) -> Self {
        Self {
            fec: own.unwrap_or_default(),
            has_room: own != Some(Fec::Off),
            delay: delay.min(u64::from(u16::MAX) * 1000),
            loss: 0,
            span: None,
            ready: VecDeque::new(),
        }
    }

    pub(super) fn fec(&self) -> Fec {
        self.fec
    }

    /// Before the first packet: what the policy says.
    pub(super) fn begin_with(&mut self, fec: Fec) {
        (self.fec, self.has_room) = (fec, fec != Fec::Off);
    }

    /// What the policy says from now on, for the packets that come: a span that is open keeps its ratio.
    pub(super) fn go_on_with(&mut self, fec: Fec) {
        if self.has_room {
            self.fec = fec;
        }
    }

    /// What it takes of each packet's payload.
    pub(super) fn payload_bytes(&self) -> usize {
        if self.has_room { fec::FEC_BYTES } else { 0 }
    }

    pub(super) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// When the open span is closed, however few packets it has.
    pub(super) fn deadline(&self) -> Option<Time> {
        self.span.as_ref().map(|span| span.opened + self.delay)
    }

    /// Takes the packets of a data block, the first of which has this sequence.
    pub(super) fn add(&mut self, first_sequence: u64, datagrams: &[Datagram], now: Time) {
        let ratio = match self.fec {
            Fec::Off => return,
            Fec::Fixed(ratio) => ratio,
            Fec::Adaptive => Ratio::for_loss(self.loss),
        };
        for (sequence, datagram) in (first_sequence..).zip(datagrams) {
            let Ok(packet) = PacketView::parse(datagram) else {
                continue;
            };
            if sequence >= fec::END_OF_GROUPS {
                // The last packets of all have none.
                return self.close();
            }
            let span = self.span.get_or_insert_with(|| Span {
                first: sequence,
                ratio,
                opened: now,
                symbols: Vec::new(),
            });
            let mut symbol = Vec::with_capacity(packet.covered.len());
            fec::write_symbol(packet.covered, &mut symbol);
            span.symbols.push(symbol);
            if span.symbols.len() == span.full() {
                self.close();
            }
        }
    }

    pub(super) fn close_due(&mut self, now: Time) {
        if self.deadline().is_some_and(|at| at <= now) {
            self.close();
        }
    }

    /// Makes the parity of what is there.
    pub(super) fn close(&mut self) {
        let Some(mut span) = self.span.take() else { return };
        let count = span.symbols.len();
        let (groups, parities) = span.plan(count);
        let mut made: Vec<_> = (0..groups)
            .map(|of| self.parity(&mut span, of, groups, parities))
            .collect();
        // In the order in which the groups have had the packets, so that a burst takes from each in turn here too.
        for turn in 0..groups * parities {
            self.ready.extend(made[(count + turn) % groups].next());
        }
    }

    /// The bodies of the parity of one group of a span, in the order of their indexes.
    fn parity(
        &self,
        span: &mut Span,
        of: usize,
        groups: usize,
        parities: usize,
    ) -> impl Iterator<Item = Vec<u8>> + use<> {
        let own = span.symbols.iter_mut().skip(of).step_by(groups);
        let mut own: Vec<&mut Vec<u8>> = own.collect();
        let length = own.iter().map(|symbol| symbol.len()).max().unwrap_or(0);
        own.iter_mut().for_each(|symbol| symbol.resize(length, 0));
        let sources: Vec<&[u8]> = own.iter().map(|symbol| symbol.as_slice()).collect();
        let group = Group {
            first_sequence: span.first + of as u64,
            stride: groups as u8,
            sources: sources.len() as u8,
            parities: parities as u8,
            delay_ms: self.delay.div_ceil(1000) as u16,
        };
        let symbols = fec::encode(&sources, group.parities);
        (0u8..).zip(symbols).map(move |(index, symbol)| {
            let mut body = Vec::with_capacity(fec::DESCRIPTION_BYTES + symbol.len());
            let parity = Parity {
                group,
                index,
                symbol: &symbol,
            };
            parity.write(&mut body);
            body
        })
    }
}

impl Sender {
    /// Tells what share of the packets, in thousandths, is lost on the way to the worse of the subscribers (a quantile of what
    /// some of them report); from the next group on adaptive FEC is made for it.
    pub fn set_loss(&mut self, permille: u16) {
        self.parity.loss = permille.min(1000);
    }

    /// Seals parity that is ready, as one block. Returns how many packets became ready.
    pub(super) fn seal_parity(&mut self, now: Time, randomness: [u8; 16]) -> usize {
        let Some(epoch) = self.epoch_to_seal(now) else {
            return 0;
        };
        let count = self.parity.ready.len().min(usize::from(MAX_PARITY_BLOCK));
        let bodies: Vec<Vec<u8>> = self.parity.ready.drain(..count).collect();
        let plan = BlockPlan {
            packet_type: PacketType::Parity,
            epoch,
            first_sequence: 0,
            time: self.time_to_seal(now),
            randomness,
        };
        let datagrams = self.seal(plan, Bodies::of(&bodies));
        self.counters.parity += datagrams.len() as u64;
        self.queue_datagrams(datagrams)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(ratio: (u8, u8), count: usize) -> (usize, usize) {
        let span = Span {
            first: 0,
            ratio: Ratio::new(ratio.0, ratio.1).unwrap(),
            opened: 0,
            symbols: Vec::new(),
        };
        assert!(count <= span.full());
        span.plan(count)
    }

    #[test]
    fn a_burst_of_ten_is_spread_over_groups_that_can_mend_it() {
        for sources in 1..=MAX_SOURCES {
            for parities in 1..=MAX_PARITIES {
                let full = usize::from(sources) * BURST.div_ceil(usize::from(parities));
                for count in 1..=full {
                    let (groups, each) = plan((sources, parities), count);
                    assert!(groups <= usize::from(fec::MAX_STRIDE));
                    assert!((1..=usize::from(MAX_PARITIES)).contains(&each));
                    assert!(count.div_ceil(groups) <= usize::from(MAX_SOURCES));
                    // In a row no more than this of one group are lost.
                    assert!(
                        count.min(BURST).div_ceil(groups) <= each,
                        "{sources}+{parities}, {count}"
                    );
                    let ratio = count * usize::from(parities);
                    let most = ratio.div_ceil(usize::from(sources)).max(count.min(BURST)) + groups;
                    assert!(groups * each <= most, "{sources}+{parities}, {count}");
                }
            }
        }
    }
}
