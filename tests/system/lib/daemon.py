# SPDX-License-Identifier: BSD-2-Clause
"""A supervisor for a test, with its API and its subcommands. What it started ends with the test:
monitors outlive their supervisor, and are found by a mark in their environment."""

import http.client
import json
import os
import resource
import secrets
import signal
import socket
import subprocess
import time
from pathlib import Path

from lib import firmware
from lib.harness import Failed, check
import vm

PATIENCE = 60  # seconds, for what takes far less


class Connection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path, timeout=PATIENCE):
        super().__init__("strake", timeout=timeout)
        self.path = str(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Supervisor:
    """`strake daemon` in a folder of the test's."""

    def __init__(self, test, options=(), user=None, folder=None, start=True, cwd=None, core=False):
        self.folder = Path(folder or test.folder / f"daemon-{secrets.token_hex(4)}")
        self.folder.mkdir(exist_ok=True)
        if user is not None:
            os.chown(self.folder, user, user)
        self.state, self.socket = self.folder / "state", self.folder / "sock"
        self.log, self.user = self.folder / "log", user
        self.options = ["--state-dir", self.state, "--socket", self.socket, "--log", "info",
                        *options]
        self.mark = f"STRAKE_TEST_MARK={secrets.token_hex(16)}"
        self.cwd, self.core = cwd, core  # where it runs; whether what crashes leaves a core
        self.process = None
        test.guests.append(self)
        if start:
            self.start()

    # ---- Its process

    def environment(self):
        """Of what is started, with the mark."""
        name, _, value = self.mark.partition("=")
        return {**os.environ, name: value}

    def as_user(self, command):
        """The command as the user that the supervisor is run as."""
        if self.user is None:
            return [str(word) for word in command]
        return ["setpriv", f"--reuid={self.user}", f"--regid={self.user}", "--clear-groups",
                *(str(word) for word in command)]

    def start(self, wait=True):
        """Starts it, and waits until it answers."""
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                self.as_user([vm.strake(), "daemon", *self.options]), env=self.environment(),
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.cwd)
        if self.core:
            _, most = resource.prlimit(self.process.pid, resource.RLIMIT_CORE)
            resource.prlimit(self.process.pid, resource.RLIMIT_CORE, (most, most))
        if wait:
            self.wait_until_ready()

    def wait_until_ready(self):
        """Waits until it answers."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                status, _ = self.api("GET", "/v1")
                if status == 200:
                    return
            except OSError:
                pass
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise Failed(f"the supervisor does not start: {self.text()[-1000:]}")
            time.sleep(0.02)

    def end(self, number=signal.SIGTERM):
        """Ends the supervisor, and nothing else. Returns its exit status."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)

    def restart(self, number=signal.SIGKILL):
        """Ends it and starts another."""
        self.end(number)
        self.start()

    def marked(self):
        """Processes that it has started, directly or not, and itself."""
        for folder in Path("/proc").iterdir():
            try:
                if folder.name.isdigit() and \
                        self.mark.encode() in (folder / "environ").read_bytes():
                    yield int(folder.name)
            except OSError:  # it has ended, or is another user's
                pass

    def stop(self):
        """Ends all of it."""
        for _ in range(3):  # what is killed last may have started another
            for pid in self.marked():
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
        if self.process:
            self.process.wait()

    def text(self):
        """What it has logged."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def __str__(self):
        return f"strake daemon {' '.join(map(str, self.options))}"

    # ---- The API

    def api(self, method, path, body=None, headers=None, raw=None):
        """A call: (status, what was answered: JSON, text, or None)."""
        connection = Connection(self.socket)
        data = raw if raw is not None else None if body is None else json.dumps(body)
        headers = headers or ({"Content-Type": "application/json"} if body is not None else {})
        try:
            try:
                connection.request(method, path, data, headers)
            except BrokenPipeError:  # it has replied before it has read all
                pass
            reply = connection.getresponse()
            text = reply.read()
            if not text:
                return reply.status, None
            is_json = reply.getheader("Content-Type") == "application/json"
            return reply.status, json.loads(text) if is_json else text
        finally:
            connection.close()

    def call(self, method, path, body=None):
        """A call that has to succeed; what was answered."""
        status, answer = self.api(method, path, body)
        if status >= 300:
            raise Failed(f"{method} {path}: {status} {answer}")
        return answer

    def show(self, name):
        """What is known of a partition, or None."""
        return next(iter(self.call("GET", f"/v1/partitions?name={name}")), None)

    def path(self, name, rest=""):
        """The path of a partition, or below it."""
        return f"/v1/partitions/{self.show(name)['id']}{rest}"

    def wait_for(self, name, condition, what):
        """Waits until a partition is in a state, or what a function says; returns it."""
        deadline = time.monotonic() + PATIENCE
        while True:
            partition = self.show(name)
            if partition["state"] == condition if isinstance(condition, str) else \
                    condition(partition):
                return partition
            if time.monotonic() > deadline:
                raise Failed(f"{what}: {partition}")
            time.sleep(0.02)

    def console(self, name):
        """All that the guest has written in this run."""
        status, data = self.api("GET", self.path(name, "/console"))
        if status != 200:
            raise Failed(f"console of {name}: {status} {data}")
        return (data or b"").decode(errors="replace")

    def wait_console(self, name, text):
        """Waits until the guest has written something."""
        deadline = time.monotonic() + PATIENCE * 5
        while text not in self.console(name):
            if time.monotonic() > deadline:
                raise Failed(f"{name} does not write {text!r}: {self.console(name)[-300:]!r}")
            time.sleep(0.05)

    def type(self, name, text):
        """Types into a console that takes all of it."""
        status, answer = self.api("POST", self.path(name, "/console"), raw=text,
                                  headers={"Content-Type": "application/octet-stream"})
        check_quietly(status == 200 and answer["taken"] == len(text), f"{status} {answer}")

    # ---- Subcommands

    def strake(self, command, *arguments, timeout=PATIENCE * 5, **options):
        """Runs a subcommand to its end."""
        return subprocess.run(
            self.as_user([vm.strake(), command, "--socket", self.socket, *arguments]),
            env=self.environment(), capture_output=True, text=True, errors="replace",
            timeout=timeout, check=False, **options)

    def done(self, command, *arguments, **options):
        """Runs a subcommand that has to succeed; what it prints."""
        result = self.strake(command, *arguments, **options)
        check_quietly(result.returncode == 0,
                      f"strake {command} {arguments}: {result.returncode} {result.stderr}")
        return result.stdout

    def follow(self, path):
        """A stream of the API, to be read as a file."""
        connection = Connection(self.socket)
        connection.request("GET", path)
        reply = connection.getresponse()
        reply.connection = connection
        return reply


def check_quietly(condition, what):
    """For what would be repeated too often."""
    if not condition:
        raise Failed(what)


def echo_guest(test):
    """The definition of a guest that takes no time to start: firmware/echo.S."""
    image, _ = firmware.build("echo", test.folder)
    os.chmod(test.folder, 0o755)
    return {"firmware": str(image), "memory": "64M"}


def create(supervisor, name, definition, start=True, **more):
    """Creates a partition, and has it run."""
    supervisor.call("POST", "/v1/partitions", {"name": name, **definition, **more})
    if start:
        supervisor.call("POST", supervisor.path(name, "/start"))
        if "firmware" in definition:
            supervisor.wait_console(name, "ready")
    return supervisor.show(name)


def events_of(stream):
    """Events from a stream of server-sent events, as they come."""
    fields = {}
    for line in stream:
        line = line.decode().rstrip("\n")
        if line:
            name, _, value = line.partition(":")
            fields[name] = value.lstrip()
        elif "data" in fields:
            event = json.loads(fields["data"])
            check_quietly(event["event"] == fields["event"], f"{fields} has two names")
            yield int(fields["id"]) if "id" in fields else None, event
            fields = {}
        else:
            fields = {}


__all__ = ["Supervisor", "Connection", "check", "create", "echo_guest", "events_of", "PATIENCE"]
