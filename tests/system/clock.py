#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""The guest's clock shows the host's time, and runs at its rate."""

import time

from lib.harness import TIMEOUT, check, main, need
import vm

SECONDS = 5
ASKED = 10  # times at most, for an answer that is not late

SCRIPT = f"""
echo "frequency $(od -An -tx1 /proc/device-tree/cpus/timebase-frequency | tr -d ' ')"
cat /sys/devices/system/clocksource/clocksource0/current_clocksource
a=$(cut -d' ' -f1 /proc/uptime)
sleep {SECONDS}
b=$(cut -d' ' -f1 /proc/uptime)
echo "slept $a $b"
while read -r word && [ "$word" = tell ]; do
    echo "date $(date +%s) uptime $(cut -d' ' -f1 /proc/uptime) told"
done
"""


class Answer:
    """What the guest's clocks said, between two moments of the host's."""

    def __init__(self, guest):
        self.date_from, self.asked = time.time(), time.monotonic()
        guest.send("tell\n")
        match = guest.expect(r"date (\d+) uptime ([\d.]+) told", TIMEOUT)
        self.came, self.date_to = time.monotonic(), time.time()
        self.date, self.uptime = int(match.group(1)), float(match.group(2))


def ask(guest):
    """The most precise of some answers, whatever else the host is busy with."""
    best = None
    for _ in range(ASKED):
        answer = Answer(guest)
        if best is None or answer.came - answer.asked < best.came - best.asked:
            best = answer
        if best.came - best.asked < 0.5:
            break
    return best


def clock(test):
    need(vm.KERNEL, vm.INITRAMFS)
    initrd = vm.with_script(SCRIPT, test.folder / "initrd")
    guest = test.start(vm.Machine(initrd=initrd))
    guest.expect("slept ", TIMEOUT)
    first = ask(guest)
    time.sleep(SECONDS)
    again = ask(guest)
    guest.send("enough\n")
    test.finish(guest)

    text = guest.text()
    check("frequency 00989680" in text, "the device tree says 10 MHz")
    check("riscv_clocksource" in text, "the kernel uses the time CSR")
    for when, answer in (("first", first), ("again later", again)):
        # It tells whole seconds.
        check(answer.date_from - 2 <= answer.date <= answer.date_to + 1,
              f"the date is right {when}: {answer.date}, asked for at {answer.date_from:.1f} and told at "
              f"{answer.date_to:.1f} of ours")
    before, after = map(float, text.split("slept ")[1].split()[:2])
    check(SECONDS <= after - before < SECONDS * 20,
          f"sleep {SECONDS} took {after - before:.2f} s by the guest's monotonic clock")
    theirs, least, most = again.uptime - first.uptime, again.asked - first.came, again.came - first.asked
    check(0.98 * least - 0.02 <= theirs <= 1.02 * most + 0.02,
          f"{theirs:.2f} s of it are {least:.2f} to {most:.2f} s of the host's")


main(clock)
