//! Why packets are refused, and what a subscriber counts.

/// Why a packet was not taken. Closed; one counter each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(usize)]
pub enum Rejection {
    Malformed,
    UnknownType,
    ReservedType,
    NotJoined,
    UnknownStream,
    BelowWindow,
    Duplicate,
    BeyondWindow,
    NoRoom,
    Gate,
    UnknownEpoch,
    EpochNotOurs,
    StaleGeneration,
    SignatureBudget,
    Signature,
    Equivocation,
    Open,
    Credential,
    Beacon,
}

impl Rejection {
    pub const ALL: [Self; 19] = [
        Self::Malformed,
        Self::UnknownType,
        Self::ReservedType,
        Self::NotJoined,
        Self::UnknownStream,
        Self::BelowWindow,
        Self::Duplicate,
        Self::BeyondWindow,
        Self::NoRoom,
        Self::Gate,
        Self::UnknownEpoch,
        Self::EpochNotOurs,
        Self::StaleGeneration,
        Self::SignatureBudget,
        Self::Signature,
        Self::Equivocation,
        Self::Open,
        Self::Credential,
        Self::Beacon,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::UnknownType => "unknown-type",
            Self::ReservedType => "reserved-type",
            Self::NotJoined => "not-joined",
            Self::UnknownStream => "unknown-stream",
            Self::BelowWindow => "below-window",
            Self::Duplicate => "duplicate",
            Self::BeyondWindow => "beyond-window",
            Self::NoRoom => "no-room",
            Self::Gate => "gate",
            Self::UnknownEpoch => "unknown-epoch",
            Self::EpochNotOurs => "epoch-not-ours",
            Self::StaleGeneration => "stale-generation",
            Self::SignatureBudget => "signature-budget",
            Self::Signature => "signature",
            Self::Equivocation => "equivocation",
            Self::Open => "open",
            Self::Credential => "credential",
            Self::Beacon => "beacon",
        }
    }
}

/// What a subscriber has counted since its start.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    pub accepted: u64,
    pub repaired: u64,
    /// Packets that came over the side channel in the place of multicast.
    pub followed: u64,
    /// Packets that parity has brought.
    pub rebuilt: u64,
    pub requests: u64,
    /// Sequences reported as lost.
    pub lost: u64,
    pub heartbeats: u64,
    /// Streams that claimed to continue one of another device or instance (DP-32).
    pub foreign_successions: u64,
    /// Signatures checked, good or bad.
    pub signatures: u64,
    rejected: [u64; Rejection::ALL.len()],
}

impl Counters {
    pub(crate) fn count(&mut self, reason: Rejection) {
        self.rejected[reason as usize] += 1;
    }

    pub fn rejected(&self, reason: Rejection) -> u64 {
        self.rejected[reason as usize]
    }
}
