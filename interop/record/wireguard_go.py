#!/usr/bin/env python3
"""Records v1 handshakes with the real wireguard-go, in both roles, with PSK and without.

    interop/record/wireguard_go.py [OUTPUT]     (default: crates/noise/tests/vectors/wireguard_go_handshake.txt)

Needs root (a network namespace and a TUN device of its own) and wireguard-go.  Everything happens in
the namespace and ends with it.  Our side is noise.py with fixed keys, so a replay is exact: what
wireguard-go sent must be accepted, what noise.py sent must come out byte for byte.
"""
import os
import pathlib
import re
import socket
import struct
import subprocess
import sys
import time

import noise

OURS, THEIRS = "10.77.0.1", "10.77.0.2"
THEIR_PORT = 51820
SENDER_I, SENDER_R = 0x11223344, 0x55667788


def checksum(data):
    total = sum(struct.unpack(">%dH" % (len(data) // 2), data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return 0xFFFF - total


def echo_packet(kind, source, destination, ident, sequence, data):
    icmp = struct.pack(">BBHHH", kind, 0, 0, ident, sequence) + data
    icmp = icmp[:2] + struct.pack(">H", checksum(icmp)) + icmp[4:]
    head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(icmp), 1, 0, 64, 1, 0)
    head += socket.inet_aton(source) + socket.inet_aton(destination)
    return head[:10] + struct.pack(">H", checksum(head)) + head[12:] + icmp


class WireguardGo:
    """A wireguard-go in this process's namespace; ended on exit."""

    def __init__(self, name, settings):
        self.process = subprocess.Popen(["wireguard-go", "-f", name], stdout=subprocess.DEVNULL,
                                        stderr=subprocess.DEVNULL)
        path = f"/var/run/wireguard/{name}.sock"
        for _ in range(100):
            if os.path.exists(path):
                break
            time.sleep(0.05)
        with socket.socket(socket.AF_UNIX) as uapi:
            uapi.settimeout(5)
            uapi.connect(path)
            uapi.sendall(("set=1\n" + "".join(f"{k}={v}\n" for k, v in settings) + "\n").encode())
            assert b"errno=0" in uapi.recv(4096)
        for command in (f"addr add {THEIRS}/24 dev {name}", f"link set {name} up"):
            subprocess.run(["ip", *command.split()], check=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(5)


def receive(udp, kind):
    """The next message of a type; a keepalive (32 bytes of transport data) is passed over."""
    while True:
        message, source = udp.recvfrom(2048)
        if message[0] == kind and len(message) != 32:
            return message, source


def python_initiates(udp, psk):
    public = noise.x25519(noise.RESP_STATIC)
    settings = [("private_key", noise.RESP_STATIC.hex()), ("listen_port", THEIR_PORT),
                ("public_key", noise.x25519(noise.INIT_STATIC).hex()), ("preshared_key", psk.hex()),
                ("allowed_ip", OURS + "/32")]
    with WireguardGo(f"wmr{os.getpid()}", settings):
        handshake = noise.Handshake(public)
        initiation = handshake.write_initiation(noise.INIT_STATIC, noise.INIT_EPHEMERAL, SENDER_I,
                                                noise.TIMESTAMP)
        udp.sendto(initiation, ("127.0.0.1", THEIR_PORT))
        response, _ = receive(udp, 2)
        index = handshake.read_response(noise.INIT_STATIC, noise.INIT_EPHEMERAL, response, psk)
        send, recv = handshake.keys()
        request = echo_packet(8, OURS, THEIRS, 0x2707, 1, b"wiremesh asks wireguard-go")
        sent = noise.write_data(send, index, 0, request)
        udp.sendto(sent, ("127.0.0.1", THEIR_PORT))
        received, _ = receive(udp, 4)
        reply = noise.read_data(recv, received)
        assert reply[20] == 0 and reply[24:28] == request[24:28], "not an echo reply"
    yield "init_static", noise.INIT_STATIC
    yield "init_ephemeral", noise.INIT_EPHEMERAL
    yield "init_sender", struct.pack(">L", SENDER_I)
    yield "init_timestamp", noise.TIMESTAMP
    yield "resp_public", public
    yield "psk", psk
    yield "initiation", initiation
    yield "response", response
    yield from transport(send, recv, request, sent, reply, received)


def wireguard_go_initiates(udp, psk):
    settings = [("private_key", noise.INIT_STATIC.hex()), ("listen_port", THEIR_PORT),
                ("public_key", noise.x25519(noise.RESP_STATIC).hex()), ("preshared_key", psk.hex()),
                ("endpoint", "127.0.0.1:%d" % udp.getsockname()[1]), ("allowed_ip", OURS + "/32")]
    with WireguardGo(f"wmr{os.getpid()}", settings):
        ping = subprocess.Popen(["ping", "-c", "1", "-W", "5", OURS], stdout=subprocess.DEVNULL)
        initiation, source = receive(udp, 1)
        handshake = noise.Handshake(noise.x25519(noise.RESP_STATIC))
        index = handshake.read_initiation(noise.RESP_STATIC, initiation)
        response = handshake.write_response(noise.RESP_EPHEMERAL, SENDER_R, index, psk)
        udp.sendto(response, source)
        received, _ = receive(udp, 4)
        recv, send = handshake.keys()
        request = noise.read_data(recv, received)
        length = struct.unpack(">H", request[2:4])[0]
        ident, sequence = struct.unpack(">HH", request[24:28])
        reply = echo_packet(0, OURS, THEIRS, ident, sequence, request[28:length])
        sent = noise.write_data(send, index, 0, reply)
        udp.sendto(sent, source)
        assert ping.wait(10) == 0, "the real ping did not accept our answer"
    yield "resp_static", noise.RESP_STATIC
    yield "resp_ephemeral", noise.RESP_EPHEMERAL
    yield "resp_sender", struct.pack(">L", SENDER_R)
    yield "init_public", handshake.initiator_public
    yield "init_timestamp", handshake.timestamp
    yield "psk", psk
    yield "initiation", initiation
    yield "response", response
    yield from transport(send, recv, reply, sent, request, received)


def transport(send, recv, packet_sent, sent, packet_received, received):
    yield "our_sealing_key", send
    yield "our_opening_key", recv
    yield "our_packet", packet_sent
    yield "our_transport_data", sent
    yield "their_packet_padded", packet_received
    yield "their_transport_data", received


def version():
    text = subprocess.run(["wireguard-go", "--version"], capture_output=True, text=True).stdout
    return re.search(r"wireguard-go (\S+)", text)[1]


HEADER = """\
# Exchanges with the real wireguard-go {version}, recorded by interop/record/wireguard_go.py.  Hex, one value a line.
# "our" and "their" are seen from the recording program, whose keys are fixed: its messages come out byte for byte.
# python_initiates: their response and their_transport_data must be accepted.  wireguard_go_initiates: their initiation
# and their_transport_data.  "sender" is the index as a number; a "_padded" packet ends in WireGuard's zero padding.
"""


def record(output):
    noise.self_check()
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    text = HEADER.format(version=version())
    for run in (python_initiates, wireguard_go_initiates):
        for psk in (bytes(32), noise.PSK):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
                udp.bind(("127.0.0.1", 0))
                udp.settimeout(10)
                section = run.__name__ + ("_psk" if any(psk) else "")
                text += "\n" + "".join(f"{section}.{k} = {v.hex()}\n" for k, v in run(udp, psk))
            print("recorded", section, flush=True)
    output.write_text(text)
    print("wrote", output)


if __name__ == "__main__":
    root = pathlib.Path(__file__).resolve().parents[2]
    default = root / "crates/noise/tests/vectors/wireguard_go_handshake.txt"
    target = pathlib.Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else default
    if os.environ.get("WIREMESH_RECORD_INSIDE") != "1":
        if os.geteuid() != 0:
            sys.exit("needs root: it makes a network namespace and a TUN device")
        os.environ["WIREMESH_RECORD_INSIDE"] = "1"
        os.execvp("unshare", ["unshare", "-n", sys.executable, __file__, str(target)])
    record(target)
