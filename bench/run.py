#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Runs a benchmark: bench/run.py NAME. Strake and the peer, QEMU, are measured in turns on the same
kernel and initramfs with the same memory and harts; a row is the medians of both. The table goes
to the screen and build/bench/NAME.json. A benchmark with a main() of its own has other peers and its
own table; it is left to itself.

From the environment: RUNS (3 or more), SCALE (of the work, where a benchmark has a size; 1 is all
of it, 0.1 a quick look), CPUS, MEMORY, STRAKE=PATH, QEMU=PATH.
"""

import dataclasses
import importlib
import json
import math
import os
import statistics
import subprocess
import sys
from pathlib import Path

BENCH = Path(__file__).resolve().parent
sys.path[:0] = [str(BENCH), str(BENCH.parent / "tools" / "guest")]

import vm  # pylint: disable=wrong-import-position

OUTPUT = BENCH.parent / "build" / "bench"


@dataclasses.dataclass
class Options:
    """What the environment asks for."""

    runs: int
    scale: float
    cpus: int
    memory: str


def options():
    """Options from the environment."""
    try:
        runs = int(os.environ.get("RUNS") or 3)
        scale = float(os.environ.get("SCALE") or 1)
        cpus = int(os.environ.get("CPUS") or 1)
    except ValueError as error:
        sys.exit(f"bench: RUNS, SCALE or CPUS is no number: {error}")
    if runs < 3 or scale <= 0 or cpus < 1:
        sys.exit("bench: a median needs RUNS of 3 at least; SCALE and CPUS are above 0")
    return Options(runs, scale, cpus, os.environ.get("MEMORY") or "1G")


def contestants():
    """[(name, how it makes a command line of a Machine)]."""
    for path, variable in ((vm.strake(), "STRAKE"), (vm.qemu(), "QEMU")):
        if not path or not os.access(path, os.X_OK):
            sys.exit(f"bench: cannot run '{path or os.environ.get('QEMU')}'; "
                     f"{variable}=PATH names another")
    return [("strake", vm.Machine.strake_command), ("qemu", vm.Machine.qemu_command)]


def measure(measure_one, runs):
    """Samples by name of what is measured and contestant; the contestants take turns.
    measure_one(name, command of a Machine) returns {what: value}."""
    samples = {}
    for run in range(runs):
        for name, command in contestants():
            print(f"run {run + 1} of {runs}, {name}:", flush=True)
            for what, value in measure_one(name, command).items():
                samples.setdefault(what, {}).setdefault(name, []).append(value)
    return samples


def row(what, unit, samples):
    """One row of the result. A unit per second is the better the more it is, others the less."""
    strake, qemu = (statistics.median(samples[what][name]) for name in ("strake", "qemu"))
    ratio = strake / qemu if unit.endswith("/s") else qemu / strake
    return {"name": what, "strake": round(strake, 4), "qemu": round(qemu, 4),
            "ratio": round(ratio, 4), "unit": unit}


def report(bench, rows):
    """Prints the table and writes the file."""
    geomean = math.exp(statistics.fmean(math.log(entry["ratio"]) for entry in rows))
    width = max(len(entry["name"]) for entry in rows)
    print(f"\n{'':{width}}  {'strake':>10}  {'qemu':>10}  {'unit':<5}  ratio (above 1: faster)")
    for entry in rows:
        print(f"{entry['name']:{width}}  {entry['strake']:10.3f}  {entry['qemu']:10.3f}  "
              f"{entry['unit']:<5}  {entry['ratio']:.3f}")
    print(f"{'geometric mean':{width}}  {'':10}  {'':10}  {'':5}  {geomean:.3f}")
    OUTPUT.mkdir(parents=True, exist_ok=True)
    path = OUTPUT / f"{bench}.json"
    path.write_text(json.dumps({"bench": bench, "rows": rows, "geomean_ratio": round(geomean, 4)},
                               indent=2) + "\n", encoding="utf-8")
    print(f"in {path.relative_to(BENCH.parent)}")


def main():
    benches = sorted(path.stem for path in BENCH.glob("*.py") if path.stem != "run")
    if len(sys.argv) != 2 or sys.argv[1] not in benches:
        sys.exit(f"usage: bench/run.py NAME; there are: {', '.join(benches)}")
    name = sys.argv[1]
    chosen = options()
    module = importlib.import_module(name)
    if hasattr(module, "main"):
        module.main(chosen, OUTPUT)
        return
    peer = subprocess.run([vm.qemu() or "false", "--version"], capture_output=True, text=True,
                          check=False).stdout.partition("\n")[0]
    print(f"{name}: {vm.strake()} against {peer or 'no QEMU'}\n{chosen.cpus} hart(s), "
          f"{chosen.memory}, {chosen.runs} runs each, scale {chosen.scale:g}", flush=True)
    try:
        report(name, module.run(chosen, measure, row))
    except (vm.Timeout, OSError, ValueError, subprocess.CalledProcessError) as error:
        sys.exit(f"bench: {error}")


if __name__ == "__main__":
    main()
