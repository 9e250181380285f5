#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""gdb-multiarch breaks, steps, reads and writes registers and memory, and lists the harts; on a
bare-metal guest and on Debian's kernel."""

import re
import shutil
import signal
import socket
import subprocess
import time

from lib import firmware
from lib.harness import Skipped, check, free_port, main, need
import vm


def debug(port, elf, commands):
    """Runs gdb with commands; returns what it said."""
    start = ["set pagination off", "set confirm off", "set tcp connect-timeout 60",
             "set remotetimeout 60", "set architecture riscv:rv64",
             f"target remote 127.0.0.1:{port}"]
    arguments = [word for command in start + commands for word in ("-ex", command)]
    result = subprocess.run(["gdb-multiarch", "-nx", "-batch", *arguments, *([elf] if elf else [])],
                            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, text=True, timeout=300, check=False)
    return result.stdout


def bare_metal(test):
    image, elf = firmware.build("echo", test.folder)
    at = firmware.symbols(elf)
    port = free_port()
    guest = test.start(vm.Machine(kernel=None, initrd=None, append=None, firmware=image, cpus=2,
                                  gdb=f"127.0.0.1:{port}"))
    said = debug(port, elf, [
        "break putc", "continue",
        "printf \"pc %lx a0 %lx\\n\", $pc, $a0",
        "stepi", "printf \"stepped %lx\\n\", $pc",
        "info threads",
        "set $a0 = 0x21", "printf \"a0 %lx\\n\", $a0",           # '!' instead of 'r'
        "x/s &greeting", "set {char}((char *)&greeting + 1) = 0x45",  # "rEady"
        "x/s &greeting",
        "delete", "break getc", "continue", "printf \"in getc %d\\n\", $pc == (long)&getc",
        "delete", "break counted", "continue",
        "printf \"thread %d counted %d\\n\", $_thread, *(long *)&counter > 0",
        "printf \"hart %d\\n\", $mhartid",
        "delete", "detach"])
    for line in said.splitlines():
        print(f"gdb: {line}")
    check(f"pc {at['putc']:x} a0 72" in said, "gdb: stops at a breakpoint, registers read")
    check(re.search(rf"stepped {at['putc'] + 4:x}", said), "gdb: steps one instruction")
    check(len(re.findall(r"^[* ] +\d+ +Thread", said, re.MULTILINE)) == 2, "gdb: lists two harts")
    check("a0 21" in said, "gdb: writes a register")
    check('"ready\\r\\n"' in said, "gdb: reads memory")
    check('"rEady\\r\\n"' in said, "gdb: writes memory")
    check("in getc 1" in said, "gdb: goes on to another breakpoint")
    check("thread 2 counted 1" in said and "hart 1" in said,
          "gdb: the other hart stops at a breakpoint of its own")
    guest.expect("!Eady\r\n", 60)
    check(True, "gdb: the guest ran with what was written")
    guest.send("detached")
    guest.expect("detached", 60)
    check(True, "gdb: the guest goes on after the debugger left")
    guest.send("q")
    check(guest.wait(60) == 0, "gdb: and ends with status 0")


def deaf_client(test):
    """A debugger that asks and does not listen."""
    image, _ = firmware.build("echo", test.folder)
    port = free_port()
    guest = test.start(vm.Machine(kernel=None, initrd=None, append=None, firmware=image,
                                  gdb=f"127.0.0.1:{port}"))
    for _ in range(600):
        try:
            client = socket.create_connection(("127.0.0.1", port))
            break
        except ConnectionRefusedError:
            time.sleep(0.1)
    with client:
        client.settimeout(1)
        try:
            while True:  # until the server, whose replies are not taken, does not take these
                client.sendall(b"$m80000000,4000#e5" * 100)
        except (TimeoutError, ConnectionError):
            pass
        guest.process.terminate()
        check(guest.wait(60) == 128 + signal.SIGTERM,
              "gdb: SIGTERM ends a guest whose debugger does not listen")


def kernel(test):
    need(vm.KERNEL, vm.INITRAMFS)
    port = free_port()
    test.start(vm.Machine(gdb=f"127.0.0.1:{port}"))
    said = debug(port, None, [
        # The second instruction: the guest may be stopped at the first already.
        "break *0x80200002", "continue",
        "printf \"at %lx hart %ld tree %x\\n\", $pc, $a0, *(int *)$a1",
        "x/2i $pc", "stepi", "stepi", "printf \"moved %d\\n\", $pc != 0x80200002",
        "kill"])
    check("at 80200002 hart 0 tree edfe0dd0" in said,
          "gdb: stops at the kernel's first instructions; a0 is the hart, a1 the device tree")
    check("moved 1" in said, "gdb: steps the kernel")


def gdb(test):
    if not shutil.which("gdb-multiarch"):
        raise Skipped("gdb-multiarch is missing")
    bare_metal(test)
    deaf_client(test)
    kernel(test)


main(gdb)
