#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""gdb-multiarch stops programs under `strake check --gdb` at their errors of memory, before memory
changes, and is shown what was found. The program is user/wrong.c."""

import shutil

from lib.debugged import Debugged, build
from lib.harness import Skipped, check, main, need


def stops(test, program, engine, what, kind, place):
    """The error is shown; a function is called; and the same error ends the program."""
    ran = Debugged(test, ["check", "--engine", engine], program, what).run(
        "continue", "backtrace", "call (int)getpid() > 0", "continue")
    check(ran.has(f"^==.*ERROR: Strake: {kind} ") and ran.has("received signal SIGTRAP"),
          f"gdb: is shown {kind} ({engine})")
    check(ran.has(rf"^#[01] .* in? ?{place} \(.*wrong.c:"), f"gdb: stops it in {place}")
    check(ran.has(r"^\$1 = 1$"), "gdb: calls a function there")
    check(ran.has(r"exited with code 0143\]") and ran.status == 99 and "end" not in ran.output
          and ran.output.count("ERROR: Strake") == 1,
          "gdb: the error ends the program when it goes on")


def changing(test, program):
    ran = Debugged(test, ["check", "--leaks", "no"], program, "overflow").run(
        "continue", r'printf "at %s, then %d\n", at, at[12]', "set $a0 = $a0 - 12", "continue")
    check(ran.has("^at 123456789, then 0$"), "gdb: sees memory through pointers, and no change")
    check("end\n" in ran.output and ran.status == 99,
          "gdb: what was put right goes on; the report stays one")


def going_on(test, program):
    ran = Debugged(test, ["check", "--no-halt", "--leaks", "no"], program, "overflow").run(
        "continue", "continue")
    check(ran.has("received signal SIGTRAP") and "end\n" in ran.output and ran.status == 99,
          "gdb: with --no-halt the program goes on from the error")
    ran = Debugged(test, ["check", "--leaks", "no"], program).run("continue")
    check(ran.has(r"exited with code 05\]") and not ran.has("SIGTRAP") and ran.status == 5,
          "gdb: where nothing is wrong nothing stops")


def check_gdb(test):
    if not shutil.which("gdb-multiarch"):
        raise Skipped("gdb-multiarch is missing")
    need("/usr/bin/riscv64-linux-gnu-gcc")
    program = build(test, "wrong", "-static", "-fno-builtin")
    for engine in "jit", "interp":
        stops(test, program, engine, "overflow", "heap-buffer-overflow", "overflow")
    stops(test, program, "jit", "copy", "heap-buffer-overflow", "copy")
    stops(test, program, "jit", "twice", "double-free", "twice")
    stops(test, program, "jit", "call", "syscall-buffer-overflow", "call")
    stops(test, program, "jit", "null", "null-dereference", "null")
    changing(test, program)
    going_on(test, program)


main(check_gdb)
