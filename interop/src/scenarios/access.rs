//! Ordinary programs of an ordinary user reach peers, and are reached by them, without an interface
//! on our side: `wiremesh proxy` and `wiremesh forward`, with the kernel's TCP on the other side.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::arena::{OUR_V4, THEIR_V4};
use crate::keys::{KeyPair, overlay_address};
use crate::outcome::{Outcome, ensure, fail, skip, wait_for};
use crate::place::Place;
use crate::process::{Running, find_program, run_words, text_of};
use crate::programs::{self, scratch_file};
use crate::runner::{Context, Scenario, busy};
use crate::stock::{Make, Settings, Stock};

/// All scenarios.
pub const ALL: &[Scenario] = &[
    busy("curl_reaches_a_stock_peer_through_the_proxy", through_proxy),
    busy("a_stock_peer_reaches_a_program_of_ours", by_listening),
    busy("curl_reaches_a_program_behind_another_node", between_nodes),
    busy("iperf3_runs_through_a_forward_both_ways", bulk),
];

/// The user that our side runs as: nobody.
const USER: [&str; 6] = [
    "setpriv",
    "--reuid",
    "65534",
    "--regid",
    "65534",
    "--clear-groups",
];
/// Bytes of the file that is fetched.
const FILE_BYTES: usize = 5_000_000;
const HTTP_PORT: u16 = 8000;
const SOCKS: &str = "127.0.0.1:1080";

/// One end: keys, UDP port and addresses inside the tunnel.
#[derive(Clone, Debug)]
struct End {
    keys: KeyPair,
    port: u16,
    addresses: (Ipv6Addr, Ipv4Addr),
    outer: &'static str,
}

impl End {
    fn new(number: u8, host: u8, outer: &'static str) -> Outcome<Self> {
        let keys = KeyPair::generate()?;
        Ok(Self {
            addresses: (
                overlay_address(&keys.public)?,
                Ipv4Addr::new(10, 78, number, host),
            ),
            keys,
            port: 41_000 + u16::from(number),
            outer,
        })
    }

    fn endpoint(&self) -> Outcome<SocketAddr> {
        Ok(SocketAddr::new(self.outer.parse()?, self.port))
    }

    /// A folder of the ordinary user's with a configuration in which `peer` is the one peer.
    fn configure(&self, peer: &Self, name: &str, stock: bool) -> Outcome<PathBuf> {
        let folder = scratch_file("access")?;
        std::fs::create_dir_all(&folder)?;
        std::fs::write(folder.join("key"), &self.keys.secret)?;
        let text = format!(
            "[node]\nkey = \"key\"\nlisten = [\"0.0.0.0:{}\"]\naddresses = [\"{}/24\"]\n\
             state-dir = \"state\"\ncontrol-socket = \"control.sock\"\nlog = \"debug\"\n\
             [[peer]]\nname = \"{name}\"\nid = \"{}\"\nstock = {stock}\n\
             allowed-ips = [\"{}/32\"]\nendpoint = \"{}\"\n",
            self.port,
            self.addresses.1,
            peer.keys.public,
            peer.addresses.1,
            peer.endpoint()?,
        );
        std::fs::write(folder.join("config.toml"), text)?;
        let path = folder.to_string_lossy();
        run_words(&["chmod", "600", &format!("{path}/key")])?;
        run_words(&["chown", "-R", "65534:65534", &path])?;
        Ok(folder)
    }
}

/// Starts a program in the background.
fn start(place: &Place, words: &[&str]) -> Outcome<Running> {
    let Some(mut command) = place.daemon(words[0], &words[1..]) else {
        return fail("these programs run in a namespace of the host");
    };
    Running::start(&mut command, &scratch_file("access-log")?)
}

