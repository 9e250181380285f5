# SPDX-License-Identifier: BSD-2-Clause
"""handover: how long a busy guest stands still while another process takes it over, as its own
programs see it and as the monitors count it; beside QEMU's migration of the same guest to another
QEMU on this machine.

The guest writes and verifies a disk, exchanges checked messages with the host both ways, and has a
probe on each hart that reads the clock in a tight loop while it computes (guest/load.c, guest/probe.c).
Each handover has a control: the stretch of the same length just before it, without one.

RUNS=n handovers a row (200), QEMU_RUNS=n migrations a row of QEMU's (RUNS, but 20 at most); a fifth of
these with filled memory, which takes longest.
"""

import contextlib
import dataclasses
import json
import math
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import busy
import fetch
import initramfs
import run as bench
import supervised
import vm

DISK_BYTES = 16 << 20
BEFORE_S, AFTER_S = 0.1, 1.05  # of a stretch, before the handover is asked for and after it
HOPELESS = 4  # failures without a success: a case is given up
ASLEEP_S = 10  # a guest that wants to sleep for a millisecond, and does not wake up, is lost
SETTLE_S = 2  # of load before the first
BOUND_S = 60  # for a handover or a migration
FILLED_PART = 5  # of the runs, one is with filled memory
FILL_S = 180
ROUNDS = 4  # the contestants take turns so often, if there is enough to do

# (name, harts, MiB, whether memory is filled first, impl)
CASES = [
    ("handover", 1, 512, False, "strake"),
    ("migration", 1, 512, False, "qemu"),
    ("migration of copied memory", 1, 512, False, "qemu"),
    ("handover", 2, 512, False, "strake"),
    ("migration", 2, 512, False, "qemu"),
    ("migration of copied memory", 2, 512, False, "qemu"),
    ("handover of filled memory", 1, 4096, True, "strake"),
    ("migration of filled memory", 1, 4096, True, "qemu"),
]


def free_port():
    """A TCP port of the loopback interface that nobody uses at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@dataclasses.dataclass
class Passed:
    """A handover or migration as the monitors saw it."""

    stopped: float  # by the host's monotonic clock: not after the guest stopped
    resumed: float  # when it went on
    monitor_ms: float  # how long it stood, by the monitors' own account


# ---- QEMU


class Qmp:
    """A connection to QEMU's monitor; every wait is bounded."""

    def __init__(self, path):
        deadline = time.monotonic() + BOUND_S
        while True:
            self._socket = socket.socket(socket.AF_UNIX)
            try:
                self._socket.connect(str(path))
                break
            except OSError:
                self._socket.close()
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
        self._socket.settimeout(BOUND_S)
        self._lines = self._socket.makefile("r")
        self._events = []
        self._lines.readline()  # the greeting
        self.execute("qmp_capabilities")

    def _next(self):
        line = self._lines.readline()
        if not line:
            raise ConnectionError("QEMU closed its monitor")
        return json.loads(line)

    def execute(self, command, **arguments):
        """Runs a command; returns what it returns."""
        self._socket.sendall(json.dumps({"execute": command, "arguments": arguments}).encode())
        while "return" not in (answer := self._next()):
            if "error" in answer:
                raise ValueError(f"QEMU refuses '{command}': {answer['error']['desc']}")
            self._events.append(answer)
        return answer["return"]

    def event(self, name):
        """Waits for an event; returns its time by the host's monotonic clock."""
        while True:
            for event in self._events:
                if event.get("event") == name:
                    self._events.clear()
                    stamp = event["timestamp"]
                    return (stamp["seconds"] + stamp["microseconds"] / 1e6
                            - time.time() + time.monotonic())
            self._events.append(self._next())

    def close(self):
        self._lines.close()
        self._socket.close()


