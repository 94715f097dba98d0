//! `wiremesh up --mode tun`: every program of the host reaches the peers, and nobody else reaches
//! the host's.
//!
//! See `interop/README.md` for what it needs and what each scenario proves.

use std::net::{IpAddr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::Duration;

use wiremesh_interop::keys::{KeyPair, control_address, overlay_address};
use wiremesh_interop::named::{self, Named};
use wiremesh_interop::netns::{Namespace, unique_name};
use wiremesh_interop::outcome::{Outcome, Stop, ensure, fail, skip, wait_for};
use wiremesh_interop::place::Place;
use wiremesh_interop::process::{Running, find_program, run_words, text_of};
use wiremesh_interop::programs::{self, scratch_file};

const SCENARIOS: &[Named] = &[
    ("programs_of_two_hosts_talk", programs_of_two_hosts_talk),
    (
        "nobody_holds_more_than_he_needs",
        nobody_holds_more_than_he_needs,
    ),
    (
        "a_killed_node_leaves_nothing_behind",
        a_killed_node_leaves_nothing_behind,
    ),
    ("either_side_restarts", either_side_restarts),
    (
        "a_peer_below_the_level_reaches_nothing",
        a_peer_below_the_level_reaches_nothing,
    ),
    (
        "the_streams_are_the_nodes_own",
        the_streams_are_the_nodes_own,
    ),
    (
        "another_mode_is_the_same_node",
        another_mode_is_the_same_node,
    ),
];

/// Who runs the node, and who runs the helper; both are in the group.
const USER: &str = "65534";
const HELPER_USER: &str = "65533";
const GROUP: &str = "65534";
const PORT: u16 = 5000;
const SECONDS_10: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    named::main("planes", SCENARIOS, || {
        programs::check_basics()?;
        if find_program("setpriv").is_none() || python().is_none() {
            return skip("needs setpriv and python3: apt-get install -y util-linux python3");
        }
        programs::wireguard_go()?;
        programs::wiremesh()?;
        programs::netadmin().map(drop)
    })
}

/// Python for everybody: another one may be in a folder that only root can read.
fn python() -> Option<String> {
    let system = Path::new("/usr/bin/python3");
    match system.is_file() {
        true => Some(system.to_string_lossy().into_owned()),
        false => Some(find_program("python3")?.to_string_lossy().into_owned()),
    }
}

/// One host: a namespace with the helper in it, and a configured node that may run.
struct Host {
    place: Place,
    keys: KeyPair,
    folder: PathBuf,
    helper: Option<Running>,
    node: Option<Running>,
}

/// Two hosts with a cable between them, each with the other as its peer.
fn two_hosts() -> Outcome<[Host; 2]> {
    let (a, b) = (Namespace::new()?, Namespace::new()?);
    a.link_to(&b)?;
    let places = [a, b].map(|namespace| Place::Namespace(Arc::new(namespace)));
    for (place, address) in places.iter().zip(["192.0.2.1/24", "192.0.2.2/24"]) {
        place.run(&["ip", "addr", "add", address, "dev", "link0"])?;
    }
    let keys = [KeyPair::generate()?, KeyPair::generate()?];
    let [a, b] = places;
    Ok([
        Host::new(a, keys[0].clone(), &keys[1].public, "192.0.2.2")?,
        Host::new(b, keys[1].clone(), &keys[0].public, "192.0.2.1")?,
    ])
}

/// The same with both nodes up in `tun` mode.
fn two_hosts_up() -> Outcome<[Host; 2]> {
    let mut hosts = two_hosts()?;
    for host in &mut hosts {
        host.start_helper()?;
        host.up(&["--mode", "tun"])?;
    }
    Ok(hosts)
}

