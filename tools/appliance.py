#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Builds appliances: guests that do one thing for the host. build/appliance/NAME/{Image,initrd,versions}

usage: appliance.py [--update] NAME...

tools/appliances/NAME.toml says what is in one (docs/appliances.md): Debian 13's kernel, busybox and packages,
unpacked and not configured, and files of guest/leverage/. One is built when something that it is made of has
changed. The same packages and files give the same bytes. The network is needed only for packages that are
not there yet; --update asks Debian for newer ones.
"""

import argparse
import fcntl
import fnmatch
import hashlib
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

TOOLS = Path(__file__).resolve().parent
sys.path.insert(0, str(TOOLS / "guest"))

import archive  # pylint: disable=wrong-import-position
import cpio  # pylint: disable=wrong-import-position
import fetch  # pylint: disable=wrong-import-position
import initramfs  # pylint: disable=wrong-import-position
import modules  # pylint: disable=wrong-import-position

TABLES = TOOLS / "appliances"
SOURCES = initramfs.SOURCES / "leverage"
OUTPUT = fetch.GUEST.parent / "appliance"
BASE = fetch.GUEST / "base"
LISTS = ("packages", "without", "omit", "load", "modules")
TABLES_OF = ("files", "programs", "links", "users")
# Of Debian's packages, what no appliance needs.
OMIT = ["usr/share/doc/*", "usr/share/man/*", "usr/share/locale/*", "usr/share/info/*",
        "usr/share/lintian/*", "usr/share/bash-completion/*", "usr/share/i18n/*", "usr/include/*",
        "usr/lib/systemd/*", "usr/lib/tmpfiles.d/*", "usr/lib/riscv64-linux-gnu/gconv/*", "etc/init.d/*"]


def read_table(name, known=None):
    """An appliance's table, with those that it includes. What is listed adds up; a file, a link or a user
    that is named again is the later one."""
    path = TABLES / f"{name}.toml"
    if not path.exists():
        there = sorted(entry.stem for entry in TABLES.glob("*.toml") if entry.stem != "common")
        raise ValueError(f"there is no appliance '{name}'; there are: {', '.join(there)}")
    table = tomllib.loads(path.read_text(encoding="utf-8"))
    whole = known or {**{key: [] for key in LISTS}, **{key: {} for key in TABLES_OF}}
    for other in ([] if known else ["common"]) + table.pop("include", []):
        read_table(other, whole)
    for key, value in table.items():
        if key in LISTS:
            whole[key] += [entry for entry in value if entry not in whole[key]]
        elif key in TABLES_OF:
            whole[key].update(value)
        else:
            raise ValueError(f"'{path}' has '{key}', which means nothing")
    return whole


def inputs(table):
    """A digest of all that an appliance is made of, but for the packages that its table asks for."""
    digest = hashlib.sha256(repr(sorted(table.items())).encode())
    paths = [Path(__file__), BASE / "versions", *(TOOLS / "guest").glob("*.py"), *initramfs.SOURCES.glob("*.h")]
    for source in [*table["files"].values(), *table["programs"].values()]:
        path = SOURCES / source
        paths += path.rglob("*") if path.is_dir() else [path]
    for path in sorted(paths):
        if path.is_file():
            digest.update(f"{path.name} {path.stat().st_mode & 0o111} ".encode() + path.read_bytes())
    return digest.hexdigest()


def packages_of(table, update):
    """[(package, version, path of the .deb)]. apt is asked once for each choice of packages; what it said is
    kept beside them."""
    if not table["packages"]:
        return []
    folder = fetch.GUEST / "packages"
    wanted = repr((sorted(table["packages"]), sorted(table["without"])))
    chosen = folder / f"{hashlib.sha256(wanted.encode()).hexdigest()[:16]}.json"
    if chosen.exists() and not update:
        found = [(name, version, folder / file) for name, version, file in
                 json.loads(chosen.read_text(encoding="utf-8"))]
        if all(path.exists() for _, _, path in found):
            return found
    found = download(table, folder, update)
    initramfs.write_atomically(chosen, json.dumps(
        [(name, version, path.name) for name, version, path in found]).encode())
    return found


def download(table, folder, update):
    """The packages of a table, as apt's lists have them; fresh lists only if that does not do."""
    apt = archive.Archive(fetch.GUEST / "apt")
    fresh = update or not any((apt.folder / "state/lists").glob("*_Packages*"))
    if fresh:
        apt.update()
    try:
        return select(apt, table, folder)
    except archive.ArchiveError:
        if fresh:
            raise
        apt.update()  # what the old ones name is no longer there
        return select(apt, table, folder)


def select(apt, table, folder):
    """The packages of a table and all they depend on, but for those that it does without."""
    names = [name for name in apt.closure(table["packages"])
             if not any(fnmatch.fnmatch(name, pattern) for pattern in table["without"])]
    return apt.download(names, folder)


def add_packages(tree, packages, omit):
    """Adds the files of packages, unpacked. All programs are in usr/, as Debian has it."""
    with tempfile.TemporaryDirectory(prefix="strake-appliance-") as scratch:
        for _, _, path in packages:
            archive.unpack(path, scratch)
        every = cpio.Tree()
        every.host_folder("", scratch)
        for name, entry in every.entries.items():
            name = in_usr(name)
            if name not in ("bin", "sbin", "lib") and not any(fnmatch.fnmatch(name, pattern) for pattern in omit):
                tree.entries[name] = entry
        check_libraries(Path(scratch), tree)


