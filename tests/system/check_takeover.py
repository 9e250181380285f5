#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""What is taken over of whole programs: allocators and operators of their own, libraries that come and go, what
the command line names, no memory, fortified functions; dynamic and static.
"""

import json
import subprocess

from lib.harness import PROJECT, check, main, need
from lib.marks import marks
import vm

SOURCES = PROJECT / "tests/system/check"
PREFIX = "riscv64-linux-gnu-"
FOUND = 99
ABORTED = -6


class Program:
    """A program of one source, built with flags."""

    def __init__(self, test, source, *flags, name="program"):
        self.source, self.path, self.flags = SOURCES / source, test.folder / name, flags
        compiler = PREFIX + ("g++" if source.endswith(".cc") else "gcc")
        subprocess.run([compiler, "-g", "-w", "-fno-builtin", "-o", self.path, self.source, *flags], check=True)

    def run(self, *arguments, options=(), environment=None):
        """Status, output and reports of `strake check`."""
        words = [vm.strake(), "check", "--report=json", *options, self.path, *arguments]
        done = subprocess.run(list(map(str, words)), stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              timeout=600, check=False, env=environment)
        found = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
        return done.returncode, done.stdout, found

    def clean(self, what, *arguments, output=None, **options):
        """It ends with status 0, and nothing is reported."""
        status, said, found = self.run(*arguments, **options)
        check(not status and not found and output in (None, said), f"{what}: no report ({self.label()})")

    def reports(self, what, kind, mark, *arguments, **options):
        """It is reported as this kind, in the marked line."""
        status, _, found = self.run(*arguments, **options)
        lines = [frame.get("line") for frame in found[0]["stack"]
                 if frame.get("file", "").endswith(self.source.name)] if found else []
        check(status == FOUND and found and found[0]["kind"] == kind and lines[:1] == [marks(self.source)[mark]],
              f"{what}: {kind} ({self.label()})")

    def label(self):
        return " ".join([self.source.name, *map(str, self.flags)])


def own_allocators(test):
    for flags in [], ["-static"]:
        bump = Program(test, "own_malloc.c", "-DBUMP", *flags)
        bump.clean("an allocator of the program's own is not called", output="not counted\n")
        bump.reports("its objects have ends", "heap-buffer-overflow", "overflow", "x")
    hands_on = Program(test, "own_malloc.c", "-O1")
    hands_on.clean("one that hands on to libc's is called", output="counted\n")
    hands_on.reports("libc's objects have ends", "heap-buffer-overflow", "overflow", "x")


def runtime(test):
    for flags in [], ["-static"], ["-O2"]:
        program = Program(test, "taken_over.cc", *flags)
        program.clean("no memory is told as ever; functions have addresses")
        # Once an operator new had none, what it makes may come from malloc.
        program.reports("the runtime's operators are the heap's", "heap-buffer-overflow", "overflow", "overflow")
    for flags in [], ["-static"]:
        program = Program(test, "taken_over.cc", "-DOWN", *flags)
        program.clean("operators of the program's own are called")
        program.reports("their objects are malloc's", "heap-buffer-overflow", "overflow", "overflow")
        program.clean("which free may free", "mismatched")


def libraries(test):
    library = Program(test, "plugin.c", "-DLIBRARY", "-shared", "-fPIC", name="plugin.so")
    program = Program(test, "plugin.c", "-O0")
    named = ["--allocator=alloc=pool_get@2,free=pool_put@2"]
    program.clean("a library that comes and goes", library.path)
    program.clean("its allocator is unknown", library.path, "pool")
    program.clean("its allocator is named", library.path, options=named)
    program.reports("an object outlives the library", "heap-buffer-overflow", "overflow", library.path, "overflow")
    program.reports("objects of a named allocator have ends", "heap-buffer-overflow", "pool", library.path, "pool",
                    options=named)


def fortified(test):
    for flags in [], ["-static"]:
        program = Program(test, "fortified.c", "-O2", "-fbuiltin", "-D_FORTIFY_SOURCE=2", *flags)
        program.clean("fortified functions do what they are to", output="short\n")
        program.reports("an object's end", "heap-buffer-overflow", "object", "object")
        program.reports("a text that does not fit", "heap-buffer-overflow", "text", "text", "longer than that")
        program.reports("what does not fit is printed", "heap-buffer-overflow", "print", "print", "longer than that")
        program.reports("a line that does not fit", "heap-buffer-overflow", "line", "line")
        program.reports("more is read than fits", "syscall-buffer-overflow", "read", "read")
        for place in "static", "member":
            status, _, found = program.run(place, "longer than that")
            check(status == ABORTED and not found, f"libc ends it beyond what is {place} ({program.label()})")


def run(test):
    """All of it."""
    need("/usr/riscv64-linux-gnu")
    own_allocators(test)
    runtime(test)
    libraries(test)
    fortified(test)


if __name__ == "__main__":
    main(run)
