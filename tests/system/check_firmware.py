#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Checked firmware: the example device of firmware/thermostat, built by the command in its README, does
the same checked, unchecked and on QEMU, which stands in for hardware; each of its mistakes is told by
kind, function, file and line, also where the command line names its allocator. A program in S-mode is
checked, too."""

import json
import re
import shlex
import shutil
import signal
import subprocess
from pathlib import Path

from lib import firmware as images
from lib.harness import PROJECT, Skipped, check, main
import vm

FOLDER = PROJECT / "firmware" / "thermostat"
SECONDS = 300
REPORTED = 99  # exit status
OUTPUT = ["thermostat: ready"] + [None] * 10 + ["32 times switched, 05 faults, 01 blocks in use"]
NAMED = ["--allocator", "alloc=pool_alloc,free=pool_free"]
ENGINES = ["--engine=jit", "--engine=interp"]
# Of the instruction tests, what accesses memory, jumps and traps in all ways; and their harts.
CLEAN = {"isa_cache": 1, "isa_jumps": 1, "isa_rv64a": 1, "isa_rv64i_memory": 1, "isa_rv64fd_move": 1,
         "priv_harts": 4, "priv_pmp": 1, "priv_traps": 1}


def command():
    """The command that README.md has it built with."""
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    return re.search(r"^    (riscv64-.*?[^\\])$", text, re.M | re.S).group(1).replace("\\\n", "")


def build(folder, bug=None):
    """The device's program, with one of its mistakes."""
    if not shutil.which(shlex.split(command())[0]):
        raise Skipped("gcc-riscv64-linux-gnu is missing")
    elf = folder / f"{bug or 'right'}.elf"
    options = f" -Wall -Wextra -Werror {f'-DBUG_{bug}' if bug else ''} "
    subprocess.run(command().replace(" -o thermostat.elf ", f" -o {elf} {options}"), shell=True,
                   check=True, cwd=FOLDER)
    return elf


def line_of(name, text, number=0):
    """The number of a line of the program: the one with this text, or one of those."""
    lines = (FOLDER / name).read_text(encoding="utf-8").split("\n")
    return [at for at, line in enumerate(lines, 1) if text in line][number]


def run(arguments):
    """What a machine writes until it ends, and its status."""
    done = subprocess.run(arguments, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          timeout=SECONDS, check=False)
    return done.stdout.split("\n"), done.returncode, done.stderr


def run_checked(elf, *options, machine="virt"):
    """The same of a checked run, with its findings instead of what it wrote on stderr."""
    file = elf.with_suffix(".json")
    file.unlink(missing_ok=True)
    lines, status, said = run([vm.strake(), "check", "--machine", machine, "--report=json",
                               f"--report-file={file}", *options, elf])
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    findings = [json.loads(line) for line in text.splitlines()]
    check(status in (0, REPORTED) and (status == REPORTED) == bool(findings),
          f"{elf.name} {' '.join(options)}: status {status}, {len(findings)} reports {said.strip()}")
    return lines, findings


def check_output(lines, where, last=OUTPUT[-1]):
    """The device did what it is to do."""
    right = len(lines) == len(OUTPUT) + 1 and all(
        re.fullmatch(r"sample \d{4}: \+\d\d\.\d\d C, heater (on|off)", line) if wanted is None
        else line.strip() == wanted for line, wanted in zip(lines, OUTPUT[:-1] + [last]))
    check(right, f"{where} the device samples, switches and sums up")


def places(frames):
    """Functions of the stack, and the innermost place."""
    inner = frames[0]
    return [frame.get("function") for frame in frames], inner["file"].split("/")[-1], inner["line"]


def check_finding(finding, kind, access, function, file, line):
    """A finding is of this kind, where it is to be, with stacks that lead to the program's main."""
    functions, in_file, at = places(finding["stack"])
    check((finding["kind"], finding["access"]) == (kind, access) and
          (functions[0], in_file, at) == (function, file, line) and "main" in functions,
          f"{kind} in {function}, {file}:{line} (told: {finding['kind']} by {finding['access']}, "
          f"{functions} {in_file}:{at})")


