#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""`strake check`: statuses, formats, where reports go, going on, leaks, suppressions, allocators, threads,
children, signals, and what is refused. What errors are found check_suite.py shows.
"""

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

from lib.harness import PROJECT, check, main, need
from lib.marks import marks
import vm

SOURCE = PROJECT / "tests/system/check/errors.c"
COMPILER = "riscv64-linux-gnu-gcc"
SYSROOT = "/usr/riscv64-linux-gnu"
ENGINES = ["interp", "jit"]
TIMEOUT = 600
FOUND = 99
OWN = 7  # what the programs return

LINES = marks(SOURCE)


class Runner:
    """Runs one program with options and looks at what came of it."""

    def __init__(self, test, program, engine):
        self.test, self.program, self.engine = test, program, engine
        self.label = f"{program.name}, {engine}"

    def run(self, name, *options, **more):
        """The finished process of `strake check OPTIONS PROGRAM NAME`."""
        words = [vm.strake(), "check", "--engine", self.engine, *options, self.program, name]
        return subprocess.run(list(map(str, words)), stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              cwd=self.test.folder, timeout=TIMEOUT, check=False, **more)

    def findings(self, name, *options):
        """Status and the reports of JSON."""
        done = self.run(name, "--report=json", *options)
        return done.returncode, [json.loads(line) for line in done.stderr.splitlines()], done.stdout

    def check(self, good, what):
        check(good, f"{what} ({self.label})")


def line_of(finding):
    """The innermost line that is the program's own."""
    stack = finding.get("stack") or finding["object"]["allocated"]
    return next((frame["line"] for frame in stack if frame.get("file", "").endswith("errors.c")), None)


def statuses(runner):
    done = runner.run("clean")
    runner.check((done.returncode, done.stdout, done.stderr) == (OWN, "clean\n", ""), "without an error it is as if run")
    done = runner.run("overflow")
    runner.check(done.returncode == FOUND and "heap-buffer-overflow" in done.stderr and
                 f"errors.c:{LINES['overflow']}" in done.stderr and done.stdout == "", "an error ends it, with 99")
    done = runner.run("terminated")
    runner.check(done.returncode == -signal.SIGTERM and done.stderr == "", "a signal that kills is seen to")


def goes_on(runner):
    status, found, said = runner.findings("several", "--no-halt")
    runner.check(status == FOUND and said == "went on\n" and
                 [line_of(one) for one in found] == [LINES["several"], LINES["several-read"]],
                 "--no-halt: goes on, and reports each place once")
    done = runner.run("several", "--no-halt")
    runner.check("2 reported, 2 more at the same places, 0 suppressed" in done.stderr, "and counts the others")
    done = runner.run("aborts", "--no-halt", "--report=sarif")
    runner.check(done.returncode == FOUND and len(json.loads(done.stderr)["runs"][0]["results"]) == 1 and
                 done.stdout == "went on\n", "one that aborts behind it has its report and status")
    done = runner.run("several", "--no-halt", "--halt-on-error")
    runner.check(done.returncode == FOUND and done.stdout == "", "--halt-on-error: does not")


def unread(runner):
    """Where reports go nobody reads them."""
    reader, writer = os.pipe()
    os.close(reader)
    for options, said in ([], ""), (["--no-halt"], "went on\n"), (["--no-halt", "--report=sarif"], "went on\n"):
        done = subprocess.run([vm.strake(), "check", "--engine", runner.engine, *options, runner.program, "several"],
                              stdout=subprocess.PIPE, stderr=writer, text=True, timeout=TIMEOUT, check=False)
        runner.check((done.returncode, done.stdout) == (FOUND, said), "a program does not die of nobody reading reports")
    os.close(writer)


