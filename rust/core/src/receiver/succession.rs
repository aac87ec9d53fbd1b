//! Which stream continues which: one publisher over its restarts, as an application sees it.
//!
//! Spec: wire.md section 9 (DP-32).

use crate::credential::{Publisher, VerifiedCredential};
use crate::event::{Claim, Event};
use crate::receiver::Receiver;
use crate::wire::StreamId;

/// Only of the same site, device and instance may a stream be continued.
fn is_same_publisher(one: &Publisher, other: &Publisher) -> bool {
    (one.site, &one.device, &one.instance) == (other.site, &other.device, &other.instance)
}

impl Receiver {
    /// The stream that a verified credential continues, if it may: told by the credential of that stream, which is known.
    pub(super) fn settle_succession(&mut self, credential: &VerifiedCredential) -> Option<StreamId> {
        let predecessor = credential.credential.succeeds?;
        let running = self.streams.get(&predecessor);
        let publisher = running
            .or_else(|| self.suspended.get(&predecessor))
            .map(|old| &old.publisher)
            .or_else(|| self.closed.publisher(&predecessor))?;
        if !is_same_publisher(publisher, &credential.publisher) {
            self.counters.foreign_successions += 1;
            return None;
        }
        self.heed_named_successor(predecessor);
        let claim = Claim {
            stream: credential.stream(),
            credential: Some(credential.bundle.clone()),
        };
        match self.successors.get_mut(&predecessor) {
            Some(first) if first.stream != claim.stream => {
                let first = first.clone();
                self.report_conflict(predecessor, first, claim);
                return None;
            }
            Some(first) => first.credential = claim.credential,
            None => {
                self.successors.insert(predecessor, claim);
            }
        }
        if let Some(old) = self.streams.get_mut(&predecessor) {
            if !old.is_succeeded() {
                old.succeeded(&mut self.member.events);
            }
        } else if let Some(mut old) = self.suspended.remove(&predecessor) {
            // Nobody will speak for it any more: what it still owed is told.
            self.counters.lost += old.abandon(&mut self.member.events);
            self.remember_closed(predecessor, old.window.head(), &old.publisher);
        } else {
            self.let_successor_go(&predecessor);
        }
        Some(predecessor)
    }

    /// Whom the signed end of a stream names continues it, whoever else came first.
    pub(super) fn heed_named_successor(&mut self, predecessor: StreamId) {
        let Some(old) = self.streams.get(&predecessor) else {
            return;
        };
        let Some(named) = old.named_successor() else {
            return;
        };
        let before = self.successors.get(&predecessor).cloned();
        if before.as_ref().is_some_and(|claim| claim.stream == named) {
            return;
        }
        // What the named one itself says, once it is here, is checked like any other claim.
        let claim = Claim {
            stream: named,
            credential: None,
        };
        self.successors.insert(predecessor, claim.clone());
        if let Some(second) = before {
            self.report_conflict(predecessor, claim, second);
        }
    }

    /// A stream may be learned of after the one that succeeds it: its end is then as unknown as in the other order.
    pub(super) fn find_successor(&mut self, id: StreamId) {
        let Some(old) = self.streams.get(&id) else { return };
        if old.is_succeeded() {
            return;
        }
        let first = self.successors.get(&id).map(|claim| claim.stream);
        let claims = |credential: &&VerifiedCredential| {
            credential.credential.succeeds == Some(id)
                && is_same_publisher(&credential.publisher, &old.publisher)
                && first.is_none_or(|first| first == credential.stream())
        };
        let mut credentials: Vec<VerifiedCredential> = self
            .streams
            .values()
            .map(|stream| &stream.credential)
            .filter(claims)
            .cloned()
            .collect();
        credentials.sort_by_key(VerifiedCredential::stream);
        for credential in &credentials {
            self.settle_succession(credential);
        }
    }

    /// Both credentials are signed by the device: together they prove what it did.
    fn report_conflict(&mut self, predecessor: StreamId, first: Claim, second: Claim) {
        let with_proof = |claim: Claim| {
            let held = self.streams.get(&claim.stream);
            let bundle = held.map(|stream| stream.credential.bundle.clone());
            Claim {
                stream: claim.stream,
                credential: claim.credential.or(bundle),
            }
        };
        let (first, second) = (with_proof(first), with_proof(second));
        self.member.events.push_back(Event::SuccessionConflict {
            predecessor,
            first,
            second,
        });
    }

    /// The proof of a successor is kept as long as its predecessor; who it was, as long as that one's place.
    pub(super) fn let_successor_go(&mut self, predecessor: &StreamId) {
        if let Some(claim) = self.successors.get_mut(predecessor) {
            claim.credential = None;
        }
    }
}
