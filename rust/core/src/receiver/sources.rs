//! Whom a subscriber asks for what it misses, in which order, and who is passed over.
//!
//! The order is: repair nodes, the one that answers fastest first and those never asked before those, then the publisher. A
//! source that gives nothing, or not all, is followed by the next one at once; one that failed comes last for a while.
//! Spec: side-channel.md SC-41.

use std::collections::{BTreeMap, VecDeque};

use crate::credential::Publisher;
use crate::event::{Event, Source};
use crate::wire::{StreamId, Time};

/// How long a source that did not answer, or answered with what it must not, is asked last.
const PENALTY: u64 = 30_000_000;
/// How often at most it is told that a source was passed over.
const TELL_INTERVAL: u64 = 10_000_000;
/// What is known of so many sources; of one that has not been used for longest nothing is.
const MAX_KNOWN: usize = 256;

/// Why a source was passed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PassedOver {
    NoAnswer,
    Refused,
    Busy,
    BadPackets,
    /// It did not give what another source then gave.
    Withheld,
}

impl PassedOver {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::NoAnswer => "no-answer",
            Self::Refused => "refused",
            Self::Busy => "busy",
            Self::BadPackets => "bad-packets",
            Self::Withheld => "withheld",
        }
    }
}

#[derive(Debug, Default)]
struct Known {
    /// Smoothed, of answers; None before the first.
    answer_time: Option<u64>,
    /// Asked last until then.
    until: Time,
    told: Option<Time>,
    used: Time,
}

/// A request that is on the way.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) source: Source,
    pub(super) ranges: Vec<(u64, u64)>,
    pub(super) at: Time,
}

impl Asked {
    pub(super) fn is_publisher(&self, publisher: &Publisher) -> bool {
        (publisher.site, &publisher.device) == (self.source.site, &self.source.device)
    }
}

/// What a stream asks its sources for: one answer after the other is sought for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Errand {
    /// What it misses.
    Repair,
    /// What comes next, without multicast (SC-44).
    Follow,
}

pub(super) type ErrandOf = (StreamId, Errand);

/// Who has been asked for what a stream wants now.
#[derive(Debug, Default)]
struct Round {
    asked: Option<Asked>,
    tried: Vec<Source>,
}

#[derive(Debug, Default)]
pub(super) struct Sources {
    /// In the order of the directory.
    nodes: Vec<Source>,
    known: Vec<(Source, Known)>,
    rounds: BTreeMap<ErrandOf, Round>,
    /// When the directory last told who there is.
    told: Time,
}

impl Sources {
    pub(super) fn set_nodes(&mut self, nodes: Vec<Source>, now: Time) {
        (self.nodes, self.told) = (nodes, now);
    }

    /// Whether nobody has told for so long who there is.
    pub(super) fn is_older_than(&self, age: u64, now: Time) -> bool {
        now.saturating_sub(self.told) > age
    }

    fn known(&self, source: &Source) -> Option<&Known> {
        self.known
            .iter()
            .find_map(|(of, known)| (of == source).then_some(known))
    }

    fn known_mut(&mut self, source: &Source, now: Time) -> &mut Known {
        let at = match self.known.iter().position(|(of, _)| of == source) {
            Some(at) => at,
            None => {
                if self.known.len() >= MAX_KNOWN
                    && let Some(oldest) = (0..self.known.len()).min_by_key(|&at| self.known[at].1.used)
                {
                    self.known.swap_remove(oldest);
                }
                self.known.push((source.clone(), Known::default()));
                self.known.len() - 1
            }
        };
        let known = &mut self.known[at].1;
        known.used = now;
        known
    }

    /// The next source for an errand of a stream of these publishers' addresses, and whether there is another one after it.
    pub(super) fn next(&self, errand: &ErrandOf, publishers: &[Source], now: Time) -> Option<(Source, bool)> {
        let tried = self.rounds.get(errand).map_or(&[][..], |round| &round.tried);
        let rank = |(at, source): (usize, &Source)| {
            let known = self.known(source);
            let is_penalised = known.is_some_and(|known| known.until > now);
            let is_publisher = at >= self.nodes.len();
            let time = known
                .filter(|_| !is_publisher)
                .and_then(|known| known.answer_time);
            (is_penalised, is_publisher, time.unwrap_or(0), at)
        };
        let mut left: Vec<_> = self
            .nodes
            .iter()
            .chain(publishers)
            .enumerate()
            .filter(|(_, source)| !tried.contains(source))
            .map(|each| (rank(each), each.1))
            .collect();
        left.sort_unstable_by_key(|(rank, _)| *rank);
        let (_, first) = left.first()?;
        Some(((*first).clone(), left.len() > 1))
    }

    pub(super) fn asked(&mut self, errand: ErrandOf, asked: Asked) {
        self.rounds.entry(errand).or_default().asked = Some(asked);
    }

    /// What the answer that has just come was asked.
    pub(super) fn take_asked(&mut self, errand: &ErrandOf) -> Option<Asked> {
        self.rounds.get_mut(errand)?.asked.take()
    }