def formats(runner):
    folder = runner.test.folder
    status, found, _ = runner.findings("overflow")
    about = found[0]["object"]
    runner.check(status == FOUND and len(found) == 1 and found[0]["kind"] == "heap-buffer-overflow" and
                 found[0]["access"] == "write" and found[0]["bytes"] == 4 and line_of(found[0]) == LINES["overflow"] and
                 (about["bytes"], about["offset"], about["state"]) == (40, 40, "live"), "JSON says what is wrong")
    done = runner.run("several", "--no-halt", "--report=sarif", "--report-file", "found-%p.sarif")
    written = list(folder.glob("found-*.sarif"))
    document = json.loads(written[0].read_text(encoding="utf-8"))
    runner.check(done.returncode == FOUND and done.stderr == "" and len(written) == 1 and
                 document["version"] == "2.1.0" and len(document["runs"][0]["results"]) == 2, "SARIF, in a file")
    written[0].unlink()
    done = runner.run("overflow", "--report-file=not/there")
    runner.check(done.returncode == FOUND and 'cannot write reports to' in done.stderr and "not/there" in done.stderr and
                 "heap-buffer-overflow" in done.stderr, "a file that cannot be written to loses no report")
    done = runner.run("clean", "--report=sarif")
    runner.check(json.loads(done.stderr)["runs"][0]["results"] == [], "SARIF of nothing is a document, too")
    done = runner.run("overflow", "--report=html", "--report-fd=2")
    runner.check(done.stderr.startswith("<!DOCTYPE html>") and "heap-buffer-overflow" in done.stderr, "HTML is a page")
    done = runner.run("overflow", "--suggest")
    runner.check("suppress NAME" in done.stderr and "kind heap-buffer-overflow" in done.stderr, "--suggest suggests")


def leaks(runner):
    status, found, said = runner.findings("leak")
    runner.check(status == FOUND and said == "leaked\n" and [(one["kind"], one["bytes"]) for one in found] ==
                 [("leak-definite", 100), ("leak-possible", 200)] and line_of(found[0]) == LINES["leak"],
                 "leaks are reported at the end")
    status, found, _ = runner.findings("leak", "--leaks=definite")
    runner.check(status == FOUND and [one["bytes"] for one in found] == [100], "--leaks=definite: only such")
    runner.check(runner.findings("leak", "--leaks=no") == (OWN, [], "leaked\n"), "--leaks=no: none")


def installed(test, program):
    """Of programs of the system's folders leaks are reported only where that is asked for."""
    root = test.folder / "root"
    for folder, options, leaks in [("usr/bin", [], 0), ("usr/bin", ["--leaks=full"], 2), ("usr/local/bin", [], 2)]:
        (root / folder).mkdir(parents=True, exist_ok=True)
        shutil.copy(program, root / folder / "errors")
        _, found, _ = Runner(test, Path("/", folder, "errors"), "jit").findings("leak", "--sysroot", root, *options)
        check(len(found) == leaks, f"{leaks} leaks are reported of what is in /{folder} {' '.join(options)}")


def suppressions(runner):
    known = runner.test.folder / "known"
    known.write_text("suppress it\n    kind heap-buffer-*\n    frame overflow at errors.c\n", encoding="utf-8")
    status, found, said = runner.findings("overflow", "--suppressions", "known")
    runner.check((status, found, said) == (OWN, [], "went on\n"), "what is suppressed is not reported")
    status, found, _ = runner.findings("several", "--suppressions", known)
    runner.check(status == FOUND and len(found) == 1, "all else is")
    status, found, _ = runner.findings("executes", "--suppressions", "known")
    runner.check((status, found) == (1, []), "nor is it where the program executes another")


def allocators(runner):
    runner.check(runner.findings("pooled")[:2] == (OWN, []), "an allocator that is not known is not seen")
    for options in ["alloc=pool_take@2,free=pool_give"], ["alloc=pool_take@2,free=pool_gvie", "--report-file=found"]:
        done = runner.run("clean", "--allocator", *options)
        runner.check(done.returncode == OWN and done.stderr.count("pool_gvie") == len(options) - 1 and
                     done.stderr.count("\n") == len(options) - 1, "which of its functions are not there is told")
    status, found, _ = runner.findings("pooled", "--allocator", "alloc=pool_take@2,free=pool_give")
    runner.check(status == FOUND and line_of(found[0]) == LINES["pool"] and found[0]["object"]["bytes"] == 24,
                 "one that is named is")


def threads(runner):
    status, found, said = runner.findings("thread")
    runner.check(status == FOUND and said == "" and line_of(found[0]) == LINES["thread"] and found[0]["thread"] == 1 and
                 found[0]["object"]["thread"] == 0, "an error of a second thread")
    names = [frame.get("function") for frame in found[0]["object"]["allocated"]]
    runner.check(names[:2] == ["calloc", "thread"], "of what calloc allocated, by the name that programs call it by")
    status, found, said = runner.findings("thread", "--no-halt")
    runner.check(status == FOUND and said == "went on\n", "goes on in it, too")
    status, found, said = runner.findings("busy", "--no-halt", "--leaks=no")
    runner.check(status == FOUND and said == 3 * "went on\n" and len(found) == 1, "while others are busy")


