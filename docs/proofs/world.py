"""Two nodes, their WireGuard sessions and handshakes, and the network between them.

Owns the state that `search.py` explores and every step that is not a rule of the control protocol:
loss, reordering, crashes, handshakes, the end of a session. The rules are in `engine.py` and
`kernel.py`. Time is left out: a timer may fire at any moment, so that every time-out is tried
early, late and without a cause.

Keys are names, not numbers. 0 is the boot key; each exchange makes a new name; names are
renumbered in the order in which the state mentions them, and a name that no slot, exchange or
message holds any more becomes `GONE`. So there is no bound on the number of exchanges.
"""

from typing import NamedTuple, Optional

BOOT = 0
GONE = -1
LONELY = -2
LONELY_CANDIDATE = -4
NEW_KEY = 60
NEW_OFFER = 61
NEW_SESSION = 60
A, B = 0, 1


class Node(NamedTuple):
    """What one side remembers. A crash puts it back to `Node()`."""

    phase: str = "Boot"
    exchange: Optional[int] = None
    """The key of the exchange under way, or of the last one. A has a name for its OFFER here until
    REPLY comes: B makes the key, and another one each time that it forgets and replies anew."""
    offer: Optional[int] = None
    """B: the OFFER that it has replied to."""
    settled: int = BOOT
    """The newest key that a session was made under; in kernel mode the key in the slot."""
    candidate: Optional[int] = None
    """A newer key that is agreed, but no session has been seen under it."""
    answers_new: bool = False
    """Initiations are answered under the candidate first."""
    sessions: tuple = ()
    """(session, key), oldest first: those that this side can send on."""
    wanted: bool = False
    """A: the peer made a boot session, or poked: a new exchange is due."""
    live: bool = False
    """A: LIVE is out and not answered."""
    legacy: bool = False


class Message(NamedTuple):
    to: int
    kind: str
    exchange: Optional[int]
    session: int
    key: Optional[int] = None
    """REPLY to OFFER `exchange` has made this key."""


class World(NamedTuple):
    nodes: tuple
    first: tuple
    """By initiator: the session that it has, and whose first packet is still in flight.

    A handshake is one step. An initiation carries nothing that depends on the state, so one that is
    overtaken or late is the same as one that is sent when it arrives."""
    net: tuple
    """Control messages in flight; any of them may arrive next."""


def shared(world, who):
    """The sessions of `who` that the other side has too, or will accept the first packet of."""
    known = {session for session, _ in world.nodes[1 - who].sessions}
    known.add(world.first[who])
    return {session for session, _ in world.nodes[who].sessions if session in known}


def canonical(world, engines):
    """The same state with sessions and keys renumbered, and what can have no effect left out."""
    world = _without_idle(world, engines)
    session_names, first, net = _renumber_sessions(world)
    key_names = _renumber_keys(world, net)
    nodes = tuple(
        _rename(node, side, key_names, session_names[side], engines[side])
        for side, node in enumerate(world.nodes)
    )
    net = [
        m._replace(exchange=key_names.get(m.exchange, GONE), key=key_names.get(m.key, GONE))
        for m in net
    ]
    if len(net) > 1:
        net.sort(key=repr)
    return World(nodes, first, tuple(net))


def _without_idle(world, engines):
    """An engine's older boot session that the other side has left could only run out."""
    for who, node in enumerate(world.nodes):
        if engines[who] and len(node.sessions) == 2 and node.sessions[0][1] == BOOT:
            session = node.sessions[0][0]
            carries = any(m.session == session for m in world.net)
            if not carries and session not in shared(world, who):
                node = node._replace(sessions=node.sessions[1:])
                nodes = (node, world.nodes[B]) if who == A else (world.nodes[A], node)
                world = world._replace(nodes=nodes)
    return world


def _renumber_keys(world, net):
    """Names for the keys that can still matter to both sides: those that both hold, or one holds
    and a message, a first packet or a new OFFER of A can bring to the other."""
    a, b = world.nodes
    brought = {a.exchange}
    for m in net:
        brought.update((m.exchange, m.key))
    if b.offer in brought:
        # OFFER again brings the same REPLY again.
        brought.add(b.exchange)
    for node, session in zip(world.nodes, world.first):
        brought.update(key for s, key in node.sessions if s == session)
    of_a = (a.settled, a.candidate, a.exchange)
    of_b = (b.settled, b.candidate, b.exchange, b.offer)
    names = {BOOT: BOOT, None: None}
    carried = tuple(key for m in net if m.kind in ("OFFER", "REPLY") for key in (m.exchange, m.key))
    for key in of_a + of_b + carried:
        if key not in names and (key in brought or (key in of_a and key in of_b)):
            names[key] = len(names) - 1
    return names


def _rename(node, side, keys, sessions, is_engine):
    """A key that only this side holds, for good, is as good as any other such key; to an engine,
    which has other keys to try, as good as none. Only A's settled key says more: a boot session
    then means that the peer has lost it."""
    lonely = BOOT if is_engine and side == B else LONELY - side
    candidate = keys.get(node.candidate, None if is_engine else LONELY_CANDIDATE - side)
    return Node(
        node.phase,
        keys.get(node.exchange, LONELY - side),
        keys.get(node.offer),
        keys.get(node.settled, lonely),
        candidate,
        node.answers_new and candidate is not None,
        tuple([(sessions[s], keys.get(key, GONE)) for s, key in node.sessions]),
        *node[7:],
    )


def _renumber_sessions(world):
    """Names for the sessions of each side; one that only one side has needs no name of its own."""
    a, b = world.nodes
    has = [s for s, _ in a.sessions], [s for s, _ in b.sessions]
    first = [s if s in has[side] else None for side, s in enumerate(world.first)]
    names = ({None: None}, {None: None})
    count = 0
    for side in (A, B):
        for session in has[side]:
            if session in names[side]:
                continue
            if session in has[1 - side] or session == first[side]:
                names[A][session] = names[B][session] = count
                count += 1
            else:
                names[side][session] = 90 + side
    net = []
    for m in world.net:
        node = world.nodes[m.to]
        known = (None, node.exchange, node.settled, node.candidate)
        if m.kind != "OFFER" and m.exchange not in known:
            # Whatever it is about is over.
            continue
        if m.session in has[m.to] or m.session == first[1 - m.to]:
            net.append(m._replace(session=names[m.to][m.session]))
    return names, (names[A][first[A]], names[B][first[B]]), net
