#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Runs the tests that Meson knows and ends with the line "N passed, N failed".

usage: test.py [--long] [NAME]

Without NAME all tests run but those of suite `long` (with --long: those alone). With NAME that one
runs, and what it prints is shown.
"""
import json
import os
import subprocess
import sys

BUILD = "build"
# What Meson calls a result, and how it counts.
PASSED = {"OK", "EXPECTEDFAIL"}
SKIPPED = {"SKIP"}


def known_tests():
    out = subprocess.run(["meson", "introspect", "--tests", BUILD], check=True, capture_output=True)
    return {test["name"]: test["suite"] for test in json.loads(out.stdout)}


def is_long(suites):
    return any(suite.split(":")[-1] == "long" for suite in suites)


def run_one(name):
    """Runs one test and shows its output as it comes; Meson's own summary is left out."""
    command = ["meson", "test", "-C", BUILD, "--no-rebuild", "--verbose", name]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, errors="replace") as process:
        for line in process.stdout:
            if line.startswith("Ok: "):
                break
            sys.stdout.write(line)
            sys.stdout.flush()
        process.stdout.read()


def run_all(long):
    choice = ["--suite", "long"] if long else ["--no-suite", "long"]
    subprocess.run(["meson", "test", "-C", BUILD, "--no-rebuild", "--print-errorlogs",
                    "--num-processes", "2", *choice], check=False)


def results():
    """The results of the last run: name, result, last line of output."""
    with open(os.path.join(BUILD, "meson-logs", "testlog.json"), encoding="utf-8") as log:
        for line in log:
            test = json.loads(line)
            lines = (test.get("stdout") or test.get("stderr") or "").strip().splitlines()
            yield test["name"].split(" / ")[-1], test["result"], lines[-1] if lines else ""


def main():
    args = sys.argv[1:]
    long = "--long" in args
    names = [arg for arg in args if arg != "--long"]
    tests = known_tests()
    if names and names[0] not in tests:
        sys.exit(f"test: there is no test \"{names[0]}\"; there are: {' '.join(sorted(tests))}")
    log = os.path.join(BUILD, "meson-logs", "testlog.json")
    if os.path.exists(log):
        os.remove(log)
    if names:
        run_one(names[0])
    else:
        if not any(is_long(suites) == long for suites in tests.values()):
            sys.exit("test: no test was found")
        run_all(long)
    passed = failed = skipped = 0
    for name, result, last in results():
        if result in PASSED:
            passed += 1
        elif result in SKIPPED:
            skipped += 1
            print(f"skipped {name}: {last}")
        else:
            failed += 1
            print(f"failed  {name} ({result}); again with: make test T={name}")
    print(f"{passed} passed, {failed} failed" + (f", {skipped} skipped" if skipped else ""))
    sys.exit(1 if failed or not passed + skipped else 0)


if __name__ == "__main__":
    main()
