#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""New versions that do not prove themselves: whose supervisor hangs, crashes, or does not find a
partition. Each is ended, by time at the latest; the next start goes back, and partitions run on."""

import signal
import struct
import subprocess
import threading
import time

from lib.channel import COMMIT, FINISH
from lib.daemon import PATIENCE, Supervisor, create, echo_guest
from lib.harness import Failed, check, main, need
from lib.updates import Door, history, make_package, version
import vm

WITHIN = 30  # seconds to prove itself, the least that there is
HANG, CRASH = b"\xeb\xfe", b"\x0f\x0b"  # x86: jmp to itself, ud2
HOLD_MS = 9000  # less than the supervisor waits until it has no request


def update(test):
    need(vm.KERNEL, vm.INITRAMFS)
    door = Door(test)
    hangs(test, door)
    crashes(test, door)
    finds_not_all(test, door)


def patched(function, code):
    """A change of a program by which a function of it is other code."""
    symbols = subprocess.run(["nm", vm.strake()], check=True, capture_output=True, text=True).stdout
    address, = (int(line.split()[0], 16) for line in symbols.splitlines()
                if line.endswith(f" T {function}"))

    def patch(program):
        table, = struct.unpack_from("<Q", program, 32)
        size, count = struct.unpack_from("<HH", program, 54)
        for at in range(table, table + size * count, size):
            kind, _, offset, start, _, length = struct.unpack_from("<IIQQQQ", program, at)
            if kind == 1 and start <= address < start + length:
                place = offset + address - start
                return program[:place] + code + program[place + len(code):]
        raise Failed(f"{function} is nowhere in the file")
    return patch


def begin(test, door, files):
    """A supervisor with two partitions, of which one has its package validated."""
    supervisor = Supervisor(test, ["--trusted", test.folder / "trusted",
                                   "--confirm-within", str(WITHIN)])
    create(supervisor, "plain", echo_guest(test))
    create(supervisor, "web", door.definition, updates=True)
    guest = door.greet()
    guest.offer(files)
    guest.write(files["monitor-full.zst"])
    guest.ask(FINISH)
    return supervisor, guest


def goes_back(supervisor, door, files):
    """The service is started again, as a service manager does: it goes back, and all runs on."""
    supervisor.start()
    outcome = door.outcome(files)
    check(outcome["phase"] == "rolled-back" and outcome["result"]["error"] == 25,
          f"the next start goes back: {outcome['result']['why']}")
    check(supervisor.call("GET", "/v1")["version"] != version(), "the supervisor is the old one")
    for name in ("plain", "web"):
        after = supervisor.wait_for(name, lambda one: one["handovers"] == 2, "it is handed back")
        check(after["state"] == "running" and after["runs"] == 1, f"{name} runs on")
    supervisor.type("plain", b"still here")
    supervisor.wait_console("plain", "still here")
    check("confirmed" not in history(supervisor), "nothing was confirmed")
    supervisor.stop()


def hangs(test, door):
    """Its supervisor finds partitions, and then does nothing any more."""
    files = make_package(test, "hangs", change=patched("updates_settled", HANG))
    supervisor, guest = begin(test, door, files)
    began = time.monotonic()
    guest.send(COMMIT)
    status = supervisor.process.wait(WITHIN + PATIENCE * 5)
    check(status == -signal.SIGALRM and time.monotonic() - began > WITHIN / 2,
          f"what hangs is ended after {time.monotonic() - began:.0f} s")
    guest.close()
    goes_back(supervisor, door, files)


def crashes(test, door):
    """Its supervisor crashes at the same place."""
    files = make_package(test, "crashes", change=patched("updates_settled", CRASH))
    supervisor, guest = begin(test, door, files)
    guest.send(COMMIT)
    check(supervisor.process.wait(PATIENCE * 5) == -signal.SIGILL, "the new supervisor crashes")
    guest.close()
    goes_back(supervisor, door, files)


def finds_not_all(test, door):
    """A partition answers the old supervisor, but not the new one. A request that is under way holds
    the old one, until the test has stopped that partition's new monitor."""
    files = make_package(test, "silent")
    supervisor, guest = begin(test, door, files)
    create(supervisor, "busy", echo_guest(test))
    path = supervisor.path("busy", "/stop")
    hold = threading.Thread(target=supervisor.api, args=("POST", path, {"timeout_ms": HOLD_MS}))
    hold.start()
    guest.send(COMMIT)
    monitor = supervisor.wait_for("plain", lambda one: one["handovers"] == 1, "it is handed over")
    subprocess.run(["kill", "-STOP", str(monitor["pid"])], check=True)
    hold.join()
    began = time.monotonic()
    status = supervisor.process.wait(WITHIN + PATIENCE * 5)
    check(status == -signal.SIGALRM,
          f"a supervisor that does not find all is ended after {time.monotonic() - began:.0f} s")
    subprocess.run(["kill", "-CONT", str(monitor["pid"])], check=True)
    guest.close()
    goes_back(supervisor, door, files)


main(update)
