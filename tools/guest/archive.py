# SPDX-License-Identifier: BSD-2-Clause
"""Debian packages for the guest, fetched and authenticated by apt.

An apt of our own under one folder: lists, state, cache and sources are apart from the machine's,
so that root is not needed and nothing of the machine changes. What the machine contributes is its
mirror, its proxy settings and Debian's archive keyring.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

SUITE = "trixie"  # Debian 13
# Its other name, for as long as Debian 13 is the stable release. While a mirror is being brought up to date, or
# something on the way keeps a part of it, the lists below one name may not be what its signed Release says
# they are, and those below the other may be.
ALIAS = "stable"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


class ArchiveError(Exception):
    """A sentence for the user."""


def mirror():
    """The URL from which this machine's own apt takes Debian's main archive."""
    fields = "$(ORIGIN)|$(LABEL)|$(COMPONENT)|$(SITE)"
    for target in _ask("apt-get", "indextargets", "--format", fields, "Created-By: Packages"):
        name, _, site = target.rpartition("|")
        if name == "Debian|Debian|main":
            return site
    # Whose a source is, apt knows from the lists it has fetched. Without lists the sources are known
    # all the same, and whether one is Debian's, its signature will tell.
    for uri in _ask("apt-get", "update", "--print-uris"):
        found = re.match(r"'(\S+?)/dists/([^/]+)/main/binary-[^/]+/Packages", uri)
        if found and not found.group(2).endswith("-security"):
            return found.group(1)
    raise ArchiveError("cannot find a Debian mirror: apt on this machine names none")


def _ask(*command):
    """The lines that a command prints."""
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines()


class Archive:
    """Debian's main archive for riscv64, as one apt folder."""

    def __init__(self, folder):
        self.folder = Path(folder).resolve()
        self.config = self.folder / "apt.conf"

    def update(self):
        """Fetches the package lists."""
        if not KEYRING.exists():
            raise ArchiveError(f"cannot check Debian packages: '{KEYRING}' is missing "
                               "(package debian-archive-keyring)")
        site = mirror()
        try:
            self._update_from(site, SUITE)
        except ArchiveError:
            print(f"fetch: the mirror's lists of {SUITE} are not whole; trying its other name, {ALIAS}", flush=True)
            self._update_from(site, ALIAS)

    def _update_from(self, site, suite):
        shutil.rmtree(self.folder / "state", ignore_errors=True)
        self._configure(site, suite)
        self._run("apt-get", "update", show=True)
        codenames = {line.split()[1] for path in (self.folder / "state/lists").glob("*Release")
                     for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("Codename:")}
        if codenames != {SUITE}:
            raise ArchiveError(f"the mirror's '{suite}' is {' and '.join(codenames) or 'nothing'}, not {SUITE}")

    def depends(self, package):
        """Names of the packages that `package` depends on."""
        listing = self._run("apt-cache", "depends", "--important", package)
        return re.findall(r"^\s*\|?Depends: (\S+)", listing, re.MULTILINE)

    def closure(self, packages):
        """`packages` and all that they need, as if nothing were installed yet."""
        plan = self._run("apt-get", "--simulate", "--no-install-recommends", "install", *packages)
        return sorted(set(re.findall(r"^Inst (\S+)", plan, re.MULTILINE)))

    def download(self, packages, folder):
        """Downloads `packages` into `folder`; returns [(package, version, path of the .deb)]."""
        folder.mkdir(parents=True, exist_ok=True)
        shown = self._run("apt-cache", "--no-all-versions", "show", *packages)
        fields = {found["Package"]: found for found in
                  (dict(re.findall(r"^(Package|Version|Architecture): (\S+)", entry, re.MULTILINE))
                   for entry in shown.split("\n\n") if entry.strip())}
        found = []
        for package in packages:
            version, arch = fields[package]["Version"], fields[package]["Architecture"]
            name = f"{package}_{version.replace(':', '%3a')}_{arch}.deb"
            found.append((package, version, folder / name))
        # apt compares what is there already with the archive's digest, and resumes partial files.
        self._run("apt-get", "download", *(f"{name}={version}" for name, version, _ in found),
                  show=True, cwd=folder)
        for package, _, path in found:
            if not path.exists():
                raise ArchiveError(f"apt downloaded '{package}' under another name than '{path}'")
        return found

    def _configure(self, site, suite):
        for sub in ("state/lists/partial", "cache/archives/partial"):
            (self.folder / sub).mkdir(parents=True, exist_ok=True)
        (self.folder / "status").touch()
        (self.folder / "sources.list").write_text(
            f"deb [signed-by={KEYRING}] {site} {suite} main\n", encoding="utf-8")
        options = {
            "APT::Architecture": "riscv64",
            "APT::Architectures": "riscv64",
            "APT::Sandbox::User": "root",
            "APT::Update::Error-Mode": "any",
            "Acquire::Languages": "none",
            "Acquire::Retries": "3",
            "Dir::State": self.folder / "state",
            "Dir::State::status": self.folder / "status",
            "Dir::Cache": self.folder / "cache",
            "Dir::Etc::SourceList": self.folder / "sources.list",
            "Dir::Etc::SourceParts": "/dev/null",
            "Dir::Etc::Preferences": "/dev/null",
            "Dir::Etc::PreferencesParts": "/dev/null",
        }
        # The machine's hooks are for the machine's packages.
        hooks = ["APT::Update::Pre-Invoke", "APT::Update::Post-Invoke",
                 "APT::Update::Post-Invoke-Success", "APT::Architectures"]
        text = "".join(f"#clear {hook};\n" for hook in hooks)
        text += "".join(f'{name} "{value}";\n' for name, value in options.items())
        self.config.write_text(text, encoding="utf-8")

    def _run(self, tool, *args, show=False, cwd=None):
        command = [tool, "--config-file", str(self.config), *args]
        environment = {**os.environ, "LC_ALL": "C"}
        sys.stdout.flush()
        result = subprocess.run(command, cwd=cwd, env=environment, text=True, check=False,
                                stdin=subprocess.DEVNULL,
                                stdout=None if show else subprocess.PIPE,
                                stderr=None if show else subprocess.PIPE)
        if result.returncode != 0:
            why = "" if show else ": " + " ".join((result.stderr or "").split())
            raise ArchiveError(f"`{tool} {' '.join(args)}` failed{why}")
        return result.stdout or ""


def unpack(package, folder):
    """Unpacks a .deb's files into `folder`."""
    subprocess.run(["dpkg-deb", "--extract", str(package), str(folder)], check=True)


def replace_folder(new, final):
    """Puts folder `new` in the place of `final`, which may exist. No reader finds half of it."""
    old = final.with_name(final.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if final.exists():
        final.rename(old)
    new.rename(final)
    shutil.rmtree(old, ignore_errors=True)