def check_history(finding, allocated, freed=None):
    """Its object was allocated, and freed, in these functions of the program."""
    of = finding["object"]
    check(allocated in places(of["allocated"])[0], f"of what {allocated} allocated")
    if freed:
        check(freed in places(of["freed"])[0], f"and {freed} freed")


def overflow(test, *options):
    """The longer of two lines is a byte too long."""
    _, (finding,) = run_checked(build(test.folder, "OVERFLOW"), *options)
    check_finding(finding, "heap-buffer-overflow", "write", "put_text", "thermostat.c",
                  line_of("thermostat.c", "while ((*to = *text++))"))
    check_history(finding, "write_line")
    check((finding["object"]["bytes"], finding["object"]["offset"]) == (34, 34),
          "the first byte behind the 34 of a line")


def use_after_free(test, *options):
    """A sample is looked at after it was given back."""
    _, (finding,) = run_checked(build(test.folder, "USE_AFTER_FREE"), *options)
    check_finding(finding, "heap-use-after-free", "read", "handle", "thermostat.c",
                  line_of("thermostat.c", "if (sample->number %"))
    check_history(finding, "board_tick", "handle")


def double_free(test, *options):
    """A sample of no use is given back by two."""
    _, (finding,) = run_checked(build(test.folder, "DOUBLE_FREE"), *options)
    functions = places(finding["stack"])[0]
    check(finding["kind"] == "double-free" and functions[:2] == ["pool_free", "handle"],
          f"double-free in pool_free, called by handle ({functions})")
    check_history(finding, "board_tick", "usable")


def null(test, *options):
    """The pool had no such block, and nobody has looked."""
    _, (finding,) = run_checked(build(test.folder, "NULL"), *options)
    check_finding(finding, "null-dereference", "write", "put_number", "thermostat.c",
                  line_of("thermostat.c", "to[i] = (char)"))


def leak(test, *options):
    """Lines are not given back. Where the last one was, registers or the stack may still say."""
    lines, findings = run_checked(build(test.folder, "LEAK"), *options, *NAMED)
    check_output(lines, "with its allocator taken over", last=OUTPUT[-1].replace("01 blocks", "00 blocks"))
    check(findings[0]["kind"] == "leak-definite" and
          {finding["kind"] for finding in findings} <= {"leak-definite", "leak-possible"} and
          findings[0]["objects"] >= 8 and sum(finding["objects"] for finding in findings) <= 10,
          f"{findings[0]['objects']} of 10 lines are definitely lost")
    check_history(findings[0], "write_line")
    lines, findings = run_checked(build(test.folder, "LEAK"), *options)
    check(not findings, "tagged blocks are the pool's to count")
    check_output(lines, "and it does:", last=OUTPUT[-1].replace("01 blocks", "11 blocks"))


def going_on(test):
    """Every place of a run is told, once, and the device goes on."""
    lines, findings = run_checked(build(test.folder, "OVERFLOW"), "--no-halt", ENGINES[0])
    check([places(finding["stack"])[0][0] for finding in findings] == ["put_text", "board_print"],
          "without halting who writes too much is told once, and who reads it")
    check_output(lines, "and goes on:")


def right(test):
    """The device as it is to be, everywhere."""
    elf = build(test.folder)
    lines, status, _ = run([vm.strake(), "run", "--firmware", elf])
    check(status == 0, "the device switches itself off")
    check_output(lines, "unchecked")
    if vm.qemu():
        elsewhere, _, _ = run([vm.qemu(), "-machine", "virt", "-nographic", "-bios", elf])
        check(elsewhere == lines, "and does the same on QEMU")
    for engine in ENGINES:
        checked, findings = run_checked(elf, engine)
        check(checked == lines and not findings, "and the same checked")
        checked, findings = run_checked(elf, engine, *NAMED)
        check(not findings, "nor is it found wrong with its allocator taken over")
        check_output(checked, "then", last=OUTPUT[-1].replace("01 blocks", "00 blocks"))


