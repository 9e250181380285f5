# SPDX-License-Identifier: BSD-2-Clause
"""mount: an ext4 image mounted by `strake mount`, beside libguestfs' guestmount, in turns: time from the command to
the mount, large files, small files. Written files are synced; what is read has been unmounted before. When guestmount
cannot run here it has no figures, and why is said. Needs root; make appliance-mount. guestmount needs a kernel
that can be read: SUPERMIN_KERNEL and SUPERMIN_MODULES name one (supermin(1)).

Called by bench/run.py, or by others: rows(options)."""

import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import vm

MIB = 1 << 20
IMAGE_MIB = 1024
LARGE_MIB, SMALL_FILES = 256, 2000  # at SCALE=1
PEERS = ("strake", "guestmount")
UNITS = {"mount_time": "s", "mount_write": "MB/s", "mount_read": "MB/s", "mount_create": "files/s",
         "mount_look": "files/s"}


class Failed(Exception):
    """A peer cannot run; the text says why."""


def call(words, **options):
    """Runs a command that has to succeed."""
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, errors="replace", check=False,
                          timeout=600, **options)
    if done.returncode != 0:
        raise Failed((done.stderr.strip().splitlines() or ["it fails"])[-1])


class Strake:
    """`strake mount`, with a supervisor of its own."""

    def __init__(self, scratch):
        self.socket = scratch / "sock"
        self.process = subprocess.Popen([vm.strake(), "daemon", "--state-dir", scratch / "state", "--socket", self.socket],
                                        stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while not self.socket.exists():
            if time.monotonic() > deadline:
                raise Failed("the supervisor does not start")
            time.sleep(0.01)

    def mount(self, image, folder):
        call([vm.strake(), "mount", "--socket", self.socket, image, folder])

    def unmount(self, folder):
        call([vm.strake(), "umount", "--socket", self.socket, folder])

    def close(self):
        self.process.terminate()
        self.process.wait()


class Guestmount:
    """libguestfs, whose appliance QEMU runs."""

    def __init__(self, scratch):
        self.pid_file = scratch / "pid"
        if not shutil.which("guestmount"):
            raise Failed("guestmount (libguestfs-tools) is not installed")

    def mount(self, image, folder):
        call(["guestmount", "--format=raw", "-a", image, "-m", "/dev/sda", "--rw", "--pid-file", self.pid_file, folder],
             env={**os.environ, "LIBGUESTFS_BACKEND": "direct"})

    def unmount(self, folder):
        pid = self.pid_file.read_text(encoding="ascii").strip()
        call(["guestunmount", folder])
        while Path("/proc", pid).exists():  # it writes until then
            time.sleep(0.01)

    def close(self):
        pass


def rate(amount, work):
    """How much a second."""
    began = time.monotonic()
    work()
    return amount / (time.monotonic() - began)


def write_large(path, mib):
    chunk = os.urandom(MIB)
    with open(path, "wb", buffering=0) as file:
        for _ in range(mib):
            file.write(chunk)
        os.fsync(file.fileno())


def read_large(path):
    with open(path, "rb", buffering=0) as file:
        while file.read(MIB):
            pass


def create_small(folder, count):
    content = os.urandom(4096)
    for number in range(count):
        place = folder / f"{number // 100}"
        if number % 100 == 0:
            place.mkdir()
        (place / f"file-{number}").write_bytes(content)
    fd = os.open(folder, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)


def look_at_small(folder):
    for parent, _, files in os.walk(folder):
        for name in files:
            Path(parent, name).read_bytes()


def figures(peer, image, folder, scale):
    """{name: figure} of one run on a fresh image."""
    mib, count = max(1, int(LARGE_MIB * scale)), max(100, int(SMALL_FILES * scale))
    image.unlink(missing_ok=True)
    with open(image, "wb") as file:
        file.truncate(IMAGE_MIB * MIB)
    call(["mke2fs", "-q", "-t", "ext4", "-F", image])
    began = time.monotonic()
    peer.mount(image, folder)
    found = {"mount_time": time.monotonic() - began}
    found["mount_write"] = rate(mib * MIB / 1e6, lambda: write_large(folder / "large", mib))
    (folder / "small").mkdir()
    found["mount_create"] = rate(count, lambda: create_small(folder / "small", count))
    peer.unmount(folder)
    peer.mount(image, folder)
    found["mount_read"] = rate(mib * MIB / 1e6, lambda: read_large(folder / "large"))
    found["mount_look"] = rate(count, lambda: look_at_small(folder / "small"))
    peer.unmount(folder)
    return found


def measure(kind, scale):
    """One run of a peer, in a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="strake-bench-") as scratch, contextlib.ExitStack() as ends:
        scratch = Path(scratch)
        folder = scratch / "mnt"
        folder.mkdir()
        peer = kind(scratch)
        ends.callback(peer.close)
        return figures(peer, scratch / "image", folder, scale)


def rows(options):
    """[{"name", "strake", "guestmount", "ratio", "unit"}]; ratio: how many times as good Strake is."""
    taken, missing = {peer: [] for peer in PEERS}, {}
    for _ in range(options.runs):
        for name, kind in zip(PEERS, (Strake, Guestmount)):
            if name in missing:
                continue
            try:
                taken[name].append(measure(kind, options.scale))
            except Failed as failure:
                if name == "strake":
                    sys.exit(f"bench: strake mount: {failure}")
                missing[name] = str(failure)
                print(f"   {name} cannot run here: {failure}", flush=True)
    result = []
    for name, unit in UNITS.items():
        row = {"name": name, "unit": unit}
        for peer in PEERS:
            row[peer] = statistics.median(run[name] for run in taken[peer]) if peer not in missing else None
        if all(row[peer] for peer in PEERS):
            row["ratio"] = row["strake"] / row["guestmount"]
            if unit == "s":
                row["ratio"] = 1 / row["ratio"]
        result.append(row)
    return result


def main(options, output):
    """Measures, prints, and writes build/bench/mount.json."""
    result = rows(options)
    for row in result:
        shown = "".join(f"{row[peer]:12.2f}" if row[peer] else f"{'-':>12}" for peer in PEERS)
        print(f"{row['name']:14}{shown}  {row['unit']}", flush=True)
    output.mkdir(parents=True, exist_ok=True)
    (output / "mount.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
