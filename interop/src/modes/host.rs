//! Hosts on one switch: each a namespace with an address, and a node in a mode that may run there
//! as an ordinary user, with the helper as another.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv6Addr, Shutdown};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use crate::keys::{KeyPair, overlay_address};
use crate::modes::Mode;
use crate::netns::{Namespace, unique_name};
use crate::outcome::{Outcome, ensure, fail, wait_for};
use crate::place::Place;
use crate::process::{Running, find_program, run_words, text_of};
use crate::programs::{self, scratch_file};

/// Who runs the node, and who runs the helper; both are in the group.
pub const USER: &str = "65534";
const HELPER_USER: &str = "65533";
const GROUP: &str = "65534";
/// The UDP port of every node.
pub const PORT: u16 = 5000;
/// How long a program may take to start; an emulated CPU is slow.
pub const START: Duration = Duration::from_secs(40);
/// How long it may take until data flows again after something was lost.
pub const HEALS: Duration = Duration::from_secs(70);

/// Python for everybody: another one may be in a folder that only root can read.
pub fn python() -> Option<String> {
    let system = Path::new("/usr/bin/python3");
    match system.is_file() {
        true => Some(system.to_string_lossy().into_owned()),
        false => Some(find_program("python3")?.to_string_lossy().into_owned()),
    }
}

/// The program that is the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// `mode_node`: it uses the library, and has streams.
    Library,
    /// `wiremesh up`.
    Command,
}

/// What a node knows of a peer.
#[derive(Clone, Debug)]
struct Known {
    id: String,
    endpoint: String,
    is_stock: bool,
    psk: Option<String>,
}

/// One host; everything in it is gone on drop.
#[derive(Debug)]
pub struct Host {
    /// The namespace.
    pub place: Place,
    /// Who the node is.
    pub keys: KeyPair,
    /// Where the host is.
    pub address: String,
    /// The rate that its node is given at its next start.
    pub rate_bits: Option<u64>,
    folder: PathBuf,
    known: Vec<Known>,
    helper: Option<Running>,
    node: Option<Running>,
    /// The other end of its cable.
    _switch: Arc<Namespace>,
}

/// Hosts that reach each other at 192.0.2.1, .2 and so on; nobody is a peer of anybody.
pub fn hosts<const N: usize>() -> Outcome<[Host; N]> {
    let switch = Arc::new(Namespace::new()?);
    let middle = switch.name();
    run_words(&["ip", "-n", middle, "link", "add", "br0", "type", "bridge"])?;
    run_words(&["ip", "-n", middle, "link", "set", "br0", "up"])?;
    let mut made = Vec::new();
    for number in 1..=N {
        let namespace = Namespace::new()?;
        let port = format!("port{number}");
        run_words(&[
            "ip",
            "-n",
            middle,
            "link",
            "add",
            &port,
            "type",
            "veth",
            "peer",
            "name",
            "link0",
            "netns",
            namespace.name(),
        ])?;
        run_words(&[
            "ip", "-n", middle, "link", "set", &port, "master", "br0", "up",
        ])?;
        let place = Place::Namespace(Arc::new(namespace));
        let address = format!("192.0.2.{number}");
        place.run(&["ip", "link", "set", "link0", "up"])?;
        place.run(&[
            "ip",
            "addr",
            "add",
            &format!("{address}/24"),
            "dev",
            "link0",
        ])?;
        // As systemd sets it: without it only root pings by the kernel.
        let sysctl = "echo 0 2147483647 >/proc/sys/net/ipv4/ping_group_range";
        place.run(&["sh", "-c", sysctl])?;
        made.push(Host::new(place, address, Arc::clone(&switch))?);
    }
    made.try_into().or_else(|_| fail("as many as asked for"))
}

/// Two hosts of which each has the other as its peer.
pub fn pair() -> Outcome<[Host; 2]> {
    let mut pair = hosts::<2>()?;
    let [a, b] = &mut pair;
    a.knows(b);
    b.knows(a);
    Ok(pair)
}

