#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Makes an apt repository of Debian packages: a folder that any web server can serve.

usage: repository.py [--keys FOLDER] REPOSITORY PACKAGE.deb...

REPOSITORY gets the packages, `Packages`, `Release`, `InRelease`, and `archive.asc`, the public key that
guests are to trust it by. The secret key is in FOLDER (build/repository-keys), made on first use. The same
packages and key give the same bytes when SOURCE_DATE_EPOCH is set. Packages that are there already stay.
"""

import argparse
import email.utils
import gzip
import hashlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import initramfs
import packages

KEYS = initramfs.PROJECT / "build/repository-keys"
OWNER = "Strake's apt repository"
RELEASE = """Origin: Strake
Label: Strake
Suite: stable
Codename: stable
Architectures: riscv64
Date: {date}
Description: updates of the Strake virtual machine monitor, for its guests
SHA256:
{digests}"""


def run(*command, **options):
    """Runs a program; what it writes."""
    result = subprocess.run(command, capture_output=True, check=False, **options)
    if result.returncode != 0:
        raise ValueError(f"{command[0]}: {result.stderr.decode(errors='replace').strip()}")
    return result.stdout


def gpg(keys, date, *words, content=None):
    """Runs gpg with the keys in a folder, at a time of its own; what it writes."""
    when = time.strftime("%Y%m%dT%H%M%S", time.gmtime(date))
    return run("gpg", "--homedir", keys, "--batch", "--no-tty", "--passphrase", "", "--pinentry-mode",
               "loopback", "--faked-system-time", f"{when}!", *words, input=content)


def make_key(keys):
    """The key, as old as what we make can be."""
    if (keys / "pubring.kbx").exists():
        return
    keys.mkdir(parents=True, exist_ok=True)
    keys.chmod(0o700)
    gpg(keys, packages.EPOCH, "--quick-generate-key", OWNER, "ed25519", "sign", "never")


def make(folder, debs, keys=KEYS):
    """Makes the repository, or puts more packages into it."""
    folder.mkdir(parents=True, exist_ok=True)
    for deb in debs:
        initramfs.write_atomically(folder / Path(deb).name, Path(deb).read_bytes())
    make_key(keys)
    date = max(int(os.environ.get("SOURCE_DATE_EPOCH", time.time())), packages.EPOCH)
    index = run("dpkg-scanpackages", "--multiversion", "--hash", "sha256", ".", cwd=folder)
    indices = {"Packages": index, "Packages.gz": gzip.compress(index, mtime=0)}
    digests = "".join(f" {hashlib.sha256(content).hexdigest()} {len(content)} {name}\n"
                      for name, content in indices.items())
    release = RELEASE.format(date=email.utils.formatdate(date, usegmt=True).replace("GMT", "UTC"),
                             digests=digests).encode()
    # The signed one is the last: until it is there, apt goes by the one before.
    for name, content in {**indices, "Release": release,
                          "archive.asc": gpg(keys, date, "--armor", "--export", OWNER),
                          "InRelease": gpg(keys, date, "--digest-algo", "SHA512", "--clear-sign",
                                           content=release)}.items():
        initramfs.write_atomically(folder / name, content)
    run("gpgconf", "--homedir", keys, "--kill", "gpg-agent")


def main():
    parser = argparse.ArgumentParser(usage=__doc__.split("usage: ")[1].split("\n\n")[0])
    parser.add_argument("--keys", type=Path, default=KEYS)
    parser.add_argument("repository", type=Path)
    parser.add_argument("debs", type=Path, nargs="+")
    words = parser.parse_args()
    for program, package in (("dpkg-scanpackages", "dpkg-dev"), ("gpg", "gnupg")):
        if not shutil.which(program):
            sys.exit(f"repository: {program} is missing (package {package})")
    try:
        make(words.repository, words.debs, words.keys.resolve())
    except (OSError, ValueError) as error:
        sys.exit(f"repository: cannot make '{words.repository}': {error}")
    print(words.repository)


if __name__ == "__main__":
    main()
