//! `wiremesh exec` as an ordinary user runs it: real programs, namespaces and TUN devices.
//!
//! As root the tests become user 65534, and give it `/dev/net/tun` with the mode 0666 that it has
//! on ordinary systems, in a mount namespace of their own. Nothing of the host changes.
#![cfg(target_os = "linux")]

#[path = "support/home.rs"]
mod home;

use home::{Home, Running, field, free_port};
use std::fs;
use std::io::{BufRead, Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

const USER: u32 = 65534;

/// A user with a node.
struct User {
    home: Home,
    id: String,
    address: String,
    port: u16,
    /// What the shell does before it is the user: mounts, for example.
    before: String,
}

impl User {
    fn new() -> Self {
        let home = Home::new();
        home.good(&["key", "new"]);
        let shown = home.good(&["key", "show"]);
        let program = home.path().join("wiremesh");
        // The user may not be allowed where it was built.
        fs::copy(env!("CARGO_BIN_EXE_wiremesh"), program).expect("copied");
        let mut user = Self {
            id: field(&shown, "node id"),
            address: field(&shown, "address"),
            port: free_port(),
            before: String::new(),
            home,
        };
        if is_root() {
            user.shell("mknod -m 0666 tun c 10 200");
            user.before = "mount --bind tun /dev/net/tun".to_owned();
        }
        user.configure("");
        user
    }

    /// Two users whose nodes are each other's peers: "alice" and "bob".
    fn pair() -> (Self, Self) {
        let (alice, bob) = (Self::new(), Self::new());
        alice.configure(&bob.as_peer("bob"));
        bob.configure(&alice.as_peer("alice"));
        (alice, bob)
    }

    fn as_peer(&self, name: &str) -> String {
        format!(
            "[[peer]]\nname = {name:?}\nid = {:?}\nendpoint = \"127.0.0.1:{}\"\n",
            self.id, self.port
        )
    }

    fn configure(&self, peers: &str) {
        let node = format!("[node]\nlisten = [\"127.0.0.1:{}\"]\n{peers}", self.port);
        self.home.write("node.toml", &node);
        if is_root() {
            self.shell(&format!("chown -R {USER}:{USER} ."));
        }
    }

    fn shell(&self, line: &str) {
        let mut shell = Command::new("sh");
        let done = shell.args(["-ec", line]).current_dir(self.home.path());
        assert!(done.status().expect("runs").success(), "{line}");
    }

    /// A command line as this user.
    fn command(&self, words: &[&str]) -> Command {
        let become_user = if is_root() {
            "exec setpriv --reuid 65534 --regid 65534 --clear-groups \"$@\""
        } else {
            "exec \"$@\""
        };
        let line = format!("set -e\n{}\n{become_user}", self.before);
        let mut command = if is_root() {
            let mut command = Command::new("unshare");
            command.args(["--mount", "--propagation", "private", "sh"]);
            command
        } else {
            Command::new("sh")
        };
        command
            .args(["-c", &line, "sh"])
            .args(words)
            .current_dir(self.home.path())
            .env_clear()
            .env("HOME", self.home.path())
            .env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin")
            .env("PYTHONUNBUFFERED", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    fn exec(&self, program: &[&str]) -> Command {
        // A shell cannot trap what was ignored before it, as SIGINT is for a job in the background
        // and SIGHUP under nohup.
        let signals = ["env", "--default-signal=INT,QUIT,HUP,TERM"];
        let own = ["./wiremesh", "exec", "--config", "node.toml", "--"];
        self.command(&[&signals[..], &own, program].concat())
    }

    fn run(&self, program: &[&str]) -> Output {
        self.exec(program).output().expect("runs")
    }

    /// Runs a program that must end well; gives its standard output.
    fn good(&self, program: &[&str]) -> String {
        let output = self.run(program);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program:?}: {stderr}");
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    /// Runs `true` where that is not allowed; gives what is said about it.
    fn refused(&self) -> String {
        let output = self.run(&["true"]);
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr).expect("UTF-8")
    }

    /// Starts a shell line and waits for its first line of output.
    fn start(&self, line: &str) -> Running {
        let mut running = Running(self.exec(&["sh", "-c", line]).spawn().expect("starts"));
        let mut first = String::new();
        let mut stdout = running.stdout();
        stdout.read_line(&mut first).expect("a line");
        if first.is_empty() {
            let mut told = String::new();
            running.stderr().read_to_string(&mut told).expect("read");
            panic!("{line}: {told}");
        }
        // What is written later must find a reader.
        std::thread::spawn(move || stdout.lines().for_each(drop));
        running
    }
}

fn is_root() -> bool {
    fs::metadata("/proc/self").expect("there").uid() == 0
}

fn is_installed(program: &str) -> bool {
    let folders = ["/usr/bin", "/usr/sbin"].map(PathBuf::from);
    folders.iter().any(|folder| folder.join(program).exists())
}

/// Whether this host lets an ordinary user do it; else the test says why it is skipped.
fn allowed() -> bool {
    let user = User::new();
    let probe = user.command(&["unshare", "--user", "--net", "test", "-w", "/dev/net/tun"]);
    let output = { probe }.output().expect("runs");
    if !output.status.success() {
        let reason = String::from_utf8_lossy(&output.stderr);
        eprintln!("skipped: no user namespaces or no TUN device here: {reason}");
    }
    output.status.success()
}

#[test]
fn programs_of_two_ordinary_users_reach_each_other() {
    if !allowed() {
        return;
    }
    let (alice, bob) = User::pair();
    bob.home.write("greeting", "hello from bob\n");
    bob.shell("chmod 644 greeting");
    let serve = format!("exec python3 -m http.server 80 --bind {}", bob.address);
    let _server = bob.start(&serve);
    for host in [
        &format!("[{}]", bob.address),
        "bob",
        "bob.wiremesh.internal",
    ] {
        let url = format!("http://{host}/greeting");
        let fetched = alice.good(&["curl", "-sS", "--max-time", "20", &url]);
        assert_eq!(fetched, "hello from bob\n", "{host}");
    }
}

#[test]
fn large_file_arrives_whole() {
    if !allowed() {
        return;
    }
    let (alice, bob) = User::pair();
    // No two blocks are alike, so that one in the wrong place is noticed.
    let numbers = (0..1_000_000u32).map(|n| n.wrapping_mul(2_654_435_761));
    let bytes: Vec<u8> = numbers.flat_map(u32::to_le_bytes).collect();
    fs::write(bob.home.path().join("file"), &bytes).expect("written");
    bob.shell("chmod 644 file");
    let _server = bob.start("exec python3 -m http.server 8080 --bind ::");
    let fetched = alice.run(&["curl", "-sS", "--max-time", "60", "http://bob:8080/file"]);
    assert!(fetched.stdout == bytes, "{} bytes", fetched.stdout.len());
}

#[test]
fn ssh_session_and_iperf3_run_over_it() {
    let programs = ["dropbear", "dropbearkey", "ssh", "ssh-keygen", "iperf3"];
    if !allowed() || !is_root() || !programs.iter().all(|program| is_installed(program)) {
        eprintln!("skipped: not root, or not all of {programs:?} are installed");
        return;
    }
    let (alice, mut bob) = User::pair();
    bob.shell("mkdir -m 700 .ssh; dropbearkey -t ed25519 -f host-key >/dev/null 2>&1");
    alice.shell("ssh-keygen -q -t ed25519 -N '' -f ssh-key");
    let public = fs::read_to_string(alice.home.path().join("ssh-key.pub")).expect("written");
    bob.home.write(".ssh/authorized_keys", &public);
    let home = bob.home.path().display().to_string();
    bob.home
        .write("passwd", &format!("wm:x:{USER}:{USER}::{home}:/bin/sh\n"));
    bob.before += "; mount --bind passwd /etc/passwd";
    for user in [&alice, &bob] {
        user.shell(&format!("chown -R {USER}:{USER} ."));
    }
    // The first program ends with wiremesh; what it has started must end with it.
    let iperf3 = "setpriv --pdeathsig KILL iperf3 -s --forceflush >iperf3.log";
    let dropbear = "exec dropbear -FE -s -p 22 -P pid -r host-key 2>&1";
    let _servers = bob.start(&format!("{iperf3} & {dropbear}"));
    let mut ssh = vec!["ssh", "-i", "ssh-key"];
    for option in [
        "StrictHostKeyChecking=no",
        "UserKnownHostsFile=/dev/null",
        "BatchMode=yes",
    ] {
        ssh.extend(["-o", option]);
    }
    let output = alice.run(&[&ssh[..], &["wm@bob", "echo there; exit 4"]].concat());
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(4), "{told}");
    assert_eq!(output.stdout, b"there\n");
    for direction in ["--reverse", "--parallel=2"] {
        let report = alice.good(&["iperf3", "-c", "bob", "-n", "4M", "--json", direction]);
        let report: serde_json::Value = serde_json::from_str(&report).expect("JSON");
        // It stops counting when the sender has sent, whatever is still on its way.
        let received = report["end"]["sum_received"]["bytes"].as_u64();
        assert!(received >= Some(1 << 19), "{direction}: {received:?}");
    }
}

#[test]
fn rootless_node_answers_a_programs_ping() {
    if !allowed() {
        return;
    }
    let (alice, bob) = User::pair();
    let mut up = bob.command(&["./wiremesh", "up", "--config", "node.toml"]);
    let mut up = Running(up.spawn().expect("starts"));
    let mut lines = up.stderr().lines();
    lines
        .by_ref()
        .map(|line| line.expect("a line"))
        .find(|line| line.starts_with("up with"));
    std::thread::spawn(move || lines.for_each(drop));
    let answer = alice.good(&["ping", "-c", "1", "-W", "20", "bob"]);
    assert!(answer.contains("1 received"), "{answer}");
}

#[test]
fn program_is_the_same_user_without_any_privilege() {
    if !allowed() {
        return;
    }
    let user = User::new();
    let ids = user.good(&["sh", "-c", "id -u; id -g; stat -c %u node.toml"]);
    let expected = if is_root() {
        USER
    } else {
        fs::metadata("/proc/self").expect("there").uid()
    };
    let expected = expected.to_string();
    let ids: Vec<&str> = ids.lines().collect();
    assert_eq!((ids[0], ids[2]), (&expected[..], &expected[..]));
    let status = user.good(&["cat", "/proc/self/status"]);
    let value = |name| field(&status.replace('\t', " "), name);
    assert_eq!(value("NoNewPrivs:"), "1");
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
        assert_eq!(value(set), "0000000000000000", "{set}");
    }
}

