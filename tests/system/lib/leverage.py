# SPDX-License-Identifier: BSD-2-Clause
"""What the tests of interceptors share: a host of the test's own (network and mounts in namespaces that
end with it), hosts outside of it, a supervisor with interceptors, and what the host's configuration was
before and is after.

The test enters the host's namespaces itself (`enter_host`), so the supervisor and whatever else it
starts is in them; an `Outside` is another network namespace, which one talks to by `run` and `socket`.
"""

import ctypes
import json
import os
import re
import secrets
import socket
import subprocess
import threading
import time
from pathlib import Path

from lib.daemon import PATIENCE, Supervisor, check_quietly
from lib.harness import Failed, Skipped, check
import namespaces
from namespaces import CLONE_NEWNET, CLONE_NEWNS, LIBC

ETH_P_ALL = 0x0003


# ---- Namespaces

def unshare(flags):
    """Namespaces of this process's, or thread's, own."""
    try:
        namespaces.unshare(flags)
    except namespaces.Unavailable as why:
        raise Skipped(why) from why


def enter_host(need_root=False):
    """A host: a network without anything but loopback, and mounts of its own. An ordinary user is root in
    them, which is not enough for everything (fanotify)."""
    if os.getuid() and need_root:
        raise Skipped("this test needs root's rights")
    try:
        namespaces.enter_host()
    except namespaces.Unavailable as why:
        raise Skipped(why) from why


def ip(command, **options):
    """Runs `ip` in this process's namespace; what it prints."""
    return run(["ip", *command.split()], **options)


def run(command, may_fail=False, **options):
    """Runs a command to its end; what it prints."""
    words = command.split() if isinstance(command, str) else [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, errors="replace", check=False,
                          timeout=PATIENCE * 5, **options)
    if done.returncode != 0 and not may_fail:
        raise Failed(f"{' '.join(words)}: {done.stderr}")
    return done.stdout


class Outside(namespaces.Outside):
    """Another host, for as long as the test."""

    def __init__(self, test, **names):
        super().__init__(**names)
        test.guests.append(self)

    def run(self, command, **options):
        """Runs a command there to its end; what it prints."""
        return run(self.command(command), **options)

    def ip(self, command, **options):
        """Runs `ip` there."""
        return self.run(["ip", *command.split()], **options)

    def do(self, function):
        """Has a function of this program done by a thread that is there; its result. Sockets that it
        makes are there for ever."""
        result = []

        def work():
            with open(self.path, "rb") as namespace:
                if LIBC.setns(namespace.fileno(), CLONE_NEWNET) != 0:
                    result.append((None, OSError(ctypes.get_errno(), "setns")))
                    return
            try:
                result.append((function(), None))
            except Exception as failure:  # pylint: disable=broad-except
                result.append((None, failure))

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        value, failure = result[0]
        if failure:
            raise failure
        return value

    def socket(self, *arguments):
        """A socket there."""
        return self.do(lambda: socket.socket(*arguments))

    stop = namespaces.Outside.close

    def text(self):
        """For the harness, which shows what its guests said."""
        return ""


class Capture:
    """What passes an interface, as [(bytes, whether it is outgoing)], until it is stopped."""

    def __init__(self, interface, outside=None):
        make = outside.socket if outside else socket.socket
        self.socket = make(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        self.socket.bind((interface, 0))
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 << 20)
        self.socket.settimeout(0.1)
        self.frames, self.stopped = [], False
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self):
        while not self.stopped:
            try:
                frame, address = self.socket.recvfrom(65536)
                self.frames.append((frame, address[2] == socket.PACKET_OUTGOING))
            except TimeoutError:
                pass
            except OSError:  # the interface is gone
                return

    def has(self, text):
        """Whether any frame contains these bytes."""
        return any(text in frame for frame, _ in self.frames)

    def stop(self):
        """No more of them; those that there were."""
        time.sleep(0.2)
        self.stopped = True
        self.thread.join()
        self.socket.close()
        return self.frames


# ---- What the host is like

VOLATILE = {"valid_life_time", "preferred_life_time", "expires", "tentative", "stats", "stats64", "used",
            "age", "cache", "dadfailed"}


def _settled(value):
    """JSON of `ip` without what changes by itself."""
    if isinstance(value, dict):
        return {key: _settled(one) for key, one in value.items() if key not in VOLATILE}
    return [_settled(one) for one in value] if isinstance(value, list) else value


def _ip_json(command):
    text = run(["ip", "-j", *command.split()], may_fail=True)
    return _settled(json.loads(text)) if text.strip() else []


