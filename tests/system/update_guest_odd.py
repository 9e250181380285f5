#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""The guest's updater where things are odd: servers that lie, dawdle or never end, a full disk, signals
at bad moments, terminals, torn logs, packages as large as the format allows, and files that only the
version before had."""

import contextlib
import fcntl
import json
import os
import signal
import socket
import struct
import subprocess
import termios
import threading
import time

from lib.harness import check, main
from lib.updater import (BAD_PACKAGE, DONE, FAILED, PAYLOAD, ROLLED_BACK, UNFINISHED, Guest, deb, package,
                         sha256, wait_for, write_tar)

KEPT = {"lock", "log.jsonl", "state.json"}  # what a failed download may leave
SILENCE = 3  # seconds that the updater waits where that is what is tested


# ---- Servers ------------------------------------------------------------------------------------------


class Server:
    """Answers each connection with what `answer` sends."""

    def __init__(self, answer, family=socket.AF_INET):
        self.answer, self.requests = answer, []
        self.listener = socket.create_server(("::1" if family == socket.AF_INET6 else "127.0.0.1", 0),
                                             family=family)
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            try:
                stream, _ = self.listener.accept()
            except OSError:
                return
            with stream, contextlib.suppress(OSError):
                request = b""
                while b"\r\n\r\n" not in request:
                    request += stream.recv(4096)
                self.requests.append(request.decode())
                self.answer(stream)

    def close(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


def head(*fields, status="200 OK"):
    return "".join(f"{line}\r\n" for line in (f"HTTP/1.1 {status}", *fields, "")).encode()


def drip(stream, start=b""):
    stream.sendall(start)
    for _ in range(300):
        stream.sendall(b"X")
        time.sleep(0.1)


def servers(test, content):
    """What each of them sends, the status that it comes to, and a word of what is said."""
    length = f"Content-Length: {len(content)}"
    chunk = f"{len(content):x}\r\n".encode() + content + b"\r\n0\r\n\r\n"
    odd = {
        "no length": (head() + content, DONE, "replaced by"),
        "words in another case": (head(length.upper(), "connection:close") + content, DONE, "replaced by"),
        "more than it says": (head(length) + content + b"more", DONE, "replaced by"),
        "a length that is too small": (head(f"Content-Length: {len(content) // 2}") + content,
                                       BAD_PACKAGE, "damaged"),
        "a length that is too large": (head(f"Content-Length: {len(content) * 2}") + content, FAILED,
                                       "server ended"),
        "an end in the middle": (head() + content[:len(content) // 2], BAD_PACKAGE, "damaged"),
        "no length, and nothing": (head(), BAD_PACKAGE, "no manifest"),
        "nothing": (b"", FAILED, "server ended"),
        "a gigabyte and more": (head(f"Content-Length: {(1 << 30) + 1}"), BAD_PACKAGE, "1 GiB"),
        "a length that is none": (head("Content-Length: -1") + content, FAILED, "no HTTP"),
        "a length beyond all": (head("Content-Length: 99999999999999999999") + content, FAILED, "no HTTP"),
        "chunks": (head("Transfer-Encoding: chunked") + chunk, FAILED, "encoded"),
        "packed": (head("Content-Encoding: gzip", length) + content, FAILED, "encoded"),
        "another place": (head("Location: http://127.0.0.1:1/", status="302 Found"), FAILED, "another place"),
        "not found": (head(status="404 Not Found"), FAILED, "404"),
        "a part nobody asked for": (head("Content-Range: bytes 5-9/10", status="206 Partial Content"),
                                    FAILED, "206"),
        "no HTTP": (b"SSH-2.0-x\r\n\r\n", FAILED, "no HTTP"),
        "a head without end": (head()[:-2] + b"X: y\r\n" * 10000, FAILED, "no HTTP"),
        "a head that comes slowly": (lambda stream: drip(stream), FAILED, "too slow"),
        "a body that comes slowly": (lambda stream: drip(stream, head(length)), FAILED, "too slow"),
        "silence": (lambda stream: time.sleep(3 * SILENCE), FAILED, "silent"),
    }
    for what, (answer, status, word) in odd.items():
        guest = Guest(test)
        server = Server(answer if callable(answer) else lambda stream, data=answer: stream.sendall(data))
        start, late = time.monotonic(), word in ("too slow", "silent")
        text = guest.expect(status, "apply", f"http://127.0.0.1:{server.port}/p.strake", wait=SILENCE * (1 if late else 15),
                            what=f"a server that sends {what}")
        check(word in text, f"and it is told: {text.splitlines()[-1]}")
        check(time.monotonic() - start < 20 * SILENCE, "soon")
        left = {path.name for path in guest.state.iterdir()} - KEPT
        goes_on = {"download", "download.url"} if status == FAILED else {"kept", "dpkg.log"}
        check(left <= goes_on, f"what is left: {', '.join(sorted(left))}")
        server.close()
        guest.host.close()
    by_version_six(test, content)


def by_version_six(test, content):
    guest = Guest(test)
    try:
        server = Server(lambda stream: stream.sendall(head() + content), socket.AF_INET6)
    except OSError:
        print("skipped: there is no IPv6 here")
        return
    guest.expect(DONE, "apply", f"http://[::1]:{server.port}/p.strake?x=1", what="a server of IPv6")
    check(f"\r\nHost: [::1]:{server.port}\r\n" in server.requests[0] and
          server.requests[0].startswith("GET /p.strake?x=1 HTTP/1."), "is asked as it is to be")
    server.close()


# ---- A full disk --------------------------------------------------------------------------------------


def full_disk(test, path, content):
    """Files may have half a megabyte: what cannot be written whole does not stay in part."""
    server = Server(lambda stream: stream.sendall(head(f"Content-Length: {len(content)}") + content))
    for place in (path, f"http://127.0.0.1:{server.port}/p.strake"):
        guest = Guest(test, ext="1.0")
        real = guest.program
        guest.program = ["sh", "-c", 'trap "" XFSZ; ulimit -f 1000; exec "$0" "$@"', *real]
        text = guest.expect(FAILED, "apply", place, what=f"no room for the package ({place})")
        check("File too large" in text, "the reason is told")
        left = {path.name for path in guest.state.iterdir()}
        check(left <= KEPT, f"nothing stays in the way: {', '.join(sorted(left))}")
        check(guest.host.requests == [] and guest.versions() == {"ext": "1.0"}, "nothing has changed")
        guest.program = real
        (guest.state / "kept").mkdir(exist_ok=True)
        (guest.state / "kept/ext_1.0.deb").touch()
        guest.expect(DONE, "apply", place, what="with room it is applied")
    server.close()


def full_disk_at_last(test, path):
    """What fails in the guest when the host has committed takes nothing back."""
    guest = Guest(test)
    guest.state.mkdir()
    (guest.state / "kept").touch()  # where a folder is to be
    status, text = guest.run("apply", path)
    check(status == UNFINISHED and "Strake is updated" in text, f"the package cannot be kept: status {status}")
    check(guest.host.phase == "committed" and guest.versions() == {"ext": "2.0"} and
          guest.phase() == "registering", "the update stays on both sides")
    (guest.state / "kept").unlink()
    guest.expect(DONE, "resume", what="`resume` tidies up")
    check(guest.phase() == "idle" and (guest.state / "kept/ext_2.0.deb").exists() and
          guest.host.requests.count("commit") == 1, "without the host")


# ---- Signals ------------------------------------------------------------------------------------------


def with_pid(guest):
    """The updater in a session of its own, its process's number in a file."""
    guest.program = ["setsid", "sh", "-c", f'echo $$ >"{guest.folder}/pid"; exec "$0" "$@"', *guest.program]


