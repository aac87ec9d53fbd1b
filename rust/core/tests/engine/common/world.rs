//! Publishers, subscribers, a lossy multicast link to each, a side channel, and a clock that only this file moves.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use sealcast_core::credential::Credential;
use sealcast_core::crypto::{Jitter, Secret, Suite, sha256};
use sealcast_core::event::{Command, Event, Message, Response, Target};
use sealcast_core::member::{Floors, MemberConfig, Purpose};
use sealcast_core::policy::member_name;
use sealcast_core::receiver::{Receiver, ReceiverConfig};
use sealcast_core::rejection::Rejection;
use sealcast_core::retention::Datagram;
use sealcast_core::sender::{Sender, SenderConfig};
use sealcast_core::signed::{CREDENTIAL_CONTEXT, CborReader, CborWriter};
use sealcast_core::validator::Role;
use sealcast_core::wire::{Header, PacketType, SiteId, StreamId, Time};

use super::forge::Forge;
use super::key_server::{KeyServer, Reply};
use super::site::{Identity, Site};
use super::{CHANNEL, DAY, MILLI, SECOND, START};

const SIDE_DELAY: Time = 5 * MILLI;
/// How soon a host learns that nobody listens at an address.
const UNREACHABLE: Time = 200 * MILLI;
const BEACON_INTERVAL: Time = 2 * SECOND;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Node {
    Publisher(usize),
    Subscriber(usize),
}

/// What happens to datagrams on the way to one subscriber. Chances are in thousandths.
#[derive(Clone, Debug)]
pub struct Link {
    pub delay: Time,
    pub loss: u64,
    /// The chance that a burst of losses begins, and its length.
    pub burst: (u64, u64),
    /// The chance that a packet is held up, and for how long at most.
    pub reorder: (u64, Time),
    pub duplicate: u64,
    /// The chance that one to three bits flip.
    pub corrupt: u64,
    /// Nothing passes within; neither datagrams nor the side channel.
    pub cut: Option<(Time, Time)>,
    /// The side channel alone is down.
    pub side_cut: bool,
    /// Losses that the present burst still brings.
    pub burst_left: u64,
}

impl Default for Link {
    fn default() -> Self {
        Self {
            delay: MILLI,
            loss: 0,
            burst: (0, 0),
            reorder: (0, 0),
            duplicate: 0,
            corrupt: 0,
            cut: None,
            side_cut: false,
            burst_left: 0,
        }
    }
}

impl Link {
    fn is_cut(&self, now: Time) -> bool {
        self.cut.is_some_and(|(from, to)| (from..to).contains(&now))
    }
}

pub struct Publisher {
    pub identity: Identity,
    pub sender: Option<Sender>,
    pub seed: [u8; 32],
    /// Added to the world's time: what this device's clock says.
    pub clock: i64,
    pub events: Vec<Event>,
    /// The test seals, a block at a time.
    pub is_held_back: bool,
    incarnation: u32,
    /// Nobody signs for its stream any more.
    pub certified: bool,
}

impl Publisher {
    /// A bundle in which this device vouches for whatever stream key `forge` has.
    pub fn bundle(&self, forge: &Forge, now: Time) -> Vec<u8> {
        self.bundle_of_successor(forge, now, None)
    }

    /// The same for a stream that claims to continue another.
    pub fn bundle_of_successor(&self, forge: &Forge, now: Time, succeeds: Option<StreamId>) -> Vec<u8> {
        self.identity.bundle(&Credential {
            public_key: *forge.signing.public_key(),
            channel: forge.channel,
            suite: forge.suite,
            site: self.identity.site,
            device: self.identity.name.clone(),
            certificate_hash: self.identity.certificate_hash(),
            not_before: now,
            not_after: now + DAY,
            start_nonce: [1; 16],
            instance: String::new(),
            succeeds,
        })
    }
}

pub struct Subscriber {
    pub identity: Identity,
    pub receiver: Option<Receiver>,
    pub link: Link,
    /// Whether the application takes events.
    pub reads: bool,
    pub messages: Vec<Message>,
    pub events: Vec<Event>,
    /// Every command that the engine gave.
    pub commands: Vec<Command>,
    incarnation: u32,
}

