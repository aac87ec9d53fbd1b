//! The sending end of a channel. It does not listen: subscribers are mended by the channel's repair nodes (SC-50).

use std::ffi::c_char;
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};

use sealcast_core::crypto::Secret;
use sealcast_core::event::{Command, Response};
use sealcast_core::fec::{Fec, Ratio};
use sealcast_core::member::{Member, Purpose};
use sealcast_core::sender::{RetainLimits, SendError, Sender, SenderConfig};
use sealcast_core::validator::Validator;
use sealcast_net::SendDriver;

use crate::certification::Certification;
use crate::end::{End, beginning, place};
use crate::event::SealcastEvent;
use crate::handle::Handled;
use crate::identity::Identity;
use crate::memory::{self, Options};
use crate::route::{Route, no_socket, parse_address};
use crate::session::{Engine, Session, fill_random, lock, member_config};
use crate::status::{Failure, Outcome, SealcastStatus};

/// A publisher. Made by sealcast_publisher_new.
#[derive(Debug)]
pub struct SealcastPublisher {
    _opaque: [u8; 0],
}

/// Which parity goes with the packets.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SealcastFec {
    /// What the channel's policy says.
    Policy = 0,
    Off = 1,
    /// As much as subscribers' losses ask for.
    Adaptive = 2,
    /// `fec_parities` packets after `fec_sources` of data.
    Fixed = 3,
}

/// How a publisher sends. sealcast_publisher_options_init sets the defaults.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct SealcastPublisherOptions {
    /// sizeof(sealcast_publisher_options).
    pub size: usize,
    /// Name of the channel.
    pub channel: *const c_char,
    /// The channel's site; all zeros: the device's own.
    pub site_id: [u8; 16],
    /// The site's key server; NULL: that of the device's own site.
    pub keys_url: *const c_char,
    /// Name or address of the network interface; NULL: the policy's, or loopback where the key server is there.
    pub interface_name: *const c_char,
    /// "ADDR:PORT" to send to in place of the policy's group; NULL: the policy's.
    pub send_to: *const c_char,
    /// One of several publishers of this device on the channel; NULL: the only one.
    pub instance: *const c_char,
    /// Bytes of the path's MTU, 576 to 9000.
    pub mtu: u32,
    /// Packets that one signature covers at most, 1 to 64.
    pub max_block: u32,
    /// Routers that packets may pass, plus 1; 1 to 255.
    pub ttl: u32,
    /// Differentiated services code point, 0 to 63.
    pub dscp: u32,
    /// A sealcast_fec.
    pub fec: i32,
    /// Packets of a group, with SEALCAST_FEC_FIXED: 1 to 64.
    pub fec_sources: u32,
    /// Parity packets for them.
    pub fec_parities: u32,
    /// Topics whose last value is kept for who joins later; 0: none.
    pub retain_topics: u32,
    /// What these values may hold.
    pub retain_bytes: u64,
    /// The longest message that is taken.
    pub max_message_bytes: u64,
    /// What may wait for the rate.
    pub queue_bytes: u64,
    /// 0: the policy's rate is kept to, whatever subscribers lose.
    pub adaptive_rate: i32,
    /// Not 0: the host has sockets and clock of its own, and calls sealcast_publisher_poll_datagram and
    /// sealcast_publisher_handle_deadline.
    pub host_sockets: i32,
}

// SAFETY: `repr(C)`, the size first, pointers that may be NULL, and numbers.
unsafe impl Options for SealcastPublisherOptions {
    const NAME: &'static str = "sealcast_publisher_options";
    fn default_values() -> Self {
        Self {
            size: size_of::<Self>(),
            channel: std::ptr::null(),
            site_id: [0; 16],
            keys_url: std::ptr::null(),
            interface_name: std::ptr::null(),
            send_to: std::ptr::null(),
            instance: std::ptr::null(),
            mtu: 1500,
            max_block: 64,
            ttl: 1,
            dscp: 0,
            fec: SealcastFec::Policy as i32,
            fec_sources: 0,
            fec_parities: 0,
            retain_topics: 0,
            retain_bytes: 1 << 20,
            max_message_bytes: 16 << 20,
            queue_bytes: 64 << 20,
            adaptive_rate: 1,
            host_sockets: 0,
        }
    }
}

