//! How a publisher that does not listen serves repair: it asks repair nodes what they want of it, and brings it; and it is told
//! by their answers what receivers have of its files.
//!
//! One request waits at each node; the next one brings what was wanted. Spec: side-channel.md SC-50.

use super::{SECOND, Sender};
use crate::event::{Event, Response, Source, Target};
use crate::member::{Outgoing, Purposes};
use crate::messages::{Directory, parse_wanted_reply, wanted_request};
use crate::policy::parse_member;
use crate::retention::Datagram;
use crate::wire::Time;

/// Repair nodes that are asked; members get from each what it has of all others.
const MAX_NODES: usize = 8;
/// Twice as long as a node holds a request at most.
const TIMEOUT: u64 = 10 * SECOND;
/// Packets of one request, so that its body stays within that of any (SC-2).
const MAX_BROUGHT_BYTES: usize = 768 << 10;
const FIRST_DELAY: u64 = SECOND / 5;
const MAX_DELAY: u64 = 5 * SECOND;

/// One node, in a place that requests name.
#[derive(Debug)]
struct Node {
    /// As the policy writes it.
    member: String,
    source: Source,
    /// What it wanted, and the number of the answer that said so.
    wanted: (u64, Vec<(u64, u64)>),
    /// Marks of the reports that came with it.
    taken: Vec<u64>,
    /// When it is asked again; `None` while a request is with it.
    due: Option<Time>,
    delay: u64,
}

/// Of a publisher that does not listen.
#[derive(Debug, Default)]
pub(super) struct Outbound([Option<Node>; MAX_NODES]);

impl Outbound {
    /// Whether a node is asked already stays so; others take the places that are free.
    fn set_nodes(&mut self, listed: Vec<(String, Source)>, now: Time) {
        let mut listed: Vec<_> = listed.into_iter().take(MAX_NODES).map(Some).collect();
        for place in &mut self.0 {
            let same = |entry: &&mut Option<(String, Source)>| matches!((&place, entry), (Some(node), Some((_, source))) if node.source == *source);
            match listed.iter_mut().find(same) {
                Some(entry) => *entry = None,
                None => *place = None,
            }
        }
        for (member, source) in listed.into_iter().flatten() {
            if let Some(place) = self.0.iter_mut().find(|place| place.is_none()) {
                *place = Some(Node {
                    member,
                    source,
                    wanted: (0, Vec::new()),
                    taken: Vec::new(),
                    due: Some(now),
                    delay: FIRST_DELAY,
                });
            }
        }
    }

    pub(super) fn deadline(&self) -> Option<Time> {
        self.0.iter().flatten().filter_map(|node| node.due).min()
    }
}

impl Sender {
    /// Has subscribers mended by way of the channel's repair nodes: for hosts that cannot listen, in place of
    /// [`Self::set_endpoint`]; before the join.
    pub fn serve_outbound(&mut self) {
        self.outbound = Some(Outbound::default());
        self.member.follow_directory();
    }

    pub(super) fn take_nodes(&mut self, directory: &Directory<'_>, now: Time) {
        let Some(outbound) = &mut self.outbound else {
            return;
        };
        let listed = directory.repair_nodes.iter().filter_map(|node| {
            let (site, device) = parse_member(&self.member.config.site, node.device)?;
            let source = Source {
                site,
                device: device.to_owned(),
                host: node.host.to_owned(),
                port: node.port,
            };
            (!self.member.is_self(node.device)).then(|| (node.device.to_owned(), source))
        });
        outbound.set_nodes(listed.collect(), now);
    }

