# SPDX-License-Identifier: BSD-2-Clause
"""A supervisor of one's own and its partitions, by its API (docs/api.yaml): what system tests and
the benchmark of handover have in common."""

import http.client
import json
import socket
import subprocess
import threading
import time
import urllib.parse

import vm

TIMEOUT = 300  # seconds for an answer, on a busy machine
KEPT_S = 5  # that a connection may have been idle: the supervisor closes it after a minute


class Refused(Exception):
    """The supervisor's answer was an error: its sentence."""


class _Connection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path, timeout):
        super().__init__("strake", timeout=timeout)
        self._path = str(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Supervisor:
    """`strake daemon` with its state in a folder; its partitions end with it."""

    def __init__(self, folder, strake=None, options=()):
        self.folder = folder / "state"
        self.socket = folder / "socket"
        self.strake = strake or vm.strake()
        self._options = [str(word) for word in options]
        self.log = open(folder / "log", "w+b")
        self.process = None
        self._thread = threading.local()  # a connection each
        self.start()

    def start(self):
        """Starts the process, and waits until it answers."""
        self.process = subprocess.Popen(
            [self.strake, "daemon", "--state-dir", str(self.folder), "--socket",
             str(self.socket), "--stop-partitions", *self._options],
            stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log,
            start_new_session=True)  # a Ctrl-C is for who started it, and ends it in good order
        deadline = time.monotonic() + TIMEOUT
        while True:
            try:
                return self.call("GET", "/v1")
            except OSError:
                if time.monotonic() > deadline or self.process.poll() is not None:
                    raise
                time.sleep(0.01)

    def call(self, method, path, body=None, content="application/json", timeout=TIMEOUT):
        """Calls the API; returns the answer's JSON."""
        if not isinstance(body, (bytes, type(None))):
            body = json.dumps(body).encode()
        headers = {"Content-Type": content} if body is not None else {}
        kept, used = getattr(self._thread, "connection", None) or (None, 0)
        self._thread.connection = None  # until it has proved to be whole
        if time.monotonic() - used > KEPT_S:
            kept = None
        try:
            status, told = self._exchange(kept or _Connection(self.socket, timeout), method, path,
                                          body, headers)
        except ConnectionError:
            if not kept:
                raise
            # The supervisor goes on as another program, and has answered all that it was asked.
            status, told = self._exchange(_Connection(self.socket, timeout), method, path, body,
                                          headers)
        if status >= 400:
            raise Refused(told["error"])
        return told

    def _exchange(self, connection, *request):
        connection.request(*request)
        answer = connection.getresponse()
        text = answer.read()
        self._thread.connection = connection, time.monotonic()
        return answer.status, json.loads(text) if text else None

    def stream(self, path):
        """Opens a stream; returns the response to read from."""
        connection = _Connection(self.socket, None)
        connection.request("GET", path)
        answer = connection.getresponse()
        if answer.status >= 400:
            raise Refused(json.loads(answer.read())["error"])
        return answer

    def partition(self, name, machine, **more):
        """Creates a partition of a vm.Machine; `more` are further keys of its definition."""
        return Partition(self, name, definition(name, machine) | more)

    def log_text(self):
        """What the supervisor and the monitors have said."""
        self.log.seek(0)
        return self.log.read().decode(errors="replace")

    def close(self):
        """Ends the supervisor and what it runs."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.log.close()


def definition(name, machine):
    """A vm.Machine as a partition's definition."""
    keys = {"name": name, "memory": machine.memory, "cpus": machine.cpus}
    for key in ("kernel", "initrd", "firmware", "append", "vsock"):
        value = getattr(machine, key)
        if value:
            keys[key] = str(value)
    if machine.disks:
        keys["disk"] = [str(disk) for disk in machine.disks]
    if machine.net is not None:
        keys["net"] = [",".join(["user"] + [f"hostfwd={rule}" for rule in machine.net])]
    return keys


class _Follower:
    """Reads a partition's console until the partition ends. Streams end when the supervisor goes on as
    another program; the next one begins where the last one was."""

    def __init__(self, partition):
        self._partition = partition
        self._open("")

    def _open(self, place):
        self._stream = self._partition.supervisor.stream(
            f"{self._partition.path}/console?follow=1{place}")
        self._run = self._stream.getheader("Strake-Run")
        self._position = int(self._stream.getheader("Strake-Position"))

    def _open_again(self):
        deadline = time.monotonic() + TIMEOUT
        while time.monotonic() < deadline and self._partition.supervisor.process.poll() is None:
            try:
                if self._partition.show()["state"] not in ("running", "paused", "stopping"):
                    return False
                self._open(f"&run={self._run}&position={self._position}")
                return True
            except Refused:
                return False
            except (OSError, http.client.HTTPException):
                time.sleep(0.01)
        return False

    def __call__(self, count):
        while True:
            try:
                data = self._stream.read1(count)
            except (OSError, http.client.HTTPException):
                data = b""
            self._position += len(data)
            if data or not self._open_again():
                return data


class Partition(vm.Console):
    """A partition of a Supervisor, and its console."""

    def __init__(self, supervisor, name, keys):
        super().__init__()
        self.supervisor = supervisor
        self.name = name
        made = supervisor.call("POST", "/v1/partitions", keys)
        self.path = f"/v1/partitions/{urllib.parse.quote(made['id'])}"

    def start(self):
        """Starts it and watches its console."""
        self.supervisor.call("POST", self.path + "/start", {})
        self.watch(_Follower(self))

    def write(self, data):
        while data:
            taken = self.supervisor.call("POST", self.path + "/console", data,
                                         "application/octet-stream")["taken"]
            data = data[taken:]
            if data:
                time.sleep(0.01)

    def show(self):
        """The partition as the supervisor sees it."""
        return self.supervisor.call("GET", self.path)

    def hand_over(self, binary=None, timeout=TIMEOUT):
        """Moves it to another monitor process; returns the supervisor's report of that."""
        body = {"binary": str(binary)} if binary else {}
        return self.supervisor.call("POST", self.path + "/handover", body,
                                    timeout=timeout)["last_handover"]

    def kill(self):
        """Ends it, like a power cut."""
        self.supervisor.call("POST", self.path + "/kill", {})

    def stop(self):
        """Nothing is left to do: its supervisor ends it."""

    def __str__(self):
        return f"partition \"{self.name}\""
