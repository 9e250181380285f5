#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""gdb-multiarch debugs programs of riscv64 Linux under `strake user --gdb`: breakpoints, steps,
backtraces, memory and calls of functions, threads, ^C, signals, children, shared libraries and the
program's end. The program is user/debugged.c."""

import re
import shutil
import signal
import subprocess
import time

from lib.debugged import TIMEOUT, Client, Debugged, build
from lib.harness import Skipped, check, main, need
import vm

SYSROOT = "/usr/riscv64-linux-gnu"
ROUNDS = 60
# ^C, a while after the program goes on; again, should that have been too early.
INTERRUPT = [
    "python import os, signal, threading",
    "python timer = [None]",
    "python kill = lambda: (os.kill(os.getpid(), signal.SIGINT), arm(None))",
    "python arm = lambda event: (timer.__setitem__(0, threading.Timer(3, kill)), timer[0].start())",
    "python gdb.events.cont.connect(arm)",
    "continue",
    "python gdb.events.cont.disconnect(arm); timer[0].cancel()",
]


def under(engine, test, program, *arguments, **options):
    return Debugged(test, ["user", "--engine", engine], program, *arguments, **options)


def looking(test, program, engine):
    ran = under(engine, test, program).run(
        "break inner", "continue", "backtrace", "info registers fcsr fs0",
        'printf "a %d b %d half %g\\n", a, b, half', "finish",
        "delete", "print outer(1)", "set var text[0] = 'j'",
        "set var half = 0.25", "stepi", "x/i $pc", 'printf "at %s\\n", text', "info auxv",
        "continue")
    check(ran.has(r"^#0 +inner \(a=5, b=.*10\) at .*debugged.c:") and ran.has(r"^#2 .* in main "),
          f"gdb: stops in a function, and says who called it ({engine})")
    check(ran.has("^a 5 b 10 half 0.5$"), "gdb: reads variables")
    check(ran.has(r"^Value returned is .* = 15$"), "gdb: runs to a function's end")
    check(ran.has(r"^\$\d+ = 4$"), "gdb: calls a function of the program")
    check(ran.has("^at jello$") and "jello 16 0.25\n" in ran.output,
          "gdb: what it writes the program finds")
    check(ran.has(r"AT_ENTRY .*0x1"), "gdb: reads the auxiliary vector")
    check(ran.has(r"exited with code 07\]") and ran.status == 7,
          "gdb: is told of the program's end")


def threads(test, program, engine):
    ran = under(engine, test, program, "threads").run(
        "break work", "continue", "continue", "info threads", "thread apply all backtrace 1",
        "delete", "next", "next", "break twice if value == 100", "continue")
    check(len(set(re.findall(r"^Thread (\d+) hit Breakpoint 1, work", ran.said, re.M))) == 2,
          f"gdb: stops two threads at a breakpoint ({engine})")
    check(len(re.findall(r"^[* ] +\d+ +Thread", ran.said, re.M)) == 3, "gdb: lists three threads")
    check(ran.has(r"^\d+\s+return number; +// working$"),
          "gdb: steps one over a call that waits for the others")
    check(ran.status == 7, "gdb: threads end as without it")
    ran = under(engine, test, program, "many").run(
        "break twice if value == 120", "continue", "info threads", "delete", "continue")
    check(ran.has(r"hit Breakpoint 1, twice \(value=.*120\)") and "many 312\n" in ran.output,
          "gdb: four threads pass a breakpoint with a condition 160 times")


def signals(test, program, engine):
    ran = under(engine, test, program, "signal").run(
        "continue", "print $_siginfo.si_signo", "break on_signal", "continue", "backtrace",
        "delete", "continue")
    check(ran.has("received signal SIGUSR1") and ran.has(r"^\$1 = 10$"),
          f"gdb: is told of a signal ({engine})")
    check(ran.has(r"^#1 +<signal handler called>$"), "gdb: sees a handler's frame")
    check("caught 10\n" in ran.output, "gdb: the program gets its signal")
    ran = under(engine, test, program, "signal").run("continue", "signal 0")
    check("caught 0\n" in ran.output, "gdb: a signal can be taken away")
    ran = under(engine, test, program, "signal").run(
        "handle SIGUSR1 nostop noprint pass", "continue")
    check("caught 10\n" in ran.output and not ran.has("SIGUSR1, User"),
          "gdb: signals that are to pass stop nothing")
    ran = under(engine, test, program, "crash").run(
        "continue", "print $_siginfo._sifields._sigfault.si_addr", "backtrace",
        "print twice(21)", "continue")
    check(ran.has("received signal SIGSEGV") and ran.has(r"= \(void \*\) 0x8$") and
          ran.has(r"^#0 .* in main .*"), "gdb: stops where the program crashes")
    check(ran.has(r"^\$2 = 42$"), "gdb: calls a function there")
    check(ran.has("Program terminated with signal SIGSEGV") and ran.status == -signal.SIGSEGV,
          "gdb: is told that it died")
    ran = under(engine, test, program, "terminated").run("continue", "continue")
    check(ran.has("received signal SIGTERM") and
          ran.has("Program terminated with signal SIGTERM") and ran.status == -signal.SIGTERM,
          "gdb: is told of a signal that nobody handles before it kills")


