#!/usr/bin/env python3
"""Unpacks the ELF kernel from a compressed image: extract-vmlinux.py VMLINUZ VMLINUX."""
import subprocess
import sys

PACKERS = (
    (b"\xfd7zXZ\0", ["xz", "-dc"]),
    (b"(\xb5/\xfd", ["zstd", "-dc"]),
    (b"\x1f\x8b\x08", ["gzip", "-dc"]),
)

image = open(sys.argv[1], "rb").read()
for magic, command in PACKERS:
    at = image.find(magic)
    while at >= 0:
        elf = subprocess.run(command, input=image[at:], capture_output=True).stdout
        if elf[:4] == b"\x7fELF":
            open(sys.argv[2], "wb").write(elf)
            sys.exit(0)
        at = image.find(magic, at + 1)
sys.exit("no known payload in " + sys.argv[1])