class QemuProcess:
    """One QEMU, with or without a guest yet."""

    def __init__(self, machine, disk, folder, ram=None, incoming=False):
        folder.mkdir()
        self.port = free_port()
        self.uri = f"unix:{folder / 'migration'}"
        machine = dataclasses.replace(machine, net=[f"tcp:127.0.0.1:{self.port}-:{busy.ECHO_PORT}"])
        serial, qmp = folder / "serial", folder / "qmp"
        command = machine.qemu_command(f"unix:{serial},server=on,wait=on") + [
            "-qmp", f"unix:{qmp},server=on,wait=off",
            "-drive", f"file={disk},format=raw,if=none,id=d0,file.locking=off",
            "-device", "virtio-blk-device,drive=d0"]
        if ram:
            command += ["-machine", "memory-backend=ram", "-object",
                        f"memory-backend-file,id=ram,size={machine.memory},mem-path={ram},share=on"]
        if incoming:
            command += ["-incoming", "defer"]
        with open(folder / "log", "wb") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log,
                                            stderr=log)
        try:
            self.serial = self._connect(serial)
            self.qmp = Qmp(qmp)
            capabilities = [{"capability": "events", "state": True}]
            if ram:
                capabilities.append({"capability": "x-ignore-shared", "state": True})
            self.qmp.execute("migrate-set-capabilities", capabilities=capabilities)
            if incoming:
                self.qmp.execute("migrate-incoming", uri=self.uri)
        except BaseException:
            self.stop()
            raise

    def _connect(self, path):
        deadline = time.monotonic() + BOUND_S
        while True:
            serial = socket.socket(socket.AF_UNIX)
            try:
                serial.connect(str(path))
                return serial
            except OSError:
                serial.close()
                if time.monotonic() > deadline or self.process.poll() is not None:
                    raise
                time.sleep(0.01)

    def stop(self):
        """Ends the process; what it serves ends with it."""
        self.process.kill()
        self.process.wait()


class Qemu(vm.Console):
    """A guest that moves from one QEMU to the next. QEMU 7.2 forgets to set the timer anew after a
    migration, unless it was due at that moment: such a guest answers no more."""

    answer_s = 15

    def __init__(self, machine, disk, folder, shared):
        super().__init__()
        self.console = self
        self._machine, self._disk, self._folder = machine, disk, folder
        self._ram = Path("/dev/shm", f"{folder.name}-ram") if shared else None
        self._count = 0
        self._current = self._next = None
        self._current = self._process()

    def _process(self, incoming=False):
        self._count += 1
        process = QemuProcess(self._machine, self._disk, self._folder / str(self._count), self._ram,
                              incoming)
        self.watch(os.dup(process.serial.fileno()))
        return process

    def write(self, data):
        self._current.serial.sendall(data)

    @property
    def port(self):
        """Where the guest is reached."""
        return self._current.port

    def prepare(self):
        """Starts the QEMU to migrate to. That is not part of what is measured."""
        if not self._next:
            self._next = self._process(incoming=True)

    def hand_over(self):
        """Migrates the guest."""
        old, new = self._current, self._next
        old.qmp.execute("migrate-set-parameters", **{"max-bandwidth": 1 << 36, "downtime-limit": 5})
        old.qmp.execute("migrate", uri=new.uri)
        resumed = new.qmp.event("RESUME")
        self._current, self._next = new, None
        deadline = time.monotonic() + BOUND_S
        while (told := old.qmp.execute("query-migrate"))["status"] not in ("completed", "failed"):
            if time.monotonic() > deadline:
                raise vm.Timeout("the migration does not end")
            time.sleep(0.01)
        old.stop()
        return Passed(resumed, resumed, told["downtime"])

    def close(self):
        """Ends all QEMUs."""
        for process in (self._current, self._next):
            if process:
                process.stop()
        if self._ram:
            self._ram.unlink(missing_ok=True)


# ---- Strake


class Strake:
    """A guest of a supervisor of its own."""

    answer_s = BOUND_S

    def __init__(self, machine, disk, folder):
        self.port = free_port()
        self._supervisor = supervised.Supervisor(folder)
        try:
            self.console = self._supervisor.partition("guest", dataclasses.replace(
                machine, disks=[disk], net=[f"tcp:127.0.0.1:{self.port}-:{busy.ECHO_PORT}"]))
            self.console.start()
        except BaseException:
            self.close()
            raise

    def prepare(self):
        """Nothing: starting the new process is a part of what is measured."""

    def hand_over(self):
        """Hands the guest over to another process of the same program."""
        report = self.console.hand_over(timeout=BOUND_S)
        marks = report["marks_ns"]
        return Passed(marks["warmed"] / 1e9, marks["running"] / 1e9, report["blackout_ns"] / 1e6)

    def close(self):
        """Ends supervisor and guest."""
        self._supervisor.close()


