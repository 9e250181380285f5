# SPDX-License-Identifier: BSD-2-Clause
"""What tests of `strake mount` share: images, made and checked by a guest that has the programs for it; trees of
files and what they are like; a host to mount on."""

import fcntl
import hashlib
import os
import random
import stat
import struct
import subprocess
from pathlib import Path

from lib import agent, hfsplus, leverage
from lib.harness import PROJECT, Failed, Skipped, check, need
import vm

APPLIANCES = PROJECT / "build" / "appliance"
DISKS = 5  # that fit into a guest's slots
PASSPHRASE = b"a long passphrase\n"
MIB = 1 << 20
F_OFD_SETLK = 37  # of linux/fcntl.h


def needed():
    """Skips a test that cannot be run here."""
    need(APPLIANCES / "mount" / "Image", APPLIANCES / "mount-tools" / "Image")
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR))
    except OSError as error:
        raise Skipped(f"/dev/fuse cannot be opened: {error.strerror}") from error


def host(test):
    """A host, with a supervisor."""
    needed()
    leverage.enter_host(need_root=True)
    return leverage.Host(test)


# ---- Images

class Tools:
    """A guest that makes and checks the file systems of up to DISKS images."""

    def __init__(self, test, images):
        folder = APPLIANCES / "mount-tools"
        path = test.folder / f"tools-{len(test.guests)}"
        self.images = images
        self.guest = test.start(vm.Machine(kernel=folder / "Image", initrd=folder / "initrd", memory="1G",
                                           disks=images, vsock=f"3,{path}"))
        self.agent = agent.wait(path)

    def request(self, verb, image, encrypted=False, **values):
        """Asks for something to be done with an image."""
        try:
            return self.agent.request(verb, PASSPHRASE.rstrip() if encrypted else b"",
                                      disk=self.images.index(image), **values)
        except agent.AgentError as error:
            raise Failed(f"{verb} {image}: {error}") from error

    def close(self):
        """Ends it: what it has written is in the images."""
        self.agent.close()
        self.guest.stop()
        leverage.wait_until(lambda: all(map(is_free, self.images)), "its monitor lets go of the images")


def is_free(image):
    """Whether nobody has locked it."""
    with open(image, "r+b") as file:
        try:
            fcntl.fcntl(file, F_OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 0, 0))
            return True
        except OSError:
            return False


def blank(path, size=400 * MIB):
    """An image with nothing in it."""
    with open(path, "wb") as file:
        file.truncate(size)
    return path


def each_with_tools(test, images, work):
    """Does work(tools, image) for all images, as few guests as possible at a time."""
    for first in range(0, len(images), DISKS):
        some = images[first:first + DISKS]
        tools = Tools(test, some)
        for image in some:
            work(tools, image)
        tools.close()


def make(test, folder, types):
    """Images by their types; `luks-` in front of one: encrypted."""
    images = {kind: blank(folder / f"{kind}.img") for kind in types}
    kinds = {image: kind for kind, image in images.items()}

    def make_one(tools, image):
        kind = kinds[image]
        tools.request("make", image, encrypted=kind.startswith("luks-"), type=kind.removeprefix("luks-"))

    if "hfsplus" in images:
        hfsplus.make(images["hfsplus"], 400 * MIB)
    each_with_tools(test, [image for kind, image in images.items() if kind != "hfsplus"], make_one)
    return images


def check_all(test, images):
    """Has each looked at by its file system's own program; ours for HFS+, and for nilfs2 the one that shows its
    state: there is none that looks at everything."""
    kinds = {image: kind for kind, image in images.items()}

    def check_one(tools, image):
        tools.request("check", image, encrypted=kinds[image].startswith("luks-"))
        check(True, f"{kinds[image]}: its own program finds nothing wrong")

    if "hfsplus" in images:
        files, folders = hfsplus.Volume(images["hfsplus"]).check()
        check(True, f"hfsplus: {files} files and {folders} folders, as its catalog and bitmap have it")
    each_with_tools(test, [image for kind, image in images.items() if kind != "hfsplus"], check_one)


def with_partitions(path, parts):
    """An image with a table of partitions (MBR), each with what a file has."""
    table, start = bytearray(512), 2048
    table[510:] = b"\x55\xaa"
    with open(path, "wb") as file:
        for index, part in enumerate(parts):
            content = Path(part).read_bytes() if part else bytes(MIB)
            sectors = -(-len(content) // 512)
            entry = bytes([0, 0, 0, 0, 0x83, 0, 0, 0]) + start.to_bytes(4, "little") + sectors.to_bytes(4, "little")
            table[446 + 16 * index:462 + 16 * index] = entry
            file.seek(start * 512)
            file.write(content)
            start += -(-sectors // 2048) * 2048
        file.truncate(start * 512)
        file.seek(0)
        file.write(table)
    return path


# ---- Trees

def plant(folder, files, seed=1, special=True):
    """A tree of so many files, small ones mostly."""
    source = random.Random(seed)
    made = 0
    while made < files:
        place = folder / f"folder {made // 1000}" / f"{made // 100:03}"
        place.mkdir(parents=True)
        for number in range(min(100, files - made)):
            path = place / f"file-{number}"
            path.write_bytes(source.randbytes(source.choice((0, 1, 100, 1000, 4096, 4097, 9000))))
            os.utime(path, ns=(10 ** 18 + made * 10 ** 9, 10 ** 18 + made * 10 ** 9 + number * 1000))
        made += 100
    (folder / "large").write_bytes(source.randbytes(5 * MIB + 11))
    (folder / "Name \u00e4\u00f6\u00fc \u4f60").write_bytes(b"a name")
    os.symlink("folder 0/000/file-1", folder / "link")
    if special:
        os.symlink("nowhere", folder / "dangling")
        os.chown(folder / "large", 1000, 1001)
        os.chmod(folder / "large", 0o640)
        os.link(folder / "large", folder / "same")
        os.mkfifo(folder / "fifo")
        os.chown(folder / "dangling", 12, 13, follow_symlinks=False)


def manifest(folder, exact=True, resolution=1):
    """What a tree is like: {name: all that is to be the same}. Not exact: names and contents."""
    found = {}
    for parent, folders, files in os.walk(folder):
        for name in folders + files:
            path = Path(parent, name)
            st = path.lstat()
            entry = [stat.S_IFMT(st.st_mode)]
            if stat.S_ISREG(st.st_mode):
                entry += [st.st_size, hashlib.sha256(path.read_bytes()).hexdigest()]
            if stat.S_ISLNK(st.st_mode):
                entry += [os.readlink(path)]
            if exact:
                entry += [st.st_mode, st.st_uid, st.st_gid, st.st_nlink if not path.is_dir() else 0]
            if exact and stat.S_ISREG(st.st_mode):
                entry += [st.st_mtime_ns // resolution * resolution]
            found[str(path.relative_to(folder))] = entry
    return found


def check_same(one, other, what):
    """Two manifests, of which the second may have what file systems put there themselves."""
    wrong = [f"{name}: {entry} {other.get(name)}" for name, entry in one.items() if other.get(name) != entry]
    more = [name for name in other if name not in one]
    if wrong or more:
        raise Failed(f"not so: {what}: {wrong[:5]} {more[:5]} ({len(wrong)}, {len(more)})")
    check(True, what)


def copy(source, target, exact=True):
    """Copies a tree by cp."""
    done = subprocess.run(["cp", "-a" if exact else "-r", f"{source}/.", target], capture_output=True, text=True,
                          check=False)
    if done.returncode != 0:
        raise Failed(f"cp: {done.stderr[-500:]}")
