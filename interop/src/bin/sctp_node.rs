//! A node with one stock peer and one SCTP association with it, for tests.
//!
//! It sends messages of different lengths on each of some streams and receives as many; it prints what
//! `lab/sctp_peer.py` on the other side prints: a hash of what was sent and of what came, per stream.

use std::collections::HashMap;
use std::error::Error;

use blake2::{Blake2s256, Digest as _};
use data_encoding::HEXLOWER;
use wiremesh::{Endpoint, IpNet, Node, PeerConfig};
use wiremesh_sctp::{Association, EndError, Sctp, SctpConfig, SendMode};

const USAGE: &str = "sctp_node FILE ROLE TRANSPORT INTERLEAVE PORT STREAMS MESSAGES LONGEST
FILE has lines of the form key=value: secret_key, port, state_dir, peer, endpoint, and inside the tunnel \
address and peer_address; ROLE is listen or connect, TRANSPORT ip or udp, INTERLEAVE on or off";
/// What the messages say that they are.
const PROTOCOL: u32 = 7;

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

fn main() -> Outcome {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let [
        file,
        role,
        transport,
        interleave,
        port,
        streams,
        messages,
        longest,
    ] = words[..]
    else {
        return Err(USAGE.into());
    };
    let run = Run {
        listens: role == "listen",
        over_udp: transport == "udp",
        interleaving: interleave == "on",
        port: port.parse()?,
        streams: streams.parse()?,
        messages: messages.parse()?,
        longest: longest.parse()?,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(run.carry_out(&std::fs::read_to_string(file)?))
}

struct Run {
    listens: bool,
    over_udp: bool,
    interleaving: bool,
    port: u16,
    streams: u16,
    messages: usize,
    longest: usize,
}

impl Run {
    async fn carry_out(&self, text: &str) -> Outcome {
        let settings: HashMap<&str, &str> = text
            .lines()
            .filter_map(|line| line.split_once('='))
            .collect();
        let node = start(&settings).await?;
        let config = SctpConfig {
            interleaving: self.interleaving,
            ..SctpConfig::default()
        };
        let sctp = Sctp::with_config(&node, config)?;
        let association = self.associate(&sctp, &settings).await?;
        let (over_udp, interleaves) = (association.is_over_udp(), association.interleaves());
        println!("open udp={over_udp} interleaves={interleaves}");
        let (sent, got) = tokio::join!(self.send_all(&association), self.receive_all(&association));
        let (sent, got) = (sent?, got?);
        match self.listens {
            true => match association.recv().await {
                Err(EndError::Shutdown) => {}
                other => return Err(format!("not the end: {other:?}").into()),
            },
            false => association.shutdown().await?,
        }
        say("sent", sent);
        say("got", got);
        drop(association);
        node.close().await;
        Ok(())
    }

    async fn associate(&self, sctp: &Sctp, settings: &HashMap<&str, &str>) -> Outcome<Association> {
        if self.listens {
            let listener = sctp.listen(self.port)?;
            println!("listening");
            return listener.accept().await.ok_or_else(|| "closed".into());
        }
        let peer: wiremesh::NodeId = settings.get("peer").ok_or("no peer")?.parse()?;
        Ok(match self.over_udp {
            true => sctp.connect_over_udp(peer, self.port).await?,
            false => sctp.connect(peer, self.port).await?,
        })
    }

    async fn send_all(&self, association: &Association) -> Outcome<Vec<Blake2s256>> {
        let mut hashes = vec![Blake2s256::new(); usize::from(self.streams)];
        for number in 0..self.messages {
            for stream in 0..self.streams {
                let message = message(stream, number, self.longest);
                note(&mut hashes[usize::from(stream)], &message)?;
                let mode = SendMode::default();
                association.send(stream, PROTOCOL, message, mode).await?;
            }
        }
        Ok(hashes)
    }

    async fn receive_all(&self, association: &Association) -> Outcome<Vec<Blake2s256>> {
        let mut hashes = vec![Blake2s256::new(); usize::from(self.streams)];
        for _ in 0..usize::from(self.streams) * self.messages {
            let received = association.recv().await?;
            if received.protocol != PROTOCOL {
                return Err(format!("protocol {}", received.protocol).into());
            }
            let hash = hashes.get_mut(usize::from(received.stream));
            note(hash.ok_or("a stream too many")?, &received.message)?;
        }
        Ok(hashes)
    }
}

async fn start(settings: &HashMap<&str, &str>) -> Outcome<Node> {
    let setting = |key: &str| settings.get(key).copied().ok_or(format!("no {key}"));
    let peer_v4: IpNet = setting("peer_address")?.parse()?;
    let node = Node::builder()
        .secret_key(setting("secret_key")?.parse()?)
        .port(setting("port")?.parse()?)
        .state_dir(setting("state_dir")?)
        .address(setting("address")?.parse()?, peer_v4)
        .bind()
        .await?;
    let mut peer = PeerConfig::new(setting("peer")?.parse()?);
    peer.stock = true;
    peer.allowed_ips.push(peer_v4);
    let endpoint = setting("endpoint")?.parse()?;
    peer.endpoints.push(Endpoint::Address(endpoint));
    node.add_peer(peer)?;
    Ok(node)
}

/// Bytes that tell streams, messages and places apart.
fn message(stream: u16, number: usize, longest: usize) -> Vec<u8> {
    let len = 1 + (usize::from(stream) * 7_919 + number * 31_337) % longest;
    let mut state =
        (u64::from(stream) << 32 | number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..len).map(|_| next()).collect()
}

fn note(hash: &mut Blake2s256, message: &[u8]) -> Outcome {
    hash.update(u32::try_from(message.len())?.to_le_bytes());
    hash.update(message);
    Ok(())
}

fn say(word: &str, hashes: Vec<Blake2s256>) {
    for (stream, hash) in hashes.into_iter().enumerate() {
        println!("{word} {stream} {}", HEXLOWER.encode(&hash.finalize()));
    }
}
