# SPDX-License-Identifier: BSD-2-Clause
"""check: what it costs to check each memory access of a program. The kernels of bench/kernels/, those of BENCH=native
and others that allocate much, compiled for the host and for riscv64 with the same flags, dynamically linked, are run
natively, with AddressSanitizer, below Valgrind's Memcheck, below qemu-riscv64, and below Strake without and with
checks. A time is that of the whole process. Where a program allocates much, the peak of memory that Strake has in use
with checks is compared with that without.

ROWS="sort tree" (or KERNELS) runs only these; CONTESTANTS chooses of native, asan, memcheck, qemu, strake and checked.
"""

import json
import os
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import native
import run as bench
import vm

MEASURED = ("native", "asan", "memcheck", "qemu", "strake", "checked")

# How many rounds take the host about a second. Those of ALLOCATING are all here; each tells its peak of memory, too.
ALLOCATING = {"objects": 4, "tree": 1, "strings": 3}
ROUNDS = native.ROUNDS | ALLOCATING

SYSROOT = "/usr/riscv64-linux-gnu"  # of Debian's cross compiler
FLAGS = [flag for flag in native.FLAGS if flag != "-static"]
COMPILERS = {"host": ["gcc"], "asan": ["gcc", "-fsanitize=address"], "riscv64": [native.COMPILERS["riscv64"]]}

# Whose program each runs, and what goes before it on the command line.
PROGRAMS = {"native": "host", "asan": "asan", "memcheck": "host", "qemu": "riscv64", "strake": "riscv64",
            "checked": "riscv64"}


def prefix(who, options):
    """Ends the program when the contestant is not here."""
    words = {"memcheck": [shutil.which("valgrind") or "valgrind", "--quiet", "--error-exitcode=99"],
             "qemu": [shutil.which("qemu-riscv64") or "qemu-riscv64", "-L", SYSROOT],
             "strake": [vm.strake(), "user", "-L", SYSROOT, *options.strake_options],
             "checked": [vm.strake(), "check", "-L", SYSROOT, *options.strake_options]}.get(who, [])
    if words and not os.access(words[0], os.X_OK):
        sys.exit(f"bench: cannot run '{words[0]}'; `make setup` installs the peers, STRAKE=PATH names another strake")
    return words


def compile_all(names, folder):
    """folder/KIND/NAME of each kernel, for each kind of COMPILERS."""
    for kind, compiler in COMPILERS.items():
        (folder / kind).mkdir(parents=True, exist_ok=True)
        for name in names:
            subprocess.run([*compiler, *FLAGS, "-o", str(folder / kind / name), str(native.KERNELS / f"{name}.c"),
                            str(native.KERNELS / "main.c"), "-lm"], check=True)


def run_one(command):
    """What the command prints, its seconds, and its peak of memory in MiB, or that of this process if it is less (a
    process begins as a copy). ValueError: it fails."""
    began = time.perf_counter()
    with tempfile.TemporaryFile() as said, subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT,
                                                            stdin=subprocess.DEVNULL) as process:
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        said.seek(0)
        output = said.read().decode(errors="replace")
    if process.returncode != 0:
        raise ValueError(f"'{shlex.join(command)}' ended with status {process.returncode}: {output.strip()[-2000:]}")
    return output, seconds, usage.ru_maxrss / 1024


def measure(rounds, folder, options):
    """Seconds and MiB by kernel and contestant, [one a run] each; contestants take turns. ValueError: one computed
    something else than the others."""
    prefixes = {who: prefix(who, options) for who in options.contestants}
    seconds, peaks, outputs = {}, {}, {}
    for turn in range(options.runs):
        for name, count in rounds.items():
            said = []
            for who, words in prefixes.items():
                output, took, peak = run_one([*words, str(folder / PROGRAMS[who] / name), str(count)])
                if outputs.setdefault(name, output) != output or not output.startswith("checksum "):
                    raise ValueError(f"'{name}' printed '{output.strip()}' as {who}, and '{outputs[name].strip()}' "
                                     "before that")
                seconds.setdefault(name, {}).setdefault(who, []).append(took)
                peaks.setdefault(name, {}).setdefault(who, []).append(peak)
                said.append(f"{who} {took:.3f}")
            print(f"run {turn + 1} of {options.runs}, {name}: {', '.join(said)} s", flush=True)
    return seconds, peaks


