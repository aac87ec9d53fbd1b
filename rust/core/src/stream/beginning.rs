//! Where a stream is taken up: at its head, or as far back as its publisher's retention and our admission reach.
//!
//! Spec: wire.md DP-34, DP-44.

use std::collections::VecDeque;

use super::Stream;
use crate::event::Event;

/// From where on a subscriber wants the streams that run already when it joins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// From the head told at joining.
    Now,
    /// The same, and the last value of each topic.
    Last,
    /// As far back as retention and admission go.
    Oldest,
}

/// Where one stream is taken up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beginning {
    pub(super) sequence: u64,
    /// A message may have begun before, and was never ours to get.
    pub(super) is_midway: bool,
    /// The head told at joining, while it is not known how far below it the stream can be had.
    pub(super) sought_below: Option<u64>,
    /// Of what came before this the last value of each topic may be taken.
    pub(super) copies_below: u64,
    pub(super) wants_copies: bool,
}

impl Beginning {
    /// A stream that is ours from `sequence` on: from its first packet, or from where we left it.
    pub fn at(sequence: u64) -> Self {
        Self {
            sequence,
            is_midway: false,
            sought_below: None,
            copies_below: 0,
            wants_copies: false,
        }
    }

    /// A stream that ran up to `head` when we joined.
    pub fn joining(start: Start, head: u64) -> Self {
        match start {
            Start::Oldest if head > 0 => Self {
                sequence: 0,
                is_midway: true,
                sought_below: Some(head),
                // Not before it is known where it begins: what is sought may come as it was.
                copies_below: 0,
                wants_copies: true,
            },
            _ => Self {
                sequence: head,
                is_midway: head > 0,
                sought_below: None,
                copies_below: head,
                wants_copies: start == Start::Last,
            },
        }
    }

    /// The sequence from which on a loss is one.
    pub fn owed_from(&self) -> u64 {
        self.sought_below.unwrap_or(self.sequence)
    }
}

impl Stream {
    /// Whether it has to be found out where the stream begins for us.
    pub fn is_seeking(&self) -> bool {
        self.sought_below.is_some()
    }

    /// Single packets all over what may be had, to ask for first: what was sealed before our admission shows by them, and is
    /// not fetched. Times and epochs never go back within a stream, so there is one place where ours begins.
    pub fn probes(&self, most: usize) -> Vec<(u64, u64)> {
        let head = self.window.head();
        let step = head.div_ceil(most as u64).max(1);
        let mut probes: Vec<(u64, u64)> = (0..head)
            .rev()
            .step_by(step as usize)
            .map(|at| (at, at))
            .collect();
        probes.truncate(most);
        probes.reverse();
        probes
    }

    /// The stream begins here for us: what lies before is passed over, as it was never ours to get.
    pub fn begin_at(&mut self, sequence: u64, events: &mut VecDeque<Event>) {
        if self.sought_below.take().is_none() {
            return;
        }
        let begins = sequence.min(self.window.head());
        self.window.give_up(0, begins);
        self.copies.begin_at(begins);
        self.drain(events);
    }

    /// A packet came that was sealed before our admission, and so was all before it: messages may have begun there, and of values
    /// that stood there a copy is new.
    pub fn was_before_admission(&mut self, sequence: u64) {
        self.reassembler.begin_midway();
        self.copies.begin_at(sequence + 1);
    }

    /// Nobody could be asked in time: it begins at the head told at joining.
    pub fn give_up_seeking(&mut self, events: &mut VecDeque<Event>) {
        if let Some(head) = self.sought_below {
            self.begin_at(head, events);
        }
    }
}
