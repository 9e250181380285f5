# SPDX-License-Identifier: BSD-2-Clause
"""What tests of the guest's updater share: packages, and a guest's root folder with a dpkg of ours in
it and a host of Python's beneath."""

import hashlib
import io
import json
import os
import random
import shutil
import subprocess
import tarfile
import threading

from lib.channel import Host
from lib.harness import check

SIGNATURE = b"untrusted comment: x\nx\ntrusted comment: x\nx\n"
PAYLOAD = random.Random(7).randbytes(2_500_000)
DONE, FAILED, USAGE, NO_HOST, REFUSED, BAD_PACKAGE, NOT_INSTALLED, ROLLED_BACK, UNFINISHED, BUSY, \
    OLDER = range(11)

# Packages are installed by their files' names; a package of which FAKE_FAILS is the name fails. Each
# takes FAKE_WAIT seconds, of which at-work tells, with the number of the process.
DPKG = """#!/bin/sh
for word; do case $word in --root=*) root=${word#--root=};; esac; done
db=$root/var/lib/dpkg/versions
echo "$*" >>"$root/dpkg-calls"
[ "$1" != --compare-versions ] || { [ "$(printf '%s\\n%s\\n' "$2" "$4" | sort -V | tail -1)" = "$2" ]; exit; }
mode=
for word; do case $word in
    -i) mode=install;;
    --remove) mode=remove;;
    -*) ;;
    *) base=${word##*/}; name=${base%%_*}; rest=${base#*_}; version=${rest%%_*}; version=${version%.deb}
       [ "$name" != "$FAKE_FAILS" ] || { echo "no $name"; exit 1; }
       [ ! -e "$root/locked" ] || exit 2
       [ -z "$FAKE_WAIT" ] || { echo $$ >"$root/at-work"; sleep "$FAKE_WAIT"; }
       rm -f "$db/$name"
       [ $mode = remove ] || { [ -e "$word" ] && echo "$version" >"$db/$name"; } || exit 1;;
esac; done
"""
QUERY = """#!/bin/sh
db=${1#--admindir=}
for name; do :; done
[ -e "$db/versions/$name" ] && echo "install ok installed $(cat "$db/versions/$name")"
"""


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def deb(folder, name, version, files, compress="gzip"):
    """A real Debian package; returns its path."""
    tree = folder / "tree"
    shutil.rmtree(tree, ignore_errors=True)
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN/control").write_text(
        f"Package: {name}\nVersion: {version}\nArchitecture: all\nMaintainer: nobody <nobody@localhost>\n"
        "Description: test\n")
    for path, content in files.items():
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_text(content)
        (tree / path).chmod(0o755)
    path = folder / f"{name}_{version}_all.deb"
    subprocess.run(["dpkg-deb", "--root-owner-group", f"-Z{compress}", "-b", tree, path], check=True,
                   stdout=subprocess.DEVNULL)
    return path


def package(version="0.2.0", debs=(), payload=PAYLOAD, signature=SIGNATURE, **more):
    """The files of a package, by their names, in their order."""
    manifest = {"format": 1, "product": "strake", "version": version, "epoch": 1,
                "architecture": "x86_64", "state": {"oldest": 1, "newest": 1},
                "program": {"bytes": 1, "sha256": sha256(b"")},
                "monitor": [{"file": "monitor-full.zst", "bytes": len(payload),
                             "sha256": sha256(payload)}],
                "guest": [], "expires": "2099-01-01T00:00:00Z", "notes": "for \"tests\" \u00e9", **more}
    files = {"monitor-full.zst": payload}
    for path in debs:
        content = path.read_bytes()
        name, number, _ = path.name.split("_")
        files[f"guest/{path.name}"] = content
        manifest["guest"].append({"file": f"guest/{path.name}", "package": name, "version": number,
                                  "architecture": "all", "bytes": len(content),
                                  "sha256": sha256(content)})
    return {"manifest.json": json.dumps(manifest).encode(), "manifest.json.minisig": signature, **files}


def write_tar(files, path):
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path


class Guest:
    """A guest's root folder, and the updater in it."""

    count = 0

    def __init__(self, test, dpkg=True, **versions):
        Guest.count += 1
        self.folder = test.folder / f"guest{Guest.count}"
        self.root = self.folder / "root"
        self.state = self.folder / "state"
        (self.root / "usr/bin").mkdir(parents=True)
        self.tools = self.folder / "bin"
        self.tools.mkdir()
        self.environment = {"PATH": f"{self.tools}:/usr/bin:/bin"}
        self.host = Host(self.folder / "host")
        self.program = [os.environ["STRAKE_UPDATE"]]
        if dpkg:
            versions_folder = self.root / "var/lib/dpkg/versions"
            versions_folder.mkdir(parents=True)
            (self.root / "var/lib/dpkg/status").touch()
            for tool, text in (("dpkg", DPKG), ("dpkg-query", QUERY)):
                (self.tools / tool).write_text(text)
                (self.tools / tool).chmod(0o755)
            for name, version in versions.items():
                (versions_folder / name).write_text(version + "\n")

    def run(self, *words, wait=20, **environment):
        """Runs strake-update; returns its status and what it printed."""
        command = [*self.program, "--host", f"unix:{self.host.path}", "--root", str(self.root),
                   "--state", str(self.state), "--wait", str(wait), *map(str, words)]
        run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300,
                             env={**self.environment, **environment})
        return run.returncode, run.stdout + run.stderr

    def expect(self, status, *words, what, **options):
        """Runs it and checks how it ends; returns what it printed."""
        result, text = self.run(*words, **options)
        if result != status:
            print(text)
        check(result == status, f"{what}: status {status}" + (f", is {result}" if result != status else ""))
        return text

    def versions(self):
        """What the dpkg of ours has."""
        folder = self.root / "var/lib/dpkg/versions"
        return {path.name: path.read_text().strip() for path in folder.iterdir()}

    def phase(self):
        return json.loads((self.state / "state.json").read_text())["phase"]

    def files(self):
        """Contents of the files in the root folder."""
        return {str(path.relative_to(self.root)): path.read_text(errors="replace")
                for path in sorted(self.root.rglob("*")) if path.is_file()}


def wait_for(condition):
    for _ in range(600):
        if condition():
            return
        threading.Event().wait(0.1)
    check(False, "it happens within a minute")