#[test]
fn root_too_has_no_power_over_the_namespaces() {
    if !allowed() || !is_root() {
        eprintln!("skipped: not root");
        return;
    }
    let user = User::new();
    let line = "./wiremesh exec --config node.toml -- cat /proc/self/status";
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c"]);
    command.arg(format!("{} && {line}", user.before));
    command
        .env("HOME", user.home.path())
        .current_dir(user.home.path());
    let output = command.output().expect("runs");
    let status = String::from_utf8(output.stdout)
        .expect("UTF-8")
        .replace('\t', " ");
    assert_eq!(field(&status, "CapEff:"), "0000000000000000");
    assert!(status.contains("Uid: 0 0 0 0"), "{status}");
}

#[test]
fn exit_codes_and_streams_are_the_programs() {
    if !allowed() {
        return;
    }
    let user = User::new();
    for (program, code) in [
        (&["sh", "-c", "exit 7"][..], 7),
        (&["sh", "-c", "kill -KILL $$"], 137),
        (&["true"], 0),
        (&["./node.toml"], 126),
        (&["wm-no-such-program"], 127),
    ] {
        assert_eq!(user.run(program).status.code(), Some(code), "{program:?}");
    }
    let missing = user.run(&["wm-no-such-program"]);
    let told = String::from_utf8_lossy(&missing.stderr);
    assert!(told.contains("cannot run wm-no-such-program"), "{told}");
    let mut copying = user.exec(&["sh", "-c", "cat; echo end >&2"]);
    let mut copying = copying.stdin(Stdio::piped()).spawn().expect("starts");
    let mut stdin = copying.stdin.take().expect("piped");
    stdin.write_all(b"through\n").expect("written");
    drop(stdin);
    let output = copying.wait_with_output().expect("ends");
    assert_eq!(
        (&output.stdout[..], &output.stderr[..]),
        (&b"through\n"[..], &b"end\n"[..])
    );
}

