//! Endpoints as people write them: an IP address or a host name, with a UDP port.
//!
//! Owns their text form. It never resolves a name. RFC 1123, section 2.1 (host names).

use alloc::string::String;
use core::fmt;
use core::net::SocketAddr;
use core::str::FromStr;

/// The longest host name in bytes.
pub const HOST_NAME_LEN_MAX: usize = 253;

/// The longest label of a host name in bytes.
const LABEL_LEN_MAX: usize = 63;

/// Where a node can be reached over UDP.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// An IP address and a port.
    Address(SocketAddr),
    /// A host name, to be resolved at each use, and a port.
    Host(HostName, u16),
}

/// A host name of ASCII letters, digits, hyphens and underscores, in lower case.
///
/// Labels have 1 to 63 bytes and no hyphen at an end; all together are at most 253 bytes. The
/// last label is not a number, so that no bad IPv4 address passes for a name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostName(String);

/// Why a text is not an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EndpointError {
    /// There is no `:` and port at the end.
    PortMissing,
    /// The port is not a number from 1 to 65535.
    Port,
    /// The part before the port has a colon, as an IPv6 address without brackets has.
    Brackets,
    /// The part before the port is neither an IP address nor a host name.
    Host(InvalidHostName),
}

/// The text is not a host name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidHostName;

impl Endpoint {
    /// Returns the UDP port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        match self {
            Self::Address(address) => address.port(),
            Self::Host(_, port) => *port,
        }
    }
}

impl From<SocketAddr> for Endpoint {
    fn from(address: SocketAddr) -> Self {
        Self::Address(address)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Host(name, port) => write!(f, "{name}:{port}"),
        }
    }
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    /// Reads `192.0.2.1:51820`, `[2001:db8::1]:51820` or `host.example:51820`.
    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let endpoint = match text.parse() {
            Ok(address) => Self::Address(address),
            Err(_) => {
                let (host, port) = text.rsplit_once(':').ok_or(EndpointError::PortMissing)?;
                if host.contains(':') {
                    return Err(EndpointError::Brackets);
                }
                let name = host.parse().map_err(EndpointError::Host)?;
                let digits = port.bytes().all(|byte| byte.is_ascii_digit());
                let port = port
                    .parse()
                    .ok()
                    .filter(|_| digits)
                    .ok_or(EndpointError::Port)?;
                Self::Host(name, port)
            }
        };
        if endpoint.port() == 0 {
            Err(EndpointError::Port)
        } else {
            Ok(endpoint)
        }
    }
}

impl HostName {
    /// Lends the name, in lower case and without a final dot.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for HostName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for HostName {
    type Err = InvalidHostName;

    /// Reads a name in either case; a dot at its end is dropped.
    fn from_str(text: &str) -> Result<Self, InvalidHostName> {
        let name = text.strip_suffix('.').unwrap_or(text);
        let valid = name.len() <= HOST_NAME_LEN_MAX && name.split('.').all(is_label);
        let last = name.rsplit('.').next().unwrap_or_default();
        if !valid || last.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(InvalidHostName);
        }
        Ok(Self(name.to_ascii_lowercase()))
    }
}

fn is_label(label: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    (1..=LABEL_LEN_MAX).contains(&label.len())
        && label.bytes().all(allowed)
        && !label.starts_with('-')
        && !label.ends_with('-')
}

impl fmt::Display for EndpointError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PortMissing => f.write_str("the endpoint has no port; write HOST:PORT"),
            Self::Port => f.write_str("the port is not a number from 1 to 65535"),
            Self::Brackets => {
                f.write_str("an IPv6 address with a port is written in brackets: [ADDRESS]:PORT")
            }
            Self::Host(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for EndpointError {}

impl fmt::Display for InvalidHostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("neither an IP address nor a host name")
    }
}

impl core::error::Error for InvalidHostName {}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn written_forms_are_read_and_shown() {
        let table = [
            ("192.0.2.1:51820", "192.0.2.1:51820"),
            ("[2001:db8::1]:1", "[2001:db8::1]:1"),
            ("Host.Example.:65535", "host.example:65535"),
            ("a_b-c.1x:7", "a_b-c.1x:7"),
            ("localhost:7", "localhost:7"),
        ];
        for (text, shown) in table {
            let endpoint: Endpoint = text.parse().expect(text);
            assert_eq!(endpoint.to_string(), shown);
            assert_eq!(endpoint.to_string().parse(), Ok(endpoint));
        }
    }

    #[test]
    fn wrong_forms_are_named() {
        let host = EndpointError::Host(InvalidHostName);
        let table = [
            ("", EndpointError::PortMissing),
            ("host", EndpointError::PortMissing),
            ("host:", EndpointError::Port),
            ("host:+7", EndpointError::Port),
            ("host:0", EndpointError::Port),
            ("host:65536", EndpointError::Port),
            ("192.0.2.1:0", EndpointError::Port),
            ("2001:db8::1:51820", EndpointError::Brackets),
            (":7", host),
            (".:7", host),
            ("a..b:7", host),
            ("-a:7", host),
            ("a-.b:7", host),
            ("a b:7", host),
            ("é.example:7", host),
            ("192.0.2:7", host),
            ("192.0.2.256:7", host),
        ];
        for (text, error) in table {
            assert_eq!(text.parse::<Endpoint>(), Err(error), "{text}");
        }
    }

    #[test]
    fn name_lengths_are_limited() {
        let label = "a".repeat(63);
        let longest = [label.as_str(); 3].join(".") + "." + &"b".repeat(61);
        assert_eq!(longest.len(), HOST_NAME_LEN_MAX);
        assert!(longest.parse::<HostName>().is_ok());
        assert!((longest.clone() + ".").parse::<HostName>().is_ok());
        assert!((longest + "b").parse::<HostName>().is_err());
        assert!((label + "a").parse::<HostName>().is_err());
    }
}