    /// A source has answered; `is_all`: with everything that it was asked for.
    pub(super) fn answered(
        &mut self,
        errand: &ErrandOf,
        asked: &Asked,
        is_all: bool,
        now: Time,
        events: &mut VecDeque<Event>,
    ) {
        let took = now.saturating_sub(asked.at);
        let known = self.known_mut(&asked.source, now);
        known.until = 0;
        // How long an answer that waits for something takes says nothing of who gives it.
        if errand.1 == Errand::Repair {
            known.answer_time = Some(
                known
                    .answer_time
                    .map_or(took, |before| before - before / 4 + took / 4),
            );
        }
        if is_all {
            let tried = self.rounds.remove(errand).map_or(Vec::new(), |round| round.tried);
            for source in tried.iter().filter(|&source| *source != asked.source) {
                self.tell(source, PassedOver::Withheld, now, events);
            }
        }
    }

    /// A source has failed: it is asked last for a while.
    pub(super) fn failed(&mut self, source: &Source, now: Time) {
        self.known_mut(source, now).until = now.saturating_add(PENALTY);
    }

    /// Tells that a source was passed over.
    pub(super) fn tell(
        &mut self,
        source: &Source,
        reason: PassedOver,
        now: Time,
        events: &mut VecDeque<Event>,
    ) {
        let known = self.known_mut(source, now);
        if known
            .told
            .is_some_and(|told| now.saturating_sub(told) < TELL_INTERVAL)
        {
            return;
        }
        known.told = Some(now);
        events.push_back(Event::SourcePassedOver {
            source: source.clone(),
            reason: reason.as_str(),
        });
    }

    /// For what this stream wants now, another source is to be asked; false if all of them have been.
    pub(super) fn pass_over(
        &mut self,
        errand: &ErrandOf,
        source: &Source,
        publishers: &[Source],
        now: Time,
    ) -> bool {
        self.rounds.entry(*errand).or_default().tried.push(source.clone());
        if self.next(errand, publishers, now).is_some() {
            return true;
        }
        self.rounds.remove(errand);
        false
    }

    /// Nothing is missing any more of this stream, or it is gone.
    pub(super) fn settled(&mut self, errand: &ErrandOf) {
        if self.rounds.get(errand).is_some_and(|round| round.asked.is_none()) {
            self.rounds.remove(errand);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::SiteId;

    const STREAM: ErrandOf = (StreamId([1; 16]), Errand::Repair);

    fn source(device: &str) -> Source {
        Source {
            site: SiteId([1; 16]),
            device: device.to_owned(),
            host: "192.0.2.1".to_owned(),
            port: 443,
        }
    }

    fn order(sources: &Sources, publisher: &[Source], now: Time) -> Vec<String> {
        let mut copy = Sources {
            nodes: sources.nodes.clone(),
            ..Sources::default()
        };
        for (of, known) in &sources.known {
            let into = copy.known_mut(of, 0);
            (into.answer_time, into.until) = (known.answer_time, known.until);
        }
        let mut found = Vec::new();
        while let Some((next, _)) = copy.next(&STREAM, publisher, now) {
            copy.pass_over(&STREAM, &next, publisher, now);
            found.push(next.device);
            if found.len() == sources.nodes.len() + publisher.len() {
                break;
            }
        }
        found
    }

    #[test]
    fn nodes_by_their_answers_then_the_publisher_then_who_failed() {
        let (mut sources, mut events) = (Sources::default(), VecDeque::new());
        let publisher = [source("publisher")];
        sources.set_nodes(vec![source("a"), source("b"), source("c")], 0);
        assert_eq!(order(&sources, &publisher, 0), ["a", "b", "c", "publisher"]);
        for (device, at) in [("a", 0), ("b", 9_000)] {
            let asked = Asked {
                source: source(device),
                ranges: vec![(0, 0)],
                at,
            };
            sources.asked(STREAM, asked.clone());
            sources.answered(&STREAM, &asked, true, 10_000, &mut events);
        }
        assert_eq!(order(&sources, &publisher, 10_000), ["c", "b", "a", "publisher"]);
        sources.failed(&source("c"), 20_001);
        for at in [20_001, 20_002] {
            sources.tell(&source("c"), PassedOver::NoAnswer, at, &mut events);
        }
        assert_eq!(order(&sources, &publisher, 20_001), ["b", "a", "publisher", "c"]);
        assert_eq!(
            order(&sources, &publisher, 20_001 + PENALTY),
            ["c", "b", "a", "publisher"]
        );
        assert_eq!(events.len(), 1, "told once");
    }

    #[test]
    fn what_is_known_of_sources_is_bounded() {
        let mut sources = Sources::default();
        for n in 0..3 * MAX_KNOWN {
            sources.known_mut(&source(&format!("s{n}")), n as Time);
        }
        assert_eq!(sources.known.len(), MAX_KNOWN);
        assert!(
            sources
                .known(&source(&format!("s{}", 3 * MAX_KNOWN - 1)))
                .is_some()
        );
    }
}