enum Happening {
    Datagram(usize, Datagram),
    Request(Node, u32, Command),
    Answer(Node, u32, u64, Option<(u16, Vec<u8>)>),
}

type Tamper = Box<dyn FnMut(&mut Vec<Vec<u8>>)>;
type Drop = Box<dyn FnMut(usize, &[u8]) -> bool>;

pub struct World {
    pub now: Time,
    pub key_server: KeyServer,
    pub key_server_down: bool,
    /// Another site, whose devices the policy may list.
    pub guest: Option<Site>,
    pub publishers: Vec<Publisher>,
    pub subscribers: Vec<Subscriber>,
    /// Everything sent to the group, with the time.
    pub captured: Vec<(Time, Datagram)>,
    /// What was sent, by stream; the index is the message id.
    pub sent: HashMap<StreamId, Vec<Arc<Vec<u8>>>>,
    pub beacon_interval: Option<Time>,
    /// Drops what it returns true for, before the links.
    pub drop_if: Option<Drop>,
    /// Changes repair answers.
    pub tamper_repair: Option<Tamper>,
    pub repair_requests: usize,
    queue: BTreeMap<(Time, u64), Happening>,
    order: u64,
    random: Jitter,
    beacon_due: Time,
    spins: u32,
}

/// What message `id` of `stream` says.
pub fn payload(stream: StreamId, id: u64, length: usize) -> Vec<u8> {
    let block = sha256(&[&stream.0, &id.to_be_bytes()]);
    let mut data: Vec<u8> = block.iter().copied().cycle().take(length).collect();
    for (byte, id) in data.iter_mut().zip(id.to_be_bytes()) {
        *byte = id;
    }
    data
}

impl World {
    pub fn new(seed: u64) -> Self {
        Self::with_suite(seed, Suite::Aes256Gcm)
    }

    pub fn with_suite(seed: u64, suite: Suite) -> Self {
        Self::starting_at(START, seed, suite)
    }

    /// One whose time begins at another moment, within the life of the certificates: 2026 to 2035.
    pub fn starting_at(start: Time, seed: u64, suite: Suite) -> Self {
        let names = |role: &str| (0..8).map(|i| format!("{role}-{i}")).collect();
        Self {
            now: start,
            key_server: KeyServer::new(
                start,
                Site::new(SiteId([7; 16])),
                suite,
                names("publisher"),
                names("subscriber"),
            ),
            key_server_down: false,
            guest: None,
            publishers: Vec::new(),
            subscribers: Vec::new(),
            captured: Vec::new(),
            sent: HashMap::new(),
            beacon_interval: Some(BEACON_INTERVAL),
            drop_if: None,
            tamper_repair: None,
            repair_requests: 0,
            queue: BTreeMap::new(),
            order: 0,
            random: Jitter::new(seed),
            beacon_due: start + BEACON_INTERVAL,
            spins: 0,
        }
    }

    /// A world with a second site, whose CRL is handed out too.
    pub fn with_guest(seed: u64) -> Self {
        let mut world = Self::new(seed);
        let guest = Site::new(SiteId([8; 16]));
        world.key_server.site.others = guest.crl();
        world.key_server.site.other_roots = vec![guest.root_der()];
        world.guest = Some(guest);
        world
    }

    // -- who takes part ------------------------------------------------------------------------------------------------

    fn member(&mut self, device_site: SiteId, device: &str, purpose: Purpose) -> MemberConfig {
        MemberConfig {
            site: self.key_server.site.id,
            channel_name: CHANNEL.to_owned(),
            device_site,
            device: device.to_owned(),
            purpose,
            validator: self.key_server.site.validator(),
            jitter_seed: self.random.below(u64::MAX),
            floors: Floors::default(),
            crl_numbers: Vec::new(),
            signed_time: 0,
        }
    }

    pub fn add_publisher(&mut self) -> usize {
        let name = format!("publisher-{}", self.publishers.len());
        let identity = self.key_server.site.issue(Role::Device, &name);
        self.add_publisher_as(identity)
    }

    /// One of the other site.
    pub fn add_guest_publisher(&mut self, name: &str) -> usize {
        let identity = self.guest.as_mut().unwrap().issue(Role::Device, name);
        self.add_publisher_as(identity)
    }