# ---- Measuring


@dataclasses.dataclass
class Sample:
    """A handover and its control, in milliseconds."""

    gap: float
    control: float
    monitor: float
    speed_after: float
    unseen: float  # that the guest's clock stood still, too
    back: float  # by which it went back
    gap_freeze: float  # the longest gap in the 10 or 20 ms around the freeze: `gap` is of all
    gap_before: float  # before the freeze: while the new process is made ready
    gap_after: float  # after it
    speed_before: float  # from asking until the freeze, as speed_after
    speed_10: float  # in the 10 ms after the interval of the freeze, and the 90 ms after these
    speed_100: float


class Measured:
    """A case's samples, and what went wrong."""

    def __init__(self, case):
        self.case = case
        self.samples, self.failures = [], []

    def hopeless(self):
        """Whether there is nothing but failures."""
        return not self.samples and len(self.failures) >= HOPELESS

    def row(self):
        """The row of the result; None without samples."""
        name, harts, memory, _, impl = self.case
        if not self.samples:
            return None
        gaps, controls, monitors = (sorted(getattr(sample, key) for sample in self.samples)
                                    for key in ("gap", "control", "monitor"))
        figures = {"p50_ms": percentile(gaps, 50), "p99_ms": percentile(gaps, 99),
                   "max_ms": gaps[-1], "control_p99_ms": percentile(controls, 99),
                   "monitor_p99_ms": percentile(monitors, 99),
                   "speed_after": statistics.median(s.speed_after for s in self.samples)}
        return ({"name": name, "harts": harts, "ram_mib": memory, "count": len(gaps)} |
                {key: round(value, 3) for key, value in figures.items()} | {"impl": impl})


def percentile(ordered, percent):
    """Of sorted values, by nearest rank."""
    return ordered[math.ceil(percent / 100 * len(ordered)) - 1]


def sample(guest, busy_guest, length):
    """One stretch of `length` seconds without a handover, and one with it, which tells the length of
    the next: (Sample, length)."""
    guest.prepare()
    before = busy_guest.clock_offset()
    busy_guest.begin()
    time.sleep(length)
    control = busy_guest.end()

    began = time.monotonic()
    busy_guest.begin()
    time.sleep(BEFORE_S)
    passed = guest.hand_over()
    time.sleep(max(0, passed.resumed + AFTER_S - time.monotonic()))
    length = time.monotonic() - began
    stretch = busy_guest.end()
    after = busy_guest.clock_offset()

    return judge(stretch, control, passed, before, after, busy_guest.ticks_per_us * 1000), length


def judge(stretch, control, passed, before, after, ticks_per_ms):
    """The Sample of a stretch with a handover and its control. `before` and `after` are what there was
    to add to the host's clock for the guest's.

    Where the guest's clock stands still, too, its programs cannot see all of the gap; what is told is
    what is certain, not the sum."""
    unseen = max(0, (before - after) / ticks_per_ms)
    interval = 10 * ticks_per_ms
    stopped, resumed = (int(at * 1000 * ticks_per_ms) + after
                        for at in (passed.stopped, passed.resumed))
    end = resumed + interval

    def speed(begin, end):
        return stretch.speed(begin, end) / control.speed()

    return Sample(
        gap=max(stretch.longest_ms, unseen), control=control.longest_ms, monitor=passed.monitor_ms,
        speed_after=speed(resumed, resumed + 100 * interval), unseen=unseen,
        back=max(stretch.back_ms, control.back_ms),
        gap_freeze=max(stretch.longest_between_ms(stopped, end), unseen),
        gap_before=stretch.longest_between_ms(0, stopped - interval),
        gap_after=stretch.longest_between_ms(end + interval, 1 << 62),
        speed_before=speed(stretch.harts[0]["start"] + 10 * interval, stopped - interval),
        speed_10=speed(end, end + 1), speed_100=speed(end + interval, end + 10 * interval))


