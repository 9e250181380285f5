#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Snapshots: a guest goes on from one as if nothing had been, several at once share its RAM, each has an
identity of its own and is reached from the host, a snapshot that is damaged, or whose disk has changed,
is refused, and another host goes on from one that was moved there."""

import contextlib
import os
import re
import secrets
import shutil
import time
import urllib.request
from pathlib import Path

from lib.daemon import Supervisor, create
from lib.harness import Failed, check, free_port, main, need
import cpio
import initramfs
import vm

MEMORY = "256M"
ORIGIN_CID = 3
IDENTITY = Path(__file__).parent / "guest" / "identity.c"
# A driver reads its device's address when it starts.
NEW_DRIVER = """
d=$(basename $(readlink /sys/class/net/eth0/device)); cd /sys/bus/virtio/drivers/virtio_net
echo $d >unbind; echo $d >bind; cd; ip link set eth0 up
udhcpc -i eth0 -n -q -t 10 -T 1 -s /etc/udhcpc.sh >/dev/null 2>&1 && echo "address again"
""".strip().replace("\n", "; ")
NO_DRIVER = "cd /sys/bus/platform/drivers/vmgenid; echo *.generation >unbind; cd"


def linux(test, supervisor, name, disk):
    """A partition that runs Debian's kernel, with variables in its shell, files in its RAM, and a
    server."""
    tree = cpio.Tree()
    tree.file("usr/bin/identity", initramfs.compile_static(IDENTITY), 0o755)
    create(supervisor, name, {
        "kernel": str(vm.KERNEL), "initrd": str(vm.with_overlay(tree, test.folder / "initrd")),
        "append": "quiet", "memory": MEMORY, "disk": [str(disk)], "net": ["user"],
        "vsock": f"{ORIGIN_CID},{test.folder}/vsock-{name}"})
    supervisor.wait_console(name, vm.PROMPT)
    say(supervisor, name, "n=0; dd if=/dev/urandom of=/x bs=1M count=8 2>/dev/null; "
        "sum=$(md5sum < /x); mkdir /run/www; echo served >/run/www/page; httpd -h /run/www")


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
        with contextlib.suppress(FileNotFoundError):  # it is closed meanwhile
            if os.readlink(link).startswith(f"/memfd:{name} "):
                return link.stat().st_blocks // 2
    raise Failed(f"process {pid} has no memfd {name}")


def snapshot(test):
    need(vm.KERNEL, vm.INITRAMFS)
    supervisor = Supervisor(test)
    disk = test.folder / "disk"
    disk.write_bytes(os.urandom(1 << 20) + bytes(3 << 20))
    linux(test, supervisor, "origin", disk)
    folder = test.folder / "snap"

    answer = supervisor.call("POST", supervisor.path("origin", "/snapshot"), {"path": str(folder)})
    check(sorted(path.name for path in folder.iterdir()) == ["manifest.json", "ram.zst", "state"],
          "a snapshot is a folder of three files")
    packed = (folder / "ram.zst").stat().st_size
    check(packed < 120 << 20, f"RAM of {MEMORY} is packed into {packed >> 20} MiB")
    check(answer["state"] == "running", "the partition runs on")
    check(counts(supervisor, "origin") == 1, "and its guest, too")
    origin = identity(supervisor, "origin")
    check(origin["cid"] == str(ORIGIN_CID), "it has the vsock context id that it was given")
    status, answer = supervisor.api("POST", supervisor.path("origin", "/snapshot"), {"path": str(folder)})
    check(status >= 400 and "File exists" in answer["error"], answer["error"])
    check([path.name for path in test.folder.iterdir() if path.name.startswith("snap.")] == [],
          "and nothing of it is left")

    copies(test, supervisor, folder, disk, origin)
    refusals(test, supervisor, folder, disk)
    elsewhere(test, supervisor, folder, disk)


def restore(test, supervisor, folder, disk, name, cid, **changes):
    """A partition from a snapshot, with a disk and a vsock of its own; the port at which its guest's
    server is to be found."""
    copy, port = test.folder / f"disk-{name}", free_port()
    shutil.copyfile(disk, copy)
    answer = supervisor.call("POST", "/v1/restore", {"path": str(folder), "changes": {
        "name": name, "disk": [str(copy)], "net": [f"user,hostfwd=tcp:127.0.0.1:{port}-:80"],
        "vsock": f"{cid},{test.folder}/vsock-{name}"} | changes})
    check(answer["state"] == "running", f"a copy runs: {answer['name']}")
    return port


def identity(supervisor, name):
    """What the guest has that no other is to have, as far as its drivers tell."""
    text = say(supervisor, name, "echo mac $(cat /sys/class/net/eth0/address); identity cid; "
               "echo random $(head -c 16 /dev/urandom | md5sum)")
    return dict(re.findall(r"^(mac|cid|random) ([0-9a-f:]+)", text, re.MULTILINE))


def check_reached(port, what):
    """The host fetches a page from the guest."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/page", timeout=120) as answer:
        check(answer.read() == b"served\n", what)


