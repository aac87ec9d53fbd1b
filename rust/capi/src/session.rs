//! What publishers and subscribers of a host share: one engine, its requests, and the care for its device's folder.
//!
//! No thread runs here but the driver's: the host's calls do the work, those for the next request above all.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sealcast_core::credential::Publisher;
use sealcast_core::crl::CrlSet;
use sealcast_core::event::{Command, Event, Response};
use sealcast_core::member::{Floors, Member, MemberConfig, Purpose};
use sealcast_core::messages::empty_request;
use sealcast_core::policy::Policy;
use sealcast_core::schedule::channel_id;
use sealcast_core::validator::{Role, Validator, is_channel_name};
use sealcast_core::wire::{ChannelId, SiteId};
use sealcast_net::{Notifier, Presence, steady_clock, wall_clock};

use crate::admission::Admission;
use crate::event::{SealcastEvent, told};
use crate::folder::{self, Seen};
use crate::identity::Identity;
use crate::memory::Buffer;
use crate::request::{Answer, Expected, Origin, Requests, SealcastRequest};
use crate::route::host_of;
use crate::signal::{Signal, after};
use crate::status::{Failure, Outcome, SealcastStatus};

/// How often the folder is looked at for renewed credentials, and a deadline is looked for where there is no driver.
const LOOK: Duration = Duration::from_secs(1);
/// Events that wait for the host; of more the oldest are dropped, and counted.
const MAX_EVENTS: usize = 1024;

/// What senders and receivers have in common.
pub(crate) trait Engine: Send + 'static {
    fn member(&self) -> &Member;
    fn member_mut(&mut self) -> &mut Member;
    fn poll_command(&mut self) -> Option<Command>;
    fn has_command(&self) -> bool {
        !self.member().commands.is_empty()
    }
    fn handle_response(&mut self, id: u64, response: Response<'_>, now: u64);
    fn next_deadline(&self) -> Option<u64>;
    fn handle_deadline(&mut self, now: u64);
    fn set_trust(&mut self, validator: Validator, now: u64);
}

/// Which channel, and where its site is.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) site: SiteId,
    pub(crate) keys_url: String,
    pub(crate) channel: String,
    pub(crate) id: ChannelId,
}

impl Place {
    pub(crate) fn new(site: SiteId, keys_url: &str, channel: &str) -> Outcome<Self> {
        if !is_channel_name(channel) {
            return Err(Failure::invalid(format!("{channel:?} is no channel's name")));
        }
        if host_of(keys_url).is_none() {
            return Err(Failure::invalid(format!(
                "no key server at {keys_url:?}: write https://HOST:PORT"
            )));
        }
        Ok(Self {
            site,
            keys_url: keys_url.to_owned(),
            channel: channel.to_owned(),
            id: channel_id(&site, channel),
        })
    }
}

/// What the folder has been told of what was seen.
#[derive(Debug)]
struct Stored {
    floors: Floors,
    signed_time: u64,
    crl: Option<Vec<u8>>,
}

