#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""The same tree gives the same bytes: copies of it in two places, built by `make package` at different
times by users with other habits, give the same program, update package and Debian packages.

usage: reproducible.py STRAKE, which makes the key that both are signed with
"""
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DATE = "1767225600"
MADE = ("build/strake", "build/*.strake", "build/guest-packages/*.deb")


def files_of_the_tree():
    """What is under version control, or would be with the next commit; of a copy that has none, all but
    what was built."""
    listed = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
                            cwd=ROOT, capture_output=True, check=False)
    if listed.returncode == 0:
        return [name for name in map(os.fsdecode, listed.stdout.split(b"\0"))
                if name and (ROOT / name).is_file()]
    return [str(path.relative_to(ROOT)) for path in ROOT.rglob("*")
            if path.is_file() and path.relative_to(ROOT).parts[0] not in ("build", ".git")]


def build(folder, key, umask, **environment):
    """Copies the tree and makes its packages; returns what was made, by name."""
    for name in files_of_the_tree():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    # What an outer make has told this one is not for the inner one.
    outer = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    run = subprocess.run(["make", "-C", folder, "package", f"KEY={key}"], text=True, umask=umask,
                         env={**outer, "SOURCE_DATE_EPOCH": DATE, **environment}, check=False,
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if run.returncode != 0:
        sys.exit(f"{run.stdout[-4000:]}\nFAILED: `make package` in \"{folder}\": {run.returncode}")
    return {str(path.relative_to(folder)): path.read_bytes()
            for pattern in MADE for path in sorted(folder.glob(pattern))}


def difference(one, other):
    """Where two strings of bytes differ first, for people."""
    at = next((i for i, (a, b) in enumerate(zip(one, other)) if a != b), min(len(one), len(other)))
    return f"{len(one)} and {len(other)} bytes, of which byte {at} is the first that differs"


def main():
    with tempfile.TemporaryDirectory(prefix="strake-reproducible-") as scratch:
        scratch = Path(scratch)
        subprocess.run([sys.argv[1], "package", "keygen", "--no-password", scratch / "key"], check=True,
                       stdout=subprocess.DEVNULL)
        places = [scratch / "a", scratch / "some/where/with-a-longer-name"]
        one = build(places[0], scratch / "key.key", 0o022)
        # What ccache has of the first copy would be the same for sure.
        other = build(places[1], scratch / "key.key", 0o077, CCACHE_DISABLE="1", TZ="Asia/Tokyo",
                      LC_ALL="C.UTF-8", HOME=str(scratch), USER="somebody")
        faults = [f"{name} differs: {difference(one[name], other.get(name, b''))}"
                  for name in one if one[name] != other.get(name)]
        faults += [f"{name} has the name of the folder in it" for name in one
                   for place in places if os.fsencode(place) in one[name] + other.get(name, b"")]
        if sorted(one) != sorted(other) or len(one) != 4:
            faults.append(f"made were {sorted(one)} and {sorted(other)}")
    for name, content in one.items():
        print(f"{name}: {len(content)} bytes")
    print("\n".join(faults) or "ok: built in two places, all is the same, byte by byte")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
