# SPDX-License-Identifier: BSD-2-Clause
"""A program of riscv64 Linux that waits for gdb-multiarch, and what came of both."""

import re
import socket
import subprocess
import time

from lib.harness import PROJECT, Failed, free_port, is_listened_at
import vm

TIMEOUT = 600  # seconds for what takes one on an idle machine


def build(test, name, *options):
    """The program of tests/system/user/NAME.c."""
    program = test.folder / f"{name}{''.join(options)}"
    subprocess.run(["riscv64-linux-gnu-gcc", "-g", "-O1", "-fno-inline", "-pthread", *options,
                    "-o", str(program), str(PROJECT / f"tests/system/user/{name}.c")], check=True)
    return program


class Debugged:
    """Started at once; it waits at a local socket, or else at a port."""

    def __init__(self, test, command, program, *arguments, before=(), local=True):
        address = test.folder / "gdb" if local else f"127.0.0.1:{free_port()}"
        self.start = ["set pagination off", "set confirm off", "set tcp connect-timeout 60",
                      "set remotetimeout 60", *before, f"target remote {address}"]
        self.program, self.address = program, address
        self.said = self.output = ""
        if local:
            address.unlink(missing_ok=True)
        self.process = subprocess.Popen(
            [vm.strake(), *command, "--gdb", str(address), str(program), *arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            cwd=test.folder)
        # A port is tried again by gdb, a socket is not.
        while local and not is_listened_at(address):
            if self.process.poll() is not None:
                raise Failed(self.process.stdout.read())
            time.sleep(0.01)

    def run(self, *commands, given=""):
        """Has gdb do these, and waits for both."""
        arguments = [word for command in [*self.start, *commands] for word in ("-ex", command)]
        result = subprocess.run(["gdb-multiarch", "-nx", "-batch", *arguments, str(self.program)],
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT, text=True, timeout=TIMEOUT, check=False)
        self.said = result.stdout
        for line in self.said.splitlines():
            print(f"gdb: {line}")
        self.output, _ = self.process.communicate(given, timeout=TIMEOUT)
        return self

    @property
    def status(self):
        """With which the program ended."""
        return self.process.returncode

    def has(self, text):
        """Whether gdb said a line that the expression fits."""
        return re.search(text, self.said, re.MULTILINE)


class Client:
    """The protocol itself, to a local socket, for what gdb would not do, or not as often."""

    def __init__(self, address):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(TIMEOUT)
        self.socket.connect(str(address))
        self.received = b""

    def send(self, text):
        """A packet."""
        self.socket.sendall(f"${text}#{sum(text.encode()) & 255:02x}".encode())

    def receive(self):
        """What is in the next packet."""
        while not (match := re.search(rb"\$([^#]*)#..", self.received, re.DOTALL)):
            more = self.socket.recv(65536)
            if not more:
                raise Failed("the debugger is let alone")
            self.received += more
        self.received = self.received[match.end():]
        self.socket.sendall(b"+")
        return match.group(1).decode("latin1")

    def ask(self, text):
        """What a packet is answered with."""
        self.send(text)
        return self.receive()

    def interrupt(self):
        """^C."""
        self.socket.sendall(b"\x03")

    def close(self):
        """Without a word."""
        self.socket.close()
