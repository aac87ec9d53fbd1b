//! The network interfaces of this machine, by name or by address.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr};

use crate::error::NetError;

/// A network interface as it was when looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    pub name: String,
    /// The system's number for it, what group memberships are bound to; 0 where the system shows none (Windows).
    pub index: u32,
    /// The address it was asked for by, else its first IPv4 address.
    pub ipv4: Option<Ipv4Addr>,
    /// Every address, in the order of the system.
    pub addresses: Vec<IpAddr>,
    pub up: bool,
    /// What the system says; see [`Interface::does_multicast`] for what is true.
    pub multicast: bool,
    pub loopback: bool,
    /// The largest IP packet in bytes, where the system tells.
    pub mtu_bytes: Option<u32>,
}

impl Interface {
    /// Looks an interface up by its name (`eth0`) or by one of its addresses (`192.0.2.2`, `fe80::1`).
    pub fn resolve(name_or_address: &str) -> Result<Self, NetError> {
        let interfaces = Self::list().map_err(|error| NetError::system("list the interfaces", error))?;
        let address = name_or_address.parse::<IpAddr>().ok();
        let found = interfaces.iter().find(|interface| match address {
            Some(address) => interface.addresses.contains(&address),
            None => interface.name == name_or_address,
        });
        match found {
            Some(interface) => {
                let mut interface = interface.clone();
                if let Some(IpAddr::V4(address)) = address {
                    interface.ipv4 = Some(address);
                }
                Ok(interface)
            }
            None => without_list(name_or_address).ok_or_else(|| NetError::UnknownInterface {
                wanted: name_or_address.to_owned(),
                available: interfaces.iter().map(ToString::to_string).collect(),
            }),
        }
    }

    /// Every interface of this machine, in the order of the system; empty where the system does not tell (Windows).
    pub fn list() -> io::Result<Vec<Self>> {
        system::list()
    }

    /// Whether multicast works on it. The loopback interface usually lacks the system's flag, and still carries
    /// multicast between the programs of this machine when it is named explicitly, as this crate always does.
    pub fn does_multicast(&self) -> bool {
        self.multicast || self.loopback
    }

    /// This interface, if a socket for the group can be opened on it.
    pub(crate) fn check_usable(&self, group: IpAddr) -> Result<(), NetError> {
        let interface = || self.name.clone();
        if !self.up {
            return Err(NetError::InterfaceDown {
                interface: interface(),
            });
        }
        if !self.does_multicast() {
            return Err(NetError::InterfaceWithoutMulticast {
                interface: interface(),
            });
        }
        let (family, present) = match group {
            IpAddr::V4(_) => ("IPv4", self.ipv4.is_some()),
            IpAddr::V6(_) => (
                "IPv6",
                self.index != 0 && self.addresses.iter().any(IpAddr::is_ipv6),
            ),
        };
        if !present {
            return Err(NetError::InterfaceWithoutAddress {
                interface: interface(),
                family,
            });
        }
        Ok(())
    }
}

impl fmt::Display for Interface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ipv4.map(IpAddr::V4).or(self.addresses.first().copied()) {
            Some(address) => write!(f, "{} ({address})", self.name),
            None => f.write_str(&self.name),
        }
    }
}

/// On a system that lists no interfaces an IPv4 address is taken at its word: joining and sending accept it as it is.
fn without_list(address: &str) -> Option<Interface> {
    if cfg!(unix) {
        return None;
    }
    let ipv4 = address.parse::<Ipv4Addr>().ok()?;
    Some(Interface {
        name: ipv4.to_string(),
        index: 0,
        ipv4: Some(ipv4),
        addresses: vec![IpAddr::V4(ipv4)],
        up: true,
        multicast: true,
        loopback: ipv4.is_loopback(),
        mtu_bytes: None,
    })
}

#[cfg(unix)]
mod system {
    use std::ffi::CStr;
    use std::io;
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
    use std::ptr;

    use super::Interface;

    /// The list that `getifaddrs` allocates, freed on drop.
    struct AddressList(*mut libc::ifaddrs);

    impl AddressList {
        fn fetch() -> io::Result<Self> {
            let mut head = ptr::null_mut();
            // SAFETY: `head` is a valid place for the pointer that the call writes.
            if unsafe { libc::getifaddrs(&raw mut head) } != 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(Self(head))
        }

        fn entries(&self) -> impl Iterator<Item = &libc::ifaddrs> {
            let mut next = self.0;
            std::iter::from_fn(move || {
                // SAFETY: each pointer of the list is null or valid until `freeifaddrs`, which only `drop` calls; the
                // entries borrow from `self`.
                let entry = unsafe { next.as_ref() }?;
                next = entry.ifa_next;
                Some(entry)
            })
        }
    }

    impl Drop for AddressList {
        fn drop(&mut self) {
            // SAFETY: the pointer came from `getifaddrs` and is freed once.
            unsafe { libc::freeifaddrs(self.0) }
        }
    }