def interrupting(test, program, engine):
    ran = under(engine, test, program, "spin").run(
        *INTERRUPT, "backtrace", "set var go = 1", "continue")
    check(ran.has("received signal SIGINT") and ran.has(r"^#0 +spinning \(\)") and ran.status == 7,
          f"gdb: interrupts what computes ({engine})")
    ran = under(engine, test, program, "read").run(
        *INTERRUPT, "backtrace", "set $a5 = 3", "detach", given="x")
    check(ran.has("received signal SIGINT") and ran.has(r"^#\d .* in reading \(\)"),
          "gdb: interrupts what waits in a system call")
    check("Could not write register" in ran.said, "gdb: whose registers stay as they are")
    check("read 1 x\n" in ran.output and ran.status == 7,
          "gdb: and the program goes on when it has left")


def children(test, program, engine):
    for how in "fork", "spawn":
        ran = under(engine, test, program, how).run(
            "break inner", "continue", "continue")
        check(len(re.findall("hit Breakpoint|^Breakpoint 1, ", ran.said, re.M)) == 1 and
              "child 7\n" in ran.output and ran.status == 7,
              f"gdb: keeps the parent of a {how}ed child, which runs as ever ({engine})")


def libraries(test, program, engine):
    ran = under(engine, test, program, "crash", local=False,
                   before=[f"set sysroot {SYSROOT}"]).run(
        "break outer", "continue", "info sharedlibrary", "break printf", "continue", "backtrace",
        "kill")
    check(ran.has(r"^#0 .* in (__)?printf \(.*from /.*/libc.so.6") and ran.has("^#1 .* in main "),
          f"gdb: finds shared libraries ({engine})")
    check(ran.status == -signal.SIGKILL, "gdb: kills the program")


def storm(test, program, engine):
    """Stops of all kinds, while threads, children and signals come and go."""
    symbols = subprocess.run(["riscv64-linux-gnu-nm", str(program)], stdout=subprocess.PIPE,
                             text=True, check=True).stdout
    place = re.search(r"^0*([0-9a-f]+) T busy$", symbols, re.MULTILINE).group(1)
    ran = under(engine, test, program)
    client = Client(ran.address)
    stops, whole = [], True
    for turn in range(ROUNDS):
        with_breakpoint = turn % 3 == 0
        if with_breakpoint:
            client.ask(f"Z0,{place},2")
        client.send("c")
        if not with_breakpoint:
            time.sleep(turn % 7 / 300)
            client.interrupt()
        stops.append(client.receive()[:3])
        for thread in client.ask("qfThreadInfo")[1:].split(","):
            whole = whole and client.ask(f"Hg{thread}") == "OK" and len(client.ask("g")) == 33 * 16
        if with_breakpoint:
            client.ask(f"z0,{place},2")
        if turn % 20 == 19:  # gone, and another one
            client.close()
            client = Client(ran.address)
            whole = whole and client.ask("?").startswith("T05thread:")
    client.send("k")
    ran.process.communicate(timeout=TIMEOUT)
    print(f"stopped by {', '.join(f'{stops.count(kind)} {kind}' for kind in sorted(set(stops)))}")
    check(whole and set(stops) <= {"T02", "T05", "T1e"} and ran.status == -signal.SIGKILL,
          f"{ROUNDS} stops of a program that never rests each find all of its threads ({engine})")


def refused(test, program):
    for address, said in [("nowhere", "ADDR:PORT"), ("1.2.3:4", "IPv4"), ("/nonexistent/x", "listen")]:
        result = subprocess.run([vm.strake(), "user", "--gdb", address, str(program)],
                                stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                                timeout=TIMEOUT, check=False)
        check(result.returncode == 1 and said in result.stderr and
              "cannot wait for a debugger" in result.stderr,
              f"no debugger is waited for at '{address}'")


def user_gdb(test):
    if not shutil.which("gdb-multiarch"):
        raise Skipped("gdb-multiarch is missing")
    need("/usr/bin/riscv64-linux-gnu-gcc", SYSROOT)
    static, dynamic = build(test, "debugged", "-static"), build(test, "debugged")
    looking(test, static, "jit")
    looking(test, static, "interp")
    threads(test, static, "jit")
    signals(test, static, "jit")
    interrupting(test, static, "jit")
    children(test, static, "jit")
    libraries(test, dynamic, "jit")
    churning = build(test, "churning", "-static")
    storm(test, churning, "jit")
    storm(test, churning, "interp")
    refused(test, static)


main(user_gdb)
