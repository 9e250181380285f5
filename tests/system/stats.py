#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""`strake run --stats`: the table at the end, with both engines, and what its rows must agree in."""

import signal

from lib import firmware
from lib.harness import TIMEOUT, UNDER_QEMU, Skipped, check, main, need
import vm

SCRIPT = """
dd if=/dev/zero bs=64k count=16 2>/dev/null | gzip | sha256sum
sleep 1
"""


def table(guest):
    """{heading: {row: [numbers]}}, from the last table in a guest's output."""
    lines = guest.text().replace("\r", "").split("strake: statistics")[1].splitlines()
    rows, section = {}, None
    for line in lines[1:]:
        if line.startswith("  "):
            name, numbers = line[2:30].strip(), line[30:].split()
            section.setdefault(name, []).append([float(number) for number in numbers])
        elif line:
            section = rows.setdefault(line, {})
    return rows


def one(rows, section, name):
    """A row's numbers; the last is the sum."""
    return rows[section][name][0]


def check_sums(rows):
    """Each counter's sum is the sum of the harts'."""
    ratios = ("%", "million", "seconds")
    for section in rows.values():
        for name, lines in section.items():
            for *harts, total in lines:
                if not name.startswith(ratios) and abs(sum(harts) - total) > len(harts):
                    check(False, f"the sum of '{name}' is that of its harts: {harts}, {total}")
    check(True, "sums are the sums of the harts")


def check_linux(rows, engine):
    """What a boot must have counted."""
    retired, seconds, cpu = (one(rows, "instructions", name)[-1]
                             for name in ("retired", "seconds", "seconds of host CPU"))
    speed = one(rows, "instructions", "million a second")[-1]
    check(retired > 1e8 and cpu > 0.1, f"{engine}: {retired:.0f} instructions in {cpu} s of CPU")
    check(abs(speed * seconds - retired / 1e6) < 0.02 * retired / 1e6 + seconds,
          f"{engine}: {speed} million a second follow from it")
    check(one(rows, "instructions", "seconds asleep")[-1] > 0.5, f"{engine}: harts slept")
    for name in ("call from U-mode", "load page fault", "store page fault", "S timer interrupt",
                 "call of the built-in SBI"):
        check(one(rows, "traps", name)[-1] > 0, f"{engine}: '{name}' was counted")
    check_sums(rows)


def check_translator(rows):
    """What only the translator counts."""
    left = sum(numbers[0][-1] for numbers in rows["left translated code"].values())
    entered = one(rows, "translator", "entered from the dispatcher")[-1]
    check(left == entered > 0, f"translated code was left as often as entered, {entered:.0f} times")
    loads, misses = (one(rows, "memory", name)[-1] for name in ("loads", "loads that missed the TLB"))
    hit = rows["memory"]["% hit"][0][-1]
    check(0.8 * loads > misses > 0, f"of {loads:.0f} loads {misses:.0f} missed the TLB")
    check(abs(hit - 100 * (1 - misses / loads)) < 0.01, f"which is {hit} % that hit")


def stats(test):
    if UNDER_QEMU:
        raise Skipped("QEMU has no --stats")
    need(vm.KERNEL, vm.INITRAMFS)
    initrd = vm.with_script(SCRIPT, test.folder / "initrd")
    for engine in ("interp", "jit"):
        guest = test.start(vm.Machine(initrd=initrd, cpus=2, more=["--engine", engine, "--stats"]))
        test.finish(guest)
        rows = table(guest)
        check_linux(rows, engine)
        if engine == "jit":
            check_translator(rows)
        else:
            check("translator" not in rows, "interp: nothing is said of a translator")

    image, _ = firmware.build("echo", test.folder)
    guest = test.start(vm.Machine(kernel=None, initrd=None, append=None, firmware=image,
                                  more=["--engine", "jit", "--stats"]))
    guest.expect("ready", TIMEOUT)
    guest.process.send_signal(signal.SIGTERM)
    check(guest.wait(60) == 128 + signal.SIGTERM, "a signal ends the partition")
    check(one(table(guest), "instructions", "retired")[-1] > 0, "the table is printed then too")


main(stats)
