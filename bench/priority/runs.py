"""One measurement: the two ends of a carrier, and what they say.

Owns the words that each program is given. What is told by the programs is in nanoseconds; what is
given on is in milliseconds and Mbit/s.
"""

import json
import os
import subprocess
import sys
import time

from link import HERE

from hosts import BUILD, USER, node, program, run

LOADS = ("idle", "bulk")
# "configured" is this share of the rate of the link: the queue is to be ours.
PACES = ("none", "configured")
CONFIGURED = 0.95
BUILD_PROBE = "cargo build --release -p wiremesh-interop --bin priority_probe"
PATIENCE = 30


class Run:
    """Of one carrier, with or without bulk beside, at a pace."""

    def __init__(self, carrier, load, pace, messages):
        self.carrier, self.load, self.pace, self.messages = carrier, load, pace, messages

    def on(self, hosts):
        received, egress = CARRIERS[self.carrier].ends(self, hosts)
        sent = self.messages
        objects, datagrams = ([ns / 1e6 for ns in received[kind]] for kind in ("objects_ns", "datagrams_ns"))
        kinds = 2 if datagrams else 1
        return {
            "carrier": self.carrier, "load": self.load, "pace": self.pace,
            "objects_ms": objects, "datagrams_ms": datagrams,
            "lost": sent * kinds - len(objects) - len(datagrams),
            "bulk_mbit_s": received["bulk_bytes"] * 8e3 / received["span_ns"],
            "queue_ms": {each["class"]: each["p99_ms"] for each in egress["classes"]},
            "egress": egress,
        }

    def bits(self, hosts):
        return round(hosts.mbit * 1e6 * CONFIGURED)

    def talk(self, hosts, receiver, sender):
        """Runs both until they have ended by themselves; what each says."""
        ends = []
        for end, command in ((1, receiver), (0, sender)):
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            hosts.processes.append(process)
            hosts.daemons.append(process.pid)
            ends.append(process)
            time.sleep(0.5)
        patience = PATIENCE + self.messages * 0.1
        receiver, sender = ends
        sent, errors = sender.communicate(timeout=patience)
        if sender.returncode and receiver.poll() is None:
            raise RuntimeError(errors.strip()[-400:])
        received, errors = receiver.communicate(timeout=patience)
        if receiver.returncode:
            raise RuntimeError(errors.strip()[-400:])
        return received, sent


class Rootless:
    """Two programs that have the library in them."""

    def __init__(self, carrier, what):
        self.carrier, self.what = carrier, what

    def ends(self, run, hosts):
        probe = [*USER, program("priority_probe", BUILD_PROBE)]
        here, there = "10.99.0.1:51820", "10.99.0.2:51820"
        pace = str(run.bits(hosts)) if run.pace == "configured" else run.pace
        sender = hosts.inside(0, *probe, "send", here, there, self.carrier, pace, run.load, str(run.messages))
        receiver = hosts.inside(1, *probe, "receive", there, here, self.carrier)
        received, egress = run.talk(hosts, receiver, sender)
        return json.loads(received), json.loads(egress)


class Tun:
    """Ordinary programs over `wiremesh up --mode tun` at both ends."""

    what = "wiremesh up --mode tun, ordinary programs that mark their packets by DSCP"

    def ends(self, run, hosts):
        hosts.up_words = words_of(run, hosts)
        address = node("tun")(hosts)
        wait_for(hosts, address)
        ordinary = [sys.executable, os.path.join(HERE, "programs.py")]
        receiver = hosts.inside(1, *ordinary, "receive", address)
        sender = hosts.inside(0, *ordinary, "send", address, run.load, str(run.messages))
        received, _ = run.talk(hosts, receiver, sender)
        return json.loads(received), status(hosts)


def words_of(run, hosts):
    if run.pace == "configured":
        return ["--egress-rate", f"{run.bits(hosts)}bit"]
    return []


def wait_for(hosts, address):
    ping = hosts.inside(0, "ping", "-n", "-q", "-c", "1", "-W", "1", address)
    deadline = time.monotonic() + PATIENCE
    while subprocess.run(ping, capture_output=True).returncode:
        if time.monotonic() > deadline:
            raise RuntimeError(f"no answer from {address} through the tunnel")


def status(hosts):
    words = ["status", "--json", "--socket", f"{hosts.file(0, 'node')}/control"]
    return json.loads(run(program("wiremesh", BUILD), *words))["egress"]


CARRIERS = {
    "streams": Rootless("stream", "rootless: QUIC streams and datagrams of one connection"),
    "topic": Rootless("topic", "rootless: objects of a topic with two nodes"),
    "sctp": Rootless("sctp", "rootless: messages of one association, ordered and unordered"),
    "tun": Tun(),
}
