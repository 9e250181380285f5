#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Debian 13 on a virtio disk: debootstrap's first stage here, its second stage in the guest; then
the system boots from the disk with its own init, and root logs in."""

import os
import shutil
import sys

from lib.harness import TIMEOUT, Skipped, check, main, need
import debian
import vm

HOURS = 3600


def long_debian(test):
    need(vm.KERNEL, vm.INITRAMFS)
    if not shutil.which("debootstrap") and not os.path.exists("/usr/sbin/debootstrap"):
        raise Skipped("debootstrap is missing")
    disk, initrd = debian.second_stage(test.folder)
    check(True, "debootstrap's first stage, on the host")

    guest = test.start(vm.Machine(initrd=initrd, disks=[disk], memory="1G", cpus=2))
    guest.expect("second stage done", 4 * HOURS)
    check(True, "debootstrap's second stage, in the guest")
    test.finish(guest)

    guest = test.start(vm.Machine(initrd=debian.boot(test.folder / "hand-over"), disks=[disk],
                                  memory="1G", cpus=2, append="quiet"))
    guest.expect("strake login: ", 2 * HOURS)
    check(True, "Debian boots from its disk to the login")
    guest.send("root\n")
    guest.expect("Password: ", TIMEOUT)
    guest.send("strake\n")
    guest.expect(r"root@strake:~# ", TIMEOUT)
    status, said = guest.shell("stty cols 500; systemctl is-system-running; cat /etc/debian_version"
                               "; findmnt -no SOURCE /", TIMEOUT)
    check(status == 0 and "13" in said and "/dev/vda" in said, "root logs in: " +
          " ".join(said.split()))
    guest.send("systemctl poweroff\n")
    check(guest.wait(HOURS) == 0, "Debian's power-off ends the monitor with status 0")


if __name__ == "__main__":
    sys.exit(main(long_debian))
