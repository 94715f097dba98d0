#!/usr/bin/env python3
"""Where the time of a tunnel's two ends goes, under one TCP stream and under small packets.

    sudo python3 bench/tunnel/profile.py [wg|tun|rootless|null|...]

Needs what `bench/tunnel` needs, and perf (Debian: linux-perf). Shares are of the process's own CPU
time, in microseconds per packet that passed.
"""

import os
import re
import subprocess
import sys
import threading
import time

from hosts import CANDIDATES, Hosts
from load import Load, processes_cpu

SECONDS = 4
RATE = 80_000
# TCP payload of a packet of 1,420 bytes: IPv4 and timestamps.
PAYLOAD = 1368
# The first that matches has the symbol; [k] is the kernel's.
GROUPS = [
    ("ChaCha20-Poly1305", r"chacha|poly1305|CRYPTO_|aead_|EVP_"),
    ("copies between kernel and process", r"\[k\].*(_copy_(to|from)_iter|copy_user|check_object_size|virt_addr)"),
    ("kernel: scheduling and waking", r"\[k\].*(finish_task|sched|wake|futex|epoll|ep_|eventfd|entry|syscall)"),
    ("kernel: TUN", r"\[k\].*(tun_|skb_copy_datagram|build_skb|virtio_net)"),
    ("kernel: UDP, IP, the far interface", r"\[k\]"),
    ("copies in the process", r"libc|mem(move|cpy|set)"),
    ("joining, cutting, checksums", r"wiremesh_device|checksum"),
    ("WireGuard but the cipher", r"wiremesh_core|wiremesh_noise|wiremesh_wire"),
    ("sockets, batches, the rest of ours", r"wiremesh|tokio"),
    ("other", r""),
]


def main():
    name = sys.argv[1] if len(sys.argv) > 1 else "wg"
    if name not in CANDIDATES:
        sys.exit(f"no tunnel is called {name}; there are {', '.join(CANDIDATES)}")
    with Hosts() as hosts:
        load = Load(hosts, CANDIDATES[name][0](hosts), SECONDS + 2)
        load.reach()
        measures = {
            "one TCP stream": lambda: load.iperf()["sum_received"]["bits_per_second"] / 8 / PAYLOAD,
            f"{RATE:,} packets of 64 bytes a second": lambda: load.small(RATE, SECONDS + 2)[1],
        }
        for what, run in measures.items():
            show(name, what, *profiled(hosts, run))


def profiled(hosts, run):
    """Packets a second, and of each end its cores and its share by group."""
    rate = []
    thread = threading.Thread(target=lambda: rate.append(run()))
    thread.start()
    time.sleep(1)
    before = [processes_cpu([pid]) for pid in hosts.daemons]
    recorders = [recorder(hosts, end, pid) for end, pid in enumerate(hosts.daemons)]
    for process in recorders:
        process.wait()
    cores = [(processes_cpu([pid]) - used) / SECONDS for pid, used in zip(hosts.daemons, before)]
    thread.join()
    return rate[0], cores, [shares(hosts.file(end, "perf")) for end in range(len(hosts.daemons))]


def recorder(hosts, end, pid):
    command = ["perf", "record", "-q", "-e", "cpu-clock", "-F", "1999", "-p", str(pid), "-o", hosts.file(end, "perf")]
    process = subprocess.Popen([*command, "--", "sleep", str(SECONDS)], stderr=subprocess.DEVNULL)
    hosts.processes.append(process)
    return process


def shares(path):
    command = ["perf", "report", "-i", path, "--no-children", "--sort", "dso,symbol", "--stdio", "-q"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = dict.fromkeys((name for name, _ in GROUPS), 0.0)
    for line in text.splitlines():
        match = re.match(r"\s*([\d.]+)%\s+(.*)", line)
        if match:
            group = next(name for name, pattern in GROUPS if re.search(pattern, match[2]))
            found[group] += float(match[1]) / 100
    return found


def show(name, what, rate, cores, ends):
    print(f"{name}, {what}: {rate:,.0f} packets a second; us of CPU per packet")
    rows = [(group, [share[group] * used / rate * 1e6 for share, used in zip(ends, cores)]) for group, _ in GROUPS]
    rows.append(("all", [used / rate * 1e6 for used in cores]))
    print(f"  {'':38} {'sender':>8} {'receiver':>8}")
    for group, values in rows:
        print(f"  {group:38} " + " ".join(f"{value:8.3f}" for value in values))


if __name__ == "__main__":
    if os.getuid():
        sys.exit("only root makes network namespaces; fix: sudo")
    main()
