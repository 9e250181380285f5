#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Handovers under a supervisor in which something fails: the new program is none, the new monitor, the
old one or the supervisor is killed or stopped at any moment. The guest writes the alphabet over and
over, from a register: that no letter is missing or doubled shows that it goes on where it was, in one
process only. Each fault at each step is in tests/unit/handover_faults.c and supervisor_handover.c."""

import os
import random
import signal
import struct
import threading
import time
from pathlib import Path

from lib.daemon import Supervisor, check_quietly, create
from lib.harness import check, main
from lib.leverage import wait_until

# t1 from 'a' to 'z' to the UART, about every millisecond, for ever.
LETTERS = [0x100002b7, 0x06100313, 0x07a00393, 0x00628023, 0x00200e37, 0xfffe0e13, 0xfe0e1ee3,
           0x00130313, 0xfe63d6e3, 0x06100313, 0xfe5ff06f]
ALPHABET = "abcdefghijklmnopqrstuvwxyz"
ROUNDS = 8


def faults(test):
    """All of it, one after the other."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    random.seed(seed)
    image = test.folder / "letters"
    image.write_bytes(struct.pack(f"<{len(LETTERS)}I", *LETTERS))
    guest = {"firmware": str(image), "memory": "64M"}
    supervisor = Supervisor(test)
    start(supervisor, guest)
    no_monitor(supervisor)
    new_stopped(supervisor)
    new_killed(supervisor, guest)
    old_killed(supervisor, guest)
    supervisor_killed(supervisor)
    check(hand_over(supervisor)[0] == 200, "after all that a handover succeeds")
    check_goes_on(supervisor)


def start(supervisor, guest):
    """Has the partition run, from the start."""
    if supervisor.show("letters") is None:
        create(supervisor, "letters", guest, start=False)
    supervisor.call("POST", supervisor.path("letters", "/start"))
    check_goes_on(supervisor)


def check_goes_on(supervisor):
    """The guest has written no letter twice, left none out, and writes more."""
    before = supervisor.console("letters")
    deadline = time.monotonic() + 30
    while True:
        text = supervisor.console("letters")
        wrong = [i for i in range(1, len(text))
                 if (ALPHABET.index(text[i - 1]) + 1) % 26 != ALPHABET.index(text[i])]
        check_quietly(not wrong, "the guest went on elsewhere: " +
                      "".join(text[max(0, i - 20):i + 20] for i in wrong[:1]))
        if len(text) > len(before) + 20:
            return
        check_quietly(time.monotonic() < deadline, "the guest does not go on")
        time.sleep(0.02)


def hand_over(supervisor, binary=None):
    """(status, answer)"""
    body = {"binary": binary} if binary else None
    return supervisor.api("POST", supervisor.path("letters", "/handover"), body)


def in_background(supervisor):
    """Starts a handover; what becomes of it is put into the list."""
    outcome = []

    def run():
        try:
            outcome.append(hand_over(supervisor))
        except OSError as error:  # the supervisor was killed
            outcome.append((0, {"error": str(error)}))
    thread = threading.Thread(target=run)
    thread.start()
    return thread, outcome


def is_monitor(pid):
    """Whether a process has got as far as to call itself one. Before that it may be a child that the
    supervisor waits for until it executes its program, and must not be stopped."""
    try:
        return Path(f"/proc/{pid}/comm").read_text(encoding="ascii") == "strake-monitor\n"
    except OSError:  # it has ended
        return False


def new_monitor(supervisor, old):
    """Waits for the process of the new monitor."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        for pid in supervisor.marked():
            if pid not in (old, supervisor.process.pid) and is_monitor(pid):
                return pid
    raise AssertionError("there is no new monitor")


def kill(pid, number=signal.SIGKILL):
    """Sends a signal, also to what has ended meanwhile."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def wait_for_one(supervisor):
    """Waits until there is one monitor."""
    deadline = time.monotonic() + 90
    while len(list(supervisor.marked())) > 2:
        check_quietly(time.monotonic() < deadline, "monitors are left over")
        time.sleep(0.05)


def no_monitor(supervisor):
    """Programs that are no monitors."""
    old = supervisor.show("letters")["pid"]
    for binary in ("/bin/false", "/bin/cat", "/etc/passwd"):
        status, answer = hand_over(supervisor, binary)
        check(status >= 400, f"to {binary}: {answer['error']}")
        check_goes_on(supervisor)
    check(supervisor.show("letters")["pid"] == old, "the guest is in the old monitor")


def new_stopped(supervisor):
    """The new monitor stops for ever, early and late."""
    for delay in (0, 0.05):
        old = supervisor.show("letters")["pid"]
        thread, outcome = in_background(supervisor)
        new = new_monitor(supervisor, old)
        time.sleep(delay)
        kill(new, signal.SIGSTOP)
        thread.join()
        status, answer = outcome[0]
        if status == 200:  # too late
            kill(new, signal.SIGCONT)
        else:
            check(True, f"the new monitor is stopped: {answer['error']}")
        wait_for_one(supervisor)
        check_goes_on(supervisor)


def killed(supervisor, guest, which):
    """Kills one side at random moments. Returns how often it was what."""
    counts = {"failed": 0, "succeeded": 0, "crashed": 0}
    for _ in range(ROUNDS):
        old = supervisor.show("letters")["pid"]
        thread, outcome = in_background(supervisor)
        new = new_monitor(supervisor, old)
        time.sleep(random.uniform(0, 0.08))
        victim = new if which == "new" else old
        kill(victim)
        thread.join()
        wait_for_one(supervisor)
        wait_until(lambda victim=victim: is_settled(supervisor, victim), "the supervisor has seen its end")
        if supervisor.show("letters")["state"] == "crashed":
            counts["crashed"] += 1
            start(supervisor, guest)
            continue
        counts["succeeded" if outcome[0][0] == 200 else "failed"] += 1
        check_goes_on(supervisor)
    return counts


def is_settled(supervisor, victim):
    """Whether the supervisor knows that a process was killed, and has the guest in one that lives, if it is in any."""
    shown = supervisor.show("letters")
    return shown["state"] == "crashed" or shown["pid"] not in (victim, None) and is_monitor(shown["pid"])


def new_killed(supervisor, guest):
    """The new monitor is killed: before it owns the guest that is the old one's, later nobody's."""
    counts = killed(supervisor, guest, "new")
    check(sum(counts.values()) == ROUNDS, f"the new monitor is killed, at any moment: {counts}")


def old_killed(supervisor, guest):
    """The old monitor is killed: the guest is gone with it, or goes on in the new one."""
    counts = killed(supervisor, guest, "old")
    check(counts["failed"] == 0, f"the old monitor is killed, at any moment: {counts}")


def supervisor_killed(supervisor):
    """Between the two the handover goes on, or not; the guest does."""
    moved = 0
    for _ in range(ROUNDS):
        old = supervisor.show("letters")["pid"]
        thread, _ = in_background(supervisor)
        new_monitor(supervisor, old)
        time.sleep(random.uniform(0, 0.08))
        supervisor.end(signal.SIGKILL)
        thread.join()
        supervisor.start()
        wait_for_one(supervisor)
        moved += supervisor.show("letters")["pid"] != old
        check_goes_on(supervisor)
    check(True, f"the supervisor is killed {ROUNDS} times: {moved} handovers succeeded without it")


main(faults)