def clean(*options):
    """Programs that are right, and odd, run to their end without a report."""
    for name, cpus in CLEAN.items():
        elf = Path(vm.strake()).parent / "tests" / "isa" / f"{name}.elf"
        lines, status, said = run([vm.strake(), "check", "--machine", "virt", f"--cpus={cpus}",
                                   *options, elf])
        check(status == 0 and " 0 failed" in lines[-2] and not said,
              f"{name}: {lines[-2].strip()}, nothing reported {said.strip()}")


def supervisor(test):
    """S-mode, with the memory manager of Strake."""
    _, elf = images.build("supervisor", test.folder, images.KERNEL)
    lines, status, _ = run([vm.strake(), "run", "--kernel", elf])
    check(status == 0 and [line.strip() for line in lines[:2]] == ["not checked", "the end"],
          "a program in S-mode finds that it is not checked")
    lines, (finding,) = run_checked(elf, ENGINES[0], machine="virt-supervisor")
    functions, _, line = places(finding["stack"])
    source = (PROJECT / "firmware" / "supervisor.c").read_text(encoding="utf-8").split("\n")
    check(lines[0] == "checked" and finding["kind"] == "heap-use-after-free" and
          functions[0] == "use" and "used after it was freed" in source[line - 1],
          "or is, and what is wrong is told")


def liar(test):
    """A program that tells rubbish gets through with it, and nobody else suffers."""
    _, elf = images.build("liar", test.folder)
    lines, findings = run_checked(elf, ENGINES[0], "--no-halt", "--cpus=2")
    check(lines[0].strip() == "alive" and findings, "who says rubbish is told so and goes on, and "
          "reaches no device by a pointer that leads nowhere")


def refusals(test):
    """What cannot be run is refused in a sentence."""
    image, elf = images.build("echo", test.folder)
    for arguments, why in (["--machine", "virt", image], "no ELF file"), \
                          (["--machine", "mars", elf], "mars"), \
                          (["--machine", "virt", elf, "more"], "no arguments"), \
                          (["--machine", "virt", "--gdb=localhost:0", elf], "--gdb"), \
                          (["--machine", "virt", test.folder / "none"], "No such file"), \
                          (["--machine", "virt", "--cpus", "99", elf], "99 harts"):
        _, status, said = run([vm.strake(), "check", *arguments])
        check(status in (1, 2) and why in said, f"refused: {said.strip().splitlines()[0]}")
    _, status, said = run([vm.strake(), "check", build(test.folder)])
    check(status == -signal.SIGILL and "--machine" in said,
          "what is bare-metal ends as a program of Linux would, with a hint")


def given(test):
    """Input may be a file, which is longer than what the console takes at once."""
    _, elf = images.build("echo", test.folder)
    text = test.folder / "input"
    text.write_text(1000 * "ab" + "q", encoding="utf-8")
    with open(text, encoding="utf-8") as file:
        done = subprocess.run([vm.strake(), "check", "--machine", "virt", elf], stdin=file, capture_output=True,
                              text=True, timeout=SECONDS, check=False)
    check((done.stdout, done.returncode) == ("ready\n" + 1000 * "ab", 0), "all of a file reaches the console")


def interrupted(test):
    """Ctrl-C ends what does not end itself; input reaches it before."""
    _, elf = images.build("echo", test.folder)
    guest = test.run([vm.strake(), "check", "--machine", "virt", elf])
    guest.expect("ready\r\n", SECONDS)
    guest.write(b"hello")
    guest.expect("hello", SECONDS)
    guest.process.send_signal(signal.SIGINT)
    check(guest.wait(SECONDS) == 128 + signal.SIGINT, "a device that echoes is ended by SIGINT")


def firmware(test):
    right(test)
    for engine in ENGINES:
        for allocator in [], NAMED:
            overflow(test, engine, *allocator)
            use_after_free(test, engine, *allocator)
            double_free(test, engine, *allocator)
        null(test, engine)
        leak(test, engine)
        clean(engine)
    going_on(test)
    supervisor(test)
    liar(test)
    given(test)
    interrupted(test)
    refusals(test)


main(firmware)
