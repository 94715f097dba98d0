"""Two hosts with a slow link between them: netdelay in a namespace of its own.

Owns the link, its figures, and the processes' order before other programs. The hosts themselves are
those of bench/tunnel.
"""

import os
import signal
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.append(os.path.join(os.path.dirname(HERE), "tunnel"))

from hosts import Hosts, run  # noqa: E402

OFFLOADS = ("tx", "sg", "tso", "gso", "gro", "tx-udp-segmentation")


class LinkedHosts(Hosts):
    """As Hosts, with `delay_ms` and `mbit` between them; a context manager."""

    def __init__(self, delay_ms, mbit, realtime):
        super().__init__()
        self.delay_ms, self.mbit, self.realtime = delay_ms, mbit, realtime
        self.names.append(self.names[0][:-1] + "l")
        self.link = None

    def build(self):
        super().build()
        # The cable of the two hosts goes: each gets one to the link.
        self.ip(0, "link", "del", "wmv0")
        for end in (0, 1):
            run("ip", "link", "add", f"wmv{end}", "netns", self.names[end], "type", "veth", "peer",
                "name", f"wml{end}", "netns", self.names[2])
            self.ip(end, "addr", "add", f"10.99.0.{end + 1}/24", "dev", f"wmv{end}")
            for host, interface in ((end, f"wmv{end}"), (2, f"wml{end}")):
                # netdelay takes packets as they are on a wire.
                words = [word for name in OFFLOADS for word in (name, "off")]
                run(*Hosts.inside(self, host, "ethtool", "-K", interface, *words))
                run(*Hosts.inside(self, host, "sysctl", "-qw", f"net.ipv6.conf.{interface}.disable_ipv6=1"))
                self.ip(host, "link", "set", interface, "up")
        program = os.path.join(self.folder, "netdelay")
        run("cc", "-O2", "-o", program, os.path.join(HERE, "netdelay.c"))
        command = Hosts.inside(self, 2, program, "wml0", "wml1", str(self.delay_ms), str(self.mbit))
        self.link = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.processes.append(self.link)
        self.wait_for_link()

    def wait_for_link(self):
        ping = Hosts.inside(self, 0, "ping", "-n", "-q", "-c", "1", "-W", "1", "10.99.0.2")
        deadline = time.monotonic() + 10
        while subprocess.run(ping, capture_output=True).returncode:
            if self.link.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("the link carries nothing")

    def inside(self, end, *command):
        """The command as this host runs it; with `realtime` before all other programs."""
        first = ["chrt", "--rr", "20"] if self.realtime else []
        return [*first, *super().inside(end, *command)]

    def end_link(self):
        """Ends the link; what the direction from the first host to the second says of itself."""
        self.link.send_signal(signal.SIGTERM)
        lines = self.link.communicate(timeout=5)[0].splitlines()
        passed, dropped, wait_max_us = map(int, lines[0].split())
        return {"frames": passed, "dropped": dropped, "wait_max_ms": wait_max_us / 1e3}