#[test]
fn signals_are_passed_on() {
    if !allowed() {
        return;
    }
    let user = User::new();
    for (name, code) in [("INT", 11), ("TERM", 12), ("HUP", 13)] {
        let line = format!("trap 'exit {code}' {name}; echo ready; while :; do sleep 0.05; done");
        let mut running = user.start(&line);
        running.signal(name);
        assert_eq!(running.code(), Some(code), "{name}");
    }
}

#[test]
fn program_ends_with_a_killed_wiremesh() {
    if !allowed() {
        return;
    }
    let user = User::new();
    let mut running = user.start("echo $$ > pid; echo ready; exec sleep 1000");
    let pid = fs::read_to_string(user.home.path().join("pid")).expect("written");
    let process = PathBuf::from("/proc").join(pid.trim());
    assert!(process.exists());
    running.signal("KILL");
    running.code();
    // The kernel ends it at once, but in its own time.
    while process.join("exe").read_link().is_ok() {
        std::thread::yield_now();
    }
}

#[test]
fn there_is_no_other_network_and_nobody_is_asked_for_names() {
    if !allowed() {
        return;
    }
    let (alice, bob) = User::pair();
    let host_before = fs::read_to_string("/etc/hosts").expect("there");
    let interfaces = alice.good(&["sh", "-c", "tail -n +3 /proc/net/dev | cut -d: -f1"]);
    let mut interfaces: Vec<&str> = interfaces.split_whitespace().collect();
    // Some kernels put an unused tunnel interface into every namespace.
    interfaces.retain(|name| !name.ends_with('0') || *name == "wm0");
    assert_eq!(interfaces, ["lo", "wm0"]);
    let routes = alice.good(&["ip", "-o", "route", "show", "table", "main"]);
    assert_eq!(routes, "", "no route of IPv4");
    let host = TcpListener::bind("127.0.0.1:0").expect("bound");
    let url = format!("http://{}/", host.local_addr().expect("an address"));
    assert_eq!(alice.run(&["curl", "-sS", &url]).status.code(), Some(7));
    let hosts = alice.good(&["cat", "/etc/hosts"]);
    assert!(hosts.contains(&format!("{} ", bob.address)), "{hosts}");
    assert!(hosts.contains(" bob.wiremesh.internal bob\n"), "{hosts}");
    let found = alice.good(&["getent", "ahosts", "bob"]);
    assert!(found.starts_with(&bob.address), "{found}");
    assert_eq!(
        alice.run(&["getent", "hosts", "example.com"]).status.code(),
        Some(2)
    );
    let services = alice.good(&["grep", "^hosts:", "/etc/nsswitch.conf"]);
    assert_eq!(services, "hosts: files\n");
    let servers = alice.good(&["cat", "/etc/resolv.conf"]);
    assert!(!servers.contains("nameserver"), "{servers}");
    assert_eq!(
        fs::read_to_string("/etc/hosts").expect("there"),
        host_before
    );
}

