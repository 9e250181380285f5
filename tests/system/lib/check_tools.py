# SPDX-License-Identifier: BSD-2-Clause
"""What reports errors of memory, Strake and its peers, and what each reported of one run: one form for all."""

import json
import os
import re
import signal
import subprocess
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass, field

PATIENCE = 900  # seconds; each takes one
STATUS = 99     # of a program in which an error was found


@dataclass
class Finding:
    """An error that was reported."""
    kinds: set            # what it may be called: not every tool tells all kinds apart
    access: str = ""      # read, write
    access_bytes: int = None
    object_bytes: int = None
    offset: int = None    # of the access in the object
    frames: dict = field(default_factory=dict)  # mark: [(file name, line)], innermost first

    def line(self, mark, file):
        """The innermost line of `file` in a stack, None if there is none."""
        return next((line for name, line in self.frames.get(mark, []) if name == file), None)

    def say(self, file):
        """In a few words."""
        where = ", ".join(f"{mark} {self.line(mark, file)}" for mark in self.frames)
        return f"{'/'.join(sorted(self.kinds))} {self.access} {self.access_bytes or ''} ({where})"


@dataclass
class Run:
    """What became of a run: its status as the shell has it, what was reported, and what it wrote."""
    status: int
    findings: list
    text: str


