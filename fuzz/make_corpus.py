#!/usr/bin/env python3
"""Writes the first inputs of the fuzz targets: python3 fuzz/make_corpus.py

Each is a small valid case, from which libFuzzer goes on. It shares no code with what it feeds.
The inputs of `node`, `quic_handshake`, `simulation`, `control_machine` and `gossip` are programs, as are some
of `control_messages`: see `fuzz/src/TARGET.rs`.
Files that a search found and that were added by hand have other names and stay.
"""

import base64
import hashlib
import ipaddress
import pathlib
import struct

HERE = pathlib.Path(__file__).parent / "corpus"
# The first public key of RFC 7748, section 6.1.
NODE_ID = bytes.fromhex("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a")


def write(target, **inputs):
    folder = HERE / target
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in inputs.items():
        data = data.encode() if isinstance(data, str) else data
        (folder / name.replace("_", "-")).write_bytes(data)


def counting(length):
    return bytes(i & 0xFF for i in range(length))


def checksum(data):
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def ipv4(protocol, payload, source=b"\x0a\0\0\1", destination=b"\x0a\0\0\2", options=b""):
    words = 5 + len(options) // 4
    head = struct.pack(">BBHHHBBH", 0x40 | words, 1, words * 4 + len(payload), 0, 0x4000, 64, protocol, 0)
    head += source + destination + options
    head = head[:10] + struct.pack(">H", checksum(head)) + head[12:]
    return head + payload


def ipv6(protocol, payload, source, destination):
    return struct.pack(">IHBB", 0x60000000, len(payload), protocol, 64) + source + destination + payload


def with_sum(payload, at, pseudo=b""):
    total = struct.pack(">H", checksum(pseudo + payload))
    return payload[:at] + total + payload[at + 2 :]


def ip():
    a, b = bytes.fromhex("fd776d00" + "11" * 12), bytes.fromhex("fd776d00" + "22" * 12)
    data = b"ping data"
    pseudo6 = lambda protocol, payload: a + b + struct.pack(">II", len(payload), protocol)
    udp = struct.pack(">HHHH", 2708, 2708, 8 + len(data), 0) + data
    pseudo4 = b"\x0a\0\0\1\x0a\0\0\2" + struct.pack(">BBH", 0, 17, len(udp))
    request4 = with_sum(struct.pack(">BBHHH", 8, 0, 0, 7, 1) + data, 2)
    request6 = struct.pack(">BBHHH", 128, 0, 0, 7, 1) + data
    write(
        "ip",
        ipv4_udp=ipv4(17, with_sum(udp, 6, pseudo4)),
        ipv4_udp_no_sum=ipv4(17, udp),
        ipv4_options=ipv4(17, udp, options=b"\1\1\1\0"),
        ipv6_udp=ipv6(17, with_sum(udp, 6, pseudo6(17, udp)), a, b),
        ipv6_udp_padded=ipv6(17, with_sum(udp, 6, pseudo6(17, udp)), a, b) + b"\0" * 7,
        ipv4_echo=ipv4(1, request4),
        ipv6_echo=ipv6(58, with_sum(request6, 2, pseudo6(58, request6)), a, b),
        ipv6_empty=ipv6(59, b"", a, b),
    )


def base32(data):
    return base64.b32encode(data).decode().lower().rstrip("=")


def ticket_text(body):
    return "wm" + base32(body + hashlib.blake2s(body).digest()[:4])


