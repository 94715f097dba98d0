//! The client's half of the format: writes requests, reads replies.

use crate::verbs::fields::{Hex, Maybe, key, maybe, parse};
use crate::verbs::{
    Figures, PeerFigures, Prefix, REQUEST_BYTES_MAX, Reason, Refusal, Reply, Request, VERSION,
    WireguardSettings,
};
use std::fmt::{self, Display, Write};
use std::time::Duration;
use zeroize::Zeroizing;

impl Request {
    /// The bytes of the request.
    ///
    /// # Errors
    ///
    /// What the helper would refuse it for without looking at the host.
    pub fn emit(&self) -> Result<Zeroizing<Vec<u8>>, Refusal> {
        self.check()?;
        // Room for the longest, so that no key stays behind where a shorter one was.
        let mut out = Zeroizing::new(String::with_capacity(REQUEST_BYTES_MAX));
        self.write(&mut out).expect("a string takes all");
        Ok(Zeroizing::new(std::mem::take(&mut *out).into_bytes()))
    }

    fn check(&self) -> Result<(), Refusal> {
        match self {
            Self::Make(wanted, settings) => {
                wanted.check()?;
                settings.iter().try_for_each(WireguardSettings::check)
            }
            Self::SetPeer(change) => change.check(),
            Self::RemovePeer(_) | Self::ReadFigures(_) => Ok(()),
        }
    }

    fn write(&self, out: &mut String) -> fmt::Result {
        write!(out, "{VERSION} ")?;
        match self {
            Self::Make(wanted, settings) => {
                let (addresses, routes) = (List(&wanted.addresses), List(&wanted.routes));
                let (name, mtu) = (wanted.name.as_str(), wanted.mtu_bytes);
                write!(out, "make {name} {mtu} {addresses} {routes}")?;
                settings.iter().try_for_each(|settings| {
                    let secret = Hex(&settings.private_key);
                    write!(out, " {secret} {}", settings.listen_port)?;
                    let mut rate = settings.rate_bits.iter();
                    rate.try_for_each(|rate| write!(out, " {rate}"))
                })
            }
            Self::SetPeer(change) => {
                let how = if change.replace { "replace" } else { "change" };
                write!(out, "peer {} {how} ", Hex(&change.public_key))?;
                let preshared_key = Maybe(change.preshared_key.as_deref().map(Hex));
                write!(out, "{preshared_key} {} ", Maybe(change.endpoint))?;
                let allowed_ips = Maybe(change.allowed_ips.as_deref().map(List));
                write!(out, "{} {allowed_ips}", Maybe(change.keepalive_seconds))
            }
            Self::RemovePeer(key) => write!(out, "remove {}", Hex(key)),
            Self::ReadFigures(from) => write!(out, "figures {from}"),
        }
    }
}

struct List<'a>(&'a [Prefix]);

impl Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, prefix) in self.0.iter().enumerate() {
            f.write_str(if place == 0 { "" } else { "," })?;
            prefix.fmt(f)?;
        }
        Ok(())
    }
}

impl Reply {
    /// Reads a reply; `None` is none.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        let fields: Vec<&str> = text.split(' ').collect();
        let reply = match fields[..] {
            [VERSION, "done", index] => Self::Done(parse(index).ok()?),
            [VERSION, "figures", port, left, ref peers @ ..] => {
                let (peers, rest) = peers.as_chunks();
                let peers = peers.iter().map(PeerFigures::read).collect::<Option<_>>()?;
                let listen_port = parse(port).ok()?;
                let figures = Figures { listen_port, peers };
                let left = rest.is_empty().then(|| parse(left).ok())??;
                Self::Figures(figures, left)
            }
            [VERSION, "refused", number, ref detail @ ..] => {
                let reason = *Reason::ALL.get(parse::<usize>(number).ok()?)?;
                Self::Refused(Refusal::with(reason, detail.join(" ")))
            }
            _ => return None,
        };
        (reply.to_string().as_bytes() == bytes).then_some(reply)
    }
}

impl PeerFigures {
    fn read([public_key, endpoint, nanoseconds, rx, tx]: &[&str; 5]) -> Option<Self> {
        Some(Self {
            public_key: key(public_key).ok()?,
            endpoint: maybe(endpoint, parse).ok()?,
            last_handshake: Duration::from_nanos(parse(nanoseconds).ok()?),
            rx_bytes: parse(rx).ok()?,
            tx_bytes: parse(tx).ok()?,
        })
    }
}
