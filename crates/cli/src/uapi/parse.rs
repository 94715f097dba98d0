//! Reads the lines of a `set=1`.
//!
//! Owns the grammar: which keys there are, where they may stand, and the form of their values.
//! Strict: a line that it does not know refuses the whole operation before anything is done.

use super::{Errno, PublicKey, Refused};
use std::net::SocketAddr;
use std::str::FromStr;
use wiremesh::{IpNet, PresharedKey, SecretKey};
use zeroize::Zeroizing;

/// One `set=1`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Change {
    /// The key of the interface; all zero takes it away.
    pub private_key: Option<SecretKey>,
    /// The UDP port; 0 is any.
    pub listen_port: Option<u16>,
    /// The mark of datagrams; 0 is none.
    pub fwmark: Option<u32>,
    /// Whether all peers go that are not named here.
    pub replace_peers: bool,
    /// What happens to peers, in this order.
    pub peers: Vec<PeerChange>,
}

/// What happens to one peer.
#[derive(Clone, Debug, PartialEq)]
pub struct PeerChange {
    /// Who it is.
    pub public_key: PublicKey,
    /// It goes; the rest has no meaning then.
    pub remove: bool,
    /// Nothing happens if there is no such peer.
    pub update_only: bool,
    /// Its preshared key; all zero is none.
    pub preshared_key: Option<PresharedKey>,
    /// Where it is reached.
    pub endpoint: Option<SocketAddr>,
    /// Seconds between keepalives; 0 is off.
    pub keepalive: Option<u16>,
    /// Whether it loses its allowed IPs first.
    pub replace_allowed_ips: bool,
    /// Prefixes that it gets or loses, in this order.
    pub allowed_ips: Vec<AllowedIp>,
}

/// A prefix that a peer gets or loses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AllowedIp {
    /// The prefix.
    pub net: IpNet,
    /// Whether it loses it.
    pub remove: bool,
}

impl PeerChange {
    /// Names a peer and changes nothing else.
    pub fn new(public_key: PublicKey) -> Self {
        Self {
            public_key,
            remove: false,
            update_only: false,
            preshared_key: None,
            endpoint: None,
            keepalive: None,
            replace_allowed_ips: false,
            allowed_ips: Vec::new(),
        }
    }
}

/// Takes the lines between `set=1` and the empty one, one by one.
#[derive(Debug, Default)]
pub struct Parser {
    change: Change,
}

impl Parser {
    /// Takes a line without its line feed.
    ///
    /// # Errors
    ///
    /// What is wrong with it; it shows nothing of a secret.
    pub fn line(&mut self, line: &[u8]) -> Result<(), Refused> {
        let text = std::str::from_utf8(line).ok();
        let Some((key, value)) = text.and_then(|text| text.split_once('=')) else {
            // It may be a part of a secret: it is not shown.
            return Err(Refused::new(
                Errno::Protocol,
                "a line is not of the form key=value",
            ));
        };
        if key == "public_key" {
            let fresh = PeerChange::new(PublicKey(*key_bytes(key, value)?));
            self.change.peers.push(fresh);
            return Ok(());
        }
        match self.change.peers.last_mut() {
            None => self.change.interface_line(key, value),
            Some(peer) => peer.line(key, value),
        }
    }

    /// The operation, once the empty line is there.
    pub fn finish(self) -> Change {
        self.change
    }
}

/// Reads a whole `set=1` without its first line, up to the empty line or the end.
///
/// # Errors
///
/// As [`Parser::line`].
pub fn parse(text: &[u8]) -> Result<Change, Refused> {
    let mut parser = Parser::default();
    for line in text.split(|byte| *byte == b'\n') {
        if line.is_empty() {
            break;
        }
        parser.line(line)?;
    }
    Ok(parser.finish())
}

impl Change {
    fn interface_line(&mut self, key: &str, value: &str) -> Result<(), Refused> {
        match key {
            "private_key" => {
                self.private_key = Some(SecretKey::from_bytes(*key_bytes(key, value)?));
            }
            "listen_port" => self.listen_port = Some(number(key, value)?),
            "fwmark" => self.fwmark = Some(number(key, value)?),
            "replace_peers" => self.replace_peers = truth(key, value)?,
            _ => return Err(unknown(key, "before the first public_key")),
        }
        Ok(())
    }
}

