# SPDX-License-Identifier: BSD-2-Clause
"""What tests of interceptors of files share: a scanner that does what it is told to, the supervisor's side
of an interceptor without a supervisor, and files that scanners know."""

import array
import errno
import json
import os
import select
import socket
import struct
import subprocess
import threading
import time
from pathlib import Path

from lib.harness import Failed, Skipped, check
from lib.leverage import wait_until
from opens import measure, settled

STRAKE = os.environ.get("STRAKE", "")
PATIENCE = 60  # seconds, on a busy machine
CONTROL_FD = 3
CONTENT_MAX = 64 << 20  # of a file; nothing is found behind that


def eicar():
    """The file that every scanner knows, made of parts so that none finds it in the sources."""
    return (b"X5O!P%@AP[4\\PZX54(P^)7CC)7}" + b"$EICAR-" + b"STANDARD-ANTIVIRUS-" + b"TEST-FILE!$H+H*")


def need_fanotify():
    """Skips where nobody may hold opens."""
    import ctypes  # pylint: disable=import-outside-toplevel
    libc = ctypes.CDLL(None, use_errno=True)
    group = libc.fanotify_init(0x4 | 0x1 | 0x10, os.O_RDONLY)  # FAN_CLASS_CONTENT, CLOEXEC, UNLIMITED_QUEUE
    if group < 0:
        raise Skipped(f"no fanotify permission events here: {os.strerror(ctypes.get_errno())}")
    os.close(group)