impl Host {
    fn new(place: Place, keys: KeyPair, peer: &str, endpoint: &str) -> Outcome<Self> {
        // Short, because the path of a socket is; open to the node's user.
        let folder = Path::new("/tmp").join(unique_name());
        std::fs::create_dir(&folder)?;
        let host = Self {
            place,
            keys,
            folder,
            helper: None,
            node: None,
        };
        std::fs::write(host.file("key"), &host.keys.secret)?;
        std::fs::write(
            host.file("node.toml"),
            format!(
                "[node]\nkey = \"key\"\nlisten = [\"0.0.0.0:{PORT}\"]\nstate-dir = \"state\"\n\
                 control-socket = \"sock\"\nlog = \"debug\"\n\n\
                 [[peer]]\nname = \"other\"\nid = \"{peer}\"\nendpoint = \"{endpoint}:{PORT}\"\n"
            ),
        )?;
        let folder = host.folder.to_string_lossy().into_owned();
        run_words(&["chmod", "-R", "go=", &folder])?;
        run_words(&["chown", "-R", &format!("{USER}:{GROUP}"), &folder])?;
        let run = host.file("run");
        run_words(&[
            "install",
            "-d",
            "-m",
            "750",
            "-o",
            HELPER_USER,
            "-g",
            GROUP,
            &run,
        ])?;
        run_words(&["chmod", "711", &folder])?;
        Ok(host)
    }

    fn file(&self, name: &str) -> String {
        self.folder.join(name).to_string_lossy().into_owned()
    }

    fn helper_socket(&self) -> String {
        self.file("run/s")
    }

    /// A command as the node's user.
    fn as_user(&self, seconds: u32, words: &[&str]) -> Command {
        let user = [
            "setpriv",
            "--reuid",
            USER,
            "--regid",
            GROUP,
            "--clear-groups",
        ];
        self.place.command(seconds, &[&user[..], words].concat())
    }

    fn daemon(&self, program: &Path, privilege: &[&str], words: &[&str]) -> Outcome<Running> {
        let program = program.to_string_lossy();
        let words = [privilege, &[&program], words].concat();
        let Some(mut command) = self.place.daemon("setpriv", &words) else {
            return fail("it is in a namespace");
        };
        Running::start(&mut command, &scratch_file("log")?)
    }

    fn start_helper(&mut self) -> Outcome {
        let privilege = [
            "--reuid",
            HELPER_USER,
            "--regid",
            GROUP,
            "--clear-groups",
            "--inh-caps",
            "+net_admin",
            "--ambient-caps",
            "+net_admin",
        ];
        let socket = self.helper_socket();
        let helper = self.daemon(&programs::netadmin()?, &privilege, &["--socket", &socket])?;
        wait_for("the helper's socket", SECONDS_10, || {
            Path::new(&socket).exists().then_some(())
        })
        .or_else(|_| fail(format!("no helper: {}", helper.log_text())))?;
        self.helper = Some(helper);
        Ok(())
    }

    /// `wiremesh up` as an ordinary user, until it says that it is up.
    fn up(&mut self, words: &[&str]) -> Outcome {
        self.node = None;
        let privilege = ["--reuid", USER, "--regid", GROUP, "--clear-groups"];
        let (config, socket) = (self.file("node.toml"), self.helper_socket());
        let up = ["up", "--config", &config, "--helper", &socket];
        let mut node = self.daemon(&programs::wiremesh()?, &privilege, &[&up, words].concat())?;
        wait_for("the node", SECONDS_10, || {
            let up = node.log_text().contains("up with 1 peer");
            (up || !node.is_alive()).then_some(())
        })?;
        ensure(node.is_alive(), format!("it ended: {}", node.log_text()))?;
        self.node = Some(node);
        Ok(())
    }

    fn address(&self) -> Outcome<Ipv6Addr> {
        overlay_address(&self.keys.public)
    }

    /// Whether one of a few pings to the other host is answered.
    fn reaches(&self, other: IpAddr) -> Outcome<bool> {
        Ok(self.place.ping(other, 3, "0.3")?.answered > 0)
    }

    fn status(&self) -> Outcome<serde_json::Value> {
        let wiremesh = programs::wiremesh()?;
        let socket = self.file("sock");
        let words = [
            &*wiremesh.to_string_lossy(),
            "status",
            "--json",
            "--socket",
            &socket,
        ];
        let output = self.as_user(20, &words).output()?;
        serde_json::from_slice(&output.stdout)
            .or_else(|_| fail(format!("status said: {}", text_of(&output))))
    }

