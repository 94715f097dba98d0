//! `wiremesh wg` in the place of wireguard-go: the real `wg`, `wg-quick`, `ping` and `iperf3`, and
//! the real wireguard-go on the other side.
//!
//! See `interop/README.md` for what it needs and what each scenario proves.

use std::fmt::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use wiremesh_interop::keys::{KeyPair, generate_psk, overlay_address};
use wiremesh_interop::named::{self, Named};
use wiremesh_interop::netns::{Namespace, unique_name};
use wiremesh_interop::outcome::{Outcome, Stop, ensure, fail, skip, wait_for};
use wiremesh_interop::place::Place;
use wiremesh_interop::process::{Running, find_program, run_words, text_of};
use wiremesh_interop::programs::{self, scratch_file};
use wiremesh_interop::runner::Effort;
use wiremesh_interop::uapi::{self, socket_path};

const SCENARIOS: &[Named] = &[
    ("wg_shows_what_wg_set", wg_shows_what_wg_set),
    (
        "the_program_ends_when_it_is_told",
        the_program_ends_when_it_is_told,
    ),
    (
        "a_dead_programs_socket_is_taken_over",
        a_dead_programs_socket_is_taken_over,
    ),
    (
        "ping_and_tcp_with_wireguard_go",
        ping_and_tcp_with_wireguard_go,
    ),
    (
        "wg_shows_and_changes_a_node_in_tun_mode",
        wg_shows_and_changes_a_node_in_tun_mode,
    ),
    (
        "wg_quick_brings_it_up_and_down",
        wg_quick_brings_it_up_and_down,
    ),
    ("an_exported_client_joins", an_exported_client_joins),
    ("many_peers_take_seconds", many_peers_take_seconds),
];

fn main() -> ExitCode {
    named::main("drop_in", SCENARIOS, || {
        programs::check_basics()?;
        programs::wireguard_go()?;
        programs::wiremesh().map(drop)
    })
}

/// An interface of ours or of wireguard-go; the program ends with it.
struct Interface {
    place: Place,
    name: String,
    running: Running,
}

impl Interface {
    fn start(place: &Place, program: &Path, words: &[&str]) -> Outcome<Self> {
        let name = unique_name();
        let words = [words, &[name.as_str()]].concat();
        let Some(mut command) = place.daemon(&program.to_string_lossy(), &words) else {
            return fail("it is in a namespace");
        };
        let mut running = Running::start(command.env("LOG_LEVEL", "debug"), &scratch_file("log")?)?;
        let socket = socket_path(&name);
        wait_for("its socket", Duration::from_secs(10), || {
            (socket.exists() || !running.is_alive()).then_some(())
        })?;
        ensure(
            running.is_alive(),
            format!("it ended: {}", running.log_text()),
        )?;
        Ok(Self {
            place: place.clone(),
            name,
            running,
        })
    }

    fn ours(place: &Place) -> Outcome<Self> {
        Self::start(place, &programs::wiremesh()?, &["wg"])
    }

    fn theirs(place: &Place) -> Outcome<Self> {
        Self::start(place, &programs::wireguard_go()?, &["-f"])
    }

    /// `wg` with the interface as its second word.
    fn wg(&self, verb: &str, words: &str) -> Outcome<String> {
        let words: Vec<&str> = words.split_whitespace().collect();
        self.place
            .run(&[&["wg", verb, self.name.as_str()], words.as_slice()].concat())
            .or_else(|stop| match stop {
                Stop::Failed(why) => fail(format!("{why}\n{}", self.running.log_text())),
                skipped => Err(skipped),
            })
    }

    fn setconf(&self, text: &str) -> Outcome {
        let file = private_file(text)?;
        self.wg("setconf", &file).map(drop)
    }

    /// The words of a field of `wg show IFNAME FIELD`, in order.
    fn field(&self, field: &str) -> Outcome<Vec<String>> {
        let text = self.wg("show", field)?;
        Ok(text.split_whitespace().map(str::to_owned).collect())
    }

    /// Addresses and routes, as an operator gives them.
    fn address(&self, own: &str, mtu: &str) -> Outcome {
        self.place
            .run(&["ip", "addr", "add", own, "dev", &self.name])?;
        self.place
            .run(&["ip", "link", "set", &self.name, "mtu", mtu, "up"])?;
        Ok(())
    }
}

