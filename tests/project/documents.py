#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""What README and the other documents tell one to type exists: make targets, subcommands of strake and
their options, files of the project, and links between documents. The man page names every
subcommand and its options, and no other. Help fits on a terminal of 80 columns.

usage: documents.py STRAKE
"""
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands(text):
    """Command lines: of fenced blocks (behind `$ `, or all of a `sh` block) and of inline code."""
    for language, block in re.findall(r"```(\w*)\n(.*?)```", text, re.S):
        block = re.sub(r"\\\n\s*", " ", block)
        for line in block.splitlines():
            if line.startswith("$ "):
                yield line[2:]
            elif language == "sh":
                yield line
    prose = re.sub(r"```.*?```", "", text, flags=re.S)
    yield from re.findall(r"`([^`\n]+)`", prose)


def make_targets():
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    appliances = {f"appliance-{path.stem}" for path in ROOT.glob("tools/appliances/*.toml")}
    return set(re.findall(r"^([a-z-]+):", text, re.M)) | appliances


class Strake:
    def __init__(self, binary):
        self.binary = binary
        self.helps = {}

    def help(self, command):
        if command not in self.helps:
            run = subprocess.run([self.binary, "help", command], capture_output=True, text=True,
                                 check=False)
            self.helps[command] = run.stdout if run.returncode == 0 else None
        return self.helps[command]

    def commands(self):
        """All subcommands that users may call."""
        run = subprocess.run([self.binary, "help"], capture_output=True, text=True, check=True)
        return set(re.findall(r"^  (\w+) ", run.stdout, re.M))

    def fault_of(self, words):
        """What is wrong with `strake words...`, or None."""
        if not words or not re.fullmatch(r"[a-z]+", words[0]):
            return None
        text = self.help(words[0])
        if text is None:
            return f"there is no subcommand \"{words[0]}\""
        known = set(re.findall(r"--[a-z-]+", text))
        for word in words[1:]:
            option = re.match(r"--[a-z-]+", word)
            if option and option.group(0) not in known:
                return f"strake {words[0]} has no option {option.group(0)}"
        return None


def fault_of(command, targets, strake):
    words = command.split("#")[0].split()
    while words and re.fullmatch(r"[A-Z]+=\S*|sudo|time", words[0]):
        words = words[1:]
    if not words:
        return None
    if words[0] == "make":
        for word in words[1:]:
            if re.fullmatch(r"[a-z-]+", word) and word not in targets:
                return f"there is no make target \"{word}\""
    if words[0] in ("strake", "build/strake", "./build/strake"):
        return strake.fault_of(words[1:])
    if re.fullmatch(r"(src|tools|tests|docs|bench|guest|firmware|packaging)/[\w./-]+", words[0]):
        if "ROOM" not in words[0] and not (ROOT / words[0]).exists():
            return f"there is no file \"{words[0]}\""
    return None


def options_of(strake, command):
    return set(re.findall(r"^  (--[a-z-]+)", strake.help(command), re.M)) - {"--help"}


def man_page_faults(strake):
    """Before its first subsection the page is about `strake run`; each other command has a subsection,
    but for options that it shares with all, or with `strake run`."""
    text = (ROOT / "docs/strake.1").read_text(encoding="utf-8")
    parts = re.split(r"^\.SS strake (\w+)$", re.sub(r"^\.SH SUPERVISOR$.*?(?=^\.SS)", "", text,
                                                    flags=re.M | re.S), flags=re.M)
    run = options_of(strake, "run")
    sections = {"run": parts[0], **dict(zip(parts[1::2], parts[2::2]))}
    for command in strake.commands() - {"help", "version", "inspect", "completion"} - set(sections):
        yield f"docs/strake.1: strake {command} is missing"
    for command, section in sections.items():
        named = set(re.findall(r"^\.BI? (--[a-z-]+)", section, re.M))
        known = options_of(strake, command)
        shared = {"--socket", "--json"} | (run if command in ("create", "restore") else set())
        wanted = known if command == "run" else known - shared
        for option in sorted(wanted - named):
            yield f"docs/strake.1: strake {command} {option} is missing"
        for option in sorted(named - known):
            yield f"docs/strake.1: strake {command} {option} is unknown"


def width_faults(strake):
    for command in sorted(strake.commands()):
        for line in strake.help(command).splitlines():
            if len(line) > 80:
                yield f"strake help {command}: wider than a terminal: {line}"


def link_faults(path, text):
    for target in re.findall(r"\]\(([^)#:\s]+)[^)]*\)", text):
        if not (path.parent / target).exists():
            yield f"links to \"{target}\", which does not exist"


def main():
    strake = Strake(sys.argv[1])
    targets = make_targets()
    assert fault_of("make nonsense", targets, strake) and fault_of("strake nonsense", targets, strake)
    faults = []
    count = 0
    for path in DOCUMENTS:
        text = path.read_text(encoding="utf-8")
        name = path.relative_to(ROOT)
        for command in commands(text):
            count += 1
            fault = fault_of(command, targets, strake)
            if fault:
                faults.append(f"{name}: `{command}`: {fault}")
        faults += [f"{name}: {fault}" for fault in link_faults(path, text)]
    faults += man_page_faults(strake)
    faults += width_faults(strake)
    print("\n".join(faults))
    print(f"checked {count} commands and names in {len(DOCUMENTS)} documents")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