def children(runner):
    status, found, said = runner.findings("forks", "--leaks=no")
    runner.check((status, said) == (OWN, "") and line_of(found[0]) == LINES["overflow"], "a child ends with 99 itself")
    status, found, _ = runner.findings("forks", "--leaks=no", "--no-halt")
    runner.check(status == OWN and len(found) == 1, "also when it goes on, and its parent does not")
    status, found, _ = runner.findings("executes")
    runner.check(status == OWN and line_of(found[0]) == LINES["overflow"], "what is executed is checked")
    done = runner.run("executes", "--report=json", "--report-file=of-children")
    with open(runner.test.folder / "of-children", encoding="utf-8") as text:
        found = [json.loads(line) for line in text]
    runner.check(done.returncode == OWN and done.stderr == "" and len(found) == 1, "with the same options")
    os.unlink(runner.test.folder / "of-children")


def faults(runner):
    status, found, _ = runner.findings("null")
    runner.check(status == FOUND and found[0]["kind"] == "null-dereference" and found[0]["address"] == "0x4" and
                 found[0]["bytes"] == 4 and line_of(found[0]) == LINES["null"], "a null pointer")
    runner.check(runner.findings("handled") == (OWN, [], "handled\n"), "what the program handles is its own")
    for name in ["stack", "handled-stack"]:
        status, found, _ = runner.findings(name)
        runner.check(status == FOUND and found[0]["kind"] == "wild-pointer" and "used up" in found[0]["detail"],
                     f"a stack that is used up: {name}")


def refused(runner):
    """Each in one line, with the status of wrong use, or of a failure."""
    folder = runner.test.folder
    (folder / "wrong").write_text("suppress it\n    kin heap-buffer-*\n", encoding="utf-8")
    for options, status, said in [
            (["--report=xml"], 2, "xml"), (["--leaks=some"], 2, "some"), (["--report-fd=77"], 2, "not open"),
            (["--report-fd=x"], 2, "x"), (["--engine=none"], 2, "interp and jit"), (["--nothing"], 2, "nothing"),
            (["--allocator=what"], 1, "what"),
            (["--suppressions=absent"], 1, "absent"), (["--suppressions=wrong"], 1, "kin"),
            (["--suppressions=/dev/zero"], 1, "zero")]:
        done = runner.run("clean", *options)
        runner.check(done.returncode == status and said in done.stderr and done.stdout == "",
                     f"refused: {' '.join(options)}")
    done = subprocess.run([vm.strake(), "check"], capture_output=True, text=True, check=False)
    check(done.returncode == 2 and "no program" in done.stderr, "refused: nothing to run")
    done = subprocess.run([vm.strake(), "check", "/nonexistent"], capture_output=True, text=True, check=False)
    check(done.returncode == 1 and "/nonexistent" in done.stderr, "refused: what is not there")


def stripped(test, program):
    bare = test.folder / "stripped"
    subprocess.run(["riscv64-linux-gnu-strip", "-o", bare, program], check=True)
    done = Runner(test, bare, "jit").run("clean")
    check((done.returncode, done.stdout) == (OWN, "clean\n") and "has no symbols" in done.stderr and
          done.stderr.count("\n") == 1, "a static program without symbols: what is not checked is told")


def core(test):
    need(f"/usr/bin/{COMPILER}", SYSROOT)
    for options in [(), ("-static",)]:
        program = test.folder / f"errors{'-static' if options else ''}"
        subprocess.run([COMPILER, "-g", "-O0", "-Wall", "-Wextra", "-Werror", "-pthread", *options,
                        "-o", program, SOURCE], check=True)
        for engine in ENGINES:
            runner = Runner(test, program, engine)
            for part in [statuses, goes_on, unread, formats, leaks, suppressions, allocators, threads, children, faults,
                         refused]:
                part(runner)
        if "-static" in options:
            stripped(test, program)
            installed(test, program)


if __name__ == "__main__":
    main(core)
