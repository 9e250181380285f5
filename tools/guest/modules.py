# SPDX-License-Identifier: BSD-2-Clause
"""Kernel modules: finds them in Debian's tree, with what they depend on, read from the modules."""

import lzma
import struct
import subprocess
import tempfile
from pathlib import Path

STRIP = "riscv64-linux-gnu-strip"


class Module:
    """One module, unpacked: loading it needs no decompression in the guest."""

    def __init__(self, path):
        self.name = _module_name(path)
        self.content = lzma.decompress(path.read_bytes()) if path.suffix == ".xz" \
            else path.read_bytes()
        info = _modinfo(self.content)
        self.aliases = info.get("alias", [])
        needed = info.get("depends", [""])[0].split(",")
        for soft in info.get("softdep", []):
            kind, _, names = soft.partition(":")
            needed += names.split() if kind.strip() == "pre" else []
        self.depends = [name.replace("-", "_") for name in needed if name]


def collect(tree, names):
    """The modules `names` and all they depend on, by name. What is built into the kernel is no
    module and left out."""
    paths = {_module_name(path): path for path in Path(tree).glob("kernel/**/*.ko*")}
    builtin = {_module_name(Path(line)) for line in
               Path(tree, "modules.builtin").read_text(encoding="utf-8").split()}
    found = {}
    wanted = [name.replace("-", "_") for name in names]
    missing = [name for name in wanted if name not in paths and name not in builtin]
    if missing:
        raise ValueError(f"the kernel in '{tree}' has no module '{missing[0]}'")
    while wanted:
        name = wanted.pop()
        if name not in found and name in paths:
            found[name] = Module(paths[name])
            wanted += found[name].depends
    return found


def strip(found):
    """Takes what loading does not need out of the modules `found`: most symbols, which are four fifths of a
    large one, and the signature, which Debian's kernel does not insist on."""
    with tempfile.TemporaryDirectory(prefix="strake-modules-") as scratch:
        paths = {name: Path(scratch, f"{name}.ko") for name in found}
        for name, path in paths.items():
            path.write_bytes(found[name].content)
        subprocess.run([STRIP, "--strip-unneeded", *paths.values()], check=True)
        for name, path in paths.items():
            found[name].content = path.read_bytes()


def install(tree, root, found):
    """Adds `found` to a cpio tree below `root`, with the indexes that modprobe reads."""
    dependencies, aliases = [], []
    for name in sorted(found):
        module = found[name]
        tree.file(f"{root}/{name}.ko", module.content)
        chain = " ".join(f"{other}.ko" for other in _chain(found, name))
        dependencies.append(f"{name}.ko: {chain}".rstrip() + "\n")
        aliases += [f"alias {alias} {name}\n" for alias in module.aliases]
    tree.file(f"{root}/modules.dep", "".join(dependencies))
    tree.file(f"{root}/modules.alias", "".join(aliases))


def _chain(found, name):
    """Everything `name` needs, the nearest first, as modules.dep has it."""
    chain = []
    queue = list(found[name].depends)
    while queue:
        other = queue.pop(0)
        if other in found and other != name:
            chain = [entry for entry in chain if entry != other] + [other]
            queue += found[other].depends
    return chain


def _module_name(path):
    return path.name.partition(".ko")[0].replace("-", "_")


def _modinfo(elf):
    """The `key=value` strings of a module's .modinfo section, as lists by key."""
    shoff, = struct.unpack_from("<Q", elf, 0x28)
    shentsize, shnum, shstrndx = struct.unpack_from("<HHH", elf, 0x3a)
    sections = [struct.unpack_from("<IIQQQQ", elf, shoff + index * shentsize)
                for index in range(shnum)]
    names = sections[shstrndx][4]
    for name, _, _, _, offset, size in sections:
        start = names + name
        if elf[start:elf.index(b"\0", start)] == b".modinfo":
            info = {}
            for entry in elf[offset:offset + size].split(b"\0"):
                key, _, value = entry.decode().partition("=")
                info.setdefault(key, []).append(value)
            return info
    raise ValueError("a kernel module has no .modinfo section")
