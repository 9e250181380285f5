#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""The supervisor goes on as another program, with all partitions, in the same process: nothing that
runs, is attached or is known gets lost, and a bad program changes nothing."""

import json
import os
import select
import signal
import socket
import subprocess
import time
from pathlib import Path

from lib.daemon import PATIENCE, Supervisor, create, echo_guest
from lib.harness import check, main
import vm

OTHER = b"9.9.9.9.9"
USER = 12345


def reexec(test):
    guest = echo_guest(test)
    other = other_version(test)
    self_test()
    goes_on(test, guest, other)
    as_user(test, guest, other)


def version_of(program):
    """What a program says of itself in its self-test."""
    out = subprocess.run([program, "monitor", "--self-test"], check=True, capture_output=True,
                         timeout=PATIENCE * 5).stdout
    return json.loads(out)


def other_version(test):
    """A copy of the program that says that it is of another version."""
    content = Path(vm.strake()).read_bytes()
    version = version_of(vm.strake())["version"].encode()
    path = test.folder / "other"
    path.write_bytes(content.replace(b"\0" + version + b"\0",
                                     b"\0" + OTHER[:len(version)] + b"\0") + b"another")
    path.chmod(0o755)
    return path


def self_test():
    """The role by itself."""
    told = version_of(vm.strake())
    check(set(told) == {"version", "epoch", "state"} and told["epoch"] >= 1 and
          1 <= told["state"]["oldest"] <= told["state"]["newest"], f"self-test: {told}")


def program(pid):
    """What a process runs: device and inode."""
    found = os.stat(f"/proc/{pid}/exe")
    return found.st_dev, found.st_ino


def zombies(pid):
    """Children of a process that it has not waited for."""
    count = 0
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            state, parent = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()[:2]
            count += state == "Z" and int(parent) == pid
        except OSError:
            pass
    return count


def goes_on(test, guest, other):  # pylint: disable=too-many-locals
    """All of it, with a service manager that listens and a console that is attached."""
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    manager.bind(str(test.folder / "notify"))
    manager.settimeout(PATIENCE)
    os.environ["NOTIFY_SOCKET"] = str(test.folder / "notify")
    supervisor = Supervisor(test)
    check(manager.recv(100) == b"READY=1", "the service manager is told that it is ready")
    for name in ("one", "two", "asleep"):
        create(supervisor, name, guest)
    supervisor.call("POST", supervisor.path("asleep", "/pause"))
    bad_program(supervisor)

    before = supervisor.call("GET", "/v1")
    partitions = {name: supervisor.show(name) for name in ("one", "two", "asleep")}
    client = subprocess.Popen(
        [vm.strake(), "console", "--all", "--socket", str(supervisor.socket), "one"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        env=supervisor.environment())
    said = "ready\r\n"
    for number in range(3):
        old = program(supervisor.process.pid)
        out = supervisor.done("handover", "--all", "--supervisor", "--binary",
                              other if number % 2 == 0 else vm.strake())
        told = manager.recv(100), manager.recv(100)
        check(told[0].startswith(b"RELOADING=1\nMONOTONIC_USEC=") and told[1] == b"READY=1",
              "the service manager is told that it reloads, and that it is ready")
        check(supervisor.process.poll() is None and program(supervisor.process.pid) != old,
              "it is the same process with another program")
        now = supervisor.call("GET", "/v1")
        check(now["pid"] == before["pid"] and now["started"] != before["started"] and
              f"goes on as version {now['version']}\n" in out, out.splitlines()[-1])
        check(Path(f"/proc/{now['pid']}/comm").read_text() == "strake\n", "it has its name")
        for name in ("one", "two", "asleep"):
            after = supervisor.call("GET", f"/v1/partitions/{partitions[name]['id']}")
            check(after["handovers"] == number + 1 and after["state"] == partitions[name]["state"]
                  and after["runs"] == 1 and after["pid"] != partitions[name]["pid"],
                  f"{name} keeps its id, and is {after['state']} in another monitor")
        word = f"hello {number}. "
        supervisor.type("one", word.encode())
        supervisor.wait_console("one", word)
        said += word
        second_is_refused(test, supervisor)
        before = now
    check(shown(client, len(said)) == said == supervisor.console("one"),
          "a console that is attached shows all of it once, and nothing is lost")
    ends_are_known(supervisor)
    supervisor.call("POST", supervisor.path("asleep", "/resume"))
    supervisor.type("asleep", b"up again")
    supervisor.wait_console("asleep", "up again")
    check(supervisor.end() == 0 and not supervisor.socket.exists(), "it ends as ever")
    del os.environ["NOTIFY_SOCKET"]
    supervisor.stop()


def shown(client, count):
    """What a console client has printed, once that is `count` bytes, and then some time."""
    text, deadline = b"", time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if select.select([client.stdout], [], [], 0.5)[0]:
            text += os.read(client.stdout.fileno(), 4096)
        elif len(text) >= count:
            break
    client.terminate()
    client.communicate(timeout=PATIENCE)
    return text.decode()


def bad_program(supervisor):
    """It has to pass its self-test before anything is done."""
    before = supervisor.call("GET", "/v1"), supervisor.show("one")
    for path, words in (("/bin/true", "tells nothing of itself"), ("/bin/false", "status 1"),
                        ("/etc/passwd", "Exec format error"), ("/none", "No such file")):
        result = supervisor.strake("handover", "--all", "--supervisor", "--binary", path)
        check(result.returncode == 1 and words in result.stderr, result.stderr.strip())
    check((supervisor.call("GET", "/v1"), supervisor.show("one")) == before, "nothing has changed")
    result = supervisor.strake("handover", "one", "--supervisor")
    check(result.returncode == 2 and "--all" in result.stderr, result.stderr.splitlines()[0])


def second_is_refused(test, supervisor):
    """The state folder was not let go of."""
    result = subprocess.run([vm.strake(), "daemon", "--state-dir", str(supervisor.state),
                             "--socket", str(test.folder / "second")],
                            timeout=PATIENCE, capture_output=True, text=True, check=False)
    check(result.returncode == 1 and "another supervisor" in result.stderr,
          "a second supervisor is refused")


def ends_are_known(supervisor):
    """Partitions that it has started in an earlier program are waited for."""
    os.kill(supervisor.show("two")["pid"], signal.SIGKILL)
    end = supervisor.wait_for("two", "crashed", "its end is noticed")["last_end"]
    check(end["code"] == signal.SIGKILL, f"how a monitor has ended is known: {end['why']}")
    deadline = time.monotonic() + PATIENCE
    while zombies(supervisor.process.pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    check(zombies(supervisor.process.pid) == 0, "all processes that ended are waited for")


def as_user(test, guest, other):
    """An ordinary user's."""
    supervisor = Supervisor(test, user=USER)
    create(supervisor, "one", guest)
    out = supervisor.done("handover", "--all", "--supervisor", "--binary", other)
    check(out.startswith("one: handed-over") and "goes on as" in out,
          "an ordinary user's supervisor does the same")
    supervisor.type("one", b"hello")
    supervisor.wait_console("one", "hello")


main(reexec)