fn private_file(text: &str) -> Outcome<String> {
    let file = scratch_file("conf")?;
    std::fs::write(&file, text)?;
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600))?;
    Ok(file.to_string_lossy().into_owned())
}

/// Two places with a cable between them.
fn two_places() -> Outcome<(Place, Place)> {
    let (a, b) = (Namespace::new()?, Namespace::new()?);
    a.link_to(&b)?;
    let (a, b) = (Place::Namespace(Arc::new(a)), Place::Namespace(Arc::new(b)));
    a.run(&["ip", "addr", "add", "192.0.2.1/24", "dev", "link0"])?;
    b.run(&["ip", "addr", "add", "192.0.2.2/24", "dev", "link0"])?;
    Ok((a, b))
}

fn one_place() -> Outcome<Place> {
    Ok(Place::Namespace(Arc::new(Namespace::new()?)))
}

fn contains(shown: &str, parts: &[&str]) -> Outcome {
    parts.iter().try_for_each(|part| {
        let there = shown.contains(part);
        ensure(there, format!("{part:?} is missing in {shown}"))
    })
}

fn same<T: PartialEq + std::fmt::Debug>(seen: T, expected: T) -> Outcome {
    ensure(seen == expected, format!("{seen:?}, expected {expected:?}"))
}

fn wg_shows_what_wg_set() -> Outcome {
    let place = one_place()?;
    let ours = Interface::ours(&place)?;
    let mode = std::fs::metadata(socket_path(&ours.name))?.mode() & 0o777;
    same(mode, 0o600)?;
    let (own, a, b, psk) = (
        KeyPair::generate()?,
        KeyPair::generate()?,
        KeyPair::generate()?,
        generate_psk()?,
    );
    // Peers may come before the key, and keys may be such as nobody can have.
    let strange = "AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    ours.wg("set", &format!("peer {strange} allowed-ips 10.9.0.0/16"))?;
    let secret = private_file(&own.secret)?;
    let shared = private_file(&psk)?;
    let interface = format!("private-key {secret} listen-port 5555 fwmark 0x123");
    ours.wg("set", &interface)?;
    let peer = format!(
        "peer {} preshared-key {shared} endpoint 192.0.2.9:7 persistent-keepalive 25 \
         allowed-ips 10.0.0.1/32,0.0.0.0/0,fd00::/8",
        a.public
    );
    ours.wg("set", &peer)?;
    ours.wg("set", &format!("peer {} allowed-ips 10.0.0.1/32", b.public))?;
    same(ours.field("public-key")?, vec![own.public.clone()])?;
    same(ours.field("private-key")?, vec![own.secret.clone()])?;
    same(ours.field("listen-port")?, vec!["5555".to_owned()])?;
    same(ours.field("fwmark")?, vec!["0x123".to_owned()])?;
    let shown = ours.wg("show", "")?;
    let parts = [
        "endpoint: 192.0.2.9:7",
        "allowed ips: 10.0.0.1/32",
        "preshared key: (hidden)",
        "persistent keepalive: every 25 seconds",
        strange,
    ];
    contains(&shown, &parts)?;
    ensure(
        shown.matches("10.0.0.1/32").count() == 1,
        "a prefix moves to the last peer that it was given to",
    )?;
    // What is shown as a configuration is taken as one, and then shown again.
    let text = ours.wg("showconf", "")?;
    ours.setconf(&text)?;
    same(ours.wg("showconf", "")?, text.clone())?;
    ours.wg("syncconf", &private_file(&text)?)?;
    same(ours.wg("showconf", "")?, text)?;
    ours.wg(
        "set",
        &format!("peer {} remove peer {strange} remove", a.public),
    )?;
    same(ours.field("peers")?, vec![b.public.clone()])?;
    // A change that is refused changes nothing.
    let before = ours.wg("showconf", "")?;
    let nonsense = [
        ("listen_port", "1".to_owned()),
        ("colour", "red".to_owned()),
    ];
    ensure(
        uapi::set(&ours.name, &nonsense).is_err(),
        "nonsense was taken",
    )?;
    same(ours.wg("showconf", "")?, before)
}