    pub(super) fn list() -> io::Result<Vec<Interface>> {
        let addresses = AddressList::fetch()?;
        let mut interfaces: Vec<Interface> = Vec::new();
        for entry in addresses.entries() {
            // SAFETY: the system gives a name that ends in NUL and lives as long as the list.
            let name = unsafe { CStr::from_ptr(entry.ifa_name) };
            let text = name.to_string_lossy();
            let known = interfaces.iter().position(|interface| interface.name == text);
            let position = known.unwrap_or_else(|| {
                interfaces.push(without_addresses(name, entry.ifa_flags));
                interfaces.len() - 1
            });
            if let Some(address) = ip_address(entry) {
                let interface = &mut interfaces[position];
                if let (None, IpAddr::V4(ipv4)) = (interface.ipv4, address) {
                    interface.ipv4 = Some(ipv4);
                }
                interface.addresses.push(address);
            }
        }
        Ok(interfaces)
    }

    fn without_addresses(name: &CStr, flags: libc::c_uint) -> Interface {
        let has = |flag: libc::c_int| flags & flag.unsigned_abs() != 0;
        Interface {
            name: name.to_string_lossy().into_owned(),
            // SAFETY: the name is a valid C string; an unknown one gives 0.
            index: unsafe { libc::if_nametoindex(name.as_ptr()) },
            ipv4: None,
            addresses: Vec::new(),
            up: has(libc::IFF_UP),
            multicast: has(libc::IFF_MULTICAST),
            loopback: has(libc::IFF_LOOPBACK),
            mtu_bytes: crate::sockopt::interface_mtu(name),
        }
    }

    fn ip_address(entry: &libc::ifaddrs) -> Option<IpAddr> {
        // SAFETY: the address is null or valid as long as the list; every kind starts with the family.
        let family = unsafe { entry.ifa_addr.as_ref() }?.sa_family;
        match i32::from(family) {
            libc::AF_INET => {
                // SAFETY: the family says that a `sockaddr_in` is there.
                let address = unsafe { ptr::read_unaligned(entry.ifa_addr.cast::<libc::sockaddr_in>()) };
                Some(IpAddr::V4(Ipv4Addr::from(address.sin_addr.s_addr.to_ne_bytes())))
            }
            libc::AF_INET6 => {
                // SAFETY: the family says that a `sockaddr_in6` is there.
                let address = unsafe { ptr::read_unaligned(entry.ifa_addr.cast::<libc::sockaddr_in6>()) };
                Some(IpAddr::V6(Ipv6Addr::from(address.sin6_addr.s6_addr)))
            }
            _ => None,
        }
    }
}

#[cfg(not(unix))]
mod system {
    use std::io;

    use super::Interface;

    #[allow(clippy::unnecessary_wraps)] // the signature of the other platforms
    pub(super) fn list() -> io::Result<Vec<Interface>> {
        Ok(Vec::new())
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    /// `lo` on Linux, `lo0` elsewhere.
    fn loopback() -> Interface {
        Interface::list()
            .unwrap()
            .into_iter()
            .find(|interface| interface.loopback)
            .unwrap()
    }

    #[test]
    fn a_name_and_an_address_lead_to_the_same_interface() {
        let by_name = Interface::resolve(&loopback().name).unwrap();
        let by_address = Interface::resolve("127.0.0.1").unwrap();
        assert_eq!(by_name, by_address);
        assert_eq!(by_name.ipv4, Some(Ipv4Addr::LOCALHOST));
        assert!(by_name.up && by_name.does_multicast());
        assert_ne!(by_name.index, 0);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_mtu_is_known() {
        assert!(loopback().mtu_bytes.unwrap() >= 1280);
    }

    #[test]
    fn an_unknown_interface_is_answered_by_the_list() {
        for wanted in ["eth99", "198.51.100.77", ""] {
            let error = Interface::resolve(wanted).unwrap_err();
            let NetError::UnknownInterface {
                wanted: named,
                available,
            } = &error
            else {
                panic!("{error}")
            };
            assert_eq!(named, wanted);
            assert!(available.contains(&loopback().to_string()), "{available:?}");
            assert!(error.to_string().contains("127.0.0.1"), "{error}");
        }
    }

    #[test]
    fn what_cannot_carry_a_group_is_refused() {
        let group = IpAddr::V4(Ipv4Addr::new(239, 255, 0, 1));
        let usable = loopback();
        assert!(usable.check_usable(group).is_ok());
        let down = Interface {
            up: false,
            ..usable.clone()
        };
        assert!(matches!(
            down.check_usable(group),
            Err(NetError::InterfaceDown { .. })
        ));
        let tunnel = Interface {
            multicast: false,
            loopback: false,
            ..usable.clone()
        };
        assert!(matches!(
            tunnel.check_usable(group),
            Err(NetError::InterfaceWithoutMulticast { .. })
        ));
        let bare = Interface { ipv4: None, ..usable };
        assert!(matches!(
            bare.check_usable(group),
            Err(NetError::InterfaceWithoutAddress { family: "IPv4", .. })
        ));
    }
}
