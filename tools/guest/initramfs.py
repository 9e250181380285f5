#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Builds build/guest/initramfs.cpio: busybox, the kernel modules that Strake's devices need, and
guest/ (the init script and small programs of ours, cross-compiled)."""

import os
import re
import subprocess
import sys
from pathlib import Path

import cpio
import fetch
import modules

PROJECT = Path(__file__).resolve().parents[2]
SOURCES = PROJECT / "guest"
OUTPUT = fetch.GUEST / "initramfs.cpio"
COMPILER = "riscv64-linux-gnu-gcc"

# What Debian's kernel has as modules, of what a partition's devices and the tests want.
MODULES = ["virtio_mmio", "virtio_blk", "virtio_net", "virtio_rng", "vsock",
           "vmw_vsock_virtio_transport", "vsock_loopback", "virtio_input", "evdev", "ext4",
           "crc32c_generic"]


def build(output=OUTPUT):
    """Makes the initramfs anew if something it is made of is newer; returns its path."""
    inputs = [fetch.GUEST / "base" / "versions", *SOURCES.rglob("*"),
              *Path(__file__).parent.glob("*.py")]
    if output.exists() and output.stat().st_mtime > max(path.stat().st_mtime for path in inputs):
        return output
    tree = base_tree(fetch.GUEST / "base")
    for source in sorted(SOURCES.glob("*.c")):
        tree.file(f"usr/bin/{source.stem}", compile_static(source), 0o755)
    tree.file("usr/bin/strake-update", updater(), 0o755)
    write_atomically(output, tree.archive())
    print(f"guest: {output.relative_to(PROJECT)} is built "
          f"({output.stat().st_size / (1 << 20):.1f} MiB)", flush=True)
    return output


def base_tree(base):
    """Busybox, /init, the modules, and the few files and folders that Linux programs expect."""
    tree = cpio.Tree()
    for name in ("dev", "proc", "sys", "run", "mnt", "root", "usr/bin", "usr/sbin"):
        tree.folder(name)
    tree.folder("tmp", 0o1777)
    for name in ("bin", "sbin", "lib"):
        tree.folder(f"usr/{name}")
        tree.link(name, f"usr/{name}")
    tree.character_device("dev/console", 5, 1)
    tree.host_file("usr/bin/busybox", base / "busybox", 0o755)
    tree.link("usr/bin/sh", "busybox")
    tree.host_file("init", SOURCES / "init", 0o755)
    tree.host_file("etc/profile", SOURCES / "profile", 0o644)
    tree.host_file("etc/udhcpc.sh", SOURCES / "udhcpc.sh", 0o755)
    tree.host_file("etc/acpi/PWRF/00000080", SOURCES / "power", 0o755)
    tree.file("etc/passwd", "root::0:0:root:/root:/bin/sh\n")
    tree.file("etc/group", "root:x:0:\n")
    tree.file("etc/filesystems", "ext4\n")  # what mount tries when it is not told
    tree.file("etc/hosts", "127.0.0.1 localhost\n")
    release, = (base / "modules").iterdir()
    modules.install(tree, f"usr/lib/modules/{release.name}", modules.collect(release, MODULES))
    return tree


def version():
    """Of the project."""
    meson = (PROJECT / "meson.build").read_text(encoding="utf-8")
    return re.search(r"version: '([^']+)'", meson).group(1)


def updater(named=None):
    """strake-update, as bytes; named: the version that it says it has."""
    return compile_static(SOURCES / "update", "-D_GNU_SOURCE", f'-DSTRAKE_VERSION="{named or version()}"')


def compile_static(source, *options):
    """A program for the guest, as bytes: of one file, or of all in a folder."""
    output = fetch.GUEST / "programs-of-ours" / source.stem
    output.parent.mkdir(parents=True, exist_ok=True)
    files = sorted(source.glob("*.c")) if source.is_dir() else [source]
    subprocess.run([COMPILER, "-std=gnu17", "-O2", "-Wall", "-Wextra", "-Werror", "-static", "-s",
                    "-Wl,--build-id=none", *options, "-o", str(output), *map(str, files)],
                   check=True)
    return output.read_bytes()


def write_atomically(path, content):
    """A reader finds the old file or the whole new one."""
    new = path.with_name(path.name + ".new")
    new.write_bytes(content)
    os.replace(new, path)


def main():
    if not (fetch.GUEST / "base" / "versions").exists():
        sys.exit("initramfs: Debian's kernel is not there yet: run tools/guest/fetch.py first")
    try:
        build()
    except (OSError, ValueError, subprocess.CalledProcessError) as error:
        sys.exit(f"initramfs: {error}")


if __name__ == "__main__":
    main()
