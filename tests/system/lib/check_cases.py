# SPDX-License-Identifier: BSD-2-Clause
"""The programs of tests/check/: what their headers say, and how they are built (see its README.md)."""

import re
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from lib.harness import PROJECT

FOLDER = PROJECT / "tests" / "check"
CLEAN = "none"  # the kind of a program that has nothing to report
KINDS = {
    "heap-buffer-overflow", "heap-buffer-underflow", "heap-use-after-free", "use-after-realloc", "double-free",
    "invalid-free", "interior-free", "mismatched-free", "overlapping-copy", "syscall-buffer-overflow",
    "dead-stack-use", "return-address-overwritten", "null-dereference", "wild-pointer", "leak-definite",
    "leak-possible", "stack-buffer-overflow", "global-buffer-overflow", CLEAN}
KEYS = {"kind", "access", "object", "build", "only", "missed-by", "needs", "stdin"}
MARKS = {"access", "allocated", "freed"}
# What is seen only in programs that the compiler has prepared for it.
TAGGED = {"stack-buffer-overflow", "global-buffer-overflow"}
BUILDS = {"O0-dynamic": ["-O0"], "O2-static": ["-O2", "-static"],
          "O0-static": ["-O0", "-static"], "O2-dynamic": ["-O2"]}
USUAL = {"O0-dynamic", "O2-static"}
NATIVE = {"O0": ["-O0"], "O2": ["-O2"]}
# By the compiler that gives variables identifiers, include/strake/tagging.cfg.
TAGGING = {"O0-dynamic-tagging": ["-O0"], "O2-static-tagging": ["-O2", "-static"]}


class BadCase(Exception):
    """A program's header does not say what it has to."""


@dataclass
class Case:
    """A program; of the error that it has: the kinds it may be called, and where it is."""
    name: str
    path: Path
    kinds: set
    access: str = ""           # "read", "write", and the bytes if one access is meant
    object_bytes: int = None
    offset: int = None
    build: list = field(default_factory=list)
    only: set = field(default_factory=set)       # words that a build's name must have
    missed_by: set = field(default_factory=set)  # native tools that do not see it, or see what is none
    tagged: bool = False       # seen only in a program that the compiler has prepared for it
    stdin: bytes = b""
    lines: dict = field(default_factory=dict)    # mark: numbers of lines

    @property
    def clean(self):
        """Whether there is nothing to report, and so no twin."""
        return self.kinds == {CLEAN}


def read(path):
    """The program at `path`. BadCase if its header is not as README.md has it."""
    text = path.read_text(encoding="utf-8")
    values = {}
    for line in text.splitlines():
        if not line.startswith("//"):
            break
        match = re.fullmatch(r"// ([a-z-]+):(.*)", line)
        if match:
            if match[1] not in KEYS or not match[2].strip():
                raise BadCase(f"'{path}': no such key, or no value: '{match[1]}'")
            values[match[1]] = match[2].strip()
    case = Case(str(path.relative_to(FOLDER)), path, set(values.get("kind", "").split(" or ")))
    if not case.kinds <= KINDS:
        raise BadCase(f"'{path}': no such kind: '{values.get('kind')}'")
    case.access = values.get("access", "")
    if not re.fullmatch(r"((read|write)( \d+)?)?", case.access):
        raise BadCase(f"'{path}': access is 'read' or 'write', and bytes")
    if "object" in values:
        match = re.fullmatch(r"(\d+) bytes(?:, at (-?\d+))?", values["object"])
        if not match:
            raise BadCase(f"'{path}': object is 'N bytes, at OFFSET'")
        case.object_bytes = int(match[1])
        case.offset = int(match[2]) if match[2] else None
    case.build = values.get("build", "").split()
    case.only = set(values.get("only", "").split())
    case.missed_by = set(values.get("missed-by", "").split())
    case.tagged = values.get("needs") == "tagging" or case.kinds <= TAGGED
    case.stdin = values.get("stdin", "").encode().decode("unicode_escape").encode("latin-1")
    for number, line in enumerate(text.splitlines(), 1):
        for mark in re.findall(r"// @(\w+)", line):
            if mark not in MARKS:
                raise BadCase(f"'{path}:{number}': no such mark: '@{mark}'")
            case.lines.setdefault(mark, set()).add(number)
    if case.clean == bool(case.lines):
        raise BadCase(f"'{path}': marks the lines of an error, unless there is none")
    if not case.clean and "TWIN(" not in text and "FIXED" not in text:
        raise BadCase(f"'{path}': has no corrected twin")
    return case


def cases(names=()):
    """All programs, or those whose names hold one of `names`."""
    found = [read(path) for path in sorted(FOLDER.rglob("*.c")) + sorted(FOLDER.rglob("*.cc"))]
    return [case for case in found if not names or any(name in case.name for name in names)]


class BuildFailed(Exception):
    """The compiler's words."""


def compiler_of(case, prefix, label):
    """The compiler's command: gcc, or clang where the build's name says so."""
    plus = "++" if case.path.suffix == ".cc" else ""
    if "tagging" not in label.split("-"):
        return [prefix + ("g++" if plus else "gcc")]
    config = PROJECT / "include" / "strake" / "tagging.cfg"
    return [f"clang{plus}-19", f"--config={config}", "--target=riscv64-linux-gnu"]


def build(case, fixed, flags, prefix, folder, label):
    """Compiles and links one version of a program, for the host or by a cross compiler; its path."""
    name = case.name.replace("/", "-") + ("-fixed" if fixed else "") + "-" + label
    compiler = compiler_of(case, prefix, label)
    standard = "-std=gnu++17" if case.path.suffix == ".cc" else "-std=gnu17"
    cache = ["ccache"] if shutil.which("ccache") else []
    common = [standard, "-g", "-w", "-fno-omit-frame-pointer", "-fno-stack-protector", "-D_GNU_SOURCE", *flags]
    program = folder / name
    for command in (
            [*cache, *compiler, *common, *(["-DFIXED"] if fixed else []), *case.build, f"-I{FOLDER}", "-c",
             str(case.path), "-o", f"{program}.o"],
            [*compiler, *common, f"{program}.o", "-o", str(program), *case.build]):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise BuildFailed(f"{' '.join(command)}\n{done.stderr}")
    Path(f"{program}.o").unlink()
    return program
