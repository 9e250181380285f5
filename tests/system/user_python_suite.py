#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""python3's own tests, of what leans on the system most: they pass as they do on Linux."""

from lib.harness import check
from lib.programs import main

SUITES = ("array", "bz2", "ctypes", "epoll", "fcntl", "fork1", "json", "mmap")


def python_suite(programs):
    for name in SUITES:
        status, output, errors = programs.run("python3", "-B", "-m", "test", f"test_{name}")
        said = (output + errors).decode(errors="replace")
        if status != 0:
            print(said[-8000:])
        check(status == 0 and "Result: SUCCESS" in said, f"test_{name}")


main(python_suite)
