#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Debian's kernel boots with 1 and with 4 harts on Debian's OpenSBI, run in M-mode."""

from lib.harness import check, main, need
from lib import guests
import vm

OPENSBI = "/usr/lib/riscv64-linux-gnu/opensbi/generic/"


def boot_opensbi(test):
    need(vm.KERNEL, vm.INITRAMFS, OPENSBI + "fw_jump.bin")
    # fw_jump goes to a fixed address, fw_dynamic is told where: both ways are in use.
    for cpus, firmware in ((1, "fw_jump.bin"), (4, "fw_dynamic.bin")):
        guest = test.run_script(guests.DESCRIBE, cpus=cpus, firmware=OPENSBI + firmware)
        guests.check_description(guest, cpus)
        check("OpenSBI v" in guest.text(), f"{firmware} introduces itself")
        check("SBI implementation ID=0x1 " in guest.text(), "the kernel finds OpenSBI")


main(boot_opensbi)
