#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""What every appliance has, under a daemon: the agent answers soon after the start, the console gives nobody a
shell, and the power button switches the guest off."""

import time

from lib import agent
from lib.daemon import Supervisor, create
from lib.harness import PROJECT, UNDER_QEMU, Skipped, check, main, need

APPLIANCE = PROJECT / "build" / "appliance" / "plain"


def appliance_plain(test):
    if UNDER_QEMU:
        raise Skipped("QEMU is no peer for this test")
    need(APPLIANCE / "initrd")
    supervisor = Supervisor(test)
    path = test.folder / "vsock"
    create(supervisor, "plain", {"kernel": str(APPLIANCE / "Image"), "initrd": str(APPLIANCE / "initrd"),
                                 "append": "quiet", "vsock": f"3,{path}"})
    begun = time.monotonic()
    with agent.wait(path) as talk:
        check(talk.request("hello") == ["appliance plain"],
              f"the agent says which appliance it is in, {time.monotonic() - begun:.1f} s after the start")
        check(talk.request("hello", "any payload\nhealth\n" * 5000) == ["appliance plain"],
              "a payload is no request")
        check(talk.request("health") == [], "nothing runs in it, and that is well")
    console = supervisor.console("plain")
    check("/ #" not in console, "the console has no shell")
    check("strake-agent: 1 service\r\n" in console, "the agent has counted what it serves")
    supervisor.call("POST", supervisor.path("plain", "/stop"), None)
    check(supervisor.show("plain")["state"] == "stopped", "the power button switches it off")
    supervisor.stop()


main(appliance_plain)
