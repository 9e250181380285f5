#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Makes an update package of build/strake: the same tree gives the same bytes.

usage: package.py [--key FILE] [--base "VERSION=FILE ..."] [--guest "FILE ..."] [--output FILE]

It expires a year after the last commit (or SOURCE_DATE_EPOCH), its notes are this version's section of
CHANGELOG.md, and without a key it is not signed.
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
STRAKE = ROOT / "build" / "strake"
LIFE_DAYS = 365


def version():
    return subprocess.run([STRAKE, "version"], capture_output=True, text=True,
                          check=True).stdout.split()[1]


def expires():
    made = os.environ.get("SOURCE_DATE_EPOCH") or subprocess.run(
        ["git", "-C", ROOT, "log", "-1", "--format=%ct"], capture_output=True, text=True,
        check=True).stdout
    end = datetime.datetime.fromtimestamp(int(made), datetime.timezone.utc) + \
        datetime.timedelta(days=LIFE_DAYS)
    return end.strftime("%Y-%m-%dT%H:%M:%SZ")


def notes(name):
    """What CHANGELOG.md says of a version."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    match = re.search(rf"^## {re.escape(name)}\b.*?\n(.*?)(?=^## |\Z)", text, re.M | re.S)
    return match.group(1).strip() + "\n" if match else ""


def main():
    parser = argparse.ArgumentParser(description="Makes an update package of build/strake.")
    for option in ("key", "base", "guest", "output"):
        parser.add_argument(f"--{option}", default="")
    options = parser.parse_args()
    name = version()
    output = Path(options.output or ROOT / "build" / f"strake-{name}.strake")
    with tempfile.NamedTemporaryFile("w", encoding="utf-8") as file:
        file.write(notes(name))
        file.flush()
        command = [STRAKE, "package", "build", "--expires", expires(), "--notes", file.name]
        command += ["--key", options.key] if options.key else []
        command += [word for base in options.base.split() for word in ("--base", base)]
        command += [word for deb in options.guest.split() for word in ("--guest", deb)]
        status = subprocess.run([*command, output], check=False).returncode
    if status == 0:
        print(output)
        status = subprocess.run([STRAKE, "package", "show", output], stdout=subprocess.DEVNULL,
                                check=False).returncode
    sys.exit(status)


if __name__ == "__main__":
    main()
