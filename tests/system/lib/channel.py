# SPDX-License-Identifier: BSD-2-Clause
"""A host that speaks docs/guest-channel.md as it is told: what the guest's updater is tested with. It
keeps one session and believes everything; a fault is asked for by the place where it happens."""

import hashlib
import json
import socket
import struct
import threading

HEADER = struct.Struct("<HHIQ")
MAGIC = 0x5354
HELLO, OFFER, WRITE, FINISH, COMMIT, WITHDRAW, STATUS = range(1, 8)
ANSWER, PROGRESS, ERROR = 0x80, 0x88, 0xFF
NAMES = {HELLO: "hello", OFFER: "offer", WRITE: "write", FINISH: "finish", COMMIT: "commit",
         WITHDRAW: "withdraw", STATUS: "status"}
MIB = 1 << 20


class Lost(Exception):
    """The connection ends here."""


class Refused(Exception):
    """The answer is an error."""

    def __init__(self, code, text="that is how the test wants it"):
        super().__init__(text)
        self.code = code


class Host:
    """Faults: `lose` has numbers of requests (counted over all connections, from 0) whose connection
    ends instead of an answer, `lose_after` those that are still done; `refuse` maps a request's name to
    the code it is answered with, once or, with `always`, each time; `commit` is what a COMMIT comes to."""

    def __init__(self, path, version="0.1.0"):
        self.version = version
        self.lose, self.lose_after, self.refuse, self.always = set(), set(), {}, False
        self.commit = "committed"
        self.phase, self.data, self.manifest, self.received = None, bytearray(), None, None
        self.requests = []  # names, in their order
        self.hooks = {}  # by a request's name: what is called when it comes
        self.payload = 0
        self.last = None
        self.greeting = {}
        self.raw = {}  # request's name: bytes to answer with instead
        self.path = str(path)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        self.listener.listen(8)
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self):
        """Answers nobody any more."""
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()

    def _serve(self):
        while True:
            try:
                stream, _ = self.listener.accept()
            except OSError:
                return
            with stream:
                try:
                    while True:
                        self._request(stream)
                except (Lost, OSError):
                    pass

    def _receive(self, stream, count):
        data = bytearray()
        while len(data) < count:
            part = stream.recv(count - len(data))
            if not part:
                raise Lost
            data += part
        return bytes(data)

    def _request(self, stream):
        magic, kind, length, handle = HEADER.unpack(self._receive(stream, HEADER.size))
        payload = self._receive(stream, length)
        assert magic == MAGIC and length <= 65536
        number, name = len(self.requests), NAMES[kind]
        self.requests.append(name)
        assert (handle != 0) == (kind in (WRITE, FINISH, COMMIT, WITHDRAW)), name
        if number in self.lose:
            raise Lost
        hook = self.hooks.get(name)
        if hook:
            hook()
        if name in self.raw:
            stream.sendall(self.raw[name])
            raise Lost
        try:
            if name in self.refuse:
                code = self.refuse[name] if self.always else self.refuse.pop(name)
                raise Refused(code)
            answer = getattr(self, "_" + name)(payload)
        except Refused as error:
            answer = (ERROR, struct.pack("<HH", error.code, 0) + str(error).encode())
        if number in self.lose_after:
            raise Lost
        if answer:
            self._send(stream, *answer)

    def _send(self, stream, kind, content):
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        handle = 0 if kind in (HELLO | ANSWER, STATUS | ANSWER) else 0x1234567890ABCDEF
        if kind in (FINISH | ANSWER, COMMIT | ANSWER):
            progress = b'{"doing": "what takes time"}'
            stream.sendall(HEADER.pack(MAGIC, PROGRESS, len(progress), handle) + progress)
        stream.sendall(HEADER.pack(MAGIC, kind, len(data), handle) + data)

    # ---- Requests

    def _hello(self, payload):
        greeting = json.loads(payload)
        assert greeting["protocol"] == 1 and greeting["agent"].startswith("strake-update ")
        return HELLO | ANSWER, {"protocol": 1, "version": self.version, "epoch": 1, "state": 1,
                                "architecture": "x86_64", "partition": "test", "programs": [],
                                "quota_bytes": 1 << 28, **self.greeting}

    def _offer(self, payload):
        length, = struct.unpack_from("<I", payload)
        content = payload[4:4 + length]
        assert payload[4 + length:].startswith(b"untrusted comment:")
        manifest = json.loads(content)
        digest = hashlib.sha256(content).hexdigest()
        if self.phase is None or digest != self.received:
            self.manifest, self.received = manifest, digest
            self.phase, self.data = "offered", bytearray()
        entry = manifest["monitor"][self.payload]
        session = {"phase": self.phase, "version": manifest["version"]}
        if self.phase in ("committed", "rolled-back"):
            session["result"] = self.last
        else:
            session |= {"payload": self.payload, "offset": len(self.data), "bytes": entry["bytes"]}
        return OFFER | ANSWER, session

    def _write(self, payload):
        offset, = struct.unpack_from("<Q", payload)
        data = payload[8:]
        total = self.manifest["monitor"][self.payload]["bytes"]
        if offset != len(self.data):
            raise Refused(17)
        if len(self.data) + len(data) > total:
            raise Refused(16)
        before = len(self.data)
        self.data += data
        self.phase = "receiving"
        if len(self.data) == total or before // MIB != len(self.data) // MIB:
            return WRITE | ANSWER, struct.pack("<Q", len(self.data))
        return None

    def _finish(self, _payload):
        entry = self.manifest["monitor"][self.payload]
        if self.phase != "validated":
            if hashlib.sha256(self.data).hexdigest() != entry["sha256"]:
                raise Refused(18)
            self.phase = "validated"
        return FINISH | ANSWER, {"version": self.manifest["version"], "sha256": "00", "bytes": 1,
                                 "seconds": 0.1}

    def _commit(self, _payload):
        if self.phase not in ("validated", "committing", "committed"):
            raise Refused(23)
        if self.commit == "rolled-back":
            self.phase, self.last = "rolled-back", {"error": 25, "why": "it did not prove itself"}
            raise Refused(25, "it did not prove itself")
        if self.phase != "committed":
            self.last = {"old": self.version, "new": self.manifest["version"], "partitions": 3,
                         "blackout_ns": 4200000, "seconds": 1.5}
            self.phase, self.version = "committed", self.manifest["version"]
        return COMMIT | ANSWER, self.last

    def _withdraw(self, _payload):
        if self.phase in (None, "committed"):
            raise Refused(22)
        self.phase = None
        return WITHDRAW | ANSWER, b""

    def _status(self, _payload):
        session = {"phase": self.phase, "version": self.manifest["version"]} if self.phase else None
        return STATUS | ANSWER, {"version": self.version, "epoch": 1, "busy": False,
                                 "session": session, "last": None}