    /// Asks every node that is due.
    pub(super) fn ask_nodes(&mut self, now: Time) {
        let Some(mut outbound) = self.outbound.take() else {
            return;
        };
        for (place, node) in outbound.0.iter_mut().enumerate() {
            let Some(node) = node else {
                continue;
            };
            if node.due.is_none_or(|at| at > now) {
                continue;
            }
            // The directory is the key server's word alone (SC-40).
            if !self
                .member
                .policy()
                .is_some_and(|policy| policy.names(&node.member))
            {
                node.due = Some(now + MAX_DELAY);
                continue;
            }
            node.due = None;
            let (number, ranges) = core::mem::take(&mut node.wanted);
            let taken = core::mem::take(&mut node.taken);
            let (packets, oldest, head) = self.brought(&ranges, now);
            let brought = (&packets[..], oldest, head.as_deref());
            let outgoing = Outgoing {
                target: Target::Peers(vec![node.source.clone()]),
                method: "POST",
                path: "/v1/wanted".to_owned(),
                body: wanted_request(self.member.channel(), &self.stream, number, brought, &taken),
                timeout: TIMEOUT,
            };
            self.member.request(Purposes::Wanted(place as u8), outgoing, now);
        }
        self.outbound = Some(outbound);
    }

    /// What a node wanted, as far as one request takes it; of nothing only the head is told.
    fn brought(&mut self, ranges: &[(u64, u64)], now: Time) -> (Vec<Datagram>, u64, Option<Datagram>) {
        if ranges.is_empty() {
            return (Vec::new(), 0, None);
        }
        let (mut packets, oldest) = self.repair(ranges, now);
        let mut bytes = 0;
        let mut fits = |packet: &Datagram| {
            bytes += packet.len();
            bytes <= MAX_BROUGHT_BYTES
        };
        let count = packets.iter().take_while(|packet| fits(packet)).count();
        packets.truncate(count);
        (packets, oldest, self.head().cloned())
    }

    /// A node says what it wants, or nothing of it.
    pub(super) fn node_answered(&mut self, place: u8, response: Response<'_>, now: Time) {
        let Some(outbound) = &mut self.outbound else {
            return;
        };
        // Where another node has taken the place, what it wants is found out by its own request.
        let Some(node) = outbound.0.get_mut(usize::from(place)).and_then(Option::as_mut) else {
            return;
        };
        let reply = match response {
            Response::Answer { status: 200, body } => parse_wanted_reply(body).ok(),
            _ => None,
        };
        match reply {
            Some(reply) => {
                node.wanted = (reply.number, reply.ranges);
                node.taken = reply.reports.iter().map(|(mark, ..)| *mark).collect();
                node.delay = FIRST_DELAY;
                node.due = Some(now);
                // Who a report is of is the node's word; whether the policy lists it, is not.
                let told = reply.reports.into_iter().filter_map(|(_, device, report)| {
                    let policy = self.member.policy()?;
                    policy.names(device).then(|| Event::FileReport {
                        device: device.to_owned(),
                        report: report.to_vec(),
                    })
                });
                let told: Vec<Event> = told.collect();
                self.member.events.extend(told);
            }
            None => {
                node.due = Some(now + node.delay / 2 + self.member.jitter.below(node.delay / 2));
                node.delay = (node.delay * 2).min(MAX_DELAY);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::SiteId;

    fn source(device: &str) -> (String, Source) {
        let source = Source {
            site: SiteId([1; 16]),
            device: device.to_owned(),
            host: "node".to_owned(),
            port: 1,
        };
        (device.to_owned(), source)
    }

    fn places(outbound: &Outbound) -> Vec<Option<&str>> {
        let names = outbound
            .0
            .iter()
            .map(|node| node.as_ref().map(|node| &node.member[..]));
        names.collect()
    }

    #[test]
    fn a_node_that_stays_listed_keeps_its_place() {
        let mut outbound = Outbound::default();
        outbound.set_nodes(vec![source("a"), source("b")], 0);
        outbound.set_nodes(vec![source("c"), source("b")], 0);
        assert_eq!(places(&outbound)[..3], [Some("c"), Some("b"), None]);
        let many = (0..20).map(|n| source(&format!("n{n}"))).collect();
        outbound.set_nodes(many, 0);
        assert!(places(&outbound).iter().all(Option::is_some));
    }
}
