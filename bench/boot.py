# SPDX-License-Identifier: BSD-2-Clause
"""boot: from the launch of the process to the guest's init (its first line) and to a shell's
prompt, by the host's clock."""

import time

import fetch
import initramfs
import run as bench
import vm


def run(options):
    """The rows; see bench/run.py."""
    fetch.fetch("base")
    initramfs.build()
    machine = options.machine()

    def boot(_, command):
        with vm.Running(command(machine)) as guest:
            guest.expect(vm.PROMPT, timeout=1800)
            prompt = time.monotonic()
            init = guest.time_of("strake: init started")
            seconds = {"launch to init": init - guest.started,
                       "launch to prompt": prompt - guest.started}
        print("".join(f"   {what} {value:.2f} s\n" for what, value in seconds.items()), end="")
        return seconds

    samples = bench.measure(boot, options)
    return [bench.row(what, "s", samples) for what in samples]


def goals(result):
    return [(f"{entry['name']}, times as fast as QEMU", entry["ratio"], ">=", 1.5)
            for entry in result["rows"] if entry["name"] == "launch to init"]
