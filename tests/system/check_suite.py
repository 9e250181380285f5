#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""The programs of tests/check/: every bad one is reported as the right kind at the right lines, no corrected
twin and no clean one is.

usage: check_suite.py [--tools strake,qemu,asan,memcheck] [--builds one|usual|all] [NAME ...]

NAME chooses the programs whose name holds it. Without --tools it is strake; where that has no `check`, the
suite itself is checked: qemu shows that twins do what they are to, asan and memcheck, natively, that bad ones
are bad.
"""

import argparse
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lib import check_cases as cases
from lib import check_tools as tools
from lib.harness import Failed, check, main
import vm


def problem_of(case, found, tool):
    """What is wrong with a finding for the program's error, or None."""
    file = case.path.name
    if not found.kinds & case.kinds:
        return f"reported as {found.say(file)}, not as {' or '.join(sorted(case.kinds))}"
    # Of a copy of many bytes, natively, the library's own accesses are reported, in whatever pieces.
    words = case.access.split()
    exact = tool.name == "strake"
    if words and found.access in ("read", "write") and found.access != words[0]:
        return f"reported as a {found.access}: {found.say(file)}"
    if exact and len(words) == 2 and found.access_bytes != int(words[1]):
        return f"reported as an access of {found.access_bytes} bytes"
    if found.object_bytes is not None and case.object_bytes not in (None, found.object_bytes):
        return f"the object is said to have {found.object_bytes} bytes, not {case.object_bytes}"
    if exact and case.offset not in (None, found.offset):
        return f"the access is said to be at {found.offset}, not at {case.offset}"
    for mark, lines in case.lines.items():
        line = found.line(mark, file)
        # Natively, frames are lost on the way through libraries.
        if line not in lines and (exact or mark == "access" or line):
            return f"'{mark}' is in line {line}, not {' or '.join(map(str, sorted(lines)))}: {found.say(file)}"
    return None


def judge_bad(case, run, tool):
    """What is wrong with a bad program's run, or None."""
    if not run.findings:
        return f"nothing reported ({tools.name_of(run.status)})"
    if tool.name == "strake" and run.status != tools.STATUS:
        return f"ended with {tools.name_of(run.status)}"
    # What is wrong with a program first counts: it goes on with broken memory. Natively, a leak may be a
    # consequence.
    return problem_of(case, run.findings[0], tool)


def judge_clean(case, run):
    """What is wrong with the run of a program without an error, or None."""
    if run.findings:
        return f"false report: {run.findings[0].say(case.path.name)}"
    if run.status:
        return f"ended with {tools.name_of(run.status)}: {run.text[-300:].strip()}"
    return None


def check_rules():
    """What is not as it has to be is found."""
    case = cases.Case("a.c", Path("a.c"), {"heap-buffer-overflow"}, access="write 4", object_bytes=16, offset=16,
                      lines={"access": {9, 12}, "allocated": {5}})
    frame = {"function": "main", "file": "a.c"}
    right = {"kind": "heap-buffer-overflow", "access": "write", "bytes": 4, "address": "0x10", "stack": [
        {"function": "memset", "file": "memset.S", "line": 7}, {**frame, "line": 12}],
             "object": {"bytes": 16, "offset": 16, "allocated": [{**frame, "line": 5}]}}
    tool = tools.Strake("strake")

    def problem(status=tools.STATUS, **changes):
        about = {**right["object"], **changes.pop("object", {})}
        value = {**right, **changes, "object": about}
        return judge_bad(case, tools.Run(status, [tool.finding(value)], ""), tool)

    check(not problem(), "a right report is right")
    wrong = [{"kind": "double-free"}, {"access": "read"}, {"bytes": 8}, {"stack": [{**frame, "line": 13}]},
             {"stack": right["stack"][:1]}, {"status": 0}, {"object": {"offset": 20}}, {"object": {"bytes": 17}},
             {"object": {"allocated": [{**frame, "line": 6}]}}, {"object": {"allocated": None}}]
    check(all(problem(**changes) for changes in wrong), f"{len(wrong)} wrong ones are wrong")
    check(judge_bad(case, tools.Run(0, [], ""), tool) and judge_clean(case, tools.Run(1, [], "")) and
          judge_clean(case, tools.Run(0, [tool.finding(right)], "")) and not judge_clean(case, tools.Run(0, [], "")),
          "so are a bad program that is not reported, and a twin that is or fails")


