#!/usr/bin/env python3
"""Computes XEdDSA signatures with Python's integers and hashlib only.

Run in this directory: python3 xeddsa.py > xeddsa.txt
It shares no code with the crate. Each line: secret key, node id, the sign bit of the secret's own
Edwards point, Ed25519 public key, context, message, random, signature; hex, "-" for no bytes.
"The XEdDSA and VXEdDSA Signature Schemes", sections 2.3 and 2.4; the nonce is that of the crate:
SHA-512(first half of hash_1(a || random) || context || message).
"""

import hashlib

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P
BASE_Y = 4 * pow(5, -1, P) % P


def square_root(x):
    root = pow(x, (P + 3) // 8, P)
    return root if root * root % P == x else root * pow(2, (P - 1) // 4, P) % P


def even_x(y):
    x = square_root((y * y - 1) * pow(D * y * y + 1, -1, P) % P)
    return x if x % 2 == 0 else P - x


def add(a, b):
    (x1, y1), (x2, y2) = a, b
    t = D * x1 * x2 * y1 * y2 % P
    x = (x1 * y2 + x2 * y1) * pow(1 + t, -1, P) % P
    return x, (y1 * y2 + x1 * x2) * pow(1 - t, -1, P) % P


def multiply(scalar, point=(even_x(BASE_Y), BASE_Y)):
    result = (0, 1)
    while scalar:
        if scalar & 1:
            result = add(result, point)
        point = add(point, point)
        scalar >>= 1
    return result


def compress(point):
    return (point[1] | (point[0] & 1) << 255).to_bytes(32, "little")


def number(data):
    return int.from_bytes(data, "little")


def sign(secret, message, random):
    k = number(bytes([secret[0] & 248]) + secret[1:31] + bytes([secret[31] & 127 | 64]))
    point = multiply(k)
    bit = point[0] & 1
    a = (L - k if bit else k) % L
    public = compress((0, point[1]))
    node_id = (1 + point[1]) * pow(1 - point[1], -1, P) % P
    half = hashlib.sha512(b"\xfe" + b"\xff" * 31 + a.to_bytes(32, "little") + random).digest()[:32]
    r = number(hashlib.sha512(half + message).digest()) % L
    big_r = compress(multiply(r))
    h = number(hashlib.sha512(big_r + public + message).digest()) % L
    return node_id.to_bytes(32, "little"), bit, public, big_r + ((r + h * a) % L).to_bytes(32, "little")


for i in range(16):
    seed = bytes([i])
    secret = hashlib.sha256(b"secret" + seed).digest()
    random = hashlib.sha256(b"random" + seed).digest()
    context = b"" if i == 0 else b"wiremesh test v1"
    message = hashlib.sha512(seed).digest()[: 4 * i]
    node_id, bit, public, signature = sign(secret, context + message, random)
    fields = [secret, node_id, bytes([bit]), public, context, message, random, signature]
    print(*(field.hex() or "-" for field in fields))