fn the_program_ends_when_it_is_told() -> Outcome {
    let place = one_place()?;
    let mut first = Interface::ours(&place)?;
    let program = programs::wiremesh()?.to_string_lossy().into_owned();
    let second = place.command(20, &[&program, "wg", &first.name]).output()?;
    ensure(
        !second.status.success(),
        "a second program took the same name",
    )?;
    ensure(
        first.wg("show", "").is_ok(),
        "the second program broke the first",
    )?;
    place.run(&["ip", "link", "del", &first.name])?;
    gone(&mut first, "the interface was removed")?;

    // In another namespace it lives on, as the container that it was moved to expects.
    let (mut first, other) = (Interface::ours(&place)?, one_place()?);
    let there = namespace_of(&other)?;
    place.run(&["ip", "link", "set", &first.name, "netns", there])?;
    std::thread::sleep(Duration::from_millis(1_200));
    ensure(
        first.running.is_alive(),
        "it ended when its interface was moved",
    )?;
    other.run(&["ip", "link", "del", &first.name])?;
    gone(&mut first, "the interface was removed elsewhere")?;

    let mut first = Interface::ours(&place)?;
    std::fs::remove_file(socket_path(&first.name))?;
    gone(&mut first, "the socket was removed")
}

/// Checks that nothing of an interface is left.
fn gone(interface: &mut Interface, why: &str) -> Outcome {
    wait_for(why, Duration::from_secs(5), || {
        (!interface.running.is_alive()).then_some(())
    })?;
    let path = socket_path(&interface.name);
    ensure(!path.exists(), format!("{why}: {} stays", path.display()))?;
    let show = ["ip", "link", "show", &interface.name];
    let left = interface.place.succeeds(10, &show);
    ensure(!left, format!("{why}: the interface stays"))
}

fn a_dead_programs_socket_is_taken_over() -> Outcome {
    let place = one_place()?;
    let program = programs::wiremesh()?.to_string_lossy().into_owned();
    let first = Interface::ours(&place)?;
    let name = first.name.clone();
    let pids = run_words(&["ip", "netns", "pids", namespace_of(&place)?])?;
    for pid in pids.lines() {
        run_words(&["kill", "-9", pid])?;
    }
    drop(first);
    ensure(
        socket_path(&name).exists(),
        "a killed program cannot clean up",
    )?;
    let Some(mut command) = place.daemon(&program, &["wg", &name]) else {
        return fail("it is in a namespace");
    };
    let running = Running::start(&mut command, &scratch_file("log")?)?;
    let mut again = Interface {
        place: place.clone(),
        name,
        running,
    };
    // Not by `wg`, which itself removes a socket on which nobody listens.
    wait_for("the next program", Duration::from_secs(10), || {
        uapi::fetch(&again.name).ok()
    })?;
    let pids = run_words(&["ip", "netns", "pids", namespace_of(&place)?])?;
    for pid in pids.lines() {
        run_words(&["kill", "-TERM", pid])?;
    }
    gone(&mut again, "SIGTERM")
}

fn namespace_of(place: &Place) -> Outcome<&str> {
    match place {
        Place::Namespace(namespace) => Ok(namespace.name()),
        Place::Guest(_) => fail("not in the guest"),
    }
}

/// A configuration with one peer.
fn conf(own: &KeyPair, port: u16, peer: &KeyPair, psk: &str, rest: &str) -> String {
    format!(
        "[Interface]\nPrivateKey = {}\nListenPort = {port}\n[Peer]\nPublicKey = {}\n\
         PresharedKey = {psk}\n{rest}\n",
        own.secret, peer.public
    )
}

fn pings(place: &Place, to: &str) -> bool {
    place.succeeds(20, &["ping", "-n", "-c", "1", "-W", "5", to])
}

