#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Snapshots: a guest goes on from one as if nothing had been, several at once share its RAM, each has an
identity of its own, and a snapshot that is damaged, or whose disk has changed, is refused."""

import os
import re
import secrets
import shutil
import time
from pathlib import Path

from lib.daemon import Supervisor, create
from lib.harness import Failed, check, main, need
import vm

MEMORY = "256M"


def linux(supervisor, name, disk):
    """A partition that runs Debian's kernel, with variables in its shell and a file in its RAM."""
    create(supervisor, name, {"kernel": str(vm.KERNEL), "initrd": str(vm.INITRAMFS), "append": "quiet",
                              "memory": MEMORY, "disk": [str(disk)], "net": ["user"]})
    supervisor.wait_console(name, vm.PROMPT)
    say(supervisor, name, "n=0; dd if=/dev/urandom of=/x bs=1M count=8 2>/dev/null; "
        "sum=$(md5sum < /x)")


def say(supervisor, name, command):
    """Types a command, and returns what the guest writes until it is done."""
    mark = secrets.token_hex(4)
    before = len(supervisor.console(name))
    supervisor.type(name, f"{command}; echo 'done'-{mark}\n".encode())
    supervisor.wait_console(name, f"done-{mark}")
    return supervisor.console(name)[before:]


def counts(supervisor, name):
    """Whether the guest still knows what it knew, and reaches its disk; and how far it has counted."""
    text = say(supervisor, name, "n=$((n + 1)); echo count=$n; [ \"$sum\" = \"$(md5sum < /x)\" ] && "
               "echo same' 'memory; dd if=/dev/vda bs=4096 count=1 2>/dev/null | md5sum")
    check("same memory" in text, f"{name}: its memory is what it was")
    check(len(re.findall(r"[0-9a-f]{32}", text)) == 1, f"{name}: it reads its disk")
    count = int(re.search(r"\ncount=(\d+)", text).group(1))
    print(f"{name} has counted to {count}")
    return count


def memfd_kib(pid, name):
    """What a memfd that a process has holds."""
    for link in Path(f"/proc/{pid}/fd").iterdir():
        if os.readlink(link).startswith(f"/memfd:{name} "):
            return link.stat().st_blocks // 2
    raise Failed(f"process {pid} has no memfd {name}")


def snapshot(test):
    need(vm.KERNEL, vm.INITRAMFS)
    supervisor = Supervisor(test)
    disk = test.folder / "disk"
    disk.write_bytes(os.urandom(1 << 20) + bytes(3 << 20))
    linux(supervisor, "origin", disk)
    folder = test.folder / "snap"

    answer = supervisor.call("POST", supervisor.path("origin", "/snapshot"), {"path": str(folder)})
    check(sorted(path.name for path in folder.iterdir()) == ["manifest.json", "ram.zst", "state"],
          "a snapshot is a folder of three files")
    packed = (folder / "ram.zst").stat().st_size
    check(packed < 120 << 20, f"RAM of {MEMORY} is packed into {packed >> 20} MiB")
    check(answer["state"] == "running", "the partition runs on")
    check(counts(supervisor, "origin") == 1, "and its guest, too")
    status, answer = supervisor.api("POST", supervisor.path("origin", "/snapshot"), {"path": str(folder)})
    check(status >= 400 and "File exists" in answer["error"], answer["error"])
    check([path.name for path in test.folder.iterdir() if path.name.startswith("snap.")] == [],
          "and nothing of it is left")

    copies(test, supervisor, folder, disk)
    refusals(test, supervisor, folder, disk)


def copies(test, supervisor, folder, disk):
    """Several from one."""
    for index in (1, 2):
        copy = test.folder / f"disk{index}"
        shutil.copyfile(disk, copy)
        answer = supervisor.call("POST", "/v1/restore", {
            "path": str(folder), "changes": {"name": f"copy{index}", "disk": [str(copy)]}})
        check(answer["state"] == "running", f"a copy runs: {answer['name']}")
    time.sleep(1)
    for name in ("copy1", "copy2"):
        check(counts(supervisor, name) == 1, f"{name} goes on where the snapshot was taken")
    check(counts(supervisor, "copy1") == 2, "what one does is nothing to the others")
    for name in ("copy1", "copy2"):
        pid = supervisor.show(name)["pid"]
        own, shared = memfd_kib(pid, "strake-ram"), memfd_kib(pid, "strake-snapshot")
        check(own < shared * 3 // 4, f"{name} has {own} KiB for itself, of {shared} KiB it shares")
    supervisor.call("POST", supervisor.path("copy1", "/handover"), {})
    check(counts(supervisor, "copy1") == 3, "a copy is handed over to another monitor")
    own = memfd_kib(supervisor.show("copy1")["pid"], "strake-ram")
    check(own < shared * 3 // 4, f"and still shares: it has {own} KiB for itself")
    text = say(supervisor, "copy1", "dmesg | grep -c 'reseeded due to virtual machine fork'")
    check("\n1\r" in text, "a copy's kernel knows that it is one")
    supervisor.call("POST", supervisor.path("copy2", "/kill"), {})
    check(counts(supervisor, "copy1") == 4, "the end of one copy is nothing to the other")


def refusals(test, supervisor, folder, disk):
    """What is not restored, and why."""
    def refused(path, changes, words):
        status, answer = supervisor.api("POST", "/v1/restore", {"path": str(path), "changes": changes})
        check(status >= 400 and words in answer["error"], f"refused: {answer['error']}")
        check("copy9" not in [row["name"] for row in supervisor.call("GET", "/v1/partitions")],
              "and no partition is left of it")

    changed = test.folder / "changed"
    changed.write_bytes(disk.read_bytes()[:-1] + b"x")
    refused(folder, {"name": "copy9", "disk": [str(changed)]}, "has changed since the snapshot")
    refused(test.folder / "nowhere", {"name": "copy9"}, "No such file")
    refused(folder, {"name": "origin", "disk": [str(changed)]}, "there is a partition")
    for name, position in (("ram.zst", 5000), ("state", 200), ("manifest.json", 10)):
        broken = test.folder / "broken"
        shutil.rmtree(broken, ignore_errors=True)
        shutil.copytree(folder, broken)
        data = bytearray((broken / name).read_bytes())
        data[position] ^= 0x40
        (broken / name).write_bytes(data)
        fresh = test.folder / "fresh"
        shutil.copyfile(disk, fresh)
        refused(broken, {"name": "copy9", "disk": [str(fresh)]}, "")
        print(f"({name} with a flipped bit)")
        (broken / name).write_bytes((folder / name).read_bytes()[:position])
        refused(broken, {"name": "copy9", "disk": [str(fresh)]}, "")
        print(f"({name} truncated)")


main(snapshot)
