#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Updates from a guest in which something is killed, at each step once; long_update_kill.py does it
many times, at random moments, too."""

from lib.harness import main
from lib.update_kills import (Moment, System, kill_guest, kill_monitor, kill_supervisor, kill_tree,
                              kill_updater, seed, undisturbed)

PLAN = (
    (kill_supervisor, Moment(step="offered")),
    (kill_supervisor, Moment(step="validated")),
    (kill_supervisor, Moment(step="pending")),
    (kill_supervisor, Moment(step="the first is handed over")),
    (kill_supervisor, Moment(step="it is executed")),
    (kill_supervisor, Moment(step="confirmed")),
    (kill_updater, Moment(phase="sending")),
    (kill_updater, Moment(phase="committing")),
    (kill_tree, Moment(step="received in part")),
    (kill_tree, Moment(step="committing")),
    (kill_tree, Moment(step="pending")),
    (kill_tree, Moment(step="the last is handed over")),
    (kill_tree, Moment(step="ready")),
    (kill_monitor, Moment(step="pending")),
    (kill_guest, Moment(phase="installing")),
)


def update_kill(test):
    """All of it, one after the other."""
    seed()
    system = System(test)
    undisturbed(system, 0)
    for number, (what, moment) in enumerate(PLAN, 1):
        system.round(number, what, moment)
    undisturbed(system, len(PLAN) + 1)
    system.check_all()


main(update_kill)
