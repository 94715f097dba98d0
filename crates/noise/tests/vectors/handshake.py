#!/usr/bin/env python3
"""An independent reference for the WireGuard v1 handshake, in plain Python integers.

    handshake.py            prints the vectors that tests/handshake_vectors.rs reads (handshake.txt)
    handshake.py --check    runs only the self-checks against published vectors

Uses nothing but hashlib's BLAKE2s from outside; X25519, ChaCha20-Poly1305 and XChaCha20-Poly1305
are written from RFC 7748, RFC 8439 and draft-irtf-cfrg-xchacha-03.  Slow, not constant time: for
tests only.  The handshake is written from the WireGuard paper, section 5.4.
"""
import hashlib
import struct
import sys

P = 2**255 - 19


# X25519, RFC 7748 section 5.

def x25519(scalar, point):
    k = bytearray(scalar)
    k[0] &= 248
    k[31] = (k[31] & 127) | 64
    k = int.from_bytes(k, "little")
    u = int.from_bytes(point, "little") % 2**255 % P
    x2, z2, x3, z3, swap = 1, 0, u, 1, 0
    for t in range(254, -1, -1):
        bit = k >> t & 1
        if swap ^ bit:
            x2, x3, z2, z3 = x3, x2, z3, z2
        swap = bit
        a, b = (x2 + z2) % P, (x2 - z2) % P
        c, d = (x3 + z3) % P, (x3 - z3) % P
        da, cb = d * a % P, c * b % P
        aa, bb = a * a % P, b * b % P
        e = (aa - bb) % P
        x3, z3 = (da + cb) ** 2 % P, u * (da - cb) ** 2 % P
        x2, z2 = aa * bb % P, e * (aa + 121665 * e) % P
    if swap:
        x2, z2 = x3, z3
    return (x2 * pow(z2, P - 2, P) % P).to_bytes(32, "little")


def public(secret):
    return x25519(secret, b"\x09" + bytes(31))


# ChaCha20 and Poly1305, RFC 8439 section 2.

def rotate(value, by):
    return (value << by | value >> (32 - by)) & 0xFFFFFFFF


def quarter(s, a, b, c, d):
    for x, y, z, by in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
        s[x] = (s[x] + s[y]) & 0xFFFFFFFF
        s[z] = rotate(s[z] ^ s[x], by)


def rounds(state):
    s = list(state)
    for _ in range(10):
        for column in range(4):
            quarter(s, column, column + 4, column + 8, column + 12)
        for i in range(4):
            quarter(s, i, 4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4)
    return s


def chacha_state(key, tail):
    return struct.unpack("<16L", b"expand 32-byte k" + key + tail)


