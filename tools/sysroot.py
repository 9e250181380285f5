#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Makes build/sysroot: Debian 13's own riscv64 programs, as a root folder for `strake user -L build/sysroot`.

usage: sysroot.py [--update]

The packages are unpacked and not configured, without what the programs of PROGRAMS do without, and no link
leads out of the folder. build/sysroot/versions is the lock: every package that is in it, its version and the
SHA-256 digest of its file. A sysroot that is there is left alone; --update asks Debian for newer packages.
"""

import argparse
import fcntl
import fnmatch
import hashlib
import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import appliance  # pylint: disable=wrong-import-order
import archive  # pylint: disable=wrong-import-order  # on the path by the line above

SYSROOT = appliance.fetch.GUEST.parent / "sysroot"
# perl-base has Debian's perl itself and the core of its modules; python3.13-minimal is without the greater
# part of the standard library, which libpython3.13-stdlib brings; the testsuite is that of both. grep and sed
# are what scripts of git and xz call.
PROGRAMS = ["bash", "dash", "coreutils", "python3-minimal", "libpython3.13-stdlib", "libpython3.13-testsuite",
            "perl-base", "git", "sqlite3", "gcc", "g++", "libc6-dev", "openssl", "xz-utils", "curl", "grep", "sed"]
# Dependencies that none of them comes to: documents, scripts for installing, what only a compiler's other
# languages and options take.
WITHOUT = ["debconf", "debianutils", "dpkg", "git-man", "gcc-14-base", "libasan8", "libcc1-0",
           "libgdbm*", "libgomp1", "libgprofng0", "libitm1", "liblsan0", "libperl5.40", "libtsan2", "libubsan1",
           "mawk", "media-types", "net-tools", "netbase", "openssl-provider-legacy", "perl", "perl-modules-5.40", "python3.13",
           "rpcsvc-proto", "tar", "tzdata"]
# What of python's own testsuite is kept.
SUITES = ["array", "ast", "asyncio", "binascii", "bisect", "bytes", "bz2", "capi", "codecs", "collections", "complex",
          "concurrent_futures", "ctypes", "datetime", "decimal", "deque", "descr", "dict", "email", "epoll",
          "exceptions", "fcntl", "file", "fileio", "float", "fork1", "format", "functools", "gc", "generators",
          "glob", "grammar", "hash", "hashlib", "heapq", "httplib", "httpservers", "int", "io", "itertools",
          "json", "list", "long", "lzma", "marshal", "math", "memoryview", "minidom", "mmap", "os", "pathlib",
          "pickle", "pipes", "poll", "posix", "pty", "pyexpat", "queue", "random", "re", "resource", "select",
          "selectors", "set", "shelve", "shutil", "signal", "socket", "socketserver", "sort", "sqlite3", "ssl",
          "statistics", "str", "string", "struct", "subprocess", "tarfile", "tempfile", "thread", "threadedtempfile",
          "threading", "threadsignals", "time", "timeit", "tokenize", "tuple", "unicode_file", "urllib", "userdict",
          "wait3", "wait4", "weakref", "xml_etree", "zipfile", "zlib"]
GCC = "usr/lib/gcc/riscv64-linux-gnu/14"
GIT = "usr/lib/git-core"
TESTS = "usr/lib/python3.13/test"
OMIT = ["usr/share/*", "usr/lib/systemd/*", "usr/lib/tmpfiles.d/*", "usr/lib/riscv64-linux-gnu/gconv/*",
        "etc/init.d/*", "etc/gprofng.rc", "usr/bin/gp-*", "usr/bin/*gprofng*", "usr/bin/*lto-dump*",
        "usr/libexec/gcc/*/lto1", f"{GCC}/plugin/*", f"{GCC}/lib*san*", f"{GCC}/libgomp.*", f"{GCC}/libitm.*",
        f"{GCC}/libcc1.*", "usr/lib/linux/uapi/[!r]*", "usr/bin/scalar", f"{GIT}/scalar", "usr/bin/git-shell",
        f"{GIT}/git-shell", f"{GIT}/git-http-[fp]*", f"{GIT}/git-imap-send", f"{GIT}/git-daemon", f"{TESTS}/test_*"]
KEEP = ["usr/share/git-core/templates/*", "usr/share/perl5/*", "usr/share/python3/*", 
        *(f"{TESTS}/test_{name}{rest}" for name in SUITES for rest in (".py", "/*"))]


def packages_of(update):
    """[(package, version, path of the .deb)] of what the sysroot is made of."""
    return appliance.packages_of({"packages": PROGRAMS, "without": WITHOUT}, update)


def inputs():
    """A digest of what decides, but for Debian, what the sysroot is made of."""
    return hashlib.sha256(Path(__file__).read_bytes()).hexdigest()


def names(folder):
    """Every file, link and folder below a folder, relative to it; of a folder's entries before the folder."""
    for where, folders, files in os.walk(folder, topdown=False):
        for name in folders + files:
            yield os.path.relpath(os.path.join(where, name), folder)


