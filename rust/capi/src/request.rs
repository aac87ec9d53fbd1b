//! Requests on the side channel: what a host is to ask by HTTPS, and of whom an answer counts.
//!
//! The engine names a key server, or peers of which each is tried when the one before has not what is asked for; a host sees
//! one request after the other.

use std::collections::{HashMap, VecDeque};
use std::ffi::c_char;

use sealcast_core::event::{Command, Source, Target};
use sealcast_core::validator::Role;
use sealcast_core::wire::SiteId;

use crate::folder::hex;
use crate::memory::{Buffer, too_small};
use crate::status::{Failure, Outcome, SealcastStatus};

/// Requests that wait for the host, at most: beyond that the oldest counts as failed.
const MAX_WAITING: usize = 256;

/// A request that a host is to make. What is pointed to lies in the host's buffer.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct SealcastRequest {
    /// To be given back with the answer.
    pub id: u64,
    /// "GET", "POST" or "PUT".
    pub method: *const c_char,
    /// "https://host:port/path".
    pub url: *const c_char,
    /// Who has to answer. A connection may be kept for requests to the same host and port with the same `peer` alone.
    pub peer: *const c_char,
    /// Content-Type of the body: "application/cbor", or "" where there is none.
    pub content_type: *const c_char,
    /// What to send.
    pub body: *const u8,
    /// Its bytes; 0 for none.
    pub body_length: usize,
    /// Microseconds after which the host gives up.
    pub timeout: u64,
    /// As in sealcast_identity_info: another one than before means another certificate, and new connections.
    pub identity_generation: u64,
}

impl SealcastRequest {
    /// What says how long a buffer has to be.
    pub(crate) fn needing(bytes: usize) -> Self {
        Self {
            id: 0,
            method: std::ptr::null(),
            url: std::ptr::null(),
            peer: std::ptr::null(),
            content_type: std::ptr::null(),
            body: std::ptr::null(),
            body_length: bytes,
            timeout: 0,
            identity_generation: 0,
        }
    }
}

/// Who has to answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Expected {
    pub(crate) role: Role,
    pub(crate) site: SiteId,
    /// None: whoever has the role.
    pub(crate) name: Option<String>,
}

impl core::fmt::Display for Expected {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}:{}", self.role.as_str(), hex(&self.site.0))?;
        self.name.as_ref().map_or(Ok(()), |name| write!(f, ":{name}"))
    }
}

/// Whom an answer goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    Engine(u64),
    /// The good-bye of a subscriber, which closes it.
    Leave,
}

#[derive(Debug)]
struct Job {
    origin: Origin,
    method: &'static str,
    path: String,
    body: Vec<u8>,
    timeout: u64,
    /// Base of the URL, and who is there; the one that is asked now stands first.
    targets: VecDeque<(String, Expected)>,
    /// What the ones before have said.
    last: Option<(u16, Vec<u8>)>,
    /// Of the identity that was shown.
    generation: u64,
}

/// What has become of a command.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) origin: Origin,
    /// None: nobody could be reached.
    pub(crate) answer: Option<(u16, Vec<u8>)>,
}

#[derive(Debug, Default)]
pub(crate) struct Requests {
    next_id: u64,
    waiting: VecDeque<Job>,
    asked: HashMap<u64, Job>,
}

impl Requests {
    /// Takes a command; returns what it is answered with at once where nobody can be asked.
    pub(crate) fn put(&mut self, command: Command, key_server: (&str, SiteId)) -> Option<Answer> {
        let targets: VecDeque<_> = match command.target {
            Target::KeyServer => VecDeque::from([(
                key_server.0.trim_end_matches('/').to_owned(),
                Expected {
                    role: Role::KeyServer,
                    site: key_server.1,
                    name: None,
                },
            )]),
            // One that does not listen is served by repair nodes, which listen.
            Target::Peers(peers) => peers
                .into_iter()
                .filter(|peer| !peer.host.is_empty())
                .map(peer_target)
                .collect(),
        };
        let job = Job {
            origin: Origin::Engine(command.id),
            method: command.method,
            path: command.path,
            body: command.body,
            timeout: command.timeout,
            targets,
            last: None,
            generation: 0,
        };
        self.put_job(job)
    }