    fn add_publisher_as(&mut self, identity: Identity) -> usize {
        let index = self.publishers.len();
        self.publishers.push(Publisher {
            identity,
            sender: None,
            seed: [0; 32],
            clock: 0,
            events: Vec::new(),
            is_held_back: false,
            incarnation: 0,
            certified: false,
        });
        self.start_publisher(index, |_| ());
        index
    }

    /// Starts a publisher, or starts it anew with another stream key.
    pub fn start_publisher(&mut self, index: usize, change: impl FnOnce(&mut SenderConfig)) {
        let identity = &self.publishers[index].identity;
        let (site, device) = (identity.site, identity.name.clone());
        let member = self.member(site, &device, Purpose::Publish);
        let publisher = &mut self.publishers[index];
        publisher.incarnation += 1;
        publisher.certified = false;
        publisher.seed = sha256(&[&site.0, device.as_bytes(), &publisher.incarnation.to_be_bytes()]);
        let mut config = SenderConfig::new(
            member,
            Secret::new(publisher.seed),
            [publisher.incarnation as u8; 16],
        );
        change(&mut config);
        let mut sender = Sender::new(config, self.now);
        sender.set_endpoint(device, 7000);
        self.sent.insert(sender.stream(), Vec::new());
        publisher.sender = Some(sender);
        self.pump_publisher(index);
    }

    pub fn crash_publisher(&mut self, index: usize) {
        self.publishers[index].sender = None;
    }

    pub fn add_subscriber(&mut self) -> usize {
        self.add_subscriber_with(|_| ())
    }

    pub fn add_subscriber_with(&mut self, change: impl FnOnce(&mut ReceiverConfig)) -> usize {
        let name = format!("subscriber-{}", self.subscribers.len());
        let identity = self.key_server.site.issue(Role::Device, &name);
        self.add_subscriber_as(identity, change)
    }

    /// One of the other site.
    pub fn add_guest_subscriber(&mut self, name: &str) -> usize {
        let identity = self.guest.as_mut().unwrap().issue(Role::Device, name);
        self.add_subscriber_as(identity, |_| ())
    }

    fn add_subscriber_as(&mut self, identity: Identity, change: impl FnOnce(&mut ReceiverConfig)) -> usize {
        let index = self.subscribers.len();
        self.subscribers.push(Subscriber {
            identity,
            receiver: None,
            link: Link::default(),
            reads: true,
            messages: Vec::new(),
            events: Vec::new(),
            commands: Vec::new(),
            incarnation: 0,
        });
        self.start_subscriber(index, change);
        index
    }

    /// Starts a subscriber, or starts it anew; what it had received stays in `messages`.
    pub fn start_subscriber(&mut self, index: usize, change: impl FnOnce(&mut ReceiverConfig)) {
        let identity = &self.subscribers[index].identity;
        let (site, device) = (identity.site, identity.name.clone());
        let mut config = ReceiverConfig::new(self.member(site, &device, Purpose::Subscribe));
        change(&mut config);
        let subscriber = &mut self.subscribers[index];
        subscriber.incarnation += 1;
        subscriber.receiver = Some(Receiver::new(config, self.now));
        self.pump_subscriber(index);
    }

    pub fn sender(&mut self, publisher: usize) -> &mut Sender {
        self.publishers[publisher]
            .sender
            .as_mut()
            .expect("the publisher is up")
    }

    pub fn receiver(&mut self, subscriber: usize) -> &mut Receiver {
        self.subscribers[subscriber]
            .receiver
            .as_mut()
            .expect("the subscriber is up")
    }

    pub fn stream(&self, publisher: usize) -> StreamId {
        self.publishers[publisher]
            .sender
            .as_ref()
            .expect("the publisher is up")
            .stream()
    }

    /// What an insider who stole the publisher's stream key could make, under the present epoch.
    pub fn forge(&self, publisher: usize) -> Forge {
        self.forge_with(self.publishers[publisher].seed)
    }

    pub fn forge_with(&self, seed: [u8; 32]) -> Forge {
        Forge::new(
            &self.key_server,
            self.key_server.epoch(self.now),
            &Secret::new(seed),
        )
    }

    // -- what an application does --------------------------------------------------------------------------------------