/// Starts `wiremesh` as the ordinary user and waits until it is ready.
fn start_ours(place: &Place, folder: &Path, arguments: &[&str]) -> Outcome<Running> {
    let program = programs::wiremesh()?;
    let (program, config) = (program.to_string_lossy(), folder.join("config.toml"));
    let config = config.to_string_lossy();
    let own = [&[&*program], arguments, &["--config", &*config]].concat();
    let mut running = start(place, &[&USER[..], &own].concat())?;
    wait_for("our program to be ready", Duration::from_secs(10), || {
        (!running.is_alive() || running.log_text().contains("ready; ")).then_some(())
    })?;
    ensure(running.is_alive(), running.log_text())?;
    Ok(running)
}

/// wireguard-go at the other end.
fn start_stock(place: &Place, them: &End, us: &End) -> Outcome<Stock> {
    let settings = Settings {
        keys: them.keys.clone(),
        listen_port: them.port,
        peer: us.keys.public.clone(),
        psk: None,
        endpoint: Some(us.endpoint()?),
        peer_addresses: us.addresses,
        addresses: them.addresses,
        keepalive: None,
        roams: false,
    };
    Stock::start(Make::WireguardGo, place.clone(), settings)
}

/// Serves a folder with a file by HTTP; gives the server with what is in the file.
fn serve_file(place: &Place, bind: &str) -> Outcome<(Running, Vec<u8>)> {
    let folder = scratch_file("files")?;
    std::fs::create_dir_all(&folder)?;
    let mut state = 0x9E37_79B9_u32;
    let next = |_| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as u8
    };
    let data: Vec<u8> = (0..FILE_BYTES).map(next).collect();
    std::fs::write(folder.join("file"), &data)?;
    let (port, folder) = (HTTP_PORT.to_string(), folder.to_string_lossy().into_owned());
    let python = "/usr/bin/python3";
    let words = [
        python,
        "-m",
        "http.server",
        &port,
        "--bind",
        bind,
        "-d",
        &folder,
    ];
    let server = start(place, &words)?;
    let url = format!(
        "http://{}:{HTTP_PORT}/",
        if bind == "::" { "[::1]" } else { bind }
    );
    wait_for("the HTTP server", Duration::from_secs(10), || {
        place
            .succeeds(5, &["curl", "-s", "-o", "/dev/null", &url])
            .then_some(())
    })?;
    Ok((server, data))
}

/// Fetches the file and compares it.
fn fetch(place: &Place, url: &str, more: &[&str], expected: &[u8]) -> Outcome {
    let file = scratch_file("fetched")?;
    let path = file.to_string_lossy();
    let mut words = vec!["curl", "-sS", "--max-time", "50", "-o", &*path, url];
    words.extend(more);
    place.run(&[&words[..]].concat())?;
    let same = std::fs::read(&file)? == expected;
    ensure(
        same,
        format!("{url}: what was fetched is not what is there"),
    )
}

fn prepare(context: &Context<'_>) -> Outcome<(End, End)> {
    for program in ["/usr/bin/python3", "/usr/bin/curl", "/usr/bin/setpriv"] {
        if !Path::new(program).exists() {
            return skip(format!(
                "{program} is missing; apt-get install -y python3 curl util-linux"
            ));
        }
    }
    for place in [&context.arena.ours, &context.arena.theirs] {
        place.run(&["ip", "link", "set", "lo", "up"])?;
    }
    let number = context.arena.next_pair();
    Ok((End::new(number, 1, OUR_V4)?, End::new(number, 2, THEIR_V4)?))
}

