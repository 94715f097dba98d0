#!/usr/bin/env python3
"""Explicit-state search over the control protocol between two nodes.

    search.py                   every pair of nodes, and whether transitions.txt is up to date
    search.py --without RULE    the same without a rule (may be repeated); prints traces
    search.py --check-faults    each rule taken out: the search has to notice (three minutes)
    search.py --transitions     what transitions.txt has to contain
    search.py --json            the table as JSON; --only NAME: that pair alone

README.md says what is modelled, what the rules are called, and what is left out. Ends with 1 if a
property does not hold.
"""

import argparse
import gc
import json
import sys
import time
from pathlib import Path

import transitions
from engine import Engine
from kernel import Kernel
from pair import Pair
from world import Node, World

FAULT_FREE = frozenset(("deliver", "timer", "natural", "expire"))
PROMPT = frozenset(("deliver", "timer"))

# Name, kind of A, kind of B, what they start with, messages in flight at most.
PAIRS = (
    ("engine-engine upgrade", "E", "E", "boot", 1),
    ("kernel-kernel upgrade", "K", "K", "boot", 2),
    ("engine A, kernel B upgrade", "E", "K", "boot", 1),
    ("kernel A, engine B upgrade", "K", "E", "boot", 1),
    ("engine-engine, L1 alone", "E", "E", "legacy", 2),
    ("engine-engine rotation", "E", "E", "up", 2),
    ("kernel-kernel rotation", "K", "K", "up", 2),
    ("engine A, kernel B rotation", "E", "K", "up", 2),
    ("kernel A, engine B rotation", "K", "E", "up", 2),
)

# What is taken out, and the pair in which that has to show. Rules that stand in for each other are
# taken out together.
FAULTS = (
    ("E1", "engine-engine upgrade"),
    ("E1 E2", "engine-engine rotation"),
    ("E3", "engine-engine upgrade"),
    ("S1", "engine-engine upgrade"),
    ("A1", "engine-engine, L1 alone"),
    ("A1-again A1-end", "engine-engine rotation"),
    ("A1-end", "engine-engine, L1 alone"),
    ("A2-candidate", "engine-engine rotation"),
    ("A2-again A1-end", "engine-engine rotation"),
    ("A3-handshake", "engine A, kernel B upgrade"),
    ("A4", "engine-engine rotation"),
    ("A4-late", "engine-engine rotation"),
    ("A5", "engine-engine rotation"),
    ("A6", "kernel-kernel upgrade"),
    ("B1", "engine-engine rotation"),
    ("B2-alternate", "kernel A, engine B rotation"),
    ("B3", "engine-engine rotation"),
    ("B4", "engine-engine, L1 alone"),
    ("B5", "engine A, kernel B upgrade"),
    ("R2", "engine-engine rotation"),
    ("R2", "engine A, kernel B rotation"),
    ("R2-late", "engine A, kernel B rotation"),
    ("U1", "engine A, kernel B upgrade"),
    ("L1", "kernel A, engine B upgrade"),
    ("L2", "kernel A, engine B upgrade"),
    ("K1", "kernel-kernel upgrade"),
    ("K2", "kernel-kernel upgrade"),
    ("K3", "kernel-kernel upgrade"),
    ("K4", "kernel-kernel rotation"),
    ("K5", "kernel-kernel rotation"),
    ("K6", "kernel-kernel rotation"),
)
# Without these everything still holds; README.md says what they are for.
SPARE = ("A1-memory", "A2-handshake", "B2-again", "C1")
RULES = sorted({rule for rules, _ in FAULTS for rule in rules.split()} | set(SPARE))


def make_pair(kinds, start, in_flight, off):
    """Two machines and the state that they begin in."""
    machines = []
    for role, kind in enumerate(kinds):
        peer_is_engine = kinds[1 - role] == "E"
        if kind == "K":
            machines.append(Kernel(role, peer_is_engine, off))
        else:
            machines.append(
                Engine(role, peer_is_engine, off, legacy=start == "legacy", boot=start != "up")
            )
    if start != "up":
        return Pair(*machines, in_flight=in_flight)
    nodes = tuple(
        Node(phase="Up" if kind == "K" else "Boot", settled=1, sessions=((0, 1),))
        for kind in kinds
    )
    start = World(nodes, (None, None), ())
    return Pair(*machines, start=start, fallback=False, in_flight=in_flight)


