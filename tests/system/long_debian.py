#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Debian 13 on a virtio disk: debootstrap's first stage here, its second stage in the guest; then
the system boots from the disk with its own init, and root logs in."""

import os
import shlex
import shutil
import subprocess
import sys

from lib.harness import PROJECT, TIMEOUT, Skipped, check, main, need
import archive
import cpio
import fetch
import vm

HOURS = 3600
SIZE = "1536M"

# The root file system's second stage, from the initramfs of the tests.
SECOND_STAGE = """
mount -t ext4 /dev/vda /mnt || exit 1
mount -t proc proc /mnt/proc
mount -t sysfs sysfs /mnt/sys
mount -t devtmpfs devtmpfs /mnt/dev
export LC_ALL=C PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root DEBIAN_FRONTEND=noninteractive
chroot /mnt /debootstrap/debootstrap --second-stage || { tail -n 30 /mnt/debootstrap/*.log; exit 1; }
echo "second stage done"
chroot /mnt sh -c "echo root:strake | chpasswd" || exit 1
echo strake >/mnt/etc/hostname
echo "/dev/vda / ext4 rw,noatime 0 1" >/mnt/etc/fstab
umount /mnt/proc /mnt/sys /mnt/dev
umount /mnt
"""

# Mounts the disk and hands over to the init that is on it.
HAND_OVER = """
mount -t ext4 /dev/vda /mnt || exit 1
umount /run
umount /dev/pts
mount --move /dev /mnt/dev
umount /sys
umount /proc
exec switch_root -c /dev/console /mnt /sbin/init
"""


def first_stage(test):
    """A disk with Debian unpacked on it, nothing configured; made once and kept."""
    kept = fetch.GUEST / "debian-first-stage.img"
    if not kept.exists():
        tree, disk = test.folder / "debian", test.folder / "debian.img"
        bootstrap = ["debootstrap", "--foreign", "--arch=riscv64", "--variant=minbase",
                     "--include=systemd-sysv,login,udev", f"--keyring={archive.KEYRING}",
                     archive.SUITE, str(tree), archive.mirror()]
        disk.touch()
        make = ["mke2fs", "-q", "-t", "ext4", "-F", "-d", str(tree), str(disk), SIZE]
        # One shell: fakeroot remembers owners and devices for as long as it runs.
        both = f"{shlex.join(bootstrap)} && {shlex.join(make)}"
        wrapper = [] if os.geteuid() == 0 else ["fakeroot"]
        environment = {**os.environ, "PATH": os.environ["PATH"] + ":/usr/sbin:/sbin"}
        result = subprocess.run([*wrapper, "sh", "-c", both], env=environment, text=True,
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
        print("\n".join(result.stdout.splitlines()[-5:]), flush=True)
        check(result.returncode == 0, "debootstrap's first stage, on the host")
        shutil.move(disk, kept.with_suffix(".new"))
        os.replace(kept.with_suffix(".new"), kept)
    disk = test.folder / "disk"
    shutil.copyfile(kept, disk)
    return disk


def long_debian(test):
    need(vm.KERNEL, vm.INITRAMFS)
    if not shutil.which("debootstrap") and not os.path.exists("/usr/sbin/debootstrap"):
        raise Skipped("debootstrap is missing")
    disk = first_stage(test)

    initrd = vm.with_script(SECOND_STAGE, test.folder / "initrd")
    guest = test.start(vm.Machine(initrd=initrd, disks=[disk], memory="1G", cpus=2))
    guest.expect("second stage done", 4 * HOURS)
    check(True, "debootstrap's second stage, in the guest")
    test.finish(guest)

    guest = test.start(vm.Machine(initrd=hand_over(test), disks=[disk], memory="1G", cpus=2,
                                  append="quiet"))
    guest.expect("strake login: ", 2 * HOURS)
    check(True, "Debian boots from its disk to the login")
    guest.send("root\n")
    guest.expect("Password: ", TIMEOUT)
    guest.send("strake\n")
    guest.expect(r"root@strake:~# ", TIMEOUT)
    status, said = guest.shell("stty cols 500; systemctl is-system-running; cat /etc/debian_version"
                               "; findmnt -no SOURCE /", TIMEOUT)
    check(status == 0 and "13" in said and "/dev/vda" in said, "root logs in: " +
          " ".join(said.split()))
    guest.send("systemctl poweroff\n")
    check(guest.wait(HOURS) == 0, "Debian's power-off ends the monitor with status 0")


def hand_over(test):
    """The initramfs that only finds the disk; /strake/run is run by pid 1 in its own process, so
    this one is an /init."""
    tree = cpio.Tree()
    script = (PROJECT / "guest" / "init").read_text(encoding="utf-8")
    head = script[:script.index("option() {")]
    tree.file("init", head + HAND_OVER, 0o755)
    return vm.with_overlay(tree, test.folder / "hand-over")


if __name__ == "__main__":
    sys.exit(main(long_debian))
