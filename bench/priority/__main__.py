#!/usr/bin/env python3
"""Urgent messages beside bulk on a slow link: how long each is under way, by mode and by pace.

Root, for the namespaces. See README.md.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time

from link import LinkedHosts
from runs import CARRIERS, LOADS, PACES, Run

from hosts import Skip
from load import busy, foreign, quiet

COLUMNS = [
    # heading, figure
    ("object p50 ms", lambda run: percentile(run["objects_ms"], 50)),
    ("p99", lambda run: percentile(run["objects_ms"], 99)),
    ("max", lambda run: percentile(run["objects_ms"], 100)),
    ("datagram p50 ms", lambda run: percentile(run["datagrams_ms"], 50)),
    ("p99", lambda run: percentile(run["datagrams_ms"], 99)),
    ("max", lambda run: percentile(run["datagrams_ms"], 100)),
    ("bulk Mbit/s", lambda run: run["bulk_mbit_s"]),
    ("queue urgent p99", lambda run: run["queue_ms"]["urgent"]),
    ("queue bulk p99", lambda run: run["queue_ms"]["bulk"]),
    ("link queue max", lambda run: run["link"]["wait_max_ms"]),
    ("link drops", lambda run: run["link"]["dropped"]),
    ("lost", lambda run: run["lost"]),
    ("others", lambda run: run["others_cores"]),
]


def arguments():
    carriers = "\n".join(f"  {name:10} {carrier.what}" for name, carrier in CARRIERS.items())
    parser = argparse.ArgumentParser(
        prog="python3 bench/priority", description="Measures urgent messages beside bulk on a slow link.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f"Carriers:\n{carriers}\n\nExamples:\n  python3 bench/priority\n"
               "  python3 bench/priority --only streams,tun --paces none,configured --json result.json")
    parser.add_argument("--only", metavar="A,B", help="these carriers [default: all]")
    parser.add_argument("--paces", metavar="A,B", help=f"of {','.join(PACES)} [default: all]")
    parser.add_argument("--messages", type=int, default=400, metavar="N", help="of each kind [default: 400]")
    parser.add_argument("--mbit", type=float, default=10, metavar="N", help="of the link [default: 10]")
    parser.add_argument("--delay", type=float, default=20, metavar="MS", help="of the link [default: 20]")
    parser.add_argument("--realtime", action="store_true",
                        help="what is measured goes before other programs: for a machine that is not idle")
    parser.add_argument("--json", metavar="FILE", help="every delay, not only the table")
    chosen = parser.parse_args()
    carriers = names(parser, chosen.only, CARRIERS)
    paces = names(parser, chosen.paces, PACES)
    if os.getuid():
        parser.error("only root makes network namespaces; fix: sudo")
    return chosen, carriers, paces


def names(parser, text, known):
    chosen = text.split(",") if text else list(known)
    for name in chosen:
        if name not in known:
            parser.error(f"nothing is called {name}; there are {', '.join(known)}")
    return chosen


def main():
    chosen, carriers, paces = arguments()
    # Whoever ends it early finds no namespaces left either.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    results, failed = [], False
    for carrier in carriers:
        for load in LOADS:
            for pace in paces:
                print(f"{carrier}, {load}, pace: {pace}", file=sys.stderr, flush=True)
                try:
                    results.append(measure(chosen, Run(carrier, load, pace, chosen.messages)))
                except (Skip, RuntimeError, OSError, ValueError, subprocess.SubprocessError) as why:
                    print(f"failed: {why}", file=sys.stderr)
                    failed = True
    print(table(results))
    if chosen.json:
        with open(chosen.json, "w") as file:
            json.dump({"mbit": chosen.mbit, "delay_ms": chosen.delay, "realtime": chosen.realtime,
                       "kernel": os.uname().release, "runs": results}, file, indent=1)
    return 1 if failed or not results else 0


def measure(chosen, run):
    with LinkedHosts(chosen.delay, chosen.mbit, chosen.realtime) as hosts:
        quiet(hosts, 3)
        before, started = foreign(hosts), time.monotonic()
        figures = run.on(hosts)
        others = busy(before, foreign(hosts)) / (time.monotonic() - started)
        return figures | {"link": hosts.end_link(), "others_cores": others}


def percentile(values, percent):
    """The smallest that so many percent do not exceed."""
    if not values:
        return None
    rank = -(-len(values) * percent // 100)
    return sorted(values)[max(rank, 1) - 1]


def table(results):
    rows = [["", *(heading for heading, _ in COLUMNS)]]
    for run in results:
        name = f"{run['carrier']}, {run['load']}, {run['pace']}"
        rows.append([name, *(cell(figure(run)) for _, figure in COLUMNS)])
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = [" | ".join(text.rjust(width) for text, width in zip(row, widths)) for row in rows]
    rule = " | ".join("-" * (width - 1) + ":" for width in widths)
    return "\n".join(f"| {line} |" for line in [lines[0], rule, *lines[1:]])


def cell(value):
    match value:
        case None:
            return "-"
        case int():
            return str(value)
        case _:
            return f"{value:.1f}"


if __name__ == "__main__":
    sys.exit(main())