def measure_guest(case, folder, count, measured):
    """Boots a guest and takes up to `count` samples; the guest that stops answering is left."""
    name, harts, memory, fill, impl = case
    disk = folder / "disk"
    disk.touch()
    os.truncate(disk, DISK_BYTES)
    machine = vm.Machine(cpus=harts, memory=f"{memory}M")
    with contextlib.ExitStack() as stack:
        peer = stack.enter_context(contextlib.closing(busy.Peer()))
        guest = stack.enter_context(contextlib.closing(
            Strake(machine, disk, folder) if impl == "strake" else
            Qemu(machine, disk, folder, shared="copied" not in name)))
        guest.console.expect(vm.PROMPT, timeout=600)
        busy_guest = busy.Guest(guest.console, peer, timeout=guest.answer_s)
        if fill:
            guest.console.shell("mount -t tmpfs -o size=95% none /mnt && "
                                f"dd if=/dev/zero of=/mnt/fill bs=1M count={memory * 7 // 8}", FILL_S)
        busy_guest.load_all(lambda: guest.port)
        busy_guest.start_probe()
        time.sleep(SETTLE_S)
        length = BEFORE_S + AFTER_S
        for _ in range(count):
            taken, length = sample(guest, busy_guest, length)
            measured.samples.append(taken)
            busy_guest.sleep(ASLEEP_S)
        busy_guest.quit_probe()
        verify(busy_guest.finish(), peer, disk, impl)


def verify(said, peer, disk, impl):
    """ValueError unless what the guest wrote and sent has come through. What is in flight when QEMU
    migrates is lost with the connections of its user-mode network, and that is no news."""
    written = said["disk"][0]
    wrong, crc = busy.check_image(disk)
    if written["wrong"] or written["failed"] or wrong or crc != written["crc"]:
        raise ValueError(f"the disk is damaged: {written}, {wrong} blocks in its file")
    for name, own in (("tcp", peer.echo), ("echo", peer.call)):
        guest = said[name][0]
        if impl == "strake" and (guest["wrong"] or own.wrong or guest["connections"] != 1 or
                                 guest["crc"] != own.crc or guest["received"] != own.received):
            raise ValueError(f"a stream is damaged: {guest} in the guest, {own} on the host")


def measure_some(measured, count):
    """Takes `count` samples of a case, with new guests after failures."""
    wanted = len(measured.samples) + count
    failures = 0
    while len(measured.samples) < wanted and failures <= count and not measured.hopeless():
        with tempfile.TemporaryDirectory(prefix="strake-bench-") as folder:
            try:
                measure_guest(measured.case, Path(folder), wanted - len(measured.samples), measured)
            except (vm.Timeout, OSError, ValueError, KeyError, supervised.Refused) as error:
                failures += 1
                measured.failures.append(f"{type(error).__name__}: {error}")
                print(f"   failed: {measured.failures[-1]}", flush=True)


# ---- The result


COLUMNS = [("p50_ms", "p50"), ("p99_ms", "p99"), ("max_ms", "max"), ("control_p99_ms", "control p99"),
           ("monitor_p99_ms", "monitors p99"), ("speed_after", "speed after")]


def print_table(rows, failed):
    """The rows, and what failed, as the screen shows them."""
    print(f"\n{'ms in the guest':36} {'':6} harts   MiB count" +
          "".join(f"{title:>13}" for _, title in COLUMNS) + "  failed")
    for row in rows:
        print(f"{row['name']:36} {row['impl']:6} {row['harts']:5} {row['ram_mib']:5} "
              f"{row['count']:5}" + "".join(f"{row[key]:13.2f}" for key, _ in COLUMNS) +
              f"{failed[row['impl'], row['name'], row['harts']]:8}")