    /// Asks to be let go of; returns what there is no place for any more, as [`Self::put`].
    pub(crate) fn put_leave(
        &mut self,
        path: String,
        body: Vec<u8>,
        (url, site): (&str, SiteId),
    ) -> Option<Answer> {
        let expected = Expected {
            role: Role::KeyServer,
            site,
            name: None,
        };
        self.put_job(Job {
            origin: Origin::Leave,
            method: "POST",
            path,
            body,
            timeout: 2_000_000,
            targets: VecDeque::from([(url.trim_end_matches('/').to_owned(), expected)]),
            last: None,
            generation: 0,
        })
    }

    fn put_job(&mut self, job: Job) -> Option<Answer> {
        if job.targets.is_empty() {
            return Some(Answer {
                origin: job.origin,
                answer: None,
            });
        }
        self.waiting.push_back(job);
        if self.waiting.len() <= MAX_WAITING {
            return None;
        }
        let oldest = self.waiting.pop_front()?;
        Some(Answer {
            origin: oldest.origin,
            answer: None,
        })
    }

    /// The next request, written to the host's buffer; it stays where it is if there is no room.
    pub(crate) fn take(&mut self, buffer: &mut Buffer, generation: u64) -> Outcome<Option<SealcastRequest>> {
        let Some(mut job) = self.waiting.pop_front() else {
            return Ok(None);
        };
        let url = format!("{}{}", job.targets[0].0, job.path);
        let peer = job.targets[0].1.to_string();
        let content_type = if job.body.is_empty() {
            ""
        } else {
            "application/cbor"
        };
        let capacity = buffer.room();
        let written = (|| {
            Some(SealcastRequest {
                id: self.next_id + 1,
                method: buffer.put_text(job.method)?,
                url: buffer.put_text(&url)?,
                peer: buffer.put_text(&peer)?,
                content_type: buffer.put_text(content_type)?,
                body: buffer.put(&job.body)?,
                body_length: job.body.len(),
                timeout: job.timeout,
                identity_generation: generation,
            })
        })();
        let Some(request) = written else {
            let needed = job.method.len() + url.len() + peer.len() + content_type.len() + job.body.len() + 4;
            self.waiting.push_front(job);
            return Err(too_small(needed, capacity));
        };
        self.next_id += 1;
        job.generation = generation;
        self.asked.insert(self.next_id, job);
        Ok(Some(request))
    }

    /// Where a request goes, and who has to answer.
    pub(crate) fn target(&self, id: u64) -> Outcome<&(String, Expected)> {
        let job = self.asked.get(&id).ok_or_else(|| unknown(id))?;
        Ok(&job.targets[0])
    }

    /// Takes an answer; returns what is final.
    pub(crate) fn respond(
        &mut self,
        id: u64,
        answer: Option<(u16, Vec<u8>)>,
        generation: u64,
    ) -> Outcome<Option<Answer>> {
        let mut job = self.asked.remove(&id).ok_or_else(|| unknown(id))?;
        let status = answer.as_ref().map(|(status, _)| *status);
        let is_of_key_server = job.targets[0].1.role == Role::KeyServer;
        // A request may last as long as a rotation needs to retire the certificate that it began with.
        if is_of_key_server && status == Some(401) && job.generation != generation {
            self.waiting.push_front(job);
            return Ok(None);
        }
        job.last = answer.or(job.last);
        job.targets.pop_front();
        if status != Some(200) && !job.targets.is_empty() {
            self.waiting.push_front(job);
            return Ok(None);
        }
        Ok(Some(Answer {
            origin: job.origin,
            answer: job.last,
        }))
    }
}

fn peer_target(peer: Source) -> (String, Expected) {
    let url = if peer.host.contains(':') {
        format!("https://[{}]:{}", peer.host, peer.port)
    } else {
        format!("https://{}:{}", peer.host, peer.port)
    };
    let expected = Expected {
        role: Role::Device,
        site: peer.site,
        name: Some(peer.device),
    };
    (url, expected)
}