    /// Sends `count` messages of `length` bytes, each in one call; they queue, then leave in blocks.
    pub fn send(&mut self, publisher: usize, count: usize, length: usize) {
        self.queue_messages(publisher, count, length);
        self.pump_publisher(publisher);
    }

    pub fn queue_messages(&mut self, publisher: usize, count: usize, length: usize) {
        let stream = self.stream(publisher);
        for _ in 0..count {
            let id = self.sent[&stream].len() as u64;
            let data = payload(stream, id, length);
            let taken = self.sender(publisher).send(None, data.clone());
            assert_eq!(taken, Ok(id));
            self.sent.get_mut(&stream).unwrap().push(Arc::new(data));
        }
    }

    /// Sends one message every `interval`, `count` times, with time passing.
    pub fn send_steadily(&mut self, publisher: usize, count: usize, length: usize, interval: Time) {
        for _ in 0..count {
            self.send(publisher, 1, length);
            self.run_for(interval);
        }
    }

    /// Seals and sends one block of a publisher that is held back; false if nothing was queued.
    pub fn send_block(&mut self, publisher: usize) -> bool {
        let (now, randomness) = (self.now, draw(&mut self.random));
        let sealed = self.sender(publisher).seal_block(now, randomness) > 0;
        self.pump_publisher(publisher);
        sealed
    }

    // -- one packet at a time ------------------------------------------------------------------------------------------

    /// A subscriber and a publisher in mid-stream: `sent` messages of 1,100 bytes, so that ids are sequences.
    pub fn in_mid_stream(seed: u64, sent: usize) -> (Self, usize, usize) {
        let mut world = Self::new(seed);
        let (subscriber, publisher) = (world.add_subscriber(), world.add_publisher());
        world.settle();
        world.send(publisher, sent, 1100);
        // Until there is a packet of each type, a beacon too.
        world.run_for(3 * SECOND);
        assert_eq!(world.subscribers[subscriber].messages.len(), sent);
        (world, subscriber, publisher)
    }

    /// Hands a datagram to a subscriber, as the wire would.
    pub fn feed(&mut self, subscriber: usize, datagram: &[u8]) -> Option<Rejection> {
        let now = self.now;
        let verdict = self.receiver(subscriber).receive_datagram(datagram, now);
        self.pump_subscriber(subscriber);
        verdict
    }

    /// Hands a datagram to a subscriber that must refuse it and be as it was (invariant 1). Says why it was refused.
    #[track_caller]
    pub fn refused(&mut self, subscriber: usize, datagram: &[u8]) -> Rejection {
        let now = self.now;
        let receiver = self.receiver(subscriber);
        let before = (receiver.fingerprint(), receiver.next_deadline());
        let verdict = receiver.receive_datagram(datagram, now);
        let after = (receiver.fingerprint(), receiver.next_deadline());
        let verdict = verdict.expect("taken, though it must be refused");
        assert!(
            before == after,
            "refused as {verdict:?}, but the state has changed"
        );
        assert_eq!(receiver.poll_event(), None);
        assert_eq!(receiver.poll_command(), None);
        verdict
    }

    /// Announces a stream to a subscriber in-band, by the credential packets of `bundle`. Gives the verdict on the last.
    pub fn announce(&mut self, subscriber: usize, forge: &Forge, bundle: &[u8]) -> Option<Rejection> {
        let parts: Vec<Vec<u8>> = bundle.chunks(1204).map(<[u8]>::to_vec).collect();
        let header = Header {
            packet_type: PacketType::Credential,
            count: parts.len() as u8,
            ..forge.data_header(0xC0, 0, 1, self.now)
        };
        let mut verdict = None;
        for datagram in forge.block(header, &parts) {
            verdict = self.feed(subscriber, &datagram);
        }
        verdict
    }

    /// The captured datagrams of a type.
    pub fn captured_of(&self, packet_type: PacketType) -> Vec<Datagram> {
        let datagrams = self.captured.iter().map(|(_, datagram)| datagram);
        datagrams
            .filter(|datagram| datagram[5] == packet_type as u8)
            .cloned()
            .collect()
    }

    // -- time ----------------------------------------------------------------------------------------------------------

