#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""System calls of `strake user`: one program of user/calls_*.c a family of calls, under both engines.

Each prints what it checked. What the same source prints as a program of this machine is what it has to
print: nothing in them depends on the architecture, but for user/calls_proc.c, which has no such reference.
Warnings of strake are no output of the program; a missing call or request is told once.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "lib"))

from harness import Skipped, check, main  # pylint: disable=wrong-import-position
import vm  # pylint: disable=wrong-import-position

SOURCES = Path(__file__).resolve().parent / "user"
COMPILER = "riscv64-linux-gnu-gcc"
ENGINES = ("interp", "jit")
TIMEOUT = 600  # seconds


def build(compiler, name, program, *flags):
    """Compiles a family's program."""
    command = [compiler, "-O1", "-Wall", "-Wextra", "-Wno-unused-result", *flags, str(SOURCES / f"{name}.c"),
               "-o", str(program), "-lrt", "-lpthread"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    check(done.returncode == 0 and not done.stderr, f"{name}.c compiles with {compiler} without warnings{done.stderr}")


def run(test, command, label, *arguments):
    """Runs a program in an empty folder; returns its status, what it printed, and its errors."""
    folder = test.folder / f"in-{label}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    done = subprocess.run([*command, *arguments], cwd=folder, stdin=subprocess.DEVNULL, timeout=TIMEOUT,
                          capture_output=True, text=True, env={**os.environ, "GIVEN": "this"}, check=False)
    return done.returncode, done.stdout, done.stderr


def compare(name, label, result, reference):
    """Whether a run printed what the reference did."""
    status, printed, errors = result
    wrong = [line for line in printed.splitlines() if not line.startswith("ok: ")][:-1]
    difference = f" (status {status}) {wrong} {errors}" if result[:2] != reference[:2] else ""
    check(not difference, f"{name} prints under {label} what it prints on this machine{difference}")


def family(test, name):
    """One program, here and under each engine."""
    native, program = test.folder / f"{name}-native", test.folder / name
    build("cc", name, native)
    build(COMPILER, name, program, "-static")
    reference = run(test, [str(native)], "native")
    count = sum(line.startswith("ok: ") for line in reference[1].splitlines())
    check(reference[0] == 0 and reference[1].endswith("\n0 failures\n"),
          f"{count} checks of {name} hold on this machine {reference[1] if reference[0] else ''}")
    for engine in ENGINES:
        result = run(test, [vm.strake(), "user", "--engine", engine, str(program)], engine)
        compare(name, engine, result, reference)
        if name == "calls_terminal":
            check(result[2].count("the request 0xdead of ioctl") == 1, "a request that is missing is told once")


def proc(test):
    """What there is of /proc: of a static program and of one with libraries."""
    for kind, flags in (("static", ("-static",)), ("dynamic", ())):
        program = test.folder / f"calls_proc-{kind}"
        build(COMPILER, "calls_proc", program, *flags)
        for engine in ENGINES:
            status, printed, errors = run(test, [vm.strake(), "user", "--engine", engine, str(program)], engine,
                                          str(program.resolve()), "one", "two")
            wrong = [line for line in printed.splitlines() if not line.startswith("ok: ")]
            check(status == 0 and printed.endswith("\n0 failures\n"),
                  f"/proc shows a {kind} program under {engine}{'' if status == 0 else f' {wrong} {errors}'}")


def calls(test):
    """All families; those in STRAKE_TEST_CALLS only, where that is set."""
    if not shutil.which(COMPILER):
        raise Skipped(f"there is no {COMPILER}")
    names = sorted(source.stem for source in SOURCES.glob("calls_*.c"))
    wanted = os.environ.get("STRAKE_TEST_CALLS", " ".join(names)).split()
    for name in names:
        if name in wanted and name != "calls_proc":
            family(test, name)
    if "calls_proc" in wanted:
        proc(test)


if __name__ == "__main__":
    main(calls)
