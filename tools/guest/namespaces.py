# SPDX-License-Identifier: BSD-2-Clause
"""A host of one's own, in a network and mounts that end with the process, and hosts outside of it."""

import ctypes
import os
import subprocess
import time
from pathlib import Path

CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWNET = 0x00020000, 0x10000000, 0x40000000
MS_REC, MS_PRIVATE = 0x4000, 0x40000
LIBC = ctypes.CDLL(None, use_errno=True)
PATIENCE_S = 300  # for a command
# Addresses of devices to come can be used at once.
NO_CHECKS = "/proc/sys/net/ipv6/conf/default/accept_dad"


class Unavailable(Exception):
    """This machine or this user may not do it: why."""


def unshare(flags):
    """Namespaces of this process's, or thread's, own."""
    if LIBC.unshare(flags) != 0:
        raise Unavailable(f"no namespaces of our own: {os.strerror(ctypes.get_errno())}")


def enter_host():
    """This process has a network without anything but loopback, and mounts, of its own from now on. An
    ordinary user is root in them."""
    uid, gid = os.getuid(), os.getgid()
    unshare(CLONE_NEWNET | CLONE_NEWNS | (CLONE_NEWUSER if uid else 0))
    if uid:
        for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
            Path(f"/proc/self/{name}").write_text(text, encoding="ascii")
    LIBC.mount(None, b"/", None, MS_REC | MS_PRIVATE, None)
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        raise Unavailable("/dev/net/tun cannot be opened")
    Path(NO_CHECKS).write_text("0", encoding="ascii")
    run("ip link set lo up")


def run(command, **options):
    """Runs a command to its end; what it prints. CalledProcessError if it fails."""
    words = command.split() if isinstance(command, str) else [str(word) for word in command]
    return subprocess.run(words, stdout=subprocess.PIPE, text=True, errors="replace", check=True,
                          timeout=PATIENCE_S, **options).stdout


class Outside:
    """Another host: a network namespace, on a cable (`veth`) from `there` in it to `here` in ours."""

    def __init__(self, here="eth0", there="eth0"):
        self.holder = subprocess.Popen(["unshare", "--net", "sleep", "infinity"])
        self.path = f"/proc/{self.holder.pid}/ns/net"
        ours, deadline = os.stat("/proc/self/ns/net").st_ino, time.monotonic() + PATIENCE_S
        while os.stat(self.path).st_ino == ours:
            if time.monotonic() > deadline:
                raise Unavailable("another network namespace does not come about")
            time.sleep(0.01)
        self.run(["sh", "-c", f"echo 0 >{NO_CHECKS}"])
        run(f"ip link add {here} type veth peer name {there} netns {self.holder.pid}")
        run(f"ip link set {here} up")
        self.run("ip link set lo up")
        self.run(f"ip link set {there} up")

    def command(self, command):
        """The command line that runs a command there."""
        words = command.split() if isinstance(command, str) else [str(word) for word in command]
        return ["nsenter", f"--net={self.path}", *words]

    def run(self, command, **options):
        """Runs a command there to its end; what it prints."""
        return run(self.command(command), **options)

    def close(self):
        """Ends it."""
        self.holder.kill()
        self.holder.wait()
