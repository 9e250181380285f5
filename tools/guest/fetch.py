#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Fetches what guests are made of from Debian 13 (trixie) for riscv64, into build/guest/.

Each set becomes one folder, which appears when it is complete and carries the versions of its
packages in its file `versions`. A set that is there is left alone, and then no network is needed.
"""

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

import archive

GUEST = Path(__file__).resolve().parents[2] / "build" / "guest"


def select_base(apt):
    """The newest kernel, which the metapackage names, and a static busybox."""
    kernels = [name for name in apt.depends("linux-image-riscv64")
               if name.startswith("linux-image-")]
    if len(kernels) != 1:
        raise archive.ArchiveError("the package linux-image-riscv64 names no kernel")
    return [kernels[0], "busybox-static"]


def arrange_base(files, folder):
    """base/Image, base/busybox, base/modules/RELEASE/."""
    kernel = next((files / "boot").glob("vmlinu[xz]-*"))
    kernel.rename(folder / "Image")
    (files / "usr/bin/busybox").rename(folder / "busybox")
    (files / "usr/lib/modules").rename(folder / "modules")


def select_programs(apt):
    """What the guest benchmark runs, with the libraries it needs."""
    return apt.closure(["openssl", "xz-utils", "gzip", "sqlite3", "python3-minimal", "perl-base",
                        "coreutils"])


def arrange_programs(files, folder):
    """programs/root/: a root file system with nothing configured."""
    for unused in ("usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info",
                   "usr/share/lintian", "usr/lib/riscv64-linux-gnu/gconv", "usr/share/i18n"):
        shutil.rmtree(files / unused, ignore_errors=True)
    files.rename(folder / "root")


# name: (what is said while it is fetched, which packages, where their files go)
SETS = {
    "base": ("the riscv64 kernel and busybox of Debian 13", select_base, arrange_base),
    "programs": ("riscv64 programs of Debian 13 for the benchmark", select_programs,
                 arrange_programs),
}


def fetch(name, update=False):
    """Makes build/guest/NAME; returns it."""
    folder = GUEST / name
    if (folder / "versions").exists() and not update:
        return folder
    what, select, arrange = SETS[name]
    print(f"guest: fetching {what} (once; `tools/guest/fetch.py --update` renews it)", flush=True)
    apt = archive.Archive(GUEST / "apt")
    apt.update()
    packages = apt.download(select(apt), GUEST / "packages")

    new = GUEST / (name + ".new")
    shutil.rmtree(new, ignore_errors=True)
    files = new / "files"
    files.mkdir(parents=True)
    for package, version, path in packages:
        print(f"guest: unpacking {package} {version}", flush=True)
        archive.unpack(path, files)
    arrange(files, new)
    shutil.rmtree(files, ignore_errors=True)
    (new / "versions").write_text("".join(f"{package} {version}\n"
                                          for package, version, _ in packages), encoding="utf-8")
    archive.replace_folder(new, folder)
    return folder


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--update", action="store_true",
                        help="fetch again, in case Debian has something newer")
    parser.add_argument("sets", nargs="*", metavar="SET", default=[],
                        help=f"{', '.join(SETS)} (default: base)")
    options = parser.parse_args()
    unknown = [name for name in options.sets if name not in SETS]
    if unknown:
        parser.error(f"no such set: '{unknown[0]}'")
    try:
        for name in options.sets or ["base"]:
            folder = fetch(name, options.update)
            first = (folder / "versions").read_text(encoding="utf-8").splitlines()[0]
            print(f"guest: {folder.relative_to(GUEST.parents[1])}/ is complete ({first}, ...)")
    except (archive.ArchiveError, OSError, subprocess.CalledProcessError) as error:
        sys.exit(f"fetch: {error}")


if __name__ == "__main__":
    main()