def matches(name, patterns):
    """Whether one of the patterns means a name."""
    return any(fnmatch.fnmatch(name, pattern) for pattern in patterns)


def omit(folder):
    """Removes what OMIT names and KEEP does not, and the folders that are empty then."""
    for name in names(folder):
        path = folder / name
        if path.is_dir() and not path.is_symlink():
            if not any(path.iterdir()):
                path.rmdir()
        elif matches(name, OMIT) and not matches(name, KEEP):
            path.unlink()


def confine(folder):
    """Makes absolute links relative, so that they stay in the folder for whoever follows them, and refuses those
    that leave it. Whoever runs the programs is the one who owns them: none gives another's rights."""
    for name in names(folder):
        path = folder / name
        if path.is_symlink():
            target = os.readlink(path)
            if target.startswith("/"):
                target = os.path.relpath(target.lstrip("/"), os.path.dirname(name))
                path.unlink()
                path.symlink_to(target)
            if os.path.normpath(os.path.join(os.path.dirname(name), target)).startswith(".."):
                raise ValueError(f"'{name}' is a link to '{target}', outside of the sysroot")
        elif path.is_file() or path.is_dir():
            path.chmod(stat.S_IMODE(path.stat().st_mode) & 0o1777 | stat.S_IWUSR)
        else:
            raise ValueError(f"'{name}' is neither a file nor a folder nor a link")


def check_libraries(folder):
    """Refuses programs whose libraries are not there: WITHOUT and OMIT may have taken too much."""
    elves = [name for name in names(folder) if is_elf(folder / name)]
    there = {os.path.basename(name) for name in names(folder) if (folder / name).is_file()}
    dump = subprocess.run(["riscv64-linux-gnu-readelf", "--wide", "--dynamic", *elves], check=True, cwd=folder,
                          capture_output=True, text=True).stdout
    missing = sorted(set(re.findall(r"\(NEEDED\).*\[(.+)\]", dump)) - there)
    if missing:
        raise ValueError(f"its programs need the libraries {', '.join(missing)}, which no package brings")


def is_elf(path):
    """Whether a path is a program or a library."""
    if path.is_symlink() or not path.is_file():
        return False
    with open(path, "rb") as file:
        return file.read(4) == b"\x7fELF" and path.suffix != ".o"


def lines_of(packages):
    """The lock."""
    return "".join(f"{package} {version} {hashlib.sha256(path.read_bytes()).hexdigest()}\n"
                   for package, version, path in packages)


def build(update=False):
    """Makes build/sysroot unless it is there as it would be made; returns it."""
    versions = SYSROOT / "versions"
    stamp = f"inputs {inputs()}\n"
    if not update and versions.exists() and versions.read_text(encoding="utf-8").endswith(stamp):
        return SYSROOT
    packages = packages_of(update)
    print(f"sysroot: it is made of {len(packages)} packages "
          f"({sum(path.stat().st_size for _, _, path in packages) / (1 << 20):.1f} MiB)", flush=True)
    new = SYSROOT.with_name("sysroot.new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    for _, _, path in packages:
        archive.unpack(path, new)
    omit(new)
    confine(new)
    check_libraries(new)
    (new / "versions").write_text(lines_of(packages) + stamp, encoding="utf-8")
    archive.replace_folder(new, SYSROOT)
    return SYSROOT


def size(folder):
    """Bytes of a folder's files."""
    return sum((folder / name).lstat().st_size for name in names(folder))


def main():
    parser = argparse.ArgumentParser(usage=__doc__.split("usage: ")[1].split("\n\n", maxsplit=1)[0])
    parser.add_argument("--update", action="store_true")
    options = parser.parse_args()
    appliance.OUTPUT.mkdir(parents=True, exist_ok=True)
    try:
        # One at a time, and not beside the appliances: they share apt's folder and the packages.
        with open(appliance.OUTPUT / "lock", "w", encoding="ascii") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            folder = build(options.update)
        print(f"sysroot: {folder.relative_to(appliance.initramfs.PROJECT)}/ is complete, "
              f"{size(folder) / (1 << 20):.0f} MiB")
    except (archive.ArchiveError, OSError, ValueError, subprocess.CalledProcessError) as error:
        sys.exit(f"sysroot: {error}")


if __name__ == "__main__":
    main()