def row(name, seconds, peaks):
    """One row of the result."""
    entry = {"name": name} | {who: round(statistics.median(seconds[who]), 4) for who in MEASURED if who in seconds}
    entry["unit"] = "s"
    if name in ALLOCATING and {"strake", "checked"} <= peaks.keys():
        median = {who: statistics.median(peaks[who]) for who in ("strake", "checked")}
        entry |= {f"{who}_peak_mib": round(value, 1) for who, value in median.items()}
        entry["memory_checked_over_unchecked"] = round(median["checked"] / median["strake"], 4)
    return entry


RATIOS = {"checked_over_unchecked": ("checked", "strake"), "unchecked_over_native": ("strake", "native"),
          "memcheck_over_checked": ("memcheck", "checked"), "asan_over_native": ("asan", "native"),
          "checked_over_native": ("checked", "native"), "qemu_over_checked": ("qemu", "checked")}


def means(rows):
    """The geometric means that can be told of these rows, the row where checked is nearest to QEMU, and the one where it
    takes most memory."""
    result = {name: bench.geomean(entry[one] / entry[other] for entry in rows)
              for name, (one, other) in RATIOS.items() if one in rows[0] and other in rows[0]}
    if "qemu_over_checked" in result:
        result["qemu_over_checked_min"] = round(min(entry["qemu"] / entry["checked"] for entry in rows), 4)
    memory = [entry["memory_checked_over_unchecked"] for entry in rows if "memory_checked_over_unchecked" in entry]
    if memory:
        result["memory_checked_over_unchecked_max"] = max(memory)
    return result


# What is to be reached.
GOALS = [("checked_over_unchecked", "<=", 1.6), ("unchecked_over_native", "<=", 2.0), ("memcheck_over_checked", ">=", 4),
         ("qemu_over_checked_min", ">", 1), ("memory_checked_over_unchecked_max", "<=", 1.5)]
REACHED = {"<=": float.__le__, ">=": float.__ge__, ">": float.__gt__}


def table(rows):
    """Lines of the table, as Markdown has it."""
    figures = [who for who in MEASURED if who in rows[0]]
    ratios = [name for name in ("checked_over_unchecked", "unchecked_over_native", "memcheck_over_checked",
                                "qemu_over_checked") if {*RATIOS[name]} <= rows[0].keys()]
    memory = any("memory_checked_over_unchecked" in entry for entry in rows)
    lines = [["", *figures, "unit", *(name.replace("_over_", " / ") for name in ratios),
              *(["MiB strake", "MiB checked", "memory"] if memory else [])]]
    for entry in rows:
        lines.append([entry["name"], *(f"{entry[who]:.3f}" for who in figures), entry["unit"],
                      *(f"{entry[RATIOS[name][0]] / entry[RATIOS[name][1]]:.2f}" for name in ratios)])
        if memory:
            lines[-1] += [f"{entry[key]:.2f}" if key in entry else "" for key in
                          ("strake_peak_mib", "checked_peak_mib", "memory_checked_over_unchecked")]
    widths = [max(map(len, column)) for column in zip(*lines)]
    lines.insert(1, ["-" * width for width in widths])
    return ["| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths)) + " |" for line in lines]


def report(rows, options, output):
    """Prints the table and what is to be reached; writes the file when all was measured."""
    result = {"bench": "check", "rows": rows} | means(rows)
    print("", *table(rows), "", sep="\n")
    for name in RATIOS:
        if name in result:
            print(f"geometric mean of {name}: {result[name]:.3f}")
    if options.partial:
        return
    print("\nto reach")
    for name, sign, bound in GOALS:
        reached = REACHED[sign](float(result[name]), float(bound))
        print(f"  {name:36} {result[name]:8.3f}  {sign:2} {bound:g}  {'reached' if reached else 'MISSED'}")
    output.mkdir(parents=True, exist_ok=True)
    path = output / "check.json"
    path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(f"in {path.relative_to(path.parents[2])}")


def main(options, output):
    """See bench/run.py."""
    chosen = [name for name in bench.choose("ROWS", ROUNDS) if name in bench.choose("KERNELS", ROUNDS)]
    if not chosen:
        sys.exit("bench: no row is in both ROWS and KERNELS")
    rounds = {name: max(1, round(ROUNDS[name] * options.scale)) for name in chosen}
    print(f"check: {vm.strake()}, {', '.join(options.contestants)}, {options.runs} runs each, scale {options.scale:g}",
          flush=True)
    try:
        with tempfile.TemporaryDirectory(prefix="strake-bench-") as folder:
            compile_all(rounds, Path(folder))
            seconds, peaks = measure(rounds, Path(folder), options)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        sys.exit(f"bench: {error}")
    report([row(name, seconds[name], peaks[name]) for name in rounds], options, output)
