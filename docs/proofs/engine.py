"""The control machine of a node of our engine, as rules on `Node`.

Owns rules E1-E3, S1, A1-A6, B1-B5, C1, R1, R2, U1, L1 and L2 of README.md. Nothing here knows the
other side.
Each rule can be taken out by its name, which is how `search.py --check-faults` shows that it is
needed.
"""

from world import A, B, BOOT, NEW_KEY, NEW_OFFER

NONE = "Boot"
"""The phase of a machine without an exchange."""


class Engine:
    is_engine = True

    def __init__(self, role, peer_is_engine, off=frozenset(), legacy=False, boot=True):
        self.role = role
        self.boot = boot
        """The boot key is answered with and accepted."""
        self.peer_is_engine = peer_is_engine
        self.off = off
        self.legacy = legacy
        """Both sides list L1 alone."""

    # What the rest of the model asks.

    def is_open(self, node):
        """A session lives that may carry application data."""
        if node.legacy:
            return bool(node.sessions)
        return any(key != BOOT for _, key in node.sessions)

    def application_key(self, node):
        """The key of the session that application data leaves on, or None."""
        if node.legacy:
            return None
        if "E3" in self.off and node.settled != BOOT and node.sessions:
            return node.sessions[-1][1]
        return next((key for _, key in reversed(node.sessions) if key != BOOT), None)

    def is_sound(self, node, _unconfirmed):
        """I1: no application data below the level."""
        return self.application_key(node) != BOOT

    def data_session(self, node):
        """The session that application data leaves on."""
        fits = [s for s, key in node.sessions if node.legacy or key != BOOT]
        return fits[-1] if fits else None

    def control_session(self, node):
        """S1: control leaves on the newest session, whatever its level."""
        if "S1" in self.off and self.data_session(node) is not None:
            return self.data_session(node)
        return node.sessions[-1][0] if node.sessions else None

    def held(self, node):
        """The keys above the boot key that a handshake can be made under."""
        return {node.settled, node.candidate} - {BOOT, None}

    def is_settled(self, node):
        """Nothing is left to be done."""
        if self.legacy:
            return node.legacy and node.phase in (NONE, "Set")
        return node.settled != BOOT and node.candidate is None and node.phase == NONE

    def keys(self, node):
        """The keys to answer an initiation with, in the order of E2."""
        order = [node.settled, node.candidate, BOOT if self.boot else None]
        if node.answers_new:
            order[:2] = node.candidate, node.settled
        return list(dict.fromkeys(key for key in order if key is not None))

    def answers(self, node):
        """E2: which keys a response can be under. The order is left out: any key may be next."""
        return self.keys(node)[:1] if "E2" in self.off else self.keys(node)

    def accepts(self, node, key):
        """E1: a response may be under any key we hold."""
        return key in (self.keys(node)[:1] if "E1" in self.off else self.keys(node))

    def needs_handshake(self, node):
        """A handshake is under way, or must be had without waiting for the next natural one."""
        if node.phase == "Finished":
            waits = not self.peer_is_engine or "A2-handshake" in self.off
        else:
            waits = node.phase != "Switch" or "A3-handshake" in self.off
        return self.is_urgent(node) and not waits

    def is_urgent(self, node):
        """A2, A3: the switch does not wait: nothing is open, or nothing will be for long: no key is
        settled here, or (U1) the peer has lost it, or has not answered LIVE."""
        shaky = node.settled == BOOT or node.wanted or node.live
        return not self.is_open(node) or (shaky and "U1" not in self.off)

    # Sessions.

    def on_session(self, node, session, key, peer_forgot):
        """A session can be sent on: E3, A1, A4, B3, R2."""
        boots, others = [], []
        for entry in node.sessions + ((session, key),):
            (boots if entry[1] == BOOT else others).append(entry)
        keep = boots[-1:] + others[-1:]
        if "E3" in self.off:
            keep = [(session, key)]
        order = [e for e in node.sessions + ((session, key),) if e in keep]
        node = node._replace(sessions=tuple(order))
        if key == BOOT:
            return self._on_boot_session(node)
        if key == node.candidate and self._may_settle(node):
            return self._settle(node)
        left_over = self.role == A and node.phase == NONE and node.candidate is not None
        if left_over and key == node.settled and (peer_forgot or "R2-late" in self.off):
            # R2: the other side did not take FIN, or tries the settled key as well.
            node = node._replace(candidate=None, answers_new=False)
        return node, []

    def _on_boot_session(self, node):
        """The peer has no other key: A1."""
        remembers = "A1-memory" not in self.off or node.phase == NONE
        if self.role == A and node.settled != BOOT and remembers:
            node = node._replace(wanted=True)
        return node, []

    def _may_settle(self, node):
        if self.role == B:
            return "B3" not in self.off
        if "A4" in self.off:
            return False
        return "A4-late" not in self.off or node.phase in ("Finished", "Switch")

    def _settle(self, node):
        """A4, B3: both sides have used the candidate."""
        over = node.exchange == node.candidate
        node = node._replace(
            settled=node.candidate,
            candidate=None,
            answers_new=False,
            wanted=False,
        )
        if over:
            node = node._replace(phase=NONE, exchange=None, offer=None)
        if self.role == A and not self.peer_is_engine:
            return node._replace(live=True), [("send", "LIVE", node.settled)]
        return node, []

    def on_session_lost(self, node):
        """The oldest session ends. C1: without any, back to the boot key."""
        left = node.sessions[1:]
        if left or "C1" in self.off:
            return node._replace(sessions=left)
        return type(node)()

    # Messages.

    def on_message(self, node, kind, exchange, key=None):
        if kind == "REPLY":
            return self._on_reply(node, exchange, key)
        handler = {
            "OFFER": self._on_offer,
            "FIN": self._on_fin,
            "DONE": self._on_done,
            "LIVE": self._on_live,
            "POKE": self._on_poke,
        }[kind]
        return handler(node, exchange)

    def _on_offer(self, node, exchange):
        """B1."""
        if node.offer == exchange:
            if node.phase == "Replied":
                return node, [("send", "REPLY", exchange, node.exchange)]
            return node, []
        if "B1" in self.off and node.phase != NONE:
            return node, []
        node = node._replace(phase="Replied", offer=exchange, exchange=NEW_KEY)
        return node, [("send", "REPLY", exchange, NEW_KEY)]

    def _on_reply(self, node, offer, key):
        """A2."""
        if node.phase != "Offered" or node.exchange != offer:
            return node, []
        effects = [("send", "FIN", key)]
        node = node._replace(phase="Finished", exchange=key)
        if self.legacy:
            return node, effects
        if node.answers_new and node.candidate is not None:
            # The one before is in the slot already, by DONE: it stays there.
            node = node._replace(settled=node.candidate)
        if "A2-candidate" not in self.off:
            node = node._replace(candidate=key, answers_new=False)
        return node, effects

    def _on_fin(self, node, exchange):
        """B2."""
        if node.exchange != exchange:
            return node, []
        done = [("send", "DONE", exchange)]
        if node.phase == "Set":
            return node, done if "B2-again" not in self.off else []
        if node.phase != "Replied":
            return node, []
        if self.legacy:
            return node._replace(phase="Set", legacy=True), done
        if node.candidate is not None:
            node = node._replace(settled=node.candidate)
        if "B2-alternate" in self.off:
            node = node._replace(settled=BOOT)
        return node._replace(phase="Set", candidate=exchange, answers_new=True), done

    def _on_done(self, node, exchange):
        """A3."""
        if node.phase != "Finished" or node.exchange != exchange:
            return node, []
        if self.legacy:
            return node._replace(phase=NONE, exchange=None, legacy=True, wanted=False), []
        return node._replace(phase="Switch", candidate=exchange, answers_new=True), []

    def _on_live(self, node, exchange):
        """L2: B answers each LIVE; A is content with one."""
        if exchange != node.settled or self.peer_is_engine:
            return node, []
        if self.role == A:
            return node._replace(live=False), []
        return node, [("send", "LIVE", exchange)] if "L2" not in self.off else []

    def _on_poke(self, node, _exchange):
        """B4, the side of A."""
        if node.settled == BOOT and not node.legacy:
            # One runs, or is due anyway.
            return node, []
        return node._replace(wanted=True), []

    # Timers: (kind, name, node, effects).

    def timers(self, node, room):
        """What may fire now. `room` says that the network takes another message."""
        if self.role == A:
            yield from self._begin(node)
            yield from self._repeat(node, room)
        elif room and node.phase == NONE and not self.is_open(node) and node.sessions:
            if "B4" not in self.off:
                yield "timer", "POKE", node, [("send", "POKE", None)]
        yield from self._give_up(node)

    def _begin(self, node):
        if node.phase != NONE or not node.sessions:
            return
        due = node.wanted or (node.settled == BOOT and not node.legacy)
        offered = node._replace(phase="Offered", exchange=NEW_OFFER)
        offer = [("send", "OFFER", NEW_OFFER)]
        if due and "A1" not in self.off:
            yield "timer", "A1", offered, offer
        elif node.settled not in (BOOT, None) and node.sessions[-1][1] == node.settled:
            # R2: not while it is open whether the last one has changed B's slot.
            if not node.live and (node.candidate is None or "R2" in self.off):
                yield "natural", "R1", offered, offer

    def _repeat(self, node, room):
        if not room:
            return
        if node.phase == "Offered" and "A1-again" not in self.off:
            yield "timer", "OFFER again", node, [("send", "OFFER", node.exchange)]
        if node.phase == "Finished" and "A2-again" not in self.off:
            yield "timer", "FIN again", node, [("send", "FIN", node.exchange)]
        if node.live and "L1" not in self.off:
            yield "timer", "LIVE again", node, [("send", "LIVE", node.settled)]

    def _give_up(self, node):
        over = node._replace(phase=NONE, exchange=None, offer=None)
        if node.phase in ("Offered", "Replied") and "A1-end" not in self.off:
            yield "timer", "gives up", over, []
        elif node.phase == "Finished" and "A1-end" not in self.off:
            if "A5" in self.off:
                over = over._replace(candidate=None)
            yield "timer", "gives up", over, []
        elif node.live:
            yield "timer", "gives up LIVE", node._replace(live=False), []
        elif node.phase == "Switch" and self.is_urgent(node) and "A6" not in self.off:
            yield "timer", "gives up", over, []
        elif node.phase == "Set" and not self.is_open(node) and "B5" not in self.off:
            yield "timer", "gives up", over, []
