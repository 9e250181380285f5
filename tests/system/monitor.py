#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""`strake run` and its monitor, two processes: each one's death is the other's end, told where
somebody is left to tell; a slow reader of the console misses nothing; the monitor is confined."""

import os
import re
import signal
import subprocess
import time
from pathlib import Path

from lib import firmware
from lib.harness import UNDER_QEMU, Skipped, check, main
import vm

LINES = 20000
FLOOD = """
    .globl _start
_start:
    csrr t0, mhartid
1:  bnez t0, 1b
    lui s0, 0x10000
    li s1, 0
2:  li s2, 1000000
    li s3, 10
3:  divu t0, s1, s2
    remu t0, t0, s3
    addi t0, t0, '0'
    sb t0, 0(s0)
    divu s2, s2, s3
    bnez s2, 3b
    li t0, '\\n'
    sb t0, 0(s0)
    addi s1, s1, 1
    li t0, LINES
    bne s1, t0, 2b
    lui t0, 0x100
    li t1, 0x5555
    sw t1, 0(t0)
4:  j 4b
"""


def monitor(test):
    if UNDER_QEMU:
        raise Skipped("QEMU is one process")
    image, _ = firmware.build("echo", test.folder)
    machine = vm.Machine(kernel=None, initrd=None, append=None, firmware=image)
    supervisor_killed(test, machine)
    monitor_killed(test, machine)
    confined(test, machine)
    slow_reader(test)


def gone(pid):
    """Whether a process has ended within a minute."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()[0] == "Z":
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.05)
    return False


def supervisor_killed(test, machine):
    """Nobody is left who knows the monitor."""
    for what, keys in (("a guest that waits", ""), ("one whose output nobody reads", "w")):
        reader, writer = os.pipe()
        process = subprocess.Popen(machine.strake_command(), stdin=subprocess.PIPE, stdout=writer)
        os.close(writer)
        guest = vm.Running.__new__(vm.Running)
        guest.process, guest.command = process, machine.strake_command()
        data = b""
        while b"ready" not in data:
            data += os.read(reader, 100)
        process.stdin.write(keys.encode())
        process.stdin.flush()
        time.sleep(0.5)
        pid = guest.monitor()
        check(pid is not None, f"{what} has a monitor")
        process.kill()
        process.wait()
        check(gone(pid), "which ends when its supervisor is killed")
        os.close(reader)


def monitor_killed(test, machine):
    """The supervisor says how."""
    for number in (signal.SIGKILL, signal.SIGSEGV):
        guest = test.start(machine)
        guest.expect("ready\r\n", 60)
        os.kill(guest.monitor(), number)
        check(guest.wait(60) == 1, f"{number.name} to the monitor ends it with status 1")
        check(f"its monitor crashed: {number.name}" in guest.text(),
              "and is told")
    guest = test.start(machine)
    guest.expect("ready\r\n", 60)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(guest.monitor(), number)
    guest.send("still")
    guest.expect("still", 60)
    check(True, "signals that are meant for the supervisor do nothing to the monitor")
    guest.send("q")
    check(guest.wait(60) == 0, "it ends as always")


def confined(test, machine):
    """What the kernel says of the process."""
    guest = test.start(machine)
    guest.expect("ready\r\n", 60)
    status = Path(f"/proc/{guest.monitor()}/status").read_text(encoding="ascii")
    fields = dict(re.findall(r"^(\w+):\s*(.*)$", status, re.MULTILINE))
    check(fields["NoNewPrivs"] == "1", "no new privileges")
    check(int(fields["CapEff"], 16) == int(fields["CapPrm"], 16) == 0, "no capabilities")
    check(fields["Seccomp"] == "2", "a filter of system calls")
    open_files = {os.path.realpath(link) for link in Path(f"/proc/{guest.monitor()}/fd").iterdir()}
    check(not any(name.startswith(("/home", "/etc", "/usr")) for name in open_files),
          "and no file but those of the guest")
    guest.send("q")
    check(guest.wait(60) == 0, "and the guest runs")


def slow_reader(test):
    """A pipe that is read in small pieces with pauses."""
    source, flood = test.folder / "flood.S", test.folder / "flood"
    source.write_text(FLOOD.replace("LINES", str(LINES)))
    tools = firmware.TOOLS
    subprocess.run([tools + "gcc", "-march=rv64im_zicsr", "-mabi=lp64", "-nostdlib", "-static",
                    "-Wl,--build-id=none,--nmagic,--no-warn-rwx-segments,-Ttext=0x80000000",
                    "-o", flood, source], check=True)
    machine = vm.Machine(kernel=None, initrd=None, append=None, firmware=flood)
    with subprocess.Popen(machine.strake_command(), stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE) as process:
        data = bytearray()
        while piece := os.read(process.stdout.fileno(), 3000):
            data += piece
            time.sleep(0.001)
    check(process.returncode == 0, "a guest that prints and switches itself off ends with status 0")
    lines = data.decode().split()
    check(lines == [f"{number:07}" for number in range(LINES)],
          f"a slow reader has each of {LINES} lines")


main(monitor)