pub(crate) struct Session<E> {
    pub(crate) identity: Arc<Identity>,
    pub(crate) place: Place,
    pub(crate) engine: Arc<Mutex<E>>,
    pub(crate) notifier: Arc<Notifier>,
    /// For those who wait for messages and events, and for those who wait for requests: at full speed messages come far too
    /// often for the second.
    news: Arc<Signal>,
    work: Arc<Signal>,
    requests: Mutex<Requests>,
    events: Mutex<VecDeque<SealcastEvent>>,
    dropped_events: AtomicU64,
    pub(crate) admission: Admission,
    stored: Mutex<Stored>,
    /// When the folder is looked at next, and what was taken from it last.
    looked: Mutex<(Instant, u64)>,
    /// A driver's thread does what is due.
    pub(crate) is_driven: AtomicBool,
    /// The host runs the clock: its latest word.
    host_time: Option<AtomicU64>,
    /// While the key server is told that this device leaves.
    leaving: Mutex<Option<Presence>>,
    is_closed: AtomicBool,
    /// Version of the policy that sockets go by.
    noted_policy: AtomicU64,
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Builds a member from what the folder holds.
pub(crate) fn member_config(
    identity: &Identity,
    place: &Place,
    purpose: Purpose,
    host_time: Option<u64>,
) -> Outcome<(MemberConfig, u64)> {
    let (held, generation) = identity.held();
    let seen = Seen::read(&identity.folder, &place.id, &place.site)?;
    let mut validator = held.validator(host_time.unwrap_or_else(wall_clock))?;
    validator.set_crls(seen.crl.as_deref().and_then(CrlSet::parse));
    let mut seed = [0; 8];
    fill_random(&mut seed);
    let config = MemberConfig {
        site: place.site,
        channel_name: place.channel.clone(),
        device_site: held.site,
        device: held.name.clone(),
        purpose,
        validator,
        jitter_seed: u64::from_le_bytes(seed),
        floors: seen.floors,
        crl_numbers: seen.crl_numbers,
        signed_time: seen.signed_time,
    };
    Ok((config, generation))
}

/// Fresh bytes of the operating system.
///
/// # Panics
/// If it has none: going on would repeat keys.
pub(crate) fn fill_random(bytes: &mut [u8]) {
    aws_lc_rs::rand::fill(bytes).expect("randomness of the operating system");
}

impl<E: Engine> Session<E> {
    /// `generation`: of the identity that the engine was made from. `now`: the host's time, if it runs the clock.
    pub(crate) fn new(
        identity: Arc<Identity>,
        place: Place,
        engine: E,
        generation: u64,
        now: Option<u64>,
    ) -> Self {
        let (news, work) = (Arc::new(Signal::default()), Arc::new(Signal::default()));
        let stored = Stored {
            floors: engine.member().floors(),
            signed_time: engine.member().signed_time(),
            crl: engine.member().crl().map(<[u8]>::to_vec),
        };
        let engine = Arc::new(Mutex::new(engine));
        let tell = {
            let (engine, news, work) = (Arc::downgrade(&engine), Arc::clone(&news), Arc::clone(&work));
            move || {
                if engine.upgrade().is_some_and(|engine| lock(&engine).has_command()) {
                    work.raise();
                }
                news.raise();
            }
        };
        Self {
            admission: Admission::new(Arc::clone(&identity), place.clone()),
            identity,
            place,
            engine,
            notifier: Arc::new(Notifier::new(tell)),
            news,
            work,
            requests: Mutex::default(),
            events: Mutex::default(),
            dropped_events: AtomicU64::new(0),
            stored: Mutex::new(stored),
            looked: Mutex::new((Instant::now() + LOOK, generation)),
            is_driven: AtomicBool::new(false),
            host_time: now.map(AtomicU64::new),
            leaving: Mutex::new(None),
            is_closed: AtomicBool::new(false),
            noted_policy: AtomicU64::new(0),
        }
    }

    /// The engine's time: of a clock that is never set, or the host's.
    pub(crate) fn now(&self) -> u64 {
        match &self.host_time {
            Some(time) => time.load(Ordering::Acquire),
            None => steady_clock(),
        }
    }

    /// Takes the host's word for the time; it never goes back.
    pub(crate) fn set_time(&self, now: u64) -> Outcome<()> {
        let Some(time) = &self.host_time else {
            let text = "the library runs the clock: make it with host_sockets to give it a time";
            return Err(Failure::invalid(text));
        };
        time.fetch_max(now, Ordering::AcqRel);
        Ok(())
    }

    pub(crate) fn engine(&self) -> MutexGuard<'_, E> {
        let now = self.now();
        let mut engine = lock(&self.engine);
        engine.member_mut().set_wall(now, self.wall());
        engine
    }

    /// The date: the host's time where that runs the clock.
    fn wall(&self) -> u64 {
        match &self.host_time {
            Some(time) => time.load(Ordering::Acquire),
            None => wall_clock(),
        }
    }

