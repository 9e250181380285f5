#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Ten minutes of storms, each with another seed; see storm.py."""

from lib import firmware
from lib.harness import main
from lib.storm import seed, storm

SECONDS = 600
EACH = 10


def storms(test):
    _, image = firmware.build("storm", test.folder, firmware.KERNEL)
    for number in range(SECONDS // EACH):
        storm(test, image, seed() + number, EACH, reboots=number % 2 == 1)


main(storms)
