#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""xz: what it packs the host's library unpacks, and the other way round; threads, and files that are damaged."""

import lzma
import random
import stat

from lib.harness import check
from lib.programs import main

SEED = 8
FILTERS = ("--arm", "--armthumb", "--arm64", "--ia64", "--powerpc", "--riscv", "--sparc", "--x86", "--delta=dist=256")
WAYS = (["-1"], ["-6"], ["-9e"], ["-T2", "--block-size=400000", "-2"], ["--format=lzma", "-1"],
        ["--check=sha256", "-0"], ["--x86", "--lzma2=preset=1"], ["--delta=dist=4", "--lzma2=preset=0"])


def content(size):
    """Bytes that can be packed, but not to nothing."""
    chance = random.Random(SEED)
    words = [chance.randbytes(chance.randrange(2, 12)) for _ in range(500)]
    return b"".join(chance.choices(words, k=size // 2))[:size]


def xz(programs):
    data = content(1_500_000)
    (programs.folder / "data").write_bytes(data)
    for words in WAYS:
        packed = programs.output("xz", *words, "--stdout", "data")
        check(len(packed) < len(data) and lzma.decompress(packed) == data,
              f"xz {' '.join(words)}: {len(packed)} bytes, from which the host's library has all of it")
    packed = lzma.compress(data, preset=3)
    check(programs.output("xz", "-d", given=packed) == data, "what the host's library packs it unpacks")
    check(programs.output("xz", "-d", "-T2", given=packed + lzma.compress(b"more")) == data + b"more", "two streams")
    for name in FILTERS:  # those that the host's library does not know as well
        there = programs.output("xz", name, "--lzma2=preset=0,lc=1,lp=2,pb=0", "--stdout", "data")
        check(programs.output("xz", "-dc", given=there) == data, f"xz {name}: there and back")
    check(programs.output("xz", "-T4", "--block-size=100000", "-0", "-c", given=data + data) ==
          programs.output("xz", "-T+1", "--block-size=100000", "-0", "-c", given=data + data), "four threads pack as one does")
    files(programs, data)
    damaged(programs, packed)


def files(programs, data):
    """A file takes the place of another, with its rights."""
    path = programs.folder / "data"
    path.chmod(0o640)
    programs.output("xz", "-0", "data")
    check(not path.exists(), "the file is packed in place")
    listed = programs.output("xz", "--list", "--robot", "data.xz").decode().splitlines()[1].split("\t")
    check(listed[4] == str(len(data)), "--list tells its size")
    programs.output("unxz", "data.xz")
    check(path.read_bytes() == data and stat.S_IMODE(path.stat().st_mode) == 0o640, "and unpacked, with its rights")
    (programs.folder / "holes").write_bytes(bytes(3 << 20) + b"end")
    programs.output("xz", "-0", "holes")
    programs.output("xz", "-d", "holes.xz")
    status = (programs.folder / "holes").stat()
    check(status.st_size == (3 << 20) + 3 and status.st_blocks * 512 < 1 << 20, "zeros become holes")


def damaged(programs, packed):
    """What is damaged is refused, and nothing of it left."""
    for what, bad, words in (("a bit", packed[:5000] + bytes([packed[5000] ^ 1]) + packed[5001:], b"corrupt"),
                             ("the end", packed[:-5000], b"Unexpected end"), ("all", b"no xz", b"not recognized")):
        (programs.folder / "bad.xz").write_bytes(bad)
        status, _, errors = programs.run("xz", "-d", "bad.xz")
        check(status == 1 and words in errors and not (programs.folder / "bad").exists(), f"{what} is damaged: refused")


main(xz)
