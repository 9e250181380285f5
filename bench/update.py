# SPDX-License-Identifier: BSD-2-Clause
"""update: how long it takes a guest to replace the monitor beneath itself and beneath other partitions,
how much is sent for it, and how long each partition stands still.

One of the partitions updates, by strake-update from a server of the host's: to the version that follows
and back again, in turns, with the whole program or with a delta. `seconds` is from the offer to the
moment at which the new version is confirmed, by the host's audit log (the median); `apply_seconds` what
strake-update takes in the guest, with the download; `bytes` the payload that was sent. The blackouts are
the monitors' account, as for the benchmark of handover, of each partition in each round.

In the last row another guest computes, and its probe looks at the clock in a tight loop
(guest/probe.c): its longest gap in each update, and in a control, a stretch as long without one.

ROUNDS=n updates a row (10); ROWS chooses what is measured.
"""

import contextlib
import datetime
import functools
import http.client
import http.server
import json
import math
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import busy
import fetch
import initramfs
import run as bench
import supervised
import vm

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))

import package  # pylint: disable=wrong-import-position

BUILD = fetch.GUEST.parent
NEXT = BUILD / "strake-next"  # the same sources, as the version that follows
MEMORY = "256M"
BOUND_S = 300  # for a boot, or an update
CALM_S = 1  # after an update: old monitors end
WITNESS_S = 2  # of load before the first update

# (name, partitions, kind of payload, whether one of the partitions computes and looks at the clock)
CASES = [
    ("whole program", 1, "whole", False),
    ("delta", 1, "delta", False),
    ("whole program", 8, "whole", False),
    ("delta", 8, "delta", False),
    ("delta beside a busy guest", 2, "delta", True),
]


def percentile(values, percent):
    """By nearest rank."""
    ordered = sorted(values)
    return ordered[math.ceil(percent / 100 * len(ordered)) - 1]


# ---- What there is to update to -----------------------------------------------------------------


def make_packages(folder):
    """Packages of both versions, signed with a key that is trusted: {(version, kind): file's name}, the
    first version being the one that is running at the beginning."""
    programs = {package.version(program): program for program in (vm.strake(), NEXT)}
    subprocess.run([vm.strake(), "package", "keygen", "--no-password", folder / "key"], check=True,
                   stdout=subprocess.DEVNULL)
    (folder / "trusted").mkdir()
    (folder / "key.pub").rename(folder / "trusted" / "key.pub")
    made = {}
    for version, program in programs.items():
        base, = (f"{other}={path}" for other, path in programs.items() if other != version)
        for kind, bases in (("whole", []), ("delta", [base])):
            made[version, kind] = f"{version}-{kind}.strake"
            package.build(program, folder / made[version, kind], folder / "key.key", bases)
    return made


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Says nothing of what it serves."""

    def log_message(self, *_):
        """The method that http.server calls."""


@contextlib.contextmanager
def serve(folder):
    """Serves a folder's files on the loopback interface; yields the port."""
    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


# ---- One update ---------------------------------------------------------------------------------


class Host:
    """A supervisor whose first partition updates."""

    def __init__(self, folder, port, partitions):
        self._port = port
        self._log = folder / "state/update/history.jsonl"
        self.supervisor = supervised.Supervisor(
            folder, options=["--trusted", folder / "trusted", "--allow-downgrade"])
        self.guests = []
        try:
            for i in range(partitions):
                self.guests.append(self.supervisor.partition(
                    f"guest{i}", vm.Machine(memory=MEMORY, net=[]), updates=i == 0))
            for guest in self.guests:
                guest.start()
            for guest in self.guests:
                guest.expect(vm.PROMPT, BOUND_S)
        except BaseException:
            self.close()
            raise

    def update(self, name):
        """An update to the package of this name: its row's figures."""
        known = len(self._history())
        blackouts = []
        events = self.supervisor.stream("/v1/events")
        reader = threading.Thread(target=collect, args=(events, blackouts), daemon=True)
        reader.start()
        began = time.monotonic()
        status, said = self.guests[0].shell(
            f"strake-update --json apply http://10.0.2.2:{self._port}/{name}", BOUND_S)
        took = time.monotonic() - began
        if status != 0:
            raise ValueError(f"strake-update ends with status {status}: {said[-500:]}")
        reader.join(BOUND_S)  # the stream ends with the supervisor that goes
        history = {record["event"]: record for record in self._history()[known:]}
        told = json.loads(said.splitlines()[-1])
        longest_ms = told["blackout_ns"] / 1e6
        if len(blackouts) != len(self.guests) or abs(max(blackouts) - longest_ms) > 1e-3:
            raise ValueError(f"blackouts are {blackouts}, the guest was told {longest_ms}")
        return {"seconds": when(history["confirmed"]) - when(history["offered"]),
                "apply_seconds": took, "bytes": history["offered"]["bytes"], "blackouts": blackouts}

    def _history(self):
        text = self._log.read_text(encoding="utf-8") if self._log.exists() else ""
        return [json.loads(line) for line in text.splitlines()]

    def close(self):
        """Ends supervisor and guests."""
        with contextlib.suppress(OSError, supervised.Refused):
            for guest in self.guests:
                guest.kill()
        self.supervisor.close()


