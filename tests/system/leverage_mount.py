#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""strake mount: file systems that this kernel may not know are mounted by a guest's, written to by the host,
checked by their own programs, and read again.

STRAKE_TEST_FILES=N copies so many files into each (as the long test has it, 10,000)."""

import os
import subprocess
import sys
import time

from lib import mounts
from lib.harness import check, main
from lib.leverage import configuration, differences

TYPES = ["f2fs", "nilfs2", "jfs", "ntfs", "btrfs", "luks-ext4", "hfsplus"]
LARGE = "f2fs"  # which is given most files
FILES = int(os.environ.get("STRAKE_TEST_FILES", "0"))
# What cannot keep all that an inode of Unix has, and how exact times are, in ns.
PLAIN = {"ntfs"}
RESOLUTION = {"hfsplus": 10 ** 9}


def options_of(kind, test):
    """Of `strake mount`."""
    if not kind.startswith("luks-"):
        return []
    file = test.folder / "passphrase"
    file.write_bytes(mounts.PASSPHRASE)
    return ["--passphrase-file", file, "--cpus", "1"]


def fill(test, host, kind, image, tree):
    """Mounts, copies a tree, unmounts."""
    folder = test.folder / "mnt"
    began = time.monotonic()
    host.done("mount", *options_of(kind, test), image, folder)
    mounted = time.monotonic()
    mounts.copy(tree, folder, kind not in PLAIN)
    copied = time.monotonic()
    free = os.statvfs(folder)
    check(0 < free.f_bavail < free.f_blocks and free.f_namemax >= 200, f"{kind}: there is space left, and it is told")
    if kind == "luks-ext4":
        semantics(folder)
    host.done("umount", folder)
    print(f"# {kind}: mounted after {mounted - began:.1f} s, copied in {copied - mounted:.1f} s", flush=True)
    check(not os.listdir(folder), f"{kind}: written to, and unmounted")


def read(test, host, kind, image, tree):
    """Mounts it read-only, and compares."""
    folder = test.folder / "mnt"
    host.done("mount", "--read-only", *options_of(kind, test), image, folder)
    exact, resolution = kind not in PLAIN, RESOLUTION.get(kind, 1)
    found = mounts.manifest(folder, exact, resolution)
    for name in [name for name in found if name.startswith("lost+found")]:
        del found[name]  # the file system's own
    mounts.check_same(mounts.manifest(tree, exact, resolution), found, f"{kind}: all of it is there again, the same")
    for attempt in (lambda: open(folder / "new", "wb"), lambda: os.unlink(folder / "large"),
                    lambda: os.utime(folder / "large")):
        try:
            attempt()
            check(False, f"{kind}: nothing can be written")
        except OSError as error:
            if error.errno != 30:  # EROFS
                raise
    host.done("umount", folder)
    check(True, f"{kind}: mounted read-only, nothing can be written")


# ---- What programs expect of files

def semantics(folder):
    """On ext4."""
    place = folder / "place"
    place.mkdir()
    for one in (renames, links, attributes, sizes, open_files, owners, folders):
        one(place)
    subprocess.run(["rm", "-r", place], check=True)


def renames(place):
    """Of files and folders, over others."""
    (place / "a").write_bytes(b"one")
    (place / "b").write_bytes(b"two")
    os.rename(place / "a", place / "b")
    check((place / "b").read_bytes() == b"one" and not (place / "a").exists(), "a file replaces another")
    (place / "x" / "y").mkdir(parents=True)
    os.rename(place / "x", place / "z")
    check((place / "z" / "y").is_dir(), "a folder is renamed with what is in it")


def links(place):
    """Hard and symbolic ones."""
    (place / "file").write_bytes(b"content")
    os.link(place / "file", place / "other")
    check((place / "file").stat().st_nlink == 2 and (place / "file").stat().st_ino == (place / "other").stat().st_ino,
          "a hard link is the same file")
    os.unlink(place / "file")
    check((place / "other").stat().st_nlink == 1, "and counts as one again")
    os.symlink("other", place / "to")
    os.utime(place / "to", ns=(5, 7), follow_symlinks=False)
    check(os.lstat(place / "to").st_mtime_ns == 7 and (place / "to").read_bytes() == b"content",
          "a symbolic link has times of its own")


def attributes(place):
    """Extended ones."""
    file = place / "other"
    os.setxattr(file, "user.color", b"green")
    os.setxattr(file, "trusted.depth", bytes(1000))
    check(os.getxattr(file, "user.color") == b"green" and
          sorted(name for name in os.listxattr(file) if "." in name)[-1] == "user.color", "extended attributes are kept")
    os.removexattr(file, "user.color")
    check("user.color" not in os.listxattr(file), "and removed")


def sizes(place):
    """Holes, truncation, allocation, appending."""
    with open(place / "holes", "wb", buffering=0) as file:
        file.seek(100 * mounts.MIB)
        file.write(b"end")
        check(os.fstat(file.fileno()).st_size == 100 * mounts.MIB + 3, "a file has a hole")
        file.truncate(5)
        os.posix_fallocate(file.fileno(), 0, 10000)
        os.fsync(file.fileno())
    check((place / "holes").read_bytes() == bytes(10000), "is truncated and allocated")
    with open(place / "log", "ab") as one, open(place / "log", "ab") as other:
        for file in (one, other, one):
            file.write(b"line\n")
            file.flush()
    check((place / "log").read_bytes() == b"line\n" * 3, "two append to a file")


def open_files(place):
    """That have no name any more, and such as are created read-only."""
    with open(place / "gone", "w+b") as file:
        os.unlink(place / "gone")
        file.write(b"still here")
        file.flush()
        os.fsync(file.fileno())
        file.seek(0)
        check(file.read() == b"still here", "a file without a name is written and read")
    with open(os.open(place / "fixed", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o444), "wb") as file:
        file.write(b"once")
    check((place / "fixed").stat().st_mode & 0o777 == 0o444, "a file is created that cannot be opened for writing again")


def owners(place):
    """Modes and owners, and that they are heeded."""
    (place / "private").write_bytes(b"secret")
    os.chmod(place / "private", 0o600)
    (place / "shared").mkdir()
    os.chown(place / "shared", -1, 77)
    os.chmod(place / "shared", 0o2777)
    done = subprocess.run(["setpriv", "--reuid=1000", "--regid=1000", "--clear-groups", "sh", "-c",
                           f"cat {place}/private || echo mine >{place}/shared/file"], capture_output=True, check=False)
    made = (place / "shared" / "file").stat()
    check(b"Permission denied" in done.stderr and (made.st_uid, made.st_gid) == (1000, 77),
          "permissions are heeded, owners kept, a folder's group inherited")
    (place / "set-id").write_bytes(b"x")
    os.chown(place / "set-id", 1000, 1000)
    os.chmod(place / "set-id", 0o6777)
    subprocess.run(["setpriv", "--reuid=1001", "--regid=1001", "--clear-groups", "sh", "-c",
                    f"echo y >>{place}/set-id"], check=True)
    check((place / "set-id").stat().st_mode & 0o7777 == 0o777, "who writes to a set-id program gets no rights by it")


def folders(place):
    """A large one, which is read while it is emptied."""
    (place / "many").mkdir()
    for number in range(1500):
        os.symlink("x", place / "many" / f"entry {number}")
    seen = 0
    with os.scandir(place / "many") as entries:
        for entry in entries:
            os.unlink(entry.path)
            seen += 1
    check(seen == 1500 and not os.listdir(place / "many"), "a folder is emptied while it is read")


def mount(test):
    types = TYPES + (["xfs", "ext4"] if FILES else [])
    host = mounts.host(test)
    (test.folder / "mnt").mkdir()
    os.chmod(test.folder, 0o755)  # others look into what is mounted in it
    trees = {kind: test.folder / f"tree-{kind}" for kind in ("large", "small", "plain")}
    for kind, tree in trees.items():
        tree.mkdir()
        mounts.plant(tree, FILES or (10000 if kind == "large" else 150), special=kind != "plain")
    images = mounts.make(test, test.folder, types)
    tree_of = {kind: trees["large" if kind == LARGE else "plain" if kind in PLAIN else "small"] for kind in types}
    before = configuration()
    for kind, image in images.items():
        fill(test, host, kind, image, tree_of[kind])
    mounts.check_all(test, images)
    for kind, image in images.items():
        read(test, host, kind, image, tree_of[kind])
    check(not differences(before, configuration()), "the host's mounts are what they were")
    check(host.done("list", "--quiet") == "" and host.done("leverage", "list", "--quiet") == "",
          "no partition and no interceptor is left")


if __name__ == "__main__":
    sys.exit(main(mount))
