#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""What updates by a guest's apt are made of: the repository, as this machine's apt takes it, and what
strake-monitor-update's script makes of each way in which an update can end. Then apt updates the monitor beneath
a guest, if there is a disk with Debian, but without Debian's init: long_update_apt.py has the whole of it."""

import functools
import http.server
import io
import json
import os
import re
import shutil
import subprocess
import tarfile
import threading

from lib.apt import Guest, Quiet, the_flagship, the_same
from lib.harness import PROJECT, UNDER_QEMU, Skipped, check, main
import debian
import packages
import repository
import vm

DATE = 1790000000
DONE, FAILED, NO_HOST, REFUSED, BAD_PACKAGE, NOT_INSTALLED, ROLLED_BACK, UNFINISHED, BUSY, OLDER = \
    0, 1, 3, 4, 5, 6, 7, 8, 9, 10
CONFIG = """
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
Dir::State "{folder}/state";
Dir::State::status "{folder}/status";
Dir::Cache "{folder}/cache";
Dir::Etc "{folder}/etc";
APT::Architecture "riscv64";
APT::Architectures {{ "riscv64"; }};
APT::Sandbox::User "root";
APT::Update::Error-Mode "any";
Acquire::Languages "none";
"""


def guest(folder, version):
    """strake-guest, but for its program."""
    return packages.build(folder, {"usr/bin/strake-update": (b"", 0o755)}, name="strake-guest",
                          version=version, architecture="riscv64", description="test")


def update(folder, version):
    """strake-monitor-update with a manifest that says no more than the version."""
    manifest = json.dumps({"version": version}).encode()
    entry = tarfile.TarInfo("manifest.json")
    entry.size = len(manifest)
    path = folder / f"{version}.strake"
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        archive.addfile(entry, io.BytesIO(manifest))
    return packages.update(folder, path)


def reproducible(test, debs):
    """The same packages and key give the same repository."""
    os.environ["SOURCE_DATE_EPOCH"] = str(DATE)
    keys = test.folder / "once-keys"
    made = [test.folder / "once", test.folder / "twice"]
    repository.make(made[0], debs, keys)
    for deb in reversed(debs):
        repository.make(made[1], [deb], keys)
    contents = [{path.name: path.read_bytes() for path in folder.iterdir()} for folder in made]
    check(contents[0] == contents[1] and len(contents[0]) == len(debs) + 5,
          "made at once or one package after the other, the repository has the same bytes")
    return made[0]


class Apt:
    """This machine's apt, with everything of its own in a folder."""

    def __init__(self, test, served, key):
        self.folder = test.folder / "apt"
        shutil.rmtree(self.folder, ignore_errors=True)
        for sub in ("state/lists/partial", "cache/archives/partial", "etc/sources.list.d"):
            (self.folder / sub).mkdir(parents=True)
        (self.folder / "status").touch()
        (self.folder / "apt.conf").write_text(CONFIG.format(folder=self.folder))
        (self.folder / "etc/sources.list").write_text(f"deb [signed-by={key}] {served} ./\n")

    def installed(self, debs):
        """Has apt believe that packages are installed."""
        with open(self.folder / "status", "w", encoding="utf-8") as status:
            for deb in debs:
                control = subprocess.run(["dpkg-deb", "--field", deb], check=True, text=True,
                                         stdout=subprocess.PIPE).stdout
                status.write(f"{control.rstrip()}\nStatus: install ok installed\n\n")

    def run(self, *words):
        """Runs apt-get: its status and what it printed."""
        result = subprocess.run(["apt-get", "--config-file", self.folder / "apt.conf", *words],
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
                                stderr=subprocess.STDOUT, check=False,
                                env={**os.environ, "LC_ALL": "C", "APT_CONFIG": "/dev/null"})
        return result.returncode, result.stdout


