#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Every kind of console carries output and input; the escape ends the partition; the terminal is
put back as it was on every way out."""

import os
import pty
import resource
import signal
import socket
import subprocess
import termios
import time

from lib import firmware
from lib.harness import UNDER_QEMU, check, main
import vm

ESCAPE = b"\x01"  # Ctrl-A


def console(test):
    image, _ = firmware.build("echo", test.folder)
    machine = {"kernel": None, "initrd": None, "append": None, "firmware": image}
    pipes(test, machine)
    terminal(test, machine)
    if not UNDER_QEMU:
        stalled(test, machine)
        hung_up(machine)
        closed_streams(test, machine)
        pseudo_terminal(test, machine)
        to_file(test, machine)
        unix_socket(test, machine)


def pipes(test, machine):
    """Standard input and output that are no terminal."""
    guest = test.start(vm.Machine(**machine))
    guest.expect("ready\r\n", 60)
    guest.send("pipe")
    guest.expect("pipe", 60)
    check(True, "pipe: output and input arrive")
    if not UNDER_QEMU:
        guest.send(b"\x01x!")
        guest.expect(b"\x01x!", 60)
        check(True, "pipe: there is no escape in what is not typed")
    guest.send("q")
    check(guest.wait(60) == 0, "pipe: power-off ends it with status 0")

    guest = test.start(vm.Machine(**machine))
    guest.expect("ready\r\n", 60)
    guest.process.stdin.close()
    time.sleep(1)
    check(guest.process.poll() is None, "pipe: the end of the input is not the guest's end")
    guest.process.terminate()
    check(guest.wait(60) != -signal.SIGKILL, "pipe: SIGTERM ends it")


class Terminal:
    """A terminal on which a guest runs; `side` is ours."""

    def __init__(self, test, command, greeting="ready\r+\n"):
        self.side, self.theirs = pty.openpty()
        self.before = termios.tcgetattr(self.theirs)
        self.guest = test.run(command, terminal=self.theirs)
        self.guest.watch(self.side)
        if greeting:
            self.guest.expect(greeting, 60)

    def type(self, data):
        """Presses keys."""
        os.write(self.side, data)

    def restored(self):
        """Whether, when the process has ended, the terminal is as it was."""
        self.guest.process.wait(60)
        return termios.tcgetattr(self.theirs) == self.before


def terminal(test, machine):
    """Standard input and output on a terminal."""
    machine = vm.Machine(**machine)
    command = machine.qemu_command() if UNDER_QEMU else machine.strake_command()

    screen = Terminal(test, command)
    local = termios.tcgetattr(screen.theirs)[3]
    check(not local & (termios.ICANON | termios.ECHO | termios.ISIG), "terminal: is raw meanwhile")
    screen.type(b"\x03typed")
    screen.guest.expect("\x03typed", 60)
    check(True, "terminal: what is typed arrives, Ctrl-C too")
    screen.type(ESCAPE + b"h")
    screen.guest.expect("(?i)c[a-z]*-a h", 60)
    check(True, "terminal: Ctrl-A h shows help")
    screen.type(ESCAPE + ESCAPE + b"sent")
    screen.guest.expect("\x01sent", 60)
    check(True, "terminal: Ctrl-A Ctrl-A sends one Ctrl-A")
    screen.type(ESCAPE + b"x")
    check(screen.restored(), "terminal: Ctrl-A x ends it, the terminal is as it was")
    check(screen.guest.process.returncode == 0, "terminal: with status 0")

    screen = Terminal(test, command)
    screen.type(b"q")
    check(screen.restored(), "terminal: as it was after power-off")
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGSEGV):
        screen = Terminal(test, command)
        screen.guest.process.send_signal(number)
        check(screen.restored(), f"terminal: as it was after {number.name}")
    screen = Terminal(test, [*command, "--disk", "/nonexistent"], greeting=None)
    check(screen.restored() and screen.guest.process.returncode == 1,
          "terminal: as it was after a failed start")


def stalled(test, machine):
    """Standard output is full and nobody reads it: the guest waits, but can still be ended."""
    command = vm.Machine(**machine, cpus=2).strake_command()
    for kind, (reader, writer) in (("pipe", os.pipe()),
                                   ("socket", [end.detach() for end in socket.socketpair()])):
        side, theirs = pty.openpty()
        for what in ("SIGTERM", "Ctrl-A x"):
            process = subprocess.Popen(command, stdin=theirs, stdout=writer)
            os.write(side, b"w")
            time.sleep(1)  # far longer than it takes to fill it
            if what == "SIGTERM":
                process.terminate()
            else:
                os.write(side, ESCAPE + b"x")
            check(ends(process), f"{kind}: {what} ends a guest whose output nobody reads")
        for descriptor in (reader, writer, side, theirs):
            os.close(descriptor)


def ends(process):
    """Whether a process ends by itself within a minute."""
    try:
        process.wait(60)
        return True
    except subprocess.TimeoutExpired:
        process.kill()
        return False


def hung_up(machine):
    """The terminal goes away, and no signal says so: Strake is not of the terminal's session."""
    side, theirs = pty.openpty()
    process = subprocess.Popen(vm.Machine(**machine).strake_command(), stdin=theirs, stdout=theirs)
    os.close(theirs)
    check(b"ready" in read_until(side, b"ready"), "terminal: a guest runs")
    os.close(side)
    check(ends(process) and process.returncode == 0, "terminal: and ends when it is hung up")


