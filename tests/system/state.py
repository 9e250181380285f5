#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""A guest goes through its saved state into new partitions again and again and never notices; it is told
of a new VM generation id; the power button switches it off."""

import os
import subprocess

from lib.harness import UNDER_QEMU, Skipped, check, main
import vm


def round_trips(engine, cpus, rounds):
    run = subprocess.run([os.environ["ROUNDTRIP"], vm.KERNEL, vm.INITRAMFS, str(cpus), engine,
                          str(rounds)],
                         capture_output=True, text=True, timeout=800, check=False)
    print(run.stdout + run.stderr)
    check(run.returncode == 0, f"{rounds} round trips with {engine} and {cpus} harts")


def state(_test):
    if UNDER_QEMU:
        raise Skipped("QEMU is no peer for this test")
    round_trips("jit", 2, 12)
    round_trips("interp", 1, 4)


main(state)