def taken_by_apt(test, folder, debs):
    """apt takes the repository with its key, and in no other way."""
    with http.server.ThreadingHTTPServer(
            ("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        served = f"http://127.0.0.1:{server.server_port}/"
        apt = Apt(test, served, folder / "archive.asc")
        apt.installed(debs[:2])
        status, said = apt.run("update")
        check(status == 0, "apt takes the repository" if status == 0 else said)
        _, said = apt.run("--simulate", "upgrade")
        steps = re.findall(r"^(Inst|Conf) (\S+) (?:\[\S+\] )?\((\S+)", said, re.MULTILINE)
        check(sorted(steps) == sorted(
            (step, name, "0.2.0") for step in ("Inst", "Conf")
            for name in ("strake-guest", "strake-monitor-update")), "and would upgrade both packages")
        check(steps.index(("Conf", "strake-guest", "0.2.0")) <
              steps.index(("Conf", "strake-monitor-update", "0.2.0")), "strake-guest before")

        other = test.folder / "other"
        repository.make(other, debs, test.folder / "other-keys")
        status, said = Apt(test, served, other / "archive.asc").run("update")
        check(status != 0 and "signature" in said, "with another key apt does not take it")
        index = folder / "Packages"
        index.write_bytes(index.read_bytes().replace(b"0.2.0", b"0.3.0"))
        (folder / "Packages.gz").unlink()
        status, said = Apt(test, served, folder / "archive.asc").run("update")
        check(status != 0, "nor with another index than the signed one")
        server.shutdown()


def outcomes(test, deb):
    """The script's own status, by how strake-update ends."""
    control = test.folder / "control"
    subprocess.run(["dpkg-deb", "--control", deb, control], check=True)
    check(not any("@" in path.read_text() for path in control.iterdir() if path.name != "control"),
          "the version is in the scripts")
    tools = test.folder / "tools"
    tools.mkdir()
    (tools / "strake-update").write_text('#!/bin/sh\necho "$*" >>"$CALLS"\n'
                                         'case $1 in check) exit $CHECK;; apply) exit $APPLY;; esac\n')
    (tools / "systemctl").write_text("#!/bin/sh\n")
    for tool in tools.iterdir():
        tool.chmod(0o755)
    calls = test.folder / "calls"
    cases = [  # status of check, of apply; the script's, and what it has to say
        (DONE, None, 0, "nothing to update"), (OLDER, DONE, 0, ""),
        (NO_HOST, NO_HOST, 0, "no Strake that takes updates"), (REFUSED, REFUSED, 0, "try again"),
        (OLDER, REFUSED, 0, "try again"), (OLDER, ROLLED_BACK, 0, "try again"),
        (OLDER, BUSY, 0, "try again"), (OLDER, UNFINISHED, 0, ""), (UNFINISHED, DONE, 0, ""),
        (OLDER, FAILED, FAILED, ""), (OLDER, BAD_PACKAGE, BAD_PACKAGE, ""),
        (OLDER, NOT_INSTALLED, NOT_INSTALLED, "")]
    for before, applied, wanted, text in cases:
        calls.unlink(missing_ok=True)
        result = subprocess.run(
            ["/bin/sh", control / "postinst", "configure", "0.1.0"], stdin=subprocess.DEVNULL,
            capture_output=True, text=True, check=False,
            env={"PATH": f"{tools}:/usr/bin:/bin", "CALLS": str(calls), "CHECK": str(before),
                 "APPLY": str(applied)})
        said = result.stdout + result.stderr
        called = [line.split()[0] for line in calls.read_text().splitlines()]
        check(result.returncode == wanted and text in said and bool(said) == bool(text)
              and called == (["check"] if applied is None else ["check", "apply"]),
              f"check ends with {before}, apply with {applied}: the script with {result.returncode}, "
              f"saying '{said.strip()}'")


def in_guest(test):
    """The flagship path, in Debian's root folder."""
    if UNDER_QEMU or not all(path.exists() for path in (vm.KERNEL, vm.INITRAMFS, debian.DISK)):
        print("skipped: no Debian guest (tools/guest/debian.py makes its disk)")
        return
    debian_guest = Guest(test, systemd=False)
    with debian_guest.watched():
        debian_guest.boot(updates=True)
        the_same(debian_guest)
        the_flagship(debian_guest)


def update_apt(test):
    for program in ("apt-get", "dpkg-deb", "dpkg-scanpackages", "gpg"):
        if not shutil.which(program):
            raise Skipped(f"{program} is missing")
    debs = [make(test.folder, version) for version in ("0.1.0", "0.2.0") for make in (guest, update)]
    folder = reproducible(test, debs)
    outcomes(test, debs[3])
    taken_by_apt(test, folder, debs)
    tool = PROJECT / "tools/guest/repository.py"
    result = subprocess.run([tool, "--keys", test.folder / "once-keys", test.folder / "tool", *debs],
                            check=False, capture_output=True, text=True)
    check(result.returncode == 0 and (test.folder / "tool/InRelease").read_bytes(),
          "tools/guest/repository.py makes it")
    del os.environ["SOURCE_DATE_EPOCH"]
    in_guest(test)


main(update_apt)