/// The same with both nodes up: the one in a mode, the other one rootless.
pub fn pair_up(mode: Mode) -> Outcome<[Host; 2]> {
    let mut pair = pair()?;
    pair[0].start(mode)?;
    pair[1].start(Mode::Rootless)?;
    Ok(pair)
}

impl Host {
    fn new(place: Place, address: String, switch: Arc<Namespace>) -> Outcome<Self> {
        // Short, because the path of a socket is; open to the node's user.
        let folder = std::env::temp_dir().join(unique_name());
        std::fs::create_dir(&folder)?;
        let host = Self {
            place,
            keys: KeyPair::generate()?,
            address,
            rate_bits: None,
            folder,
            known: Vec::new(),
            helper: None,
            node: None,
            _switch: switch,
        };
        let folder = host.folder.to_string_lossy().into_owned();
        run_words(&["chown", &format!("{USER}:{GROUP}"), &folder])?;
        run_words(&["chmod", "711", &folder])?;
        let (run, words) = (host.file("run"), ["install", "-d", "-m", "750", "-o"]);
        run_words(&[&words[..], &[HELPER_USER, "-g", GROUP, &run]].concat())?;
        Ok(host)
    }

    /// A file in its folder.
    pub fn file(&self, name: &str) -> String {
        self.folder.join(name).to_string_lossy().into_owned()
    }

    /// The helper's socket.
    pub fn helper_socket(&self) -> String {
        self.file("run/s")
    }

    /// Its node's address inside the tunnel.
    pub fn overlay(&self) -> Outcome<Ipv6Addr> {
        overlay_address(&self.keys.public)
    }

    /// Has its node know another host's from its next start on.
    pub fn knows(&mut self, other: &Self) {
        self.knows_as(other, false, None);
    }

    /// The same of a stock peer, or with a PSK; replaces what it knew of that host.
    pub fn knows_as(&mut self, other: &Self, is_stock: bool, psk: Option<&str>) {
        self.known.retain(|known| known.id != other.keys.public);
        self.known.push(Known {
            id: other.keys.public.clone(),
            endpoint: format!("{}:{PORT}", other.address),
            is_stock,
            psk: psk.map(str::to_owned),
        });
    }

    /// A command as the node's user.
    pub fn as_user(&self, seconds: u32, words: &[&str]) -> Command {
        self.as_id(USER, seconds, words)
    }

    /// A command as some user who is not root.
    pub fn as_id(&self, user: &str, seconds: u32, words: &[&str]) -> Command {
        let id = [
            "setpriv",
            "--reuid",
            user,
            "--regid",
            user,
            "--clear-groups",
        ];
        self.place.command(seconds, &[&id[..], words].concat())
    }

    /// A program of root's that runs here until it is dropped.
    pub fn daemon(&self, program: &str, words: &[&str]) -> Outcome<Running> {
        let Some(mut command) = self.place.daemon(program, words) else {
            return fail("it is in a namespace");
        };
        Running::start(&mut command, &scratch_file("log")?)
    }

    fn service(
        &self,
        program: &Path,
        user: &str,
        privilege: &[&str],
        words: &[&str],
    ) -> Outcome<Running> {
        let program = program.to_string_lossy();
        let id = ["--reuid", user, "--regid", GROUP, "--clear-groups"];
        self.daemon(
            "setpriv",
            &[&id[..], privilege, &[&program], words].concat(),
        )
    }

    /// Starts the helper, unless it runs.
    pub fn start_helper(&mut self) -> Outcome {
        if self.helper.is_some() {
            return Ok(());
        }
        let privilege = ["--inh-caps", "+net_admin", "--ambient-caps", "+net_admin"];
        let socket = self.helper_socket();
        let program = programs::netadmin()?;
        let helper = self.service(&program, HELPER_USER, &privilege, &["--socket", &socket])?;
        wait_for("the helper", START, || {
            helper.log_text().contains("ready").then_some(())
        })
        .or_else(|_| fail(format!("no helper: {}", helper.log_text())))?;
        self.helper = Some(helper);
        Ok(())
    }

