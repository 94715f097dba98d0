"""WireGuard v1 handshake and transport data in plain Python, both roles, with given ephemeral keys.

An implementation of its own (RFC 7748, RFC 8439, the WireGuard paper section 5.4), used only to record
exchanges with real programs.  It is slow and not constant time; it never guards real traffic.
"""
import hashlib
import hmac
import struct

CONSTRUCTION = b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s"
IDENTIFIER = b"WireGuard v1 zx2c4 Jason@zx2c4.com"
P = 2**255 - 19


def x25519(secret, point=(9).to_bytes(32, "little")):
    k = bytearray(secret)
    k[0] &= 248
    k[31] = (k[31] & 127) | 64
    k = int.from_bytes(k, "little")
    u = int.from_bytes(point, "little") & (2**255 - 1)
    x2, z2, x3, z3, swap = 1, 0, u, 1, 0
    for t in reversed(range(255)):
        bit = k >> t & 1
        if swap ^ bit:
            x2, x3, z2, z3 = x3, x2, z3, z2
        swap = bit
        a, b = (x2 + z2) % P, (x2 - z2) % P
        aa, bb = a * a % P, b * b % P
        e = (aa - bb) % P
        da, cb = (x3 - z3) * a % P, (x3 + z3) * b % P
        x3, z3 = (da + cb) ** 2 % P, u * (da - cb) ** 2 % P
        x2, z2 = aa * bb % P, e * (aa + 121665 * e) % P
    if swap:
        x2, z2 = x3, z3
    return (x2 * pow(z2, P - 2, P) % P).to_bytes(32, "little")


def chacha20_block(key, counter, nonce):
    state = [0x61707865, 0x3320646E, 0x79622D32, 0x6B206574]
    state += struct.unpack("<8L", key) + (counter,) + struct.unpack("<3L", nonce)
    s = list(state)

    def quarter(a, b, c, d):
        for x, y, z, n in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
            s[x] = (s[x] + s[y]) & 0xFFFFFFFF
            r = s[z] ^ s[x]
            s[z] = (r << n | r >> (32 - n)) & 0xFFFFFFFF

    for _ in range(10):
        for i in range(4):
            quarter(i, 4 + i, 8 + i, 12 + i)
        for i in range(4):
            quarter(i, 4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4)
    return struct.pack("<16L", *((a + b) & 0xFFFFFFFF for a, b in zip(s, state)))


