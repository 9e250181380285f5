#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""An idle guest uses less than 1 % of a host's core, with either engine, and still answers."""

import time
from pathlib import Path

from lib.harness import TIMEOUT, UNDER_QEMU, check, main, need
import vm

SETTLE, SECONDS = 5, 10
TRIES = 4  # on a busy machine, what a boot leaves behind takes longer


def cpu_seconds(guest):
    """CPU time that all threads of supervisor and monitor have used, from the scheduler's own
    count."""
    tasks = [task for pid in {guest.process.pid, guest.monitor()}
             for task in Path(f"/proc/{pid}/task").glob("*/schedstat")]
    return sum(int(task.read_text().split()[0]) for task in tasks) / 1e9


def measure(test, name, cpus, more):
    guest = test.start(vm.Machine(cpus=cpus, net=[], more=more))
    guest.expect(vm.PROMPT, TIMEOUT)
    for _ in range(TRIES):
        # What a boot leaves behind: work queues, the kernel's random numbers.
        time.sleep(SETTLE)
        start, before = time.monotonic(), cpu_seconds(guest)
        time.sleep(SECONDS)
        used, passed = cpu_seconds(guest) - before, time.monotonic() - start
        if used < 0.01 * passed:
            break
    check(used < 0.01 * passed,
          f"{name}, {cpus} harts: {1000 * used:.1f} ms of CPU in {passed:.1f} s, "
          f"{100 * used / passed:.2f} %")
    guest.send("echo awake $((6 * 7))\n")
    guest.expect(r"awake 42\r?\n", TIMEOUT)
    check(True, f"{name}: it answers")
    guest.stop()


def idle(test):
    need(vm.KERNEL, vm.INITRAMFS)
    if UNDER_QEMU:
        measure(test, "qemu", 1, [])
        return
    for engine, cpus in (("jit", 1), ("jit", 4), ("interp", 1)):
        measure(test, engine, cpus, ["--engine", engine])


main(idle)
