# SPDX-License-Identifier: BSD-2-Clause
"""What the system tests share: checks that say what they checked, skipping, a folder to work in,
and guests that do not outlive the test.

STRAKE_TEST_VMM=qemu runs a test against QEMU, which shows whether the test itself is right.
"""

import os
import shutil
import socket
import sys
import tempfile
import traceback
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(PROJECT / "tools" / "guest"))

import vm  # pylint: disable=wrong-import-position

UNDER_QEMU = os.environ.get("STRAKE_TEST_VMM") == "qemu"
TIMEOUT = 600  # seconds for a boot under emulation on a busy machine
SO_ACCEPTCON = 0x10000  # a flag in /proc/net/unix


class Failed(Exception):
    """A check did not hold."""


class Skipped(Exception):
    """The test cannot be run here; the text says why."""


class Test:
    """One run of a test program: a folder of its own and the guests it started."""

    def __init__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="strake-test-"))
        self.guests = []

    def start(self, machine, **options):
        """Starts a guest."""
        if UNDER_QEMU and (machine.vsock or machine.console or machine.more):
            raise Skipped("QEMU is no peer for this test")
        command = machine.qemu_command() if UNDER_QEMU else machine.strake_command()
        return self.run(command, **options)

    def run(self, command, **options):
        """Starts a process that ends with the test."""
        guest = vm.Running(command, **options)
        self.guests.append(guest)
        return guest

    def run_script(self, script, **options):
        """Boots a guest that runs a shell script and switches off; returns it when it has ended.
        It fails unless the script ends with status 0 and the monitor too."""
        initrd = vm.with_script(script, self.folder / "initrd")
        guest = self.start(vm.Machine(initrd=initrd, **options))
        self.finish(guest)
        return guest

    def finish(self, guest):
        """Waits until a guest's script is done and the guest switched off."""
        match = guest.expect(r"strake: run ended with status (\d+)", TIMEOUT)
        check(match.group(1) == b"0", "the script in the guest succeeds")
        check(guest.wait(60) == 0, "the guest's power-off ends the monitor with status 0")

    def close(self):
        """Ends what still runs and removes the folder."""
        for guest in self.guests:
            guest.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


def check(condition, what):
    """Prints what holds; Failed if it does not."""
    if not condition:
        raise Failed(what)
    print(f"ok: {what}", flush=True)


def free_port():
    """A TCP port of the loopback interface that nobody uses at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def is_listened_at(path):
    """Whether somebody accepts connections at this UNIX socket, as it was bound: between that and
    listen(2) it is there, and refuses."""
    for line in Path("/proc/net/unix").read_text(encoding="utf-8", errors="replace").splitlines():
        fields = line.split(maxsplit=7)
        if len(fields) == 8 and fields[7] == str(path) and int(fields[3], 16) & SO_ACCEPTCON:
            return True
    return False


def need(*paths):
    """Skips the test unless all these files exist."""
    for path in paths:
        if not Path(path).exists():
            raise Skipped(f"'{path}' is missing (tools/guest/fetch.py and tools/guest/initramfs.py "
                          "make what is in build/guest)")


def main(function):
    """Runs a test program's function with a Test, and exits as Meson expects."""
    test = Test()
    try:
        if not UNDER_QEMU:
            need(vm.strake())
        function(test)
    except Skipped as reason:
        print(f"skipped: {reason}")
        sys.exit(77)
    except (Failed, vm.Timeout) as failure:
        for guest in test.guests[-1:]:
            print(f"--- {guest}\n{guest.text()[-4000:]}\n---")
        print(f"FAILED: {failure}")
        sys.exit(1)
    except Exception:  # pylint: disable=broad-except
        traceback.print_exc()
        sys.exit(1)
    finally:
        test.close()
