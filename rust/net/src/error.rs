//! What can go wrong with the network's set-up, in terms of what the caller can do about it.

use std::error::Error;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};

/// A refusal to open a socket. Each names the value that was wrong; the text says what to change.
#[derive(Debug)]
#[non_exhaustive]
pub enum NetError {
    /// No interface has this name or address.
    UnknownInterface {
        wanted: String,
        /// The interfaces there are, each as `eth0 (192.0.2.2)`.
        available: Vec<String>,
    },
    InterfaceDown {
        interface: String,
    },
    /// The interface cannot do multicast (a tunnel, for instance).
    InterfaceWithoutMulticast {
        interface: String,
    },
    /// The interface has no address of the group's family.
    InterfaceWithoutAddress {
        interface: String,
        family: &'static str,
    },
    NotMulticast {
        address: IpAddr,
    },
    /// What is to be the only source is no host's address, or not of the group's family.
    NotASource {
        source: IpAddr,
        group: IpAddr,
    },
    /// A sender needs the port that its receivers listen on.
    NoPort {
        group: SocketAddr,
    },
    /// Packets that are made for the channel would not fit the interface, and are not to be cut up.
    MtuAboveInterface {
        mtu: usize,
        interface: String,
        interface_mtu: u32,
    },
    /// Another program holds the port and does not share it.
    AddressInUse {
        address: SocketAddr,
    },
    /// The address to listen on belongs to no interface of this machine.
    AddressNotHere {
        address: SocketAddr,
    },
    /// The system's limit of group memberships for one socket is reached.
    TooManyGroups {
        group: IpAddr,
        interface: String,
    },
    PermissionDenied {
        /// What was tried, as `bind to 239.0.0.1:80`.
        doing: String,
        error: io::Error,
    },
    /// Anything else that the system says.
    System {
        doing: String,
        error: io::Error,
    },
}

impl NetError {
    /// The error for a failed step that has no cure of its own.
    pub(crate) fn system(doing: impl Into<String>, error: io::Error) -> Self {
        let doing = doing.into();
        match error.kind() {
            io::ErrorKind::PermissionDenied => Self::PermissionDenied { doing, error },
            _ => Self::System { doing, error },
        }
    }
}

impl fmt::Display for NetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownInterface { wanted, available } if available.is_empty() => {
                write!(
                    f,
                    "no interface '{wanted}': this machine shows none; name one by its IPv4 address"
                )
            }
            Self::UnknownInterface { wanted, available } => {
                write!(f, "no interface '{wanted}': use one of {}", available.join(", "))
            }
            Self::InterfaceDown { interface } => {
                write!(
                    f,
                    "interface {interface} is down: bring it up (ip link set {interface} up) or use another"
                )
            }
            Self::InterfaceWithoutMulticast { interface } => write!(
                f,
                "interface {interface} does not do multicast: use another, or turn it on \
                 (ip link set {interface} multicast on)"
            ),
            Self::InterfaceWithoutAddress { interface, family } => {
                write!(
                    f,
                    "interface {interface} has no {family} address: give it one, or use a group of its family"
                )
            }
            Self::NotMulticast { address } => write!(
                f,
                "{address} is not a multicast address: use one of 239.0.0.0/8 (IPv4) or ff00::/8 (IPv6)"
            ),
            Self::NotASource { source, group } => write!(
                f,
                "{source} cannot be the only source of {group}: name a host by an address of the group's family"
            ),
            Self::NoPort { group } => write!(
                f,
                "group {group} has port 0: name the port that the receivers use"
            ),
            Self::AddressInUse { address } => write!(
                f,
                "{address} is in use by a program that does not share it: stop it or use another port \
                 (ss -ulpn 'sport = :{}' names it)",
                address.port()
            ),
            Self::AddressNotHere { address } => write!(
                f,
                "cannot listen on {address}: {} is no address of this machine (ip address show)",
                address.ip()
            ),
            Self::MtuAboveInterface {
                mtu,
                interface,
                interface_mtu,
            } => write!(
                f,
                "packets of up to {mtu} bytes do not fit {interface}, whose MTU is {interface_mtu}"
            ),
            Self::TooManyGroups { group, interface } => write!(
                f,
                "cannot join {group} on {interface}: the limit of memberships is reached \
                 (sysctl net.ipv4.igmp_max_memberships)"
            ),
            Self::PermissionDenied { doing, error } => {
                write!(
                    f,
                    "not allowed to {doing}: {error}; use a port from 1024 up, or grant the right"
                )
            }
            Self::System { doing, error } => write!(f, "cannot {doing}: {error}"),
        }
    }
}

impl Error for NetError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::PermissionDenied { error, .. } | Self::System { error, .. } => Some(error),
            _ => None,
        }
    }
}