    /// Something has changed that others may wait for.
    pub(crate) fn raise(&self) {
        self.news.raise();
        self.work.raise();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Acquire)
    }

    /// Nothing comes any more; whoever waits is told so.
    pub(crate) fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
        *lock(&self.leaving) = None;
        self.raise();
    }

    /// Attempts something that comes with messages and events until it yields, for so many microseconds.
    pub(crate) fn wait_for<T>(
        &self,
        timeout: u64,
        attempt: impl FnMut() -> Outcome<Option<T>>,
    ) -> Outcome<Result<T, SealcastStatus>> {
        self.wait_at(&self.news, timeout, attempt)
    }

    /// The same for requests.
    pub(crate) fn wait_for_work<T>(
        &self,
        timeout: u64,
        attempt: impl FnMut() -> Outcome<Option<T>>,
    ) -> Outcome<Result<T, SealcastStatus>> {
        self.wait_at(&self.work, timeout, attempt)
    }

    fn wait_at<T>(
        &self,
        signal: &Signal,
        timeout: u64,
        mut attempt: impl FnMut() -> Outcome<Option<T>>,
    ) -> Outcome<Result<T, SealcastStatus>> {
        let until = after(timeout);
        loop {
            let seen = signal.count();
            // From now on there is a signal for what comes.
            self.notifier.rearm();
            let looked = self.now();
            if let Some(result) = attempt()? {
                return Ok(Ok(result));
            }
            if self.is_closed() {
                return Ok(Err(SealcastStatus::Closed));
            }
            let now = Instant::now();
            if now >= until {
                return Ok(Err(SealcastStatus::Timeout));
            }
            signal.wait(seen, until.min(now + self.until_due(looked)));
        }
    }

    /// How long nothing has to be done for time's sake. What was due at `looked` and still is waits for something else: who is
    /// awake for it would only use up the processor.
    fn until_due(&self, looked: u64) -> Duration {
        // The host's time goes on by the host's calls, which raise.
        if self.is_driven.load(Ordering::Acquire) || self.host_time.is_some() {
            return LOOK;
        }
        let now = self.now();
        let deadline = lock(&self.engine).next_deadline().filter(|at| *at > looked);
        deadline.map_or(LOOK, |at| Duration::from_micros(at.saturating_sub(now)).min(LOOK))
    }

    // -- events ------------------------------------------------------------------------------------------------------------

    /// Files an event that is no message.
    pub(crate) fn file(&self, event: Event, engine: &E) {
        match &event {
            Event::Joined { .. } => self.admission.note_refusal(None),
            Event::Refused { reason } => self.admission.note_refusal(Some(reason.clone())),
            _ => {}
        }
        let name_of = |publisher: &Publisher| engine.member().name_of(publisher);
        if let Some(event) = told(event, name_of) {
            self.tell(event);
        }
    }

    pub(crate) fn tell(&self, event: SealcastEvent) {
        let mut events = lock(&self.events);
        if events.len() == MAX_EVENTS {
            events.pop_front();
            self.dropped_events.fetch_add(1, Ordering::Relaxed);
        }
        events.push_back(event);
        drop(events);
        self.news.raise();
    }

    pub(crate) fn next_event(&self) -> Option<SealcastEvent> {
        lock(&self.events).pop_front()
    }

    pub(crate) fn dropped_events(&self) -> u64 {
        self.dropped_events.load(Ordering::Relaxed)
    }

    // -- requests ----------------------------------------------------------------------------------------------------------

    /// Takes the next request for the host, after what time has brought has been done.
    pub(crate) fn next_request(&self, buffer: &mut Buffer) -> Outcome<Option<SealcastRequest>> {
        self.tend();
        let commands: Vec<Command> = {
            let mut engine = self.engine();
            std::iter::from_fn(|| engine.poll_command()).collect()
        };
        let (_, generation) = self.identity.held();
        let key_server = (&self.place.keys_url[..], self.place.site);
        let mut requests = lock(&self.requests);
        let failed: Vec<Answer> = commands
            .into_iter()
            .filter_map(|command| requests.put(command, key_server))
            .collect();
        let request = requests.take(buffer, generation);
        drop(requests);
        for answer in failed {
            self.take_answer(answer, "");
        }
        request
    }

    /// Has the key server told that this device leaves; the session ends with its answer, and until then nobody else enters.
    pub(crate) fn leave(&self, last: Presence) {
        if !self.has_joined() {
            return self.close();
        }
        *lock(&self.leaving) = Some(last);
        let path = lock(&self.engine).member().key_server_path("leave");
        let key_server = (&self.place.keys_url[..], self.place.site);
        let dropped = lock(&self.requests).put_leave(path, empty_request(), key_server);
        if let Some(answer) = dropped {
            self.take_answer(answer, "");
        }
        self.raise();
    }

    /// Takes an answer, or the host's word of why there is none.
    pub(crate) fn respond(&self, id: u64, answer: Result<(u16, Vec<u8>), String>) -> Outcome<()> {
        if answer.as_ref().is_ok_and(|(status, _)| *status == 401) {
            // Another certificate may have come into the folder meanwhile.
            let _ = self.refresh();
        }
        let (_, generation) = self.identity.held();
        let reason = answer.as_ref().err().cloned().unwrap_or_default();
        let done = lock(&self.requests).respond(id, answer.ok(), generation)?;
        if let Some(answer) = done {
            self.take_answer(answer, &reason);
        }
        self.raise();
        Ok(())
    }

    /// `reason`: the host's, why there is none.
    fn take_answer(&self, answer: Answer, reason: &str) {
        let Origin::Engine(id) = answer.origin else {
            return self.close();
        };
        let response = match &answer.answer {
            Some((status, body)) => Response::Answer {
                status: *status,
                body,
            },
            None => Response::Failed,
        };
        let now = self.now();
        self.engine().handle_response(id, response, now);
        let status = answer.answer.as_ref().map(|(status, _)| *status);
        self.admission.note_answer(status, self.has_joined(), reason);
        // What cannot be stored is stored with the next answer: it goes on meanwhile, as the Python package does.
        let _ = self.store();
        self.raise();
    }

    /// Judges who has answered a connection for request `id`, before the request leaves (TR-8, TR-9).
    pub(crate) fn verify_server(&self, id: u64, chain: &[&[u8]]) -> Outcome<()> {
        let (url, expected) = lock(&self.requests).target(id)?.clone();
        let judged = self.judge(&url, &expected, chain);
        if expected.role == Role::KeyServer
            && let Err(failure) = &judged
        {
            self.admission.note_distrust(failure.clone());
        }
        judged
    }

    fn judge(&self, url: &str, expected: &Expected, chain: &[&[u8]]) -> Outcome<()> {
        let (held, _) = self.identity.held();
        let (now, crl) = {
            let engine = self.engine();
            let member = engine.member();
            (member.date(self.now()), member.crl().and_then(CrlSet::parse))
        };
        let mut validator = held.validator(now)?;
        validator.set_crls(crl);
        let mut judged = validator.verify_peer(chain, expected.role, now);
        let is_unknown = judged
            .as_ref()
            .is_err_and(|error| error.to_string() == "revocation-unknown");
        if is_unknown && expected.role == Role::KeyServer {
            // Only the key server has the list that is missing here; its answer is judged by that list.
            validator.set_crls(None);
            judged = validator.verify_peer(chain, expected.role, now);
        }
        let peer = judged.map_err(|error| {
            let text = format!("{url}: the peer's certificate is refused: {error}");
            Failure::new(SealcastStatus::Certificate, text)
        })?;
        if peer.site != expected.site || expected.name.as_ref().is_some_and(|name| *name != peer.name) {
            let text = format!("{url} is {:?}, and not who was asked for", peer.name);
            return Err(Failure::new(SealcastStatus::Certificate, text));
        }
        Ok(())
    }

    // -- time --------------------------------------------------------------------------------------------------------------

    /// Does what is due where no driver does, and looks at the folder now and then.
    fn tend(&self) {
        let now = self.now();
        if !self.is_driven.load(Ordering::Acquire) {
            let mut engine = self.engine();
            if engine.next_deadline().is_some_and(|at| at <= now) {
                engine.handle_deadline(now);
                drop(engine);
                self.news.raise();
            }
        }
        let is_due = {
            let mut looked = lock(&self.looked);
            let is_due = Instant::now() >= looked.0;
            if is_due {
                looked.0 = Instant::now() + LOOK;
            }
            is_due
        };
        if is_due {
            // A folder that cannot be read just now is looked at again.
            let _ = self.refresh();
        }
    }

    /// Goes on with renewed credentials and with a new trust bundle.
    fn refresh(&self) -> Outcome<()> {
        self.identity.refresh()?;
        let (held, generation) = self.identity.held();
        if lock(&self.looked).1 != generation {
            let validator = held.validator(self.wall())?;
            self.engine().set_trust(validator, self.now());
            lock(&self.looked).1 = generation;
            self.raise();
        }
        Ok(())
    }

    /// What was seen must not be taken back by a restart (invariant 8).
    fn store(&self) -> Outcome<()> {
        let mut stored = lock(&self.stored);
        let (floors, signed_time, crl) = {
            let engine = lock(&self.engine);
            let member = engine.member();
            // Copied only where it is another one: it may have an entry for every device that was removed.
            let crl = member.crl().filter(|crl| stored.crl.as_deref() != Some(*crl));
            (member.floors(), member.signed_time(), crl.map(<[u8]>::to_vec))
        };
        let folder: &PathBuf = &self.identity.folder;
        if (floors, signed_time) != (stored.floors, stored.signed_time) {
            folder::raise(folder, &self.place.id, floors, signed_time, self.wall())?;
            (stored.floors, stored.signed_time) = (floors, signed_time);
        }
        if let Some(document) = crl {
            let (held, _) = self.identity.held();
            let authorities = [&held.issuers[..], &held.chain[1..]].concat();
            folder::take_crl(folder, &self.place.site, &document, &authorities)?;
            stored.crl = Some(document);
        }
        Ok(())
    }

    pub(crate) fn has_joined(&self) -> bool {
        lock(&self.engine).member().policy().is_some()
    }

    /// The policy in force, if it is another one than was noted last: it may name 100,000 devices.
    pub(crate) fn new_policy(&self) -> Option<Policy> {
        let engine = lock(&self.engine);
        let policy = engine.member().policy()?;
        (policy.version != self.noted_policy.load(Ordering::Acquire)).then(|| policy.clone())
    }

    /// What a policy says is done.
    pub(crate) fn note_policy(&self, version: u64) {
        self.noted_policy.store(version, Ordering::Release);
    }
}
