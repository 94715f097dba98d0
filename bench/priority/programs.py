"""Ordinary programs of two hosts, which know nothing of the tunnel and mark their packets by DSCP.

    python3 programs.py receive ADDRESS
    python3 programs.py send ADDRESS idle|bulk MESSAGES

The sender has one TCP connection with a large object always in flight (CS1), one with urgent objects
(EF) and urgent UDP datagrams (EF). The receiver prints one line of JSON when the sender has ended.
Owns the layout of a message: nanoseconds of CLOCK_MONOTONIC, which both ends share, and padding.
"""

import json
import socket
import struct
import sys
import threading
import time

BULK, URGENT, DATAGRAMS = 7001, 7002, 7003
URGENT_BYTES = 1_024
OBJECT_BYTES = 1_000_000
EF, CS1 = 46 << 2, 8 << 2
WARM_UP, LINGER = 4, 1


def stamped():
    return struct.pack(">Q", time.monotonic_ns()).ljust(URGENT_BYTES, b"U")


class Received:
    """Delays of urgent messages, and the bulk between the first and the last of them."""

    def __init__(self):
        self.delays = {"objects_ns": [], "datagrams_ns": []}
        self.bulk_bytes = 0
        self.first = self.last = None

    def message(self, kind, message):
        now = time.monotonic_ns()
        self.delays[kind].append(now - struct.unpack(">Q", message[:8])[0])
        self.last = (now, self.bulk_bytes)
        self.first = self.first or self.last

    def report(self):
        return self.delays | {"span_ns": self.last[0] - self.first[0],
                              "bulk_bytes": self.last[1] - self.first[1]}


def receive(address):
    received = Received()
    bulk, urgent = (socket.create_server((address, port), family=socket.AF_INET6) for port in (BULK, URGENT))
    datagrams = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    datagrams.bind((address, DATAGRAMS))
    threading.Thread(target=take_bulk, args=(bulk, received), daemon=True).start()
    threading.Thread(target=take_datagrams, args=(datagrams, received), daemon=True).start()
    with urgent.accept()[0] as connection, connection.makefile("rb") as messages:
        while len(message := messages.read(URGENT_BYTES)) == URGENT_BYTES:
            received.message("objects_ns", message)
    print(json.dumps(received.report()), flush=True)


def take_bulk(listener, received):
    connection = listener.accept()[0]
    while part := connection.recv(65_536):
        received.bulk_bytes += len(part)


def take_datagrams(datagrams, received):
    while True:
        received.message("datagrams_ns", datagrams.recv(2_048))


def send(address, load, messages):
    if load == "bulk":
        threading.Thread(target=send_bulk, args=(connect(address, BULK, CS1),), daemon=True).start()
    urgent = connect(address, URGENT, EF)
    urgent.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    datagrams = marked(socket.SOCK_DGRAM, EF)
    time.sleep(WARM_UP)
    for number in range(messages):
        time.sleep(pause(number))
        urgent.sendall(stamped())
        time.sleep(pause(number))
        datagrams.sendto(stamped(), (address, DATAGRAMS))
    time.sleep(LINGER)
    urgent.close()


def send_bulk(connection):
    # What is written waits in the socket: two objects at most.
    large = bytes(OBJECT_BYTES)
    while True:
        connection.sendall(large)


def connect(address, port, traffic_class):
    connection = marked(socket.SOCK_STREAM, traffic_class)
    connection.connect((address, port))
    return connection


def marked(kind, traffic_class):
    made = socket.socket(socket.AF_INET6, kind)
    made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, traffic_class)
    return made


def pause(number):
    """25 to 30 ms, spread so that no message keeps step with anything."""
    return (25_000 + number * 2_654_435_761 % 5_000) / 1e6


def main():
    match sys.argv[1:]:
        case ["receive", address]:
            receive(address)
        case ["send", address, ("idle" | "bulk") as load, messages]:
            send(address, load, int(messages))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