class Scanner:
    """clamd at port 3310 and an agent at port 5355 of what looks like a guest's vsock. It finds what
    contains EICAR, and `extra`. It can be `slow` (seconds a file), `mute` (answers no scan), or die."""

    def __init__(self, path):
        self.path = str(path)
        self.slow, self.mute, self.extra = 0, False, b"\0never\0"
        self.configured, self.refuse = [], None
        self.scans, self.swallowed, self.connections = 0, 0, set()
        self.lock = threading.Lock()
        self.listener = None
        self.come()

    def come(self):
        """Begins to listen."""
        if os.path.exists(self.path):
            os.unlink(self.path)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        self.listener.listen(64)
        threading.Thread(target=self._accept, args=(self.listener,), daemon=True).start()

    def die(self):
        """Ends in the middle of all that it does."""
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        with self.lock:
            for one in self.connections:
                try:
                    one.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass

    def _accept(self, listener):
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with self.lock:
                self.connections.add(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        stream = connection.makefile("rb")
        try:
            port = int(stream.readline().split()[1])
            connection.sendall(b"OK 1024\n")
            if port == 5355:
                self._agent(connection, stream)
            else:
                self._clamd(connection, stream)
        except (OSError, IndexError, ValueError, struct.error):
            pass
        with self.lock:
            self.connections.discard(connection)
        stream.close()
        connection.close()

    def _agent(self, connection, stream):
        words = stream.readline().decode().split()
        if words[0] == "signatures":
            connection.sendall(b"ok\n")
            content = stream.read(int(words[1].partition("=")[2]))
            if self.refuse:
                connection.sendall(f"error {self.refuse}\n".encode())
                return
            self.configured.append(content)
        elif not self.configured:
            connection.sendall(b"error there are no signatures\n")
            return
        connection.sendall(b"ok\n")

    def _clamd(self, connection, stream):
        number, session = 0, False
        while command := self._text(stream):
            number += 1
            prefix = b"%d: " % number if session else b""
            if command == b"zIDSESSION":
                session, number = True, 0
            elif command == b"zPING":
                connection.sendall(prefix + b"PONG\0")
            elif command == b"zINSTREAM":
                content = bytearray()
                while length := struct.unpack(">I", self._exactly(stream, 4))[0]:
                    piece = self._exactly(stream, length)
                    self.swallowed += length
                    content += piece if len(content) < CONTENT_MAX else b""
                self.scans += 1
                self._answer(connection, prefix, content)

    def _answer(self, connection, prefix, content):
        time.sleep(self.slow)
        while self.mute:
            time.sleep(0.02)
            if connection.fileno() < 0:
                return
        found = eicar() in content or self.extra in content
        connection.sendall(prefix + (b"stream: Test.Eicar FOUND\0" if found else b"stream: OK\0"))

    @staticmethod
    def _exactly(stream, count):
        data = stream.read(count)
        if len(data) < count:
            raise OSError("the end")
        return data

    @staticmethod
    def _text(stream):
        text = b""
        while (one := stream.read(1)) not in (b"", b"\0"):
            text += one
        return text


class Interceptor:
    """A process of the role, which this test is the supervisor of. What it has the supervisor keep goes to
    its successor. With `socket_path`, the next supervisor finds it there."""

    def __init__(self, test, definition, scanners, socket_path=None):
        self.socket_path = socket_path
        self.definition = {"kind": "files", "name": "gate", "fail": "closed", "time-limit": "40s", **definition}
        self.definition["module"] = [
            f"p{i}" + (f",config={scanner.config}" if getattr(scanner, "config", None) else "")
            for i, scanner in enumerate(scanners)]
        self.views = [{"name": f"p{i}", "state": "up", "vsock": scanner.path, "nets": []}
                      for i, scanner in enumerate(scanners)]
        self.kept, self.events, self.state, self.why = {}, [], None, None
        self.answers, self.last_id = {}, 0
        self.changed = threading.Condition()
        self.link = self.process = None
        test.guests.append(self)
        self.start()

    def start(self):
        """Starts a process; if one was there before, another."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

        def arrange():
            os.dup2(theirs.fileno(), CONTROL_FD)

        self.process = subprocess.Popen([STRAKE, "interceptor"], preexec_fn=arrange,  # pylint: disable=W1509
                                        stdin=subprocess.DEVNULL, close_fds=False)
        theirs.close()
        self.link = ours
        threading.Thread(target=self._read, args=(ours,), daemon=True).start()
        fds = dict(self.kept)
        if self.socket_path:
            Path(self.socket_path).unlink(missing_ok=True)
            listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            listener.bind(str(self.socket_path))
            listener.listen(4)
            fds["control-listen"] = listener.fileno()
        answer = self.ask("start", fds, definition=self.definition, partitions=self.views)
        if "error" in answer:
            raise Failed(f"start: {answer['error']}")
        return answer

    def _read(self, link):
        while True:
            try:
                data, ancillary, _, _ = link.recvmsg(65536, socket.CMSG_SPACE(64 * 4))
            except OSError:
                data = b""
            if not data:
                with self.changed:
                    self.changed.notify_all()
                return
            fds = array.array("i")
            for _, _, raw in ancillary:
                fds.frombytes(raw[:len(raw) // 4 * 4])
            self._take(link, json.loads(data), list(fds))

    def _take(self, link, message, fds):
        with self.changed:
            if message.get("op") == "keep":
                for old in self.kept.values():
                    os.close(old)
                self.kept = dict(zip(message.get("fds", []), fds))
                link.sendall(json.dumps({"id": message["id"]}).encode())
            elif message.get("event") == "state":
                self.state, self.why = message["state"], message.get("why")
            elif message.get("event") == "event":
                self.events.append(message)
            elif "id" in message:
                self.answers[message["id"]] = message
            self.changed.notify_all()

    def ask(self, op, fds=None, **arguments):
        """Sends a request; its answer."""
        self.last_id += 1
        number = self.last_id
        message = {"op": op, "id": number, **arguments}
        ancillary = []
        if fds:
            message["fds"] = list(fds)
            ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds.values()))]
        self.link.sendmsg([json.dumps(message).encode()], ancillary)
        return self.wait(lambda: self.answers.pop(number, None), f"{op} is answered")

    def wait(self, condition, what):
        """Waits until a function returns something; returns it."""
        deadline = time.monotonic() + PATIENCE
        with self.changed:
            while not (value := condition()):
                if not self.changed.wait(min(0.2, deadline - time.monotonic())) and \
                        time.monotonic() > deadline:
                    raise Failed(f"it does not come about that {what} ({self.state}: {self.why})")
        return value

    def wait_state(self, state):
        """Waits until it is in that state."""
        self.wait(lambda: self.state == state, f"it is {state}")

    def stats(self):
        """What it has counted."""
        return self.ask("stats")

    def view(self, number, **changes):
        """Tells it of a change of a partition."""
        self.views[number] = {**self.views[number], **changes}
        self.ask("partition", view=self.views[number])

    def kill(self):
        """Kills the process, as it is."""
        self.process.kill()
        self.process.wait()
        self.link.close()
        self.state = None

    def remove(self):
        """Has everything undone; the process ends."""
        answer = self.ask("remove")
        for fd in self.kept.values():
            os.close(fd)
        self.kept = {}
        self.link.close()
        self.process.wait(PATIENCE)
        return answer

    def stop(self):
        """Ends it, at the end of the test."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for fd in self.kept.values():
            os.close(fd)
        self.kept = {}

    @staticmethod
    def text():
        """For the harness, which shows what its guests said."""
        return ""


class Case:
    """A path, and an interceptor for it."""

    def __init__(self, test, name, scanners=1, **definition):
        self.folder = test.folder / name
        self.path = self.folder / "path"
        self.outside = self.folder / "outside"
        for folder in (self.path, self.path / "sub" / "deep", self.outside):
            folder.mkdir(parents=True, exist_ok=True)
        self.scanners = [Scanner(self.folder / f"vsock{i}") for i in range(scanners)]
        self.scanner = self.scanners[0]
        self.it = Interceptor(test, {"path": str(self.path), **definition}, self.scanners)

    def active(self):
        """Waits until files are scanned."""
        self.it.wait_state("active")
        return self

    def scanned(self, function, *arguments):
        """What a function returns, and how many scans there were meanwhile."""
        before = self.scanner.scans
        value = function(*arguments)
        return value, self.scanner.scans - before

    def held(self, count):
        """Waits until so many opens wait for their answer."""
        wait_until(lambda: self.it.stats()["waiting"] == count, f"{count} opens wait")

    def finish(self):
        """Removes the interceptor."""
        answer = self.it.remove()
        if "error" in answer:
            raise Failed(answer["error"])
        self.scanner.die()


def read(path, timeout=PATIENCE):
    """What a file's opening and reading in another process comes to: its content, or the error's number."""
    return start_read(path)(timeout)


def held_soon(path, what):
    """Checks that a file with EICAR cannot be opened, from some moment on."""
    wait_until(lambda: read(path) == errno.EPERM, what, PATIENCE * 5)
    check(read(path) == errno.EPERM, what)


def start_read(path, flags=os.O_RDONLY):
    """Begins to read a file in another process; returns a function that waits for what comes of it."""
    parent, child = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            fd = os.open(path, flags)
            os.write(child, b"+" + os.read(fd, 4096))
        except OSError as error:
            os.write(child, b"-%d" % error.errno)
        os._exit(0)  # pylint: disable=protected-access
    os.close(child)

    def finish(timeout=PATIENCE):
        ready, _, _ = select.select([parent], [], [], timeout)
        if not ready:
            raise Failed(f"nobody answers an open of {path}")
        said = os.read(parent, 65536)
        os.close(parent)
        os.waitpid(pid, 0)
        return said[1:] if said[:1] == b"+" else int(said[1:])

    finish.pid = pid
    return finish


def write(path, content):
    """Makes a file, of which verdicts can be kept."""
    Path(path).write_bytes(content)
    return settled(path)


__all__ = ["eicar", "need_fanotify", "Scanner", "Interceptor", "Case", "measure", "read", "held_soon", "start_read", "settled",
           "write", "check"]