def tickets():
    layout = (HERE.parent.parent / "crates/wire/src/ticket.rs").read_text()
    number = lambda name: int(layout.split(f"const {name}: u8 = ")[1].split(";")[0], 0)
    kind4, kind6, host = number("KIND_IPV4"), number("KIND_IPV6"), number("KIND_HOST")
    version = number("VERSION")
    port = struct.pack(">H", 51820)
    v4 = bytes([kind4]) + b"\xc0\0\2\1" + port
    v6 = bytes([kind6]) + bytes.fromhex("20010db8" + "00" * 11 + "01") + port
    name = bytes([host, 12]) + b"host.example" + port
    plain = bytes([version, 0]) + NODE_ID + b"\0\0"
    full = bytes([version, number("FLAG_NETWORK") | number("FLAG_SECRET")]) + NODE_ID + counting(32)
    full += b"\3" + v4 + v6 + name + b"\1" + v4 + counting(16)
    write(
        "ticket",
        plain=ticket_text(plain),
        upper_case=ticket_text(plain).upper(),
        full=ticket_text(full),
        spaced="  " + ticket_text(full)[:40] + "\n" + ticket_text(full)[40:] + "\n",
        cut=ticket_text(full)[:-9],
        damaged=ticket_text(plain)[:-1] + "x",
        extra=ticket_text(plain + b"\0"),
    )


def texts():
    key = base64.b64encode(NODE_ID).decode()
    write(
        "text",
        ipv4="192.0.2.1:51820",
        ipv6="[2001:db8::1]:51820",
        host="host.example:51820",
        zone="[fe80::1%2]:51820",
        net4="10.0.0.7/24",
        net6="fd77:6d00::/25",
        net_all="::/0",
        key=key,
        key_spaced=f"  {key}\n",
        key_small=base64.b64encode(b"\1" + bytes(31)).decode(),
        base32=base32(NODE_ID),
        bytes=NODE_ID,
    )


def messages():
    head = lambda kind, length: struct.pack("<I", kind) + counting(length - 4)
    write(
        "message",
        initiation=head(1, 148),
        response=head(2, 92),
        cookie_reply=head(3, 64),
        keepalive=head(4, 32),
        transport_data=head(4, 80),
        reserved_bytes=struct.pack("<I", 0x101) + counting(144),
    )


def quic():
    hello = b"\2\1a\1b" + struct.pack(">H", 3) + b"\4\1\x09"
    message = lambda kind, body: struct.pack(">BBH", 1, kind, len(body)) + body
    block = lambda data: bytes([len(data)]) + data
    client_hello = message(1, hello)
    server_hello = message(2, b"\1\1a")
    # Operations: 0 deliver, 1 lose, 2 repeat, 3 change, 4 insert, 5 CRYPTO frame, 6 any datagram,
    # 7 wait; with 0x80 from the server.
    client, server = bytes([0]), bytes([0x80])
    both = (client + server) * 6
    write(
        "quic_handshake",
        session=b"\1" + block(client_hello) + block(message(4, b"")),
        session_in_pieces=b"\1" + block(client_hello[:3]) + block(client_hello[3:7]) + block(client_hello[7:]),
        session_unknown_protocol=b"\1" + block(message(1, b"\1\1z" + b"\0\0")),
        handshake=b"\0\0" + both,
        handshake_second_protocol=b"\0\2" + both,
        no_protocol=b"\0\3" + both,
        lossy=b"\0\0" + b"\1\7\xff\3" + client + b"\x81\7\xff\3" + both,
        repeated=b"\0\1" + b"\2\0\x82\x80" * 4,
        changed=b"\0\0" + b"\3\x20\0" + block(b"\xff\xff") + both,
        inserted=b"\0\0" + b"\4\x30\0" + block(b"\6\0") + both,
        forged_hello=b"\0\0" + client + b"\x85\0\1\0" + block(server_hello) + both,
        junk=b"\0\0" + b"\6" + block(b"\xc0\x77\x6d\0\1" + counting(40)) + both,
    )