/// What a publisher has counted since it was made.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct SealcastPublisherCounters {
    /// Messages that were taken.
    pub messages: u64,
    /// Of these, dropped by a hasty end.
    pub abandoned: u64,
    /// Packets that were sealed.
    pub packets: u64,
    /// Of these, parity.
    pub parity: u64,
    /// Signatures.
    pub blocks: u64,
    /// Of all packets.
    pub bytes: u64,
    /// Packets that were given for repair.
    pub repairs_served: u64,
    /// Bytes of messages that wait.
    pub queued_bytes: u64,
    /// Thousandths of the policy's rate that are used now.
    pub pace: u64,
    /// Sends that the system refused; their packets come back by repair.
    pub send_errors: u64,
    /// Events that nobody took.
    pub dropped_events: u64,
}

impl Engine for Sender {
    fn member(&self) -> &Member {
        self.member()
    }
    fn member_mut(&mut self) -> &mut Member {
        self.member_mut()
    }
    fn poll_command(&mut self) -> Option<Command> {
        self.poll_command()
    }
    fn handle_response(&mut self, id: u64, response: Response<'_>, now: u64) {
        self.handle_response(id, response, now);
    }
    fn next_deadline(&self) -> Option<u64> {
        self.next_deadline()
    }
    fn handle_deadline(&mut self, now: u64) {
        let mut randomness = [[0; 16]; 2];
        randomness.iter_mut().for_each(|bytes| fill_random(bytes));
        self.handle_deadline(now, randomness);
    }
    fn set_trust(&mut self, validator: Validator, now: u64) {
        self.member_mut().set_trust(validator, now);
    }
}

/// Where the host wants to send.
#[derive(Debug)]
struct Wanted {
    interface: Option<String>,
    send_to: Option<SocketAddr>,
    ttl: u8,
    dscp: u8,
    has_driver: bool,
}

/// What a driver was started with.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Sending {
    route: Route,
    rate: NonZeroU64,
}

pub(crate) struct Publisher {
    pub(crate) session: Session<Sender>,
    wanted: Wanted,
    driver: Mutex<Option<(Sending, SendDriver)>>,
    certification: Mutex<Certification>,
    /// Length of the message that the queue had no room for last.
    pub(crate) refused: AtomicU64,
}

impl Handled for Publisher {
    const NAME: &'static str = "publisher";
}

impl End for Publisher {
    type Engine = Sender;
    type Options = SealcastPublisherOptions;

