# SPDX-License-Identifier: BSD-2-Clause
"""Updates from a guest: packages with a version of their own, and a guest whose vsock a test speaks
through: a program of the guest's relays port 5354 of its host to whoever comes."""

import hashlib
import json
import socket
import struct
import subprocess
import time
from pathlib import Path

from lib.channel import (ANSWER, COMMIT, ERROR, FINISH, HEADER, HELLO, MAGIC, OFFER, PROGRESS, STATUS,
                         WRITE, Refused)
from lib.daemon import PATIENCE
from lib.harness import Failed, check, free_port
import vm

OTHER = b"9.9.9.9.9"
DOOR = """
nc -ll -p 5354 -e sh -c 'exec vsock connect 5354 2>/dev/null'
"""


def history(supervisor):
    """Events of the audit log."""
    log = supervisor.state / "update" / "history.jsonl"
    return [json.loads(line)["event"] for line in log.read_text(encoding="utf-8").splitlines()]


def facts():
    """What the program says of itself."""
    return json.loads(subprocess.run([vm.strake(), "monitor", "--self-test"], check=True,
                                     capture_output=True).stdout)


def version(number=9):
    """That of a package, as long as the program's own; a higher number is newer."""
    return OTHER[:len(facts()["version"]) - 1].decode() + str(number)


def make_program(number=9):
    """The program's bytes, with that version in them."""
    own = facts()["version"].encode()
    return Path(vm.strake()).read_bytes().replace(b"\0" + own + b"\0",
                                                  b"\0" + version(number).encode() + b"\0")


def make_package(test, name, change=None, number=9, base=None):
    """The files of a signed one, by name; `change` of the program's bytes, from some to others or a
    function. `base`: it has a delta to the program of that number, too."""
    program = make_program(number)
    if callable(change):
        program = change(program)
    elif change:
        check(change[0] in program, f"a program that is {name}")
        program = program.replace(*change)
    options = {"version": version(number)}
    if base:
        path = test.folder / f"{name}-base"
        path.write_bytes(make_program(base))
        options["base"] = f"{version(base)}={path}"
    return pack(test, name, program, **options)


def pack(test, name, program, **options):
    """The files of a package of a program, by name, with options of `strake package build`. It is
    signed with a key of its own, NAME.pub among those that are trusted."""
    folder, trusted = test.folder / name, test.folder / "trusted"
    folder.mkdir()
    (folder / "program").write_bytes(program)
    trusted.mkdir(0o755, exist_ok=True)
    run("package", "keygen", "--no-password", folder / "key")
    (folder / "key.pub").rename(trusted / f"{name}.pub")
    options = {"expires": "2100-01-01T00:00:00Z", **options}
    run("package", "build", "--key", folder / "key.key", "--program", folder / "program",
        *(word for key, value in options.items() for word in (f"--{key}", value)),
        folder / "package.strake")
    files = folder / "files"
    files.mkdir()
    subprocess.run(["tar", "-xf", folder / "package.strake", "-C", files], check=True)
    return {path.name: path.read_bytes() for path in files.iterdir()}


def sign(test, name, files, manifest):
    """The files of that package with another manifest, signed with its key whatever it is: by
    minisign, as strake signs no manifest that it would not take."""
    text = manifest if isinstance(manifest, bytes) else json.dumps(manifest).encode()
    path = test.folder / name / "manifest"
    path.write_bytes(text)
    subprocess.run(["minisign", "-S", "-s", path.with_name("key.key"), "-m", path], check=True,
                   stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    return {**files, "manifest.json": text,
            "manifest.json.minisig": path.with_name("manifest.minisig").read_bytes()}


def only_delta(test, name, files):
    """The files of that package without the whole program."""
    manifest = json.loads(files["manifest.json"])
    del manifest["monitor"][0]
    return sign(test, name, files, manifest)


def run(*arguments):
    """A subcommand."""
    subprocess.run([vm.strake(), *map(str, arguments)], check=True, timeout=PATIENCE * 5,
                   stdout=subprocess.DEVNULL)


class Door:
    """A guest that connects whoever comes to a port of it with its host's service: as many as
    come. The guest does `before` first."""

    def __init__(self, test, before=""):
        self.port = free_port()
        initrd = vm.with_script(before + DOOR, test.folder / f"door-{self.port}")
        self.definition = {"kernel": str(vm.KERNEL), "initrd": str(initrd), "memory": "256M",
                           "append": "quiet",
                           "net": [f"user,hostfwd=tcp:127.0.0.1:{self.port}-:5354"]}

    def accept(self):
        """A connection, as a listener gives it."""
        return socket.create_connection(("127.0.0.1", self.port), PATIENCE), None

    def outcome(self, files):
        """What has become of an update that was committed, whatever became of connections."""
        deadline = time.monotonic() + PATIENCE * 5
        while True:
            try:
                return self.greet().outcome(files)
            except ConnectionError:
                if time.monotonic() > deadline:
                    raise

    def greet(self):
        """A connection on which HELLO was said, as soon as that is answered."""
        deadline = time.monotonic() + PATIENCE * 5
        while True:
            try:
                guest = Guest(self)
                guest.hello()
                return guest
            except OSError:  # the guest does not listen yet, or there is no supervisor
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)


class Guest:
    """What the guest says, said by the test."""

    def __init__(self, listener):
        self.stream, _ = listener.accept()
        self.stream.settimeout(PATIENCE * 5)
        self.handle = 0
        self.offers, self.digest = 0, None  # how many, and what the last one was of

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

    def close(self):
        """The connection ends."""
        self.stream.close()

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

    def commit(self, files):
        """All of it: what was said of the offer, and of the commit, if the connection has not ended."""
        session = self.offer(files)
        self.write(files[json.loads(files["manifest.json"])["monitor"][session["payload"]]["file"]])
        self.ask(FINISH)
        try:
            return session, self.ask(COMMIT)
        except ConnectionError:
            return session, None

    def offer(self, files):
        """OFFER."""
        manifest, signature = files["manifest.json"], files["manifest.json.minisig"]
        self.offers, self.digest = self.offers + 1, hashlib.sha256(manifest).hexdigest()
        return self.ask(OFFER, struct.pack("<I", len(manifest)) + manifest + signature)

    def write(self, data, start=0, end=None):
        """A payload, or a part of less than a MiB; when its end is in that, until the host has it."""
        end = len(data) if end is None else end
        for offset in range(start, end, 65528):
            self.send(WRITE, struct.pack("<Q", offset) + data[offset:min(offset + 65528, end)])
        reached = 0
        while end == len(data) and reached < end:
            _, told = self.answer()
            reached, = struct.unpack("<Q", told)
