#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""python3 and its standard library: the scripts programs/python/* do under `strake user` what they do natively, by the
python that runs this test."""

import sys

from lib.harness import check
from lib.programs import RUNNER, SCRIPTS, main

SPAWN = """import os, subprocess
try:
    subprocess.run(["/nonexistent"])
except FileNotFoundError as error:
    print(error)
print(os.waitstatus_to_exitcode(os.waitpid(os.posix_spawnp("sh", ["sh", "-c", "exit $X"], {"X": "5"}), 0)[1]))
"""


def python(programs):
    for script in sorted((SCRIPTS / "python").glob("*.py")):
        programs.as_native(script.name, sys.executable, "python3", "-B", script)
    programs.as_native("a script on standard input", sys.executable, "python3", given=b"print(input)\nraise SystemExit(4)")
    if RUNNER != "qemu":  # whose child of posix_spawn() cannot tell its parent why it has no program
        programs.as_native("children that borrow its memory", sys.executable, "python3", "-c", SPAWN)
    fault(programs)


def fault(programs):
    """A program that does wrong, which may look at it itself."""
    words = ["-c", "import ctypes; ctypes.string_at(16)"]
    status, _, errors = programs.run("python3", "-X", "faulthandler", *words)
    check((status, b"Segmentation fault" in errors) == (-11, True),
          "a fault is told by a handler on a stack of its own, and then the end")
    status = programs.run("python3", *words)[0]
    found = [finding["kind"] for finding in programs.reported()]
    check((status, found) == ((99, ["null-dereference"]) if RUNNER == "check" else (-11, [])),
          "without one it ends the program")


main(python)