    unsafe fn new(identity: Arc<Identity>, options: &SealcastPublisherOptions, now: u64) -> Outcome<Self> {
        let now = beginning(options.host_sockets, now);
        // SAFETY: as this function's own.
        let place = unsafe { place(&identity, &options.site_id, options.keys_url, options.channel) }?;
        let optional = |text: *const c_char, name: &str| {
            // SAFETY: likewise.
            unsafe { memory::optional_text(text, name) }
        };
        let interface = optional(options.interface_name, "interface_name")?;
        let send_to = optional(options.send_to, "send_to")?;
        let instance = optional(options.instance, "instance")?;
        let host_time = (options.host_sockets != 0).then_some(now);
        let (member, generation) = member_config(&identity, &place, Purpose::Publish, host_time)?;
        let (mut seed, mut start_nonce) = ([0; 32], [0; 16]);
        fill_random(&mut seed);
        fill_random(&mut start_nonce);
        // DP-2: made at this start, never stored.
        let mut config = SenderConfig::new(member, Secret::new(seed), start_nonce);
        let instance = instance.unwrap_or_default();
        if instance.len() > 63 {
            return Err(Failure::invalid(format!(
                "instance: {instance:?} is longer than 63 bytes"
            )));
        }
        instance.clone_into(&mut config.instance);
        config.mtu = memory::in_range("mtu", options.mtu, 576, 9000)? as usize;
        config.max_block = memory::in_range("max_block", options.max_block, 1, 64)? as u8;
        config.fec = fec_of(options)?;
        config.max_message_bytes =
            memory::in_range("max_message_bytes", options.max_message_bytes, 1, 1 << 30)?;
        config.queue_bytes = memory::in_range("queue_bytes", options.queue_bytes, 1, 1 << 40)?;
        config.retain = RetainLimits {
            topics: options.retain_topics as usize,
            bytes: options.retain_bytes,
        };
        config.adaptive_rate = options.adaptive_rate != 0;
        let wanted = Wanted {
            interface: interface.map(str::to_owned),
            send_to: send_to.map(|text| parse_address(text, "send_to")).transpose()?,
            ttl: memory::in_range("ttl", options.ttl, 1, 255)? as u8,
            dscp: memory::in_range("dscp", options.dscp, 0, 63)? as u8,
            has_driver: options.host_sockets == 0,
        };
        let mut sender = Sender::new(config, now);
        sender.serve_outbound();
        Ok(Self {
            session: Session::new(identity, place, sender, generation, host_time),
            wanted,
            driver: Mutex::new(None),
            certification: Mutex::default(),
            refused: AtomicU64::new(0),
        })
    }

    fn session(&self) -> &Session<Sender> {
        &self.session
    }

    fn tend(&self) -> Outcome<()> {
        if !self.session.has_joined() || self.session.is_closed() {
            return Ok(());
        }
        // What is vouched for goes on, with a new policy too.
        let certified = self.certify();
        self.drive()?;
        certified
    }

    fn wake(&self) {
        match &*lock(&self.driver) {
            Some((_, driver)) => driver.wake(),
            None => self.session.raise(),
        }
    }

    fn next_event(&self) -> Outcome<Option<SealcastEvent>> {
        // A refusal is an event here, and no failure.
        let _ = self.listen();
        Ok(self.session.next_event())
    }

    fn close(&self) {
        self.session.close();
        drop(lock(&self.driver).take());
    }
}

fn fec_of(options: &SealcastPublisherOptions) -> Outcome<Option<Fec>> {
    let ratio = || {
        let sources = u8::try_from(options.fec_sources).ok();
        let parities = u8::try_from(options.fec_parities).ok();
        sources
            .zip(parities)
            .and_then(|(sources, parities)| Ratio::new(sources, parities))
    };
    match options.fec {
        0 => Ok(None),
        1 => Ok(Some(Fec::Off)),
        2 => Ok(Some(Fec::Adaptive)),
        3 => ratio().map(|ratio| Some(Fec::Fixed(ratio))).ok_or_else(|| {
            let (sources, parities) = (options.fec_sources, options.fec_parities);
            Failure::invalid(format!("no parity of {parities} packets for {sources}"))
        }),
        other => Err(Failure::invalid(format!("there is no fec {other}"))),
    }
}

impl Publisher {
    /// Where the device key is slow, who else comes by does not wait for it.
    fn certify(&self) -> Outcome<()> {
        if let Some(mut certification) = self.certification()
            && certification.certify(&self.session)?
        {
            drop(certification);
            self.wake();
        }
        Ok(())
    }

