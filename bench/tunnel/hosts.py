"""Two hosts in network namespaces of their own, and the tunnels between them.

Owns namespaces, processes and key files, and removes all that it made. Never touches the network
of the machine.
"""

import os
import re
import shutil
import signal
import subprocess
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
RELEASE = os.path.join(os.environ.get("CARGO_TARGET_DIR", os.path.join(ROOT, "target")), "release")
PORT = 51820
USER = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]


class Skip(Exception):
    """A candidate cannot run here, and why."""


def run(*command, **options):
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, **options)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


def program(name, fix):
    """Path of a program of ours, or of one in PATH."""
    for path in (os.path.join(RELEASE, name), os.path.join(RELEASE, "examples", name)):
        if os.access(path, os.X_OK):
            return path
    found = shutil.which(name) or shutil.which(os.path.expanduser(f"~/.cargo/bin/{name}"))
    if not found:
        raise Skip(f"{name} is not there; fix: {fix}")
    return found


class Hosts:
    """Two namespaces joined by a veth pair with an MTU of 1,500; a context manager."""

    def __init__(self):
        tag = f"wmb{os.getpid() % 100000}"
        self.names = [f"{tag}a", f"{tag}b"]
        self.interfaces = [f"wmt{os.getpid() % 100000}{end}" for end in "ab"]
        self.folder = tempfile.mkdtemp(prefix="wmbench")
        self.processes = []
        self.daemons = []
        self.keys = []
        # Further words for `wiremesh up`.
        self.up_words = []
        # Processes whose network is the tunnel's, where that is not the host's.
        self.users = {}

    def __enter__(self):
        try:
            self.build()
        except BaseException:
            self.__exit__()
            raise
        return self

    def build(self):
        for name in self.names:
            run("ip", "netns", "add", name)
        run("ip", "link", "add", "wmv0", "netns", self.names[0], "type", "veth", "peer", "name", "wmv1",
            "netns", self.names[1])
        for end in (0, 1):
            self.ip(end, "link", "set", "lo", "up")
            self.ip(end, "addr", "add", f"10.99.0.{end + 1}/24", "dev", f"wmv{end}")
            self.ip(end, "link", "set", f"wmv{end}", "up")
            secret = run("wg", "genkey")
            with open(self.file(end, "key"), "w", opener=private) as file:
                file.write(secret)
            self.keys.append(run("wg", "pubkey", input=secret).strip())

    def __exit__(self, *_):
        for process in reversed(self.processes):
            stop(process)
        for name in self.names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)
        for interface in self.interfaces:
            for path in (f"/var/run/wireguard/{interface}.sock",):
                if os.path.exists(path):
                    os.unlink(path)
        shutil.rmtree(self.folder, ignore_errors=True)

    def file(self, end, name):
        return os.path.join(self.folder, f"{name}{end}")

    def ip(self, end, *words):
        return run("ip", "-n", self.names[end], *words)

    def inside(self, end, *command):
        """The command as this host runs it."""
        return ["ip", "netns", "exec", self.names[end], *command]

    def load(self, end, *command):
        """The command as it runs where the tunnel's network is."""
        target = self.users.get(end)
        return ["nsenter", "--target", str(target), "--net", *command] if target else self.inside(end, *command)

    def start(self, end, *command, daemon=True):
        """A process of this host, whose CPU and memory count unless told otherwise."""
        with open(self.file(end, "log"), "a") as log:
            process = subprocess.Popen(self.inside(end, *command), stdin=subprocess.DEVNULL, stdout=log,
                                       stderr=log, start_new_session=True)
        self.processes.append(process)
        if daemon:
            self.daemons.append(process.pid)
        return process

    def wait(self, end, process, what):
        """Until `what()`; fails with what the process said."""
        deadline = time.monotonic() + 10
        while not what():
            if process.poll() is not None or time.monotonic() > deadline:
                with open(self.file(end, "log")) as log:
                    raise RuntimeError(f"it did not start: {log.read()[-400:].strip()}")
            time.sleep(0.05)

    def there(self, end, interface):
        return not subprocess.run(["ip", "-n", self.names[end], "link", "show", interface],
                                  capture_output=True).returncode

    def configure(self, end, interface, wireguard=True):
        """Address, MTU and, for a WireGuard, key and peer."""
        if wireguard:
            run(*self.inside(end, "wg", "set", interface, "private-key", self.file(end, "key"), "listen-port",
                             str(PORT), "peer", self.keys[1 - end], "allowed-ips", f"10.88.0.{2 - end}/32",
                             "endpoint", f"10.99.0.{2 - end}:{PORT}"))
        self.ip(end, "addr", "add", f"10.88.0.{end + 1}/24", "dev", interface)
        self.ip(end, "link", "set", interface, "mtu", "1420", "up")


def private(path, flags):
    return os.open(path, flags, 0o600)


def stop(process):
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(3)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def null(cipher):
    def up(hosts):
        path = program("null_tunnel", "cargo build --release -p wiremesh-device --example null_tunnel")
        for end, interface in enumerate(hosts.interfaces):
            ours, theirs = (f"10.99.0.{n}:{PORT}" for n in (end + 1, 2 - end))
            process = hosts.start(end, path, interface, ours, theirs, cipher)
            hosts.wait(end, process, lambda: hosts.there(end, interface))
            hosts.configure(end, interface, wireguard=False)
            # As WireGuard's own super-packets: with what is added it stays below 64 KiB.
            hosts.ip(end, "link", "set", interface, "gso_max_size", "61000")
        return "10.88.0.2"
    return up