fn through_proxy(context: &Context<'_>) -> Outcome {
    let (ours, theirs) = (&context.arena.ours, &context.arena.theirs);
    let (us, them) = prepare(context)?;
    let _stock = start_stock(theirs, &them, &us)?;
    let (_server, data) = serve_file(theirs, "::")?;
    let folder = us.configure(&them, "stock", true)?;
    let _proxy = start_ours(ours, &folder, &["proxy", "--socks5", SOCKS])?;
    let proxy = format!("socks5h://{SOCKS}");
    let (six, four) = (
        format!("[{}]", them.addresses.0),
        them.addresses.1.to_string(),
    );
    for host in ["stock", "stock.wiremesh.internal", &six, &four] {
        let url = format!("http://{host}:{HTTP_PORT}/file");
        fetch(ours, &url, &["-x", &proxy], &data)?;
        context.say(format!("curl fetched {FILE_BYTES} bytes from {host}"));
    }
    for (url, code) in [
        (format!("http://stock:{}/", HTTP_PORT + 1), "(5)"),
        ("http://example.com/".to_owned(), "(4)"),
        ("http://10.1.2.3/".to_owned(), "(3)"),
    ] {
        let words = ["curl", "-sS", "--max-time", "20", "-x", &proxy, &url];
        let output = ours.command(30, &words).output()?;
        let said = text_of(&output);
        ensure(said.contains(code), format!("{url}: not {code}: {said}"))?;
        context.say(format!("{url} is refused with code {code}"));
    }
    Ok(())
}

fn by_listening(context: &Context<'_>) -> Outcome {
    let (ours, theirs) = (&context.arena.ours, &context.arena.theirs);
    let (us, them) = prepare(context)?;
    let _stock = start_stock(theirs, &them, &us)?;
    let (_server, data) = serve_file(ours, "127.0.0.1")?;
    let folder = us.configure(&them, "stock", true)?;
    let leads = format!("80:127.0.0.1:{HTTP_PORT}");
    let _forward = start_ours(ours, &folder, &["forward", "--listen", &leads])?;
    for host in [format!("[{}]", us.addresses.0), us.addresses.1.to_string()] {
        fetch(theirs, &format!("http://{host}/file"), &[], &data)?;
        context.say(format!("their curl fetched {FILE_BYTES} bytes from {host}"));
    }
    let closed = format!("http://{}:81/", us.addresses.1);
    let words = ["curl", "-sS", "--max-time", "20", &closed];
    let said = text_of(&theirs.command(30, &words).output()?);
    // 7 is curl's number for a refusal; a silence would be 28.
    ensure(said.contains("(7)"), format!("{closed}: {said}"))
}

fn between_nodes(context: &Context<'_>) -> Outcome {
    let (ours, theirs) = (&context.arena.ours, &context.arena.theirs);
    let (us, them) = prepare(context)?;
    let (_server, data) = serve_file(theirs, "127.0.0.1")?;
    let leads = format!("80:127.0.0.1:{HTTP_PORT}");
    let their_folder = them.configure(&us, "us", false)?;
    let _forward = start_ours(theirs, &their_folder, &["forward", "--listen", &leads])?;
    let folder = us.configure(&them, "them", false)?;
    let _proxy = start_ours(ours, &folder, &["proxy", "--socks5", SOCKS])?;
    let proxy = format!("socks5h://{SOCKS}");
    let six = format!("[{}]", them.addresses.0);
    for host in ["them", &six] {
        fetch(ours, &format!("http://{host}/file"), &["-x", &proxy], &data)?;
        context.say(format!("curl fetched {FILE_BYTES} bytes from {host}"));
    }
    Ok(())
}

fn bulk(context: &Context<'_>) -> Outcome {
    if find_program("iperf3").is_none() {
        return skip("iperf3 is missing; apt-get install -y iperf3");
    }
    let (ours, theirs) = (&context.arena.ours, &context.arena.theirs);
    let (us, them) = prepare(context)?;
    let _stock = start_stock(theirs, &them, &us)?;
    let _server = start(theirs, &["iperf3", "-s"])?;
    let folder = us.configure(&them, "stock", true)?;
    let _forward = start_ours(ours, &folder, &["forward", "5201:stock:5201"])?;
    for (what, more) in [("there", &[][..]), ("back", &["-R"])] {
        let words = [
            &["iperf3", "-c", "127.0.0.1", "-t", "4", "-f", "m"][..],
            more,
        ]
        .concat();
        let output = ours.command(30, &words).output()?;
        let said = text_of(&output);
        ensure(output.status.success(), said.clone())?;
        let line = said.lines().rfind(|line| line.contains("receiver"));
        context.say(format!("{what}: {}", line.unwrap_or_default().trim()));
    }
    Ok(())
}