def check_identities(supervisor, origin, ports):
    """Copies are told apart, by themselves and from outside."""
    found = {name: identity(supervisor, name) for name in ports}
    print(f"origin: {origin}; {found}")
    everybody = [origin, *found.values()]
    check([one["cid"] for one in found.values()] == ["4", "5"],
          "each copy's driver has the vsock context id that the copy was given")
    check(len({one["random"] for one in everybody}) == 3, "their random numbers differ")
    check(len({one["mac"] for one in everybody}) == 1,
          "a network driver that runs keeps the address that it knows")
    for name, port in ports.items():
        check_reached(port, f"at which the host reaches {name}")
    macs, generations = {origin["mac"]}, set()
    for name, port in ports.items():
        text = say(supervisor, name, NEW_DRIVER)
        check("\naddress again" in text, f"{name}: a driver that starts anew has the network")
        check_reached(port, f"and the host reaches {name}")
        macs.add(identity(supervisor, name)["mac"])
        text = say(supervisor, name, f"{NO_DRIVER}; identity generation")
        generations.add(re.search(r"^generation ([0-9a-f]{32})", text, re.MULTILINE).group(1))
    check(len(macs) == 3, f"their MAC addresses differ then: {sorted(macs)}")
    check(len(generations) == 2, f"so do their VM generation ids: {sorted(generations)}")


def copies(test, supervisor, folder, disk, origin):
    """Several from one."""
    ports = {name: restore(test, supervisor, folder, disk, name, ORIGIN_CID + index)
             for index, name in enumerate(("copy1", "copy2"), 1)}
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
    check_identities(supervisor, origin, ports)
    supervisor.call("POST", supervisor.path("copy2", "/kill"), {})
    check(counts(supervisor, "copy1") == 4, "the end of one copy is nothing to the other")


def refusals(test, supervisor, folder, disk):
    """What is not restored, and why."""
    def refused(path, changes, words):
        changes["vsock"] = f"9,{test.folder}/vsock-copy9"
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


def elsewhere(test, supervisor, folder, disk):
    """Nothing is left of where the snapshot was taken but its folder and the disk."""
    for name in ("origin", "copy1", "copy2"):
        supervisor.done("remove", "--force", name)
    supervisor.end()
    supervisor.stop()
    shutil.rmtree(supervisor.folder)
    host = test.folder / "another-host"
    host.mkdir()
    shutil.copytree(folder, host / "moved")
    shutil.move(disk, host / "disk")
    shutil.rmtree(folder)
    other = Supervisor(test, folder=host / "daemon")
    kernel = host / "Image"
    status, answer = other.api("POST", "/v1/restore", {
        "path": str(host / "moved"), "changes": {"kernel": str(kernel)}})
    check(status == 422 and str(kernel) in answer["error"],
          f"a kernel that is not there is missed: {answer['error']}")
    shutil.copyfile(vm.KERNEL, kernel)
    port = restore(test, other, host / "moved", host / "disk", "moved", ORIGIN_CID, kernel=str(kernel))
    check(other.call("GET", other.path("moved"))["definition"]["kernel"] == str(kernel),
          "its kernel is where it was said to be")
    check([row["name"] for row in other.call("GET", "/v1/partitions")] == ["moved"],
          "another supervisor knows the partition that it has restored, and no other")
    check(counts(other, "moved") == 1, "the guest goes on where the snapshot was taken")
    check_reached(port, "it still serves what it has in its tmpfs")
    say(other, "moved", "dd if=/dev/zero of=/dev/vda bs=4096 count=1 2>/dev/null; sync")
    with open(test.folder / "disk-moved", "rb") as image:
        check(image.read(4096) == bytes(4096), "and writes to the disk that it has there")
    other.call("POST", other.path("moved", "/handover"), {})
    check(counts(other, "moved") == 2, "it is handed over there")


main(snapshot)
