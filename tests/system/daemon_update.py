#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""A guest replaces the monitor under itself and under another partition: over its vsock, to the
supervisor's service, which a program of the guest's relays to this test."""

import os
import subprocess

from lib.channel import COMMIT, FINISH, Refused
from lib.daemon import PATIENCE, Supervisor, create, echo_guest
from lib.harness import Failed, check, main, need
from lib.updates import Door, history, make_package, version
import vm


def update(test):
    need(vm.KERNEL, vm.INITRAMFS)
    door = Door(test)
    not_permitted(test, door)
    goes_back(test, door)
    goes_on(test, door)


def not_permitted(test, door):
    """Without `updates` the service refuses, and says so."""
    supervisor = Supervisor(test)
    create(supervisor, "web", door.definition, vsock=f"7,{test.folder / 'vsock'}")
    try:
        door.greet()
        raise Failed("a partition without updates may update")
    except Refused as refused:
        check(refused.code == 3, f"a partition without updates is refused: {refused}")
    events = history(supervisor)
    check(len(events) == 1, f"and the audit log has it: {events}")
    result = subprocess.run([vm.strake(), "run", "--updates"], capture_output=True, text=True,
                            timeout=PATIENCE, check=False)
    check(result.returncode == 2 and "strake create --updates" in result.stderr,
          result.stderr.splitlines()[0])
    supervisor.stop()


def begin(test, door, files):
    """A supervisor with two partitions, of which one has committed; whatever came of that."""
    supervisor = Supervisor(test, ["--trusted", test.folder / "trusted"])
    create(supervisor, "plain", echo_guest(test))
    create(supervisor, "web", door.definition, updates=True)
    guest = door.greet()
    told = guest.hello()
    check(told["partition"] == "web" and told["version"] != version(), f"HELLO: {told}")
    session = guest.offer(files)
    check(session["phase"] in ("offered", "receiving") and session["offset"] == 0,
          f"OFFER: {session}")
    guest.write(files["monitor-full.zst"])
    validated = guest.ask(FINISH)
    check(validated["version"] == version(), f"FINISH: {validated}")
    try:
        return supervisor, guest.ask(COMMIT)
    except ConnectionError:
        return supervisor, None


def goes_on(test, door):
    """The new version takes over."""
    files = make_package(test, "good")
    supervisor, committed = begin(test, door, files)
    pid = supervisor.process.pid
    if committed is None:
        committed = door.outcome(files)["result"]
    check(committed["new"] == version() and committed["partitions"] == 2, f"COMMIT: {committed}")
    now = supervisor.call("GET", "/v1")
    check(now["version"] == version() and now["pid"] == pid, "the supervisor is the new one")
    for name in ("web", "plain"):
        after = supervisor.show(name)
        check(after["handovers"] == 1 and after["state"] == "running", f"{name} runs on")
    supervisor.restart()
    check(supervisor.call("GET", "/v1")["version"] == version() and
          supervisor.show("web")["state"] == "running",
          "killed and started, it is the current version")
    events = history(supervisor)
    check(events[:6] == ["offered", "received", "validated", "committing", "installed", "pending"]
          and "confirmed" in events, f"the audit log has all of it: {events}")
    supervisor.stop()


def goes_back(test, door):
    """A version whose supervisor fails is taken back at the next start."""
    files = make_package(test, "bad", (b"\0daemon\0", b"\0daemom\0"))
    supervisor, committed = begin(test, door, files)
    check(committed is None and supervisor.process.wait(PATIENCE) != 0,
          "the new version's supervisor fails")
    supervisor.start()
    outcome = door.outcome(files)
    check(outcome["phase"] == "rolled-back" and outcome["result"]["error"] == 25,
          f"the next start goes back: {outcome}")
    check(supervisor.call("GET", "/v1")["version"] != version(), "the supervisor is the old one")
    installed = os.stat(vm.strake())
    for name in ("plain", "web"):
        supervisor.wait_for(name, lambda one: one["handovers"] == 2, "it is handed back")
        now = os.stat(f"/proc/{supervisor.show(name)['pid']}/exe")
        check((now.st_dev, now.st_ino) == (installed.st_dev, installed.st_ino),
              f"{name} runs on in the old version")
    supervisor.stop()


main(update)
