#!/usr/bin/env python3
"""Tunnels side by side: two hosts in network namespaces, one tunnel at a time, rounds interleaved.

Root, for the namespaces. Needs: iproute2 iperf3 iputils-ping util-linux wireguard-tools. See README.md.
"""

import argparse
import json
import os
import statistics
import sys

from hosts import CANDIDATES, Hosts, Skip
from load import Load, versions

BOUND = "null"
COLUMNS = [
    # heading, figure, digits, whether the ratio to the bound is shown
    ("TCP x1 Gbit/s", "tcp1_gbit_s", 2, True),
    ("CPU-s/GB", "tcp1_cpu_s_per_gb", 2, False),
    ("machine", "tcp1_machine_cpu_s_per_gb", 2, False),
    ("TCP x4", "tcp4_gbit_s", 2, True),
    ("CPU-s/GB", "tcp4_cpu_s_per_gb", 2, False),
    ("ping ms", "ping_ms", 2, False),
    ("loaded", "loaded_ping_ms", 2, True),
    ("64 B k/s", "udp_pps", 1, True),
    ("loss-free k/s", "loss_free_pps", 1, True),
    ("MiB", "memory_kib", 1, False),
    ("others", "others_cores", 2, False),
]
UNITS = {"udp_pps": 1e3, "loss_free_pps": 1e3, "memory_kib": 1024}


def arguments():
    lines = "\n".join(f"  {name:13} {what}".rstrip() for name, (_, what) in CANDIDATES.items())
    parser = argparse.ArgumentParser(
        prog="python3 bench/tunnel", description="Measures tunnels of this machine side by side.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f"Tunnels:\n{lines}\n\nExamples:\n  python3 bench/tunnel --rounds 3\n"
               "  python3 bench/tunnel --only null,wg,gotatun --json result.json\n"
               "  python3 bench/tunnel --only kernel,tun,kernel-wg        # on hardware of your own")
    parser.add_argument("--only", metavar="A,B", help="these tunnels [default: all that can run]")
    parser.add_argument("--rounds", type=int, default=1, metavar="N", help="repetitions, interleaved [default: 1]")
    parser.add_argument("--secs", type=int, default=5, metavar="N", help="of each TCP measurement [default: 5]")
    parser.add_argument("--json", metavar="FILE", help="every run, not only the medians")
    chosen = parser.parse_args()
    names = chosen.only.split(",") if chosen.only else list(CANDIDATES)
    unknown = [name for name in names if name not in CANDIDATES]
    if unknown:
        parser.error(f"no tunnel is called {unknown[0]}; there are {', '.join(CANDIDATES)}")
    if os.getuid():
        parser.error("only root makes network namespaces; fix: sudo")
    return chosen, names


def main():
    chosen, names = arguments()
    rounds, failed = [], False
    for number in range(chosen.rounds):
        rounds.append({})
        for name in list(names):
            print(f"round {number + 1} of {chosen.rounds}: {name}", file=sys.stderr, flush=True)
            try:
                with Hosts() as hosts:
                    target = CANDIDATES[name][0](hosts)
                    rounds[-1][name] = Load(hosts, target, chosen.secs).measure()
            except Skip as why:
                print(f"{name} is left out: {why}", file=sys.stderr)
                names.remove(name)
            except (RuntimeError, OSError, ValueError) as why:
                print(f"{name} failed: {why}", file=sys.stderr)
                failed = True
    print(table(rounds, names))
    if chosen.json:
        with open(chosen.json, "w") as file:
            json.dump({"versions": versions(), "rounds": rounds}, file, indent=1)
    return 1 if failed or not any(rounds) else 0


def table(rounds, names):
    rows = [["", *(heading for heading, *_ in COLUMNS)]]
    rows += [[name, *(cell(rounds, name, *column[1:]) for column in COLUMNS)] for name in names]
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = [" | ".join(text.rjust(width) for text, width in zip(row, widths)) for row in rows]
    rule = " | ".join("-" * (width - 1) + ":" for width in widths)
    return "\n".join(f"| {line} |" for line in [lines[0], rule, *lines[1:]])


def cell(rounds, name, figure, digits, with_ratio):
    """The median of the rounds, and that of the ratios to the bound within each."""
    values = [run[name][figure] for run in rounds if name in run and run[name][figure] is not None]
    if not values:
        return "-"
    text = f"{statistics.median(values) / UNITS.get(figure, 1):.{digits}f}"
    ratios = [run[name][figure] / run[BOUND][figure] for run in rounds
              if name in run and BOUND in run and run[BOUND][figure] and run[name][figure] is not None]
    if with_ratio and ratios and name != BOUND:
        text += f" ({statistics.median(ratios):.2f})"
    return text


if __name__ == "__main__":
    sys.exit(main())
