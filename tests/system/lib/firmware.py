# SPDX-License-Identifier: BSD-2-Clause
"""Assembles the bare-metal guests of firmware/ for a test."""

import shutil
import subprocess

from lib.harness import PROJECT, Skipped

TOOLS = "riscv64-linux-gnu-"
RAM = 0x80000000


def build(name, folder):
    """firmware/NAME.S as (a flat image for --firmware, an ELF file with its symbols)."""
    if not shutil.which(TOOLS + "gcc"):
        raise Skipped(f"{TOOLS}gcc is missing (package gcc-riscv64-linux-gnu)")
    elf, image = folder / f"{name}.elf", folder / f"{name}.bin"
    link = f"-Wl,--build-id=none,--nmagic,--no-warn-rwx-segments,-Ttext={RAM:#x}"
    subprocess.run([TOOLS + "gcc", "-nostdlib", "-static", "-g", "-march=rv64ima_zicsr",
                    "-mabi=lp64", link, "-o", elf, PROJECT / "firmware" / f"{name}.S"], check=True)
    subprocess.run([TOOLS + "objcopy", "-O", "binary", elf, image], check=True)
    return image, elf


def symbols(elf):
    """Addresses by name."""
    listing = subprocess.run([TOOLS + "nm", elf], check=True, capture_output=True, text=True)
    return {name: int(address, 16)
            for address, _, name in (line.split() for line in listing.stdout.splitlines())}
