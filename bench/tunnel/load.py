"""What goes through a tunnel, and what it costs: iperf3, ping, /proc.

Owns the units: Gbit/s and CPU-seconds per GB of 10^9 bytes of payload, milliseconds, packets per
second, KiB.
"""

import json
import os
import re
import subprocess
import time

from hosts import run

TICK = os.sysconf("SC_CLK_TCK")
SMALL = 64
OFFERED = 100_000
# A rate counts as free of loss up to this share: iperf3's own socket may lose some.
LOSS_FREE = 0.001
# iperf3 sends no faster.
RATE_MAX = 400_000


class Load:
    """Traffic from the first host to the second; `measure` has everything."""

    def __init__(self, hosts, target, seconds):
        self.hosts, self.target, self.seconds = hosts, target, seconds

    def measure(self):
        self.reach()
        quiet(self.hosts)
        before = foreign(self.hosts)
        started = time.monotonic()
        figures = {"ping_ms": self.ping(200, 0.01)[1]}
        figures |= self.tcp("tcp1", 1)
        figures |= self.tcp("tcp4", 4)
        figures["memory_kib"] = max((resident(pid) for pid in self.hosts.daemons), default=0)
        figures["loaded_ping_ms"] = self.loaded_ping()
        sent, arrived = self.small(OFFERED, 3)
        figures |= {"udp_offered_pps": sent, "udp_pps": arrived, "loss_free_pps": self.loss_free()}
        figures["others_cores"] = busy(before, foreign(self.hosts)) / (time.monotonic() - started)
        return figures

    def reach(self):
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            if self.ping(1, 0.2)[0]:
                return
        raise RuntimeError(f"no answer from {self.target} through the tunnel within 30 s")

    def ping(self, count, interval):
        """How many answers came, and their average in milliseconds."""
        words = ("ping", "-n", "-q", "-c", str(count), "-i", str(interval), "-W", "1", self.target)
        done = subprocess.run(self.hosts.load(0, *words), capture_output=True, text=True)
        return averages(done.stdout)

    def iperf(self, *words, seconds=None):
        server = subprocess.Popen(self.hosts.load(1, "iperf3", "-s", "-1", "-B", self.target),
                                  stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.hosts.processes.append(server)
        time.sleep(0.3)
        seconds = seconds or self.seconds
        client = self.hosts.load(0, "iperf3", "-c", self.target, "-t", str(seconds), "-J", *words)
        done = subprocess.run(client, capture_output=True, text=True, timeout=seconds + 25)
        server.kill()
        server.wait()
        result = json.loads(done.stdout)
        if "error" in result:
            raise RuntimeError(f"iperf3: {result['error']}")
        return result["end"]

    def tcp(self, name, streams):
        daemons, machine = processes_cpu(self.hosts.daemons), machine_cpu()
        received = self.iperf("-P", str(streams))["sum_received"]
        gigabytes = received["bytes"] / 1e9
        return {
            f"{name}_gbit_s": received["bits_per_second"] / 1e9,
            f"{name}_cpu_s_per_gb": (processes_cpu(self.hosts.daemons) - daemons) / gigabytes,
            f"{name}_machine_cpu_s_per_gb": (machine_cpu() - machine) / gigabytes,
        }

    def loaded_ping(self):
        words = ("ping", "-n", "-q", "-c", "90", "-i", "0.05", "-W", "1", self.target)
        ping = subprocess.Popen(self.hosts.load(0, *words), stdout=subprocess.PIPE, text=True)
        self.hosts.processes.append(ping)
        self.iperf(seconds=5)
        return averages(ping.communicate(timeout=20)[0])[1]

    def small(self, rate, seconds):
        """Packets of 64 bytes a second: those that iperf3 sent, and those that arrived."""
        bits = str(rate * SMALL * 8)
        # Its own socket, as it is by default, loses bursts that the tunnel did carry.
        end = self.iperf("-u", "-b", bits, "-l", str(SMALL), "-w", "2M", seconds=seconds)
        received = end.get("sum_received", end["sum"])
        sent = end.get("sum_sent", end["sum"])["packets"]
        arrived = received["packets"] - received["lost_packets"]
        return sent / end["sum"]["seconds"], arrived / end["sum"]["seconds"]

    def loss_free(self):
        """The highest rate that arrives whole, within an eighth; what iperf3 can send is a limit."""
        best, rate, step = 0, 16_000, 2.0
        while step > 1.1 and rate <= RATE_MAX:
            sent, arrived = self.small(round(rate), 2)
            if arrived >= sent * (1 - LOSS_FREE):
                best = max(best, arrived)
                if sent < rate * 0.9:
                    break
            else:
                rate /= step
                step **= 0.5
            rate *= step
        return best


def averages(text):
    received = re.search(r"(\d+) received", text)
    times = re.search(r"= [\d.]+/([\d.]+)/", text)
    return (int(received[1]) if received else 0), (float(times[1]) if times else None)


def stat(pid):
    """Command, flags and CPU seconds of a process; none if it ended."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            head, rest = file.read().rsplit(")", 1)
    except OSError:
        return None
    fields = rest.split()
    return head.split("(", 1)[1], int(fields[6]), (int(fields[11]) + int(fields[12])) / TICK


def processes_cpu(pids):
    return sum(found[2] for found in map(stat, pids) if found)


def machine_cpu():
    """All that the processors worked, the programs that make the load too."""
    with open("/proc/stat") as file:
        user, nice, system, _, _, irq, softirq = (int(word) for word in file.readline().split()[1:8])
    return (user + nice + system + irq + softirq) / TICK


def resident(pid):
    with open(f"/proc/{pid}/status") as file:
        found = re.search(r"VmRSS:\s+(\d+)", file.read())
    return int(found[1]) if found else 0


def foreign(hosts):
    """CPU seconds of processes that have nothing to do with this."""
    ours = {os.getpid(), *hosts.daemons}
    kernel_thread = 0x200000
    times = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        found = stat(pid)
        if int(pid) in ours or not found or found[1] & kernel_thread or found[0] in ("iperf3", "ping"):
            continue
        times[pid] = found[2]
    return times


def busy(before, after):
    return sum(seconds - before.get(pid, 0) for pid, seconds in after.items())


def quiet(hosts, patience=20):
    """Waits until others need less than a tenth of a core, but not for ever."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        before = foreign(hosts)
        time.sleep(1)
        if busy(before, foreign(hosts)) < 0.1:
            return


def versions():
    return {"kernel": os.uname().release, "iperf3": run("iperf3", "--version").split("\n")[0]}
