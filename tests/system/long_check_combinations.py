#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Thousands of programs with errors of memory, made of combinations (lib/check_combinations.py): at least 99 of
100 are reported as the right kind at the right line, and no corrected twin is.

usage: long_check_combinations.py [--count N] [--seed N] [--keep DIR] [--flags=FLAGS] [NAME ...]

NAME chooses the cases whose name holds it.
"""

import argparse
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lib import check_combinations as combinations
from lib import check_tools as tools
from lib.harness import Failed, main
import vm

BATCH = 60  # cases a program
BUILDS = [["-O0"], ["-O1"], ["-O2"], ["-O0", "-static"], ["-O2", "-static"]]
ENOUGH = 0.99


def build(folder, name, cases, flags):
    """Compiles a program of the cases."""
    source, program = folder / f"{name}.cc", folder / name
    source.write_text(combinations.program(cases), encoding="utf-8")
    command = ["riscv64-linux-gnu-g++", "-g", "-w", "-fno-builtin", *flags, "-o", program, source]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failed(f"does not compile: {done.stderr[:2000]}")
    return program


def problem_of(case, run, source):
    """What is wrong with how a bad case was reported, or None."""
    if not run.findings:
        return f"nothing reported, {tools.name_of(run.status)}"
    found = run.findings[0]
    if not found.kinds & case.kinds:
        return f"reported as {found.say(source)}"
    if run.status != tools.STATUS:
        return f"ended with {tools.name_of(run.status)}"
    for mark in found.frames:
        # Templates and lines that a call takes up are told by where the statement begins, or the call.
        line = found.line(mark, source)
        if case.lines[mark] and line not in case.lines[mark]:
            return f"'{mark}' in line {line}, not {sorted(case.lines[mark])}"
    return None


def problem_of_twin(run, source):
    """What is wrong with the run of a corrected twin, or None."""
    if run.findings:
        return run.findings[0].say(source)
    return f"{tools.name_of(run.status)}: {run.text}" if run.status else None


def run_batch(strake, folder, name, cases, flags):
    """What is wrong in a batch: (name of the case, build, what) each."""
    program = build(folder, name, cases, flags)
    label, source, wrong = " ".join(flags), f"{name}.cc", []
    if problem_of_twin(strake.run(program, cases[0], folder, "all", "good"), source):
        for number, case in enumerate(cases):
            problem = problem_of_twin(strake.run(program, case, folder, str(number), "good"), source)
            if problem:
                wrong.append((case.name, label, "twin", problem))
    for number, case in enumerate(cases):
        problem = problem_of(case, strake.run(program, case, folder, str(number), "bad"), source)
        if problem:
            wrong.append((case.name, label, "bad", problem))
    return wrong


def suite(test):
    """Makes, runs and judges the cases."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--flags", help="of the compiler, instead of several in turn")
    parser.add_argument("names", nargs="*")
    options = parser.parse_args()
    cases = combinations.combinations(options.count, options.seed)
    cases = [case for case in cases if not options.names or any(name in case.name for name in options.names)]
    batches = [cases[i:i + BATCH] for i in range(0, len(cases), BATCH)]
    strake, wrong = tools.Strake(str(vm.strake())), []

    builds = [options.flags.split()] if options.flags else BUILDS

    def do(index):
        return run_batch(strake, test.folder, f"batch{index}", batches[index], builds[index % len(builds)])

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for found in pool.map(do, range(len(batches))):
            for case, label, way, problem in found:
                print(f"  {case} ({way}, {label}): {problem}", flush=True)
            wrong += found
    if options.keep:
        shutil.copytree(test.folder, options.keep, dirs_exist_ok=True)
    false = sum(way == "twin" for _, _, way, _ in wrong)
    missed = len(wrong) - false
    print(f"{len(cases)} cases: {missed} not reported as they have to be, {false} twins reported")
    if false or missed > (1 - ENOUGH) * len(cases):
        raise Failed(f"{missed} cases were not reported as they have to be, {false} twins were reported")
    print(f"ok: {len(cases)} cases")


if __name__ == "__main__":
    main(suite)
