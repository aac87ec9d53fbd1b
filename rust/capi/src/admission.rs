//! What stands between a device and its channel: the key server's word, or no answer that holds.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use crate::identity::Identity;
use crate::session::{Place, lock};
use crate::status::{Failure, Outcome, SealcastStatus};

/// Of one publisher or subscriber.
pub(crate) struct Admission {
    identity: Arc<Identity>,
    place: Place,
    /// The reason that the key server gave when it refused last; none once it has taken us in.
    refusal: Mutex<Option<String>>,
    /// No call has failed with that reason yet, whichever call has brought it up.
    is_refusal_untold: AtomicBool,
    /// What has kept the last request from an answer, or the key server from being believed.
    trouble: Mutex<Option<Failure>>,
}

/// Whether the key server was there, and was not believed.
fn is_distrust(failure: &Failure) -> bool {
    failure.status == SealcastStatus::Certificate
}

impl Admission {
    pub(crate) fn new(identity: Arc<Identity>, place: Place) -> Self {
        Self {
            identity,
            place,
            refusal: Mutex::default(),
            is_refusal_untold: AtomicBool::new(false),
            trouble: Mutex::default(),
        }
    }

    /// The key server's reason; none: it has taken us in.
    pub(crate) fn note_refusal(&self, reason: Option<String>) {
        let mut held = lock(&self.refusal);
        self.is_refusal_untold.store(reason.is_some(), Ordering::Release);
        *held = reason;
    }

    /// The HTTP status of an answer, or the host's reason why there is none.
    pub(crate) fn note_answer(&self, status: Option<u16>, has_joined: bool, reason: &str) {
        let url = &self.place.keys_url;
        let text = match status {
            Some(200) if has_joined => None,
            Some(200) => Some(format!("{url} gave an answer that does not hold")),
            Some(status) => Some(format!("{url} answered with the HTTP status {status}")),
            None if reason.is_empty() => Some(format!(
                "nobody answers at {url}: see whether it runs, and can be reached"
            )),
            None => Some(format!("nobody answers at {url}, or was not believed: {reason}")),
        };
        let mut trouble = lock(&self.trouble);
        // Who was not believed is told of that.
        if status.is_some() || !trouble.as_ref().is_some_and(is_distrust) {
            *trouble = text.map(|text| Failure::new(SealcastStatus::Unreachable, text));
        }
    }

    /// Why the key server was not believed.
    pub(crate) fn note_distrust(&self, failure: Failure) {
        *lock(&self.trouble) = Some(failure);
    }

    /// Fails with a refusal, once for each.
    pub(crate) fn tell_refusal(&self) -> Outcome<()> {
        if self.is_refusal_untold.swap(false, Ordering::AcqRel) {
            self.refused().map_or(Ok(()), Err)
        } else {
            Ok(())
        }
    }

    /// Fails where the key server was not believed, once for each time: a join does not wait for it to become another.
    pub(crate) fn tell_distrust(&self) -> Outcome<()> {
        let failure = lock(&self.trouble).take_if(|failure| is_distrust(failure));
        failure.map_or(Ok(()), Err)
    }

    /// What keeps this device from its channel, by the key server's word.
    pub(crate) fn refused(&self) -> Option<Failure> {
        let reason = lock(&self.refusal).clone()?;
        let (name, channel) = (self.identity.held().0.name.clone(), &self.place.channel);
        let (status, text) = match &reason[..] {
            "unknown-channel" => (
                SealcastStatus::UnknownChannel,
                format!("there is no channel {channel:?}"),
            ),
            "not-allowed" => (
                SealcastStatus::NotAllowed,
                format!("the policy of channel {channel:?} does not let device {name:?} do this"),
            ),
            "revoked" => (
                SealcastStatus::Revoked,
                format!("device {name:?} is revoked; enrol it anew with a token if that was a mistake"),
            ),
            "not-authenticated" => (
                SealcastStatus::Certificate,
                format!(
                    "the key server does not accept the certificate of device {name:?}: renew it, or enrol again"
                ),
            ),
            // What is in order again without us, such as a key server that has too much to do.
            _ => return None,
        };
        Some(Failure::new(status, text))
    }

    /// What a wait that ended without a join has to say.
    pub(crate) fn not_joined(&self, status: SealcastStatus) -> Outcome<SealcastStatus> {
        if status != SealcastStatus::Timeout {
            return Ok(status);
        }
        let mut failure = lock(&self.trouble).clone().unwrap_or_else(|| {
            let text = format!("nobody has answered at {} yet", self.place.keys_url);
            Failure::new(SealcastStatus::Unreachable, text)
        });
        if let Some(reason) = lock(&self.refusal).as_ref().filter(|reason| !reason.is_empty()) {
            failure.text = format!("{}: {reason}", failure.text);
        }
        Err(failure)
    }
}