def print_parts(measured):
    """Medians of what the gaps are made of."""
    print("\nmedians: the longest gap before the freeze, around it and after it; speed before it, in "
          "10 ms\nsoon after it, and in the next 90 ms; what the guest's clock lost, too")
    parts = ("gap_before", "gap_freeze", "gap_after", "speed_before", "speed_10", "speed_100",
             "unseen")
    for one in measured:
        values = [statistics.median(getattr(sample, part) for sample in one.samples)
                  for part in parts if one.samples]
        if values:
            print(f"{one.case[0]:36} {one.case[4]:6} {one.case[1]:5} {one.case[2]:5} " +
                  "".join(f"{value:9.2f}" for value in values))
        back = [sample.back for sample in one.samples if sample.back]
        if back:
            print(f"  the guest's clock went back in {len(back)} of {len(one.samples)}, by up to "
                  f"{max(back):.2f} ms")


def goals(rows):
    """(what, value, bound)."""
    ours = {(row["harts"], row["ram_mib"]): row for row in rows if row["impl"] == "strake"}
    for (harts, memory), row in ours.items():
        what = f"{harts} hart(s), {memory} MiB"
        yield f"monitors' p99, {what}, ms", row["monitor_p99_ms"], 1
        yield (f"guest's p99 above its control's, {what}, ms", row["p99_ms"] - row["control_p99_ms"],
               4 * harts)
    if (1, 512) in ours and (1, 4096) in ours:
        yield ("monitors' p99, 4096 MiB filled to 512 MiB",
               ours[1, 4096]["monitor_p99_ms"] / ours[1, 512]["monitor_p99_ms"], 1.2)


def write(rows, measured, path):
    """The file: the rows, what failed, and each sample."""
    samples = [{"name": one.case[0], "impl": one.case[4], "harts": one.case[1],
                "failures": one.failures} |
               {field.name: [round(getattr(sample, field.name), 3) for sample in one.samples]
                for field in dataclasses.fields(Sample)} for one in measured]
    result = {"bench": "handover", "rows": rows, "samples": samples}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"in {path.relative_to(path.parents[2])}")


def runs_of(case, runs, qemu_runs):
    """How often a case is measured in all."""
    _, _, _, fill, impl = case
    count = runs if impl == "strake" else qemu_runs
    return max(1, count // FILLED_PART) if fill else count


def report(measured, options, output):
    """Tells what there is so far, since all of it takes hours; returns the rows."""
    rows = [row for row in (one.row() for one in measured) if row]
    print_table(rows, {(one.case[4], one.case[0], one.case[1]): len(one.failures)
                       for one in measured})
    print_parts(measured)
    if not options.partial:
        write(rows, measured, output / "handover.json")
    return rows


def main(options, output):
    """See bench/run.py, of whose options CONTESTANTS and ROWS (names of cases) are for this one."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # by way of `finally`
    fetch.fetch("base")
    initramfs.build()
    runs = int(os.environ.get("RUNS") or 200)
    qemu_runs = int(os.environ.get("QEMU_RUNS") or min(runs, 20))
    names = bench.choose("ROWS", list(dict.fromkeys(case[0] for case in CASES)))
    cases = [case for case in CASES if case[4] in options.contestants and case[0] in names]
    measured = [Measured(case) for case in cases]
    print(f"handover: {vm.strake()} against {bench.qemu_version()}\n"
          "QEMU's own clock stands still while it migrates, so what its guest can see of that is "
          "made up for\nfrom the host's clock; the connections of its user-mode network are lost, and "
          "its guest makes new ones.", flush=True)
    rounds = ROUNDS if runs >= 10 * ROUNDS else 1
    for turn in range(rounds):
        for one in measured:
            total = runs_of(one.case, runs, qemu_runs)
            count = total * (turn + 1) // rounds - total * turn // rounds
            print(f"round {turn + 1} of {rounds}: {one.case[4]}, {one.case[0]}, {one.case[1]} "
                  f"hart(s), {one.case[2]} MiB: {count}", flush=True)
            measure_some(one, count)
        rows = report(measured, options, output)
    print("\nto reach")
    for what, value, bound in goals(rows):
        print(f"  {what:56} {value:8.3f}  <= {bound:g}  {'reached' if value <= bound else 'MISSED'}")
