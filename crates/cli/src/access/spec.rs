//! What the arguments of `forward` mean.
//!
//! Owns their form: which port leads where. It looks nothing up.

use crate::failure::Failure;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// A port of this host that leads to a port of a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToPeer {
    /// Where to listen on this host.
    pub listen: SocketAddr,
    /// The peer, as the user named it.
    pub peer: String,
    /// Its port.
    pub port: u16,
}

/// A port of this node inside the tunnel that leads to an address of this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FromPeers {
    /// The port inside the tunnel.
    pub port: u16,
    /// Host name or address.
    pub host: String,
    /// Its port.
    pub host_port: u16,
}

/// Splits at the colons outside of brackets, and takes the brackets off.
fn fields(text: &str) -> Option<Vec<&str>> {
    let mut fields = Vec::new();
    let mut rest = text;
    loop {
        let field = match rest.strip_prefix('[') {
            Some(inside) => {
                let (field, after) = inside.split_once(']')?;
                rest = after;
                field
            }
            None => {
                let end = rest.find(':').unwrap_or(rest.len());
                let (field, after) = rest.split_at(end);
                rest = after;
                field
            }
        };
        fields.push(field);
        match rest.strip_prefix(':') {
            Some(after) => rest = after,
            None if rest.is_empty() => return Some(fields),
            None => return None,
        }
    }
}

fn port(text: &str, which: &str) -> Result<u16, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err(format!(
            "{which} is {text:?}; a port is a number from 1 to 65535"
        )),
        Ok(port) => Ok(port),
    }
}

impl ToPeer {
    /// Reads `[ADDR:]PORT:PEER:PORT`; `field` is the argument's name.
    ///
    /// # Errors
    ///
    /// What is wrong, and how it is written.
    pub fn parse(text: &str, field: &str) -> Result<Self, Failure> {
        Self::read(text).map_err(|what| {
            Failure::input(what)
                .at(format!("{field} {text}"))
                .fix("write PORT:PEER:PORT, such as 8080:laptop:80; an IPv6 address in [brackets]")
        })
    }

    fn read(text: &str) -> Result<Self, String> {
        let fields = fields(text).ok_or("a bracket is out of place")?;
        let (address, local, peer, remote) = match fields[..] {
            [local, peer, remote] => (IpAddr::V4(Ipv4Addr::LOCALHOST), local, peer, remote),
            [address, local, peer, remote] => {
                let parsed = address.parse();
                let address = parsed.map_err(|_| {
                    format!("the address to listen on is {address:?}, no IP address")
                })?;
                (address, local, peer, remote)
            }
            _ => {
                let count = fields.len();
                return Err(format!(
                    "there are {count} parts between colons, not 3 or 4"
                ));
            }
        };
        if peer.is_empty() {
            return Err("the peer is missing".to_owned());
        }
        Ok(Self {
            listen: SocketAddr::new(address, port(local, "the port here")?),
            peer: peer.to_owned(),
            port: port(remote, "the peer's port")?,
        })
    }
}

impl FromPeers {
    /// Reads `PORT:ADDR:PORT`; `field` is the option's name.
    ///
    /// # Errors
    ///
    /// What is wrong, and how it is written.
    pub fn parse(text: &str, field: &str) -> Result<Self, Failure> {
        Self::read(text).map_err(|what| {
            Failure::input(what).at(format!("{field} {text}")).fix(
                "write PORT:ADDR:PORT, such as 8080:127.0.0.1:80; an IPv6 address in [brackets]",
            )
        })
    }

    fn read(text: &str) -> Result<Self, String> {
        let fields = fields(text).ok_or("a bracket is out of place")?;
        let [inside, host, host_port] = fields[..] else {
            let count = fields.len();
            return Err(format!("there are {count} parts between colons, not 3"));
        };
        if host.is_empty() {
            return Err("the address that it leads to is missing".to_owned());
        }
        Ok(Self {
            port: port(inside, "the port inside the tunnel")?,
            host: host.to_owned(),
            host_port: port(host_port, "the port that it leads to")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn both_forms_are_read() {
        for (text, listen, peer, port) in [
            ("8080:laptop:80", "127.0.0.1:8080", "laptop", 80),
            (
                "127.0.0.2:1:10.0.0.1:65535",
                "127.0.0.2:1",
                "10.0.0.1",
                65_535,
            ),
            ("[::1]:22:[fd77:6d00::1]:22", "[::1]:22", "fd77:6d00::1", 22),
            ("5:Ab+/=:6", "127.0.0.1:5", "Ab+/=", 6),
        ] {
            let spec = ToPeer::parse(text, "x").expect(text);
            assert_eq!(spec.listen.to_string(), listen);
            assert_eq!((spec.peer.as_str(), spec.port), (peer, port));
        }
        let spec = FromPeers::parse("8080:[::1]:80", "--listen").expect("good");
        assert_eq!(
            (spec.port, spec.host.as_str(), spec.host_port),
            (8080, "::1", 80)
        );
    }

    #[test]
    fn what_is_wrong_is_said_with_the_place_and_the_form() {
        for (text, what) in [
            ("", "1 parts"),
            ("8080", "1 parts"),
            ("8080:laptop", "2 parts"),
            ("1:2:3:4:5", "5 parts"),
            ("0:laptop:80", "the port here is \"0\""),
            ("8080:laptop:99999", "the peer's port is \"99999\""),
            ("8080::80", "the peer is missing"),
            ("host:8080:laptop:80", "no IP address"),
            ("8080:[fd77::1:80", "bracket"),
            ("8080:[fd77::1]x:80", "bracket"),
        ] {
            let shown = ToPeer::parse(text, "the argument")
                .expect_err(text)
                .to_string();
            assert!(shown.contains(what), "{text}: {shown}");
            assert!(shown.contains("fix: write PORT:PEER:PORT"), "{shown}");
        }
        for text in [
            "80",
            "80:127.0.0.1",
            "80::80",
            "x:127.0.0.1:80",
            "80:::1:80",
        ] {
            let shown = FromPeers::parse(text, "--listen")
                .expect_err(text)
                .to_string();
            assert!(
                shown.contains("--listen") && shown.contains("fix:"),
                "{shown}"
            );
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[\\[\\]:0-9a-z]{0,20}") {
            let _ = ToPeer::read(&text);
            let _ = FromPeers::read(&text);
        }
    }
}
