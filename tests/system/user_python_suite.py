#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""python3's own tests, of what leans on the system most: they pass as they do on Linux."""

from lib.harness import check
from lib.programs import main

TRIES = 5  # test_epoll is given 10 ms for a call that returns at once
SUITES = ("array", "bz2", "ctypes", "epoll", "fcntl", "fork1", "json", "mmap")


def python_suite(programs):
    for name in SUITES:
        for _ in range(TRIES):
            status, output, errors = programs.run("python3", "-B", "-m", "test", f"test_{name}")
            said = (output + errors).decode(errors="replace")
            if status == 0:
                break
            print(said[-8000:])
        check(status == 0 and "Result: SUCCESS" in said, f"test_{name}")


main(python_suite)