def when(record):
    """Seconds, of a record's time with its nanoseconds."""
    whole, _, part = record["time"].rstrip("Z").partition(".")
    moment = datetime.datetime.fromisoformat(whole + "+00:00")
    return moment.timestamp() + float("0." + part)


def collect(events, blackouts):
    """Puts what handovers tell of their blackouts, in ms, into the list, until the stream ends."""
    try:
        for line in events:
            if line.startswith(b"data:"):
                event = json.loads(line[len(b"data:"):])
                if event["event"] == "handover":
                    blackouts.append(event["blackout_ns"] / 1e6)
    except (OSError, http.client.HTTPException):
        pass


# ---- Measuring ----------------------------------------------------------------------------------


def measure(case, folder, made, port, rounds):
    """The row of a case."""
    name, partitions, kind, watched = case
    first, second = (version for version, of_kind in made if of_kind == kind)
    samples, gaps, controls = [], [], []
    with contextlib.closing(Host(folder, port, partitions)) as host:
        probe = busy.Guest(host.guests[-1], None, BOUND_S) if watched else None
        if probe:
            probe.start_probe()
            time.sleep(WITNESS_S)
        for turn in range(rounds):
            if probe:
                probe.begin()
                time.sleep(samples[-1]["apply_seconds"] if samples else WITNESS_S)
                controls.append(probe.end().longest_ms)
                probe.begin()
            samples.append(host.update(made[first if turn % 2 else second, kind]))
            if probe:
                gaps.append(probe.end().longest_ms)
            time.sleep(CALM_S)
    return row_of(name, partitions, samples) | (
        {"gap_p99_ms": round(percentile(gaps, 99), 3),
         "control_p99_ms": round(percentile(controls, 99), 3)} if watched else {})


def row_of(name, partitions, samples):
    """A row, of samples as update() gives them."""
    blackouts = [one for sample in samples for one in sample["blackouts"]]
    return {"name": name, "partitions": partitions, "rounds": len(samples),
            "seconds": round(statistics.median(sample["seconds"] for sample in samples), 3),
            "apply_seconds": round(statistics.median(sample["apply_seconds"]
                                                     for sample in samples), 3),
            # To the next version and back: two deltas, of about the same size.
            "bytes": max(sample["bytes"] for sample in samples),
            "p50_ms": round(percentile(blackouts, 50), 3),
            "p99_ms": round(percentile(blackouts, 99), 3), "max_ms": round(max(blackouts), 3)}


COLUMNS = [("partitions", "partitions", "d"), ("rounds", "rounds", "d"), ("seconds", "seconds", ".2f"),
           ("apply_seconds", "in the guest", ".2f"), ("bytes", "bytes", "d"), ("p50_ms", "p50 ms", ".2f"),
           ("p99_ms", "p99 ms", ".2f"), ("max_ms", "max ms", ".2f"), ("gap_p99_ms", "gap p99", ".2f"),
           ("control_p99_ms", "control p99", ".2f")]


def print_table(rows):
    """The rows as the screen shows them."""
    print(f"\n{'':26}" + "".join(f"{title:>13}" for _, title, _ in COLUMNS))
    for row in rows:
        print(f"{row['name']:26}" + "".join(
            f"{format(row[key], form) if key in row else '':>13}" for key, _, form in COLUMNS))


def main(options, output):
    """See bench/run.py, of whose options ROWS (names of cases) is for this one."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # by way of `finally`
    fetch.fetch("base")
    initramfs.build()
    rounds = os.environ.get("ROUNDS") or "10"
    if not rounds.isdigit() or int(rounds) < 1:
        sys.exit(f"bench: ROUNDS is a number above 0, not '{rounds}'")
    rounds = int(rounds)
    names = bench.choose("ROWS", list(dict.fromkeys(case[0] for case in CASES)))
    subprocess.run(["ninja", "-C", BUILD, "strake-next"], check=True, stdout=subprocess.DEVNULL)
    print(f"update: {package.version(vm.strake())} to {package.version(NEXT)} and back, {rounds} rounds a "
          "row", flush=True)
    rows = []
    output.mkdir(parents=True, exist_ok=True)
    try:
        for case in [case for case in CASES if case[0] in names]:
            # On a disk, as a store is: /tmp may be none.
            with tempfile.TemporaryDirectory(prefix="update-", dir=output) as folder:
                made = make_packages(Path(folder))
                with serve(folder) as port:
                    print(f"   {case[0]}, {case[1]} partition(s)", flush=True)
                    rows.append(measure(case, Path(folder), made, port, rounds))
    except (vm.Timeout, OSError, ValueError, KeyError, supervised.Refused,
            subprocess.CalledProcessError) as error:
        sys.exit(f"bench: {type(error).__name__}: {error}")
    print_table(rows)
    if not options.partial:
        path = output / "update.json"
        path.write_text(json.dumps({"bench": "update", "rows": rows}, indent=1) + "\n", encoding="utf-8")
        print(f"in {path.relative_to(path.parents[2])}")