    /// `kill -9` of the helper.
    pub fn kill_helper(&mut self) {
        self.helper = None;
    }

    /// `kill -9` of the node.
    pub fn kill_node(&mut self) {
        self.node = None;
    }

    /// Starts the program that uses the library, with the helper where the mode needs it.
    pub fn start(&mut self, mode: Mode) -> Outcome {
        self.start_as(mode, Program::Library)
    }

    /// Starts the node and waits until it is up.
    pub fn start_as(&mut self, mode: Mode, program: Program) -> Outcome {
        if mode != Mode::Rootless {
            self.start_helper()?;
        }
        self.try_start(mode, program)?;
        let said = self.log();
        ensure(self.is_running(), format!("the node ended: {said}"))
    }

    /// Starts the node with what is there, and waits until it is up or has ended.
    pub fn try_start(&mut self, mode: Mode, program: Program) -> Outcome {
        self.node = None;
        self.write_settings(mode)?;
        let node = match program {
            Program::Library => {
                let path = programs::beside("mode_node")?;
                let words = [&*self.file("settings"), &self.file("questions")];
                self.service(&path, USER, &[], &words)?
            }
            Program::Command => {
                let (config, socket) = (self.file("node.toml"), self.helper_socket());
                let up = [
                    "up",
                    "--config",
                    &config,
                    "--helper",
                    &socket,
                    "--mode",
                    mode.word(),
                ];
                self.service(&programs::wiremesh()?, USER, &[], &up)?
            }
        };
        self.node = Some(node);
        wait_for("the node", START, || {
            let up = self.log().lines().any(|line| line.starts_with("up"));
            let ready = up || self.log().contains("up with");
            (ready || !self.is_running()).then_some(())
        })
        .or_else(|_| fail(format!("it says: {}", self.log())))
        .map(drop)
    }

    /// Whether the node runs.
    pub fn is_running(&mut self) -> bool {
        self.node.as_mut().is_some_and(Running::is_alive)
    }

    /// What the node printed since its last start.
    pub fn log(&self) -> String {
        self.node
            .as_ref()
            .map_or_else(String::new, Running::log_text)
    }

    fn write_settings(&self, mode: Mode) -> Outcome {
        let mut lines = format!(
            "mode={}\ninterface=wm0\nhelper={}\nsecret_key={}\nport={PORT}\nstate_dir={}\n",
            mode.word(),
            self.helper_socket(),
            self.keys.secret,
            self.file("state"),
        );
        if let Some(rate) = self.rate_bits {
            lines += &format!("egress_rate={rate}\n");
        }
        let mut config = format!(
            "[node]\nkey = \"key\"\nlisten = [\"0.0.0.0:{PORT}\"]\nstate-dir = \"state\"\n\
             control-socket = \"sock\"\nlog = \"debug\"\n"
        );
        for Known {
            id,
            endpoint,
            is_stock,
            psk,
        } in &self.known
        {
            let kind = if *is_stock { "stock" } else { "own" };
            lines += &format!(
                "peer={id} {endpoint} {kind} {}",
                psk.as_deref().unwrap_or_default()
            );
            lines = lines.trim_end().to_owned() + "\n";
            config += &format!(
                "\n[[peer]]\nid = \"{id}\"\nendpoint = \"{endpoint}\"\nstock = {is_stock}\n"
            );
        }
        for (name, text) in [
            ("settings", &lines),
            ("node.toml", &config),
            ("key", &self.keys.secret),
        ] {
            let file = self.file(name);
            std::fs::write(&file, text)?;
            run_words(&["chmod", "600", &file])?;
            run_words(&["chown", &format!("{USER}:{GROUP}"), &file])?;
        }
        Ok(())
    }

