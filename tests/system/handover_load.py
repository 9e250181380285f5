#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""A guest with two harts that writes to its disk and exchanges messages with the host is handed
over again and again."""

from lib.handovers import handovers
from lib.harness import main

main(lambda test: handovers(test, count=100, least=10, seconds=30))
