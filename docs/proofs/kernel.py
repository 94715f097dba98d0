"""The control machine of a node in kernel mode, as rules on `Node`.

The kernel has one slot for a preshared key (`settled`), does not tell which key made a session,
and can drop its sessions only with the peer as a whole. Owns rules K1-K6 of README.md.
"""

from world import A, BOOT, NEW_KEY, NEW_OFFER

OPEN = ("Up", "UpOffered", "UpFinished", "UpReplied", "Alternate")


class Kernel:
    is_engine = False

    def __init__(self, role, peer_is_engine, off=frozenset()):
        self.role = role
        self.peer_is_engine = peer_is_engine
        self.off = off

    def is_open(self, node):
        return node.phase in OPEN

    def is_sound(self, node, unconfirmed):
        """I1: with the gate open no session of the boot key lives."""
        keys = [key for _, key in node.sessions] + unconfirmed
        return not (self.is_open(node) and BOOT in keys)

    def data_session(self, node):
        return node.sessions[-1][0] if self.is_open(node) and node.sessions else None

    def control_session(self, node):
        return node.sessions[-1][0] if node.sessions else None

    def held(self, node):
        if node.phase == "UpFinished":
            return {node.settled, node.exchange}
        return {node.settled, node.candidate} - {BOOT, None}

    def is_settled(self, node):
        return node.phase == "Up"

    def answers(self, node):
        return [node.settled]

    def accepts(self, node, key):
        return key == node.settled

    def needs_handshake(self, node):
        return False

    # Sessions.

    def on_session(self, node, session, key, peer_forgot):
        # The one before is of interest only as long as it is of the boot key.
        before = tuple(entry for entry in node.sessions[-1:] if entry[1] == BOOT)
        node = node._replace(sessions=before + ((session, key),))
        if node.phase == "Readded":
            return node._replace(phase="Up"), [("send", "LIVE", node.settled)]
        sure = key == node.settled or "K5" in self.off
        late = peer_forgot or "K6" in self.off
        if node.phase == "Alternate" and sure and late:
            return node._replace(phase="Up", candidate=None, exchange=None), []
        return node, []

    def on_session_lost(self, node):
        return node._replace(sessions=node.sessions[1:])

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
        if node.offer == exchange:
            again = [("send", "REPLY", exchange, node.exchange)]
            return node, again if node.phase in ("Replied", "UpReplied") else []
        after = {"Up": "UpReplied", "Boot": "Replied", "Set": "Replied"}
        if node.phase not in ("Replied", "UpReplied", *after):
            return node, []
        phase = after.get(node.phase, node.phase)
        node = node._replace(phase=phase, offer=exchange, exchange=NEW_KEY)
        return node, [("send", "REPLY", exchange, NEW_KEY)]

    def _on_reply(self, node, offer, key):
        after = {"Offered": "Finished", "UpOffered": "UpFinished"}.get(node.phase)
        if after is None or node.exchange != offer:
            return node, []
        return node._replace(phase=after, exchange=key), [("send", "FIN", key)]

    def _on_fin(self, node, exchange):
        if node.exchange != exchange:
            return node, []
        done = [("send", "DONE", exchange)]
        if node.phase == "Replied":
            return node._replace(phase="Set", settled=exchange), done
        if node.phase == "UpReplied":
            return node._replace(phase="Up", settled=exchange), done
        if node.settled == exchange:
            return node, done if "B2-again" not in self.off else []
        return node, []

    def _on_done(self, node, exchange):
        if node.exchange != exchange:
            return node, []
        if node.phase == "Finished":
            return self._readd(node, "Switch")
        if node.phase in ("UpFinished", "Alternate"):
            return node._replace(phase="Up", settled=exchange, candidate=None, exchange=None), []
        return node, []

    def _readd(self, node, phase):
        """K1, K2: the peer removed and added again, with the new key."""
        node = node._replace(phase=phase, settled=node.exchange)
        rule = "K1" if self.role == A else "K2"
        return node, [] if rule in self.off else [("readd",)]

    def _on_live(self, node, exchange):
        if exchange != node.settled:
            return node, []
        if self.role == A:
            return (node._replace(phase="Up") if node.phase == "Switch" else node), []
        if node.phase == "Set":
            if "K2" in self.off:
                return node._replace(phase="Up"), [("send", "LIVE", exchange)]
            return self._readd(node, "Readded")
        if node.phase in ("Up", "UpReplied") and "L2" not in self.off:
            return node, [("send", "LIVE", exchange)]
        return node, []

    def _on_poke(self, node, _exchange):
        return node, []

    # Timers.

    def timers(self, node, room):
        if self.role == A:
            yield from self._begin(node)
            yield from self._repeat(node, room)
        elif room and node.sessions and self._pokes(node):
            yield "timer", "POKE", node, [("send", "POKE", None)]
        yield from self._give_up(node)

    def _pokes(self, node):
        """B4, B5."""
        return "B4" not in self.off if node.phase == "Boot" else (
            node.phase == "Set" and "B5" not in self.off
        )

    def _begin(self, node):
        phase = {"Boot": "Offered", "Up": "UpOffered"}.get(node.phase)
        if phase and node.sessions:
            kind = "timer" if node.phase == "Boot" else "natural"
            offered = node._replace(phase=phase, exchange=NEW_OFFER)
            yield kind, "offers", offered, [("send", "OFFER", NEW_OFFER)]

    def _repeat(self, node, room):
        if not room:
            return
        if node.phase in ("Offered", "UpOffered") and "A1-again" not in self.off:
            yield "timer", "OFFER again", node, [("send", "OFFER", node.exchange)]
        if node.phase in ("Finished", "UpFinished") and "A2-again" not in self.off:
            yield "timer", "FIN again", node, [("send", "FIN", node.exchange)]
        if node.phase == "Switch" and node.sessions and "L1" not in self.off:
            yield "timer", "LIVE again", node, [("send", "LIVE", node.settled)]

    def _give_up(self, node):
        back = {
            "Offered": "Boot",
            "Finished": "Boot",
            "Replied": "Boot",
            "UpOffered": "Up",
            "UpReplied": "Up",
        }.get(node.phase)
        if node.phase == "Switch" and "A6" not in self.off:
            yield "timer", "gives up", node._replace(phase="Boot", exchange=None), []
        if back and "A1-end" not in self.off:
            yield "timer", "gives up", node._replace(phase=back, exchange=None, offer=None), []
        if node.phase == "UpFinished" and "A1-end" not in self.off:
            if "K4" in self.off:
                yield "timer", "gives up", node._replace(phase="Up", exchange=None), []
            else:
                alternate = node._replace(phase="Alternate", candidate=node.exchange)
                yield "timer", "gives up", alternate, []
        if node.phase == "Alternate":
            other = node._replace(settled=node.candidate, candidate=node.settled)
            yield "timer", "the other key", other, []

    def after_dead_peer(self, node):
        """K3: the peer removed and added again with the boot key; None if that does not apply."""
        if node.settled == BOOT or "K3" in self.off:
            return None
        return type(node)()
