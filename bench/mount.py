# SPDX-License-Identifier: BSD-2-Clause
"""mount: an ext4 image mounted by `strake mount`, beside libguestfs' guestmount, in turns: time from the command to
the mount, large files, small files. Written files are synced; what is read has been unmounted before. Needs root;
make appliance-mount.

guestmount (Debian's libguestfs-tools) has no /dev/kvm either: force_tcg, unless LIBGUESTFS_BACKEND_SETTINGS says
something else. Its appliance has the machine's kernel (or that of SUPERMIN_KERNEL and SUPERMIN_MODULES, supermin(1));
where there is none, as in a container, the one that the machine's apt would install, below build/. When it cannot run
it has no figures, and why is said.

Called by bench/run.py, or by others: rows(options)."""

import contextlib
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import archive
import vm

PEER = Path(__file__).resolve().parent.parent / "build" / "guestmount"
MIB = 1 << 20
IMAGE_MIB = 1024
LARGE_MIB, SMALL_FILES = 256, 2000  # at SCALE=1
PEERS = ("strake", "guestmount")
UNITS = {"mount_time": "s", "mount_write": "MB/s", "mount_read": "MB/s", "mount_create": "files/s",
         "mount_look": "files/s"}


class Failed(subprocess.SubprocessError):
    """A peer cannot run; the text says why."""


def call(words, **options):
    """Runs a command that has to succeed; what it prints."""
    try:
        done = subprocess.run([str(word) for word in words], capture_output=True, text=True, errors="replace",
                              check=False, timeout=600, **options)
    except OSError as error:
        raise Failed(f"{words[0]} cannot be run: {error.strerror}") from error
    if done.returncode != 0:
        said = [line for line in done.stderr.splitlines() if line.strip()] or ["it says nothing"]
        why = next((line for line in said if "error:" in line), said[-1])
        raise Failed(f"{words[0]} fails: {why.strip()}")
    return done.stdout


class Strake:
    """`strake mount`, with a supervisor of its own."""

    def __init__(self, scratch):
        self.socket = scratch / "sock"
        self.process = subprocess.Popen([vm.strake(), "daemon", "--state-dir", scratch / "state", "--socket", self.socket],
                                        stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while subprocess.run([vm.strake(), "list", "--socket", self.socket], check=False,
                             capture_output=True).returncode != 0:
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


def kernel_of_debian(folder):
    """The kernel's package, unpacked in a folder: (kernel, the folder that would be /usr/lib)."""
    machine = call(["dpkg", "--print-architecture"]).strip()
    depends = call(["apt-cache", "depends", "--important", f"linux-image-{machine}"])
    package = re.search(r"Depends: (linux-image-\S+)", depends)
    if not package:
        raise Failed(f"apt knows no linux-image-{machine}")
    print(f"   guestmount: there is no kernel here; fetching {package.group(1)}", flush=True)
    call(["apt-get", "-o", "APT::Sandbox::User=root", "download", package.group(1)], cwd=folder)
    archive.unpack(next(folder.glob("*.deb")), folder)
    call(["depmod", "--basedir", folder, package.group(1).removeprefix("linux-image-")])
    library = next(path.parent for path in (folder / "usr/lib/modules", folder / "lib/modules") if path.is_dir())
    return next((folder / "boot").glob("vmlinuz-*")), library


def appliance_with(folder, environment):
    """libguestfs' appliance, with a kernel that is not this machine's. It takes modules from /lib/modules only: they
    are laid there for the one process that builds it."""
    kernel, library = kernel_of_debian(folder)
    modules = next((library / "modules").iterdir()).name
    mounted = "mount -t overlay -o lowerdir=$0:/usr/lib overlay /usr/lib && exec libguestfs-make-fixed-appliance $1"
    call(["unshare", "--mount", "sh", "-c", mounted, library, folder / "appliance"],
         env={**environment, "SUPERMIN_KERNEL": str(kernel), "SUPERMIN_MODULES": f"/usr/lib/modules/{modules}",
              "LIBGUESTFS_CACHEDIR": str(folder)})
    return folder / "appliance"


def environment_of_guestmount():
    """With what it finds a kernel."""
    version = call(["guestmount", "--version"]).split()[-1]
    environment = {"LIBGUESTFS_BACKEND": "direct", "LIBGUESTFS_BACKEND_SETTINGS": "force_tcg", **os.environ}
    if {"SUPERMIN_KERNEL", "LIBGUESTFS_PATH"} & environment.keys() or list(Path("/boot").glob("vmlinuz-*")):
        return environment
    built = PEER / version
    if not built.exists():
        PEER.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=PEER) as scratch:
            appliance_with(Path(scratch), environment).rename(built)
    return environment | {"LIBGUESTFS_PATH": str(built)}


class Guestmount:
    """libguestfs, whose appliance QEMU runs."""

    def __init__(self, scratch):
        self.pid_file = scratch / "pid"
        if not shutil.which("guestmount"):
            raise Failed("it is not installed (libguestfs-tools)")
        self.environment = environment_of_guestmount()

    def mount(self, image, folder):
        call(["guestmount", "--format=raw", "-a", image, "-m", "/dev/sda", "--rw", "--pid-file", self.pid_file, folder],
             env=self.environment)

    def unmount(self, folder):
        pid = self.pid_file.read_text(encoding="ascii").strip()
        call(["guestunmount", folder])
        deadline = time.monotonic() + 600
        while Path("/proc", pid).exists():  # it writes until then
            if time.monotonic() > deadline:
                raise Failed("it does not end")
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
        ends.callback(lambda: os.path.ismount(folder) and peer.unmount(folder))  # when something has failed
        found = figures(peer, scratch / "image", folder, scale)
    print(f"   {kind.__name__.lower()}: " + ", ".join(f"{name} {found[name]:.2f} {unit}" for name, unit in UNITS.items()),
          flush=True)
    return found


def row(name, unit, strake, guestmount, missing):
    """Medians of runs. ratio: how many times as good Strake is."""
    entry = {"name": name, "strake": round(statistics.median(run[name] for run in strake), 3)}
    if missing:
        return entry | {"missing": f"guestmount: {missing}", "unit": unit}
    entry["guestmount"] = round(statistics.median(run[name] for run in guestmount), 3)
    ratio = entry["strake"] / entry["guestmount"]
    return entry | {"ratio": round(1 / ratio if unit == "s" else ratio, 3), "unit": unit}


def rows(options):
    """[{"name", "strake", "guestmount" and "ratio", or "missing": why it is, "unit"}]."""
    strake, guestmount, missing = [], [], None
    for _ in range(options.runs):
        strake.append(measure(Strake, options.scale))
        if missing:
            continue
        try:
            guestmount.append(measure(Guestmount, options.scale))
        except subprocess.SubprocessError as failure:
            missing = str(failure)
            print(f"   guestmount cannot run here: {missing}", flush=True)
    return [row(name, unit, strake, guestmount, missing) for name, unit in UNITS.items()]


def main(options, output):
    """Measures, prints, and writes build/bench/mount.json."""
    try:
        result = rows(options)
    except subprocess.SubprocessError as error:
        sys.exit(f"bench: {error}")
    for entry in result:
        shown = "".join(f"{entry[peer]:12.2f}" if peer in entry else f"{'-':>12}" for peer in PEERS)
        print(f"{entry['name']:14}{shown}  {entry['unit']}", flush=True)
    output.mkdir(parents=True, exist_ok=True)
    (output / "mount.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
