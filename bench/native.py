# SPDX-License-Identifier: BSD-2-Clause
"""native: the same C sources, bench/kernels/, compiled for the host and for the guest with the same
flags; run on the host itself and in the guests. What the guests cost is time over the host's.

KERNELS="sort matrix" runs only these.
"""

import subprocess
import tempfile
from pathlib import Path

import cpio
import guest
import initramfs
import run as bench
import vm

KERNELS = Path(__file__).resolve().parent / "kernels"
BENCH_C = initramfs.SOURCES / "bench.c"  # which tells times, in the guest and on the host

# -ffp-contract=off: a compiler fuses a multiplication and an addition where the processor can, which
# changes results; with it all compute the same.
FLAGS = ["-std=gnu17", "-O2", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror", "-static"]
COMPILERS = {"host": "gcc", "riscv64": initramfs.COMPILER}

# How many rounds take the host about a second, and QEMU at most some 20.
ROUNDS = {
    "hash": 180,
    "sort": 95,
    "matrix": 450,
    "search": 180,
    "bytecode": 320,
    "nbody": 400,
    "stream": 100,
    "chase": 24,
}


def compile_all(names, folder):
    """folder/host/NAME and folder/riscv64/NAME of each kernel, and folder/host/bench."""
    for target, compiler in COMPILERS.items():
        (folder / target).mkdir(parents=True, exist_ok=True)
        for name in names:
            subprocess.run([compiler, *FLAGS, "-o", str(folder / target / name),
                            str(KERNELS / f"{name}.c"), str(KERNELS / "main.c"), "-lm"], check=True)
    subprocess.run([COMPILERS["host"], *FLAGS, "-o", str(folder / "host" / "bench"),
                    str(BENCH_C)], check=True)


def overlay(rounds, folder):
    """The kernels and a script that runs them, for the guest."""
    tree = cpio.Tree()
    script = "#!/bin/sh\n"
    for name, count in rounds.items():
        tree.host_file(f"kernels/{name}", folder / "riscv64" / name, 0o755)
        script += f"bench time {name} /kernels/{name} {count}\n"
    tree.file("strake/run", script, 0o755)
    return tree


def collect(running, names, checksums):
    """Seconds by kernel; a checksum other than the first one seen is an error."""
    seconds = {}
    for name in names:
        running.expect(f"bench: begin {name}\r?\n", timeout=600)
        checksum = running.expect(r"checksum (\w+)\r?\n", timeout=3600).group(1)
        seconds[name] = guest.timed(running, name)
        if checksums.setdefault(name, checksum) != checksum:
            raise ValueError(f"'{name}' computed {checksum.decode()} and before that "
                             f"{checksums[name].decode()}")
        print(f"   {name} {seconds[name]:.3f} s", flush=True)
    return seconds


def on_host(rounds, folder):
    """A command that runs all kernels on the host, as the guest's script does."""
    program = folder / "host" / "bench"
    return ["sh", "-c", "; ".join(f"'{program}' time {name} '{folder / 'host' / name}' {count}"
                                  for name, count in rounds.items())]


def run(options):
    """The rows; see bench/run.py."""
    rounds = {name: max(1, round(ROUNDS[name] * options.scale))
              for name in bench.choose("KERNELS", ROUNDS)}
    checksums = {}
    with tempfile.TemporaryDirectory(prefix="strake-bench-") as temporary:
        folder = Path(temporary)
        compile_all(rounds, folder)
        initramfs.build()
        initrd = vm.with_overlay(overlay(rounds, folder), folder / "initrd")
        machine = options.machine(initrd=initrd)

        def work(_, command):
            words = on_host(rounds, folder) if command is None else command(machine)
            with vm.Running(words) as running:
                return collect(running, rounds, checksums)

        samples = bench.measure(work, options, native=True)
    return [bench.row(name, "s", samples) for name in samples]


def goals(result):
    return [("times the host's own time, geometric mean", result["geomean_ratio_native"], "<=", 2.2)]