def runs_of(case, tool, builds):
    """(fixed, label, flags) of the versions that a tool is to run."""
    if not tool.cross and tool.name in case.missed_by:
        return []
    if tool.cross:
        known = cases.TAGGING if tool.name == "strake" and case.tagged else cases.BUILDS
        fitting = [(name, flags) for name, flags in known.items() if case.only <= set(name.split("-"))]
        usual = [one for one in fitting if one[0] in cases.USUAL]
        chosen = fitting if builds == "all" else usual or fitting[:1]
    else:
        chosen = [(name, flags + tool.flags) for name, flags in cases.NATIVE.items()
                  if case.only & set(cases.NATIVE) <= {name}]
    if builds == "one":
        chosen = chosen[:1]
    versions = [True] if case.clean or not tool.finds or tool.name in case.missed_by else [True, False]
    return [(fixed, name, flags) for name, flags in chosen for fixed in versions]


def run_case(case, tool, folder, builds):
    """Runs what there is of a program under one tool; (what was run, what is wrong with it or None) each."""
    verdicts = []
    for fixed, label, flags in runs_of(case, tool, builds):
        title = f"{case.name} ({'clean' if case.clean else 'twin' if fixed else 'bad'}, {tool.name}, {label})"
        place = folder / f"{case.name.replace('/', '-')}-{tool.name}-{label}-{fixed}"
        place.mkdir()
        try:
            prefix = "riscv64-linux-gnu-" if tool.cross else ""
            program = cases.build(case, fixed, flags, prefix, place, label)
            run = tool.run(program, case, place)
            verdicts.append((title, judge_clean(case, run) if fixed else judge_bad(case, run, tool)))
        except cases.BuildFailed as failure:
            verdicts.append((title, f"does not compile: {failure}"))
        finally:
            shutil.rmtree(place, ignore_errors=True)
    return verdicts


def has_check(binary):
    """Whether this Strake has the subcommand."""
    said = subprocess.run([binary, "help"], capture_output=True, text=True, check=False).stdout
    return any(line.split()[:1] == ["check"] for line in said.splitlines())


def chosen_tools(names):
    """The tools to use: those named, or `strake check` where there is one."""
    binary = vm.strake()
    known = {"qemu": tools.Qemu(), "strake": tools.Strake(str(binary)), "asan": tools.Asan(),
             "memcheck": tools.Memcheck()}
    if not names:
        names = "strake" if has_check(binary) else "qemu,asan"
        print(f"tools: {names}")
    return [known[name] for name in names.split(",")]


def run_all(programs, tool, folder, builds):
    """Runs the programs under one tool and says what is wrong; how many runs were."""
    runs = faults = left_out = 0
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for verdicts in pool.map(lambda case: run_case(case, tool, folder, builds), programs):
            left_out += not verdicts
            for title, problem in verdicts:
                runs += 1
                if problem:
                    faults += 1
                    print(f"  {title}: {problem}", flush=True)
    print(f"{tool.name}: {runs - faults} of {runs} runs as they have to be"
          + (f"; {left_out} programs are not for it" if left_out else ""), flush=True)
    return faults


def suite(test):
    """Runs the suite."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--tools")
    parser.add_argument("--builds", choices=["one", "usual", "all"])
    parser.add_argument("names", nargs="*")
    options = parser.parse_args()
    programs = cases.cases(options.names)
    if not programs:
        raise Failed(f"no program is called like {' or '.join(options.names)}")
    bad = sum(not case.clean for case in programs)
    print(f"{len(programs)} programs: {bad} with a corrected twin, {len(programs) - bad} clean", flush=True)
    check_rules()
    wrong = 0
    for tool in chosen_tools(options.tools):
        builds = options.builds or ("usual" if tool.name == "strake" else "one")
        wrong += run_all(programs, tool, test.folder, builds)
    if wrong:
        raise Failed(f"{wrong} runs were not as they have to be")
    print(f"ok: {len(programs)} programs")


if __name__ == "__main__":
    main(suite)
