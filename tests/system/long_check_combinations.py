#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Thousands of programs with errors of memory, made of combinations (lib/check_combinations.py): at least 99 of
100 are reported as the right kind at the right line, and no corrected twin is.

usage: long_check_combinations.py [--count N] [--seed N] [--keep DIR] [--flags=FLAGS] [NAME ...]

NAME chooses the cases whose name holds it.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lib import check_combinations as combinations
from lib.harness import Failed, main
import vm

BATCH = 60  # cases a program
STATUS = 99
BUILDS = [["-O0"], ["-O1"], ["-O2"], ["-O0", "-static"], ["-O2", "-static"]]
ENOUGH = 0.99
PATIENCE = 300


def build(folder, name, cases, flags):
    """Compiles a program of the cases."""
    source, program = folder / f"{name}.cc", folder / name
    source.write_text(combinations.program(cases), encoding="utf-8")
    command = ["riscv64-linux-gnu-g++", "-g", "-w", "-fno-builtin", *flags, "-o", program, source]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failed(f"does not compile: {done.stderr[:2000]}")
    return program


def run(binary, program, case, way):
    """Status, reports and output of `strake check PROGRAM CASE WAY`."""
    report = f"{program}.{case}.{way}"
    command = [binary, "check", "--report=json", f"--report-file={report}", program, str(case), way]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
                              timeout=PATIENCE, check=False)
    except subprocess.TimeoutExpired:
        return 124, [], "did not end in time"
    found = []
    if os.path.exists(report):
        with open(report, encoding="utf-8") as lines:
            found = [json.loads(line) for line in lines if line.strip()]
        os.unlink(report)
    return done.returncode, found, done.stdout + done.stderr


def line_in(stack, source):
    """The innermost line of a stack that is in the source, with how deep the lines are."""
    return next((frame["line"] for frame in stack or []
                 if os.path.basename(frame.get("file") or "") == source and frame.get("line")), None)


def problem_of(case, status, found, source):
    """What is wrong with how a bad case was reported, or None."""
    if not found:
        return f"nothing reported, status {status}"
    first = found[0]
    if first["kind"] not in case.kinds:
        return f"reported as {first['kind']} in line {line_in(first.get('stack'), source)}"
    if status != STATUS:
        return f"ended with {status}"
    about = first.get("object") or {}
    for mark, stack in (("@", first.get("stack")), ("~", about.get("allocated")), ("%", about.get("freed"))):
        if stack and case.lines[mark]:
            line = line_in(stack, source)
            # Templates and lines that a call takes up are told by where the statement begins, or the call.
            if line not in case.lines[mark]:
                return f"'{mark}' in line {line}, not {sorted(case.lines[mark])}"
    return None


def run_batch(binary, folder, name, cases, flags):
    """What is wrong in a batch: (name of the case, build, what) each."""
    program = build(folder, name, cases, flags)
    label, source, wrong = " ".join(flags), f"{name}.cc", []
    status, found, text = run(binary, program, "all", "good")
    if found or status:
        for number, case in enumerate(cases):
            status, found, text = run(binary, program, number, "good")
            if found or status:
                wrong.append((case.name, label, "twin", f"{found[0]['kind']} in line "
                              f"{line_in(found[0].get('stack'), source)}" if found else f"status {status}: {text}"))
    for number, case in enumerate(cases):
        status, found, _ = run(binary, program, number, "bad")
        problem = problem_of(case, status, found, source)
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
    binary, wrong = str(vm.strake()), []

    builds = [options.flags.split()] if options.flags else BUILDS

    def do(index):
        return run_batch(binary, test.folder, f"batch{index}", batches[index], builds[index % len(builds)])

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
