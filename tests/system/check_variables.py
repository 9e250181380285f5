#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Variables that clang has given identifiers (include/strake/tagging.cfg): what goes beyond them is reported, in
C++, in a library, in libc's functions and system calls; exceptions, threads, jumps and recursion are not.
"""

import json
import subprocess

from lib.harness import PROJECT, check, main, need
from lib.marks import marks
import vm

FOLDER = PROJECT / "tests/system/check"
SOURCE, LIBRARY = FOLDER / "variables.cc", FOLDER / "variables_library.c"
CONFIG = f"--config={PROJECT / 'include/strake/tagging.cfg'}"
TARGET = "--target=riscv64-linux-gnu"
FOUND = 99
ERRORS = {"stack": ("stack-buffer-overflow", "fill"), "static": ("global-buffer-overflow", "static"),
          "literal": ("global-buffer-overflow", "literal"), "library": ("global-buffer-overflow", None),
          "copy": ("stack-buffer-overflow", "copy"), "call": ("syscall-buffer-overflow", "call"),
          "gone": ("dead-stack-use", "gone"), "gone-call": ("dead-stack-use", "gone-call")}
OBJECTS = {"stack": 32, "static": 20, "literal": 24, "library": 12, "copy": 32, "call": 32}


def build(test, optimize, *static):
    """The program, with the library in it or beside it."""
    folder = test.folder / f"{optimize}{'-static' if static else ''}"
    folder.mkdir()
    common = [CONFIG, TARGET, "-g", "-Wall", "-Wextra", "-Werror", "-Wno-array-bounds", optimize]
    library = folder / "library.o" if static else folder / "libvariables.so"
    kind = ["-c"] if static else ["-shared", "-fPIC"]
    subprocess.run(["clang-19", *common, *kind, "-o", library, LIBRARY], check=True)
    program = folder / "variables"
    subprocess.run(["clang++-19", *common, "-std=gnu++17", *static, "-pthread", "-o", program, SOURCE, library,
                    f"-Wl,-rpath,{folder}"], check=True)
    return program


def run(program, name, *options):
    return subprocess.run([str(vm.strake()), "check", *options, str(program), name], stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, timeout=300, check=False)


def variables(test):
    need("/usr/bin/clang-19")
    lines = marks(SOURCE)
    done = subprocess.run(["clang-19", CONFIG, TARGET, "-c", "-x", "assembler-with-cpp", "-o", test.folder / "empty.o",
                           "/dev/null"], check=False)
    check(done.returncode == 0, "a program may have files of assembly")
    for program in [build(test, "-O0"), build(test, "-O2", "-static")]:
        label = program.parent.name
        done = run(program, "clean")
        check((done.returncode, done.stdout, done.stderr) == (0, "three first 1 4 5 1\n", ""),
              f"what is right is not reported ({label})")
        for name, (kind, mark) in ERRORS.items():
            done = run(program, name, "--report=json")
            found = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
            kinds = [one["kind"] for one in found]
            check(done.returncode == FOUND and kinds == [kind], f"{name}: {kind} ({label})")
            frames = [frame.get("line") for frame in found[0]["stack"] if frame.get("file", "").endswith(SOURCE.name)]
            check(mark is None or frames[0] == lines[mark], f"{name}: where it is marked")
            size = (found[0].get("object") or {}).get("bytes")
            check(size == OBJECTS.get(name), f"{name}: of a variable of {size} bytes")


if __name__ == "__main__":
    main(variables)
