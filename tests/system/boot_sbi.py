#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Debian's kernel boots with 1 and with 4 harts on the built-in SBI, and finds what it should."""

from lib.harness import UNDER_QEMU, check, main, need
from lib import guests
import vm


def boot_sbi(test):
    need(vm.KERNEL, vm.INITRAMFS)
    for cpus in (1, 4):
        guest = test.run_script(guests.DESCRIBE, cpus=cpus)
        guests.check_description(guest, cpus)
        if not UNDER_QEMU:
            text = guest.text()
            check("OpenSBI" not in text, "no firmware but the built-in SBI ran")
            check("SBI specification v2.0 detected" in text, "the kernel finds SBI 2.0")
            for extension in ("TIME", "IPI", "RFENCE", "HSM", "SRST", "DBCN"):
                check(f"SBI {extension} extension detected" in text,
                      f"the kernel finds the SBI extension {extension}")


main(boot_sbi)
