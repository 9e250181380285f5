#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Two hundred updates from a guest in which something is killed, at each step and at random moments in
turns; STRAKE_TEST_ROUNDS=N does fewer, STRAKE_TEST_SEED=N chooses the moments."""

import os
import random

from lib.harness import main
from lib.update_kills import (KILLS, PHASES, STEPS, Moment, System, kill_guest, kill_updater, seed,
                              undisturbed)

ROUNDS = int(os.environ.get("STRAKE_TEST_ROUNDS") or 200)


def moment(what, turn, usual_s):
    """The next step, or some time or other; an update takes `usual_s`."""
    if turn % 2:
        return Moment(seconds=random.uniform(0, usual_s))
    if what in (kill_updater, kill_guest):
        return Moment(phase=PHASES[turn // 2 % len(PHASES)])
    return Moment(step=list(STEPS)[turn // 2 % len(STEPS)])


def update_kills(test):
    """All of it, one after the other."""
    seed()
    system = System(test)
    usual_s = undisturbed(system, 0)
    for number in range(1, ROUNDS + 1):
        what = KILLS[number % len(KILLS)]
        system.round(number, what, moment(what, number // len(KILLS), usual_s))
    undisturbed(system, ROUNDS + 1)
    system.check_all()


main(update_kills)
