#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""A partition that begins an update and never comes back holds others off for ten minutes, and what it
has sent is not lost."""

import contextlib
import json
import random
import time

from lib.channel import FINISH, WITHDRAW, Refused
from lib.daemon import Supervisor, create
from lib.harness import Failed, check, main, need
from lib.refusals import audit, documented, says
from lib.updates import Door, facts, pack
import vm

LOST_SECONDS = 600  # docs/guest-channel.md, "Limits"
VERSION, PAYLOAD = "9.0.0", "monitor-full.zst"


def idle(test):
    need(vm.KERNEL, vm.INITRAMFS)
    web, db = Door(test), Door(test)
    supervisor = Supervisor(test, ["--trusted", test.folder / "trusted"])
    create(supervisor, "web", web.definition, updates=True)
    create(supervisor, "db", db.definition, updates=True)
    program = says(json.dumps({**facts(), "version": VERSION}).encode())
    good = pack(test, "good", program + random.Random(6).randbytes(100_000), version=VERSION)
    with contextlib.closing(web.greet()) as guest:
        guest.offer(good)
        guest.write(good[PAYLOAD], 0, 60_000)
    since = time.monotonic()
    with contextlib.closing(db.greet()) as guest:
        is_busy(guest, good)
    while (last := audit(supervisor)[-1])["event"] != "abandoned":
        if time.monotonic() - since > 2 * LOST_SECONDS:
            raise Failed(f"the session is not abandoned: {last}")
        time.sleep(1)
    seconds = time.monotonic() - since
    check(last["partition"] == "web" and seconds > LOST_SECONDS - 5,
          f"a session whose guest is gone is abandoned after {seconds:.0f} s")
    with contextlib.closing(db.greet()) as guest:
        session = guest.offer(good)
        check(session["offset"] == 60_000, "another partition goes on with what is there")
        guest.write(good[PAYLOAD], 60_000)
        check(guest.ask(FINISH)["version"] == VERSION, "and it is validated")
        guest.send(WITHDRAW)
        guest.answer()


def is_busy(guest, good):
    """Another partition has to wait."""
    try:
        guest.offer(good)
    except Refused as told:
        check(told.code == documented()["busy"].code, f"another partition is told {told}")
        return
    raise Failed("two partitions have a session")


main(idle)
