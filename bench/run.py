#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Runs a benchmark: bench/run.py NAME. Strake and the peers (QEMU; the host itself, where a benchmark
is for it, too) are measured in turns, guests on the same kernel and initramfs with the same memory and
harts; a row is the medians. The table goes to the screen and build/bench/NAME.json. A benchmark with a
main() of its own has other peers and its own table; it is left to itself.

From the environment: RUNS (3 or more), SCALE (of the work, where a benchmark has a size; 1 is all
of it, 0.1 a quick look), CPUS, MEMORY, STRAKE=PATH, QEMU=PATH; ENGINE=NAME and STRAKE_OPTIONS="..." are
for `strake run`, QEMU_OPTIONS="..." for QEMU.

For a look at a part, which writes no file and for which RUNS may be 1: ROWS="..." or KERNELS="..."
chooses what is measured, CONTESTANTS="..." of native, strake and qemu (or those of the benchmark's own) who is.
Names are separated by commas or, where they contain no space, by spaces.
"""

import dataclasses
import importlib
import json
import math
import os
import re
import shlex
import statistics
import subprocess
import sys
from pathlib import Path

BENCH = Path(__file__).resolve().parent
sys.path[:0] = [str(BENCH), str(BENCH.parent / "tools" / "guest"), str(BENCH.parent / "tools")]

import vm  # pylint: disable=wrong-import-position

OUTPUT = BENCH.parent / "build" / "bench"
CONTESTANTS = ("native", "strake", "qemu")


def choose(variable, names):
    """Those of `names` that an environment variable lists; all, if it is not set. A name may be
    given by its first word."""
    wanted = os.environ.get(variable) or ""
    words = [word for word in re.split(r"\s*,\s*" if "," in wanted else r"\s+", wanted) if word]
    for word in words:
        if not any(matches(word, name) for name in names):
            sys.exit(f"bench: {variable} has no '{word}'; there are: {', '.join(names)}")
    return [name for name in names if not words or any(matches(word, name) for word in words)]


def matches(word, name):
    return name == word or name.startswith(word + " ")


@dataclasses.dataclass
class Options:
    """What the environment asks for."""

    runs: int
    scale: float
    cpus: int
    memory: str
    contestants: list
    partial: bool
    strake_options: list

    def machine(self, **more):
        """The machine that all guests have."""
        return vm.Machine(cpus=self.cpus, memory=self.memory, more=self.strake_options, **more)


def options(contestants=CONTESTANTS):
    """Options from the environment."""
    try:
        runs = int(os.environ.get("RUNS") or 3)
        scale = float(os.environ.get("SCALE") or 1)
        cpus = int(os.environ.get("CPUS") or 1)
    except ValueError as error:
        sys.exit(f"bench: RUNS, SCALE or CPUS is no number: {error}")
    partial = any(os.environ.get(name) for name in ("ROWS", "KERNELS", "CONTESTANTS"))
    if runs < (1 if partial else 3) or scale <= 0 or cpus < 1:
        sys.exit("bench: a median needs RUNS of 3 at least; SCALE and CPUS are above 0")
    engine = os.environ.get("ENGINE")
    more = (["--engine", engine] if engine else []) + shlex.split(
        os.environ.get("STRAKE_OPTIONS") or "")
    return Options(runs, scale, cpus, os.environ.get("MEMORY") or "1G",
                   choose("CONTESTANTS", contestants), partial, more)


def command_of(contestant):
    """How a contestant makes a command line of a Machine; None for the host itself."""
    if contestant == "native":
        return None
    strake = contestant == "strake"
    path, variable = (vm.strake(), "STRAKE") if strake else (vm.qemu(), "QEMU")
    if not path or not os.access(path, os.X_OK):
        sys.exit(f"bench: cannot run '{path or os.environ.get('QEMU')}'; "
                 f"{variable}=PATH names another")
    if strake:
        return vm.Machine.strake_command
    more = shlex.split(os.environ.get("QEMU_OPTIONS") or "")
    return lambda machine: machine.qemu_command() + more


def qemu_version():
    """What QEMU calls itself."""
    if not vm.qemu():
        return "no QEMU"
    return subprocess.run([vm.qemu(), "--version"], capture_output=True, text=True, check=False).stdout.partition("\n")[0]


def measure(measure_one, chosen, native=False):
    """Samples by name of what is measured and contestant; the contestants take turns.
    measure_one(name, command of a Machine) returns {what: value}. `native` is whether the host is
    a contestant."""
    names = [name for name in chosen.contestants if native or name != "native"]
    commands = {name: command_of(name) for name in names}
    samples = {}
    for run in range(chosen.runs):
        for name, command in commands.items():
            print(f"run {run + 1} of {chosen.runs}, {name}:", flush=True)
            for what, value in measure_one(name, command).items():
                samples.setdefault(what, {}).setdefault(name, []).append(value)
    return samples


def row(what, unit, samples):
    """One row of the result. `ratio` is above 1 where Strake is faster than QEMU, whether the unit is
    the better the more it is (per second) or the less; ratio_native is how many times the host's own
    time Strake takes, qemu_ratio_native QEMU."""
    median = {name: statistics.median(values) for name, values in samples[what].items()}
    entry = {"name": what} | {name: round(median[name], 4) for name in CONTESTANTS if name in median}

    def slower(name, other):
        ratio = median[name] / median[other]
        return round(1 / ratio if unit.endswith("/s") else ratio, 4)

    for key, name, other in (("ratio_native", "strake", "native"),
                             ("qemu_ratio_native", "qemu", "native"), ("ratio", "qemu", "strake")):
        if name in median and other in median:
            entry[key] = slower(name, other)
    return entry | {"unit": unit}


# How the table calls them.
RATIOS = {"ratio_native": "times native's time", "qemu_ratio_native": "QEMU: times native's",
          "ratio": "times QEMU's speed"}


def geomean(values):
    return round(math.exp(statistics.fmean(map(math.log, values))), 4)


def table(result):
    """Lines of the table, as Markdown has it."""
    rows = result["rows"]
    figures = [name for name in CONTESTANTS if name in rows[0]]
    ratios = [name for name in RATIOS if name in rows[0]]
    lines = [["", *figures, "unit", *(RATIOS[name] for name in ratios)]]
    lines += [[entry["name"], *(f"{entry[name]:.3f}" for name in figures), entry["unit"],
               *(f"{entry[name]:.2f}" for name in ratios)] for entry in rows]
    if ratios:
        lines.append(["geometric mean", *[""] * len(figures), "",
                      *(f"{result['geomean_' + name]:.2f}" for name in ratios)])
    widths = [max(map(len, column)) for column in zip(*lines)]
    lines.insert(1, ["-" * width for width in widths])
    return ["| " + " | ".join(cell.ljust(width) if at in (0, len(figures) + 1) else cell.rjust(width)
                              for at, (cell, width) in enumerate(zip(line, widths))) + " |"
            for line in lines]


def report(bench, rows, goals, partial):
    """Prints the table and what is to be reached, and writes the file. goals(result) adds figures to
    the result and returns [(what, value, sign, bound)]."""
    result = {"bench": bench, "rows": rows}
    for ratio in RATIOS:
        if ratio in rows[0]:
            result["geomean_" + ratio] = geomean(entry[ratio] for entry in rows)
    print("", *table(result), sep="\n")
    if partial:
        return
    print("\nto reach")
    for what, value, sign, bound in goals(result):
        reached = value >= bound if sign == ">=" else value <= bound
        print(f"  {what:50} {value:8.3f}  {sign} {bound:g}  {'reached' if reached else 'MISSED'}")
    OUTPUT.mkdir(parents=True, exist_ok=True)
    path = OUTPUT / f"{bench}.json"
    path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(f"in {path.relative_to(BENCH.parent)}")


def main():
    benches = sorted(path.stem for path in BENCH.glob("*.py") if path.stem != "run")
    if len(sys.argv) != 2 or sys.argv[1] not in benches:
        sys.exit(f"usage: bench/run.py NAME; there are: {', '.join(benches)}")
    name = sys.argv[1]
    module = importlib.import_module(name)
    chosen = options(getattr(module, "MEASURED", CONTESTANTS))
    if hasattr(module, "main"):
        module.main(chosen, OUTPUT)
        return
    print(f"{name}: {shlex.join([vm.strake(), *chosen.strake_options])} against "
          f"{qemu_version()}\n{chosen.cpus} hart(s), {chosen.memory}, {chosen.runs} runs each, "
          f"scale {chosen.scale:g}", flush=True)
    try:
        report(name, module.run(chosen), module.goals, chosen.partial)
    except (vm.Timeout, OSError, ValueError, subprocess.CalledProcessError) as error:
        sys.exit(f"bench: {error}")


if __name__ == "__main__":
    main()
