//! A network namespace with a helper in it, and clients as other users.

use rustix::io::{Errno, retry_on_intr};
use rustix::net::{
    self, AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};
use std::any::Any;
use std::io::{BufRead, BufReader};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use wiremesh_netadmin::client::{self, Error};
use wiremesh_netadmin::verbs::{
    Interface, Name, Prefix, REPLY_BYTES_MAX, Reason, Refusal, Reply, Request, WireguardSettings,
};
use zeroize::Zeroizing;

/// The node's user.
pub const NODE_UID: u32 = 65_534;
/// Another user of the host.
pub const OTHER_UID: u32 = 65_531;
const HELPER_UID: u32 = 65_533;
const HELPER_GID: u32 = 65_532;
const PATIENCE: Duration = Duration::from_secs(10);
const HELPER: &str = env!("CARGO_BIN_EXE_wiremesh-netadmin");
const CLIENT: &str = "WIREMESH_TEST_CLIENT";

/// An address or network from text.
pub fn prefix(text: &str) -> Prefix {
    text.parse().expect("address/bits")
}

/// What a node asks for, with an IPv4 prefix besides.
pub fn wanted(name: &str) -> Interface {
    let all = |texts: &[&str]| texts.iter().map(|text| prefix(text)).collect();
    Interface {
        name: Name::parse(name).expect("a good name"),
        mtu_bytes: 1420,
        addresses: all(&["fd77:6d00::1/128", "fd77:6d80::1/128", "10.77.0.1/32"]),
        routes: all(&["fd77:6d00::/25", "fd77:6d80::/25", "10.77.0.0/24"]),
    }
}

/// A namespace of its own, as a host.
pub struct Host {
    namespace: String,
    folder: tempfile::TempDir,
    helper: Option<Child>,
    /// The helper's socket.
    pub socket: PathBuf,
}