def pid_of(guest):
    return int((guest.folder / "pid").read_text())


def interrupt(guest, number):
    guest.host.hooks.clear()
    os.killpg(pid_of(guest), number)


def interrupted(test, path):
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        guest = Guest(test)
        with_pid(guest)
        guest.host.hooks["finish"] = lambda g=guest, n=number: interrupt(g, n)
        text = guest.expect(-number, "apply", path, what=f"{number.name} while the host validates")
        check("interrupted" in text and guest.phase() == "sending", "it is told")
        guest.expect(DONE, "apply", path, what="the same again goes on")
        check(guest.host.data == PAYLOAD and guest.versions() == {"ext": "2.0"}, "to the end")
    at_work(test, path)


def at_work(test, path):
    """While dpkg is at work."""
    for ends_dpkg in (False, True):
        guest = Guest(test, ext="1.0")
        (guest.state / "kept").mkdir(parents=True)
        (guest.state / "kept/ext_1.0.deb").touch()
        with_pid(guest)

        def strike(guest=guest, ends_dpkg=ends_dpkg):
            wait_for((guest.root / "at-work").exists)
            wait_for(lambda: (guest.root / "at-work").read_text())
            os.killpg(pid_of(guest), signal.SIGTERM)
            if ends_dpkg:
                os.killpg(int((guest.root / "at-work").read_text()), signal.SIGTERM)

        thread = threading.Thread(target=strike)
        thread.start()
        guest.expect(-signal.SIGTERM, "apply", path, FAKE_WAIT="2",
                     what="a signal for us and dpkg, at a shutdown" if ends_dpkg else
                     "a signal for us while dpkg is at work")
        thread.join()
        check(guest.phase() == "installing" and guest.host.phase == "validated",
              "nothing is taken back")
        check(ends_dpkg or guest.versions() == {"ext": "2.0"}, "dpkg came to its end, if it might")
        guest.expect(DONE, "resume", what="`resume` goes on")
        check(guest.versions() == {"ext": "2.0"} and guest.phase() == "idle", "to the end")


