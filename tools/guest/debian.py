#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Makes Debian 13 for a guest's disk: build/guest/debian.img, an ext4 file system with systemd and apt.

debootstrap's first stage runs here and needs no root, its second one in a guest. Both images are kept: a
guest that is to write gets a copy. Debian's kernel is not on the disk, the initramfs of boot() finds it.
"""

import os
import shlex
import subprocess
import sys

import archive
import cpio
import fetch
import initramfs
import vm

UNPACKED = fetch.GUEST / "debian-first-stage.img"  # nothing is configured yet
DISK = fetch.GUEST / "debian.img"
SIZE = "1536M"
TIMEOUT = 4 * 3600  # seconds for a stage in a guest, on a busy machine

# The root file system's second stage, from the initramfs. Should the machine die meanwhile the image is of
# no use anyway: nothing is flushed until the end.
SECOND_STAGE = """
mount -t ext4 -o nobarrier /dev/vda /mnt || exit 1
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

# Mounts the disk, puts the files of /strake/root on it, and hands over to the init that is there.
HAND_OVER = """
mount -t ext4 /dev/vda /mnt || exit 1
cp -af /strake/root/. /mnt/
/strake/prepare
umount /run
umount /dev/pts
mount --move /dev /mnt/dev
umount /sys
umount /proc
exec switch_root -c /dev/console /mnt /sbin/init
"""

# The same without it: a script runs in the root folder on the disk, below the initramfs.
INSIDE = """
mount -t ext4 /dev/vda /mnt || exit 1
cp -af /strake/root/. /mnt/
cp /strake/inside /mnt/run/inside
mount -t proc proc /mnt/proc
mount -t sysfs sysfs /mnt/sys
mount -t devtmpfs devtmpfs /mnt/dev
export LC_ALL=C HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin
exec chroot /mnt /run/inside
"""


def first_stage():
    """A disk with Debian unpacked on it."""
    if UNPACKED.exists():
        return UNPACKED
    print("guest: unpacking Debian for a guest's disk (once)", flush=True)
    folder, new = fetch.GUEST / "debian.new", UNPACKED.with_suffix(".new")
    downloads = fetch.GUEST / "debian-packages"
    downloads.mkdir(parents=True, exist_ok=True)
    bootstrap = ["debootstrap", "--foreign", "--arch=riscv64", "--variant=minbase",
                 "--include=systemd-sysv,login,udev", f"--keyring={archive.KEYRING}",
                 f"--cache-dir={downloads}", archive.SUITE, str(folder), archive.mirror()]
    make = ["mke2fs", "-q", "-t", "ext4", "-F", "-d", str(folder), str(new), SIZE]
    # One shell: fakeroot remembers owners and devices for as long as it runs.
    steps = [["rm", "-rf", str(folder), str(new)], bootstrap, ["touch", str(new)], make,
             ["rm", "-rf", str(folder)]]
    wrapper = [] if os.geteuid() == 0 else ["fakeroot"]
    environment = {**os.environ, "PATH": os.environ["PATH"] + ":/usr/sbin:/sbin"}
    result = subprocess.run([*wrapper, "sh", "-c", " && ".join(map(shlex.join, steps))],
                            env=environment, text=True, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, check=False)
    if result.returncode != 0:
        raise archive.ArchiveError("cannot unpack Debian: " +
                                   "\n".join(result.stdout.splitlines()[-5:]))
    os.replace(new, UNPACKED)
    return UNPACKED


def copy(image, path):
    """Copies a disk's image, which has more holes than data."""
    subprocess.run(["cp", "--sparse=always", "--reflink=auto", image, path], check=True)
    return path


def second_stage(folder):
    """The disk of first_stage() and an initramfs that configures it, as (disk, initramfs)."""
    return copy(first_stage(), folder / "debian.img"), \
        vm.with_script(SECOND_STAGE, folder / "debian-initrd")


def build():
    """Makes build/guest/debian.img unless it is there; returns it."""
    if DISK.exists():
        return DISK
    folder = fetch.GUEST / "debian-second-stage"
    folder.mkdir(parents=True, exist_ok=True)
    disk, initrd = second_stage(folder)
    print("guest: configuring Debian in a guest (once)", flush=True)
    machine = vm.Machine(initrd=initrd, disks=[disk], memory="1G", cpus=2)
    with vm.Running(machine.strake_command()) as guest:
        status = guest.expect(r"strake: run ended with status (\d+)", TIMEOUT).group(1)
        if status != b"0" or guest.wait(60) != 0:
            raise archive.ArchiveError("cannot configure Debian: " + guest.text()[-2000:])
    os.replace(disk, DISK)
    return DISK


def _with_files(root):
    """What is to be put on the disk, in the initramfs."""
    tree = cpio.Tree()
    tree.folder("strake/root")
    for name, entry in root.entries.items():
        tree.entries[f"strake/root/{name}"] = entry
    return tree


def boot(path, root=None, prepare=""):
    """Writes to `path` an initramfs that boots Debian from /dev/vda. First the files of `root`, a cpio.Tree,
    are put on the disk, and the commands of `prepare` are run, where it is /mnt."""
    tree = _with_files(root or cpio.Tree())
    script = (initramfs.SOURCES / "init").read_text(encoding="utf-8")
    tree.file("init", script[:script.index("option() {")] + HAND_OVER, 0o755)
    tree.file("strake/prepare", "#!/bin/sh\n" + prepare, 0o755)
    return vm.with_overlay(tree, path)


def run(path, root, script):
    """Writes to `path` an initramfs that puts the files of `root` on the disk, and instead of booting runs a
    script in Debian's root folder."""
    tree = _with_files(root)
    tree.file("strake/inside", "#!/bin/bash\n" + script, 0o755)
    tree.file("strake/run", "#!/bin/sh\n" + INSIDE, 0o755)
    return vm.with_overlay(tree, path)


def main():
    try:
        fetch.fetch("base")
        initramfs.build()
        print(f"guest: {build().relative_to(initramfs.PROJECT)} is there")
    except (archive.ArchiveError, OSError, ValueError, vm.Timeout,
            subprocess.CalledProcessError) as error:
        sys.exit(f"debian: {error}")


if __name__ == "__main__":
    main()
