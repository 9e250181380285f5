#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""gcc and g++ with their cc1, cc1plus, as and ld, and what looks into their files: programs are built and then run."""

import shutil

from lib.harness import check
from lib.programs import SCRIPTS, SYSROOT, main, same

WANTED = ("apple fig pear, 1229 primes, 5 100\n2.255684547181 2.500 0x1.999999999999ap-4 0.333333\n10000 word 7\n"
          "the end: No such file or directory\nstatus 42\n")
WANTED_CPP = """left guarded
left guarded
left guarded
caught: no shape: heap of 9
left guarded
box 1.000
box 12.000
circle 12.566
4850 keys, at most 5, key 0
799980004 6 ab
thrown in a thread
status 7
"""
WRONG = """int f(int n)
{
    return m + n
}
"""


def gcc(programs):
    # What links programs looks for files with a call that qemu-riscv64 does not lead into the sysroot.
    programs.ours["LIBRARY_PATH"] = str(SYSROOT / "usr/lib/riscv64-linux-gnu")
    shutil.copytree(SCRIPTS / "gcc", programs.folder, dirs_exist_ok=True)
    for name, words in {"dynamic": ["-O0", "-g"], "optimised": ["-O2"], "static": ["-O2", "-static"]}.items():
        programs.output("gcc", "-Wall", "-Wextra", "-Werror", *words, "-DVALUE=7", "-o", name, "main.c", "sieve.c",
                        "-lm", "-pthread")
        same(f"{name}: what it built runs", ended(programs, name, "word"), WANTED)
    cplusplus(programs)
    step_by_step(programs)
    libraries(programs)
    same("without libc", assembled(programs), "no libc!\nstatus 6\n")
    (programs.folder / "wrong.c").write_text(WRONG, encoding="utf-8")
    status, _, errors = programs.run("gcc", "-c", "wrong.c")
    check(status == 1 and b"wrong.c:3:12: error: 'm' undeclared" in errors.replace("‘".encode(), b"'").replace(
        "’".encode(), b"'"), "a mistake is told, with line and column")
    check(programs.run("gcc", "missing.c")[0] == 1, "a missing file too")


def ended(programs, name, *words):
    """What a program that was built writes, and its status."""
    status, output, errors = programs.run(programs.folder / name, *words)
    return f"{(output + errors).decode()}status {status}\n"


def cplusplus(programs):
    """Objects of two sources; then a program with the library, and one that has all in itself."""
    for name in ("main", "shapes"):
        programs.output("g++", "-std=c++20", "-Wall", "-Wextra", "-O2", "-c", f"{name}.cpp", "-o", f"{name}++.o")
    for name, words in {"dynamic++": [], "static++": ["-static"]}.items():
        programs.output("g++", *words, "-o", name, "main++.o", "shapes++.o", "-pthread")
        same(f"{name}: C++, -O2", ended(programs, name), WANTED_CPP)


def step_by_step(programs):
    """Each program by itself."""
    said = programs.output("gcc", "-E", "-P", "-", given=b"#define twice(x) ((x) * 2)\nint n = twice(__riscv_xlen);\n")
    same("preprocessor", said.decode(), "int n = ((64) * 2);\n")
    cc1 = programs.output("gcc", "-print-prog-name=cc1").decode().strip()
    programs.output(programs.folder / cc1, "-quiet", "-imultiarch", "riscv64-linux-gnu", "-march=rv64gc", "-mabi=lp64d", "-O2",
                    "-DVALUE=7", "main.c", "-o", "main.s")
    programs.output("as", "main.s", "-o", "main.o")
    programs.output("gcc", "-O2", "-ffunction-sections", "-c", "sieve.c")
    programs.output("gcc", "-Wl,--gc-sections,-Map=map", "-o", "linked", "main.o", "sieve.o", "-lm")
    same("cc1, as and ld, one after the other", ended(programs, "linked", "word"), WANTED)
    check("sieve_count" in (programs.folder / "map").read_text(encoding="utf-8"), "ld's map")
    listing = programs.output("objdump", "-d", "sieve.o").decode()
    check("<sieve_count>:" in listing and "ret" in listing, "objdump reads what as wrote")
    programs.output("strip", "-o", "stripped", "linked")
    same("a stripped program", ended(programs, "stripped", "word"), WANTED)
    check(b"RISC-V" in programs.output("readelf", "-h", "stripped"), "readelf names the machine")


def libraries(programs):
    """An archive, and a library that is loaded."""
    programs.output("gcc", "-c", "-fPIC", "sieve.c")
    programs.output("ar", "rcs", "libsieve.a", "sieve.o")
    check(b"T sieve_count" in programs.output("nm", "libsieve.a"), "ar and nm")
    programs.output("gcc", "-DVALUE=7", "main.c", "-L.", "-l:libsieve.a", "-lm", "-o", "archived")
    same("a program with an archive", ended(programs, "archived", "word"), WANTED)
    programs.output("gcc", "-shared", "-o", "libsieve.so", "sieve.o")
    programs.output("gcc", "-DVALUE=7", "main.c", "-L.", "-lsieve", "-Wl,-rpath,$ORIGIN", "-lm", "-o", "shared")
    same("a program with a library of its own", ended(programs, "shared", "word"), WANTED)


def assembled(programs):
    """A program of as and ld alone."""
    programs.output("as", "start.s", "-o", "start.o")
    programs.output("ld", "start.o", "-o", "start")
    return ended(programs, "start")


main(gcc)
