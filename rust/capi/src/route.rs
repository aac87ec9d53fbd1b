//! Where the packets of a channel go on this machine: the host's word, else the policy's.

use std::net::{IpAddr, SocketAddr};

use sealcast_core::messages::is_host;
use sealcast_core::policy::Policy;
use sealcast_net::{Interface, NetError};

use crate::status::{Failure, Outcome, SealcastStatus};

/// One direction of the data path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) address: SocketAddr,
    pub(crate) interface: String,
}

impl Route {
    /// The interface is the one given, else the channel's, else loopback where the key server is on loopback: never the
    /// default route in silence.
    pub(crate) fn of(
        policy: &Policy,
        address: Option<SocketAddr>,
        interface: Option<&str>,
        keys_url: &str,
    ) -> Outcome<Self> {
        let address = match address {
            Some(address) => address,
            None => {
                let group: IpAddr = policy.group.parse().map_err(|_| {
                    let text = format!("the policy's group {:?} is no address", policy.group);
                    Failure::new(SealcastStatus::Interface, text)
                })?;
                SocketAddr::new(group, policy.port)
            }
        };
        let named = interface.or(policy.interface.as_deref()).map(str::to_owned);
        let interface = named.or_else(|| is_loopback(keys_url).then(loopback));
        let interface = interface.ok_or_else(|| {
            let text = "no network interface is given for the data path: set `interface_name` in the options";
            Failure::new(SealcastStatus::Interface, text)
        })?;
        Ok(Self { address, interface })
    }

    pub(crate) fn resolve(&self) -> Outcome<Interface> {
        Interface::resolve(&self.interface).map_err(no_socket)
    }
}

/// Reads "ADDR:PORT" or "[ADDR]:PORT".
pub(crate) fn parse_address(text: &str, name: &str) -> Outcome<SocketAddr> {
    text.parse()
        .ok()
        .filter(|address: &SocketAddr| address.port() != 0)
        .ok_or_else(|| Failure::invalid(format!("{name}: {text:?} is not ADDR:PORT")))
}

pub(crate) fn no_socket(error: NetError) -> Failure {
    Failure::new(SealcastStatus::Interface, error.to_string())
}

fn loopback() -> String {
    let named = Interface::list().unwrap_or_default();
    let has_lo = named.iter().any(|interface| interface.name == "lo");
    if has_lo { "lo" } else { "127.0.0.1" }.to_owned()
}

fn is_loopback(url: &str) -> bool {
    host_of(url).is_some_and(|host| {
        host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    })
}

/// Whom an URL such as `https://HOST:PORT` or `https://[ADDR]:PORT/path` names; None: it is none that every HTTPS client reads.
pub(crate) fn host_of(url: &str) -> Option<&str> {
    let rest = url.strip_prefix("https://")?;
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let bracketed = authority.strip_prefix('[').and_then(|rest| rest.split_once(']'));
    let (host, port) =
        bracketed.unwrap_or_else(|| authority.split_at(authority.find(':').unwrap_or(authority.len())));
    let is_port = |digits: &str| {
        digits.bytes().all(|byte| byte.is_ascii_digit()) && digits.parse().is_ok_and(|port: u16| port != 0)
    };
    let is_right = is_host(host)
        && host.contains(':') == bracketed.is_some()
        && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port))
        && path
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && !b"?#".contains(&byte));
    is_right.then_some(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_told_from_other_hosts() {
        for url in [
            "https://127.0.0.1:1/x",
            "https://[::1]:1",
            "https://localhost:1",
            "https://127.3.2.1",
        ] {
            assert!(is_loopback(url), "{url}");
        }
        for url in [
            "https://192.0.2.1:1",
            "https://localhost.example:1",
            "https://[fe80::1]:1",
            "",
        ] {
            assert!(!is_loopback(url), "{url}");
        }
    }

    #[test]
    fn a_url_is_one_for_every_client() {
        for (url, host) in [
            ("https://keys.example:8443/", "keys.example"),
            ("https://192.0.2.1", "192.0.2.1"),
            ("https://[2001:db8::1]:1/a/b", "2001:db8::1"),
        ] {
            assert_eq!(host_of(url), Some(host));
        }
        for wrong in [
            "http://host:1",
            "https://",
            "https://:1",
            "https://a b:1",
            "https://host:",
            "https://host:0",
            "https://host:99999",
            "https://host:+1",
            "https://me@host:1",
            "https://2001:db8::1",
            "https://[192.0.2.1]:1",
            "https://[a:b]:1",
            "https://a..b:1",
            "https://%41:1",
            "https://host/?q",
            "https://host/a b",
        ] {
            assert_eq!(host_of(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn an_address_needs_a_port() {
        assert!(parse_address("239.1.2.3:5000", "listen").is_ok());
        for wrong in ["239.1.2.3", "239.1.2.3:0", "host:5000", ""] {
            assert!(
                parse_address(wrong, "listen")
                    .unwrap_err()
                    .text
                    .contains("listen")
            );
        }
    }
}
