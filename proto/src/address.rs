//! Addresses as people write them: one rule for whoever takes one.

use std::net::Ipv6Addr;

/// Where clients find a node, by custom.
pub const GRPC_PORT: u16 = 7000;
/// Where nodes find each other, by custom.
pub const PEER_PORT: u16 = 7100;
/// Where people and monitors find a node, by custom.
pub const HTTP_PORT: u16 = 7200;

/// What is wrong with an address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// There is no colon.
    #[error("{0:?} has no port")]
    NoPort(String),
    /// What stands before the last colon.
    #[error("{0:?} is no host")]
    Host(String),
    /// What stands behind it.
    #[error("{0:?} is no port")]
    Port(String),
}

/// `HOST:PORT`: a name or an IPv4 address, or an IPv6 address in brackets, and a port from 1 up.
///
/// # Errors
/// Which part is wrong.
pub fn check_address(text: &str) -> Result<(), AddressError> {
    let (host, port) = text.rsplit_once(':').ok_or_else(|| AddressError::NoPort(text.to_owned()))?;
    let is_host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        // All that a name or an IPv4 address is made of: nothing that has a meaning in a URL.
        None => {
            !host.is_empty()
                && host.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
        }
    };
    if !is_host {
        return Err(AddressError::Host(host.to_owned()));
    }
    // A sign is no part of a port, though a number may have one.
    match port.parse::<u16>() {
        Ok(1..) if !port.starts_with('+') => Ok(()),
        _ => Err(AddressError::Port(port.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_host_and_a_port() {
        for right in ["db-0.db:7000", "[::1]:7000", "my_host:1", "10.0.0.1:65535", "[::ffff:10.0.0.1]:7000"] {
            assert_eq!(check_address(right), Ok(()));
        }
        for wrong in ["db", ""] {
            assert_eq!(check_address(wrong), Err(AddressError::NoPort(wrong.to_owned())));
        }
        for wrong in [
            "",
            "::1",
            "http://db",
            "user@host",
            "host?x",
            "host#x",
            "a b",
            "[]",
            "[db]",
            "[::1",
            "host/",
            "h\u{f6}",
        ] {
            assert_eq!(check_address(&format!("{wrong}:7000")), Err(AddressError::Host(wrong.to_owned())));
        }
        for wrong in ["", "0", "70000", "+7000", "-1", "7000/"] {
            assert_eq!(check_address(&format!("db:{wrong}")), Err(AddressError::Port(wrong.to_owned())));
        }
    }
}
