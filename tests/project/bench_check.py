#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""bench/check.py compiles and runs kernels under all contestants, and makes its table, its means and its file of that;
it refuses figures of a program that fails or computes something else. In Strake's place stands a script that has
qemu-riscv64 do its work."""

import contextlib
import io
import json
import os
import stat
import sys
import tempfile
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bench"))

import run as bench  # pylint: disable=wrong-import-position
import check  # pylint: disable=wrong-import-position

# strake user|check -L SYSROOT PROGRAM ROUNDS
STAND_IN = """#!/bin/sh
command=$1
shift
{odd}
exec qemu-riscv64 "$@"
"""


def run(folder, odd=""):
    """What the benchmark writes of two kernels, one of which counts as allocating; and what it prints."""
    strake = folder / "strake"
    strake.write_text(STAND_IN.format(odd=odd), encoding="ascii")
    strake.chmod(strake.stat().st_mode | stat.S_IXUSR)
    options = bench.Options(runs=1, scale=1, cpus=1, memory="1G", contestants=list(check.MEASURED), partial=False,
                            strake_options=[])
    output, said = folder / "build" / "bench", io.StringIO()
    with mock.patch.multiple(check, ROUNDS={"search": 1, "stream": 1}, ALLOCATING={"search": 1}), \
         mock.patch.dict(os.environ, {"STRAKE": str(strake)}), contextlib.redirect_stdout(said):
        check.main(options, output)
    return json.loads((output / "check.json").read_text(encoding="utf-8")), said.getvalue()


def refused(folder, odd):
    """Why it ends without figures."""
    try:
        run(folder, odd)
    except SystemExit as end:
        assert not (folder / "build" / "bench" / "check.json").exists()
        return str(end.code)
    raise AssertionError(f"figures in spite of '{odd}'")


def made_up(checked):
    """Two rows of made-up figures."""
    times = {"native": 1.0, "asan": 2.0, "memcheck": 40.0, "qemu": 8.0, "strake": 2.0}
    peaks = {"strake": [100], "checked": [120]}
    return [check.row(name, {who: [value] for who, value in (times | {"checked": one}).items()}, peaks)
            for name, one in zip(("tree", "sort"), checked)]


def main():
    with tempfile.TemporaryDirectory(prefix="strake-bench-") as folder:
        folder = Path(folder)
        print("refused:", refused(folder, "[ $command = user ] || { echo checksum 0; exit; }"))
        print("refused:", refused(folder, "[ $command = user ] || exit 99"))
        result, said = run(folder)
    print(said)
    assert {row["name"] for row in result["rows"]} == {"search", "stream"}, result
    for row in result["rows"]:
        assert all(row[who] > 0 for who in check.MEASURED) and row["unit"] == "s", row
        assert ("memory_checked_over_unchecked" in row) == (row["name"] == "search"), row
    for name, _, _ in check.GOALS:
        assert result[name] > 0 and name in said, name

    result = check.means(made_up((2.0, 8.0)))
    assert result["checked_over_unchecked"] == 2 and result["unchecked_over_native"] == 2, result
    assert result["memcheck_over_checked"] == 10 and result["qemu_over_checked_min"] == 1, result
    assert result["memory_checked_over_unchecked_max"] == 1.2, result


main()