    fn next_time(&self) -> Time {
        let publishers = self.publishers.iter().filter_map(|p| {
            let deadline = p.sender.as_ref()?.next_deadline()?;
            Some(deadline.saturating_add_signed(-p.clock))
        });
        let subscribers = self
            .subscribers
            .iter()
            .filter_map(|s| s.receiver.as_ref()?.next_deadline());
        let happening = self.queue.keys().next().map(|&(at, _)| at);
        let beacon = self.beacon_interval.map(|_| self.beacon_due);
        publishers
            .chain(subscribers)
            .chain(happening)
            .chain(beacon)
            .chain(self.key_server.next_poll_deadline())
            .min()
            .unwrap_or(Time::MAX)
    }

    /// Goes to the next deadline or happening, but not beyond `end`; false when there was nothing before it.
    pub fn step(&mut self, end: Time) -> bool {
        self.answer_polls();
        let next = self.next_time().max(self.now);
        if next > end {
            self.now = end;
            return false;
        }
        self.spins = if next > self.now { 0 } else { self.spins + 1 };
        assert!(self.spins < 20_000, "time stands still at {}", self.now - START);
        self.now = next;
        while let Some((&at, _)) = self.queue.first_key_value()
            && at.0 <= self.now
        {
            let happening = self.queue.remove(&at).unwrap();
            self.happen(happening);
        }
        for index in 0..self.publishers.len() {
            let now = self.publisher_time(index);
            let random = self.random.clone();
            if let Some(sender) = &mut self.publishers[index].sender
                && sender.next_deadline().is_some_and(|at| at <= now)
            {
                let mut random = random;
                sender.handle_deadline(now, [draw(&mut random), draw(&mut random)]);
                self.random = random;
                self.pump_publisher(index);
            }
        }
        for index in 0..self.subscribers.len() {
            let now = self.now;
            if let Some(receiver) = &mut self.subscribers[index].receiver
                && receiver.next_deadline().is_some_and(|at| at <= now)
            {
                receiver.handle_deadline(now);
                self.pump_subscriber(index);
            }
        }
        if let Some(interval) = self.beacon_interval
            && self.beacon_due <= self.now
        {
            self.beacon_due = self.now + interval;
            if !self.key_server_down {
                let beacon = self.key_server.beacon(self.now);
                self.multicast(&beacon);
            }
        }
        true
    }

    pub fn run_for(&mut self, duration: Time) {
        let end = self.now + duration;
        while self.step(end) {}
    }

    /// Runs until `done`, for `limit` at most; whether it came to be.
    #[must_use]
    pub fn run_until(&mut self, limit: Time, mut done: impl FnMut(&mut Self) -> bool) -> bool {
        let end = self.now + limit;
        while !done(self) {
            if !self.step(end) {
                return done(self);
            }
        }
        true
    }

    /// Runs until `publisher`'s stream is in the directory and everybody who is up has joined.
    pub fn settle(&mut self) {
        let settled = self.run_until(30 * SECOND, |world| {
            let publishers = world
                .publishers
                .iter()
                .all(|p| p.sender.as_ref().is_none_or(Sender::is_registered));
            let joined = |s: &Subscriber| s.receiver.as_ref().is_none_or(|r| r.member().policy().is_some());
            publishers && world.subscribers.iter().all(joined)
        });
        assert!(settled, "somebody did not get in");
        self.run_for(SECOND / 2);
    }

    fn publisher_time(&self, index: usize) -> Time {
        self.now.saturating_add_signed(self.publishers[index].clock)
    }

    fn schedule(&mut self, at: Time, happening: Happening) {
        self.order += 1;
        self.queue.insert((at, self.order), happening);
    }

    fn happen(&mut self, happening: Happening) {
        let now = self.now;
        match happening {
            Happening::Datagram(index, datagram) => {
                if let Some(receiver) = &mut self.subscribers[index].receiver {
                    receiver.receive_datagram(&datagram, now);
                    receiver.handle_deadline(now);
                    self.pump_subscriber(index);
                }
            }
            Happening::Request(from, incarnation, command) => self.serve(from, incarnation, &command),
            Happening::Answer(to, incarnation, id, answer) => {
                let response = match &answer {
                    Some((status, body)) => Response::Answer {
                        status: *status,
                        body,
                    },
                    None => Response::Failed,
                };
                match to {
                    Node::Publisher(index) => {
                        let now = self.publisher_time(index);
                        let publisher = &mut self.publishers[index];
                        if publisher.incarnation == incarnation
                            && let Some(sender) = &mut publisher.sender
                        {
                            sender.handle_response(id, response, now);
                            self.pump_publisher(index);
                        }
                    }
                    Node::Subscriber(index) => {
                        let subscriber = &mut self.subscribers[index];
                        if subscriber.incarnation == incarnation
                            && let Some(receiver) = &mut subscriber.receiver
                        {
                            receiver.handle_response(id, response, now);
                            self.pump_subscriber(index);
                        }
                    }
                }
            }
        }
    }

