#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Rooms stand on each other in one order, and are entered by their public header only.

The order is the table of rooms in docs/architecture.md, from the ground up.
"""
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src"


def room_order():
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    return re.findall(r"^\| `(\w+)/` \|", text, re.M)


def included(path):
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        match = re.match(r'\s*#\s*include\s+"([^"]+)"', line)
        if match:
            yield number, match.group(1)


def fault_of(room, target, order):
    """What is wrong with room including target, or None."""
    if "/" not in target:
        return None  # a file of its own folder, or generated
    other, _, name = target.partition("/")
    if other not in order:
        return f"includes \"{target}\", which is no room's"
    if other == room:
        return None
    if name != f"{other}.h":
        return f"includes \"{target}\", which is not {other}'s public header"
    if order.index(other) > order.index(room):
        return f"includes \"{target}\", but {other} stands above {room}"
    return None


def check_rules():
    """The rules find what they are to find."""
    order = ["base", "memory", "hart"]
    assert fault_of("memory", "hart/hart.h", order)
    assert fault_of("hart", "memory/map.h", order)
    assert fault_of("hart", "elsewhere/x.h", order)
    assert not fault_of("hart", "memory/memory.h", order)
    assert not fault_of("hart", "hart/fpu.h", order)


def main():
    check_rules()
    order = room_order()
    faults = []
    rooms = sorted(path.name for path in SOURCE.iterdir() if path.is_dir())
    for room in rooms:
        if room not in order:
            faults.append(f"src/{room}: not in the table of rooms in docs/architecture.md")
            continue
        for needed in (f"{room}.h", "README.md"):
            if not (SOURCE / room / needed).is_file():
                faults.append(f"src/{room}: has no {needed}")
        for path in sorted((SOURCE / room).rglob("*.[ch]")):
            for number, target in included(path):
                fault = fault_of(room, target, order)
                if fault:
                    faults.append(f"{path.relative_to(ROOT)}:{number}: {fault}")
    print("\n".join(faults))
    print(f"checked {len(rooms)} rooms: {', '.join(rooms)}")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