fn ping_and_tcp_with_wireguard_go() -> Outcome {
    let (here, there) = two_places()?;
    let (ours, theirs) = (Interface::ours(&here)?, Interface::theirs(&there)?);
    let (a, b, psk) = (KeyPair::generate()?, KeyPair::generate()?, generate_psk()?);
    ours.setconf(&conf(
        &a,
        5001,
        &b,
        &psk,
        "AllowedIPs = 10.7.0.2/32, fd07::/64",
    ))?;
    let rest = "AllowedIPs = 10.7.0.0/24, fd07::1/128\nEndpoint = 192.0.2.1:5001";
    theirs.setconf(&conf(&b, 5002, &a, &psk, rest))?;
    for (side, host) in [(&ours, "1"), (&theirs, "2")] {
        side.address(&format!("10.7.0.{host}/24"), "1420")?;
        let six = format!("fd07::{host}/64");
        side.place
            .run(&["ip", "addr", "add", &six, "dev", &side.name, "nodad"])?;
    }
    ensure(pings(&there, "10.7.0.1"), "no ping from there")?;
    ensure(
        pings(&here, "10.7.0.2"),
        "no ping from here, to where it came from",
    )?;
    ensure(pings(&here, "fd07::2"), "no ping over IPv6")?;
    let endpoint = ours.field("endpoints")?;
    same(endpoint.get(1).map(String::as_str), Some("192.0.2.2:5002"))?;
    let transfer = ours.field("transfer")?;
    ensure(
        transfer[1] != "0" && transfer[2] != "0",
        "nothing was counted",
    )?;
    let seen = ours.field("latest-handshakes")?;
    ensure(
        seen.get(1).is_some_and(|at| at != "0"),
        "no handshake is shown",
    )?;
    tcp(&here, &there)?;

    // A source that is not given is not let in, though a key has that address elsewhere.
    theirs
        .place
        .run(&["ip", "addr", "add", "10.7.0.9/32", "dev", &theirs.name])?;
    let foreign = [
        "ping", "-n", "-c", "1", "-W", "1", "-I", "10.7.0.9", "10.7.0.1",
    ];
    ensure(
        !there.succeeds(10, &foreign),
        "a source that is nobody's was let in",
    )?;

    // Everything of an interface can change under the same TUN.
    ours.wg("set", "listen-port 5003")?;
    ensure(pings(&here, "10.7.0.2"), "no ping after the port changed")?;
    let fresh = KeyPair::generate()?;
    ours.wg(
        "set",
        &format!("private-key {}", private_file(&fresh.secret)?),
    )?;
    ensure(!pings(&here, "10.7.0.2"), "the old key still works")?;
    theirs.setconf(&conf(&b, 5002, &fresh, &psk, "AllowedIPs = 10.7.0.0/24"))?;
    ensure(pings(&here, "10.7.0.2"), "no ping with the new key")?;
    ours.wg("set", &format!("peer {} remove", b.public))?;
    ensure(
        !pings(&here, "10.7.0.2"),
        "a peer that was removed is reached",
    )
}

fn tcp(here: &Place, there: &Place) -> Outcome {
    if find_program("iperf3").is_none() {
        return skip("no iperf3; apt-get install -y iperf3");
    }
    let Some(mut server) = there.daemon("iperf3", &["-s", "-1", "-B", "10.7.0.2", "-p", "5201"])
    else {
        return fail("it is in a namespace");
    };
    for direction in [&[][..], &["-R"]] {
        let server = Running::start(&mut server, &scratch_file("iperf")?)?;
        let words = ["iperf3", "-c", "10.7.0.2", "-p", "5201", "-n", "32M", "-J"];
        let words = [&words, direction].concat();
        let (output, _) = wait_for("iperf3", Duration::from_secs(60), || {
            let output = here.command(60, &words).output().ok()?;
            output.status.success().then_some(output)
        })
        .or_else(|_| fail(format!("iperf3 {direction:?}: {}", server.log_text())))?;
        let value: serde_json::Value = serde_json::from_slice(&output.stdout)?;
        let bits = value["end"]["sum_received"]["bits_per_second"].as_f64();
        let bits = bits.unwrap_or_default();
        println!("    TCP {direction:?}: {:.0} Mbit/s", bits / 1e6);
        ensure(bits > 1e6, text_of(&output))?;
    }
    Ok(())
}

/// Helper and node as an ordinary user, in a mount namespace that has the folder for sockets as
/// `wiremesh install` makes it.
const TUN_MODE: &str = "\
mkdir -p /run/wireguard
mount -t tmpfs -o mode=3770,gid=65534 none /run/wireguard
user='setpriv --reuid 65534 --regid 65534 --clear-groups'
chown -R 65534:65534 $1
cd $1
$user --inh-caps +net_admin --ambient-caps +net_admin $2 --socket $1/helper &
while [ ! -S helper ]; do sleep 0.05; done
echo $$ > pid
exec $user $3 up --mode tun --interface $4 --helper $1/helper --config $1/config.toml
";