def nodes():
    # Settings: 0 allow list, 2 allow all, 3 ask; +4 tight limits, +8 no endpoint, +16 one more.
    # Operations: 0 deliver, 3 deliver with change, 4 lose, 5 packet, 7 connect, 8 and 9 wait,
    # 10 inject, 11 change, 12 wall clock, 13 from elsewhere; the top two bits say which node.
    one, two, three = 0x40, 0x80, 0xC0
    session = bytes([one | 7, 0, 0, 0, 0, 0])
    packet = bytes([one | 5, 0, 0, 5, 1, 0, 0])
    rekey = bytes([9, 0x98, 0x3A]) + packet + b"\0\0\0\0" + packet
    write(
        "node",
        session=b"\0" + session + packet,
        rekey=b"\0" + session + packet + rekey,
        both_at_once=b"\0" + bytes([7, 1, one | 7, 0]) + b"\0" * 8 + packet,
        stranger_refused=b"\0" + bytes([two | 7, 0, 0, 0]),
        stranger_admitted=b"\2" + bytes([two | 7, 0, 0, 0, 0, two | 5, 0, 0, three | 7, 0, 0, 0]),
        stranger_asks=b"\3" + bytes([two | 7, 0, 0, 0, three | 7, 0, 0, 0, 9, 0, 8, 0, 0]),
        cookies=b"\6" + session + session + bytes([8, 255, 9, 255, 4]) + b"\0" * 8,
        roaming=b"\0" + session + bytes([one | 5, 0, 13, 1, 1, 5, 1, 0]),
        replay=b"\0" + session + bytes([one | 5, 0, 3, 0, 0, 1, one | 5, 0, 3, 0, 0, 2, 0, 0]),
        damaged=b"\0" + bytes([one | 7, 0, 3, 20, 0, 1, 9, 0, 3, 0, 0, 3, 90, 0, 7]) + packet,
        psk=b"\0" + session + bytes([0x0B, 0x51, one | 11, 0x11]) + rekey,
        keepalive=b"\0" + session + bytes([11, 0x42, 9, 0, 4, 0, 0, 0, 12, 0, 4, 1, 9, 0, 4]),
        junk=b"\2" + bytes([10, 9, 8, 1, 0, 0, 0, 1, 2, 3, 4, 10, 9, 8, 4, 0, 0, 0, 1, 2, 3, 4]),
    )
    # +32 the control protocol, with a policy for each node; +64 a stranger needs a proof.
    both, l2, old, new, static = 2, 10, 0, 3, 14
    talk = bytes([2] * 30)
    policies = lambda *four: bytes(four)
    write(
        "node",
        control=b"\x20" + policies(l2, l2, l2, l2) + bytes([one | 7, 0]) + talk + packet,
        control_static=b"\x20" + policies(static, static, l2, l2) + bytes([one | 7, 0]) + talk * 3 + packet,
        control_old=b"\x20" + policies(both, old, old, new) + bytes([one | 7, 0]) + talk + packet,
        control_upgrade=b"\x20" + policies(old, old, l2, l2) + bytes([one | 7, 0]) + talk + packet
        + bytes([11, 0x46, both]) + talk + bytes([one | 11, 6, both]) + talk + packet + bytes([11, 0x46, new]) + talk,
        control_stranger=b"\x60" + policies(l2, l2, l2, l2) + bytes([two | 7, 0]) + talk * 2 + bytes([two | 5, 0, 0, 0]),
        control_restart=b"\x20" + policies(l2, l2, l2, l2) + bytes([one | 7, 0]) + talk + packet
        + bytes([14, 1, 7, 1]) + talk + packet + bytes([one | 14, 1, 7, 1]) + talk * 2 + packet,
        control_rotation=b"\x20" + policies(l2, l2, l2, l2) + bytes([one | 7, 0]) + talk + packet
        + (bytes([9, 0x98, 0x3A]) + packet + talk) * 2,
        # Found by fuzzing: only a session that cannot be sealed with is left, and A wants to offer.
        control_unconfirmed=bytes.fromhex(
            "2002020202020209024500000501000009983a4502020202fefd0202020202020200000000020202"
            "0202020202020247dab6ae5200470202020647000501050501000000000000470059a88700003c00"
            "02"
        ),
    )


def simulations():
    # Seed, time of chaos, script.
    write(
        "simulation",
        calm=b"\1\0\0",
        short=b"\2\0\x28",
        twice=b"\3\0\x2b",
        scripted=b"\4\0\x50" + counting(64),
        long=b"\5\1\xf0" + counting(16),
    )


