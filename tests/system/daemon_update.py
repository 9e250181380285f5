#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""A guest replaces the monitor under itself and under another partition: over its vsock, to the
supervisor's service, which a program of the guest's relays to this test."""

import json
import os
import socket
import struct
import subprocess
import time
from pathlib import Path

from lib.channel import (ANSWER, COMMIT, ERROR, FINISH, HEADER, HELLO, MAGIC, OFFER, PROGRESS, STATUS,
                         WRITE, Refused)
from lib.daemon import PATIENCE, Supervisor, create, echo_guest
from lib.harness import Failed, check, main, need
import vm

OTHER = b"9.9.9.9.9"
SCRIPT = """
while :; do
    rm -f /tmp/back; mkfifo /tmp/back
    nc 10.0.2.2 {port} </tmp/back | vsock connect 5354 >/tmp/back
    sleep 1
done
"""


def update(test):
    need(vm.KERNEL, vm.INITRAMFS)
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(PATIENCE * 5)
    guest = linux(test, listener)
    not_permitted(test, guest, listener)
    goes_back(test, guest, listener)
    goes_on(test, guest, listener)


def not_permitted(test, definition, listener):
    """Without `updates` the service refuses, and says so."""
    supervisor = Supervisor(test)
    create(supervisor, "web", definition, vsock=f"7,{test.folder / 'vsock'}")
    try:
        Guest(listener).hello()
        raise Failed("a partition without updates may update")
    except Refused as refused:
        check(refused.code == 3, f"a partition without updates is refused: {refused}")
    events = history(supervisor)
    check(len(events) == 1, f"and the audit log has it: {events}")
    result = subprocess.run([vm.strake(), "run", "--updates"], capture_output=True, text=True,
                            timeout=PATIENCE, check=False)
    check(result.returncode == 2 and "strake create --updates" in result.stderr,
          result.stderr.splitlines()[0])
    supervisor.stop()


def begin(test, definition, listener, files):
    """A supervisor with two partitions, of which one has committed; whatever came of that."""
    supervisor = Supervisor(test, ["--trusted", test.folder / "trusted"])
    create(supervisor, "plain", echo_guest(test))
    create(supervisor, "web", definition, updates=True)
    guest = Guest(listener)
    told = guest.hello()
    check(told["partition"] == "web" and told["version"] != version(), f"HELLO: {told}")
    session = guest.offer(files)
    check(session["phase"] in ("offered", "receiving") and session["offset"] == 0,
          f"OFFER: {session}")
    guest.write(files["monitor-full.zst"])
    validated = guest.ask(FINISH)
    check(validated["version"] == version(), f"FINISH: {validated}")
    try:
        return supervisor, guest.ask(COMMIT)
    except ConnectionError:
        return supervisor, None


def goes_on(test, definition, listener):
    """The new version takes over."""
    files = make_package(test, "good")
    supervisor, committed = begin(test, definition, listener, files)
    pid = supervisor.process.pid
    if committed is None:
        committed = Guest(listener).outcome(files)["result"]
    check(committed["new"] == version() and committed["partitions"] == 2, f"COMMIT: {committed}")
    now = supervisor.call("GET", "/v1")
    check(now["version"] == version() and now["pid"] == pid, "the supervisor is the new one")
    for name in ("web", "plain"):
        after = supervisor.show(name)
        check(after["handovers"] == 1 and after["state"] == "running", f"{name} runs on")
    supervisor.restart()
    check(supervisor.call("GET", "/v1")["version"] == version() and
          supervisor.show("web")["state"] == "running",
          "killed and started, it is the current version")
    events = history(supervisor)
    check(events[:6] == ["offered", "received", "validated", "committing", "installed", "pending"]
          and "confirmed" in events, f"the audit log has all of it: {events}")
    supervisor.stop()


def goes_back(test, definition, listener):
    """A version whose supervisor fails is taken back at the next start."""
    files = make_package(test, "bad", (b"\0daemon\0", b"\0daemom\0"))
    supervisor, committed = begin(test, definition, listener, files)
    check(committed is None and supervisor.process.wait(PATIENCE) != 0,
          "the new version's supervisor fails")
    supervisor.start()
    outcome = Guest(listener).outcome(files)
    check(outcome["phase"] == "rolled-back" and outcome["result"]["error"] == 25,
          f"the next start goes back: {outcome}")
    check(supervisor.call("GET", "/v1")["version"] != version(), "the supervisor is the old one")
    installed = os.stat(vm.strake())
    for name in ("plain", "web"):
        supervisor.wait_for(name, lambda one: one["handovers"] == 2, "it is handed back")
        now = os.stat(f"/proc/{supervisor.show(name)['pid']}/exe")
        check((now.st_dev, now.st_ino) == (installed.st_dev, installed.st_ino),
              f"{name} runs on in the old version")
    supervisor.stop()


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


main(update)