fn unknown(id: u64) -> Failure {
    let text = format!("there is no request {id}: it has been answered, or was never asked");
    Failure::new(SealcastStatus::UnknownRequest, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SITE: SiteId = SiteId([1; 16]);

    fn command(target: Target) -> Command {
        Command {
            id: 7,
            target,
            method: "POST",
            path: "/v1/repair".to_owned(),
            body: b"body".to_vec(),
            timeout: 1,
        }
    }

    fn source(device: &str, host: &str) -> Source {
        Source {
            site: SITE,
            device: device.to_owned(),
            host: host.to_owned(),
            port: 9,
        }
    }

    fn take(requests: &mut Requests, capacity: usize) -> Outcome<Option<SealcastRequest>> {
        let mut memory = vec![0; capacity];
        // SAFETY: the buffer is as long as is said.
        let mut buffer = unsafe { Buffer::new(memory.as_mut_ptr(), capacity) }?;
        requests.take(&mut buffer, 1)
    }

    #[test]
    fn peers_are_asked_one_after_the_other() {
        let mut requests = Requests::default();
        let peers = vec![source("node", "::1"), source("mute", ""), source("pub", "host")];
        assert_eq!(
            requests.put(command(Target::Peers(peers)), ("https://k", SITE)),
            None
        );
        let first = take(&mut requests, 512).unwrap().unwrap();
        assert_eq!(requests.target(first.id).unwrap().1.name.as_deref(), Some("node"));
        assert_eq!(requests.respond(first.id, Some((404, vec![1])), 1), Ok(None));
        let second = take(&mut requests, 512).unwrap().unwrap();
        assert_eq!(requests.target(second.id).unwrap().1.name.as_deref(), Some("pub"));
        let answer = requests.respond(second.id, None, 1).unwrap().unwrap();
        assert_eq!(
            answer.answer,
            Some((404, vec![1])),
            "the last word that there was"
        );
        let failure = requests.respond(second.id, None, 1).unwrap_err();
        assert_eq!(failure.status, SealcastStatus::UnknownRequest);
    }

    #[test]
    fn a_request_stays_until_there_is_room() {
        let mut requests = Requests::default();
        requests.put(command(Target::KeyServer), ("https://k/", SITE));
        let failure = take(&mut requests, 10).unwrap_err();
        assert_eq!(failure.status, SealcastStatus::BufferTooSmall);
        assert!(take(&mut requests, 128).unwrap().is_some());
        assert!(take(&mut requests, 128).unwrap().is_none());
    }

    #[test]
    fn whom_nobody_can_be_asked_for_is_answered_at_once_and_the_queue_is_bounded() {
        let mut requests = Requests::default();
        let mute = vec![source("mute", "")];
        let answer = requests.put(command(Target::Peers(mute)), ("https://k", SITE));
        assert_eq!(answer.map(|answer| answer.answer), Some(None));
        for _ in 0..MAX_WAITING {
            assert_eq!(
                requests.put(command(Target::KeyServer), ("https://k", SITE)),
                None
            );
        }
        assert!(
            requests
                .put(command(Target::KeyServer), ("https://k", SITE))
                .is_some()
        );
        let dropped = requests.put_leave("/leave".to_owned(), Vec::new(), ("https://k", SITE));
        assert_eq!(dropped.map(|answer| answer.origin), Some(Origin::Engine(7)));
    }

    #[test]
    fn a_certificate_that_was_renewed_meanwhile_is_shown_once_more() {
        let mut requests = Requests::default();
        requests.put(command(Target::KeyServer), ("https://k", SITE));
        let first = take(&mut requests, 512).unwrap().unwrap();
        assert_eq!(requests.respond(first.id, Some((401, vec![])), 2), Ok(None));
        let second = take(&mut requests, 512).unwrap().unwrap();
        let answer = requests.respond(second.id, Some((401, vec![])), 1).unwrap();
        assert_eq!(answer.unwrap().answer, Some((401, vec![])));
    }
}
