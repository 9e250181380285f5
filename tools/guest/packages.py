#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Makes the Debian packages for guests, the same bytes from the same tree.

usage: packages.py guest [--version VERSION] [FOLDER]
       packages.py update PACKAGE.strake [FOLDER]

`guest` makes strake-guest (the updater, its unit and man page, for riscv64); `update` makes
strake-monitor-update, which carries the package and applies it when it is installed or upgraded. They
are written to FOLDER (build/guest-packages); the path of what was made is printed.
"""

import argparse
import gzip
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import initramfs

PROJECT = initramfs.PROJECT
PACKAGING = PROJECT / "packaging/guest"
UNITS = "usr/lib/systemd/system"
EPOCH = 1767225600  # 2026-01-01: what files in packages are dated
CONTROL = """Package: {name}
Version: {version}
Architecture: {architecture}
Maintainer: The Strake developers <strake@localhost>
Section: admin
Priority: optional
{more}Description: {description}
"""


def ours(name, version):
    """A file of packaging/guest/, for a package of this version."""
    return (PACKAGING / name).read_bytes().replace(b"@VERSION@", version.encode())


def build(output, files, **fields):
    """Writes a Debian package. files: {path: (content, mode), or a link's target}. The maintainer scripts
    are those that packaging/guest/ has for it."""
    fields["more"] = "".join(f"{line}\n" for line in fields.get("more", []))
    members = {f"DEBIAN/{path.suffix[1:]}": (ours(path.name, fields["version"]), 0o755)
               for path in sorted(PACKAGING.glob(fields["name"] + ".*"))}
    members["DEBIAN/control"] = (CONTROL.format(**fields).encode(), 0o644)
    output.mkdir(parents=True, exist_ok=True)
    made = output / f"{fields['name']}_{fields['version']}_{fields['architecture']}.deb"
    with tempfile.TemporaryDirectory(prefix="strake-package-") as scratch:
        tree = Path(scratch) / "tree"
        tree.mkdir()
        for name, entry in {**members, **files}.items():
            path = tree / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(entry, str):
                path.symlink_to(entry)
                continue
            path.write_bytes(entry[0])
            path.chmod(entry[1])
        for path in [tree, *tree.rglob("*")]:
            if path.is_dir():
                path.chmod(0o755)
            os.utime(path, (EPOCH, EPOCH), follow_symlinks=False)
        # gzip is what every busybox has, too; one thread, as the bytes may depend on their number.
        subprocess.run(["dpkg-deb", "--root-owner-group", "--threads-max=1", "-Zgzip", "--build", tree, made],
                       check=True, stdout=subprocess.DEVNULL,
                       env={**os.environ, "SOURCE_DATE_EPOCH": str(EPOCH)})
    return made


def man_page():
    return gzip.compress((PROJECT / "docs/strake-update.1").read_bytes(), mtime=0)


def unit(name, version, wanted_by=None):
    """A unit's files. A link in the package enables it: an administrator who wants it off masks it, and no
    script has to know about that."""
    files = {f"{UNITS}/{name}": (ours(name, version), 0o644)}
    if wanted_by:
        files[f"{UNITS}/{wanted_by}.wants/{name}"] = f"../{name}"
    return files


def guest(output, version):
    """strake-guest."""
    return build(output,
                 {"usr/bin/strake-update": (initramfs.updater(version), 0o755),
                  **unit("strake-update-resume.service", version, "multi-user.target"),
                  "usr/share/doc/strake-guest/copyright": ((PROJECT / "LICENSE").read_bytes(), 0o644),
                  "usr/share/man/man1/strake-update.1.gz": (man_page(), 0o644)},
                 name="strake-guest", version=version, architecture="riscv64",
                 description="guest's part of the Strake virtual machine monitor\n"
                 " strake-update hands updates of the monitor beneath this guest down to it.")


def version_of(package):
    """The version in a package's manifest."""
    with tarfile.open(package) as archive:
        return json.load(archive.extractfile("manifest.json"))["version"]


def update(output, package):
    """strake-monitor-update."""
    version = version_of(package)
    return build(output,
                 {"usr/lib/strake-monitor-update/update.strake": (package.read_bytes(), 0o644),
                  **unit("strake-monitor-check.service", version),
                  **unit("strake-monitor-check.timer", version, "timers.target"),
                  "usr/share/doc/strake-monitor-update/copyright":
                  ((PROJECT / "LICENSE").read_bytes(), 0o644)},
                 name="strake-monitor-update", version=version, architecture="riscv64",
                 more=["Depends: strake-guest"],
                 description="update of the Strake virtual machine monitor beneath this guest\n"
                 " Installing it updates the monitor while this guest and others run on.")


def main():
    parser = argparse.ArgumentParser(usage=__doc__.split("usage: ")[1].split("\n\n")[0])
    kinds = parser.add_subparsers(dest="kind", required=True)
    folder = {"nargs": "?", "type": Path, "default": PROJECT / "build/guest-packages"}
    one = kinds.add_parser("guest")
    one.add_argument("--version", default=initramfs.version())
    one.add_argument("folder", **folder)
    two = kinds.add_parser("update")
    two.add_argument("package", type=Path)
    two.add_argument("folder", **folder)
    words = parser.parse_args()
    if not shutil.which("dpkg-deb"):
        sys.exit("packages: dpkg-deb is missing")
    try:
        print(guest(words.folder, words.version) if words.kind == "guest"
              else update(words.folder, words.package))
    except (OSError, KeyError, ValueError, tarfile.TarError, subprocess.CalledProcessError) as error:
        sys.exit(f"packages: cannot make the package: {error}")


if __name__ == "__main__":
    main()