def configs():
    key = base64.b64encode(NODE_ID).decode()
    secret = base64.b64encode(counting(32)).decode()
    plain = bytes([1, 0]) + NODE_ID + b"\0\0"
    write(
        "config",
        minimal='[node]\nkey = "key"\n',
        full=f'''[node]
key = "key"
listen = ["0.0.0.0:51820", "[::]:51820"]
network = "home"
admission = "allow-all"
provisional-max = 10
addresses = ["10.0.0.1"]
advertise = ["host.example:51820"]
mtu = 1420
state-dir = "state"
control-socket = "control.sock"
log = "info"

[echo]
udp-port = 7

[[peer]]
name = "laptop"
id = "{key}"
endpoint = "192.0.2.1:51820"
preshared-key-file = "key"
allowed-ips = ["10.0.0.0/24", "fd00::/64"]
keepalive = 25
stock = true
''',
        ticket=f'[node]\nkey = "key"\n[[peer]]\nticket = "{ticket_text(plain)}"\n',
        unknown_field='[node]\nkey = "key"\nlissten = []\n',
        overlap=f'''[node]
key = "key"
[[peer]]
id = "{key}"
allowed-ips = ["fd77:6d00::/24"]
''',
        wg=f'''[Interface]
PrivateKey = {secret}
ListenPort = 51820
Address = 10.0.0.1/24, fd00::1/64
MTU = 1420
DNS = 10.0.0.53
PostUp = echo

# A comment
[Peer]
PublicKey = {key}
PresharedKey = {secret}
AllowedIPs = 10.0.0.2/32, ::/0
Endpoint = [2001:db8::1]:51820
PersistentKeepalive = 25
''',
        wg_minimal=f"[interface]\nprivatekey={secret}\n",
    )


def suite_list(suites):
    return bytes([len(suites)]) + b"".join(struct.pack(">H", suite) for suite in suites)


def tlv(kind, value):
    return struct.pack(">BH", kind, len(value)) + value


def record(level=1, suites=(2, 1), fields=b"", hash_of_key=bytes(32)):
    """Everything before the signature."""
    times = struct.pack(">QQQ", 1_700_000_000, 1_700_000_000, 1_700_086_400)
    return b"\1" + bytes(32) + times + struct.pack(">HB", level, 1) + hash_of_key + suite_list(suites) + fields