    /// How many packets `status` says were dropped for a reason.
    fn dropped(&self, reason: &str) -> Outcome<u64> {
        let status = self.status()?;
        let list = status["dropped"].to_string();
        let at = list.find(reason).map(|at| &list[at + reason.len()..]);
        let digits = |text: &str| -> String {
            let from = text
                .find(|c: char| c.is_ascii_digit())
                .unwrap_or(text.len());
            text[from..]
                .chars()
                .take_while(char::is_ascii_digit)
                .collect()
        };
        Ok(at.map_or(0, |text| digits(text).parse().unwrap_or(0)))
    }

    fn has_interface(&self) -> bool {
        self.place.succeeds(10, &["ip", "link", "show", "wm0"])
    }

    /// A field of `/proc/PID/status` of the program that the guard's process became.
    fn capabilities(running: &Running, field: &str) -> Outcome<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", running.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        let hex = line.unwrap_or_default().trim_start_matches(':').trim();
        Ok(u64::from_str_radix(hex, 16)?)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.node = None;
        self.helper = None;
        // A folder that stays is in nobody's way; the next run takes it away.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn programs_of_two_hosts_talk() -> Outcome {
    let [a, b] = two_hosts_up()?;
    ensure(a.reaches(b.address()?.into())?, "no ping is answered")?;
    ensure(b.reaches(a.address()?.into())?, "no ping is answered")?;
    let level = a.status()?["peers"][0]["level"].to_string();
    ensure(level.contains('2'), format!("the level is {level}"))?;
    // A megabyte each way through ordinary sockets, checked byte by byte.
    let serve = format!(
        "import socket\ns = socket.create_server(('{}', 8080), family=socket.AF_INET6)\n\
         print('ready', flush=True)\nc, _ = s.accept()\n\
         while True:\n    d = c.recv(65536)\n    if not d: break\n    c.sendall(d)\n",
        b.address()?
    );
    let words = ["-c", serve.as_str()];
    let Some(mut command) = b.place.daemon("python3", &words) else {
        return fail("it is in a namespace");
    };
    let server = Running::start(&mut command, &scratch_file("server")?)?;
    wait_for("the server", SECONDS_10, || {
        server.log_text().contains("ready").then_some(())
    })?;
    let ask = format!(
        "import hashlib, socket, threading\ndata = bytes(range(256)) * 4096\n\
         s = socket.create_connection(('{}', 8080), 20)\n\
         t = threading.Thread(target=lambda: (s.sendall(data), s.shutdown(socket.SHUT_WR)))\n\
         t.start()\ngot = b''\n\
         while True:\n    d = s.recv(65536)\n    if not d: break\n    got += d\n\
         t.join()\nassert got == data, len(got)\nprint('same', len(got))\n",
        b.address()?
    );
    let said = a
        .as_user(60, &[&python().unwrap_or_default(), "-c", &ask])
        .output()?;
    ensure(
        text_of(&said) == "same 1048576",
        format!("it said: {}", text_of(&said)),
    )
}

fn nobody_holds_more_than_he_needs() -> Outcome {
    let [a, _b] = two_hosts_up()?;
    let (Some(node), Some(helper)) = (&a.node, &a.helper) else {
        return fail("both run");
    };
    for field in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        let held = Host::capabilities(node, field)?;
        ensure(held == 0, format!("the node's {field} is {held:x}"))?;
    }
    // Bit 12 is CAP_NET_ADMIN.
    for field in ["CapPrm", "CapEff"] {
        let held = Host::capabilities(helper, field)?;
        ensure(held == 1 << 12, format!("the helper's {field} is {held:x}"))?;
    }
    for field in ["CapInh", "CapAmb"] {
        let held = Host::capabilities(helper, field)?;
        ensure(
            held & !(1 << 12) == 0,
            format!("the helper's {field} is {held:x}"),
        )?;
    }
    Ok(())
}