def chacha20(key, nonce, counter, data):
    out = bytearray()
    for at in range(0, len(data), 64):
        state = chacha_state(key, struct.pack("<L", counter + at // 64) + nonce)
        words = [(a + b) & 0xFFFFFFFF for a, b in zip(rounds(state), state)]
        stream = struct.pack("<16L", *words)
        out += bytes(a ^ b for a, b in zip(data[at:at + 64], stream))
    return bytes(out)


def poly1305(key, message):
    r = int.from_bytes(key[:16], "little") & 0x0FFFFFFC0FFFFFFC0FFFFFFC0FFFFFFF
    s = int.from_bytes(key[16:], "little")
    total = 0
    for at in range(0, len(message), 16):
        block = int.from_bytes(message[at:at + 16] + b"\x01", "little")
        total = (total + block) * r % (2**130 - 5)
    return ((total + s) % 2**128).to_bytes(16, "little")


def pad16(data):
    return data + bytes(-len(data) % 16)


def aead_nonce(key, nonce, plaintext, associated):
    ciphertext = chacha20(key, nonce, 1, plaintext)
    lengths = struct.pack("<QQ", len(associated), len(ciphertext))
    tag_key = chacha20(key, nonce, 0, bytes(32))
    return ciphertext + poly1305(tag_key, pad16(associated) + pad16(ciphertext) + lengths)


def aead(key, counter, plaintext, associated):
    return aead_nonce(key, bytes(4) + struct.pack("<Q", counter), plaintext, associated)


def xaead(key, nonce, plaintext, associated):
    words = rounds(chacha_state(key, nonce[:16]))
    subkey = struct.pack("<8L", *(words[:4] + words[12:]))
    return aead_nonce(subkey, bytes(4) + nonce[16:], plaintext, associated)


# BLAKE2s and what is built on it, WireGuard paper section 5.4.

def hash(data):
    return hashlib.blake2s(data).digest()


def mac(key, data):
    return hashlib.blake2s(data, key=key, digest_size=16).digest()


def hmac(key, data):
    key = key.ljust(64, b"\0")
    inner = hash(bytes(b ^ 0x36 for b in key) + data)
    return hash(bytes(b ^ 0x5C for b in key) + inner)


def kdf(count, key, data):
    root, out = hmac(key, data), [b""]
    for i in range(1, count + 1):
        out.append(hmac(root, out[-1] + bytes([i])))
    return out[1:]


# The handshake, WireGuard paper sections 5.4.2 to 5.4.7.

class Transcript:
    def __init__(self, responder):
        self.ck = hash(b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s")
        self.h = hash(hash(self.ck + b"WireGuard v1 zx2c4 Jason@zx2c4.com") + responder)

    def mix(self, data):
        self.h = hash(self.h + data)

    def chain(self, count, data):
        self.ck, *rest = kdf(count, self.ck, data)
        return rest

    def seal(self, key, plaintext):
        field = aead(key, 0, plaintext, self.h)
        self.mix(field)
        return field


def with_macs(message, receiver, cookie=None):
    mac1 = mac(hash(b"mac1----" + receiver), message)
    mac2 = mac(cookie, message + mac1) if cookie else bytes(16)
    return message + mac1 + mac2


def initiate(static, ephemeral, responder, sender, timestamp):
    t = Transcript(responder)
    e = public(ephemeral)
    t.mix(e)
    t.chain(1, e)
    (key,) = t.chain(2, x25519(ephemeral, responder))
    encrypted_static = t.seal(key, public(static))
    (key,) = t.chain(2, x25519(static, responder))
    encrypted_timestamp = t.seal(key, timestamp)
    message = struct.pack("<LL", 1, sender) + e + encrypted_static + encrypted_timestamp
    return with_macs(message, responder), t


def respond(t, ephemeral, initiator, initiator_ephemeral, psk, sender, receiver):
    e = public(ephemeral)
    t.mix(e)
    t.chain(1, e)
    t.chain(1, x25519(ephemeral, initiator_ephemeral))
    t.chain(1, x25519(ephemeral, initiator))
    temporary, key = t.chain(3, psk)
    t.mix(temporary)
    nothing = t.seal(key, b"")
    message = struct.pack("<LLL", 2, sender, receiver) + e + nothing
    return with_macs(message, initiator), kdf(2, t.ck, b"")


def transport(key, receiver, counter, plaintext):
    return struct.pack("<LLQ", 4, receiver, counter) + aead(key, counter, plaintext, b"")


def cookie_reply(responder, receiver, nonce, mac1, cookie):
    sealed = xaead(hash(b"cookie--" + responder), nonce, cookie, mac1)
    return struct.pack("<LL", 3, receiver) + nonce + sealed


# Published vectors that this file must reproduce before it is believed.

SUNSCREEN = (b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the "
             b"future, sunscreen would be it.")
ASSOCIATED = bytes.fromhex("50515253c0c1c2c3c4c5c6c7")
ABC = "508c5e8c327c14e2e1a72ba34eeb452f37458b209ed63a294d999b4c86675982"
KDF_T2 = "fac6e2745a325f5dc5d11a5b165aad08b0ada28e7b4e666b7c077934a4d76c24"


def self_check():
    # RFC 7693 appendix B.
    assert hash(b"abc").hex() == ABC
    # The HKDF table of the WireGuard implementations, first row.
    assert kdf(3, b"test-key", b"test-input")[2].hex() == KDF_T2
    # RFC 7748 section 6.1.
    a = bytes.fromhex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a")
    b = bytes.fromhex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb")
    shared = "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742"
    assert x25519(a, public(b)).hex() == x25519(b, public(a)).hex() == shared
    # RFC 8439 section 2.8.2.
    key = bytes(range(0x80, 0xA0))
    sealed = aead_nonce(key, bytes([7, 0, 0, 0]) + bytes(range(0x40, 0x48)), SUNSCREEN, ASSOCIATED)
    assert sealed[-16:].hex() == "1ae10b594f09e26a7e902ecbd0600691"
    # draft-irtf-cfrg-xchacha-03 appendix A.3.1.
    sealed = xaead(key, bytes(range(0x40, 0x58)), SUNSCREEN, ASSOCIATED)
    assert sealed[-16:].hex() == "c0875924c1c7987947deafd8780acf49"


INIT_STATIC = bytes.fromhex("e61ef9919cde45dd5f82166404bd08e38bceb5dfdfded0a34c8df7ed542214d1")
INIT_EPHEMERAL = bytes.fromhex("893e28b9dc6ca8d611ab664754b8ceb7bac5117349a4439a6b0569da977c464a")
RESP_STATIC = bytes.fromhex("4a3acbfdb163dec651dfa3194dece676d437029c62a408b4c5ea9114246e4893")
RESP_EPHEMERAL = bytes.fromhex("bbdb4cdbd309f1a1f2e1456967fe288cadd6f712d65dc7b7793d5e63da6b375b")
PSK = b"This is my Austrian perspective!"
SENDER_I, SENDER_R = 0x11223344, 0x55667788
TIMESTAMP = struct.pack(">QL", 0x400000000000000A + 1700000000, 123456789)
COOKIE = bytes(range(0xC0, 0xD0))
COOKIE_NONCE = bytes(range(24))
PACKET = bytes(range(64))


def vectors():
    yield "init_static", INIT_STATIC
    yield "init_ephemeral", INIT_EPHEMERAL
    yield "resp_static", RESP_STATIC
    yield "resp_ephemeral", RESP_EPHEMERAL
    yield "init_public", public(INIT_STATIC)
    yield "resp_public", public(RESP_STATIC)
    yield "timestamp", TIMESTAMP
    for name, psk in (("zero", bytes(32)), ("psk", PSK)):
        responder, initiator = public(RESP_STATIC), public(INIT_STATIC)
        init, t = initiate(INIT_STATIC, INIT_EPHEMERAL, responder, SENDER_I, TIMESTAMP)
        ephemeral = public(INIT_EPHEMERAL)
        resp, (to_r, to_i) = respond(t, RESP_EPHEMERAL, initiator, ephemeral, psk,
                                     SENDER_R, SENDER_I)
        yield name + ".psk", psk
        yield name + ".initiation", init
        yield name + ".response", resp
        yield name + ".keepalive_i_to_r", transport(to_r, SENDER_R, 0, b"")
        yield name + ".packet_i_to_r", transport(to_r, SENDER_R, 1, PACKET)
        yield name + ".keepalive_r_to_i", transport(to_i, SENDER_I, 0, b"")
        yield name + ".packet_r_to_i", transport(to_i, SENDER_I, 0x0123456789ABCDEF, PACKET)
    yield "packet", PACKET
    yield "cookie", COOKIE
    yield "cookie_nonce", COOKIE_NONCE
    yield "cookie_reply", cookie_reply(responder, SENDER_I, COOKIE_NONCE, init[-32:-16], COOKIE)
    yield "initiation_with_mac2", with_macs(init[:-32], responder, COOKIE)


def main():
    self_check()
    if "--check" in sys.argv[1:]:
        return
    print("# WireGuard v1 handshake vectors, written by handshake.py. Hex, one value a line.")
    print("# sender indices 11223344 (initiator) and 55667788 (responder)")
    for name, value in vectors():
        print(name, "=", value.hex())


if __name__ == "__main__":
    main()