    // -- what comes out of the engines ---------------------------------------------------------------------------------

    pub fn pump_publisher(&mut self, index: usize) {
        let now = self.publisher_time(index);
        let publisher = &mut self.publishers[index];
        let Some(sender) = &mut publisher.sender else {
            return;
        };
        while !publisher.is_held_back && sender.seal_block(now, draw(&mut self.random)) > 0 {}
        while let Some(event) = sender.poll_event() {
            if matches!(event, Event::Joined { .. }) && !publisher.certified {
                publisher.certified = true;
                let identity = &publisher.identity;
                let (hash, until) = (identity.certificate_hash(), now + DAY);
                let succeeds = sender.predecessor();
                let tbs = sender.credential_tbs(identity.site, &identity.name, hash, now, until, succeeds);
                let signed = identity.sign(CREDENTIAL_CONTEXT, &tbs.expect("joined"));
                let taken = sender.set_credential(&signed, &identity.chain, until, now);
                assert_eq!(taken, Ok(()));
            }
            publisher.events.push(event);
        }
        while !publisher.is_held_back && sender.seal_block(now, draw(&mut self.random)) > 0 {}
        let datagrams: Vec<Datagram> = core::iter::from_fn(|| sender.poll_transmit()).collect();
        let commands: Vec<Command> = core::iter::from_fn(|| sender.poll_command()).collect();
        let incarnation = publisher.incarnation;
        for command in commands {
            self.schedule(
                self.now + SIDE_DELAY,
                Happening::Request(Node::Publisher(index), incarnation, command),
            );
        }
        for datagram in datagrams {
            self.multicast(&datagram);
        }
    }

    pub fn pump_subscriber(&mut self, index: usize) {
        let subscriber = &mut self.subscribers[index];
        let Some(receiver) = &mut subscriber.receiver else {
            return;
        };
        while subscriber.reads
            && let Some(event) = receiver.poll_event()
        {
            match event {
                Event::Message(message) => subscriber.messages.push(message),
                event => subscriber.events.push(event),
            }
        }
        let commands: Vec<Command> = core::iter::from_fn(|| receiver.poll_command()).collect();
        subscriber.commands.extend(commands.iter().cloned());
        let incarnation = subscriber.incarnation;
        for command in commands {
            self.schedule(
                self.now + SIDE_DELAY,
                Happening::Request(Node::Subscriber(index), incarnation, command),
            );
        }
    }

    /// Puts a datagram on the wire to every subscriber; also an attacker's.
    pub fn multicast(&mut self, datagram: &[u8]) {
        let datagram: Datagram = Datagram::copy_from_slice(datagram);
        self.captured.push((self.now, datagram.clone()));
        for index in 0..self.subscribers.len() {
            if let Some(drop_if) = &mut self.drop_if
                && drop_if(index, &datagram)
            {
                continue;
            }
            let link = &mut self.subscribers[index].link;
            let random = &mut self.random;
            let mut chance = |thousandths: u64| thousandths > 0 && random.below(1000) < thousandths;
            if link.is_cut(self.now) {
                continue;
            }
            if link.burst_left > 0 {
                link.burst_left -= 1;
                continue;
            }
            if chance(link.burst.0) {
                link.burst_left = link.burst.1 - 1;
                continue;
            }
            if chance(link.loss) {
                continue;
            }
            let copies = if chance(link.duplicate) { 3 } else { 1 };
            let (delay, held_up, corrupt) = (link.delay, chance(link.reorder.0), chance(link.corrupt));
            let longest = link.reorder.1;
            for copy in 0..copies {
                let mut datagram = datagram.clone();
                if corrupt {
                    let mut bytes = datagram.to_vec();
                    for _ in 0..=self.random.below(3) {
                        let bit = self.random.below(bytes.len() as u64 * 8) as usize;
                        bytes[bit / 8] ^= 1 << (bit % 8);
                    }
                    datagram = bytes.into();
                }
                let late = if held_up { self.random.below(longest) } else { 0 };
                let late = late + copy * self.random.below(50 * MILLI);
                self.schedule(self.now + delay + late, Happening::Datagram(index, datagram));
            }
        }
    }

