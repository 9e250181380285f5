#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Power-off ends the monitor with status 0; a reboot and a panic restart the guest, and end it with
--no-reboot."""

import os

from lib.harness import TIMEOUT, UNDER_QEMU, check, main, need
import vm

# What it does is counted on the disk, which is all that outlives a reboot.
SCRIPT = """
count=$(head -c 1 /dev/vda)
echo "boot number $count"
echo -n $((count + 1)) | dd of=/dev/vda conv=notrunc,fsync 2>/dev/null
case $count in
0) reboot -f ;;
1) echo c >/proc/sysrq-trigger ;;
esac
exit 0
"""


def power(test):
    need(vm.KERNEL, vm.INITRAMFS)
    disk = test.folder / "disk"
    initrd = vm.with_script(SCRIPT, test.folder / "initrd")
    # panic=-1: at once
    machine = {"initrd": initrd, "disks": [disk], "append": "quiet panic=-1", "cpus": 2}

    prepare(disk, "0")
    guest = test.start(vm.Machine(**machine))
    for count, why in enumerate(("starts", "restarts after `reboot`", "restarts after a panic")):
        guest.expect(f"boot number {count}\r?\n", TIMEOUT)
        check(True, f"the guest {why}")
    test.finish(guest)

    for count, what in (("0", "`reboot`"), ("1", "a panic")):
        prepare(disk, count)
        if UNDER_QEMU:
            break
        guest = test.start(vm.Machine(**machine, more=["--no-reboot"]))
        guest.expect(f"boot number {count}\r?\n", TIMEOUT)
        status = guest.wait(TIMEOUT)
        check(guest.output.count(b"init started") == 1 and status == 0,
              f"with --no-reboot, {what} ends the monitor with status {status}")


def prepare(disk, count):
    """A disk that says how often the guest was started."""
    disk.write_bytes(count.encode())
    os.truncate(disk, 1 << 20)


main(power)