def control_messages():
    ek, ct, share = counting(1184), counting(1088), counting(32)
    network = tlv(2, bytes(8))
    signed = record() + bytes(64)
    head = lambda suites, level=1: struct.pack(">H", level) + suite_list(suites) + struct.pack(">Q", 7) + bytes(32)
    nonce_and_epoch = counting(16) + struct.pack(">I", 1)
    offer = nonce_and_epoch + head([2, 1]) + b"\1" + share
    offer_static = nonce_and_epoch + head([3, 2, 0x1A2A, 1], 3) + b"\3" + share
    reply = counting(16) + head([2, 1]) + b"\0\2" + b"\1" + share
    reply_static = counting(16) + head([3, 2]) + b"\0\3" + b"\3" + share
    block = lambda data: bytes([len(data)]) + data
    tlvs = network + tlv(1, signed)
    # Frames: 0 built from how, total and number, or 1 a block; a time is in front of each.
    built = lambda how, total, number, time=0: bytes([how, time]) + struct.pack("<H", total) + bytes([number])
    raw = b"\1\1\0\1" + bytes(8) + b"\0\0\0\0"
    write(
        "control_messages",
        frames=b"\0" + built(0, 2100, 0) + built(0, 2100, 1) + built(0, 2100, 2),
        frames_reversed=b"\0" + built(0, 3000, 2) + built(0, 3000, 1) + built(0, 3000, 0),
        frames_largest=b"\0" + b"".join(built(0, 8192, n) for n in range(8)),
        frames_of_two=b"\0" + built(0, 2000, 0) + built(8, 2000, 0) + built(0, 2000, 1) + built(8, 2000, 1),
        frames_twice=b"\0" + built(0, 2000, 0) * 2 + built(0, 2000, 1),
        frames_inconsistent=b"\0" + built(0, 2000, 0) + built(0, 2001, 1) + built(0, 2000, 1),
        frames_late=b"\0" + built(0, 2000, 0) + built(0, 2000, 1, 157),
        frames_beyond=b"\0" + built(2, 8193, 8) + built(2, 100, 1),
        frames_damaged=b"\0" + built(0x80, 900, 0) + b"\x0c\1" + b"\1\0" + block(raw),
        record=b"\1" + record(),
        record_fields=b"\1" + record(fields=tlv(1, counting(18)) + tlv(2, NODE_ID) + tlv(200, b"")),
        record_static=b"\1" + record(3, (3, 2, 1), hash_of_key=NODE_ID),
        record_unknown_suites=b"\1" + record(2, range(256, 272)),
        record_field_twice=b"\1" + record(fields=tlv(9, b"a") + tlv(9, b"b")),
        record_unsigned=b"\2" + signed,
        offer=bytes([16 + 2]) + offer + ek + tlvs,
        reply=bytes([16 + 3]) + reply + ct + tlvs + counting(96),
        fin=bytes([16 + 4]) + counting(96),
        live=bytes([16 + 6]) + counting(36),
        abort=bytes([16 + 7]) + struct.pack(">HHB", 2, 2, 0),
        abort_with_mac=bytes([16 + 7]) + struct.pack(">HHB", 3, 2, 1) + counting(32) + tlv(1, signed),
        key=bytes([16 + 9]) + struct.pack(">H", len(signed)) + signed,
        offer_filled=bytes([32]) + block(offer) + b"\0" + tlvs,
        offer_filled_static=bytes([32]) + block(offer_static) + b"\3" + struct.pack("<H", 4096) + tlvs + tlv(77, b"?"),
        reply_filled=bytes([33]) + block(reply) + b"\0" + tlvs,
        reply_filled_static=bytes([33]) + block(reply_static) + b"\3" + struct.pack("<H", 4097) + tlvs,
        key_filled=bytes([34]) + block(struct.pack(">H", len(signed)) + signed),
    )