class Graph:
    """All states that can be reached, breadth first, so that traces are shortest."""

    def __init__(self, pair):
        self.pair = pair
        self.states = [pair.start]
        self.parents = [None]
        self.edges = []
        number = {pair.start: 0}
        for at, state in enumerate(self.states):
            edges = []
            for kind, name, after in pair.steps(state):
                to = number.get(after)
                if to is None:
                    to = number[after] = len(self.states)
                    self.states.append(after)
                    self.parents.append((at, name))
                edges.append((kind, to))
            self.edges.append(edges)

    def trace(self, number):
        names = []
        while self.parents[number] is not None:
            number, name = self.parents[number]
            names.append(name)
        return names[::-1]

    def first(self, is_bad):
        """The first state with a fault, or None."""
        return next((n for n, state in enumerate(self.states) if is_bad(state)), None)

    def stuck(self, is_goal, kinds):
        """States from which steps of `kinds` do not lead to a goal. What is in flight arrives
        before anything else happens."""
        before = [[] for _ in self.states]
        for number, edges in enumerate(self.edges):
            delivers = any(kind == "deliver" for kind, _ in edges)
            for kind, to in edges:
                if kind == "deliver" or (kind in kinds and not delivers):
                    before[to].append(number)
        todo = [number for number, state in enumerate(self.states) if is_goal(state)]
        well = bytearray(len(self.states))
        for number in todo:
            well[number] = 1
        while todo:
            for number in before[todo.pop()]:
                if not well[number]:
                    well[number] = 1
                    todo.append(number)
        return [number for number, fine in enumerate(well) if not fine]


def examine(entry, off):
    """Searches one pair; what the table says of it."""
    name, a, b, start, in_flight = entry
    began = time.process_time()
    pair = make_pair((a, b), start, in_flight, off)
    graph = Graph(pair)
    unsound = graph.first(lambda world: not pair.is_sound(world))
    stuck = graph.stuck(pair.is_agreed, FAULT_FREE)
    slow = graph.stuck(pair.is_up, PROMPT)
    faults = {
        "I1": unsound,
        "I2": stuck[0] if stuck else None,
        "I2-prompt": slow[0] if slow else None,
    }
    if start == "up":
        faults["I3"] = graph.first(lambda world: not pair.has_common_key(world))
        faults["I4"] = graph.first(lambda world: not pair.can_handshake(world))
    return {
        "pair": name,
        "states": len(graph.states),
        "steps": sum(map(len, graph.edges)),
        "stuck": len(stuck),
        "slow": len(slow),
        "seconds": round(time.process_time() - began, 1),
        "faults": {
            fault: {"trace": graph.trace(at), "state": repr(graph.states[at])}
            for fault, at in faults.items()
            if at is not None
        },
        "checked": list(faults),
        "transitions": pair.transitions(),
    }


def print_row(row):
    verdicts = " ".join(
        f"{name} {'FAILS' if name in row['faults'] else 'holds'}" for name in row["checked"]
    )
    print(f"{row['pair']:28} {row['states']:>7} {row['steps']:>8} {row['seconds']:>6}  {verdicts}")
    sys.stdout.flush()


def print_faults(row):
    for name, fault in row["faults"].items():
        print(f"\n{row['pair']}: {name}")
        for step in fault["trace"]:
            print(f"    {step}")
        print(f"    {fault['state']}")


def check_transitions(rows):
    """Whether transitions.txt is the table's, and every step of the search is in it."""
    lines = transitions.transitions()
    stored = Path(__file__).with_name("transitions.txt")
    wrong = []
    if not stored.exists() or stored.read_text().splitlines() != lines:
        wrong.append("transitions.txt is not up to date: search.py --transitions")
    seen = {line for row in rows for line in row["transitions"]}
    wrong += [f"not in the table: {line}" for line in sorted(seen - set(lines))]
    return len(lines), len(seen), wrong


def check_faults():
    """Each rule taken out of the pair that needs it. Returns those that nobody missed."""
    unnoticed = []
    for rules, where in FAULTS:
        entry = next(entry for entry in PAIRS if entry[0] == where)
        row = examine(entry, frozenset(rules.split()))
        found = ", ".join(row["faults"]) or "not noticed"
        print(f"without {rules:16} {where:28} {found:20} {row['stuck']} stuck, {row['slow']} slow")
        sys.stdout.flush()
        if not row["faults"]:
            unnoticed.append(rules)
    print("not needed here:", *SPARE)
    return unnoticed


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--without", action="append", default=[], choices=RULES)
    parser.add_argument("--only", choices=[entry[0] for entry in PAIRS])
    parser.add_argument("--check-faults", action="store_true")
    parser.add_argument("--transitions", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    # Millions of tuples, none of them in a cycle.
    gc.disable()
    if options.transitions:
        print("\n".join(transitions.transitions()))
        return 0
    if options.check_faults:
        return 1 if check_faults() else 0
    off = frozenset(options.without)
    rows = []
    if not options.json:
        print(f"{'pair':28} {'states':>7} {'steps':>8} {'s':>6}  result")
    for entry in PAIRS:
        if options.only in (None, entry[0]):
            rows.append(examine(entry, off))
            if not options.json:
                print_row(rows[-1])
    total, seen, wrong = check_transitions(rows)
    if options.json:
        print(json.dumps({"pairs": rows, "transitions": total, "wrong": wrong}, indent=1))
    else:
        for row in rows:
            print_faults(row)
        print(f"transitions: {total} allowed, {seen} of them taken here", *wrong, sep="\n")
    return 1 if wrong or any(row["faults"] for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