def _settings():
    """Of each interface, and of all. One that disappears meanwhile has none: os.walk() goes on."""
    found = {}
    for family in ("ipv4", "ipv6"):
        top = Path("/proc/sys/net") / family
        files = [Path(folder) / name for folder, _, names in os.walk(top / "conf") for name in names]
        for file in sorted([*files, top / "ip_forward"]):
            if file.name in ("stable_secret", "mc_forwarding"):
                continue
            try:
                found[str(file)] = file.read_text(encoding="ascii").strip()
            except OSError:
                pass
    return found


def _mounts():
    """But for names of namespaces, which disappear here, too, when somebody else removes his."""
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        lines = [line.split() for line in file]
    return sorted(" ".join([*line[3:6], *line[line.index("-") + 1:]]) for line in lines
                  if line[line.index("-") + 1] != "nsfs")


def configuration():
    """All of the host's configuration that an interceptor might change, to be compared. Addresses that the
    kernel is still about to use count as such when it does."""
    wait_until(lambda: not ip("-6 address show tentative"), "all addresses are used")
    return {"links": _ip_json("link"), "addresses": _ip_json("address"),
            "neighbours": _ip_json("neighbour show nud permanent"),
            "routes": _ip_json("-4 route show table all"),
            "routes6": _ip_json("-6 route show table all"),
            "rules": _ip_json("-4 rule"), "rules6": _ip_json("-6 rule"),
            "qdiscs": run("tc qdisc", may_fail=True).splitlines(),
            "nftables": run("nft --stateless list ruleset", may_fail=True).splitlines(),
            "settings": _settings(), "mounts": _mounts()}


def differences(before, after):
    """What of two configurations is not the same, as lines of text."""
    lines = []
    for what, old in before.items():
        new = after[what]
        if isinstance(old, dict):
            old, new = ([f"{key} = {one}" for key, one in part.items()] for part in (old, new))
        old, new = ([json.dumps(one, sort_keys=True) for one in part] for part in (old, new))
        found = [f"{what}: - {one}" for one in old if one not in new]
        found += [f"{what}: + {one}" for one in new if one not in old]
        if old != new and not found:
            found.append(f"{what}: in another order: {new}")
        lines += found
    return lines


def check_same(before, what, patience=PATIENCE):
    """The host's configuration is as it was before: at once, or as soon as the kernel has taken away what
    belonged to a process that has ended."""
    deadline = time.monotonic() + patience
    while lines := differences(before, configuration()):
        if time.monotonic() > deadline:
            raise Failed(f"not so: {what}\n" + "\n".join(lines))
        time.sleep(0.1)
    check(True, what)


def wait_until(condition, what, patience=PATIENCE):
    """Waits until a function returns something; returns it."""
    deadline = time.monotonic() + patience
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise Failed(f"it does not come about that {what}")
        time.sleep(0.02)
    return value


# ---- Interceptors

class Host(Supervisor):
    """`strake daemon`, with interceptors."""

    def __init__(self, test, options=(), **more):
        super().__init__(test, ["--restart-delay", "100", *options], **more)

    def intercept(self, kind, name, **keys):
        """Adds an interceptor by the API, with the keys of a definition ('_' for '-'); what it is told."""
        definition = {key.replace("_", "-"): value for key, value in keys.items()}
        return self.call("POST", "/v1/interceptors", {"kind": kind, "name": name, **definition})

    def interceptor(self, name):
        """What is known of it, or None."""
        status, answer = self.api("GET", f"/v1/interceptors/{name}")
        check_quietly(status in (200, 404), f"interceptor {name}: {status} {answer}")
        return answer if status == 200 else None

    def wait_state(self, name, *states, patience=PATIENCE):
        """Waits until it is in one of these states; returns what is known of it."""
        deadline = time.monotonic() + patience
        while True:
            found = self.interceptor(name)
            if found and found["state"] in states:
                return found
            if time.monotonic() > deadline:
                raise Failed(f"interceptor {name} does not become {' or '.join(states)}: {found}")
            time.sleep(0.02)

    def counters(self, name):
        """What it has counted."""
        return self.call("GET", f"/v1/interceptors/{name}/stats")

    def give_up(self, name):
        """Removes it."""
        self.call("DELETE", f"/v1/interceptors/{name}")

    def worker(self, name):
        """The number of its process."""
        return self.interceptor(name)["pid"]

    def monitor(self, name):
        """The number of a partition's process."""
        return self.show(name)["pid"]


def unique(prefix=""):
    """A name for an interface that nobody has."""
    return (prefix + secrets.token_hex(6))[:15]


def words_of(text):
    """A table's rows, as lists of words."""
    return [re.split(r"\s{2,}", line.strip()) for line in text.splitlines() if line.strip()]


__all__ = ["Host", "Outside", "Capture", "enter_host", "ip", "run", "configuration", "differences",
           "check_same", "wait_until", "unique", "words_of"]
