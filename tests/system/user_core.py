#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Programs of riscv64 Linux run under `strake user`, static and dynamic, with both engines, as they do on
Linux: start, address space, threads, processes, signals. The programs, in user/, check for themselves.

STRAKE_USER names another way to run them, such as qemu-riscv64: it shows whether a check is right.
"""

import os
import shlex
import shutil
import signal
import subprocess
from pathlib import Path

from lib.harness import PROJECT, check, main, need

SOURCES = PROJECT / "tests/system/user"
PROGRAMS = ["start", "memory", "nested", "threads", "processes", "signals"]
COMPILER = "riscv64-linux-gnu-gcc"
SYSROOT = "/usr/riscv64-linux-gnu"
TIMEOUT = 600  # seconds for a program that takes one on an idle machine


def build(test, name, *options):
    program = test.folder / f"{name}{'-static' if '-static' in options else ''}"
    subprocess.run([COMPILER, "-O1", "-Wall", "-Wextra", "-Werror", "-pthread", *options,
                    "-o", str(program), str(SOURCES / f"{name}.c"), "-lm"], check=True)
    return program


def runner(engine):
    if "STRAKE_USER" in os.environ:
        return shlex.split(os.environ["STRAKE_USER"])
    return [os.environ.get("STRAKE", str(PROJECT / "build/strake")), "user", "--engine", engine]


def run(test, engine, *words, **options):
    """Runs a program; returns its end with what it wrote."""
    return subprocess.run([*runner(engine), *map(str, words)], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=TIMEOUT,
                          cwd=test.folder, text=True, check=False, **options)


def run_checks(test, engine, program):
    result = run(test, engine, program)
    failed = [line for line in result.stdout.splitlines() if not line.startswith("ok: ")]
    for line in failed[:20] if failed != ["0 failures"] else []:
        print(f"{program.name}: {line}")
    check(result.returncode == 0 and failed == ["0 failures"],
          f"{program.name} finds what it expects ({engine}, "
          f"{result.stdout.count('ok: ')} checks)")


def start(test, engine, program):
    result = run(test, engine, program, "a", "b c", "", "-x",
                 env={"GIVEN": "of the environment", "PATH": "/bin"})
    check("argv[1]=a\nargv[2]=b c\nargv[3]=\nargv[4]=-x\n" in result.stdout,
          f"{program.name}: arguments are as given ({engine})")
    check("GIVEN=of the environment\n" in result.stdout and f"execfn={program}\n" in result.stdout,
          f"{program.name}: environment and name are as given")
    print("".join(line for line in result.stdout.splitlines(True) if line.startswith("FAILED")))
    check(result.returncode == 42, f"{program.name}: the exit status is the program's")


def outside(test, engine, programs):
    """What the program's parent sees of it, and how it is told what cannot be run."""
    script = test.folder / "a script"
    script.write_text(f"#!{programs['start']} from script\n", encoding="utf-8")
    script.chmod(0o755)
    result = run(test, engine, script, "more")
    check(result.returncode == 42 and f"argv[1]=from script\nargv[2]={script}\nargv[3]=more\n"
          in result.stdout, f"a script is run by its interpreter ({engine})")
    words = [*runner(engine), "--env", "GIVEN=here", "--argv0", "its name", str(programs["start"])]
    result = subprocess.run(words, stdout=subprocess.PIPE, text=True, timeout=TIMEOUT, check=False)
    check("argv[0]=its name\nGIVEN=here\n" in result.stdout, "--argv0 and --env are the program's")
    for program, said in [("/nonexistent", "No such file"), (test.folder, "Permission denied"),
                          ("/bin/sh", "no program for riscv64"), ("/etc/passwd", "Permission denied")]:
        result = run(test, engine, program)
        check(result.returncode == 1 and said in result.stdout and str(program) in result.stdout
              and result.stdout.count("\n") == 1, f"{Path(program).name or program}: refused")
    result = run(test, engine, "--sysroot", "/nonexistent", programs["start"])
    check(result.returncode == 1 and "/nonexistent" in result.stdout, "a sysroot has to be there")
    result = run(test, engine, programs["processes"], "traced")
    check(result.stdout == "ONE=1\nLD_TRACE_LOADED_OBJECTS=1\n" or
          "ld-linux-riscv64" in result.stdout and "x86" not in result.stdout,
          "what is for a loader in the environment is for the program's")
    sleeping = subprocess.Popen([*runner(engine), str(programs["processes"]), "sleep"],
                                stdout=subprocess.PIPE)
    sleeping.stdout.readline()
    name = Path(f"/proc/{sleeping.pid}/comm").read_text(encoding="utf-8").strip()
    check(name == programs["processes"].name[:15], "the process has the program's name")
    sleeping.send_signal(signal.SIGINT)
    check(sleeping.wait(TIMEOUT) == -signal.SIGINT, "a signal ends it, and its parent sees that")


def core(test):
    need(shutil.which(COMPILER) or f"/usr/bin/{COMPILER}")
    for options in [("-static",), ()]:
        if not options and not os.path.exists(SYSROOT):
            continue
        programs = {name: build(test, name, *options) for name in PROGRAMS}
        for engine in ("interp", "jit"):
            start(test, engine, programs["start"])
            if "STRAKE_USER" not in os.environ:
                outside(test, engine, programs)
            for name in PROGRAMS[1:]:
                run_checks(test, engine, programs[name])


if __name__ == "__main__":
    main(core)
