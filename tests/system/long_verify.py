#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Debian's kernel boots to a shell that works, with interpreter and translator in lockstep."""

import re

from lib.harness import UNDER_QEMU, Skipped, check, main, need
from lib import guests
import vm

VERIFIED = re.compile(r"hart \d+: verified (\d+) blocks, (\d+) instructions.* (\d+) unstable\)")


def verify(test):
    if UNDER_QEMU:
        raise Skipped("QEMU has no such engine")
    need(vm.KERNEL, vm.INITRAMFS)
    guest = test.run_script(guests.DESCRIBE, cpus=1, more=["--engine", "verify", "--log", "info"])
    guests.check_description(guest, 1)
    text = guest.text()
    check("interp and jit differ" not in text, "there was no difference")
    blocks, instructions, unstable = map(int, VERIFIED.search(text).groups())
    check(blocks > 1e7 and instructions > 1e8,
          f"{blocks} blocks of translated code were compared, {instructions} instructions")
    check(unstable == 0, "all code was what both had seen")


main(verify)
