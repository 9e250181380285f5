#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""STATE_SET_VERSION counts the sets of sections that saved states are made of.

tests/fixtures/state/sets.json has the versions of all sections for each set. The last one is what the
sources say now: who raises a section's version, adds a section or drops one raises STATE_SET_VERSION
and adds a set. Sets that a release had are never changed.
"""
import json
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
TABLE = re.compile(r"^(?:static )?const struct state_schema \w+ = \{(.*?)\};", re.M | re.S)


def sections():
    """Name and version of each table in src/."""
    found = {}
    for path in sorted((ROOT / "src").rglob("*.c")):
        text = path.read_text(encoding="utf-8")
        tables = TABLE.findall(text)
        started = re.findall(r"^(?:static )?const struct state_schema \w+ =", text, re.M)
        assert len(tables) == len(started), f"{path}: a table is not understood"
        for table in tables:
            name = re.search(r'\.name = "([\w-]+)"', table)
            version = re.search(r"\.version = (\d+)", table)
            assert name and version, f"{path}: a table without name or version: {table}"
            assert name.group(1) not in found, f"{path}: \"{name.group(1)}\" is taken"
            found[name.group(1)] = int(version.group(1))
    return found


def faults(sets, now, version):
    if [entry["set"] for entry in sets] != list(range(1, len(sets) + 1)):
        yield "sets.json: sets are not numbered from 1"
    for old, new in zip(sets, sets[1:]):
        if old["sections"] == new["sections"]:
            yield f"sets.json: set {new['set']} is the one before"
        for name, number in old["sections"].items():
            if new["sections"].get(name, number) < number:
                yield f"sets.json: \"{name}\" goes back to {new['sections'][name]}"
    if sets[-1]["set"] != version:
        yield f"STATE_SET_VERSION is {version}, and the last set is {sets[-1]['set']}"
    for name in sorted(now.keys() | sets[-1]["sections"].keys()):
        was, is_now = sets[-1]["sections"].get(name), now.get(name)
        if was != is_now:
            yield f"section \"{name}\" has version {is_now}, and {was} in set {sets[-1]['set']}: " \
                  "raise STATE_SET_VERSION (src/state/state.h) and add a set to sets.json"


def check_rules():
    """The rules find what they are to find."""
    first = {"set": 1, "sections": {"a": 1, "b": 2}}
    assert not list(faults([first], {"a": 1, "b": 2}, 1))
    for now, version in (({"a": 2, "b": 2}, 1), ({"a": 1}, 1), ({"a": 1, "b": 2, "c": 1}, 1),
                         ({"a": 1, "b": 2}, 2)):
        assert list(faults([first], now, version))
    assert list(faults([first, {"set": 2, "sections": {"a": 1, "b": 1}}], {"a": 1, "b": 1}, 2))
    assert list(faults([first, {"set": 3, "sections": {"a": 2, "b": 2}}], {"a": 2, "b": 2}, 3))


def main():
    check_rules()
    header = (ROOT / "src/state/state.h").read_text(encoding="utf-8")
    version = int(re.search(r"^#define STATE_SET_VERSION (\d+)", header, re.M).group(1))
    sets = json.loads((ROOT / "tests/fixtures/state/sets.json").read_text(encoding="utf-8"))
    now = sections()
    found = list(faults(sets, now, version))
    print("\n".join(found))
    print(f"checked {len(now)} sections of set {version}: {', '.join(sorted(now))}")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
