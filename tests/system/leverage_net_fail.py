#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""What becomes of packets when a guest, its monitor, the interceptor's process or the supervisor is gone, or
all of them: with `fail open` they pass, with `fail closed` nothing passes, ever, that the guest would not let
through; and the host is what it was before. STRAKE_TEST_ROUNDS=N rounds of kills instead of 8,
STRAKE_TEST_SEED=N for the same ones."""

import os
import random
import signal
import socket
import threading
import time

from lib.harness import Failed, check, main
from lib.leverage import configuration, ip, run, wait_until
from lib.wire import HOST, HOST6, OUT, OUT6, Wire, check_as_before, refused, talk

ROUNDS = int(os.environ.get("STRAKE_TEST_ROUNDS", "8"))
SEED = int(os.environ.get("STRAKE_TEST_SEED", str(int(time.time()))))
TAPS = ("fw0", "strake0")
LIMIT = "8s"  # of a guest that is to be missed soon, but not for being slow


class Leak:
    """Sends, all the time and both ways, what the guest's rules forbid; notes when any of it arrives."""

    def __init__(self, wire):
        self.arrived, self.sent, self.stopped = [], 0, False
        self.quiet = {}  # how often a receiver has waited in vain
        self.threads = []
        for family, host, out in ((socket.AF_INET, HOST, OUT), (socket.AF_INET6, HOST6, OUT6)):
            outside = lambda: wire.outside.socket(  # pylint: disable=unnecessary-lambda-assignment
                family, socket.SOCK_DGRAM)  # pylint: disable=cell-var-from-loop
            here = socket.socket(family, socket.SOCK_DGRAM)
            there = outside()
            here.bind((host, 5001))
            there.bind((out, 9))
            self._start(self._receive, here, "in", family)
            self._start(self._receive, there, "out", family)
            self._start(self._send, outside(), (host, 5001))
            self._start(self._send, socket.socket(family, socket.SOCK_DGRAM), (out, 9))

    def _start(self, function, *arguments):
        thread = threading.Thread(target=function, args=arguments, daemon=True)
        thread.start()
        self.threads.append(thread)

    def _receive(self, receiver, what, family):
        receiver.settimeout(0.1)
        self.quiet[what, family] = 0
        while not self.stopped:
            try:
                receiver.recv(100)
                self.arrived.append((time.monotonic(), what))
            except OSError:
                self.quiet[what, family] += 1
        receiver.close()

    def _send(self, sender, to):
        while not self.stopped:
            try:
                sender.sendto(b"forbidden", to)
                self.sent += 1
            except OSError:  # nobody knows the way at this moment
                pass
            time.sleep(0.005)
        sender.close()

    def forget(self):
        """What has arrived so far, once no more of it does."""
        quiet = dict(self.quiet)
        wait_until(lambda: all(count > quiet[what] + 1 for what, count in self.quiet.items()), "nothing arrives any more")
        self.arrived.clear()

    def stop(self):
        """No more."""
        self.stopped = True
        for thread in self.threads:
            thread.join()

    def check_tight(self, what):
        """Nothing has arrived."""
        if self.arrived:
            raise Failed(f"not so: {what}: {len(self.arrived)} of {self.sent} arrived: {self.arrived[:5]}")
        check(self.sent > 0, f"{what} ({self.sent} were sent)")


def kill(*pids, number=signal.SIGKILL):
    """Sends a signal to processes, some of which may have ended."""
    for pid in pids:
        if pid:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass


def processes(wire):
    """Monitor and interceptor; None: there is none at this moment."""
    return wire.host.show("fw").get("pid"), wire.host.interceptor("wan").get("pid")


def kill_all(wire):
    """Everything that strake has, at once."""
    supervisor = wire.host.process
    kill(supervisor.pid, number=signal.SIGSTOP)  # it starts nothing more
    for _ in range(2):
        for pid in wire.host.marked():
            kill(pid)
    supervisor.wait()


def settled(wire, patience=120):
    """Waits until packets go through the guest again."""
    wire.host.wait_state("wan", "active", patience=patience)


def fails_open(wire):
    """--fail open."""
    before = configuration()
    wire.intercept(fail="open", time_limit=LIMIT)
    connection = wire.connect(HOST, 80)
    wait_until(lambda: refused(lambda: wire.connect(HOST, 81, timeout=1)), "port 81 is closed")
    check(True, "open: the guest's rules are in force")

    monitor, worker = processes(wire)
    kill(worker)
    talk(connection)
    settled(wire)
    wait_until(lambda: processes(wire)[1] not in (None, worker), "there is another process")
    settled(wire)
    talk(connection)
    wait_until(lambda: run("nft list tables").count("strake-wan") == 1, "there is one table")
    check(f"strake-wan/{processes(wire)[1]}" in run("nft list tables"),
          "open: a killed process' successor has taken over")
    wire.host.give_up("wan")
    check_as_before(before, "open: which knows what there was before its predecessor", *TAPS)
    wire.intercept(fail="open", time_limit=LIMIT)

    kill(monitor, number=signal.SIGSTOP)
    wire.host.wait_state("wan", "bypassed")
    talk(wire.connect(HOST, 81))
    talk(wire.connect(HOST6, 81))
    talk(connection)
    check(True, "open: packets pass a guest that has stopped")
    check("strake0" not in ip("route show") and "proto 83" not in ip("route show"), "open: and by no route of ours")
    kill(monitor, number=signal.SIGCONT)
    settled(wire)
    wait_until(lambda: refused(lambda: wire.connect(HOST, 81, timeout=1)), "port 81 is closed")
    check(True, "open: no longer when it goes on")

    kill(monitor)
    wait_until(lambda: processes(wire)[0] not in (None, monitor), "the partition is started again")
    talk(connection)
    settled(wire)
    talk(connection)
    check(True, "open: the connection is there after another monitor was started")

    kill_all(wire)
    check_as_before(wire.bare, "open: with all killed, the host is as it was before")
    talk(wire.connect(HOST, 81))
    talk(wire.connect(OUT6, 9, there=False))
    talk(connection)
    wire.host.start()
    settled(wire)
    wait_until(lambda: refused(lambda: wire.connect(HOST, 81, timeout=1)), "port 81 is closed")
    check(True, "open: the next supervisor has all of it again")
    talk(connection)
    stats = wire.host.counters("wan")
    check(stats["seen"] > 0, f"open: {stats['packets']}")
    wire.host.give_up("wan")


