//! A channel's policy: who may publish and subscribe, and how.
//!
//! Spec: trust.md TR-13, TR-15, TR-26; slots: keys.md KM-1.

use crate::crypto::{Suite, sha256};
use crate::fec::{Fec, Ratio};
use crate::schedule::channel_id;
use crate::signed::{CborReader, CborWriter, MalformedObject, POLICY_CONTEXT, SignedObject};
use crate::validator::{Certificate, is_channel_name, is_device_name, parse_site};
use crate::wire::{ChannelId, SiteId, Time};

const VERSION: u64 = 1;
const MAX_MEMBERS: usize = 1_000_000;

/// The signed content (TR-13). Times and durations in microseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    pub site: SiteId,
    pub channel_name: String,
    pub channel: ChannelId,
    pub version: u64,
    pub issued: Time,
    pub next_update: Time,
    pub suite: Suite,
    pub group: String,
    pub port: u16,
    pub interface: Option<String>,
    /// Bits per second.
    pub rate: u64,
    pub slot_origin_time: Time,
    pub slot_origin_number: u32,
    pub slot_length: u64,
    pub retention: u64,
    pub retention_bytes: u64,
    pub publisher_limit: u64,
    /// The parity that publishers send unless their own operator says otherwise.
    pub fec: Fec,
    /// Sorted; a name of this site, or `<site id>:<name>`.
    pub publishers: Vec<String>,
    pub subscribers: Vec<String>,
}

/// Why a policy is not followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PolicyError {
    Malformed,
    Signature,
    /// Of another site or channel.
    Channel,
    /// Older than the one known.
    Backwards,
    /// Past its nextUpdate.
    Stale,
}

impl From<MalformedObject> for PolicyError {
    fn from(_: MalformedObject) -> Self {
        Self::Malformed
    }
}

const MAX_SLOT: u32 = (1 << 24) - 1;

impl Policy {
    pub fn encode(&self) -> Vec<u8> {
        let mut w = CborWriter::new()
            .array(19)
            .uint(VERSION)
            .bytes(&self.site.0)
            .text(&self.channel_name)
            .bytes(&self.channel.0)
            .uint(self.version)
            .uint(self.issued)
            .uint(self.next_update)
            .uint(self.suite as u64)
            .text(&self.group)
            .uint(u64::from(self.port));
        w = match &self.interface {
            Some(name) => w.text(name),
            None => w.null(),
        };
        w = w
            .uint(self.rate)
            .array(3)
            .uint(self.slot_origin_time)
            .uint(u64::from(self.slot_origin_number))
            .uint(self.slot_length)
            .uint(self.retention)
            .uint(self.retention_bytes)
            .uint(self.publisher_limit);
        w = match self.fec {
            Fec::Off => w.null(),
            Fec::Adaptive => w.array(0),
            Fec::Fixed(ratio) => w
                .array(2)
                .uint(u64::from(ratio.sources))
                .uint(u64::from(ratio.parities)),
        };
        for members in [&self.publishers, &self.subscribers] {
            w = w.array(members.len());
            for member in members {
                w = w.text(member);
            }
        }
        w.finish()
    }

    pub fn parse(tbs: &[u8]) -> Result<Self, MalformedObject> {
        fn members(r: &mut CborReader<'_>) -> Result<Vec<String>, MalformedObject> {
            let names = r.list(MAX_MEMBERS, |r| Ok(r.text()?.to_owned()))?;
            if names.is_sorted_by(|a, b| a < b) && names.iter().all(|name| is_member_name(name)) {
                Ok(names)
            } else {
                Err(MalformedObject)
            }
        }
        let mut r = CborReader::new(tbs);
        r.array_of(19)?;
        if r.uint()? != VERSION {
            return Err(MalformedObject);
        }
        let site = SiteId(r.fixed()?);
        let channel_name = r.text()?.to_owned();
        let channel = ChannelId(r.fixed()?);
        let (version, issued, next_update) = (r.uint()?, r.uint()?, r.uint()?);
        let suite = Suite::from_code(r.uint()?).ok_or(MalformedObject)?;
        let group = r.text()?.to_owned();
        let port = u16::try_from(r.uint()?).map_err(|_| MalformedObject)?;
        let interface = r.optional(|r| Ok(r.text()?.to_owned()))?;
        let rate = r.uint()?;
        r.array_of(3)?;
        let slot_origin_time = r.uint()?;
        let slot_origin_number = u32::try_from(r.uint()?).map_err(|_| MalformedObject)?;
        let slot_length = r.uint()?;
        let (retention, retention_bytes, publisher_limit) = (r.uint()?, r.uint()?, r.uint()?);
        let fec = read_fec(&mut r)?;
        let (publishers, subscribers) = (members(&mut r)?, members(&mut r)?);
        r.end()?;
        let policy = Self {
            site,
            channel_name,
            channel,
            version,
            issued,
            next_update,
            suite,
            group,
            port,
            interface,
            rate,
            slot_origin_time,
            slot_origin_number,
            slot_length,
            retention,
            retention_bytes,
            publisher_limit,
            fec,
            publishers,
            subscribers,
        };
        if slot_length == 0
            || version == 0
            || slot_origin_number > MAX_SLOT
            || !is_channel_name(&policy.channel_name)
            || policy.encode() != tbs
        {
            return Err(MalformedObject);
        }
        Ok(policy)
    }