impl PeerChange {
    fn line(&mut self, key: &str, value: &str) -> Result<(), Refused> {
        match key {
            "remove" => self.remove = truth(key, value)?,
            "update_only" => self.update_only = truth(key, value)?,
            "preshared_key" => {
                self.preshared_key = Some(PresharedKey::from_bytes(*key_bytes(key, value)?));
            }
            "endpoint" => self.endpoint = Some(endpoint(value)?),
            "persistent_keepalive_interval" => self.keepalive = Some(number(key, value)?),
            "replace_allowed_ips" => {
                self.replace_allowed_ips = truth(key, value)?;
                // The lines take effect in order: those before it are undone.
                self.allowed_ips.clear();
            }
            "allowed_ip" => self.allowed_ips.push(allowed_ip(value)?),
            "protocol_version" if value == "1" => {}
            "protocol_version" => return Err(invalid(key, value)),
            _ => return Err(unknown(key, "after a public_key")),
        }
        Ok(())
    }
}

fn invalid(key: &str, value: &str) -> Refused {
    Refused::new(
        Errno::Invalid,
        format_args!("{key}: {value:?} is not possible"),
    )
}

fn unknown(key: &str, place: &str) -> Refused {
    Refused::new(
        Errno::Invalid,
        format_args!("{key:?} has no meaning {place}"),
    )
}

fn truth(key: &str, value: &str) -> Result<bool, Refused> {
    match value {
        "true" => Ok(true),
        _ => Err(invalid(key, value)),
    }
}

fn number<T: FromStr>(key: &str, value: &str) -> Result<T, Refused> {
    // `parse` alone would take a sign.
    let digits = value.bytes().all(|byte| byte.is_ascii_digit());
    value
        .parse()
        .ok()
        .filter(|_| digits)
        .ok_or_else(|| invalid(key, value))
}

fn endpoint(value: &str) -> Result<SocketAddr, Refused> {
    let address = value.parse().ok();
    address
        .filter(|address: &SocketAddr| address.port() != 0)
        .ok_or_else(|| invalid("endpoint", value))
}

/// A prefix, with `-` before one that is taken away; `+` says what is the case without it too.
fn allowed_ip(value: &str) -> Result<AllowedIp, Refused> {
    let (remove, text) = match value.as_bytes().first() {
        Some(b'-') => (true, &value[1..]),
        Some(b'+') => (false, &value[1..]),
        _ => (false, value),
    };
    let net = text.contains('/').then(|| text.parse().ok()).flatten();
    let net = net.ok_or_else(|| invalid("allowed_ip", value))?;
    Ok(AllowedIp { net, remove })
}

