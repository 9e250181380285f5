#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Under an interceptor of packets, all of strake becomes another version: the monitors of its partitions, the
supervisor, the interceptor's process. Connections through the guest go on, and what its rules forbid comes
to the host at no moment of it."""

import os
import socket
import threading
import time
from pathlib import Path

from lib.harness import check, main
from lib.leverage import Capture, check_same, configuration, run, wait_until
from lib.wire import HOST, HOST6, OUT, Wire, check_as_before, talk
import vm

OTHER = b"9.9.9.9.9"


def update(test):
    """There and back, with one guest."""
    wire = Wire(test)
    other = other_version(test)
    before = configuration()
    wire.intercept()
    pairs = [wire.connect(HOST, 80), wire.connect(HOST6, 80), wire.connect(OUT, 4444, there=False)]
    capture, intruder = Capture("strake0"), Intruder(wire)
    for program in (other, vm.strake()):
        former = seen(wire)
        talker = Talker(pairs)
        wire.host.done("handover", "--all", "--supervisor", "--binary", program)
        now = seen(wire)
        check(now["version"] != former["version"] and now["supervisor"] == former["supervisor"] and
              now["monitor"] != former["monitor"] and now["worker"] not in (former["worker"], None),
              f"all of it went from {former} to {now}")
        check(wire.host.wait_state("wan", "active")["restarts"] == 0, "the interceptor is active, and never failed")
        rounds = talker.rounds
        wait_until(lambda: talker.rounds > rounds + 3 or talker.failure,  # pylint: disable=cell-var-from-loop
                   "connections are used")
        check(talker.stop() > 3, "connections from outside and to there went on, and were used all the time")
    for pair in pairs:
        talk(pair)
    intruder.stop()
    capture.stop()
    check(intruder.sent > 100 and not capture.has(intruder.text) and not intruder.came(),
          f"of {intruder.sent} forbidden packets, sent all the time, none has come to the host")
    check(capture.has(b"x" * 1000), "while others have")
    tables = [line for line in run("nft list tables").splitlines() if "strake" in line]
    check(len(tables) == 1, f"there is one table of the packet filter: {tables}")
    wire.host.give_up("wan")
    check_as_before(before, "after its removal the host's configuration is as before", "fw0", "strake0")
    wire.host.call("POST", wire.host.path("fw", "/kill"))
    check_same(wire.bare, "without interceptor and partition the host is as before")


def other_version(test):
    """A copy of the program that says that it is of another version."""
    content = Path(vm.strake()).read_bytes()
    version = run([vm.strake(), "--version"]).split()[1].encode()
    path = test.folder / "other"
    path.write_bytes(content.replace(b"\0" + version + b"\0", b"\0" + OTHER[:len(version)] + b"\0"))
    path.chmod(0o755)
    return path


def seen(wire):
    """Version, and processes."""
    about = wire.host.call("GET", "/v1")
    return {"version": about["version"], "supervisor": about["pid"], "monitor": wire.host.monitor("fw"),
            "worker": wire.host.wait_state("wan", "active")["pid"]}


class Talker:
    """Uses connections, both ways, until it is stopped."""

    def __init__(self, pairs):
        self.pairs, self.rounds, self.stopped, self.failure = pairs, 0, False, None
        self.thread = threading.Thread(target=self._talk, daemon=True)
        self.thread.start()

    def _talk(self):
        try:
            while not self.stopped:
                for pair in self.pairs:
                    talk(pair, b"x" * 20_000)
                self.rounds += 1
        except Exception as failure:  # pylint: disable=broad-except
            self.failure = failure

    def stop(self):
        """How often each was used; raises what went wrong."""
        self.stopped = True
        self.thread.join()
        if self.failure:
            raise self.failure
        return self.rounds


class Intruder:
    """Sends from outside what the guest's rules forbid, to a port where it would be received."""

    def __init__(self, wire):
        self.text = os.urandom(16).hex().encode() * 4
        self.receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.receiver.bind((HOST, 5001))
        self.receiver.setblocking(False)
        self.sender = wire.outside.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sent, self.stopped = 0, False
        self.thread = threading.Thread(target=self._send, daemon=True)
        self.thread.start()

    def _send(self):
        while not self.stopped:
            self.sender.sendto(self.text, (HOST, 5001))
            self.sent += 1
            time.sleep(0.005)

    def stop(self):
        """No more."""
        self.stopped = True
        self.thread.join()

    def came(self):
        """Whether any was received."""
        try:
            return bool(self.receiver.recv(4096))
        except BlockingIOError:
            return False


main(update)