    /// None while another thread is at it.
    fn certification(&self) -> Option<MutexGuard<'_, Certification>> {
        match self.certification.try_lock() {
            Ok(certification) => Some(certification),
            Err(TryLockError::Poisoned(held)) => Some(held.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Has a device key that did not sign be asked at once.
    pub(crate) fn try_key_again(&self) {
        if let Some(mut certification) = self.certification() {
            certification.try_again();
        }
    }

    /// Sends as the policy says; while that stays the same nothing changes.
    fn drive(&self) -> Outcome<()> {
        if !self.wanted.has_driver {
            return Ok(());
        }
        let Some(policy) = self.session.new_policy() else {
            return Ok(());
        };
        let wanted = &self.wanted;
        let keys_url = &self.session.place.keys_url;
        let route = Route::of(&policy, wanted.send_to, wanted.interface.as_deref(), keys_url)?;
        let rate = NonZeroU64::new(policy.rate).unwrap_or(NonZeroU64::MIN);
        let sending = Sending { route, rate };
        let mut driver = lock(&self.driver);
        if driver.as_ref().is_none_or(|(now, _)| *now != sending) {
            let mut config = sealcast_net::SenderConfig::new(sending.route.address, sending.route.resolve()?);
            config.ttl = wanted.ttl;
            config.dscp = wanted.dscp;
            let engine = Arc::clone(&self.session.engine);
            let notifier = Arc::clone(&self.session.notifier);
            let made = SendDriver::start(engine, config, rate, notifier).map_err(no_socket)?;
            self.session.is_driven.store(true, Ordering::Release);
            drop(driver.replace((sending, made)));
        }
        self.session.note_policy(policy.version);
        Ok(())
    }

    /// Files what has happened. Fails where nothing can be sent from now on: by the key server's word, or the device key's silence.
    pub(crate) fn listen(&self) -> Outcome<()> {
        let mut engine = lock(&self.session.engine);
        while let Some(event) = engine.poll_event() {
            self.session.file(event, &engine);
        }
        drop(engine);
        let unsigned = || self.certification()?.obstacle(&self.session);
        self.session
            .admission
            .refused()
            .or_else(unsigned)
            .map_or(Ok(()), Err)
    }

    /// Whether half of the queue is free, and the message that was refused last would be taken.
    pub(crate) fn has_room(&self) -> bool {
        let engine = lock(&self.session.engine);
        engine.queued_bytes() * 2 <= engine.queue_limit()
            && engine.has_room(self.refused.load(Ordering::Relaxed))
    }

    /// Has the driver say when half of the queue is free.
    pub(crate) fn want_room(&self) {
        if let Some((_, driver)) = &*lock(&self.driver) {
            driver.want_room();
        }
    }

    /// Remembers what the queue had no room for.
    pub(crate) fn note(&self, length: u64, sent: Result<u64, SendError>) -> Outcome<()> {
        if sent == Err(SendError::QueueFull) {
            self.refused.store(length, Ordering::Relaxed);
        }
        sent.map(|_| ()).map_err(not_taken)
    }

    pub(crate) fn counters(&self) -> SealcastPublisherCounters {
        let send_errors = lock(&self.driver)
            .as_ref()
            .map_or(0, |(_, driver)| driver.errors());
        let engine = lock(&self.session.engine);
        let counters = engine.counters();
        SealcastPublisherCounters {
            messages: counters.messages,
            abandoned: counters.abandoned,
            packets: counters.packets,
            parity: counters.parity,
            blocks: counters.blocks,
            bytes: counters.bytes,
            repairs_served: counters.repairs_served,
            queued_bytes: engine.queued_bytes(),
            pace: u64::from(engine.pace()),
            send_errors,
            dropped_events: self.session.dropped_events(),
        }
    }
}

pub(crate) fn not_taken(error: SendError) -> Failure {
    let (status, text) = match error {
        SendError::TooLong { limit } => (
            SealcastStatus::TooLong,
            format!("the message is longer than {limit} bytes"),
        ),
        SendError::TopicTooLong { limit } => (
            SealcastStatus::TooLong,
            format!("the topic is longer than {limit} bytes"),
        ),
        SendError::QueueFull => (
            SealcastStatus::QueueFull,
            "the queue of messages is full".to_owned(),
        ),
        SendError::Ended => (SealcastStatus::Ended, "the stream has been ended".to_owned()),
        SendError::Exhausted => (
            SealcastStatus::Exhausted,
            "the stream has used up its numbers: make another publisher".to_owned(),
        ),
    };
    Failure::new(status, text)
}