def control_machines():
    # Policies: stage (0 old, 1 prefer old, 2 both, 3 new) + 4 static key + 8 or 16 minimum L2, L3.
    # Settings: 1 and 4 A and B need a proof, 2 and 8 a minimum; 16 busy, 32 meet, 64 converge.
    # Operations: 0 deliver, 1 lose, 2 repeat, 3 later, 4 settle, 5 handshake, 6 and 7 time, 8 crash,
    # 9 policy, 10 repeat a message, 11 a new one, 12 the owner, 13 forged session, 14 a rogue,
    # 15 a frame; plus 16 times how, plus 0x80 for B.
    both, default, old, new, static, l3 = 2, 10, 0, 3, 14, 22
    b, settle, handshake = 0x80, b"\4", b"\5"
    a_minute = bytes([7]) + struct.pack("<H", 600)
    lies = bytes([1, 2, 1, 1, 1, 0])
    write(
        "control_machine",
        up=bytes([default, default, 0x70]),
        step_by_step=bytes([default, default, 0]) + handshake + b"\0" * 16,
        static_keys=bytes([static, static, 0x70]),
        static_of_one=bytes([static, default, 0x70]),
        l3_demanded=bytes([l3, l3, 0x70]),
        old=bytes([both, old, 0x70]),
        refused=bytes([new, old, 0x70]),
        rotation=bytes([default, default, 0x70]) + a_minute * 18,
        lost_fin=bytes([default, default, 0x50]) + handshake + b"\0\0\0\0\0\1\1" + bytes([6, 20]) + settle,
        stages=bytes([old, old, 0x70])
        + bytes([9, both, 4, b | 9, both, 4, 9, old, 4, 9, both, 4, b | 9, new, 4, 9, new, 4]),
        crash_of_a=bytes([default, default, 0x70, 8, default]) + a_minute,
        crash_of_b=bytes([default, default, 0x70, b | 8, default]) + a_minute,
        replayed=bytes([default, default, 0x60]) + b"".join(bytes([b * (n & 1) | 10, n]) for n in range(12)),
        tampered=bytes([default, default, 0x60])
        + b"".join(bytes([b * (n & 1) | 0x1A, n, 40, 0, 1]) for n in range(8)),
        other_type=bytes([default, default, 0x60]) + b"".join(bytes([0x6A, 1, n]) for n in range(9)),
        forged_session=bytes([both, both, 0x70, 13, b | 13, 4]) + a_minute,
        forged_offer=bytes([both, both, 0x60, b | 0x1B, 1]) + lies + settle,
        forged_abort=bytes([default, default, 0]) + handshake + b"\0\0\x1B\6\5\0\2\0\2\0" + settle,
        rogue_a=bytes([both, both, 0x60, 0x1E]) + lies + settle,
        rogue_a_signs_l1=bytes([both, both, 0x60, 0x1E, 1, 1, 1, 1, 1, 0]) + settle,
        rogue_b=bytes([both, both, 0]) + handshake + bytes([0, b | 14, 0, 1, 2]) + settle,
        rogue_b_chooses_less=bytes([both | 4, both | 4, 0]) + handshake + bytes([0, b | 14, 0, 1, 6]) * 12 + settle,
        stranger_to_a=bytes([default, default, 0x71, 12, 4]),
        stranger_to_b=bytes([default, default, 0x74, b | 12, 4]),
        stranger_refused=bytes([default, default, 0x34, b | 0x1C, 4]),
        minimum=bytes([both, both, 0x7A, 0x2C, 2, 0, 4, b | 0x2C, 1, 0, 4]),
        old_record=bytes([both, both, 0x70, b | 9, new, 4, 0x3C, 0, 0x3C, 1, b | 9, both, 4]),
        pin_lowered=bytes([both, new, 0x70, b | 9, both, 0x4C, 0, 4]),
        clocks=bytes([static, static, 0x50, 0x5C, 0, 0x7F]) + handshake + settle,
        deaf=bytes([default, default, 0x70, 0x6C, 1, b | 0x6C, 1]) + a_minute * 4,
    )


def netadmin():
    ours = "fd77:6d00::1/128,fd77:6d80::1/128"
    routes = "fd77:6d00::/25,fd77:6d80::/25"
    key, secret, psk = "a1" * 32, "50" * 32, "52" * 32
    peer = f"1 peer {key}"
    figures = f"{key} [fe80::1%3]:51820 1700000000250000000 3 4"
    write(
        "netadmin",
        empty_interface="1 make wm0 1420  ",
        overlay=f"1 make wm0 1420 {ours} {routes}",
        ipv4=f"1 make wmabcdefghijk-9 1420 {ours},10.77.0.1/24 {routes},192.168.7.0/24",
        full=f"1 make wm- 65535 {','.join(['172.16.0.1/32'] * 8)} {','.join(['100.64.0.0/10'] * 64)}",
        wireguard=f"1 make wm0 1420 {ours} {routes} {secret} 51820",
        wireguard_any_port=f"1 make wm0 1420   {secret} 0",
        wireguard_limited=f"1 make wm0 1420   {secret} 0 9500000",
        slow=f"1 make wm0 1420   {secret} 0 7999",
        system_port=f"1 make wm0 1420   {secret} 53",
        name=f"1 make eth0 1420 {ours} {routes}",
        public=f"1 make wm0 1420 {ours} 8.8.8.0/24",
        host_bits=f"1 make wm0 1420 {ours} 10.0.0.1/24",
        peer=f"{peer} replace {psk} 192.0.2.1:51821 25 fd77:6d00::7/128,10.1.0.0/16",
        peer_unchanged=f"{peer} change - - - -",
        peer_without_addresses=f"{peer} change - [2001:db8::9]:9 0 ",
        peer_in_overlay=f"{peer} change - [fd77:6d00::2]:2708 - -",
        peer_public=f"{peer} change - - - 0.0.0.0/0",
        remove=f"1 remove {key}",
        read_figures="1 figures 128",
        done="1 done 7",
        figures=f"1 figures 51820 9 {figures} {key} - 0 0 0",
        refused="1 refused 10 10.0.0.0/8",
    )