fn a_killed_node_leaves_nothing_behind() -> Outcome {
    let [mut a, b] = two_hosts_up()?;
    ensure(a.has_interface(), "no interface")?;
    let Some(node) = a.node.take() else {
        return fail("it runs");
    };
    node.kill();
    wait_for("the interface goes", SECONDS_10, || {
        (!a.has_interface()).then_some(())
    })?;
    if find_program("nft").is_some() {
        let tables = a.place.run(&["nft", "list", "ruleset"])?;
        ensure(tables.trim().is_empty(), format!("left: {tables}"))?;
    }
    a.up(&["--mode", "tun"])?;
    wait_for(
        "the two find each other again",
        Duration::from_secs(60),
        || a.reaches(b.address().ok()?.into()).ok()?.then_some(()),
    )
    .map(drop)
}

fn either_side_restarts() -> Outcome {
    let mut hosts = two_hosts_up()?;
    for who in 0..2 {
        let other = hosts[1 - who].address()?;
        ensure(hosts[who].reaches(other.into())?, "no ping is answered")?;
        hosts[who].up(&["--mode", "tun"])?;
        let took = wait_for("pings", Duration::from_secs(60), || {
            hosts[who].reaches(other.into()).ok()?.then_some(())
        })?;
        println!(
            "    either_side_restarts: {who} reaches the other {:?} after its start",
            took.1
        );
    }
    Ok(())
}

/// A stock WireGuard that nobody has marked as one has sessions, but below the level: no byte of it
/// reaches a server of the host, from its overlay address or its control address.
fn a_peer_below_the_level_reaches_nothing() -> Outcome {
    let [mut a, b] = two_hosts()?;
    a.start_helper()?;
    a.up(&["--mode", "tun"])?;
    let own = a.address()?;
    let program = format!(
        "import socket\ns = socket.create_server(('{own}', 8080), family=socket.AF_INET6)\n\
         print('ready', flush=True)\ns.accept()\nprint('DELIVERED', flush=True)\n"
    );
    let Some(mut command) = a.place.daemon("python3", &["-c", &program]) else {
        return fail("it is in a namespace");
    };
    let server = Running::start(&mut command, &scratch_file("server")?)?;
    wait_for("the server", SECONDS_10, || {
        server.log_text().contains("ready").then_some(())
    })?;
    let name = unique_name();
    let wireguard_go = programs::wireguard_go()?;
    let Some(mut command) = b
        .place
        .daemon(&wireguard_go.to_string_lossy(), &["-f", &name])
    else {
        return fail("it is in a namespace");
    };
    let _stock = Running::start(&mut command, &scratch_file("stock")?)?;
    wait_for("wireguard-go", SECONDS_10, || {
        b.place.succeeds(5, &["wg", "show", &name]).then_some(())
    })?;
    let key = b.file("key");
    let peer = a.keys.public.clone();
    b.place.run(&[
        "wg",
        "set",
        &name,
        "listen-port",
        &PORT.to_string(),
        "private-key",
        &key,
    ])?;
    b.place.run(&[
        "wg",
        "set",
        &name,
        "peer",
        &peer,
        "endpoint",
        &format!("192.0.2.1:{PORT}"),
        "allowed-ips",
        "fd77:6d00::/24",
    ])?;
    for address in [b.address()?, control_address(&b.keys.public)?] {
        b.place.run(&[
            "ip",
            "addr",
            "add",
            &format!("{address}/128"),
            "dev",
            &name,
            "nodad",
        ])?;
    }
    b.place.run(&["ip", "link", "set", &name, "up"])?;
    b.place
        .run(&["ip", "route", "add", "fd77:6d00::/24", "dev", &name])?;
    let to_control = control_address(&a.keys.public)?;
    for (from, to) in [
        (b.address()?, own),
        (control_address(&b.keys.public)?, own),
        (control_address(&b.keys.public)?, to_control),
    ] {
        let dial =
            format!("import socket\nsocket.create_connection(('{to}', 8080), 3, ('{from}', 0))");
        let reached = b.place.succeeds(20, &["python3", "-c", &dial]);
        ensure(!reached, format!("{from} reached {to}"))?;
    }
    let sessions = b.place.run(&["wg", "show", &name, "latest-handshakes"])?;
    ensure(
        !sessions.trim().ends_with("\t0"),
        "it had no session, so nothing was tried",
    )?;
    ensure(
        !server.log_text().contains("DELIVERED"),
        "the server was reached",
    )?;
    // What was tried was not wrong: named as stock, it gets through.
    let config = std::fs::read_to_string(a.file("node.toml"))?;
    std::fs::write(a.file("node.toml"), config + "stock = true\n")?;
    a.up(&["--mode", "tun"])?;
    let dial = format!("import socket\nsocket.create_connection(('{own}', 8080), 20)");
    ensure(
        b.place.succeeds(40, &["python3", "-c", &dial]),
        "not even where it may",
    )
}