def uapi(name, *words, fix):
    """A user-space WireGuard in the foreground, which `wg` configures."""
    def up(hosts):
        path = program(name, fix)
        for end, interface in enumerate(hosts.interfaces):
            process = hosts.start(end, path, *words, interface)
            socket = f"/var/run/wireguard/{interface}.sock"
            hosts.wait(end, process, lambda: os.path.exists(socket))
            hosts.configure(end, interface)
        return "10.88.0.2"
    return up


def kernel(hosts):
    for end in (0, 1):
        make_wireguard(hosts, end)
        hosts.configure(end, hosts.interfaces[end])
    return "10.88.0.2"


def make_wireguard(hosts, end):
    try:
        hosts.ip(end, "link", "add", hosts.interfaces[end], "type", "wireguard")
    except RuntimeError:
        raise Skip("this kernel has no WireGuard; fix: modprobe wireguard, or a kernel with "
                   "CONFIG_WIREGUARD (Linux 5.6 or later)") from None


NODE = """[node]
key = "{key}"
listen = ["0.0.0.0:{port}"]
state-dir = "{state}"
control-socket = "{control}"
[[peer]]
name = "other"
id = "{peer}"
endpoint = "10.99.0.{other}:{port}"
"""


def node(mode):
    """`wiremesh up --mode MODE` with its helper, at L2 as by default."""
    def up(hosts):
        helper = program("wiremesh-netadmin", BUILD)
        for end in (0, 1):
            if mode == "kernel":
                make_wireguard(hosts, end)
                hosts.ip(end, "link", "del", hosts.interfaces[end])
            words = settings(hosts, end)
            # Short: the path of a Unix socket has 107 bytes.
            socket = f"{hosts.file(end, 'node')}/helper"
            capability = ["--inh-caps", "+net_admin", "--ambient-caps", "+net_admin"]
            process = hosts.start(end, *USER, *capability, helper, "--socket", socket, daemon=False)
            hosts.wait(end, process, lambda: os.path.exists(socket))
            process = hosts.start(end, *USER, program("wiremesh", BUILD), "up", "--mode", mode, *words, "--helper",
                                  socket, "--interface", "wmt0", *hosts.up_words)
            hosts.wait(end, process, lambda: hosts.there(end, "wmt0"))
        return overlay_address(hosts)
    return up


def rootless(hosts):
    """`wiremesh exec`: the node has no privilege, nor has its program."""
    for end in (0, 1):
        words = settings(hosts, end)
        process = hosts.start(end, *USER, program("wiremesh", BUILD), "exec", *words, "--", "sleep", "infinity")
        hosts.wait(end, process, lambda: sleeper(process.pid))
        hosts.users[end] = sleeper(process.pid)
    return overlay_address(hosts)


def settings(hosts, end):
    """Writes the configuration of a node, and gives the words that name it."""
    os.chmod(hosts.folder, 0o755)
    folder, key = hosts.file(end, "node"), hosts.file(end, "key")
    os.mkdir(folder, 0o700)
    os.chown(folder, 65534, 65534)
    os.chown(key, 65534, 65534)
    config = f"{folder}/node.toml"
    with open(config, "w") as file:
        file.write(NODE.format(key=key, other=2 - end, port=PORT, state=f"{folder}/state",
                               control=f"{folder}/control", peer=hosts.keys[1 - end]))
    return ["--config", config]


def overlay_address(hosts):
    shown = run(program("wiremesh", BUILD), "key", "show", "--key", hosts.file(1, "key"))
    return re.search(r"fd77:[0-9a-f:]+", shown)[0]


def sleeper(pid):
    """The process below this one that sleeps, once there is one."""
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        children = file.read().split()
    for child in children:
        with open(f"/proc/{child}/comm") as file:
            if file.read().strip() == "sleep":
                return int(child)
        found = sleeper(child)
        if found:
            return found
    return None


BUILD = "cargo build --release -p wiremesh-cli -p wiremesh-netadmin"
CANDIDATES = {
    "null": (null("chacha"), "no tunnel's work but ChaCha20-Poly1305: the bound"),
    "null-plain": (null("none"), "not even that"),
    "wg": (uapi("wiremesh", "wg", fix=BUILD), "wiremesh wg, in the place of wireguard-go"),
    "rootless": (rootless, "wiremesh exec: programs in a network of their own"),
    "tun": (node("tun"), "wiremesh up --mode tun"),
    "kernel": (node("kernel"), "wiremesh up --mode kernel"),
    "kernel-wg": (kernel, "the kernel's WireGuard, set up with ip and wg"),
    "wireguard-go": (uapi("wireguard-go", "-f", fix="apt-get install wireguard-go"), ""),
    "gotatun": (uapi("gotatun", "-f", "--disable-drop-privileges",
                     fix="cargo install gotatun-cli --locked"), ""),
    "boringtun": (uapi("boringtun-cli", "-f", "--disable-drop-privileges",
                       fix="cargo install boringtun-cli --locked"), ""),
}
