"""Every step that two nodes and the network can take from a state.

Owns what WireGuard does (handshakes, the end of a session) and what can go wrong. The kinds of a
step, by how long it takes in practice:

    deliver   a message or a first packet arrives: milliseconds
    timer     a repetition, a time-out, an unanswered session, a dead peer: seconds
    natural   a rekey of a session that works, the start of a rotation: minutes
    expire    a session that the other side has no more runs out: three minutes
    fault     loss, a crash, or a time-out without a cause
"""

from transitions import phase
from world import (
    A,
    B,
    BOOT,
    NEW_SESSION,
    Message,
    Node,
    World,
    canonical,
    shared,
)


class Pair:
    def __init__(self, a, b, start=None, fallback=True, in_flight=1):
        self.machines = (a, b)
        self.engines = (a.is_engine, b.is_engine)
        self.start = start or World((Node(), Node()), (None, None), ())
        self.fallback = fallback
        """Whether a side may fall back to the boot key: crash, dead peer, no session left."""
        self.in_flight = in_flight
        self._canonical = {}
        self._moves = set()

    # Building blocks.

    def _with(self, world, who, node, effects=()):
        """`who` becomes `node`; then its wishes are met: ("send", kind, exchange), ("readd",)."""
        nodes = (node, world.nodes[B]) if who == A else (world.nodes[A], node)
        world = world._replace(nodes=nodes)
        for effect in effects:
            if effect[0] == "send":
                world = self._send(world, who, *effect[1:])
            else:
                world = self._readd(world, who)
        return world

    def _send(self, world, who, kind, exchange, key=None):
        session = self.machines[who].control_session(world.nodes[who])
        if session is None or len(world.net) >= self.in_flight:
            return world
        message = Message(1 - who, kind, exchange, session, key)
        return world._replace(net=world.net + (message,))

    @staticmethod
    def _with_first(world, who, session):
        first = (session, world.first[B]) if who == A else (world.first[A], session)
        return world._replace(first=first)

    def _readd(self, world, who):
        """The kernel forgets sessions and handshakes of a peer that is removed and added again."""
        world = self._with(world, who, world.nodes[who]._replace(sessions=()))
        return world._replace(first=(None, None))

    def _unconfirmed(self, world, responder):
        """The session that `responder` has answered and got no packet of, with its key."""
        session = world.first[1 - responder]
        for entry in world.nodes[1 - responder].sessions:
            if entry[0] == session:
                return entry
        return None

    def _confirm(self, world, responder):
        """The first packet of a session: now the responder may use it."""
        session, key = self._unconfirmed(world, responder)
        world = self._with_first(world, 1 - responder, None)
        return self._on_session(world, responder, session, key)

    def _on_session(self, world, who, session, key):
        """`who` can send on a session now. T1: a rule of A may wait until B has given up the
        exchange, which B does 10 s after OFFER."""
        node, other = world.nodes[who], world.nodes[1 - who]
        takes_fin = other.phase in ("Replied", "UpReplied")
        forgot = not (takes_fin and other.exchange in (node.exchange, node.candidate))
        after, effects = self.machines[who].on_session(node, session, key, forgot)
        awaited = node.phase in ("Finished", "Switch", "Set") and key == node.exchange
        event = "boot" if key == BOOT else "new" if awaited else "old"
        self._moves.add((who, node, "session-" + event, after))
        return self._with(world, who, after, effects)

    # Steps: (kind, name, state).

    def steps(self, world):
        known = self._canonical
        for kind, name, after in self._all_steps(world):
            state = known.get(after)
            if state is None:
                state = known[after] = canonical(after, self.engines)
            yield kind, name, state

    def _all_steps(self, world):
        yield from self._messages(world)
        for who in (A, B):
            yield from self._handshakes(world, who)
            yield from self._timers(world, who)
            yield from self._ends(world, who)

    def _messages(self, world):
        for index, message in enumerate(world.net):
            rest = world._replace(net=world.net[:index] + world.net[index + 1 :])
            name = f"{'AB'[message.to]} <- {message.kind}({message.exchange})"
            yield "fault", f"lost: {name}", rest
            to = message.to
            if all(session != message.session for session, _ in rest.nodes[to].sessions):
                rest = self._confirm(rest, to)
            machine = self.machines[to]
            before = rest.nodes[to]
            node, effects = machine.on_message(
                before, message.kind, message.exchange, message.key
            )
            self._moves.add((to, before, message.kind.lower(), node))
            yield "deliver", name, self._with(rest, to, node, effects)

    def _handshakes(self, world, who):
        """`who` initiates, and the response comes, or not."""
        node, machine = world.nodes[who], self.machines[who]
        responder = 1 - who
        if world.first[who] is not None:
            name = f"{'AB'[responder]} <- first packet"
            yield "deliver", name, self._confirm(world, responder)
        kind = "timer" if self._is_handshake_due(world, who) else "natural"
        for key in self.machines[responder].answers(world.nodes[responder]):
            name = f"{'AB'[who]}'s handshake, answered under {key}"
            # A response that is lost or refused still takes the place of the one before.
            lost = self._with_first(world, who, None)
            if world.first[who] is not None:
                yield "fault", name + ": response lost", lost
            if machine.accepts(node, key):
                made = self._with_first(world, who, NEW_SESSION)
                yield kind, name, self._on_session(made, who, NEW_SESSION, key)
            elif world.first[who] is not None:
                yield kind, name + ": refused", lost

    def _is_handshake_due(self, world, who):
        """It need not wait for the rekey of a session: none, one without an answer, or a rule."""
        node, machine = world.nodes[who], self.machines[who]
        used = {machine.data_session(node), machine.control_session(node)} - {None}
        return not (node.sessions and used <= shared(world, who)) or machine.needs_handshake(node)

    def _timers(self, world, who):
        node = world.nodes[who]
        room = len(world.net) < self.in_flight
        for kind, name, after, effects in self.machines[who].timers(node, room):
            self._moves.add((who, node, "timeout", after))
            yield kind, f"{'AB'[who]}: {name}", self._with(world, who, after, effects)

    def _ends(self, world, who):
        """Sessions end oldest first; a session in use ends only by a fault."""
        node, machine = world.nodes[who], self.machines[who]
        name = "AB"[who]
        session = node.sessions[0][0] if node.sessions else None
        if session is not None and (self.fallback or session != machine.data_session(node)):
            in_use = session in shared(world, who) and session == node.sessions[-1][0]
            after = machine.on_session_lost(node)
            if machine.is_open(node) and not machine.is_open(after) or not after.sessions:
                self._moves.add((who, node, "lost", after))
            yield (
                "fault" if in_use else "expire",
                f"{name}: a session ends",
                self._with(world, who, after),
            )
        if not self.fallback:
            return
        forgot = world._replace(first=(None, None))
        crashed = self._with(forgot, who, Node())
        yield "fault", f"{name} crashes", crashed
        if not machine.is_engine:
            after = machine.after_dead_peer(node)
            if after is not None:
                kind = "timer" if self.is_dead(world, who) else "fault"
                yield kind, f"{name}: dead peer", self._with(forgot, who, after)

    def transitions(self):
        """What the engines have done, as lines of `transitions.txt`."""
        lines = set()
        for who, before, event, after in self._moves:
            if self.engines[who]:
                phases = [self._phase(who, node) for node in (before, after)]
                lines.add(f"{'AB'[who]} {phases[0]} {event} {phases[1]}")
        return sorted(lines)

    def _phase(self, who, node):
        state = "None" if node.phase == "Boot" else node.phase
        return phase(state, self.machines[who].is_open(node), node.legacy)

    # Properties.

    def is_dead(self, world, who):
        """The peer cannot answer a handshake under our slot: it knocks, or is silent."""
        other = world.nodes[1 - who]
        slot = world.nodes[who].settled
        if self.machines[1 - who].is_engine:
            return slot not in self.machines[1 - who].keys(other)
        return slot not in (other.settled, other.candidate)

    def is_sound(self, world):
        """I1."""
        for who in (A, B):
            entry = self._unconfirmed(world, who)
            unconfirmed = [entry[1]] if entry else []
            if not self.machines[who].is_sound(world.nodes[who], unconfirmed):
                return False
        return True

    def is_up(self, world):
        """Both gates are open and application data arrives both ways."""
        return all(
            machine.data_session(node) is not None
            and any(machine.data_session(node) == s for s, _ in world.nodes[1 - who].sessions)
            for who, (machine, node) in enumerate(zip(self.machines, world.nodes))
        )

    def is_agreed(self, world):
        """... and nothing is left to be done: both have settled on one key."""
        a, b = world.nodes
        return (
            self.is_up(world)
            and a.settled == b.settled
            and all(m.is_settled(n) for m, n in zip(self.machines, world.nodes))
        )

    def has_common_key(self, world):
        """I3."""
        held = [m.held(n) for m, n in zip(self.machines, world.nodes)]
        return bool(held[A] & held[B])

    def can_handshake(self, world):
        """I4: where one end has several keys to try, either may initiate at any time. Two kernels
        have to wait for DONE, and one that alternates for its other key."""
        if not any(self.engines) or any(node.phase == "Alternate" for node in world.nodes):
            return True
        for who in (A, B):
            answers = self.machines[1 - who].answers(world.nodes[1 - who])
            if not any(self.machines[who].accepts(world.nodes[who], key) for key in answers):
                return False
        return True
