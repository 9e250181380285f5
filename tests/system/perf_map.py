#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""`strake run --perf-map`: names for translated code, in a file that nobody can misdirect; and
`--log jit`, which shows the code itself."""

import os
import re
import signal
import subprocess
from pathlib import Path

from lib import firmware
from lib.harness import TIMEOUT, UNDER_QEMU, Skipped, check, main
import vm

AHEAD = 2000     # processes that others may start meanwhile
TRIES = 5        # if they start more
FIRST_PID = 300  # behind the last one: Linux' RESERVED_PIDS
LINE = re.compile(r"([0-9a-f]+) ([0-9a-f]+) (\S+)")


def map_of(pid):
    """Where perf looks for the names of a process's code."""
    return Path(f"/tmp/perf-{pid}.map")


def maps():
    """Those that are there: anybody's, of processes that may have ended long ago."""
    return set(Path("/tmp").glob("perf-*.map"))


class Run:
    """A run of a firmware that has said it is ready."""

    def __init__(self, test, firmware_file, options):
        command = [vm.strake(), "run", "--engine", "jit", "--firmware", str(firmware_file), *options]
        self.guest = test.run(command)
        self.guest.expect("ready", TIMEOUT)
        self.monitor = self.guest.monitor()
        self.map = map_of(self.monitor)
        test.maps.append(self.map)

    def mappings(self):
        """[(start, end, permissions, name)] of the monitor's memory."""
        rows = Path(f"/proc/{self.monitor}/maps").read_text().splitlines()
        fields = [row.split(None, 5) for row in rows]
        return [(*(int(part, 16) for part in row[0].split("-")), row[1], "".join(row[5:]))
                for row in fields]

    def end(self):
        """Ends it; the lines of the map as (start, end, name)."""
        self.guest.process.send_signal(signal.SIGTERM)
        check(self.guest.wait(60) == 128 + signal.SIGTERM, "a signal ends the partition")
        matches = [LINE.fullmatch(line) for line in self.map.read_text().splitlines()]
        check(all(matches), "each line of the map is START SIZE NAME")
        starts = [(int(match[1], 16), int(match[2], 16), match[3]) for match in matches]
        return [(start, start + size, name) for start, size, name in starts]


def check_code(run):
    """Where the code is, as perf sees it; returns the range."""
    mappings = run.mappings()
    check(not any("w" in permissions and "x" in permissions for _, _, permissions, _ in mappings),
          "no memory is writable and executable")
    code = [(start, end) for start, end, permissions, name in mappings
            if "x" in permissions and name.startswith("/dev/zero")]
    check(len(code) == 1, "executable memory is anonymous: perf has a map for no other")
    return code[0]


def perf_map(test):
    if UNDER_QEMU:
        raise Skipped("QEMU's option is another")
    test.maps = []
    try:
        names(test)
        strangers(test)
        log(test)
    finally:
        for path in test.maps:
            remove(path)


def remove(path):
    """Whatever is there."""
    if path.is_dir() and not path.is_symlink():
        path.rmdir()
    else:
        path.unlink(missing_ok=True)


def names(test):
    """Addresses, symbols of the ELF program that runs, symbols from a file."""
    image, elf = firmware.build("echo", test.folder)
    functions = set(firmware.symbols(elf))
    extra = test.folder / "System.map"
    extra.write_text("".join(f"{address:016x} T of_list_{name}\n"
                             for name, address in firmware.symbols(elf).items()))

    run = Run(test, image, ["--perf-map"])
    start, end = check_code(run)
    lines = run.end()
    check(all(start <= at < to <= end for at, to, _ in lines), "all lines are of the code")
    check(lines[0][2] == "strake:thunks" and lines[0][0] == start, "it starts with what is no block")
    check(all(re.fullmatch("M:[0-9a-f]+", name) for _, _, name in lines[1:]),
          "without symbols, names are privilege and address")
    check(any(int(name[2:], 16) == firmware.RAM for _, _, name in lines[1:]),
          "the firmware's first block is there")
    check(all(before[1] <= after[0] for before, after in zip(lines, lines[1:])),
          "no two lines overlap")
    check(oct(run.map.stat().st_mode & 0o777) == "0o600", "only its owner may read the map")

    lines = Run(test, elf, ["--perf-map"]).end()
    check(functions & {name for _, _, name in lines}, "an ELF program brings its symbols")
    lines = Run(test, image, ["--perf-map=" + str(extra)]).end()
    check(any(name.startswith("of_list_") for _, _, name in lines), "a list of symbols is used")


