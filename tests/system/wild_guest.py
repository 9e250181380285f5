#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""A guest that writes rubbish to every device, touches addresses where nothing is and jumps there
neither crashes nor hangs the monitor; one that does nothing sensible at all can still be ended."""

import signal
import time

from lib import firmware
from lib.harness import UNDER_QEMU, check, main
import vm


def wild_guest(test):
    image, _ = firmware.build("wild", test.folder)
    machine = {"kernel": None, "initrd": None, "append": None}
    disk = test.folder / "disk"
    disk.write_bytes(bytes(1 << 20))
    for cpus in (1,) if UNDER_QEMU else (1, 2):  # 2 trip an assertion of QEMU 7.2
        guest = test.start(vm.Machine(firmware=image, cpus=cpus, disks=[disk], net=[], **machine))
        guest.expect("alive\r\n", 120)
        check(guest.wait(60) == 0, f"with {cpus} hart(s), the guest survives its rubbish and so "
              "does the monitor")
    check(disk.read_bytes() == bytes(1 << 20), "its disk has no rubbish on it")

    # Nothing but zeros: an endless round of illegal instructions and traps to nowhere.
    nothing = test.folder / "nothing"
    nothing.write_bytes(bytes(4096))
    guest = test.start(vm.Machine(firmware=nothing, **machine))
    time.sleep(2)
    check(guest.process.poll() is None, "a guest that only traps goes on trapping")
    guest.process.send_signal(signal.SIGTERM)
    status = guest.wait(30)
    check(status != -signal.SIGKILL and (UNDER_QEMU or status >= 0),
          f"and is ended by SIGTERM (status {status})")


main(wild_guest)
