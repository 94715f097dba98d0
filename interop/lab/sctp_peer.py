#!/usr/bin/env python3
"""One association of the kernel's SCTP, with the bare socket API (RFC 6458).

  sctp_peer.py listen PORT INTERLEAVE STREAMS MESSAGES LONGEST
  sctp_peer.py connect ADDRESS PORT INTERLEAVE STREAMS MESSAGES LONGEST

Sends MESSAGES of different lengths, up to LONGEST, on each of STREAMS, and receives as many. Prints a hash of what was
sent and of what came, per stream: the lengths and the bytes, in order. INTERLEAVE is on or off."""
import hashlib
import os
import socket
import struct
import sys
import threading

SCTP = 132
INITMSG, FRAGMENT_INTERLEAVE, RECVRCVINFO, INTERLEAVING_SUPPORTED = 2, 18, 32, 125
SNDINFO, RCVINFO = 2, 3
MSG_EOR = 0x80
PROTOCOL = 7


def new_socket(interleave, streams):
    it = socket.socket(socket.AF_INET6, socket.SOCK_STREAM, SCTP)
    it.setsockopt(SCTP, INITMSG, struct.pack("=HHHH", streams, streams, 0, 0))
    it.setsockopt(SCTP, RECVRCVINFO, struct.pack("=i", 1))
    # Messages under way on all streams at once must fit: else nothing more is taken, and none is whole.
    it.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    if interleave:
        # The kernel wants to hear first that parts of messages may come mixed. net.sctp.intl_enable too.
        it.setsockopt(SCTP, FRAGMENT_INTERLEAVE, struct.pack("=i", 2))
        it.setsockopt(SCTP, INTERLEAVING_SUPPORTED, struct.pack("=iI", 0, 1))
    return it


def length(stream, number, longest):
    return 1 + (stream * 7919 + number * 31337) % longest


def send_all(it, streams, messages, longest):
    hashes = [hashlib.blake2s() for _ in range(streams)]
    for number in range(messages):
        for stream in range(streams):
            message = os.urandom(length(stream, number, longest))
            info = struct.pack("=HHIIi", stream, 0, socket.htonl(PROTOCOL), 0, 0)
            sent = it.sendmsg([message], [(SCTP, SNDINFO, info)])
            assert sent == len(message), (sent, len(message))
            hashes[stream].update(struct.pack("<I", len(message)) + message)
    return hashes


def receive_all(it, streams, messages):
    hashes = [hashlib.blake2s() for _ in range(streams)]
    parts = [bytearray() for _ in range(streams)]
    last, mixed, left = None, 0, streams * messages
    while left:
        part, control, flags, _ = it.recvmsg(1 << 18, 256)
        if not part:
            raise SystemExit(f"it ended with {left} messages missing")
        (info,) = [data for level, kind, data in control if (level, kind) == (SCTP, RCVINFO)]
        stream, _, _, _, protocol = struct.unpack_from("=HHHHI", info)
        # I-DATA says it in the first fragment only.
        assert parts[stream] or socket.ntohl(protocol) == PROTOCOL, protocol
        mixed += last not in (None, stream)
        parts[stream] += part
        last = stream
        if flags & MSG_EOR:
            whole, parts[stream], last = parts[stream], bytearray(), None
            hashes[stream].update(struct.pack("<I", len(whole)) + whole)
            left -= 1
    print("mixed", mixed)
    return hashes


def say(word, hashes):
    for stream, it in enumerate(hashes):
        print(word, stream, it.hexdigest())


def main():
    role, *words = sys.argv[1:]
    *where, interleave, streams, messages, longest = words
    interleave, streams, messages = interleave == "on", int(streams), int(messages)
    it = new_socket(interleave, streams)
    if role == "listen":
        it.bind(("::", int(where[0])))
        it.listen(1)
        print("listening", flush=True)
        listener, (it, _) = it, it.accept()
    else:
        it.connect((where[0], int(where[1])))
    print("open", flush=True)
    sent = []
    sender = threading.Thread(target=lambda: sent.extend(send_all(it, streams, messages, int(longest))))
    sender.start()
    got = receive_all(it, streams, messages)
    sender.join()
    if role == "listen":
        assert it.recv(1) == b"", "something came after the end"
    it.close()
    say("sent", sent)
    say("got", got)


main()
