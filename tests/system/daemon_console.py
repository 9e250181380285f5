#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Consoles under a supervisor: attach and detach, several at once, scroll-back, a guest that writes
more than is kept, one that does not read, a terminal put back as it was."""

import os
import pty
import signal
import subprocess
import termios
import time

from lib.daemon import Supervisor, create, echo_guest
from lib.harness import check, main, need
import vm

RING = 4 << 20  # bytes of output that are kept
TRIES = 20  # of a reader that the machine holds up meanwhile
BYTES = {"Content-Type": "application/octet-stream"}


def console(test):
    need(vm.KERNEL, vm.INITRAMFS)
    guest = echo_guest(test)
    supervisor = Supervisor(test)
    create(supervisor, "web", guest)
    several(test, supervisor)
    scroll_back(supervisor)
    terminal(test, supervisor)
    api(supervisor)
    floods(supervisor, guest)
    deaf(supervisor, guest)
    the_end(test, supervisor, guest)
    screen(test, supervisor)
    leaks(supervisor)


class Client(vm.Running):
    """strake console, on pipes, or on a terminal of its own."""

    def __init__(self, test, supervisor, name, *options, terminal=None):
        super().__init__([vm.strake(), "console", "--socket", supervisor.socket, *options, name],
                         terminal=terminal)
        test.guests.insert(0, self)


def several(test, supervisor):
    """Two clients see all, and both may type."""
    one = Client(test, supervisor, "web")
    two = Client(test, supervisor, "web")
    for client in (one, two):
        client.expect("ready", 60)
    one.send("<no 1>")
    for client in (one, two):
        client.expect("<no 1>", 60)
    two.send("<no 2>")
    for client in (one, two):
        client.expect("<no 2>", 60)
    check(True, "what one types, both see")
    one.process.terminate()
    one.wait(60)
    two.send("<alone>")
    two.expect("<alone>", 60)
    check(True, "when one goes, the other stays")
    late = Client(test, supervisor, "web")
    late.expect("ready\r\n<no 1><no 2><alone>", 60)
    check(True, "one that comes late sees what there was")
    two.process.stdin.close()
    time.sleep(0.3)
    check(two.process.poll() is None, "the end of its input is not a client's end")
    for client in (two, late):
        client.process.terminate()
        check(client.wait(60) == -signal.SIGTERM, "SIGTERM ends a client")
    check(supervisor.show("web")["state"] == "running", "the partition goes on")


def scroll_back(supervisor):
    """--lines, logs."""
    supervisor.type("web", b"\n" + b"".join(b"line %d\n" % i for i in range(50)) + b"?")
    supervisor.wait_console("web", "line 49\n?")
    text = supervisor.console("web")
    check(supervisor.done("logs", "web") == text.replace("\r\n", "\n"), "logs has all output")
    check(supervisor.done("logs", "--lines", "3", "web") == "line 48\nline 49\n?",
          "logs --lines has the last ones")
    for lines, wanted in ((0, ""), (1, "?"), (2, "line 49\n?"), (1000, text)):
        _, got = supervisor.api("GET", supervisor.path("web", f"/console?lines={lines}"))
        check((got or b"").decode() == wanted, f"the last {lines} lines")
    follower = subprocess.Popen([vm.strake(), "logs", "--socket", str(supervisor.socket), "--follow",
                                 "--lines", "1", "web"], stdout=subprocess.PIPE)
    check(follower.stdout.read(1) == b"?", "logs --follow starts with what there is")
    supervisor.type("web", b"!")
    check(follower.stdout.read(1) == b"!", "and goes on")
    follower.terminate()
    follower.wait(60)


class Terminal:
    """A client on a terminal of its own; `side` is ours."""

    def __init__(self, test, supervisor, name, *options):
        self.side, self.theirs = pty.openpty()
        self.before = termios.tcgetattr(self.theirs)
        self.client = Client(test, supervisor, name, *options, terminal=self.theirs)
        self.client.watch(self.side)
        self.client.expect("Ctrl-A d leaves", 60)

    def type(self, data):
        """Types."""
        os.write(self.side, data)

    def settings(self):
        """Those of the terminal."""
        return termios.tcgetattr(self.theirs)

    def left(self, what):
        """Checks that the client has ended, and left the terminal as it was."""
        status = self.client.process.wait(60)
        check(self.settings() == self.before, f"the terminal is as it was {what}")
        return status


def terminal(test, supervisor):
    """On a terminal: raw, escapes, and as it was afterwards."""
    one = Terminal(test, supervisor, "web", "--lines", "0")
    check(not one.settings()[3] & (termios.ECHO | termios.ICANON), "the terminal is raw")
    one.type(b"\x03<hi>")
    one.client.expect(rb"\x03<hi>", 60)
    check(True, "Ctrl-C goes to the guest")
    one.type(b"\x01\x01")
    one.client.expect(rb"\x01", 60)
    check(True, "Ctrl-A Ctrl-A sends one")
    one.type(b"\x01h")
    one.client.expect("Ctrl-A d +leave", 60)
    one.type(b"\x01d")
    check(one.left("when one leaves by Ctrl-A d") == 0, "that has status 0")
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        one = Terminal(test, supervisor, "web")
        one.client.process.send_signal(number)
        one.left(f"after {number.name}")
    check(supervisor.show("web")["state"] == "running", "the partition goes on")


def api(supervisor):
    """Positions."""
    text = supervisor.console("web").encode()
    stream = supervisor.follow(supervisor.path("web", "/console?run=1&position=10"))
    check(stream.getheader("Strake-Run") == "1" and stream.getheader("Strake-Position") == "10" and
          stream.read() == text[10:], "output from a position on")
    stream = supervisor.follow(supervisor.path("web", "/console?run=1&position=999999999"))
    check(stream.read() == b"", "there is nothing behind the end")
    stream = supervisor.follow(supervisor.path("web", "/console?run=77&position=5"))
    check(stream.getheader("Strake-Position") == "0", "the position of another run is none of this")
    stream.connection.close()


def floods(supervisor, guest):
    """More than is kept; readers that do not read."""
    for number in range(TRIES):
        if number > 0:
            supervisor.done("remove", "--force", "loud")
        create(supervisor, "loud", guest)
        idle = supervisor.follow(supervisor.path("loud", "/console?follow=1"))
        keen, read = supervisor.follow(supervisor.path("loud", "/console?follow=1")), 0
        supervisor.type("loud", b"w")
        while read < 2 * RING and (data := keen.read1(1 << 16)):
            check_all(data, read)
            read += len(data)
        if read >= 2 * RING:
            break
    check(read >= 2 * RING,
          f"a reader that keeps up has had {read >> 20} MiB, of which {RING >> 20} are kept")
    check(supervisor.show("loud")["state"] == "running", "the guest waits for no reader")
    supervisor.call("POST", supervisor.path("loud", "/pause"))
    data = idle.read()
    check(len(data) < 2 * RING, "one that did not read is cut off")
    again = supervisor.follow(supervisor.path("loud", f"/console?run=1&position={len(data)}"))
    check(int(again.getheader("Strake-Position")) > len(data) and len(again.read()) <= RING,
          "and told from where it can go on")
    keen.connection.close()
    supervisor.done("kill", "loud")
    check(supervisor.show("loud")["last_end"]["console"], "its last lines are told")
    supervisor.call("DELETE", supervisor.path("loud"))


def check_all(data, read):
    """What a flood is made of."""
    rest = data if read else data[len(b"ready\r\n"):]
    if set(rest) - set(b"w"):
        raise AssertionError(f"{data[:80]!r} at {read}")


def deaf(supervisor, guest):
    """A guest that does not read takes what there is room for, and no more."""
    create(supervisor, "deaf", guest)
    supervisor.call("POST", supervisor.path("deaf", "/pause"))
    taken = total = 60000
    sent = 0
    for _ in range(50):
        _, answer = supervisor.api("POST", supervisor.path("deaf", "/console"), raw=b"x" * total,
                                   headers=BYTES)
        taken = answer["taken"]
        sent += taken
        if taken < total:
            break
    check(taken < total, f"{sent} bytes are taken, and then none: nobody waits")
    supervisor.call("POST", supervisor.path("deaf", "/resume"))
    supervisor.wait_for("deaf", lambda one: supervisor.console("deaf").count("x") == sent,
                        "it gets what was taken")
    check(True, "what was taken arrives")
    supervisor.done("remove", "--force", "deaf")


def the_end(test, supervisor, guest):
    """Clients when the partition ends, and is started again."""
    create(supervisor, "brief", guest)
    client = Client(test, supervisor, "brief")
    client.expect("ready", 60)
    client.send("q")
    check(client.wait(60) == 0 and "[brief: ended: poweroff]" in client.text(),
          "at the end of the partition a client says how it ended, and ends")
    result = supervisor.strake("console", "brief", input="")
    check("[brief: ended: poweroff]" in result.stderr, "so does one that comes later")
    check(supervisor.done("logs", "brief") == "ready\n", "its output can be read")
    client = supervisor.follow(supervisor.path("brief", "/console?follow=1"))
    check(client.read() == b"ready\r\n", "to its end")
    supervisor.done("remove", "brief")


def screen(test, supervisor):
    """The size of the terminal, as Linux has it."""
    create(supervisor, "linux", {"kernel": str(vm.KERNEL), "initrd": str(vm.INITRAMFS),
                                 "append": "quiet console=hvc0", "memory": "256M"})
    supervisor.wait_console("linux", vm.PROMPT)
    one = Terminal(test, supervisor, "linux")
    for rows, columns in ((33, 99), (21, 77)):
        termios.tcsetwinsize(one.theirs, (rows, columns))
        one.client.process.send_signal(signal.SIGWINCH)
        deadline = time.monotonic() + 60
        want = f"{rows} {columns}"
        while want not in one.client.text() and time.monotonic() < deadline:
            one.type(b"stty size </dev/hvc0\n")
            time.sleep(0.5)
        check(want in one.client.text(), f"the guest knows that the terminal is of {want}")
    one.type(b"\x01d")
    one.left("after Linux")
    supervisor.done("remove", "--force", "linux")


def leaks(supervisor):
    """Clients that came and went have left nothing in the supervisor."""
    def descriptors():
        return len(os.listdir(f"/proc/{supervisor.process.pid}/fd"))

    streams = [supervisor.follow(supervisor.path("web", "/console?follow=1")) for _ in range(20)]
    streams += [supervisor.follow("/v1/events") for _ in range(20)]
    many = descriptors()
    for stream in streams:
        stream.connection.sock.close()
        stream.close()
    deadline = time.monotonic() + 60
    while descriptors() > many - 40 and time.monotonic() < deadline:
        time.sleep(0.05)
    check(descriptors() <= many - 40, f"{many} descriptors with 40 streams, {descriptors()} after")


main(console)
