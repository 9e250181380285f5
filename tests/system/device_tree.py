#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""--dump-dtb writes the device tree that the guest gets and ends; dtc, which did not make it, finds
it well-formed and in it what the command line asked for."""

import shutil
import subprocess

from lib import firmware
from lib.harness import UNDER_QEMU, Skipped, check, main
import vm


def decompile(path):
    """(source, what dtc complains about)"""
    result = subprocess.run(["dtc", "-I", "dtb", "-O", "dts", path], capture_output=True,
                            text=True, check=False)
    return result.stdout, result.stderr.strip()


def device_tree(test):
    if UNDER_QEMU or not shutil.which("dtc"):
        raise Skipped("QEMU is no peer for this test" if UNDER_QEMU else "dtc is missing "
                      "(package device-tree-compiler)")
    _, elf = firmware.build("echo", test.folder)
    initrd, path = test.folder / "initrd", test.folder / "tree"
    initrd.write_bytes(bytes(10000))
    for cpus, memory, size in ((1, "16M", "0x1000000"), (16, "3G", "0xc0000000")):
        guest = test.start(vm.Machine(kernel=elf, initrd=initrd, append="one two=3", memory=memory,
                                      cpus=cpus, more=["--dump-dtb", str(path)]))
        check(guest.wait(60) == 0 and guest.output == b"", f"{cpus} hart(s): it ends with status 0")
        source, complaints = decompile(path)
        check(complaints == "", f"dtc finds nothing to complain about {complaints}")
        check(source.count("cpu@") == cpus, f"there are {cpus} cpu nodes")
        check("memory@80000000" in source and f"reg = <0x00 0x80000000 0x00 {size}>" in source,
              f"there is {memory} of memory at 0x80000000")
        check('bootargs = "one two=3"' in source, "the kernel's command line is there")
        check("linux,initrd-start" in source, "the initial RAM disk is there")
        for node in ("serial@10000000", "rtc@101000", "virtio_mmio@10001000", "clint@2000000"):
            check(node in source, f"there is a {node}")


main(device_tree)
