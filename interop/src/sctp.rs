//! SCTP with the real kernel's, through the real kernel's WireGuard.
//!
//! The node is the program `sctp_node`, opposite is `lab/sctp_peer.py` in the guest: plain sockets of
//! the kernel, which knows nothing of us. Both send megabytes on ten streams at the same time.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use crate::arena::{OUR_V4, THEIR_V4};
use crate::keys::{KeyPair, overlay_address};
use crate::outcome::{Outcome, ensure, fail, skip, wait_for};
use crate::place::Place;
use crate::process::Running;
use crate::programs::{beside, scratch_file};
use crate::runner::{Context, Effort, Scenario, busy};
use crate::stock::{Settings, Stock};

/// All scenarios.
pub const ALL: &[Scenario] = &[
    busy("we_connect_where_only_we_interleave", |it| {
        run(it, WE, true, IP)
    }),
    busy("we_connect_without_interleaving", |it| {
        run(it, WE, false, IP)
    }),
    busy("they_connect_where_only_we_interleave", |it| {
        run(it, THEY, true, IP)
    }),
    busy("they_connect_without_interleaving", |it| {
        run(it, THEY, false, IP)
    }),
    busy("we_connect_over_udp", |it| run(it, WE, false, UDP)),
    busy("they_connect_over_udp", |it| run(it, THEY, false, UDP)),
];

const WE: bool = true;
const THEY: bool = false;
const IP: &str = "ip";
const UDP: &str = "udp";
const PORT: &str = "5000";
const STREAMS: usize = 10;
const LONGEST: &str = "100000";
/// The port of RFC 6951.
const UDP_PORT: &str = "9899";
/// An emulated CPU beside a busy host is slow.
const SECONDS: u32 = 240;

fn run(context: &Context<'_>, we_connect: bool, interleave: bool, transport: &str) -> Outcome {
    let theirs = &context.arena.theirs;
    prepare_kernel(theirs, transport)?;
    let messages = match context.effort {
        Effort::Full => "64",
        _ => "8",
    };
    let interleaving = if interleave { "on" } else { "off" };
    let number = context.arena.next_pair();
    let (file, stock) = configure(context, number)?;
    let our_address = stock.settings().peer_addresses.0.to_string();
    let peer = Path::new(env!("CARGO_MANIFEST_DIR")).join("lab/sctp_peer.py");
    let peer = peer.to_string_lossy();
    let streams = STREAMS.to_string();
    let rest = ["off", &streams, messages, LONGEST];
    let start_theirs = |words: &[&str]| {
        let words = [&["python3", &peer], words, &rest].concat();
        Started::new("their side", theirs.command(SECONDS, &words))
    };
    let role = if we_connect { "connect" } else { "listen" };
    let start_ours = || {
        let program = beside("sctp_node")?;
        let program = program.to_string_lossy();
        let words = [
            program.as_ref(),
            &file,
            role,
            transport,
            interleaving,
            PORT,
            &streams,
            messages,
            LONGEST,
        ];
        Started::new("our side", context.arena.ours.command(SECONDS, &words))
    };
    let (ours, theirs) = if we_connect {
        let theirs = start_theirs(&["listen", PORT])?;
        theirs.wait_until_it_listens()?;
        (start_ours()?, theirs)
    } else {
        let ours = start_ours()?;
        ours.wait_until_it_listens()?;
        (ours, start_theirs(&["connect", &our_address, PORT])?)
    };
    let (ours, theirs) = (ours.end(), theirs.end());
    let (ours, theirs) = (ours?, theirs?);
    let open = format!("open udp={} interleaves=false", transport == UDP);
    ensure(
        ours.lines().any(|line| line == open),
        format!("not {open}: {ours}"),
    )?;
    for (sent, got) in [(&ours, &theirs), (&theirs, &ours)] {
        let (sent, got) = (hashes(sent, "sent "), hashes(got, "got "));
        ensure(
            sent.len() == STREAMS && sent == got,
            format!("sent {sent:?}\ngot {got:?}"),
        )?;
    }
    let mixed = theirs.lines().find(|line| line.starts_with("mixed"));
    context.say(format!(
        "{STREAMS} streams, {messages} messages each, both ways; {open}; in the kernel {}",
        mixed.unwrap_or_default()
    ));
    Ok(())
}

/// Loads the kernel's SCTP and says what it may do.
fn prepare_kernel(place: &Place, transport: &str) -> Outcome {
    if !place.succeeds(60, &["modprobe", "sctp"]) {
        return skip("the guest's kernel has no SCTP");
    }
    let port = if transport == UDP { UDP_PORT } else { "0" };
    let settings = [
        format!("net.sctp.encap_port={port}"),
        format!("net.sctp.udp_port={port}"),
    ];
    for setting in settings {
        place.run(&["sysctl", "-w", &setting])?;
    }
    Ok(())
}

/// The settings file of our node, and the kernel's WireGuard interface with our node as its peer.
fn configure(context: &Context<'_>, number: u8) -> Outcome<(String, Stock)> {
    let (our_port, their_port) = (40_000 + u16::from(number), 50_000 + u16::from(number));
    let (our_keys, their_keys) = (KeyPair::generate()?, KeyPair::generate()?);
    let inner = |host| Ipv4Addr::new(10, 77, number, host);
    let folder = scratch_file("sctp-node")?;
    std::fs::create_dir_all(&folder)?;
    let (file, state) = (folder.join("settings"), folder.join("state"));
    let text = format!(
        "secret_key={}\nport={our_port}\nstate_dir={}\naddress={}\npeer_address={}/32\npeer={}\n\
         endpoint={THEIR_V4}:{their_port}\n",
        our_keys.secret,
        state.display(),
        inner(1),
        inner(2),
        their_keys.public
    );
    std::fs::write(&file, text)?;
    let settings = Settings {
        listen_port: their_port,
        peer: our_keys.public.clone(),
        psk: None,
        endpoint: Some(SocketAddr::new(OUR_V4.parse()?, our_port)),
        peer_addresses: (overlay_address(&our_keys.public)?, inner(1)),
        addresses: (overlay_address(&their_keys.public)?, inner(2)),
        keys: their_keys,
        keepalive: None,
        roams: false,
    };
    let stock = Stock::start(context.arena.make, context.arena.theirs.clone(), settings)?;
    Ok((file.to_string_lossy().into_owned(), stock))
}

/// A program that ends by itself.
struct Started {
    what: &'static str,
    running: Running,
    log: std::path::PathBuf,
}

impl Started {
    fn new(what: &'static str, mut command: std::process::Command) -> Outcome<Self> {
        let log = scratch_file("sctp-log")?;
        let running = Running::start(&mut command, &log)?;
        Ok(Self { what, running, log })
    }

    fn wait_until_it_listens(&self) -> Outcome {
        let listens = || self.running.log_text().contains("listening").then_some(());
        match wait_for("it to listen", Duration::from_secs(60), listens) {
            Ok(_) => Ok(()),
            Err(_) => fail(format!(
                "{} does not listen: {}",
                self.what,
                self.running.log_text()
            )),
        }
    }

    /// What it printed, once it has ended well.
    fn end(self) -> Outcome<String> {
        let code = self.running.wait()?;
        let text = std::fs::read_to_string(&self.log)?;
        ensure(
            code == Some(0),
            format!("{} ended with {code:?}: {text}", self.what),
        )?;
        Ok(text)
    }
}

/// The lines that begin with a word, without it.
fn hashes<'a>(text: &'a str, word: &str) -> Vec<&'a str> {
    text.lines()
        .filter_map(|line| line.strip_prefix(word))
        .collect()
}
