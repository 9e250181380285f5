# SPDX-License-Identifier: BSD-2-Clause
"""Runs a guest under Strake, or under QEMU with the same machine: what demo, system tests and
benchmarks have in common.

STRAKE=PATH and QEMU=PATH name other programs than build/strake and the system's QEMU.
"""

import dataclasses
import functools
import http.client
import os
import re
import select
import shlex
import shutil
import subprocess
import threading
import time
from pathlib import Path

import cpio
import fetch

KERNEL = fetch.GUEST / "base" / "Image"
INITRAMFS = fetch.GUEST / "initramfs.cpio"
PROMPT = "strake:~# "


def strake():
    """Path of the strake to run."""
    return os.environ.get("STRAKE") or str(fetch.GUEST.parent / "strake")


def qemu():
    """Path of the QEMU to run, or None."""
    return shutil.which(os.environ.get("QEMU") or "qemu-system-riscv64")


@dataclasses.dataclass
class Machine:
    """What `strake run` takes, by the names of its options."""

    kernel: object = KERNEL
    initrd: object = INITRAMFS
    append: str = "quiet"
    memory: str = "512M"
    cpus: int = 1
    firmware: object = None
    disks: list = dataclasses.field(default_factory=list)  # paths, or "PATH,ro"
    net: object = None  # None, or the list of its forwards as "tcp:ADDR:PORT-:PORT"
    vsock: str = None
    console: str = None
    gdb: str = None
    more: list = dataclasses.field(default_factory=list)  # options as they are, Strake's own

    def strake_command(self):
        """The command line for Strake."""
        command = [strake(), "run", "--memory", self.memory, "--cpus", str(self.cpus)]
        for option in ("kernel", "initrd", "firmware", "append", "vsock", "console", "gdb"):
            value = getattr(self, option)
            command += [f"--{option}", str(value)] if value else []
        for disk in self.disks:
            command += ["--disk", str(disk)]
        if self.net is not None:
            command += ["--net", ",".join(["user"] + [f"hostfwd={rule}" for rule in self.net])]
        return command + self.more

    def qemu_command(self, serial="mon:stdio"):
        """The command line for QEMU; it has no vsock without the host's kernel, and no `more`."""
        command = [qemu() or "qemu-system-riscv64", "-machine", "virt", "-display", "none",
                   "-serial", serial, "-m", self.memory,
                   "-smp", str(self.cpus), "-global", "virtio-mmio.force-legacy=false",
                   "-device", "virtio-rng-device"]
        for option, flag in (("kernel", "-kernel"), ("initrd", "-initrd"), ("append", "-append"),
                             ("firmware", "-bios")):
            value = getattr(self, option)
            command += [flag, str(value)] if value else []
        for index, disk in enumerate(map(str, self.disks)):
            path, _, mode = disk.partition(",")
            drive = f"file={path},format=raw,if=none,id=d{index}"
            command += ["-drive", drive + (",readonly=on" if mode == "ro" else ""),
                        "-device", f"virtio-blk-device,drive=d{index}"]
        if self.net is not None:
            rules = "".join(f",hostfwd={rule}" for rule in self.net)
            command += ["-netdev", f"user,id=n{rules}", "-device", "virtio-net-device,netdev=n"]
        if self.gdb:
            command += ["-gdb", f"tcp:{self.gdb}", "-S"]
        return command


def with_overlay(tree, path, base=INITRAMFS):
    """Writes to `path` the initramfs with the files of a cpio.Tree added; returns the path."""
    path = Path(path)
    with open(path, "wb") as output:
        output.write(Path(base).read_bytes())
        output.write(tree.archive())
    return path


def with_script(script, path, base=INITRAMFS):
    """The initramfs whose guest runs a shell script and switches off."""
    tree = cpio.Tree()
    tree.file("strake/run", "#!/bin/sh\n" + script, 0o755)
    return with_overlay(tree, path, base)


class Timeout(Exception):
    """The guest did not say in time what was waited for."""