def in_usr(name):
    """Where Debian has what is in a folder of the root that is a link now."""
    return re.sub(r"^(s?bin|lib)/", r"usr/\1/", name)


def target_of(name, target):
    """What a link of a tree names, as an entry's name."""
    return in_usr(os.path.normpath(os.path.join("/", os.path.dirname(name), target)).lstrip("/"))


def check_libraries(folder, tree):
    """Refuses programs whose libraries are not there: `without` and `omit` may have taken too much."""
    there = {name.rpartition("/")[2] for name, (mode, data, _) in tree.entries.items()
             if not stat.S_ISLNK(mode) or target_of(name, data.decode()) in tree.entries}
    for name, (_, data, _) in tree.entries.items():
        path = folder / name
        if not data.startswith(b"\x7fELF") or not path.is_file():
            continue
        dump = subprocess.run(["riscv64-linux-gnu-objdump", "-p", path], check=True, capture_output=True,
                              text=True).stdout
        for library in re.findall(r"^\s+NEEDED\s+(\S+)", dump, re.MULTILINE):
            if library not in there:
                raise ValueError(f"'{name}' needs the library '{library}', which no package brings")


def add_ours(tree, table):
    """Our own files, over the packages'."""
    for target, source in table["files"].items():
        path = SOURCES / source
        if path.is_dir():
            tree.host_folder(target, path)
        else:
            tree.host_file(target, path, 0o755 if os.access(path, os.X_OK) else 0o644)
    for target, source in table["programs"].items():
        tree.file(target, initramfs.compile_static(SOURCES / source, "-D_GNU_SOURCE"), 0o755)
    for target, source in table["links"].items():
        tree.link(target, source)


def make_tree(name, table, packages):
    """The appliance's initial file system, which is all it has."""
    tree = cpio.Tree()
    for folder in ("dev", "proc", "sys", "run", "mnt", "root", "var/lib", "var/log",
                   "usr/lib/strake/run", "usr/lib/strake/verb"):
        tree.folder(folder)
    tree.folder("tmp", 0o1777)
    tree.link("var/run", "/run")
    for folder in ("bin", "sbin", "lib"):
        tree.folder(f"usr/{folder}")
        tree.link(folder, f"usr/{folder}")
    tree.character_device("dev/console", 5, 1)
    add_packages(tree, packages, OMIT + table["omit"])
    tree.host_file("usr/bin/busybox", BASE / "busybox", 0o755)
    tree.link("usr/bin/sh", "busybox")
    users = {"root": 0, "nobody": 65534, **table["users"]}
    tree.file("etc/passwd", "".join(f"{user}:x:{number}:{number}::/{'root' if number == 0 else ''}:"
                                    f"/bin/{'sh' if number == 0 else 'false'}\n"
                                    for user, number in users.items()))
    tree.file("etc/group", "".join(f"{user}:x:{number}:\n" for user, number in users.items()))
    tree.file("etc/hostname", f"{name}\n")
    tree.file("etc/hosts", "127.0.0.1 localhost\n::1 localhost\n")
    tree.file("etc/strake/modules", " ".join(table["load"]) + "\n")
    release, = (BASE / "modules").iterdir()
    found = modules.collect(release, ["virtio_mmio", *table["load"], *table["modules"]])
    modules.strip(found)
    modules.install(tree, f"usr/lib/modules/{release.name}", found)
    add_ours(tree, table)
    return tree


def build(name, update=False):
    """Makes build/appliance/NAME unless it is there as it would be made; returns it."""
    table = read_table(name)
    fetch.fetch("base", update)
    folder = OUTPUT / name
    stamp = f"inputs {inputs(table)}\n"
    versions = folder / "versions"
    if not update and versions.exists() and versions.read_text(encoding="utf-8").endswith(stamp):
        return folder
    packages = packages_of(table, update)
    print(f"appliance: {name} is made of {len(packages)} packages "
          f"({sum(path.stat().st_size for _, _, path in packages) / (1 << 20):.1f} MiB)", flush=True)
    new = OUTPUT / f"{name}.new"
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    (new / "initrd").write_bytes(make_tree(name, table, packages).archive())
    try:
        os.link(BASE / "Image", new / "Image")
    except OSError:  # a file system without hard links
        shutil.copy(BASE / "Image", new / "Image")
    (new / "versions").write_text(
        (BASE / "versions").read_text(encoding="utf-8") +
        "".join(f"{package} {version}\n" for package, version, _ in packages) + stamp, encoding="utf-8")
    archive.replace_folder(new, folder)
    print(f"appliance: {folder.relative_to(initramfs.PROJECT)}/ is built, its initrd has "
          f"{(folder / 'initrd').stat().st_size / (1 << 20):.1f} MiB", flush=True)
    return folder


def main():
    parser = argparse.ArgumentParser(usage=__doc__.split("usage: ")[1].split("\n\n", maxsplit=1)[0])
    parser.add_argument("--update", action="store_true")
    parser.add_argument("names", nargs="+", metavar="NAME")
    options = parser.parse_args()
    OUTPUT.mkdir(parents=True, exist_ok=True)
    try:
        # One at a time: they share apt's folder and the packages.
        with open(OUTPUT / "lock", "w", encoding="ascii") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            for name in options.names:
                build(name, options.update)
    except (archive.ArchiveError, OSError, ValueError, subprocess.CalledProcessError) as error:
        sys.exit(f"appliance: {error}")


if __name__ == "__main__":
    main()