impl Host {
    /// A host with its helper; none, and why, when the test does not run as root.
    pub fn new() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: only root makes network namespaces and becomes other users");
            return None;
        }
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let namespace = format!("wmna{}x{number}", std::process::id());
        run(&["ip", "netns", "add", &namespace]);
        // As udev does on ordinary systems.
        let everyone = std::fs::Permissions::from_mode(0o666);
        // Who needs the driver sees that it is missing.
        let _ = std::fs::set_permissions("/dev/net/tun", everyone);
        let folder = tempfile::tempdir().expect("a folder");
        let open = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(folder.path(), open).expect("ours");
        chown(folder.path(), Some(HELPER_UID), Some(HELPER_GID)).expect("we are root");
        let socket = folder.path().join("netadmin.sock");
        let mut host = Self {
            namespace,
            folder,
            helper: None,
            socket,
        };
        host.start_helper();
        Some(host)
    }

    fn inside(&self, user: &[&str]) -> Command {
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &self.namespace, "setpriv"])
            .args(user);
        command
    }

    fn helper_command(&self, program: &Path, capabilities: &[&str]) -> Command {
        let (uid, gid) = (HELPER_UID.to_string(), HELPER_GID.to_string());
        let mut command = self.inside(&["--reuid", &uid, "--regid", &gid, "--clear-groups"]);
        command.args(capabilities);
        command.arg(program).arg("--socket").arg(&self.socket);
        command.stderr(Stdio::piped());
        command
    }

    /// Starts it as an ordinary user with the ambient capability, as systemd does.
    pub fn start_helper(&mut self) {
        let capability = ["--inh-caps", "+net_admin", "--ambient-caps", "+net_admin"];
        self.spawn(self.helper_command(HELPER.as_ref(), &capability));
    }

    fn spawn(&mut self, mut command: Command) {
        let mut helper = command.spawn().expect("ip and setpriv");
        let mut log = BufReader::new(helper.stderr.take().expect("piped"));
        let mut line = String::new();
        log.read_line(&mut line).expect("text");
        assert!(line.starts_with("ready at "), "{line}");
        std::thread::spawn(move || {
            log.lines()
                .map_while(Result::ok)
                .for_each(|line| eprintln!("{line}"))
        });
        self.helper = Some(helper);
    }

    /// Starts a copy with the file capability, as an ordinary user, in place of the other.
    pub fn start_helper_with_file_capability(&mut self) {
        let program = self.folder.path().join("wiremesh-netadmin");
        std::fs::copy(HELPER, &program).expect("ours");
        run(&[
            "setcap",
            "cap_net_admin=ep",
            program.to_str().expect("text"),
        ]);
        self.spawn(self.helper_command(&program, &[]));
    }

    /// What a helper says that does not start.
    pub fn helper_that_fails(&self, capabilities: &[&str]) -> String {
        let output = self
            .helper_command(HELPER.as_ref(), capabilities)
            .output()
            .expect("ip and setpriv");
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr).expect("text")
    }

    /// Kills it, with no chance to tidy up.
    pub fn kill_helper(&mut self) {
        let mut helper = self.helper.take().expect("running");
        helper.kill().expect("ours");
        helper.wait().expect("ours");
    }

    /// What the kernel says of the helper.
    pub fn helper_status(&self) -> Status {
        Status::of(self.helper.as_ref().expect("running").id())
    }

    /// `ip` in the namespace.
    pub fn ip(&self, arguments: &[&str]) -> String {
        run(&[&["ip", "-n", &self.namespace], arguments].concat())
    }

    /// The rules in the namespace.
    pub fn nft(&self) -> String {
        run(&[
            "ip",
            "netns",
            "exec",
            &self.namespace,
            "nft",
            "list",
            "ruleset",
        ])
    }

    /// Interfaces, addresses, routes and rules.
    pub fn state(&self) -> String {
        let parts = [
            self.ip(&["-o", "address"]),
            self.ip(&["-o", "link"]),
            self.ip(&["route"]),
            self.ip(&["-6", "route"]),
        ];
        // The kernel's own link-local address is that for a moment.
        parts.concat().replace(" tentative", "") + &self.nft()
    }

    /// Waits until the state is this one.
    pub fn wait_for(&self, state: &str) {
        let start = Instant::now();
        while self.state() != state {
            assert!(
                start.elapsed() < PATIENCE,
                "{}\n--- wanted:\n{state}",
                self.state()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until there is no interface of this name, and no table for it.
    pub fn wait_for_no(&self, name: &str) {
        let start = Instant::now();
        while self.state().contains(name) {
            assert!(start.elapsed() < PATIENCE, "{}", self.state());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The helper's group.
    pub fn group(&self) -> String {
        HELPER_GID.to_string()
    }

    /// A process of the node's user that asks for an interface, like `tun wm0`, and keeps it.
    pub fn client(&self, groups: &[&str], what: &str) -> Client {
        let uid = NODE_UID.to_string();
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid", &uid, "--regid", &uid])
            .args(groups);
        command.arg(std::env::current_exe().expect("this test"));
        command.args(["--exact", "host::client_process", "--nocapture"]);
        command.env(CLIENT, format!("{} {what}", self.socket.display()));
        let mut child = command
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("setpriv");
        let log = BufReader::new(child.stderr.take().expect("piped"));
        Client { child, log }
    }

    /// Lets every user reach the socket.
    pub fn open_the_socket_file(&self) {
        let everyone = std::fs::Permissions::from_mode(0o666);
        std::fs::set_permissions(&self.socket, everyone).expect("ours");
    }

    /// A connection that has said nothing.
    pub fn connect(&self) -> OwnedFd {
        let socket = net::socket_with(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .expect("a socket");
        net::connect(&socket, &SocketAddrUnix::new(&self.socket).expect("short")).expect("listens");
        socket
    }

    /// Sends any bytes; why they are refused, after which the helper has closed.
    pub fn refusal_of(&self, bytes: &[u8]) -> Refusal {
        let socket = self.connect();
        send(&socket, bytes).expect("sent");
        let reply = receive(&socket);
        wait_for_end(&socket, PATIENCE);
        match Reply::parse(&reply).expect("a reply") {
            Reply::Refused(refusal) => refusal,
            reply => panic!("{reply:?}"),
        }
    }

    /// `wg show` in the namespace; none for an interface that is not there.
    pub fn wg(&self, name: &str, what: &str) -> Option<String> {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace, "wg", "show", name, what]);
        let output = command.output().expect("ip and wg");
        let text = String::from_utf8(output.stdout).expect("text");
        output.status.success().then_some(text)
    }

    /// Runs Python as a user, with a UDP socket `s`: `sent`, or the error.
    pub fn python(&self, uid: u32, code: &str) -> String {
        let uid = uid.to_string();
        let program = format!(
            "import socket, errno\ns = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)\n\
             try:\n    {code}\n    print('sent')\n\
             except TimeoutError: print('timed out')\n\
             except OSError as e: print(errno.errorcode[e.errno])"
        );
        let mut command = self.inside(&["--reuid", &uid, "--regid", &uid, "--clear-groups"]);
        let output = command
            .args(["/usr/bin/python3", "-c", &program])
            .output()
            .expect("python3");
        assert!(
            output.stderr.is_empty(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout)
            .expect("text")
            .trim()
            .to_owned()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if self.helper.is_some() {
            self.kill_helper();
        }
        run(&["ip", "netns", "delete", &self.namespace]);
        let _ = &self.folder;
    }
}

/// Waits until the other side has closed.
pub fn wait_for_end(socket: &OwnedFd, patience: Duration) {
    let timeout = net::sockopt::Timeout::Recv;
    net::sockopt::set_socket_timeout(socket, timeout, Some(patience)).expect("a socket");
    assert!(receive(socket).is_empty());
}

/// Sends one packet.
pub fn send(socket: impl AsFd, bytes: &[u8]) -> Result<usize, Errno> {
    net::send(socket, bytes, SendFlags::NOSIGNAL)
}

/// One packet; nothing when the other side has closed.
pub fn receive(socket: impl AsFd) -> Vec<u8> {
    let mut bytes = vec![0; REPLY_BYTES_MAX + 1];
    let received = retry_on_intr(|| net::recv(&socket, &mut bytes[..], RecvFlags::empty()));
    let (length, _) = received.expect("it comes in time");
    bytes.truncate(length);
    bytes
}

/// The bytes of a request.
pub fn bytes_of(request: &Request) -> Vec<u8> {
    request.emit().expect("within bounds").to_vec()
}

/// Why the helper refused, if it did.
pub fn reason(error: &Error) -> Option<Reason> {
    match error {
        Error::Refused(refusal) => Some(refusal.reason),
        _ => None,
    }
}

/// A process that has asked for an interface.
pub struct Client {
    child: Child,
    log: BufReader<std::process::ChildStderr>,
}

impl Client {
    /// What it says: `made`, or the error.
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.log.read_line(&mut line).expect("text");
        line.trim().to_owned()
    }

    /// What the kernel says of it.
    pub fn status(&self) -> Status {
        Status::of(self.child.id())
    }

    /// Kills it, with no chance to tidy up.
    pub fn kill(&mut self) {
        self.child.kill().expect("ours");
        self.child.wait().expect("ours");
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.kill();
    }
}

/// `/proc/PID/status`.
pub struct Status(String);

impl Status {
    fn of(pid: u32) -> Self {
        Self(std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs"))
    }

    /// One field.
    pub fn field(&self, name: &str) -> &str {
        let mut lines = self.0.lines().filter_map(|line| line.split_once(":\t"));
        lines
            .find(|(field, _)| *field == name)
            .expect("a field of the kernel")
            .1
    }
}

/// Not a test by itself: what the process of [`Host::client`] does.
#[test]
fn client_process() {
    let Ok(task) = std::env::var(CLIENT) else {
        return;
    };
    let words: Vec<&str> = task.split(' ').collect();
    let [socket, kind, name] = words[..] else {
        panic!("{task}");
    };
    let (socket, wanted) = (Path::new(socket), wanted(name));
    let made: Result<Box<dyn Any>, Error> = match kind {
        "tun" => client::make_tun(socket, &wanted).map(|tun| Box::new(tun) as _),
        _ => {
            let settings = WireguardSettings {
                private_key: Zeroizing::new([7; 32]),
                listen_port: 0,
                rate_bits: None,
            };
            client::make_wireguard(socket, &wanted, settings).map(|made| Box::new(made) as _)
        }
    };
    match &made {
        Ok(_) => eprintln!("made"),
        Err(error) => eprintln!("{error:?}"),
    }
    while made.is_ok() {
        std::thread::park();
    }
}

fn run(command: &[&str]) -> String {
    let output = Command::new(command[0])
        .args(&command[1..])
        .output()
        .expect(command[0]);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {error}");
    String::from_utf8(output.stdout).expect("text")
}