def closed_streams(test, machine):
    """A disk does not take the place of a standard stream that is closed."""
    disk = test.folder / "disk"
    disk.write_bytes(bytes(1 << 20))
    command = vm.Machine(**machine, disks=[disk]).strake_command()
    process = subprocess.Popen(["sh", "-c", 'exec "$@" <&- >&-', "sh", *map(str, command)])
    time.sleep(2)
    check(process.poll() is None, "closed streams: the guest runs")
    process.terminate()
    check(ends(process), "closed streams: SIGTERM ends it")
    check(disk.read_bytes() == bytes(1 << 20), "closed streams: nothing was written to the disk")


def pseudo_terminal(test, machine):
    """--console pty"""
    guest = test.start(vm.Machine(**machine, console="pty"))
    name = guest.expect(r"(/dev/pts/\d+)", 60).group(1).decode()
    check(os.path.exists(name), f"pty: says its name, '{name}'")
    # The guest may have said "ready" before anybody could read it, so ask for something.
    # Not as our controlling terminal: its end would be ours.
    with open(os.open(name, os.O_RDWR | os.O_NOCTTY), "r+b", buffering=0) as device:
        device.write(b"on the pty\n")
        check(b"on the pty" in read_until(device.fileno(), b"on the pty"),
              "pty: input and output go through it")
        device.write(b"q")
        check(guest.wait(60) == 0, "pty: power-off ends it with status 0")


def to_file(test, machine):
    """--console file=PATH"""
    path = test.folder / "console.log"
    guest = test.start(vm.Machine(**machine, console=f"file={path}"))
    deadline = time.monotonic() + 60
    while not (path.exists() and path.read_bytes() == b"ready\r\n"):
        check_in_time(deadline, "file: has the guest's output")
    check(True, "file: has the guest's output")
    check(guest.output == b"", "file: nothing of it is on standard output")
    guest.process.terminate()
    guest.wait(60)


def unix_socket(test, machine):
    """--console unix=PATH"""
    path = test.folder / "console.socket"
    guest = test.start(vm.Machine(**machine, console=f"unix={path}"))
    deadline = time.monotonic() + 60
    while not path.exists():
        check_in_time(deadline, "unix: there is a socket")
    for turn in ("a client", "the next client"):
        with connect(path, deadline) as client:
            client.sendall(turn.encode())
            check(turn.encode() in read_until(client.fileno(), turn.encode()),
                  f"unix: {turn} talks with the guest")
    with connect(path, deadline) as client, connect(path, deadline) as waiting:
        waiting.sendall(b"222")
        client.sendall(b"111")
        check(b"111" in read_until(client.fileno(), b"111"), "unix: of two, the first talks")
        client.close()
        check(b"222" in read_until(waiting.fileno(), b"222"),
              "unix: and the second once the first has gone")
    out_of_descriptors(guest, path, deadline)
    with connect(path, deadline) as client:
        client.sendall(b"q")
        check(guest.wait(60) == 0, "unix: power-off ends it with status 0")
    check(not path.exists(), "unix: the socket is removed at the end")


def out_of_descriptors(guest, path, deadline):
    """A client that Strake has no descriptor for waits, and costs nothing."""
    process = guest.process.pid
    limits = resource.prlimit(process, resource.RLIMIT_NOFILE)
    resource.prlimit(process, resource.RLIMIT_NOFILE, (0, limits[1]))
    with connect(path, deadline) as client:
        before = cpu_seconds(process)
        time.sleep(2)
        check(cpu_seconds(process) - before < 1, "unix: a client that cannot be taken costs nothing")
        resource.prlimit(process, resource.RLIMIT_NOFILE, limits)
        client.sendall(b"late")
        check(b"late" in read_until(client.fileno(), b"late"), "unix: and is taken when it can be")


def cpu_seconds(process):
    """Processor time that a process has used."""
    with open(f"/proc/{process}/stat", encoding="ascii") as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


def connect(path, deadline):
    """A client of a Unix socket; the one before may still be being let go."""
    while True:
        client = socket.socket(socket.AF_UNIX)
        try:
            client.connect(str(path))
            return client
        except OSError:
            client.close()
            check_in_time(deadline, f"'{path}' takes a client")


def read_until(descriptor, wanted):
    """What arrives within a minute, until it has what is wanted."""
    data = b""
    deadline = time.monotonic() + 60
    while wanted not in data and vm.readable(descriptor, deadline - time.monotonic()):
        more = os.read(descriptor, 4096)
        if not more:
            break
        data += more
    return data


def check_in_time(deadline, what):
    """A short pause, or a failure when it has been too long."""
    if time.monotonic() > deadline:
        check(False, what)
    time.sleep(0.05)


main(console)
