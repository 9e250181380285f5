#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""The programs of tests/check/ under all tools: in all builds by `strake check`, where there is one, and the
suite itself by qemu-riscv64 and, natively, AddressSanitizer and Memcheck."""

import sys

import check_suite
from lib.harness import main
import vm

if __name__ == "__main__":
    TOOLS = "qemu,asan,memcheck" + (",strake" if check_suite.has_check(vm.strake()) else "")
    sys.argv[1:] = ["--tools", TOOLS, "--builds", "all", *sys.argv[1:]]
    main(check_suite.suite)