/// A program of the host sends to a peer's stream port, and from its own.
fn the_streams_are_the_nodes_own() -> Outcome {
    let [a, b] = two_hosts_up()?;
    let to = b.address()?;
    ensure(a.reaches(to.into())?, "no ping is answered")?;
    let reason = "interface: a port of the node";
    for (from, port) in [(0, 2708), (2708, 9)] {
        let before = a.dropped(reason)?;
        let send = format!(
            "import socket\ns = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)\n\
             s.bind(('{}', {from}))\ns.sendto(b'as if', ('{to}', {port}))",
            a.address()?
        );
        let said = a
            .as_user(20, &[&python().unwrap_or_default(), "-c", &send])
            .output()?;
        // The helper's filter may refuse it before the node does.
        let refused = text_of(&said).contains("Operation not permitted");
        ensure(refused || said.status.success(), text_of(&said))?;
        if refused {
            println!("    the_streams_are_the_nodes_own: {from} to {port}: refused by the filter");
            continue;
        }
        let (_, took) = wait_for("it is dropped and counted", SECONDS_10, || {
            (a.dropped(reason).ok()? > before).then_some(())
        })?;
        println!("    the_streams_are_the_nodes_own: {from} to {port}: dropped within {took:?}");
    }
    Ok(())
}

fn another_mode_is_the_same_node() -> Outcome {
    let [mut a, mut b] = two_hosts_up()?;
    let facts = |host: &Host| -> Outcome<String> {
        let status = host.status()?;
        let peer = status["peers"][0]["node_id"].clone();
        Ok(format!(
            "{} {} {peer}",
            status["node_id"], status["addresses"]
        ))
    };
    let in_tun = facts(&a)?;
    a.up(&[])?;
    ensure(!a.has_interface(), "an interface in rootless mode")?;
    ensure(
        facts(&a)? == in_tun,
        format!("{} is not {in_tun}", facts(&a)?),
    )?;
    let (own, other) = (a.address()?, b.address()?);
    wait_for(
        "pings from tun to rootless",
        Duration::from_secs(60),
        || b.reaches(own.into()).ok()?.then_some(()),
    )?;
    // Without the helper there is no interface, and nothing else instead of it.
    a.node = None;
    a.helper = None;
    let wiremesh = programs::wiremesh()?;
    let (config, socket) = (a.file("node.toml"), a.helper_socket());
    let words = [
        "up", "--config", &config, "--mode", "tun", "--helper", &socket,
    ];
    let output = a
        .as_user(20, &[&[&*wiremesh.to_string_lossy()], &words[..]].concat())
        .output()?;
    let said = text_of(&output);
    ensure(
        output.status.code() == Some(1),
        format!("{:?}: {said}", output.status),
    )?;
    ensure(
        said.contains("wiremesh install"),
        format!("no way out in: {said}"),
    )?;
    b.node = None;
    a.start_helper()?;
    a.up(&["--mode", "tun"])?;
    ensure(facts(&a)? == in_tun, "it is another node")?;
    b.up(&["--mode", "tun"])?;
    wait_for("pings from tun to tun", Duration::from_secs(60), || {
        a.reaches(other.into()).ok()?.then_some(())
    })
    .or_else(|stop| match stop {
        Stop::Failed(why) => fail(format!("{why}: {:?}", a.status())),
        skipped => Err(skipped),
    })
    .map(drop)
}
