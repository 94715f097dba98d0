#!/usr/bin/env python3
"""Writes netlink messages of the kernel's WireGuard, with code that shares nothing with the crate.

Run in this directory: python3 wireguard.py > wireguard.txt
Written from linux/netlink.h, linux/genetlink.h, linux/if_link.h and linux/wireguard.h, for a
little-endian host. The number of the family is 0x1d, the interface has index 7.
Each line of the output: name = hex.
"""

import ipaddress
import struct

FAMILY, INDEX = 0x1D, 7
NLM_F_REQUEST, NLM_F_ACK, NLM_F_EXCL, NLM_F_CREATE = 1, 4, 0x200, 0x400
NLM_F_DUMP = 0x300
NLA_F_NESTED = 0x8000


def attribute(kind, value):
    return struct.pack("<HH", 4 + len(value), kind) + value + b"\0" * (-len(value) % 4)


def nest(kind, *values):
    return attribute(kind | NLA_F_NESTED, b"".join(values))


def message(kind, flags, body):
    return struct.pack("<IHHII", 16 + len(body), kind, flags | NLM_F_REQUEST, 0, 0) + body


def generic(command, flags, *attributes, kind=FAMILY):
    return message(kind, flags, struct.pack("<BBH", command, 1, 0) + b"".join(attributes))


def endpoint(text, port):
    address = ipaddress.ip_address(text)
    if address.version == 4:
        return struct.pack("<H", 2) + struct.pack(">H", port) + address.packed + bytes(8)
    return struct.pack("<H", 10) + struct.pack(">HI", port, 0) + address.packed + bytes(4)


def allowed_ips(*nets):
    all_nets = map(ipaddress.ip_network, nets)
    return nest(
        9,
        *(
            nest(
                0,
                attribute(1, struct.pack("<H", 2 if net.version == 4 else 10)),
                attribute(2, net.network_address.packed),
                attribute(3, bytes([net.prefixlen])),
            )
            for net in all_nets
        ),
    )


def u16(value):
    return struct.pack("<H", value)


def u32(value):
    return struct.pack("<I", value)


def u64(value):
    return struct.pack("<Q", value)


device = attribute(1, u32(INDEX))
secret, psk, a, b = (bytes([x]) * 32 for x in (0x51, 0x52, 0xA1, 0xB2))
name = attribute(3, b"wm0\0")


def say(case, data):
    print(case, "=", data.hex())


kind = nest(18, attribute(1, b"wireguard\0"))
say("create", message(16, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, bytes(16) + name + kind))
say("family", generic(3, NLM_F_ACK, attribute(2, b"wireguard\0"), kind=16))
say("get", generic(0, NLM_F_DUMP, device))
settings = [attribute(3, secret), attribute(6, u16(51820))]
say("set", generic(1, NLM_F_ACK, device, *settings))
peer = [
    attribute(1, a),
    attribute(2, psk),
    attribute(4, endpoint("192.0.2.1", 51821)),
    attribute(5, u16(25)),
    attribute(3, u32(2)),
    allowed_ips("fd77:6d80::1/128", "10.1.0.0/16"),
]
say("peer", generic(1, NLM_F_ACK, device, nest(8, nest(0, *peer))))
peer = [attribute(1, b), attribute(4, endpoint("2001:db8::9", 9)), attribute(3, u32(2)), nest(9)]
say("peer without addresses", generic(1, NLM_F_ACK, device, nest(8, nest(0, *peer))))
removal = nest(0, attribute(1, a), attribute(3, u32(5)))
addition = nest(0, attribute(1, a), attribute(2, psk), attribute(3, u32(2)), allowed_ips("10.1.0.0/16"))
say("replacement", generic(1, NLM_F_ACK, device, nest(8, removal, addition)))
say("remove", generic(1, NLM_F_ACK, device, nest(8, removal)))

# What the kernel answers, in two messages: the second goes on with the last peer of the first.
state = [
    attribute(6, u16(51820)),
    attribute(7, u32(0)),
    device,
    attribute(2, b"wm0\0"),
    attribute(3, secret),
    attribute(4, bytes([0x61]) * 32),
]


def known(key, *more):
    return nest(
        0,
        attribute(1, key),
        attribute(2, psk),
        attribute(6, struct.pack("<qq", 1_700_000_000, 250_000_000)),
        attribute(5, u16(25)),
        attribute(8, u64(2**40)),
        attribute(7, u64(3)),
        attribute(10, u32(1)),
        *more,
    )


first = known(a, attribute(4, endpoint("192.0.2.1", 51821)), allowed_ips("fd77:6d80::1/128"))
second = known(b, allowed_ips("10.1.0.0/16"))
head = struct.pack("<BBH", 0, 1, 0)
say("answer 1", head + b"".join(state) + nest(8, first, second))
rest = nest(0, attribute(1, b), allowed_ips("2001:db8::/32", "0.0.0.0/0"))
say("answer 2", head + device + attribute(2, b"wm0\0") + nest(8, rest))