# ---- What people and programs see -----------------------------------------------------------------------


def on_terminal(guest, *words):
    """What it writes to a terminal of 80 columns."""
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    command = [*guest.program, "--host", f"unix:{guest.host.path}", "--root", guest.root, "--state",
               guest.state, *words]
    written = bytearray()
    with subprocess.Popen([str(word) for word in command], stdout=theirs, stderr=theirs,
                          env=guest.environment) as process:
        os.close(theirs)
        with contextlib.suppress(OSError):  # EIO: nobody has the other side any more
            while part := os.read(ours, 4096):
                written += part
        check(process.wait() == DONE, "on a terminal it is applied")
    os.close(ours)
    return written.decode()


def seen(test, path):
    text = on_terminal(Guest(test), "apply", path)
    bars = [bar for line in text.split("\r\n") for bar in line.split("\r") if "[#" in bar]
    check(len(bars) > 10 and max(map(len, bars)) < 80, f"{len(bars)} bars of up to {max(map(len, bars))} columns")
    check(bars[-1].startswith("sending") and "100%" in bars[-1] and "\x1b" not in text, "the last one is full")
    guest = Guest(test)
    text = guest.expect(DONE, "apply", path, what="where there is no terminal")
    check("\r" not in text and f"sending: {len(PAYLOAD)} bytes" in text, "there are lines")
    usage = guest.expect(DONE, "--help", what="--help")
    check(max(map(len, usage.splitlines())) <= 80, "has no more than 80 columns")
    torn_log(guest, path)


def torn_log(guest, path):
    log = guest.state / "log.jsonl"
    before = len(log.read_text().splitlines())
    with log.open("a") as file:
        file.write('{"time":"2026-')
    lines = guest.expect(DONE, "--json", "log", what="a log with a torn line").splitlines()
    check(len([json.loads(line) for line in lines]) == before, "is JSON all the same")
    guest.expect(DONE, "apply", path, what="an update behind it")
    lines = guest.expect(DONE, "--json", "log", what="is in the log").splitlines()
    check([json.loads(line)["event"] for line in lines[before:]] == ["applied", "installed", "committed"],
          "whole")