    /// TR-15. `issuer` is a site CA certificate of `site`, taken from a verified path.
    pub fn verify(
        signed: &[u8],
        issuer: &Certificate,
        site: &SiteId,
        channel_name: &str,
        known_version: u64,
        now: Time,
    ) -> Result<VerifiedPolicy, PolicyError> {
        let tbs = SignedObject::parse(signed)?
            .verify(POLICY_CONTEXT, issuer)
            .ok_or(PolicyError::Signature)?;
        let policy = Self::parse(tbs)?;
        if policy.site != *site
            || policy.channel_name != channel_name
            || policy.channel != channel_id(site, channel_name)
        {
            return Err(PolicyError::Channel);
        }
        if policy.version < known_version {
            return Err(PolicyError::Backwards);
        }
        if now >= policy.next_update {
            return Err(PolicyError::Stale);
        }
        Ok(VerifiedPolicy {
            policy,
            hash: sha256(&[signed]),
        })
    }

    /// KM-1. Before the origin it is the origin's slot; it ends at the last number there is.
    pub fn slot_at(&self, time: Time) -> u32 {
        let turned = time.saturating_sub(self.slot_origin_time) / self.slot_length;
        let slot = u64::from(self.slot_origin_number).saturating_add(turned);
        u32::try_from(slot).map_or(MAX_SLOT, |slot| slot.min(MAX_SLOT))
    }

    pub fn slot_start(&self, slot: u32) -> Time {
        let turned = u64::from(slot.saturating_sub(self.slot_origin_number));
        self.slot_origin_time
            .saturating_add(turned.saturating_mul(self.slot_length))
    }

    pub fn may_publish(&self, site: &SiteId, device: &str) -> bool {
        self.lists(&self.publishers, site, device)
    }

    pub fn may_subscribe(&self, site: &SiteId, device: &str) -> bool {
        self.lists(&self.subscribers, site, device)
    }

    /// Whether a device, written as TR-13 says, is in either list.
    pub fn names(&self, member: &str) -> bool {
        [&self.subscribers, &self.publishers]
            .iter()
            .any(|list| list.binary_search_by(|name| name.as_str().cmp(member)).is_ok())
    }

    fn lists(&self, members: &[String], site: &SiteId, device: &str) -> bool {
        if *site == self.site {
            members
                .binary_search_by(|member| member.as_str().cmp(device))
                .is_ok()
        } else {
            members
                .binary_search(&member_name(&self.site, site, device))
                .is_ok()
        }
    }
}

fn read_fec(r: &mut CborReader<'_>) -> Result<Fec, MalformedObject> {
    let ratio = r.optional(|r| r.list(2, |r| u8::try_from(r.uint()?).map_err(|_| MalformedObject)))?;
    match ratio.as_deref() {
        None => Ok(Fec::Off),
        Some([]) => Ok(Fec::Adaptive),
        Some(&[sources, parities]) => Ratio::new(sources, parities)
            .map(Fec::Fixed)
            .ok_or(MalformedObject),
        Some(_) => Err(MalformedObject),
    }
}

/// How what belongs to a channel of `site` writes a device of the site `of`: by its name alone, or `<site id>:<name>` of
/// another site (TR-13).
pub fn member_name(site: &SiteId, of: &SiteId, device: &str) -> String {
    if of == site {
        device.to_owned()
    } else {
        format!("{}:{device}", of.hex())
    }
}

/// Site and name of a device that [`member_name`] has written; each has one spelling.
pub fn parse_member<'a>(site: &SiteId, member: &'a str) -> Option<(SiteId, &'a str)> {
    let (of, device) = match member.split_once(':') {
        Some((of, device)) => (parse_site(of).filter(|of| of != site)?, device),
        None => (*site, member),
    };
    is_device_name(device).then_some((of, device))
}

/// A device of the policy's site, or `<site id>:<name>` of another.
fn is_member_name(name: &str) -> bool {
    match name.split_once(':') {
        Some((site, device)) => parse_site(site).is_some() && is_device_name(device),
        None => is_device_name(name),
    }
}

/// A policy that its site's CA signed for this channel, with the hash that beacons name.
#[derive(Clone, Debug)]
pub struct VerifiedPolicy {
    pub policy: Policy,
    pub hash: [u8; 32],
}