def uapi():
    key, secret = NODE_ID.hex(), counting(32).hex()
    peer = f"public_key={key}\n"
    write(
        "uapi",
        interface=f"private_key={secret}\nlisten_port=51820\nfwmark=4096\nreplace_peers=true\n",
        none=f"private_key={'0' * 64}\nlisten_port=0\nfwmark=0\n",
        peer=f"{peer}preshared_key={secret}\nendpoint=192.0.2.1:51820\npersistent_keepalive_interval=25\n"
        "replace_allowed_ips=true\nallowed_ip=10.0.0.0/24\nallowed_ip=fd00::/64\nprotocol_version=1\n",
        peers=f"{peer}update_only=true\nendpoint=[fe80::1%2]:51820\n{peer}remove=true\n\nbehind the end",
        moved=f"{peer}allowed_ip=10.0.0.7/24\nallowed_ip=-10.0.0.0/24\nallowed_ip=+::/0\n",
        unknown=f"{peer}private_key={secret}\n",
        no_value="listen_port\n",
        signs=f"listen_port=+1\n{peer}persistent_keepalive_interval=-1\n",
    )


def socks5():
    v4, v6 = bytes([10, 0, 0, 2]), bytes.fromhex("fd776d00" + "22" * 12)
    port = struct.pack(">H", 443)
    write(
        "socks5",
        greeting=bytes([5, 2, 0, 2]),
        greeting_with_password=bytes([5, 1, 2]),
        greeting_version_4=bytes([4, 1]) + port + v4 + b"\0",
        connect_ipv4=bytes([5, 1, 0, 1]) + v4 + port,
        connect_ipv6=bytes([5, 1, 0, 4]) + v6 + port + b"GET",
        connect_name=bytes([5, 1, 0, 3, 6]) + b"laptop" + port,
        connect_empty_name=bytes([5, 1, 0, 3, 0]) + port,
        associate=bytes([5, 3, 0, 1]) + bytes(6),
        bind=bytes([5, 2, 0, 1]) + v4 + port,
        address_type=bytes([5, 1, 0, 2]) + v4 + port,
        datagram=bytes([0, 0, 0, 1]) + v4 + port + b"payload",
        datagram_name=bytes([0, 0, 0, 3, 6]) + b"laptop" + port + b"payload",
        datagram_fragment=bytes([0, 0, 1, 4]) + v6 + port + b"payload",
    )


