#!/usr/bin/env python3
"""Computes whole PSK exchanges from fixed inputs, with code that shares nothing with the crate.

Run in this directory: python3 pskx.py > pskx.txt
Written from docs/spec.md section 7.3. BLAKE2s, SHA-3 and HMAC are Python's; X25519 (RFC 7748) and
ML-KEM-768 encapsulation (FIPS 203) are written out here; XEdDSA is that of xeddsa.py. ML-KEM keys
come from the `cryptography` package (48), which also opens every ciphertext made here.
Each line of the output: name = hex; the name begins with the case.
"""

import contextlib
import hashlib
import hmac
import io
import struct

from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey

with contextlib.redirect_stdout(io.StringIO()):  # it prints its own vectors
    import xeddsa

# X25519, RFC 7748 section 5.

P = 2**255 - 19


def x25519(scalar, u):
    k = int.from_bytes(scalar, "little") & ~7 & (1 << 255) - 1 | 1 << 254
    x1 = int.from_bytes(u, "little") & (1 << 255) - 1
    x2, z2, x3, z3 = 1, 0, x1, 1
    for t in range(254, -1, -1):
        if k >> t & 1:
            x2, z2, x3, z3 = x3, z3, x2, z2
        a, b, c, d = x2 + z2, x2 - z2, x3 + z3, x3 - z3
        aa, bb, da, cb = a * a, b * b, d * a, c * b
        x3, z3 = (da + cb) ** 2 % P, x1 * (da - cb) ** 2 % P
        e = aa - bb
        x2, z2 = aa * bb % P, e * (aa + 121665 * e) % P
        if k >> t & 1:
            x2, z2, x3, z3 = x3, z3, x2, z2
    return (x2 * pow(z2, P - 2, P) % P).to_bytes(32, "little")


def public(scalar):
    return x25519(scalar, (9).to_bytes(32, "little"))


# ML-KEM-768 encapsulation, FIPS 203 algorithms 4 to 11, 14 and 17.

Q = 3329
BIT_REVERSED = [int(f"{i:07b}"[::-1], 2) for i in range(128)]


def ntt(f):
    f, i, length = list(f), 1, 128
    while length >= 2:
        for start in range(0, 256, 2 * length):
            zeta = pow(17, BIT_REVERSED[i], Q)
            i += 1
            for j in range(start, start + length):
                t = zeta * f[j + length] % Q
                f[j], f[j + length] = (f[j] + t) % Q, (f[j] - t) % Q
        length //= 2
    return f


def inverse_ntt(f):
    f, i, length = list(f), 127, 2
    while length <= 128:
        for start in range(0, 256, 2 * length):
            zeta = pow(17, BIT_REVERSED[i], Q)
            i -= 1
            for j in range(start, start + length):
                t = f[j]
                f[j], f[j + length] = (t + f[j + length]) % Q, zeta * (f[j + length] - t) % Q
        length *= 2
    return [x * 3303 % Q for x in f]


def product(f, g):
    h = []
    for i in range(128):
        gamma = pow(17, 2 * BIT_REVERSED[i] + 1, Q)
        (f0, f1), (g0, g1) = f[2 * i:2 * i + 2], g[2 * i:2 * i + 2]
        h += [(f0 * g0 + f1 * g1 * gamma) % Q, (f0 * g1 + f1 * g0) % Q]
    return h


def add(*polynomials):
    return [sum(column) % Q for column in zip(*polynomials)]