def chacha20(key, nonce, data):
    out = bytearray()
    for i in range(0, len(data), 64):
        stream = chacha20_block(key, 1 + i // 64, nonce)
        out += bytes(a ^ b for a, b in zip(data[i : i + 64], stream))
    return bytes(out)


def poly1305(key, message):
    r = int.from_bytes(key[:16], "little") & 0x0FFFFFFC0FFFFFFC0FFFFFFC0FFFFFFF
    acc = 0
    for i in range(0, len(message), 16):
        acc = (acc + int.from_bytes(message[i : i + 16] + b"\x01", "little")) * r % (2**130 - 5)
    return ((acc + int.from_bytes(key[16:], "little")) % 2**128).to_bytes(16, "little")


def aead_tag(key, nonce, ciphertext, associated):
    def padded(b):
        return b + bytes(-len(b) % 16)

    lengths = struct.pack("<QQ", len(associated), len(ciphertext))
    one_time = chacha20_block(key, 0, nonce)[:32]
    return poly1305(one_time, padded(associated) + padded(ciphertext) + lengths)


def seal(key, counter, plaintext, associated=b""):
    nonce = bytes(4) + struct.pack("<Q", counter)
    ciphertext = chacha20(key, nonce, plaintext)
    return ciphertext + aead_tag(key, nonce, ciphertext, associated)


def open_(key, counter, sealed, associated=b""):
    nonce = bytes(4) + struct.pack("<Q", counter)
    if aead_tag(key, nonce, sealed[:-16], associated) != sealed[-16:]:
        raise ValueError("authentication failed")
    return chacha20(key, nonce, sealed[:-16])


def blake2s(*parts):
    return hashlib.blake2s(b"".join(parts)).digest()


def mac(key, data):
    return hashlib.blake2s(data, key=key, digest_size=16).digest()


def kdf(count, key, data):
    def h(k, d):
        return hmac.new(k, d, hashlib.blake2s).digest()

    secret, out, last = h(key, data), [], b""
    for i in range(count):
        last = h(secret, last + bytes([i + 1]))
        out.append(last)
    return out


class Handshake:
    """One handshake; `initiator_public` may be None on the responder's side until it is read."""

    def __init__(self, responder_public):
        self.ck = blake2s(CONSTRUCTION)
        self.h = blake2s(blake2s(self.ck, IDENTIFIER), responder_public)
        self.responder_public = responder_public

    def mix_hash(self, data):
        self.h = blake2s(self.h, data)

    def mix_key(self, data):
        self.ck, key = kdf(2, self.ck, data)
        return key

    def write_initiation(self, static, ephemeral, sender, timestamp):
        public, self.initiator_ephemeral = x25519(static), x25519(ephemeral)
        self.initiator_public = public
        self.ck = kdf(1, self.ck, self.initiator_ephemeral)[0]
        self.mix_hash(self.initiator_ephemeral)
        key = self.mix_key(x25519(ephemeral, self.responder_public))
        sealed_static = seal(key, 0, public, self.h)
        self.mix_hash(sealed_static)
        key = self.mix_key(x25519(static, self.responder_public))
        sealed_time = seal(key, 0, timestamp, self.h)
        self.mix_hash(sealed_time)
        head = struct.pack("<LL", 1, sender) + self.initiator_ephemeral + sealed_static + sealed_time
        return head + mac(blake2s(b"mac1----", self.responder_public), head) + bytes(16)

    def read_initiation(self, static, message):
        assert len(message) == 148 and message[:4] == b"\x01\0\0\0"
        assert message[116:132] == mac(blake2s(b"mac1----", self.responder_public), message[:116])
        self.initiator_ephemeral = message[8:40]
        self.ck = kdf(1, self.ck, self.initiator_ephemeral)[0]
        self.mix_hash(self.initiator_ephemeral)
        key = self.mix_key(x25519(static, self.initiator_ephemeral))
        self.initiator_public = open_(key, 0, message[40:88], self.h)
        self.mix_hash(message[40:88])
        key = self.mix_key(x25519(static, self.initiator_public))
        self.timestamp = open_(key, 0, message[88:116], self.h)
        self.mix_hash(message[88:116])
        return struct.unpack("<L", message[4:8])[0]

    def _finish(self, ephemeral_public, ee, se, psk):
        self.ck = kdf(1, self.ck, ephemeral_public)[0]
        self.mix_hash(ephemeral_public)
        self.ck = kdf(1, self.ck, ee)[0]
        self.ck = kdf(1, self.ck, se)[0]
        self.ck, tau, key = kdf(3, self.ck, psk)
        self.mix_hash(tau)
        return key

    def write_response(self, ephemeral, sender, receiver, psk):
        public = x25519(ephemeral)
        key = self._finish(public, x25519(ephemeral, self.initiator_ephemeral),
                           x25519(ephemeral, self.initiator_public), psk)
        head = struct.pack("<LLL", 2, sender, receiver) + public + seal(key, 0, b"", self.h)
        return head + mac(blake2s(b"mac1----", self.initiator_public), head) + bytes(16)

    def read_response(self, static, ephemeral, message, psk):
        assert len(message) == 92 and message[:4] == b"\x02\0\0\0"
        assert message[60:76] == mac(blake2s(b"mac1----", self.initiator_public), message[:60])
        public = message[12:44]
        key = self._finish(public, x25519(ephemeral, public), x25519(static, public), psk)
        open_(key, 0, message[44:60], self.h)
        return struct.unpack("<L", message[4:8])[0]

    def keys(self):
        """(initiator to responder, responder to initiator)"""
        return tuple(kdf(2, self.ck, b""))


def write_data(key, receiver, counter, packet):
    padded = packet + bytes(-len(packet) % 16)
    return struct.pack("<LLQ", 4, receiver, counter) + seal(key, counter, padded)


def read_data(key, message):
    assert message[:4] == b"\x04\0\0\0" and len(message) >= 32
    _, _, counter = struct.unpack("<LLQ", message[:16])
    return open_(key, counter, message[16:])


# The known answer that every recording starts from (docs/spec.md, "Known-answer test for the v1 handshake").
INIT_STATIC = bytes.fromhex("e61ef9919cde45dd5f82166404bd08e38bceb5dfdfded0a34c8df7ed542214d1")
INIT_EPHEMERAL = bytes.fromhex("893e28b9dc6ca8d611ab664754b8ceb7bac5117349a4439a6b0569da977c464a")
RESP_STATIC = bytes.fromhex("4a3acbfdb163dec651dfa3194dece676d437029c62a408b4c5ea9114246e4893")
RESP_EPHEMERAL = bytes.fromhex("bbdb4cdbd309f1a1f2e1456967fe288cadd6f712d65dc7b7793d5e63da6b375b")
PSK = bytes.fromhex("54686973206973206d7920417573747269616e20706572737065637469766521")
TIMESTAMP = struct.pack(">QL", 0x400000000000000A + 1700000000, 123456789)
KNOWN_INITIATION_START = "0100000044332211ca35def5ae56cec33dc2036731ab14896bc4c75dbb07a61f879f8e3afa4c7944"
KNOWN_KEEPALIVES = {
    bytes(32): "040000008877665500000000000000000382c91a49a8cf83a69aeb24cf1372f7",
    PSK: "040000008877665500000000000000007b10d7058fd6195d3ef4f80e0a625b8b",
}


def self_check():
    """Panics unless this file gives the published answers, under both PSKs."""
    for psk, keepalive in KNOWN_KEEPALIVES.items():
        a, b = Handshake(x25519(RESP_STATIC)), Handshake(x25519(RESP_STATIC))
        initiation = a.write_initiation(INIT_STATIC, INIT_EPHEMERAL, 0x11223344, TIMESTAMP)
        assert initiation.hex().startswith(KNOWN_INITIATION_START)
        assert b.read_initiation(RESP_STATIC, initiation) == 0x11223344
        response = b.write_response(RESP_EPHEMERAL, 0x55667788, 0x11223344, psk)
        assert a.read_response(INIT_STATIC, INIT_EPHEMERAL, response, psk) == 0x55667788
        assert a.keys() == b.keys()
        assert write_data(a.keys()[0], 0x55667788, 0, b"").hex() == keepalive


if __name__ == "__main__":
    self_check()
    print("known answers: ok")
