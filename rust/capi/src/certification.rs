//! The device's word for the key of its stream: given at the join, and anew before it ends.
//!
//! Spec: spec/trust.md TR-11.

use sealcast_core::block::sign_input;
use sealcast_core::crypto::sha256;
use sealcast_core::sender::Sender;
use sealcast_core::signed::{CREDENTIAL_CONTEXT, SignedObject};
use sealcast_core::validator::Certificate;
use sealcast_core::wire::StreamId;

use crate::event::SealcastEvent;
use crate::folder::Credentials;
use crate::session::Session;
use crate::status::{Failure, Outcome, SealcastStatus};

const SECOND: u64 = 1_000_000;
/// A stream credential ends with the device certificate, or a day after it was made; another follows after half of that.
const CREDENTIAL_LIFE: u64 = 24 * 3600 * SECOND;
const SKEW: u64 = 60 * SECOND;
/// So long a key that did not sign is left alone: a token may count its failures, and a person may have to be there.
const FIRST_WAIT: u64 = 10 * SECOND;
const LONGEST_WAIT: u64 = 600 * SECOND;

/// For which certificate, from when and until when the stream key is vouched for.
#[derive(Clone, Copy, Debug)]
struct Term {
    generation: u64,
    not_before: u64,
    not_after: u64,
    renew_at: u64,
    succeeds: Option<StreamId>,
}

/// The device key did not sign.
#[derive(Debug)]
struct Setback {
    failure: Failure,
    generation: u64,
    wait: u64,
    again_at: u64,
}

/// Of one stream.
#[derive(Debug, Default)]
pub(crate) struct Certification {
    term: Option<Term>,
    setback: Option<Setback>,
}

impl Certification {
    /// Lets the device key vouch for the stream key, where that is due; true if it did.
    pub(crate) fn certify(&mut self, session: &Session<Sender>) -> Outcome<bool> {
        let (held, generation) = session.identity.held();
        let now = session.now();
        let engine = session.engine();
        let date = engine.member().sealing_date(now);
        // Whoever sets the clock right must not wait half a day for a credential that is in force.
        let is_in_force = |term: &Term| {
            term.generation == generation
                && now < term.renew_at
                && (term.not_before..=term.not_after).contains(&date)
        };
        if self.term.as_ref().is_some_and(is_in_force) {
            return Ok(false);
        }
        let before = self
            .setback
            .as_ref()
            .filter(|before| before.generation == generation);
        if let Some(before) = before.filter(|before| now < before.again_at) {
            return Err(before.failure.clone());
        }
        let wait = before.map_or(FIRST_WAIT, |before| (before.wait * 2).min(LONGEST_WAIT));
        let (from, until) = Certificate::parse(&held.chain[0])
            .and_then(|certificate| certificate.validity())
            .ok_or_else(|| {
                let text = "the device's certificate does not parse: enrol it again";
                Failure::new(SealcastStatus::Certificate, text)
            })?;
        if date >= until {
            if self.term.is_some() {
                // It goes on for as long as its credential does; the folder is looked at again.
                return Ok(false);
            }
            let text = format!(
                "the certificate of device {:?} has expired: enrol it again",
                held.name
            );
            return Err(Failure::new(SealcastStatus::Certificate, text));
        }
        let succeeds = self
            .term
            .map_or_else(|| engine.predecessor(), |term| term.succeeds);
        let term = Term {
            generation,
            not_before: date.saturating_sub(SKEW).max(from),
            not_after: until.min(date + CREDENTIAL_LIFE),
            renew_at: now + CREDENTIAL_LIFE / 2,
            succeeds,
        };
        let hash = sha256(&[&held.chain[0]]);
        let tbs = engine.credential_tbs(
            held.site,
            &held.name,
            hash,
            term.not_before,
            term.not_after,
            succeeds,
        );
        let Some(tbs) = tbs else {
            return Ok(false);
        };
        // The device key may be slow: the engine is not held meanwhile.
        drop(engine);
        match give(session, &held, &tbs, term.not_after) {
            Ok(()) => {
                (self.term, self.setback) = (Some(term), None);
                Ok(true)
            }
            Err(failure) => {
                let text = format!("{}; tried again in {} s", failure.text, wait / SECOND);
                session.tell(SealcastEvent::blocked(text));
                self.setback = Some(Setback {
                    failure: failure.clone(),
                    generation,
                    wait,
                    again_at: now + wait,
                });
                Err(failure)
            }
        }
    }

    /// Has a key that did not sign be asked the next time: somebody may have seen to it.
    pub(crate) fn try_again(&mut self) {
        if let Some(setback) = &mut self.setback {
            setback.again_at = 0;
        }
    }

    /// Why nothing can be sealed any more, if the key is why.
    pub(crate) fn obstacle(&self, session: &Session<Sender>) -> Option<Failure> {
        let setback = self.setback.as_ref()?;
        let date = session.engine().member().sealing_date(session.now());
        let is_over = self.term.is_none_or(|term| date > term.not_after);
        is_over.then(|| setback.failure.clone())
    }
}

/// Signs a credential, and gives it to the engine.
fn give(session: &Session<Sender>, held: &Credentials, tbs: &[u8], not_after: u64) -> Outcome<()> {
    let message = sign_input(CREDENTIAL_CONTEXT, tbs);
    let (algorithm, signature) = session.identity.signer.sign(held, &message)?;
    let signed = SignedObject {
        tbs,
        algorithm,
        signature: &signature,
    };
    session
        .engine()
        .set_credential(&signed.encode(), &held.chain, not_after, session.now())
        .map_err(|error| Failure::invalid(format!("{error}: use a larger MTU, or a shorter chain")))
}
