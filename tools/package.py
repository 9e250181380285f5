#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Makes an update package of build/strake: the same tree gives the same bytes.

usage: package.py [--key FILE] [--base "VERSION=FILE ..."] [--guest "FILE ..."] [--output FILE]

It carries the Debian packages for guests that --guest names, or else strake-guest of the same tree. It
expires a year after the last commit (or SOURCE_DATE_EPOCH), and its notes are this version's section of
CHANGELOG.md. With a key it is signed, and strake-monitor-update is made, too, which brings it by apt.
The paths of what was made are printed.
"""
import argparse
import datetime
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools" / "guest"))

import packages  # pylint: disable=wrong-import-position

STRAKE = ROOT / "build" / "strake"
GUEST_PACKAGES = ROOT / "build" / "guest-packages"
LIFE_DAYS = 365


def version(strake=STRAKE):
    """What a strake says that it is."""
    return subprocess.run([strake, "version"], capture_output=True, text=True,
                          check=True).stdout.split()[1]


def expires():
    """A year after the tree was made."""
    made = os.environ.get("SOURCE_DATE_EPOCH") or subprocess.run(
        ["git", "-C", ROOT, "log", "-1", "--format=%ct"], capture_output=True, text=True,
        check=False).stdout
    if not made:
        raise ValueError("how old is this tree? It has no commit, and SOURCE_DATE_EPOCH is not set")
    end = datetime.datetime.fromtimestamp(int(made), datetime.timezone.utc) + \
        datetime.timedelta(days=LIFE_DAYS)
    return end.strftime("%Y-%m-%dT%H:%M:%SZ")


def notes(name):
    """What CHANGELOG.md says of a version."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    match = re.search(rf"^## {re.escape(name)}\b.*?\n(.*?)(?=^## |\Z)", text, re.M | re.S)
    return match.group(1).strip() + "\n" if match else ""


def build(strake, output, key="", bases=(), guests=()):
    """Packs a strake: bases are "VERSION=FILE", guests packages for guests."""
    with tempfile.NamedTemporaryFile("w", encoding="utf-8") as file:
        file.write(notes(version(strake)))
        file.flush()
        command = [strake, "package", "build", "--expires", expires(), "--notes", file.name]
        command += ["--key", key] if key else []
        command += [word for base in bases for word in ("--base", base)]
        command += [word for deb in guests for word in ("--guest", deb)]
        subprocess.run([*command, output], check=True)


def main():
    parser = argparse.ArgumentParser(description="Makes an update package of build/strake.")
    for option in ("key", "base", "guest", "output"):
        parser.add_argument(f"--{option}", default="")
    options = parser.parse_args()
    try:
        name = version()
        output = Path(options.output or ROOT / "build" / f"strake-{name}.strake")
        guests = options.guest.split() or [packages.guest(GUEST_PACKAGES, name)]
        build(STRAKE, output, options.key, options.base.split(), guests)
        print(output)
        if options.key:
            print(packages.update(GUEST_PACKAGES, output))
    except subprocess.CalledProcessError as error:  # which has said why
        sys.exit(error.returncode)
    except (OSError, ValueError) as error:
        sys.exit(f"package: {error}")


if __name__ == "__main__":
    main()