    // -- the side channel ----------------------------------------------------------------------------------------------

    fn device(&self, node: Node) -> String {
        let identity = match node {
            Node::Publisher(index) => &self.publishers[index].identity,
            Node::Subscriber(index) => &self.subscribers[index].identity,
        };
        member_name(&self.key_server.site.id, &identity.site, &identity.name)
    }

    fn is_cut(&self, node: Node) -> bool {
        let Node::Subscriber(index) = node else {
            return false;
        };
        let link = &self.subscribers[index].link;
        link.side_cut || link.is_cut(self.now)
    }

    fn answer(&mut self, to: Node, incarnation: u32, id: u64, answer: Option<(u16, Vec<u8>)>) {
        let delay = if answer.is_some() { SIDE_DELAY } else { UNREACHABLE };
        self.schedule(self.now + delay, Happening::Answer(to, incarnation, id, answer));
    }

    fn serve(&mut self, from: Node, incarnation: u32, command: &Command) {
        if self.is_cut(from) {
            return self.answer(from, incarnation, command.id, None);
        }
        match &command.target {
            Target::KeyServer if self.key_server_down => self.answer(from, incarnation, command.id, None),
            Target::KeyServer => {
                let device = self.device(from);
                if let Reply::Now(status, body) = self.key_server.handle(from, &device, command, self.now) {
                    self.answer(from, incarnation, command.id, Some((status, body)));
                }
                self.answer_polls();
            }
            Target::Peers(sources) => {
                let answer = sources.iter().find_map(|source| {
                    let index = self
                        .publishers
                        .iter()
                        .position(|p| (p.identity.site, &p.identity.name) == (source.site, &source.device))?;
                    let now = self.publisher_time(index);
                    if command.path == "/v1/losses" {
                        let sender = self.publishers[index].sender.as_mut()?;
                        return Some(take_losses(sender, &format!("{from:?}"), &command.body, now));
                    }
                    self.repair_requests += 1;
                    repair(
                        self.publishers[index].sender.as_mut()?,
                        &command.body,
                        now,
                        &mut self.tamper_repair,
                    )
                });
                self.answer(from, incarnation, command.id, answer);
            }
        }
    }

    /// Restarts the key server; requests that it held break off.
    pub fn restart_key_server(&mut self, seed: u8) {
        for (node, id) in self.key_server.restart(seed) {
            self.answer(node, self.incarnation(node), id, None);
        }
    }

    fn incarnation(&self, node: Node) -> u32 {
        match node {
            Node::Publisher(index) => self.publishers[index].incarnation,
            Node::Subscriber(index) => self.subscribers[index].incarnation,
        }
    }

    fn answer_polls(&mut self) {
        for (node, id, status, body) in self.key_server.finished_polls(self.now) {
            let incarnation = self.incarnation(node);
            let reached = !self.is_cut(node) && !self.key_server_down;
            self.answer(node, incarnation, id, reached.then_some((status, body)));
        }
    }

    // -- oracles -------------------------------------------------------------------------------------------------------

    /// Ids of the messages of `stream` that `subscriber` got, in the order in which it got them.
    pub fn ids(&self, subscriber: usize, stream: StreamId) -> Vec<u64> {
        let messages = self.subscribers[subscriber].messages.iter();
        messages
            .filter(|m| m.publisher.stream == stream)
            .map(|m| m.message_id)
            .collect()
    }

    /// The gaps of `stream` that `subscriber` was told of.
    pub fn gaps(&self, subscriber: usize, stream: StreamId) -> Vec<(u64, Option<u64>)> {
        let events = self.subscribers[subscriber].events.iter();
        let gap = |event: &Event| match event {
            Event::Gap {
                publisher,
                first,
                last,
            } if publisher.stream == stream => Some((*first, *last)),
            _ => None,
        };
        events.filter_map(gap).collect()
    }

