#!/usr/bin/env python3
"""Computes the known answers for crates/wire with Python's hashlib and base64 only.

Run in this directory: python3 make_vectors.py > vectors.txt
It shares no code with the crate: bits are cut out of strings of '0' and '1'.
Each line is a kind, its inputs and its outputs, separated by spaces; "-" is the empty text.
"""

import base64
import hashlib
import ipaddress

# Public keys: the base point, and Alice's and Bob's from RFC 7748, section 6.1.
KEYS = [
    "09" + "00" * 31,
    "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a",
    "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f",
]


def blake2s(data):
    return hashlib.blake2s(data, digest_size=32).digest()


def address(prefix, context, key):
    prefix_bits = format(int(ipaddress.IPv6Address(prefix)), "0128b")[:25]
    digest = blake2s(context + key)
    digest_bits = "".join(format(byte, "08b") for byte in digest)
    return ipaddress.IPv6Address(int(prefix_bits + digest_bits[:103], 2))


def base32(data):
    return base64.b32encode(data).decode().rstrip("=").lower()


def endpoint(host, port):
    try:
        ip = ipaddress.ip_address(host)
        head = bytes([ip.version]) + ip.packed
    except ValueError:
        head = bytes([1, len(host)]) + host.encode()
    return head + port.to_bytes(2, "big")


def ticket(key, network, endpoints, relays, secret):
    body = bytes([1, (1 if network else 0) | (2 if secret else 0)]) + key
    if network:
        body += blake2s(b"wiremesh network v1" + network.encode())
    for group in (endpoints, relays):
        body += bytes([len(group)]) + b"".join(endpoint(*e) for e in group)
    body += secret
    return "wm" + base32(body + blake2s(body)[:4])


def on_curve(u):
    """Euler's criterion for u^3 + 486662 u^2 + u; zero counts as a square."""
    prime = 2**255 - 19
    square = (u**3 + 486662 * u**2 + u) % prime
    return pow(square, (prime - 1) // 2, prime) != prime - 1


def ones_complement(data):
    if len(data) % 2:
        data += b"\0"
    total = 0
    for index in range(0, len(data), 2):
        total += data[index] * 256 + data[index + 1]
        total = total % 65536 + total // 65536
    return 65535 - total


def ip_packet(source, destination, protocol, ecn, payload):
    source, destination = ipaddress.ip_address(source), ipaddress.ip_address(destination)
    ends = source.packed + destination.packed
    if source.version == 6:
        head = bytes([0x60, ecn * 16, 0, 0]) + len(payload).to_bytes(2, "big")
        return head + bytes([protocol, 64]) + ends + payload
    head = bytes([0x45, ecn]) + (20 + len(payload)).to_bytes(2, "big")
    head += bytes([0, 0, 0x40, 0, 64, protocol])
    return head + ones_complement(head + b"\0\0" + ends).to_bytes(2, "big") + ends + payload


def pseudo(source, destination, protocol, payload):
    ends = ipaddress.ip_address(source).packed + ipaddress.ip_address(destination).packed
    return ends + len(payload).to_bytes(4, "big") + protocol.to_bytes(4, "big") + payload


def udp_packet(source, source_port, destination, destination_port, ecn, payload):
    length = 8 + len(payload)
    ports = source_port.to_bytes(2, "big") + destination_port.to_bytes(2, "big")
    ports += length.to_bytes(2, "big")
    covered = pseudo(source, destination, 17, ports + b"\0\0" + payload)
    check = ones_complement(covered) or 65535
    return ip_packet(
        source, destination, 17, ecn, ports + check.to_bytes(2, "big") + payload
    )


def echo_packet(request, source, destination, ident, seq, data):
    rest = ident.to_bytes(2, "big") + seq.to_bytes(2, "big") + data
    if ipaddress.ip_address(source).version == 4:
        head, protocol = bytes([8 if request else 0, 0]), 1
        check = ones_complement(head + b"\0\0" + rest)
    else:
        head, protocol = bytes([128 if request else 129, 0]), 58
        check = ones_complement(pseudo(source, destination, 58, head + b"\0\0" + rest))
    return ip_packet(source, destination, protocol, 0, head + check.to_bytes(2, "big") + rest)


def packets():
    ends = [("192.0.2.1", "198.51.100.255"), ("fd77:6d00::1", "fd77:6d7f:ffff::2")]
    payloads = [b"", b"\x00", b"odd", b"even", bytes(range(256)) * 5]
    for source, destination in ends:
        for ecn, payload in enumerate(payloads):
            ecn %= 4
            case = (source, 2707, destination, 65535, ecn, payload)
            print("udp", *case[:5], payload.hex() or "-", udp_packet(*case).hex())
        # The smallest payload whose sum is zero, which goes out as ffff.
        for value in range(65536):
            payload = value.to_bytes(2, "big")
            case = (source, 1, destination, 2, 0, payload)
            packet = udp_packet(*case)
            if packet[-4:-2] == b"\xff\xff":
                print("udp", *case[:5], payload.hex(), packet.hex())
                break
        for payload in payloads:
            for request in (1, 0):
                case = (request, source, destination, 0x1234, 65535, payload)
                print("echo", *case[:5], payload.hex() or "-", echo_packet(*case).hex())


def show(endpoints):
    return ",".join(f"[{h}]:{p}" if ":" in h else f"{h}:{p}" for h, p in endpoints) or "-"


def main():
    for text in KEYS:
        key = bytes.fromhex(text)
        print("key", text, base64.b64encode(key).decode(), base32(key))
        print(
            "address",
            text,
            address("fd77:6d00::", b"wiremesh address v1", key),
            address("fd77:6d80::", b"wiremesh control v1", key),
        )
    for name in ["", "home", "größer"]:
        print("network", name or "-", blake2s(b"wiremesh network v1" + name.encode()).hex())
    for u in list(range(2, 41)) + [2**255 - 20, 2**255 - 21, 2**255 - 28]:
        print("point", u.to_bytes(32, "little").hex(), int(on_curve(u)))
    packets()
    for seconds, nanos in [(0, 0), (1, 1), (1_700_000_000, 123_456_789), (2**62, 999_999_999)]:
        label = (0x400000000000000A + seconds).to_bytes(8, "big") + nanos.to_bytes(4, "big")
        print("tai64n", seconds, nanos, label.hex())
    four = [("192.0.2.1", 51820), ("2001:db8::1", 1), ("host.example", 65535)]
    cases = [
        (0, "", [], [], b""),
        (1, "", four[:1], [], b""),
        (2, "home", four, four[2:], bytes(range(16))),
        (1, "", four[:2] * 8, four[1:] * 4, b""),
    ]
    for index, network, endpoints, relays, secret in cases:
        text = ticket(bytes.fromhex(KEYS[index]), network, endpoints, relays, secret)
        print(
            "ticket",
            KEYS[index],
            network or "-",
            show(endpoints),
            show(relays),
            secret.hex() or "-",
            text,
        )


if __name__ == "__main__":
    main()
