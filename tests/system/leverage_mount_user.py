#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""strake mount by an ordinary user, with a supervisor of their own and fusermount3: what is in the image is theirs,
and nobody else looks into it."""

import os
import shutil
import signal
import stat
import subprocess
import sys

from lib import leverage, mounts
from lib.harness import Skipped, check, main

USER = 1000


class Case:
    """A user with a supervisor, an image, and a folder."""

    def __init__(self, test):
        mounts.needed()
        if not shutil.which("fusermount3"):
            raise Skipped("fusermount3 (package fuse3) is not installed")
        leverage.enter_host(need_root=True)
        os.chmod(test.folder, 0o755)
        self.open_fuse(test.folder / "dev")
        self.host = leverage.Host(test, user=USER)
        self.folder = self.host.folder / "mnt"
        self.image = mounts.blank(self.host.folder / "image", 64 * mounts.MIB)
        subprocess.run(["mke2fs", "-q", "-t", "ext4", "-F", self.image], check=True)
        self.folder.mkdir()
        for path in (self.folder, self.image):
            os.chown(path, USER, USER)
        self.before = leverage.configuration()

    @staticmethod
    def open_fuse(folder):
        """Lets users open /dev/fuse on this host, as udev's rules do where it runs; elsewhere it is root's alone."""
        folder.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", folder], check=True)
        os.mknod(folder / "fuse", stat.S_IFCHR, os.stat("/dev/fuse").st_rdev)
        os.chmod(folder / "fuse", 0o666)
        subprocess.run(["mount", "--bind", folder / "fuse", "/dev/fuse"], check=True)
        subprocess.run(["umount", folder], check=True)

    def run(self, script):
        """What a script of the user's prints in the folder, with $0 the folder."""
        return subprocess.run(self.host.as_user(["sh", "-c", script, self.folder]), capture_output=True, text=True,
                              check=True).stdout.strip()

    def is_gone(self):
        """Nothing is left."""
        leverage.wait_until(lambda: self.host.done("leverage", "list", "--quiet") == "", "the interceptor is gone")
        leverage.wait_until(lambda: self.host.done("list", "--quiet") == "", "its partition is gone")
        leverage.check_same(self.before, "the host is as it was")


def used(case):
    """Written to and read by the user, and by nobody else."""
    case.host.done("mount", case.image, case.folder)
    owner = case.run("echo content >$0/file && mkdir $0/folder && rmdir $0/lost+found && stat -c %u $0/file")
    check(owner == str(USER), "a user mounts an image, in which all may be done, and what is new is the user's")
    try:
        os.listdir(case.folder)
        check(False, "it is the user's alone")
    except PermissionError:
        check(True, "it is the user's alone")
    with subprocess.Popen(case.host.as_user(["sh", "-c", "exec 3<$0/file; echo; read line", case.folder]),
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE) as user:
        user.stdout.readline()
        result = case.host.strake("umount", case.folder)
        user.stdin.close()
    check(result.returncode == 1 and "in use" in result.stderr and result.stderr.count("\n") == 1,
          "what is in use is not unmounted")
    case.host.done("umount", case.folder)
    case.is_gone()


def refused(case):
    """What belongs to others."""
    result = case.host.strake("mount", case.image, "/usr")
    check(result.returncode == 1 and "you may write to" in result.stderr, "a folder of others' is not mounted at")
    os.chmod(case.image, 0o600)
    os.chown(case.image, 0, 0)
    result = case.host.strake("mount", case.image, case.folder)
    check(result.returncode == 1 and "Permission denied" in result.stderr, "an image of others' is not mounted")
    os.chown(case.image, USER, USER)
    case.is_gone()
    case.host.call("POST", "/v1/partitions", {"name": "guest", "kernel": str(mounts.APPLIANCES / "mount" / "Image")})
    for kind, keys, needs in (("net", {"device": "lo0"}, "CAP_NET_ADMIN"), ("files", {"path": str(case.folder)}, "CAP_SYS_ADMIN")):
        status, answer = case.host.api("POST", "/v1/interceptors", {"kind": kind, "name": kind, "module": ["guest"],
                                                                    "fail": "open", **keys})
        check(status == 400 and f"needs root ({needs})" in str(answer), f"{kind} is root's: {answer}")
    case.host.done("remove", "guest")
    case.is_gone()


def killed(case):
    """The interceptor's process, whose successor mounts again; the guest."""
    case.host.done("mount", case.image, case.folder)
    name = case.host.done("leverage", "list", "--quiet").strip()
    old = case.host.worker(name)
    os.kill(old, signal.SIGKILL)
    leverage.wait_until(lambda: case.host.interceptor(name)["pid"] not in (old, None), "there is a successor")
    case.host.wait_state(name, "active")
    check(case.run("cat $0/file") == "content", "a process that is killed: its successor mounts again")
    os.kill(case.host.monitor(name), signal.SIGKILL)
    case.is_gone()


def mount_as_user(test):
    case = Case(test)
    for one in (used, refused, killed):
        one(case)


if __name__ == "__main__":
    sys.exit(main(mount_as_user))