    /// O1, O2: whatever was delivered had been sent, byte for byte, by the device that is named, and came once.
    pub fn assert_authentic(&self) {
        for subscriber in &self.subscribers {
            let mut seen = std::collections::HashSet::new();
            for message in &subscriber.messages {
                let stream = message.publisher.stream;
                let sent = self
                    .sent
                    .get(&stream)
                    .and_then(|sent| sent.get(message.message_id as usize));
                let sent = sent.expect("delivered but never sent");
                assert!(**sent == message.data, "delivered other bytes than were sent");
                assert!(seen.insert((stream, message.message_id)), "delivered twice");
            }
        }
    }

    /// O1 to O4: everything that was sent on `stream`, once, in order, without a gap.
    #[track_caller]
    pub fn assert_complete(&self, subscriber: usize, stream: StreamId) {
        self.assert_authentic();
        let ids = self.ids(subscriber, stream);
        assert_eq!(
            ids.len(),
            self.sent[&stream].len(),
            "not everything was delivered"
        );
        assert!(ids.iter().copied().eq(0..ids.len() as u64), "out of order");
        assert_eq!(self.gaps(subscriber, stream), [], "reported as lost");
    }

    /// Waits until `subscriber` has everything of `stream`, then checks it.
    #[track_caller]
    pub fn finish(&mut self, subscriber: usize, stream: StreamId, limit: Time) {
        let _ = self.run_until(limit, |world| {
            world.ids(subscriber, stream).len() >= world.sent[&stream].len()
        });
        self.run_for(2 * SECOND);
        self.assert_complete(subscriber, stream);
    }
}

fn draw(random: &mut Jitter) -> [u8; 16] {
    let mut bytes = [0; 16];
    for half in bytes.chunks_mut(8) {
        half.copy_from_slice(&random.below(u64::MAX).to_be_bytes());
    }
    bytes
}

/// A publisher's answer to a report of losses (SC-49).
fn take_losses(sender: &mut Sender, device: &str, body: &[u8], now: Time) -> (u16, Vec<u8>) {
    let mut reader = CborReader::new(body);
    assert_eq!(reader.map(), Ok(4));
    assert_eq!(reader.text(), Ok("lost"));
    let lost = reader.uint().unwrap();
    assert_eq!(reader.text(), Ok("sent"));
    let sent = reader.uint().unwrap();
    assert!(lost <= sent && sent > 0);
    match sender.take_report(device, (lost, sent), now) {
        Some(interval) => (
            200,
            CborWriter::new().map(1).text("interval").uint(interval).finish(),
        ),
        None => (429, CborWriter::new().map(0).finish()),
    }
}

/// A peer's answer to a repair request (SC-8).
fn repair(
    sender: &mut Sender,
    body: &[u8],
    now: Time,
    tamper: &mut Option<Tamper>,
) -> Option<(u16, Vec<u8>)> {
    let mut reader = CborReader::new(body);
    assert_eq!(reader.map(), Ok(3));
    assert_eq!(reader.text(), Ok("ranges"));
    let ranges = reader.list(64, |r| {
        r.array_of(2)?;
        Ok((r.uint()?, r.uint()?))
    });
    assert_eq!(reader.text(), Ok("stream"));
    let stream = StreamId(reader.fixed().unwrap());
    if stream != sender.stream() {
        return Some((
            404,
            CborWriter::new()
                .map(1)
                .text("error")
                .text("unknown-stream")
                .finish(),
        ));
    }
    let (packets, oldest) = sender.repair(&ranges.expect("at most 64 ranges"), now);
    let mut packets: Vec<Vec<u8>> = packets.iter().map(|packet| packet.to_vec()).collect();
    if let Some(tamper) = tamper {
        tamper(&mut packets);
    }
    let writer = CborWriter::new()
        .map(3)
        .text("head")
        .optional_bytes(sender.head().map(|head| &head[..]));
    let mut writer = writer
        .text("oldest")
        .uint(oldest)
        .text("packets")
        .array(packets.len());
    for packet in &packets {
        writer = writer.bytes(packet);
    }
    Some((200, writer.finish()))
}