/// 64 hexadecimal digits.
fn key_bytes(key: &str, value: &str) -> Result<Zeroizing<[u8; 32]>, Refused> {
    let wrong = || {
        Refused::new(
            Errno::Invalid,
            format_args!("{key}: not 64 hexadecimal digits"),
        )
    };
    let digits = value.as_bytes();
    if digits.len() != 64 {
        return Err(wrong());
    }
    let mut bytes = Zeroizing::new([0; 32]);
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |at: usize| char::from(pair[at]).to_digit(16);
        let (Some(high), Some(low)) = (digit(0), digit(1)) else {
            return Err(wrong());
        };
        *byte = (high << 4 | low) as u8;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::fmt::Write as _;

    const KEY: &str = "b85996fecc9c7f1fc6d2572a76eda11d59bcd20be8e543b15ce4bd85a8e75a33";

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// As `wg` writes it, in any order of its own.
    fn lines_of(change: &Change) -> String {
        let mut text = String::new();
        let mut line =
            |key: &str, value: String| writeln!(text, "{key}={value}").expect("a string");
        if let Some(key) = &change.private_key {
            line("private_key", hex(key.as_bytes()));
        }
        if let Some(port) = change.listen_port {
            line("listen_port", port.to_string());
        }
        if let Some(mark) = change.fwmark {
            line("fwmark", mark.to_string());
        }
        if change.replace_peers {
            line("replace_peers", "true".into());
        }
        for peer in &change.peers {
            line("public_key", hex(&peer.public_key.0));
            for (set, key) in [(peer.remove, "remove"), (peer.update_only, "update_only")] {
                if set {
                    line(key, "true".into());
                }
            }
            line("protocol_version", "1".into());
            if let Some(key) = &peer.preshared_key {
                line("preshared_key", hex(key.as_bytes()));
            }
            if let Some(endpoint) = peer.endpoint {
                line("endpoint", endpoint.to_string());
            }
            if let Some(seconds) = peer.keepalive {
                line("persistent_keepalive_interval", seconds.to_string());
            }
            if peer.replace_allowed_ips {
                line("replace_allowed_ips", "true".into());
            }
            for AllowedIp { net, remove } in &peer.allowed_ips {
                let sign = if *remove { "-" } else { "" };
                line("allowed_ip", format!("{sign}{net}"));
            }
        }
        text
    }

    fn allowed_ips() -> impl Strategy<Value = Vec<AllowedIp>> {
        let net = (any::<std::net::IpAddr>(), 0u8..=32).prop_map(|(addr, prefix)| {
            IpNet::new(addr, prefix).expect("short enough for both families")
        });
        let one = (net, any::<bool>()).prop_map(|(net, remove)| AllowedIp { net, remove });
        proptest::collection::vec(one, 0..4)
    }

    fn peer() -> impl Strategy<Value = PeerChange> {
        let endpoint = (any::<std::net::IpAddr>(), 1u16..).prop_map(SocketAddr::from);
        (
            any::<[u8; 32]>(),
            any::<(bool, bool, bool)>(),
            proptest::option::of(any::<[u8; 32]>().prop_map(PresharedKey::from_bytes)),
            proptest::option::of(endpoint),
            any::<Option<u16>>(),
            allowed_ips(),
        )
            .prop_map(
                |(key, flags, preshared_key, endpoint, keepalive, allowed_ips)| PeerChange {
                    public_key: PublicKey(key),
                    remove: flags.0,
                    update_only: flags.1,
                    preshared_key,
                    endpoint,
                    keepalive,
                    replace_allowed_ips: flags.2,
                    allowed_ips,
                },
            )
    }

    fn change() -> impl Strategy<Value = Change> {
        (
            proptest::option::of(any::<[u8; 32]>().prop_map(SecretKey::from_bytes)),
            any::<Option<u16>>(),
            any::<Option<u32>>(),
            any::<bool>(),
            proptest::collection::vec(peer(), 0..4),
        )
            .prop_map(
                |(private_key, listen_port, fwmark, replace_peers, peers)| Change {
                    private_key,
                    listen_port,
                    fwmark,
                    replace_peers,
                    peers,
                },
            )
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(change in change()) {
            let mut text = lines_of(&change);
            prop_assert_eq!(&parse(text.as_bytes()).expect("good"), &change);
            text.push_str("\nnonsense after the empty line");
            prop_assert_eq!(&parse(text.as_bytes()).expect("good"), &change);
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn no_line_panics(key in "[a-z_]{0,12}|public_key|endpoint|allowed_ip", value in ".{0,70}") {
            let _ = parse(format!("public_key={KEY}\n{key}={value}").as_bytes());
            let _ = parse(format!("{key}={value}").as_bytes());
        }
    }

    #[test]
    fn the_example_of_the_specification_is_read() {
        let text = "private_key=e84b5a6d2717c1003a13b431570353dbaca9146cf150c5f8575680feba52027a\n\
                    fwmark=0\nlisten_port=12912\nreplace_peers=true\n\
                    public_key=b85996fecc9c7f1fc6d2572a76eda11d59bcd20be8e543b15ce4bd85a8e75a33\n\
                    preshared_key=188515093e952f5f22e865cef3012e72f8b5f0b598ac0309d5dacce3b70fcf52\n\
                    replace_allowed_ips=true\nallowed_ip=192.168.4.4/32\n\
                    endpoint=[abcd:23::33%2]:51820\n\
                    public_key=58402e695ba1772b1cc9309755f043251ea77fdcf10fbe63989ceb7e19321376\n\
                    replace_allowed_ips=true\nallowed_ip=192.168.4.6/32\n\
                    persistent_keepalive_interval=111\nendpoint=182.122.22.19:3233\n\
                    public_key=662e14fd594556f522604703340351258903b64f35553763f19426ab2a515c58\n\
                    endpoint=5.152.198.39:51820\nreplace_allowed_ips=true\n\
                    allowed_ip=192.168.4.10/32\nallowed_ip=192.168.4.11/32\n\
                    public_key=e818b58db5274087fcc1be5dc728cf53d3b5726b4cef6b9bab8f8f8c2452c25c\n\
                    remove=true\n\n";
        let change = parse(text.as_bytes()).expect("good");
        assert_eq!((change.listen_port, change.fwmark), (Some(12912), Some(0)));
        assert!(change.replace_peers);
        assert_eq!(change.peers.len(), 4);
        let scoped = change.peers[0].endpoint.expect("an endpoint");
        assert_eq!(scoped.to_string(), "[abcd:23::33%2]:51820");
        assert_eq!(change.peers[1].keepalive, Some(111));
        assert_eq!(change.peers[2].allowed_ips.len(), 2);
        assert!(change.peers[3].remove);
    }

    #[test]
    fn replacing_undoes_what_came_before() {
        let text = format!(
            "public_key={KEY}\nallowed_ip=10.0.0.1/32\nreplace_allowed_ips=true\n\
             allowed_ip=+10.0.0.2/32\nallowed_ip=-10.0.0.2/24\n"
        );
        let change = parse(text.as_bytes()).expect("good");
        let shown: Vec<_> = change.peers[0]
            .allowed_ips
            .iter()
            .map(|one| (one.remove, one.net.to_string()))
            .collect();
        assert_eq!(
            shown,
            [(false, "10.0.0.2/32".into()), (true, "10.0.0.0/24".into())]
        );
    }

    #[test]
    fn what_is_not_exactly_right_is_refused() {
        let peer = format!("public_key={KEY}\n");
        let bad = [
            "x".to_owned(),
            "\u{0}=1".to_owned(),
            "listen_port=65536".to_owned(),
            "listen_port=+1".to_owned(),
            "listen_port=".to_owned(),
            "fwmark=4294967296".to_owned(),
            "fwmark=0x1".to_owned(),
            "replace_peers=false".to_owned(),
            "private_key=00".to_owned(),
            format!("private_key={}", &KEY.replace('b', "g")),
            format!("private_key={}\u{e9}", &KEY[2..]),
            "remove=true".to_owned(),
            "endpoint=1.2.3.4:5".to_owned(),
            format!("{peer}listen_port=1"),
            format!("{peer}remove=1"),
            format!("{peer}update_only=yes"),
            format!("{peer}protocol_version=2"),
            format!("{peer}endpoint=host.example:1"),
            format!("{peer}endpoint=1.2.3.4:0"),
            format!("{peer}endpoint=1.2.3.4"),
            format!("{peer}allowed_ip=10.0.0.1"),
            format!("{peer}allowed_ip=10.0.0.1/33"),
            format!("{peer}allowed_ip=--10.0.0.1/32"),
            format!("{peer}allowed_ip="),
            format!("{peer}persistent_keepalive_interval=off"),
            format!("{peer}rx_bytes=1"),
        ];
        for text in bad {
            assert!(parse(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn secrets_are_in_no_reason() {
        for text in [
            format!("private_key={}", &KEY[1..]),
            format!("private_key{KEY}"),
            format!("public_key={KEY}\npreshared_key={KEY}0"),
        ] {
            let refused = parse(text.as_bytes()).expect_err("wrong");
            assert!(!refused.why.contains(&KEY[3..9]), "{refused}");
        }
    }
}
