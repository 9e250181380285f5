#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""bench/leverage.py makes its table, its goals and its file of all that it measures. Nothing is measured here: the
figures are made up, and guestmount is not there."""

import contextlib
import json
import sys
import tempfile
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bench"))

import run as bench  # pylint: disable=wrong-import-position
import leverage  # pylint: disable=wrong-import-position

NETWORK = {"host": 10.0, "qemu": 2.0, "strake": 8.0}
OPENS = {"fresh": 300.0, "cached": 4000.0, "beside": 90000.0, "latency_p50": 100.0, "latency_p99": 200.0}


@contextlib.contextmanager
def below(who):
    """A contestant whose interface has its name."""
    yield who


def measure(_outside, inner, _seconds):
    """All rows of the network have one figure."""
    return {name: NETWORK[inner] for name, _, _ in leverage.NETWORK}


def measure_mount(kind, _scale):
    """guestmount cannot run."""
    if kind is leverage.mount.Guestmount:
        raise leverage.mount.Failed("it is not there")
    return {name: 2.0 for name in leverage.mount.UNITS}


def result(folder):
    """What the benchmark writes."""
    options = bench.Options(runs=3, scale=1, cpus=1, memory="1G", contestants=["native", "strake", "qemu"],
                            partial=False, strake_options=[])
    between = {who: lambda *_, who=who: below(who) for who in leverage.CONTESTANTS}
    with mock.patch.multiple(leverage, measure=measure, measure_files=lambda *_: OPENS, BETWEEN=between, run=mock.Mock(),
                             namespaces=mock.Mock(), appliance=mock.Mock(), os=mock.Mock()), \
         mock.patch.object(leverage.namespaces, "Unavailable", OSError), \
         mock.patch.object(leverage.mount, "measure", measure_mount), \
         mock.patch.object(bench, "OUTPUT", folder), mock.patch.object(bench, "command_of"):
        leverage.main(options, folder)
    return json.loads((folder / "leverage.json").read_text(encoding="utf-8"))


def main():
    with tempfile.TemporaryDirectory(prefix="strake-bench-") as folder:
        rows = {row["name"]: row for row in result(Path(folder, "build", "bench"))["rows"]}
    for name in ("tcp", "pps64"):
        assert rows[name]["host"] == 10 and rows[name]["strake"] == 8 and rows[name]["qemu"] == 2, rows[name]
        assert rows[name]["ratio"] == 4, rows[name]
    for name in ("latency_p50", "latency_p99"):  # what is added is compared: here both are faster than the host
        assert rows[name]["ratio"] == 4, rows[name]
    assert rows["files_cached"]["host"] == 90000 and rows["files_cached"]["strake"] == 4000, rows["files_cached"]
    assert rows["mount_time"]["strake"] == 2 and "guestmount" not in rows["mount_time"], rows["mount_time"]
    assert all(row["unit"] for row in rows.values())
    print(f"{len(rows)} rows: {', '.join(rows)}")


main()