def execute(command, stdin, folder, environment=None, report=None):
    """Runs a program; status and text. {fd} in the command is a descriptor by which `report` is written."""
    keep = ()
    if report:
        descriptor = os.open(report, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        keep = (descriptor,)
        command = [word.replace("{fd}", str(descriptor)) for word in command]
    try:
        done = subprocess.run(command, input=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=folder,
                              env={**os.environ, **(environment or {})}, timeout=PATIENCE, pass_fds=keep,
                              check=False)
    except subprocess.TimeoutExpired as late:
        return 124, (late.stdout or b"").decode(errors="replace") + "\ndid not end in time"
    finally:
        for descriptor in keep:
            os.close(descriptor)
    status = done.returncode if done.returncode >= 0 else 128 - done.returncode
    return status, done.stdout.decode(errors="replace")


class Qemu:
    """No checks: shows that a program does what it is to do."""
    name = "qemu"
    cross = True
    finds = False

    def run(self, program, case, folder):
        """Runs the program."""
        command = ["qemu-riscv64", "-L", "/usr/riscv64-linux-gnu", str(program)]
        status, text = execute(command, case.stdin, folder)
        return Run(status, [], text)


class Strake:
    """`strake check`, by its reports in JSON, one a line (docs/check-reports.md)."""
    name = "strake"
    cross = True
    finds = True

    def __init__(self, binary):
        self.binary = binary

    def run(self, program, case, folder, *arguments):
        """Runs the program; a finding each line of the report."""
        report = f"{program}.report"
        command = [self.binary, "check", "--report=json", "--report-fd={fd}", str(program), *arguments]
        status, text = execute(command, case.stdin, folder, report=report)
        with open(report, encoding="utf-8") as lines:
            found = [self.finding(json.loads(line)) for line in lines if line.strip()]
        os.unlink(report)
        return Run(status, found, text)

    @staticmethod
    def frames(stack):
        """(file name, line) a frame."""
        return [(os.path.basename(frame.get("file") or ""), frame.get("line")) for frame in stack or []]

    def finding(self, value):
        """A report's object as a Finding."""
        about = value.get("object") or {}
        marks = {"access": value.get("stack"), "allocated": about.get("allocated"), "freed": about.get("freed")}
        return Finding({value["kind"]}, value.get("access", ""), value.get("bytes"), about.get("bytes"),
                       about.get("offset"), {mark: self.frames(stack) for mark, stack in marks.items() if stack})


class Memcheck:
    """Valgrind, natively."""
    name = "memcheck"
    cross = False
    finds = True
    flags = []
    COMMAND = ["valgrind", "--quiet", "--xml=yes", "--xml-fd={fd}", "--leak-check=full", "--num-callers=40",
               "--undef-value-errors=no", "--errors-for-leak-kinds=definite,possible",
               "--show-leak-kinds=definite,possible", f"--error-exitcode={STATUS}"]

    def run(self, program, case, folder):
        """Runs the program; a finding an <error>."""
        report = f"{program}.xml"
        status, text = execute([*self.COMMAND, str(program)], case.stdin, folder, report=report)
        with open(report, encoding="utf-8") as file:
            document = file.read()
        os.unlink(report)
        if "</valgrindoutput>" not in document:  # the program ended by a signal
            document += "</valgrindoutput>"
        # A child that was forked writes to the same report.
        document = re.sub(r"<\?xml.*?\?>", "", document)
        parts = re.findall(r"<error>.*?</error>", document, re.DOTALL)
        return Run(status, [self.finding(ElementTree.fromstring(part)) for part in parts], text)

    @staticmethod
    def frames(stack):
        """(file name, line) a frame."""
        return [(frame.findtext("file") or "", int(frame.findtext("line") or 0)) for frame in stack]

    def finding(self, error):
        """An <error> as a Finding."""
        kind = error.findtext("kind")
        what = error.findtext("what") or error.findtext("xwhat/text") or ""
        about = " ".join(node.text for node in error.iter("auxwhat"))
        stacks = [self.frames(stack) for stack in error.iter("stack")]
        found = Finding({"wild-pointer"})
        if match := re.search(r"Invalid (read|write) of size (\d+)", what):
            found.access, found.access_bytes = match[1], int(match[2])
        place = re.search(r"Address \S+ is (-?[\d,]+) bytes (after|before|inside) an? (?:un)?(?:recently )?"
                          r"(?:re-)?(?:block|alloc'd block)? ?of size ([\d,]+) (alloc'd|free'd)", about)
        freed = bool(place) and place[4] == "free'd"
        if place:
            at, size = (int(place[n].replace(",", "")) for n in (1, 3))
            found.object_bytes = size
            found.offset = {"after": size + at, "before": -at, "inside": at}[place[2]]
        if kind in ("Leak_DefinitelyLost", "Leak_PossiblyLost"):
            found.kinds = {"leak-definite" if kind == "Leak_DefinitelyLost" else "leak-possible"}
            found.frames = {"allocated": stacks[0]}
            return found
        found.frames = dict(zip(["access"] + (["freed"] if freed else []) + ["allocated"], stacks))
        if kind == "Overlap":
            found.kinds = {"overlapping-copy"}
        elif kind == "SyscallParam":
            found.kinds = {"syscall-buffer-overflow", "heap-use-after-free"}
        elif kind == "MismatchedFree":
            found.kinds = {"mismatched-free"}
        elif kind == "InvalidFree":
            found.kinds = {"invalid-free"}
            if place and freed:
                found.kinds = {"double-free", "use-after-realloc"}
            elif place and found.offset:
                found.kinds = {"interior-free"}
        elif place and freed:
            found.kinds = {"heap-use-after-free", "use-after-realloc"}
        elif place and place[2] == "before":
            found.kinds = {"heap-buffer-underflow"}
        elif place:
            found.kinds = {"heap-buffer-overflow"}
        elif "below stack pointer" in about:
            found.kinds = {"dead-stack-use"}
        elif re.search(r"Address 0x[0-9A-F]{1,3} is not stack'd", about):
            found.kinds = {"null-dereference"}
        return found


class Asan:
    """gcc's AddressSanitizer with its leak detector, natively."""
    name = "asan"
    cross = False
    finds = True
    flags = ["-fsanitize=address"]
    OPTIONS = {"ASAN_OPTIONS": "detect_stack_use_after_return=1:detect_leaks=1:strict_string_checks=1:"
               f"alloc_dealloc_mismatch=1:allocator_may_return_null=1:exitcode={STATUS}",
               "LSAN_OPTIONS": f"exitcode={STATUS}"}
    # What it calls an error, and what we do.
    KINDS = {"heap-buffer-overflow": {"heap-buffer-overflow", "heap-buffer-underflow"},
             "heap-use-after-free": {"heap-use-after-free", "use-after-realloc"},
             "attempting double-free": {"double-free", "use-after-realloc"},
             "attempting free on address which was not malloc": {"invalid-free"},
             "alloc-dealloc-mismatch": {"mismatched-free"},
             "stack-use-after-scope": {"dead-stack-use"},
             "stack-use-after-return": {"dead-stack-use"},
             "dynamic-stack-buffer-overflow": {"stack-buffer-overflow"},
             "stack-buffer-overflow": {"stack-buffer-overflow", "return-address-overwritten"},
             "stack-buffer-underflow": {"stack-buffer-overflow"},
             "global-buffer-overflow": {"global-buffer-overflow"}}

    def run(self, program, case, folder):
        """Runs the program; the first error, and leaks."""
        status, text = execute([str(program)], case.stdin, folder, self.OPTIONS)
        return Run(status, list(self.findings(text)), text)

    @staticmethod
    def stacks(text):
        """The stacks in a report: the line before, and (file name, line) a frame."""
        title, frames = "", []
        for line in text.splitlines() + [""]:
            if match := re.match(r"\s+#\d+ 0x\w+ (?:in .* )?(\S+)$", line):
                place = re.search(r"([^/]+\.(?:c|cc|h)):(\d+)$", match[1])
                frames.append((place[1], int(place[2])) if place else ("", 0))
            else:
                if frames:
                    yield title, frames
                    frames = []
                title = line or title

    def findings(self, text):
        """The errors in what a program has written."""
        if match := re.search(r"ERROR: AddressSanitizer: (.*)", text):
            yield self.finding(match[1], text[match.start():])
        for title, frames in self.stacks(text):
            if title.startswith("Direct leak"):
                yield Finding({"leak-definite", "leak-possible"}, frames={"allocated": frames})

    def finding(self, title, text):
        """An error as a Finding."""
        found = Finding(next((kinds for words, kinds in self.KINDS.items() if title.startswith(words)),
                             {"wild-pointer"}))
        if match := re.search(r"^(READ|WRITE) of size (\d+)", text, re.MULTILINE):
            found.access, found.access_bytes = match[1].lower(), int(match[2])
        for heading, frames in self.stacks(text):
            if heading.startswith("freed by"):
                found.frames.setdefault("freed", frames)
            elif heading.startswith(("previously allocated by", "allocated by")):
                found.frames.setdefault("allocated", frames)
            else:
                found.frames.setdefault("access", frames)
        place = re.search(r"is located (\d+) bytes (inside of|to the right of|to the left of) (\d+)-byte region", text)
        if place:
            at, size = int(place[1]), int(place[3])
            found.object_bytes = size
            found.offset = {"inside of": at, "to the right of": size + at, "to the left of": -at}[place[2]]
        if "param-overlap" in title:
            found.kinds = {"overlapping-copy"}
        elif found.kinds == {"heap-buffer-overflow", "heap-buffer-underflow"} and place:
            found.kinds = {"heap-buffer-underflow" if found.offset < 0 else "heap-buffer-overflow",
                           "syscall-buffer-overflow"}
        elif found.kinds == {"heap-use-after-free", "use-after-realloc"}:
            found.kinds = found.kinds | {"syscall-buffer-overflow"}
        elif found.kinds == {"invalid-free"} and place and found.offset:
            found.kinds = {"interior-free"}
        elif match := re.search(r"SEGV on unknown address (?:0x0+(?=\w))?(\w+)", title):
            address = int(match[1], 16) if re.fullmatch(r"[0-9a-f]+", match[1]) else -1
            found.kinds = {"null-dereference"} if 0 <= address < 4096 else {"wild-pointer"}
            if match := re.search(r"caused by a (READ|WRITE)", text):
                found.access = match[1].lower()
        return found


def name_of(status):
    """A status in words."""
    return signal.strsignal(status - 128) if 128 < status < 160 else f"status {status}"
