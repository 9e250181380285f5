#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""The guest's clock shows the host's time, and runs at its rate."""

import time

from lib.harness import TIMEOUT, check, main, need
import vm

SECONDS = 5

SCRIPT = f"""
echo "frequency $(od -An -tx1 /proc/device-tree/cpus/timebase-frequency | tr -d ' ')"
cat /sys/devices/system/clocksource/clocksource0/current_clocksource
echo "date $(date +%s)"
a=$(cut -d' ' -f1 /proc/uptime)
sleep {SECONDS}
b=$(cut -d' ' -f1 /proc/uptime)
echo "slept $a $b"
echo "date $(date +%s)"
"""


def clock(test):
    need(vm.KERNEL, vm.INITRAMFS)
    initrd = vm.with_script(SCRIPT, test.folder / "initrd")
    guest = test.start(vm.Machine(initrd=initrd))
    # The host's clocks are read when the guest's line arrives.
    differences, moments = [], []
    for _ in range(2):
        seconds = int(guest.expect(r"date (\d+)\r?\n", TIMEOUT).group(1))
        differences.append(time.time() - seconds)
        moments.append(guest.time_of(rf"date {seconds}"))
    test.finish(guest)

    text = guest.text()
    check("frequency 00989680" in text, "the device tree says 10 MHz")
    check("riscv_clocksource" in text, "the kernel uses the time CSR")
    for when, difference in zip(("first", "again later"), differences):
        # date tells whole seconds, and its line takes a moment to arrive.
        check(-1 <= difference <= 3, f"the date is right {when}: {difference:.1f} s behind ours")
    before, after = map(float, text.split("slept ")[1].split()[:2])
    check(SECONDS <= after - before < SECONDS * 1.5 + 1,
          f"sleep {SECONDS} took {after - before:.2f} s by the guest's monotonic clock")
    ours = moments[1] - moments[0]
    check(abs(ours - (after - before)) < 1 + 0.02 * SECONDS,
          f"and {ours:.2f} s by the host's, between two lines around it")


main(clock)