#[test]
fn stock_peers_are_reached_by_their_prefixes() {
    if !allowed() {
        return;
    }
    let (alice, bob) = (User::new(), User::new());
    let own = "addresses = [\"10.9.0.1/24\"]\n";
    let stock = "stock = true\nallowed-ips = [\"10.9.0.2/32\", \"192.168.9.0/24\"]\n";
    alice.configure(&format!("{own}{}{stock}", bob.as_peer("bob")));
    let routes = alice.good(&["ip", "-o", "route", "get", "192.168.9.7"]);
    assert!(routes.contains("dev wm0 src 10.9.0.1"), "{routes}");
    let found = alice.good(&["getent", "ahosts", "bob"]);
    assert!(found.starts_with("10.9.0.2"), "{found}");
}

#[test]
fn what_the_host_forbids_is_said_with_the_remedy() {
    if !is_root() {
        eprintln!("skipped: only root can take a TUN device away");
        return;
    }
    let mut user = User::new();
    user.before = "chmod 0600 tun; chown 0 tun; mount --bind tun /dev/net/tun".to_owned();
    let told = user.refused();
    assert!(told.contains("sudo chmod 0666 /dev/net/tun"), "{told}");
    user.before = "mkdir -p empty; mount --bind empty /dev/net".to_owned();
    let told = user.refused();
    assert!(told.contains("sudo modprobe tun"), "{told}");
    // In a user namespace of the test, so that the setting is not the host's.
    let user = User::new();
    let zero = "echo 0 > /proc/sys/user/max_user_namespaces";
    let line = format!("{zero}; exec ./wiremesh exec --config node.toml -- true");
    let mut namespace = user.command(&["unshare", "--user", "--map-root-user", "sh", "-c", &line]);
    let output = namespace.output().expect("runs");
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(
        told.contains("sudo sysctl -w user.max_user_namespaces"),
        "{told}"
    );
}