# ---- Packages -------------------------------------------------------------------------------------------


def largest(test):
    """As many files, and as long words, as docs/manifest.schema.json allows."""
    debs = []
    for number in range(64):
        debs.append(test.folder / f"e{number:02}{'x' * 60}_1.{number}{'0' * 10}_all.deb")
        debs[-1].write_bytes(b"x" * number)
    files = package(debs=debs)
    manifest = json.loads(files["manifest.json"])
    for number in range(15):
        name = f"monitor-from-0.0.{number}{'-' * (99 - 22 - (number > 9))}.zst"
        files[name] = bytes([number]) * 1000
        manifest["monitor"].append({"file": name, "bytes": 1000, "sha256": sha256(files[name]),
                                    "base": {"version": f"0.0.{number}", "sha256": sha256(b"")}})
    manifest["guest"][63] |= {"package": "p" * 128, "version": "1" * 128, "architecture": "a" * 128}
    manifest["guest"][62]["version"] = "1.0_1"
    files["manifest.json"] = json.dumps(manifest).encode()
    guest = Guest(test)
    guest.expect(DONE, "apply", write_tar(files, test.folder / "largest.strake"),
                 what="80 files, with long words")
    check(len(guest.versions()) == 63, "all are installed but the one for another architecture")


def replaced(test):
    """Without dpkg: files that only the version before had go, and come back."""
    one = deb(test.folder, "ext", "1.0", {"usr/bin/ext": "one", "bin/moved": "one", "opt/one/only/here": "x",
                                          "opt/both/one": "1", "opt/gone": "g"})
    two = deb(test.folder, "ext", "2.0", {"usr/bin/ext": "two", "usr/bin/moved": "two", "opt/both/two": "2"})
    first = write_tar(package("0.2.0", debs=[one]), test.folder / "one.strake")
    second = write_tar(package("0.3.0", debs=[two]), test.folder / "two.strake")
    guest = Guest(test, dpkg=False)
    (guest.root / "bin").symlink_to("usr/bin")
    guest.expect(DONE, "apply", first, what="a version that is unpacked")
    (guest.root / "opt/one/mine").write_text("mine")
    (guest.root / "opt/gone").unlink()
    before = guest.files()
    check(before["opt/one/only/here"] == "x" and before["usr/bin/moved"] == "one", "is there")

    guest.host.commit = "rolled-back"
    guest.expect(ROLLED_BACK, "apply", second, what="the next one is rolled back")
    check(guest.files() == before, "all is as it was")
    with_pid(guest)
    guest.host.hooks["commit"] = lambda: interrupt(guest, signal.SIGKILL)
    guest.expect(-signal.SIGKILL, "apply", second, what="killed when it was installed")
    check(not (guest.root / "opt/one/only").exists(), "what only the one before had is gone")
    guest.expect(ROLLED_BACK, "resume", what="rolled back after that")
    check(guest.files() == before, "all is as it was")

    guest.host.commit = "committed"
    guest.expect(DONE, "apply", second, what="the next one is committed")
    check(guest.files() == {"usr/bin/ext": "two", "usr/bin/moved": "two", "opt/both/two": "2",
                            "opt/one/mine": "mine"}, "there is what it has, and what is the guest's own")
    check((guest.root / "bin").is_symlink() and not (guest.root / "opt/one/only").exists(), "and no more")


def odd(test):
    ext = deb(test.folder, "ext", "2.0", {"usr/bin/ext": "new"})
    path = write_tar(package(debs=[ext]), test.folder / "good.strake")
    content = path.read_bytes()
    servers(test, content)
    full_disk(test, path, content)
    full_disk_at_last(test, path)
    interrupted(test, path)
    seen(test, path)
    largest(test)
    replaced(test)


main(odd)