def pids_from(first):
    """The next ones that the kernel gives, from one on."""
    end = int(Path("/proc/sys/kernel/pid_max").read_text())
    return [pid if pid < end else pid - end + FIRST_PID for pid in range(first, first + AHEAD)]


class Planted:
    """Something under every name that the map of a process started soon could have."""

    def __init__(self, test, plant):
        ahead = subprocess.Popen(["true"])
        ahead.wait()
        self.paths = [map_of(pid) for pid in pids_from(ahead.pid + 1)]
        self.paths = [path for path in self.paths if not os.path.lexists(path)]
        test.maps += self.paths
        for path in self.paths:
            plant(path)

    def remove(self):
        """What is left of it."""
        for path in self.paths:
            remove(path)


def strangers(test):
    """Whatever is where the map is to be."""
    image, _ = firmware.build("echo", test.folder)
    victim = test.folder / "victim"
    victim.write_text("precious")
    old = maps()
    for plant, what in ((lambda path: path.symlink_to(victim), "a link is replaced by the map"),
                        (lambda path: path.hardlink_to(victim), "neither is a hard link followed")):
        for _ in range(TRIES):
            planted = Planted(test, plant)
            run = Run(test, image, ["--perf-map"])
            if run.map in planted.paths and run.map not in old:
                break
            run.end()
            planted.remove()
        check(run.map in planted.paths, "something is where the map is to be")
        check(not run.map.is_symlink() and run.map.is_file(), what)
        run.end()
        check(victim.read_text() == "precious", "what it led to is as it was")
        planted.remove()
    planted = Planted(test, Path.mkdir)
    run = start(test, image)
    status = run.wait(60)
    planted.remove()
    check(status == 1 and re.search(r'cannot create "/tmp/perf-\d+.map" for perf: ', run.text()),
          "where it cannot be made, the reason is given")
    for wrong in ("--perf-map=missing", "--firmware missing", f"--kernel {victim}"):
        others = maps()
        run = start(test, image, *wrong.split())
        check(run.wait(60) == 1, f"what does not start ({wrong.split()[0]}) fails")
        check(not (maps() - others) & {map_of(pid) for pid in pids_from(run.process.pid)},
              "and leaves no map")


def start(test, image, *options):
    """A run that is to fail."""
    return test.run([vm.strake(), "run", "--engine", "jit", "--firmware", str(image), "--perf-map",
                     *options])


def log(test):
    """Guest and host code side by side."""
    image, _ = firmware.build("echo", test.folder)
    guest = test.run([vm.strake(), "run", "--engine", "jit", "--firmware", str(image),
                      "--log", "jit"])
    # The guest says its "ready" in between.
    for _ in range(4):
        guest.expect(r"\(leave at the entry\).*\n", 60)
    guest.process.send_signal(signal.SIGTERM)
    guest.wait(60)
    text = guest.text()
    check(re.search(rf"jit: hart 0: block at M:{firmware.RAM:x} \(gpa {firmware.RAM:x}\)", text),
          "the first block is announced")
    sides = r"^ +80000[0-9a-f]{3}  [0-9a-f]{4,8} +[a-z][a-z0-9.]+ .* [0-9a-f]{8,}  [a-z]+"
    check(len(re.findall(sides, text, re.M)) > 5, "guest instructions stand beside the host's")
    check("(bad)" not in text, "all of the host code could be read")


main(perf_map)
