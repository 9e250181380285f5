# SPDX-License-Identifier: BSD-2-Clause
"""A guest that is hostile to everything at once (firmware/storm.c), with every kind of device, and
with a host that keeps calling.

STRAKE_TEST_SEED=N gives the seed. One seed is not one course of events, as harts and devices run
side by side, but it is the same kind of storm again.
"""

import os
import random
import re
import shlex
import signal
import socket
import time

from lib.harness import UNDER_QEMU, Skipped, check, free_port
import vm

MEMORY_MB = 64  # the guest's
PEAK_MB = MEMORY_MB + 64  # the monitor's
LIMITED = 8  # devices and services that log on a guest's behalf, each within its own limit:
LINES, WINDOW_S = 11, 5
END_S = 60  # an end takes far less; on a busy machine, with a sanitizer, it is to be no failure


def seed():
    """The seed that was asked for, or the usual one."""
    return int(os.environ.get("STRAKE_TEST_SEED", 1))


def call(family, address):
    """Connects to a port of the guest's and says a word."""
    with socket.socket(family) as client:
        client.settimeout(1)
        try:
            client.connect(address)
            client.send(b"CONNECT 2\n")
        except OSError:  # nobody is there yet, or any more
            pass


def peak_mb(guest):
    """The most memory the monitor has had; 0 when it has ended."""
    try:
        with open(f"/proc/{guest.monitor()}/status", encoding="utf-8") as status:
            match = re.search(r"^VmHWM:\s*(\d+) kB$", status.read(), re.MULTILINE)
    except OSError:  # it has ended, or ends while it is read
        match = None
    return int(match.group(1)) / 1024 if match else 0


def storm(test, image, number, seconds, reboots=False):
    """One storm. It ends with the guest's power-off; with reboots, by SIGTERM."""
    if UNDER_QEMU:
        raise Skipped("QEMU is no peer for this test")
    what = f"storm {number}{', with reboots' if reboots else ''}: "
    print(f"{what}{seconds} s; again with STRAKE_TEST_SEED={number}", flush=True)
    folder = test.folder / f"{number}-{reboots:d}"
    folder.mkdir()
    scratch, fixed = folder / "scratch", folder / "fixed"
    scratch.write_bytes(bytes(4 << 20))
    content = random.Random(number).randbytes(1 << 20)
    fixed.write_bytes(content)
    vsock, console, port = folder / "vsock", folder / "console", free_port()
    machine = vm.Machine(
        kernel=image, initrd=None, cpus=4, memory=f"{MEMORY_MB}M",
        append=f"seed={number} seconds={seconds} reboots={reboots:d}",
        disks=[scratch, f"{fixed},ro"], net=[f"tcp:127.0.0.1:{port}-:2"], vsock=f"3,{vsock}")
    # Rubbish is typed all the time, too. What is left to watch is the log.
    guest = test.run(["sh", "-c", f'exec "$@" </dev/urandom >{shlex.quote(str(console))}', "sh",
                      *machine.strake_command()])

    stop, peak = guest.started + seconds, 0
    while guest.process.poll() is None and time.monotonic() < stop + END_S:
        time.sleep(0.05)
        call(socket.AF_UNIX, str(vsock))
        call(socket.AF_INET, ("127.0.0.1", port))
        peak = max(peak, peak_mb(guest))
        if reboots and time.monotonic() > stop:
            break
    if reboots:
        check(guest.process.poll() is None, f"{what}the monitor goes on")
        guest.process.send_signal(signal.SIGTERM)
    else:
        check(guest.process.poll() is not None, f"{what}the guest comes to its end")
    status = guest.wait(END_S)
    took = time.monotonic() - guest.started

    wanted = 128 + signal.SIGTERM if reboots else 0
    check(status == wanted, f"{what}the monitor ends with status {status}, after {took:.1f} s")
    said = console.read_bytes()
    if reboots:
        boots = said.count(b"storm: seed")
        check(boots > 1, f"{what}the guest has been started {boots} times")
    else:
        answers = re.search(rb"storm: answers ([\d ]+)\r\n", said)
        check(answers and all(int(count) for count in answers.group(1).split()),
              f"{what}each device has used buffers: {answers and answers.group(1).decode()}")
    check(0 < peak < PEAK_MB, f"{what}the process has had {peak:.0f} MB, less than {PEAK_MB}")
    lines, most = guest.output.count(b"\n"), 2 * LIMITED * LINES * (took // WINDOW_S + 1)
    check(lines < most, f"{what}{lines} lines were logged, less than {most:.0f}")
    foreign = [line for _, line in guest.lines if not line.startswith("strake: ")]
    check(not foreign, f"{what}{len(foreign)} of them are not strake's")
    check(fixed.read_bytes() == content, f"{what}the read-only disk is as it was")
    check(scratch.stat().st_size == 4 << 20, f"{what}the other disk has kept its size")
