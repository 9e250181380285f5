# SPDX-License-Identifier: BSD-2-Clause
"""Builds the bare-metal guests of firmware/ for a test."""

import shutil
import subprocess

from lib.harness import PROJECT, Skipped

TOOLS = "riscv64-linux-gnu-"
RAM = 0x80000000
KERNEL = RAM + 0x200000  # what --kernel names is linked here, behind what a firmware may keep


def build(name, folder, start=RAM):
    """firmware/NAME.S or NAME.c as (a flat image for --firmware, an ELF file with its symbols)."""
    if not shutil.which(TOOLS + "gcc"):
        raise Skipped(f"{TOOLS}gcc is missing (package gcc-riscv64-linux-gnu)")
    elf, image = folder / f"{name}.elf", folder / f"{name}.bin"
    source, = (PROJECT / "firmware").glob(f"{name}.[Sc]")
    code = ["-march=rv64ima_zicsr_zifencei", "-mabi=lp64", "-mcmodel=medany", "-mno-relax",
            "-O2", "-g", "-ffreestanding", "-Wall", "-Wextra", "-Werror",
            "-I", PROJECT / "include"]
    link = ["-nostdlib", "-static",
            f"-Wl,--build-id=none,--nmagic,--no-warn-rwx-segments,-Ttext={start:#x}"]
    subprocess.run([TOOLS + "gcc", *code, *link, "-o", elf, source], check=True)
    subprocess.run([TOOLS + "objcopy", "-O", "binary", elf, image], check=True)
    return image, elf


def symbols(elf):
    """Addresses by name."""
    listing = subprocess.run([TOOLS + "nm", elf], check=True, capture_output=True, text=True)
    return {name: int(address, 16)
            for address, _, name in (line.split() for line in listing.stdout.splitlines())}