def devices():
    # Settings: 1 a read of a device, else joined for TCP (2), UDP (4), given to a device that takes
    # joined TCP (8), UDP (16); 32 it refuses some.
    # Packets: flow in three bits (1 UDP, 2 IPv4, 4 the other port), a length; plus 8 TCP flags,
    # 16 a number of repetitions, 32 damage, 64 a gap behind; 0x80 any bytes.
    one = lambda how, length, *more: bytes([how]) + struct.pack("<H", length) + bytes(more)
    all_of_them = b"".join(one(16 | flow, 100, 5) for flow in range(8)) * 2
    a, b = bytes.fromhex("fd776d00" + "11" * 12), bytes.fromhex("fd776d00" + "22" * 12)
    vnet = lambda kind, size, start, offset: struct.pack("=BBHHHH", int(kind != 0), kind, 0, size, start, offset)
    tcp = struct.pack(">HHIIBBHHH", 4096, 8193, 0xFFFFFF00, 1, 0x50, 0x99, 256, 0, 0)
    udp = struct.pack(">HHHH", 4096, 8193, 8 + 1000, 0)
    data = counting(1000)
    read = lambda header, packet: b"\1" + header + packet
    write(
        "device",
        joined=b"\x1e" + all_of_them,
        large=b"\x1e" + one(16, 1400, 60) + one(17, 1400, 70),
        small=b"\x1e" + one(16, 1, 139) + one(17, 1, 139),
        not_joined=b"\0" + all_of_them,
        other_offloads=b"\x06" + all_of_them,
        refused=b"\x3e" + all_of_them,
        pushed=b"\x1e" + one(16, 100, 2) + one(8, 100, 0x18) + one(16, 100, 2) + one(8, 100, 0x11) + one(0, 0),
        damaged=b"\x1e" + one(16, 100, 2) + one(32, 100, 70, 0, 1) + one(16, 100, 2),
        gap=b"\x1e" + one(64 | 16, 100, 2, 9) + one(16, 100, 2),
        shorter=b"\x1e" + one(16, 100, 2) + one(0, 99) + one(16, 100, 2),
        any_bytes=b"\x1e\x80\x05hello" + one(0, 9) + b"\x80\x14" + ipv4(6, b"")[:20],
        read_one=read(vnet(0, 0, 0, 0), ipv6(17, udp + data, a, b)),
        read_tcp6=read(vnet(4, 300, 40, 16), ipv6(6, tcp + data, a, b)),
        read_tcp4=read(vnet(1, 300, 20, 16), ipv4(6, tcp + data)),
        read_tcp4_ecn=read(vnet(0x81, 300, 20, 16), ipv4(6, tcp + data)),
        read_udp=read(vnet(5, 300, 40, 6), ipv6(17, udp + data, a, b)),
        read_options=read(vnet(1, 300, 24, 16), ipv4(6, tcp + data, options=b"\1\1\1\0")),
        read_sum=read(struct.pack("=BBHHHH", 1, 0, 0, 0, 40, 6), ipv6(17, udp + data, a, b)),
        read_short=b"\1" + vnet(4, 300, 40, 16)[:7],
    )


def gossip():
    # One operation each: three bits of the neighbour, five of what it does; see the target.
    op = lambda kind, peer=1: bytes([peer << 5 | kind])
    message = lambda kind, peer=1, contact=1, class_=0, number=0, start=0, count=0, token=0: op(kind, peer) + bytes(
        [contact, class_, number, start, count, token]
    )
    small = op(9) + struct.pack("<HHB", 100, 600, 0)
    large = op(9) + struct.pack("<HHB", 40_000, 600, 2)
    neighbour = op(0) + message(13)
    tick = op(2) + struct.pack("<H", 1500)
    node = NODE_ID
    write(
        "gossip",
        bare_ping=b"\1\x08" + counting(8),
        bare_object=b"\1\x0a\0" + struct.pack(">QIQ", 2**40, 5, 1) + b"hello",
        bare_shuffle=b"\1\x06\3" + counting(8) + node + b"\4abcd",
        bare_have=b"\1\x0f" + counting(32) + struct.pack(">HH", 0, 4096),
        bare_near=b"\1\x03\2\0\x64\0",
        small=b"\0" + neighbour + small + message(28) + tick + message(28),
        judged=b"\2" + neighbour + small + message(28) + op(5) + b"\0" + tick,
        announced=b"\0" + neighbour + small + message(21) + tick + message(28),
        lacking=b"\0" + neighbour + small + message(21) + tick + message(24),
        large=b"\0" + neighbour + large + message(28) + message(25, start=0, count=2) + tick
        + b"".join(message(27, start=index) for index in range(3)),
        served=b"\0" + neighbour + op(4) + b"\2" + struct.pack("<HB", 50_000, 9) + message(26) + op(6) + b"\2\x20",
        expired=b"\0" + neighbour + small + message(28) + op(3) + b"\xff" + message(28),
        walk=b"\0" + neighbour + message(11, contact=5, token=0) + message(17, contact=4) + tick,
        left=b"\0" + neighbour + op(7) + tick + op(1),
        full=b"\0" + b"".join(op(0, peer) + message(13, peer) for peer in range(1, 8)) + tick * 4,
    )


ip()
tickets()
texts()
messages()
quic()
nodes()
simulations()
configs()
control_messages()
control_machines()
netadmin()
uapi()
socks5()
devices()
gossip()
