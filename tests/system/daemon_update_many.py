#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""One update after the other: as deltas to the version that runs and to an older one, and with none to
base a delta on; how many versions are kept; and from a copy of the partition, restored from a
snapshot."""

import copy

from lib.channel import Refused
from lib.daemon import Supervisor, create, echo_guest
from lib.harness import Failed, check, free_port, main, need
from lib.updates import Door, make_package, only_delta, version
import vm


def update(test):
    need(vm.KERNEL, vm.INITRAMFS)
    door = Door(test)
    files = {number: make_package(test, f"v{number}", number=number, base=1 if number > 1 else None)
             for number in (1, 2, 3, 4, 5)}
    supervisor = Supervisor(test, ["--trusted", test.folder / "trusted", "--keep", "1"])
    create(supervisor, "plain", echo_guest(test))
    create(supervisor, "web", door.definition, updates=True)

    for number in (1, 2, 3, 4):
        session = brings(supervisor, door, "web", files[number])
        check(session["payload"] == (number > 1),
              f"version {number} came as payload {session['payload']} of {session['bytes']} bytes")
    slots = {slot["version"]: slot for slot in supervisor.call("GET", "/v1/update")["slots"]}
    check(sorted(slots) == [version(2), version(3), version(4)] and
          slots[version(4)]["current"] and slots[version(3)]["previous"],
          f"with --keep 1 the oldest of four is gone: {sorted(slots)}")
    refused(door, only_delta(test, "v5", files[5]), "a delta to what is gone is refused")
    base_is_damaged(test, supervisor, door)
    copied(test, supervisor, door, files[5])
    supervisor.stop()


def brings(supervisor, door, name, files):
    """A guest updates the host; what it was told of its offer."""
    before = supervisor.call("GET", "/v1")["version"]
    guest = door.greet()
    session, committed = guest.commit(files)
    guest.close()
    if committed is None:
        committed = door.outcome(files)["result"]
    now = supervisor.call("GET", "/v1")["version"]
    check(committed["old"] == before and committed["new"] == now != before,
          f"{name} has brought version {now}: {committed}")
    return session


def refused(door, files, what):
    """A guest's update is refused for want of a base."""
    guest = door.greet()
    try:
        guest.commit(files)
        raise Failed(what)
    except Refused as reason:
        check(reason.code == 21 and "/" not in str(reason), f"{what}: {reason}")
    guest.close()


def base_is_damaged(test, supervisor, door):
    """A delta to a version of which somebody has changed the program."""
    files = only_delta(test, "v6", make_package(test, "v6", number=6, base=2))
    program = supervisor.state / "update" / "slots" / version(2) / "strake"
    data = bytearray(program.read_bytes())
    data[len(data) // 2] ^= 1
    program.write_bytes(data)
    refused(door, files, "a delta to what was altered is refused")


def copied(test, supervisor, door, files):
    """A copy of the partition has a vsock of its own, and may update as the original may."""
    folder, other = test.folder / "snap", copy.copy(door)
    other.port = free_port()
    supervisor.call("POST", supervisor.path("web", "/snapshot"), {"path": str(folder)})
    supervisor.call("POST", "/v1/restore", {"path": str(folder), "changes": {
        "name": "copy", "net": [f"user,hostfwd=tcp:127.0.0.1:{other.port}-:5354"]}})
    vsock = {name: supervisor.call("GET", supervisor.path(name))["definition"]["vsock"]
             for name in ("web", "copy")}
    check(len({value.partition(",")[0] for value in vsock.values()}) == 2 and
          len({value.partition(",")[2] for value in vsock.values()}) == 2,
          f"each has a vsock of its own: {vsock}")
    check(says_hello(door) == "web" and says_hello(other) == "copy", "and each is served by its name")
    brings(supervisor, other, "copy", files)
    for name in ("web", "plain", "copy"):
        after = supervisor.show(name)
        check(after["state"] == "running" and after["runs"] == 1, f"{name} runs on")
    check(supervisor.call("GET", supervisor.path("copy"))["definition"]["vsock"] == vsock["copy"],
          "the copy keeps its vsock")
    check(says_hello(door) == "web" and says_hello(other) == "copy", "both are served still")


def says_hello(door):
    """The name by which a guest is known."""
    guest = door.greet()
    name = guest.hello()["partition"]
    guest.close()
    return name


main(update)
