# SPDX-License-Identifier: BSD-2-Clause
"""Updates from a guest: packages with a version of their own, and a guest whose vsock a test speaks
through: a program of the guest's relays port 5354 of its host to a listener of the test's."""

import json
import socket
import struct
import subprocess
import time
from pathlib import Path

from lib.channel import (ANSWER, ERROR, HEADER, HELLO, MAGIC, OFFER, PROGRESS, STATUS, WRITE, Refused)
from lib.daemon import PATIENCE
from lib.harness import Failed, check
import vm

OTHER = b"9.9.9.9.9"
SCRIPT = """
while :; do
    rm -f /tmp/back; mkfifo /tmp/back
    nc 10.0.2.2 {port} </tmp/back | vsock connect 5354 >/tmp/back
    sleep 1
done
"""


def history(supervisor):
    """Events of the audit log."""
    log = supervisor.state / "update" / "history.jsonl"
    return [json.loads(line)["event"] for line in log.read_text(encoding="utf-8").splitlines()]


def version():
    """That of the package."""
    own = json.loads(subprocess.run([vm.strake(), "monitor", "--self-test"], check=True,
                                    capture_output=True).stdout)["version"]
    return OTHER[:len(own)].decode()


def make_package(test, name, change=None):
    """The files of a signed one, by name; `change` of the program's bytes."""
    own = json.loads(subprocess.run([vm.strake(), "monitor", "--self-test"], check=True,
                                    capture_output=True).stdout)["version"].encode()
    folder = test.folder / name
    folder.mkdir()
    program = Path(vm.strake()).read_bytes().replace(b"\0" + own + b"\0",
                                                     b"\0" + OTHER[:len(own)] + b"\0")
    if change:
        check(change[0] in program, f"a program that is {name}")
        program = program.replace(*change)
    (folder / "program").write_bytes(program)
    trusted = test.folder / "trusted"
    trusted.mkdir(exist_ok=True)
    run("package", "keygen", "--no-password", folder / "key")
    (folder / "key.pub").rename(trusted / f"{name}.pub")
    run("package", "build", "--key", folder / "key.key", "--program", folder / "program",
        "--version", version(), "--expires", "2100-01-01T00:00:00Z", folder / "package.strake")
    files = folder / "files"
    files.mkdir()
    subprocess.run(["tar", "-xf", folder / "package.strake", "-C", files], check=True)
    return {path.name: path.read_bytes() for path in files.iterdir()}


def run(*arguments):
    """A subcommand."""
    subprocess.run([vm.strake(), *map(str, arguments)], check=True, timeout=PATIENCE * 5)


def linux(test, listener):
    """A guest that connects the listener with its host's service, again and again."""
    script = SCRIPT.format(port=listener.getsockname()[1])
    initrd = vm.with_script(script, test.folder / "initrd")
    return {"kernel": str(vm.KERNEL), "initrd": str(initrd), "memory": "256M", "append": "quiet",
            "net": "user"}


class Guest:
    """What the guest says, said by the test."""

    def __init__(self, listener):
        self.stream, _ = listener.accept()
        self.stream.settimeout(PATIENCE * 5)
        self.handle = 0

    def _receive(self, count):
        data = bytearray()
        while len(data) < count:
            part = self.stream.recv(count - len(data))
            if not part:
                self.stream.close()
                raise ConnectionError("the connection has ended")
            data += part
        return bytes(data)

    def send(self, kind, payload=b""):
        """A frame."""
        handle = self.handle if kind not in (HELLO, OFFER, STATUS) else 0
        self.stream.sendall(HEADER.pack(MAGIC, kind, len(payload), handle) + payload)

    def answer(self):
        """The next frame that is no progress: its type and payload."""
        while True:
            magic, kind, length, handle = HEADER.unpack(self._receive(HEADER.size))
            payload = self._receive(length)
            if magic != MAGIC or kind == ERROR:
                raise Refused(struct.unpack_from("<H", payload)[0], payload[4:].decode())
            if handle:
                self.handle = handle
            if kind != PROGRESS:
                return kind, payload

    def ask(self, kind, payload=b""):
        """A request that is answered with JSON."""
        self.send(kind, payload)
        got, told = self.answer()
        if got != kind | ANSWER:
            raise Failed(f"{kind:#x} is answered by {got:#x}")
        return json.loads(told)

    def hello(self):
        """HELLO."""
        return self.ask(HELLO, json.dumps({"protocol": 1}).encode())

    def outcome(self, files):
        """What has become of an update that was committed."""
        self.hello()
        deadline = time.monotonic() + PATIENCE
        while True:
            session = self.offer(files)
            if session["phase"] != "committing" or time.monotonic() > deadline:
                return session
            time.sleep(0.1)

    def offer(self, files):
        """OFFER."""
        manifest, signature = files["manifest.json"], files["manifest.json.minisig"]
        return self.ask(OFFER, struct.pack("<I", len(manifest)) + manifest + signature)

    def write(self, data):
        """All of a payload."""
        for offset in range(0, len(data), 65528):
            self.send(WRITE, struct.pack("<Q", offset) + data[offset:offset + 65528])
        reached = 0
        while reached < len(data):
            _, told = self.answer()
            reached, = struct.unpack("<Q", told)
