#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""A thousand handovers in a row under load; STRAKE_TEST_HANDOVERS=N does fewer."""

import os

from lib.handovers import handovers
from lib.harness import main

COUNT = int(os.environ.get("STRAKE_TEST_HANDOVERS") or 1000)

main(lambda test: handovers(test, count=COUNT, least=COUNT, seconds=3 * 3600))