fn wg_shows_and_changes_a_node_in_tun_mode() -> Outcome {
    let (here, there) = two_places()?;
    let theirs = Interface::theirs(&there)?;
    let (a, b, psk) = (KeyPair::generate()?, KeyPair::generate()?, generate_psk()?);
    theirs.setconf(&conf(&b, 5002, &a, &psk, "AllowedIPs = 10.7.0.1/32"))?;
    theirs.address("10.7.0.2/24", "1420")?;
    let folder = scratch_file("tun")?;
    std::fs::create_dir_all(&folder)?;
    let config = format!(
        "[node]\nkey = \"key\"\nlisten = [\"0.0.0.0:5001\"]\naddresses = [\"10.7.0.1/24\"]\n\
         state-dir = \"state\"\ncontrol-socket = \"control.sock\"\n[[peer]]\nid = \"{}\"\nstock = true\n\
         endpoint = \"192.0.2.2:5002\"\npreshared-key-file = \"psk\"\nallowed-ips = [\"10.7.0.2/32\"]\n",
        b.public
    );
    for (file, text) in [("config.toml", &config), ("key", &a.secret), ("psk", &psk)] {
        std::fs::rename(private_file(text)?, folder.join(file))?;
    }
    let name = unique_name();
    let in_folder = folder.to_string_lossy().into_owned();
    let (helper, program) = (programs::netadmin()?, programs::wiremesh()?);
    let (helper, program) = (helper.to_string_lossy(), program.to_string_lossy());
    let words = [
        "-m", "sh", "-euc", TUN_MODE, "sh", &in_folder, &helper, &program, &name,
    ];
    let Some(mut command) = here.daemon("unshare", &words) else {
        return fail("it is in a namespace");
    };
    let running = Running::start(&mut command, &scratch_file("log")?)?;
    let outcome = check_tun_mode(&here, &folder, &name, &b, &running);
    let pids = run_words(&["ip", "netns", "pids", namespace_of(&here)?])?;
    for pid in pids.lines() {
        // It may have ended by itself.
        let _ = run_words(&["kill", "-9", pid]);
    }
    outcome
}

fn check_tun_mode(
    here: &Place,
    folder: &Path,
    name: &str,
    peer: &KeyPair,
    running: &Running,
) -> Outcome {
    let wg = |verb: &str, words: &str| -> Outcome<String> {
        let pid = std::fs::read_to_string(folder.join("pid"))?;
        let line = format!("nsenter -m -t {} wg {verb} {name} {words}", pid.trim());
        here.run(&line.split_whitespace().collect::<Vec<_>>())
    };
    let log = || running.log_text();
    wait_for("wg show", Duration::from_secs(10), || wg("show", "").ok())
        .or_else(|_| fail(format!("wg shows nothing: {}", log())))?;
    let parts = [
        "listening port: 5001",
        "preshared key: (hidden)",
        "10.7.0.2/32",
        "192.0.2.2:5002",
    ];
    contains(&wg("show", "")?, &parts)?;
    ensure(pings(here, "10.7.0.2"), format!("no ping: {}", log()))?;
    let seen = wg("show", "latest-handshakes")?;
    ensure(!seen.trim().ends_with("\t0"), "no handshake is shown")?;

    let peer = format!("peer {}", peer.public);
    wg(
        "set",
        &format!("listen-port 5009 {peer} persistent-keepalive 5"),
    )?;
    ensure(pings(here, "10.7.0.2"), "no ping after the port changed")?;
    contains(
        &wg("show", "")?,
        &["listening port: 5009", "every 5 seconds"],
    )?;
    wg("set", &format!("{peer} allowed-ips 10.8.0.0/24"))?;
    ensure(!pings(here, "10.7.0.2"), "its address was taken away")?;
    wg("set", &format!("{peer} allowed-ips 10.7.0.2/32"))?;
    ensure(pings(here, "10.7.0.2"), "its address was given back")?;

    let before = wg("showconf", "")?;
    let other = private_file(&KeyPair::generate()?.secret)?;
    let refused = wg("set", &format!("private-key {other} listen-port 5010"));
    ensure(refused.is_err(), "the key of a running node was changed")?;
    contains(&log(), &["cannot be changed"])?;
    let refused = wg("set", "fwmark 7");
    ensure(refused.is_err(), "an ordinary user marked datagrams")?;
    contains(&log(), &["CAP_NET_ADMIN"])?;
    same(wg("showconf", "")?, before.clone())?;
    // What `wg` shows it takes again.
    wg("setconf", &private_file(&before)?)?;
    same(wg("showconf", "")?, before)?;
    ensure(pings(here, "10.7.0.2"), "no ping after setconf")
}