def sample_ntt(seed):
    stream, out = hashlib.shake_128(seed).digest(3 * 1024), []
    for at in range(0, len(stream), 3):
        c0, c1, c2 = stream[at:at + 3]
        out += [d for d in (c0 + 256 * (c1 % 16), c1 // 16 + 16 * c2) if d < Q]
    return out[:256]


def bits(data):
    return [byte >> i & 1 for byte in data for i in range(8)]


def noise(r, n):
    b = bits(hashlib.shake_256(r + bytes([n])).digest(128))
    return [(b[4 * i] + b[4 * i + 1] - b[4 * i + 2] - b[4 * i + 3]) % Q for i in range(256)]


def pack(values, d):
    return sum(v << d * i for i, v in enumerate(values)).to_bytes(32 * d, "little")


def compress(values, d):
    return [((2 * x << d) + Q) // (2 * Q) % 2**d for x in values]


def encapsulate(ek, m):
    key_r = hashlib.sha3_512(m + hashlib.sha3_256(ek).digest()).digest()
    key, r = key_r[:32], key_r[32:]
    packed = [int.from_bytes(ek[384 * i:384 * i + 384], "little") for i in range(3)]
    t = [[p >> 12 * i & 0xFFF for i in range(256)] for p in packed]
    rho = ek[1152:]
    y = [ntt(noise(r, n)) for n in range(3)]
    c = b""
    for i in range(3):
        row = [product(sample_ntt(rho + bytes([i, j])), y[j]) for j in range(3)]
        c += pack(compress(add(inverse_ntt(add(*row)), noise(r, 3 + i)), 10), 10)
    mu = [1665 * bit for bit in bits(m)]
    v = add(inverse_ntt(add(*map(product, t, y))), noise(r, 6), mu)
    return c + pack(compress(v, 4), 4), key


class Kem:
    """A key pair; what is sealed for it is opened by the other implementation."""

    def __init__(self, seed):
        self.private = MLKEM768PrivateKey.from_seed_bytes(seed)
        self.ek = self.private.public_key().public_bytes_raw()

    def seal(self, m):
        ct, key = encapsulate(self.ek, m)
        assert self.private.decapsulate(ct) == key
        return ct, key


# The exchange, docs/spec.md section 7.3.

def h(data):
    return hashlib.blake2s(data).digest()


def mac(key, data):
    return hmac.new(key, data, hashlib.blake2s).digest()


def expand(prk, info):
    return mac(prk, info + b"\x01")


def lp(data):
    return struct.pack("<I", len(data)) + data


def tlv(kind, value):
    return b"" if value is None else struct.pack(">BH", kind, len(value)) + value


def seeded(label, length=32):
    return hashlib.shake_256(b"wiremesh pskx.py " + label.encode()).digest(length)


def emit(name, value):
    print(f"{name} = {value.hex()}".rstrip())


class Party:
    def __init__(self, letter, secret):
        self.secret = secret
        self.id = public(secret)
        self.static = Kem(seeded("static " + letter, 64))
        emit(f"{letter}.secret", secret)
        emit(f"{letter}.id", self.id)
        emit(f"{letter}.static_seed", seeded("static " + letter, 64))


class Hello:
    """What one side says of itself in one case."""

    def __init__(self, name, letter, min_level, suites, caps, record, proof):
        fields = {
            "nonce": seeded(f"{name} nonce {letter}", 16),
            "min_level": struct.pack(">H", min_level),
            "suites": b"".join(struct.pack(">H", s) for s in suites),
            "own_seq": seeded(f"{name} seq {letter}", 8),
            "peer_record": seeded(f"{name} peer record {letter}"),
            "caps": bytes([caps]),
        }
        # For the exchange a record is opaque bytes.
        optional = {
            "record": seeded(f"{name} record {letter}", record) if record else None,
            "proof": seeded(f"{name} proof {letter}", proof) if proof else None,
        }
        for field, value in (fields | optional).items():
            if value is not None:
                emit(f"{name}.{letter}.{field}", value)
        f = fields
        count = bytes([len(suites)])
        self.nonce = f["nonce"]
        self.head = f["min_level"] + count + f["suites"] + f["own_seq"] + f["peer_record"]
        self.caps = caps
        self.tlvs = tlv(1, optional["record"]) + tlv(2, NETWORK[:8]) + tlv(3, optional["proof"])

    def caps_byte(self, static_ct):
        return bytes([self.caps | (2 if static_ct else 0)])


def drawn(name, label, length=32):
    value = seeded(f"{name} {label}", length)
    emit(f"{name}.{label}", value)
    return value


def sign(party, context, th, random):
    node_id, _, _, signature = xeddsa.sign(party.secret, context + th, random)
    assert node_id == party.id
    return signature


def exchange(name, suite, epoch, hello_a, hello_b, static_to_b, static_to_a):
    emit(f"{name}.suite", struct.pack(">H", suite))
    emit(f"{name}.epoch", struct.pack(">I", epoch))
    # OFFER.
    e_a, ephemeral = drawn(name, "a.ephemeral"), Kem(drawn(name, "a.kem_seed", 64))
    ct_b, ss_b = B.static.seal(drawn(name, "a.static_m")) if static_to_b else (b"", b"")
    offer = hello_a.nonce + struct.pack(">I", epoch) + hello_a.head + hello_a.caps_byte(ct_b)
    offer += public(e_a) + ephemeral.ek + ct_b + hello_a.tlvs
    # REPLY.
    e_b = drawn(name, "b.ephemeral")
    ct, ss_eph = ephemeral.seal(drawn(name, "b.m"))
    ct_a, ss_a = A.static.seal(drawn(name, "b.static_m")) if static_to_a else (b"", b"")
    reply = hello_b.nonce + hello_b.head + struct.pack(">H", suite) + hello_b.caps_byte(ct_a)
    reply += public(e_b) + ct + ct_a + hello_b.tlvs
    # Keys.
    dh = x25519(e_a, public(e_b))
    assert dh == x25519(e_b, public(e_a)) != bytes(32)
    if suite != 3:
        ss_a = ss_b = b""
    th0 = h(b"wiremesh PSKX v1" + lp(NETWORK) + lp(A.id) + lp(B.id))
    th1 = h(th0 + lp(offer))
    th2 = h(th1 + lp(reply))
    prk = mac(th2, lp(ss_eph) + lp(dh) + lp(ss_a) + lp(ss_b))
    psk = expand(prk, b"psk" + struct.pack(">HI", suite, epoch))
    k_b, k_a, k_d, k_l = (expand(prk, i) for i in (b"conf B", b"conf A", b"done", b"live"))
    # The end of REPLY, FIN, DONE.
    sig_b = sign(B, b"wiremesh PSKX v1 sig B", th2, drawn(name, "b.sign_random"))
    conf_b = mac(k_b, th2 + sig_b)
    th3 = h(th2 + sig_b + conf_b)
    sig_a = sign(A, b"wiremesh PSKX v1 sig A", th3, drawn(name, "a.sign_random"))
    conf_a = mac(k_a, th3 + sig_a)
    messages = {
        "offer": offer,
        "reply": reply + sig_b + conf_b,
        "fin": sig_a + conf_a,
        "done": mac(k_d, h(th3 + sig_a + conf_a)),
        "live_a": live(k_l, b"A", epoch),
        "live_b": live(k_l, b"B", epoch),
        "abort_a": abort(k_l, b"A", 5, 3),
        "abort_b": abort(k_l, b"B", 0x1234, 2),
    }
    keys = dict(ss_eph=ss_eph, dh=dh, ss_a=ss_a, ss_b=ss_b, th0=th0, th1=th1, th2=th2, th3=th3,
                prk=prk, psk=psk, k_b=k_b, k_a=k_a, k_d=k_d, k_l=k_l)
    for field, value in (messages | keys).items():
        emit(f"{name}.{field}", value)
    return messages


def live(key, role, epoch):
    epoch = struct.pack(">I", epoch)
    return epoch + mac(key, b"live" + role + epoch)


def abort(key, role, code, highest):
    numbers = struct.pack(">HH", code, highest)
    return numbers + b"\x01" + mac(key, b"abort" + role + numbers)


def frames(kind, exchange_id, body):
    pieces = [body[at:at + 1024] for at in range(0, len(body), 1024)] or [b""]
    first = lambda i: struct.pack(">BBBB8s", 1, kind, i, len(pieces), exchange_id)
    lens = lambda piece: struct.pack(">HH", len(body), len(piece))
    return [first(i) + lens(piece) + piece for i, piece in enumerate(pieces)]


NETWORK = seeded("network")
emit("network", NETWORK)
A, B = (Party(letter, s) for letter, s in
        zip("ab", sorted((seeded("node 1"), seeded("node 2")), key=public)))
assert A.id < B.id

exchange("suite1", 1, 1,
         Hello("suite1", "a", 1, [1], 1, 0, 0),
         Hello("suite1", "b", 1, [2, 1], 0, 0, 0), False, False)
exchange("suite2", 2, 7,
         Hello("suite2", "a", 1, [2, 1], 1, 231, 40),
         Hello("suite2", "b", 2, [0x7A1A, 1, 2], 0x81, 0, 0), False, False)
# B has no suite 3, so the static ciphertext of A is in the transcript and not in the keys.
exchange("unused_static", 2, 0x01020304,
         Hello("unused_static", "a", 2, [3, 2, 0x0A0A], 1, 0, 0),
         Hello("unused_static", "b", 1, [2, 1], 1, 996, 1), True, False)
full = exchange("suite3", 3, 0xFFFFFFFF,
                Hello("suite3", "a", 3, [3], 1, 996, 4096),
                Hello("suite3", "b", 3, [1, 2, 3], 1, 300, 0), True, True)

record = seeded("key record", 400)
emit("key.record", record)
emit("key.with_ek", struct.pack(">H", len(record)) + record + A.static.ek)
emit("key.without_ek", struct.pack(">H", len(record)) + record)

exchange_id = seeded("exchange id", 8)
emit("frames.id", exchange_id)
emit("frames.poke", frames(1, exchange_id, b"")[0])
emit("frames.done", frames(5, exchange_id, full["done"])[0])
for i, frame in enumerate(frames(2, exchange_id, full["offer"])):
    emit(f"frames.offer{i}", frame)
