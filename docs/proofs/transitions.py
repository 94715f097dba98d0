"""The transitions of one engine node's control machine: what `transitions.txt` lists.

Owns the table. A machine is an exchange state, whether it has agreed on L1, and whether a session
at the required level is open; a phase is made of these three. The table says what an event may do
to the first, and the two lists what to the second, whatever the network, the peer or the operator
does; the search checks that every step of its engines is in it.
"""

from itertools import product

NONE, OFFERED, FINISHED, SWITCH, REPLIED, SET = "None Offered Finished Switch Replied Set".split()
STATES = {"A": (NONE, OFFERED, FINISHED, SWITCH), "B": (NONE, REPLIED, SET)}

# Role, event: what else than staying in the same state can come of it.
TABLE = {
    # A session may start an exchange; in a rotation SWITCH does not stand in the way of that.
    ("A", "session-boot"): {NONE: OFFERED, SWITCH: OFFERED},
    ("A", "session-old"): {NONE: OFFERED, FINISHED: (NONE, OFFERED), SWITCH: OFFERED},
    ("A", "session-new"): {FINISHED: NONE, SWITCH: NONE},
    ("A", "poke"): {NONE: OFFERED, FINISHED: OFFERED, SWITCH: OFFERED},
    ("A", "reply"): {OFFERED: (FINISHED, NONE)},
    ("A", "done"): {FINISHED: (SWITCH, NONE)},
    ("A", "live"): {},
    # NONE to OFFERED: the pause after a failure is over.
    ("A", "timeout"): {
        NONE: OFFERED,
        OFFERED: NONE,
        FINISHED: (NONE, OFFERED),
        SWITCH: (NONE, OFFERED),
    },
    ("A", "lost"): {
        NONE: OFFERED,
        OFFERED: NONE,
        FINISHED: (NONE, OFFERED),
        SWITCH: (NONE, OFFERED),
    },
    ("A", "policy"): {
        NONE: OFFERED,
        OFFERED: NONE,
        FINISHED: (NONE, OFFERED),
        SWITCH: (NONE, OFFERED),
    },
    ("A", "abort"): {NONE: OFFERED, OFFERED: NONE, FINISHED: (NONE, OFFERED)},
    ("A", "key"): {OFFERED: NONE},
    ("A", "admission"): {OFFERED: (FINISHED, NONE)},
    ("B", "session-boot"): {},
    ("B", "session-old"): {},
    ("B", "session-new"): {SET: NONE},
    ("B", "poke"): {},
    ("B", "offer"): {NONE: REPLIED, REPLIED: NONE, SET: (REPLIED, NONE)},
    ("B", "fin"): {REPLIED: (SET, NONE)},
    ("B", "live"): {},
    ("B", "timeout"): {REPLIED: NONE, SET: NONE},
    ("B", "lost"): {REPLIED: NONE, SET: NONE},
    ("B", "policy"): {REPLIED: NONE, SET: NONE},
    ("B", "abort"): {},
    ("B", "key"): {NONE: REPLIED},
    ("B", "admission"): {NONE: REPLIED},
}

# Events after which the node may have agreed on L1: DONE, FIN, and silence of a peer whose record
# lists L1 alone.
OPENS_LEGACY = ("done", "fin", "timeout")
# Events that may end that: what they bring raises the level that is required.
ENDS_LEGACY = ("session-new", "reply", "done", "offer", "fin", "abort", "key", "lost", "policy")


def phase(state, is_open, legacy):
    """The name of a phase: as `Machine::phase` makes it."""
    if legacy and state in (NONE, SET):
        return "Legacy"
    up = is_open and not legacy
    if state == NONE:
        return "Up" if up else "Boot"
    return ("Rotate" if up else "") + state


def transitions():
    """All lines of the table."""
    lines = set()
    for (role, event), moves in TABLE.items():
        for state in STATES[role]:
            others = moves.get(state, ())
            for to in {state, *((others,) if isinstance(others, str) else others)}:
                for legacy, before, after in product((False, True), repeat=3):
                    for agreed in _agreements(event, legacy):
                        start, end = phase(state, before, legacy), phase(to, after, agreed)
                        lines.add(f"{role} {start} {event} {end}")
        for state, *flags in product(STATES[role], (False, True), (False, True)):
            lines.add(f"{role} {phase(state, *flags)} crash Boot")
    return sorted(lines)


def _agreements(event, legacy):
    """Whether L1 can be agreed on after an event. What is open can change with every event: the
    gate and the sessions are not the machine's, and it sees both when it is called."""
    can_be = {legacy}
    if event in OPENS_LEGACY:
        can_be.add(True)
    if event in ENDS_LEGACY:
        can_be.add(False)
    return can_be