fn wg_quick_brings_it_up_and_down() -> Outcome {
    if find_program("wg-quick").is_none() || Path::new("/sys/module/wireguard").exists() {
        return skip("it needs wg-quick, and a kernel without WireGuard, or that is what it uses");
    }
    let (here, there) = two_places()?;
    let theirs = Interface::theirs(&there)?;
    let (a, b, psk) = (KeyPair::generate()?, KeyPair::generate()?, generate_psk()?);
    let rest = "AllowedIPs = 10.7.0.1/32";
    theirs.setconf(&conf(&b, 5002, &a, &psk, rest))?;
    theirs.address("10.7.0.2/24", "1420")?;
    theirs
        .place
        .run(&["ip", "addr", "add", "203.0.113.1/32", "dev", "lo"])?;
    let name = unique_name();
    // All addresses: wg-quick then sets a mark, rules by it, and a table of routes.
    let everything = find_program("nft").is_some() || find_program("iptables-restore").is_some();
    let allowed = if everything {
        "0.0.0.0/0"
    } else {
        "10.7.0.0/24"
    };
    let rest = format!("AllowedIPs = {allowed}\nEndpoint = 192.0.2.2:5002");
    let text = conf(&a, 5001, &b, &psk, &rest);
    let text = text.replace("ListenPort", "Address = 10.7.0.1/24\nListenPort");
    let folder = scratch_file("quick")?;
    std::fs::create_dir_all(&folder)?;
    let file = folder.join(format!("{name}.conf"));
    std::fs::rename(private_file(&text)?, &file)?;
    let link = link_named(&folder, "wiremesh-wg")?;
    let quick = |verb: &str| {
        let mut command = here.command(30, &["wg-quick", verb, &file.to_string_lossy()]);
        command.env("WG_QUICK_USERSPACE_IMPLEMENTATION", &link);
        command.output()
    };
    let up = quick("up")?;
    ensure(
        up.status.success(),
        format!("wg-quick up: {}", text_of(&up)),
    )?;
    let works = || -> Outcome {
        ensure(pings(&here, "10.7.0.2"), "no ping")?;
        if everything {
            ensure(
                pings(&here, "203.0.113.1"),
                "no ping over the default route",
            )?;
        }
        Ok(())
    };
    let outcome = works();
    let down = quick("down")?;
    ensure(
        down.status.success(),
        format!("wg-quick down: {}", text_of(&down)),
    )?;
    outcome?;
    let namespace = namespace_of(&here)?;
    wait_for("the program to end", Duration::from_secs(5), || {
        let left = run_words(&["ip", "netns", "pids", namespace]).unwrap_or_default();
        (left.trim().is_empty() && !socket_path(&name).exists()).then_some(())
    })?;
    // A name that cannot be had is told through the program that was called.
    let failed = here
        .command(20, &[&link.to_string_lossy(), "lo"])
        .output()?;
    ensure(!failed.status.success(), "lo is no interface to be made")?;
    let said = text_of(&failed);
    ensure(said.contains("cannot be made"), format!("it said: {said}"))
}