def fails_closed(wire):
    """--fail closed."""
    wire.intercept(fail="closed", time_limit=LIMIT)
    leak = Leak(wire)
    connection = wire.connect(HOST, 80)
    monitor, worker = processes(wire)
    kill(monitor, number=signal.SIGSTOP)
    wire.host.wait_state("wan", "shut")
    check(refused(lambda: wire.connect(HOST, 80, timeout=1)), "closed: nothing comes in without the guest")
    check(refused(lambda: wire.connect(OUT, 4444, there=False, timeout=1)), "closed: nor goes out")
    kill(worker)
    wait_until(lambda: processes(wire)[1] not in (None, worker), "there is another process")
    wire.host.wait_state("wan", "shut")
    kill(monitor, number=signal.SIGCONT)
    settled(wire)
    talk(connection)
    check(True, "closed: when it is there again, connections go on")

    kill_all(wire)
    check(refused(lambda: wire.connect(HOST, 80, timeout=1)), "closed: nothing comes in with all killed")
    check(refused(lambda: wire.connect(OUT6, 4444, there=False, timeout=1)), "closed: nor goes out")
    check_as_before({**wire.bare, "nftables": configuration()["nftables"]}, "closed: a table is all that there is")
    check("table netdev strake-wan {" in run("nft list ruleset"), "closed: and it is there")
    wire.host.start()
    settled(wire)
    talk(connection)
    run("nft flush ruleset")
    wait_until(lambda: "strake-wan" in run("nft list tables"), "the table is made again")
    leak.forget()  # it was somebody else who has opened the path
    settled(wire)
    shaken(wire)
    leak.check_tight("closed: nothing that is forbidden has come through, either way, in all this")
    leak.stop()
    talk(connection)
    check(True, "closed: the connection is still there")
    removed_in_the_middle(wire)


def shaken(wire):
    """Kills at any moment."""
    rng = random.Random(SEED)
    print(f"seed {SEED}", flush=True)
    for number in range(ROUNDS):
        time.sleep(rng.uniform(0, 0.5))
        monitor, worker = processes(wire)
        victims = rng.choice(["worker", "monitor", "supervisor", "both", "handover"])
        if victims == "handover":
            thread = threading.Thread(target=wire.host.api, args=("POST", wire.host.path("fw", "/handover")))
            thread.start()
            time.sleep(rng.uniform(0, 0.3))
            kill(worker)
            thread.join()
        if victims in ("worker", "both"):
            kill(worker)
            time.sleep(rng.choice([0, rng.uniform(0, 0.2)]))
        if victims in ("monitor", "both"):
            kill(monitor)
        if victims == "supervisor":
            wire.host.restart()
        if rng.random() < 0.5:
            settled(wire)
        print(f"round {number}: {victims}", flush=True)
    settled(wire)


def removed_in_the_middle(wire):
    """A removal while its process is killed."""
    _, worker = processes(wire)
    thread = threading.Thread(target=wire.host.api, args=("DELETE", "/v1/interceptors/wan"))
    thread.start()
    time.sleep(0.05)
    kill(worker)
    thread.join()
    if wire.host.interceptor("wan"):
        wait_until(lambda: wire.host.api("DELETE", "/v1/interceptors/wan")[0] in (200, 204, 404), "it can be removed")
    wait_until(lambda: not wire.host.interceptor("wan"), "it is removed")
    check("strake-wan" not in run("nft list tables") and "proto 83" not in ip("route show"),
          "a removal in which the process is killed leaves neither table nor routes")


def device_goes(wire):
    """The device is removed, and another comes."""
    wire.intercept(fail="open")
    ip("link set eth0 name gone")  # to whom a name means the device it is the same
    wire.host.wait_state("wan", "bypassed")
    check('no network device "eth0"' in wire.host.interceptor("wan")["why"], "without its device it says so")
    check("strake0" not in ip("route show"), "and has no routes")
    ip("link set gone name eth0")
    settled(wire)
    check(refused(lambda: wire.connect(HOST, 81, timeout=1)), "when it is there again, the guest's rules are in force")
    wire.host.give_up("wan")


def net_fail(test):
    """Both policies, one guest."""
    wire = Wire(test)
    fails_open(wire)
    fails_closed(wire)
    device_goes(wire)
    wire.host.call("POST", wire.host.path("fw", "/kill"))
    check_as_before(wire.bare, "in the end the host's configuration is as before", *TAPS)


main(net_fail)