    /// Asks the program that uses the library.
    pub fn ask(&self, question: &str) -> Outcome<String> {
        let mut stream = UnixStream::connect(self.file("questions"))?;
        stream.set_read_timeout(Some(Duration::from_secs(70)))?;
        stream.write_all(question.as_bytes())?;
        stream.shutdown(Shutdown::Write)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        match answer.starts_with("error") || answer.is_empty() {
            true => fail(format!("{question}: {answer}")),
            false => Ok(answer),
        }
    }

    /// What the node says of itself, whichever program it is.
    pub fn status(&self) -> Outcome<serde_json::Value> {
        if let Ok(text) = self.ask("status") {
            return Ok(serde_json::from_str(&text)?);
        }
        let (wiremesh, socket) = (programs::wiremesh()?, self.file("sock"));
        let words = [
            &*wiremesh.to_string_lossy(),
            "status",
            "--json",
            "--socket",
            &socket,
        ];
        let output = self.as_user(30, &words).output()?;
        serde_json::from_slice(&output.stdout)
            .or_else(|_| fail(format!("status said: {}", text_of(&output))))
    }

    /// What the node says of another host's.
    pub fn status_of(&self, other: &Self) -> Outcome<serde_json::Value> {
        let status = self.status()?;
        let mut peers = status["peers"].as_array().into_iter().flatten();
        match peers.find(|peer| peer["node_id"] == other.keys.public.as_str()) {
            Some(peer) => Ok(peer.clone()),
            None => fail(format!("no such peer in {status}")),
        }
    }

    /// Sends bytes to another host's node on a stream and takes them back.
    pub fn streams(&self, other: &Self, bytes: u32, seconds: u32) -> Outcome {
        let id = &other.keys.public;
        self.ask(&format!("echo {id} {bytes} {seconds}")).map(drop)
    }

    /// The node pings another one within some seconds.
    pub fn node_pings(&self, other: &Self, seconds: u32) -> Outcome {
        self.ask(&format!("ping {} {seconds}", other.overlay()?))
            .map(drop)
    }

    /// Whether one of a few pings of the host to the other one's node is answered.
    pub fn host_pings(&self, other: &Self) -> Outcome<bool> {
        let to = IpAddr::from(other.overlay()?);
        Ok(self.place.ping(to, 3, "0.3")?.answered > 0)
    }

    /// Waits until streams and pings go between two nodes both ways, and says how long it took.
    pub fn heals_with(&self, other: &Self) -> Outcome<Duration> {
        let mut last = String::new();
        let mut tried = |outcome: Outcome| match outcome {
            Ok(()) => Some(()),
            Err(why) => {
                last = format!("{why:?}");
                None
            }
        };
        let (_, took) = wait_for("streams", HEALS, || {
            tried(self.streams(other, 1_000, 5))?;
            tried(other.streams(self, 1_000, 5))
        })
        .or_else(|_| {
            let (here, there) = (self.status(), other.status());
            let logs = (self.log(), other.log());
            fail(format!("no streams: {last}\n{here:?}\n{there:?}\n{logs:?}"))
        })?;
        self.node_pings(other, 5)?;
        other.node_pings(self, 5)?;
        Ok(took)
    }

    /// Whether there is an interface of the node.
    pub fn has_interface(&self) -> bool {
        self.place.succeeds(20, &["ip", "link", "show", "wm0"])
    }

    /// The filter tables of the host.
    pub fn tables(&self) -> Outcome<String> {
        Ok(self
            .place
            .run(&["nft", "list", "ruleset"])?
            .trim()
            .to_owned())
    }

    /// The node and the helper, for a look at what they hold.
    pub fn processes(&self) -> [Option<u32>; 2] {
        [&self.node, &self.helper].map(|one| one.as_ref().map(Running::id))
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