/// Our node without root; the client by `wg-quick` and wireguard-go, and then by `wiremesh import`.
fn an_exported_client_joins() -> Outcome {
    if find_program("wg-quick").is_none() {
        return skip("no wg-quick; apt-get install -y wireguard-tools");
    }
    let (here, there) = two_places()?;
    let folder = scratch_file("export")?;
    std::fs::create_dir_all(&folder)?;
    let file = |name: &str| folder.join(name).to_string_lossy().into_owned();
    let own = KeyPair::generate()?;
    std::fs::rename(private_file(&own.secret)?, file("key"))?;
    let config = "[node]\nkey = \"key\"\nlisten = [\"0.0.0.0:5001\"]\nstate-dir = \"state\"\n\
                  control-socket = \"control.sock\"\n";
    std::fs::write(file("config.toml"), config)?;
    let program = programs::wiremesh()?.to_string_lossy().into_owned();
    let name = unique_name();
    let (ours, theirs) = (file("config.toml"), file(&format!("{name}.conf")));
    let export = format!(
        "{program} export --config {ours} --peer phone --endpoint 192.0.2.1:5001 --output {theirs}"
    );
    here.run(&export.split(' ').collect::<Vec<_>>())?;
    let up = |place: &Place, config: &str, socket: &str| -> Outcome<Running> {
        let Some(mut command) = place.daemon(&program, &["up", "--config", config]) else {
            return fail("it is in a namespace");
        };
        command
            .env("XDG_RUNTIME_DIR", &folder)
            .env("XDG_STATE_HOME", &folder);
        let running = Running::start(&mut command, &scratch_file("log")?)?;
        wait_for("our node", Duration::from_secs(10), || {
            Path::new(socket).exists().then_some(())
        })
        .or_else(|_| fail(running.log_text()))?;
        Ok(running)
    };
    let node = up(&here, &ours, &file("control.sock"))?;
    let address = overlay_address(&own.public)?.to_string();
    there.run(&["wg-quick", "up", &theirs])?;
    let reached = pings(&there, &address);
    there.run(&["wg-quick", "down", &theirs])?;
    ensure(
        reached,
        format!("the client does not join: {}", node.log_text()),
    )?;

    there.run(&[&program, "import", &theirs, "--into", &file("imported")])?;
    let client = up(
        &there,
        &file("imported/config.toml"),
        &file("wiremesh/control.sock"),
    )?;
    let socket = file("wiremesh/control.sock");
    let words = ["ping", "-c", "1", &address, "--socket", &socket];
    let reached = there.succeeds(20, &[&[program.as_str()], &words[..]].concat());
    ensure(
        reached,
        format!("what was imported does not join: {}", client.log_text()),
    )
}

fn link_named(folder: &Path, name: &str) -> Outcome<PathBuf> {
    let link = folder.join(name);
    std::os::unix::fs::symlink(programs::wiremesh()?, &link)?;
    Ok(link)
}

fn many_peers_take_seconds() -> Outcome {
    let place = one_place()?;
    let ours = Interface::ours(&place)?;
    let count: u32 = match Effort::from_environment().map_err(Stop::Failed)? {
        Effort::Quick => 5_000,
        Effort::All | Effort::Full => 100_000,
    };
    let own = KeyPair::generate()?;
    let mut text = format!("[Interface]\nPrivateKey = {}\n", own.secret);
    for number in 0..count {
        let mut secret = [7; 32];
        secret[..4].copy_from_slice(&number.to_be_bytes());
        let id = wiremesh::node_id(&wiremesh::SecretKey::from_bytes(secret))?;
        let (low, [_, a, b, c]) = (number % 65_536, (number + 1).to_be_bytes());
        writeln!(
            text,
            "[Peer]\nPublicKey = {id}\nAllowedIPs = 10.{a}.{b}.{c}/32, fd00:{a}::{low:x}/128"
        )
        .expect("writing to a string cannot fail");
    }
    let file = private_file(&text)?;
    let start = Instant::now();
    ours.wg("setconf", &file)?;
    let took = start.elapsed();
    let start = Instant::now();
    let shown = ours.field("peers")?.len();
    println!(
        "    {count} peers: wg setconf {:.1} s, wg show {:.1} s",
        took.as_secs_f32(),
        start.elapsed().as_secs_f32()
    );
    same(shown, count as usize)?;
    let start = Instant::now();
    ours.wg("set", "listen-port 5099")?;
    let one = start.elapsed();
    ensure(
        one < Duration::from_secs(1),
        format!("one small change takes {one:?}"),
    )?;
    ensure(took < Duration::from_secs(25), format!("it took {took:?}"))
}
