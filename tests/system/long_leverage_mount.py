#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""leverage_mount.py with 10,000 files in each file system, and two file systems more."""

import os

os.environ.setdefault("STRAKE_TEST_FILES", "10000")

import leverage_mount  # pylint: disable=wrong-import-position
from lib.harness import main  # pylint: disable=wrong-import-position

main(leverage_mount.mount)