class Console:
    """A guest's console, watched while the guest runs. What the guest is sent goes through write(),
    which whoever has the console's other end gives."""

    def __init__(self):
        self.output = b""
        self.lines = []  # (host's monotonic seconds at its end, text)
        self._seen = 0  # how much of the output expect() has gone through
        self._changed = threading.Condition()
        self._watched = 0  # descriptors that may have more
        self._readers = []
        self.started = time.monotonic()

    def write(self, data):
        """Sends bytes to the guest."""
        raise NotImplementedError

    def watch(self, source):
        """Collects, from another thread, what arrives at a descriptor, or what a function like
        os.read gives for a number of bytes."""
        with self._changed:
            self._watched += 1
        reader = threading.Thread(target=self._read, args=(source,), daemon=True)
        self._readers.append(reader)
        reader.start()

    def _read(self, source):
        read = source if callable(source) else functools.partial(os.read, source)
        while True:
            try:
                data = read(65536)
            except (OSError, http.client.HTTPException):  # its other side is gone
                data = b""
            now = time.monotonic()
            with self._changed:
                start = self.output.rfind(b"\n") + 1
                self.output += data
                complete = self.output[start:].split(b"\n")[:-1]
                self.lines += [(now, line.decode(errors="replace").rstrip("\r"))
                               for line in complete]
                self._watched -= not data
                self._changed.notify_all()
            if not data:
                return

    def expect(self, pattern, timeout=300):
        """Waits until the output, after what was expected before, matches; returns the match.
        Timeout if it ends or time runs out."""
        expression = re.compile(pattern.encode() if isinstance(pattern, str) else pattern)
        deadline = time.monotonic() + timeout
        with self._changed:
            while True:
                match = expression.search(self.output, self._seen)
                if match:
                    self._seen = match.end()
                    return match
                left = deadline - time.monotonic()
                if not self._watched or left <= 0:
                    why = "the output ended" if not self._watched else f"{timeout} s passed"
                    raise Timeout(f"waited for {pattern!r}: {why}")
                self._changed.wait(left)

    def send(self, text):
        """Types into the guest's console."""
        self.write(text.encode() if isinstance(text, str) else text)

    def shell(self, command, timeout=300):
        """Runs a command at the guest's shell prompt; returns (status, output)."""
        # As they are typed, the marks are no marks: the terminal's echo is not taken for them.
        self.send(f"echo '@''begin'; {command}; echo '@''status' $?\n")
        start = self.expect(r"@begin\r?\n", timeout).end()
        match = self.expect(r"@status (\d+)\r?\n", timeout)
        return int(match.group(1)), self.text(start, match.start())

    def text(self, start=0, end=None):
        """A part of the output, as lines with plain ends."""
        return self.output[start:end].decode(errors="replace").replace("\r\n", "\n")

    def time_of(self, pattern):
        """When, by the host's monotonic clock, the first line that matches was complete."""
        return next((when for when, line in self.lines if re.search(pattern, line)), None)


class Running(Console):
    """A process whose output is watched while it runs. Its standard input and output are pipes, or
    the descriptor `terminal` that the caller made (a pseudo terminal's other side)."""

    def __init__(self, command, terminal=None):
        super().__init__()
        self.command = [str(word) for word in command]
        stream = subprocess.PIPE if terminal is None else terminal
        self.process = subprocess.Popen(self.command, stdin=stream, stdout=stream,
                                        stderr=subprocess.STDOUT)
        if terminal is None:
            self.watch(self.process.stdout.fileno())

    def write(self, data):
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def wait(self, timeout=300):
        """The exit status, when the process has ended and all it wrote was read."""
        status = self.process.wait(timeout)
        for reader in self._readers:
            reader.join(10)
        return status

    def monitor(self):
        """The process id of the partition's monitor, which `strake run` has started; that of the
        process itself under QEMU. None if there is none."""
        if os.path.basename(self.command[0]).startswith("qemu"):
            return self.process.pid
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                parent = int(stat.read_text(encoding="ascii").rsplit(")", 1)[1].split()[1])
                words = (stat.parent / "cmdline").read_bytes().split(b"\0")
            except (OSError, ValueError):  # it has ended meanwhile
                continue
            if parent == self.process.pid and words[1:2] == [b"monitor"]:
                return int(stat.parent.name)
        return None

    def stop(self):
        """Ends the process, if it has not ended."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def __str__(self):
        return shlex.join(self.command)


def readable(descriptor, timeout):
    """Whether a descriptor has something to read within `timeout` seconds."""
    return bool(select.select([descriptor], [], [], timeout)[0])
