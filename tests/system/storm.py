#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""A guest that does its worst on four harts, to all devices and to the SBI, neither crashes nor hangs the
monitor, nor makes it grow or talk without end; with reboots and without."""

from lib import firmware
from lib.harness import main
from lib.storm import seed, storm


def storms(test):
    _, image = firmware.build("storm", test.folder, firmware.KERNEL)
    storm(test, image, seed(), 4)
    storm(test, image, seed(), 4, reboots=True)


main(storms)
