# SPDX-License-Identifier: BSD-2-Clause
"""Updates from a guest in which something is killed: the supervisor, a monitor, the guest's updater,
the guest, or all that runs on the host.

A round is one update, from whichever of two versions runs to the other, brought by the real
strake-update of a Linux guest, whose state and extension are on a disk of ext4. What was killed is
started again as the host's or the guest's init would, and when the update has come to its end
- one of the two versions runs, and that alone: supervisor, all monitors, the store and the guest's
  extension agree;
- what the guest was told to be on its disk is there, and it goes on from it;
- partitions that were not killed have not noticed.
"""

import hashlib
import http.client
import json
import os
import random
import select
import shutil
import signal
import socket
import struct
import subprocess
import threading
import time
from pathlib import Path

from lib.daemon import PATIENCE, Supervisor, check_quietly, create, echo_guest
from lib.handovers import TROUBLE
from lib.harness import PROJECT, UNDER_QEMU, Failed, Skipped, check, need
from lib.updater import deb
from lib.updates import OTHER, run
import cpio
import initramfs
import vm

LEDGER = PROJECT / "tests" / "system" / "guest" / "ledger.c"
RECORD_BYTES = 512
LEDGER_BYTES = 1 << 30  # far more than is written; the file has holes
PADDING_BYTES = 3 << 20  # of a program: its payload takes some time to send
UPDATE = "strake-update --wait 60 --state /mnt/state --root /mnt/root"
STATE = "/mnt/state/state.json"
EXTENSION = "usr/bin/extension"

# The guest keeps its ledger, and has a shell for the test that says first which boot this is.
SCRIPT = """
mount -t ext4 /dev/vda /mnt || exit 1
{{ ledger /dev/vdb 5 | nc 10.0.2.2 {ledger}; }} &
while :; do
    rm -f /tmp/back; mkfifo /tmp/back
    nc 10.0.2.2 {shell} </tmp/back |
        {{ cat /proc/sys/kernel/random/boot_id; exec sh; }} >/tmp/back 2>/dev/null
    sleep 1
done
"""

# What ends strake-update, by its exit status.
DONE, NO_HOST, REFUSED, ROLLED_BACK, UNFINISHED, KILLED = 0, 3, 4, 7, 8, 128 + signal.SIGKILL
ENDS = {DONE: "committed", NO_HOST: "not begun", REFUSED: "refused", ROLLED_BACK: "rolled back"}


# ---- What the guest is told to be on its disk ----------------------------------------------------


def record(number):
    """As guest/ledger.c writes it."""
    return struct.pack("<64Q", *[number] * 64)


class Ledger:
    """The host's side of the guest's ledger: what it has been told, and the disk's file."""

    def __init__(self, folder):
        self.path = folder / "ledger"
        self.path.touch()
        os.truncate(self.path, LEDGER_BYTES)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.told = self.checked = self.boots = 0
        self.wrong = None
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            stream, _ = self.listener.accept()  # another boot; the last one's may look as if it lasted
            threading.Thread(target=self._listen_to, args=(stream,), daemon=True).start()

    def _listen_to(self, stream):
        try:
            with stream, stream.makefile("rb") as lines:
                self._listen(lines)
        except OSError:  # the guest is gone
            pass

    def _listen(self, lines):
        word = lines.readline()
        if not word.endswith(b"\n"):
            return
        found = int(word.removeprefix(b"found "))
        if found < self.told:
            self.wrong = f"the guest finds {found} records, and had been told {self.told}"
        self.boots += 1
        for number, line in enumerate(lines, found + 1):
            if not line.endswith(b"\n"):  # cut off by a kill
                return
            if int(line) != number:
                self.wrong = f"record {number} is told as {line!r}"
            self.told = max(self.told, number)

    def check(self, start=None):
        """All records that the guest had been told to be on its disk are there."""
        check_quietly(not self.wrong, self.wrong)
        told = self.told
        with open(self.path, "rb") as file:
            first = self.checked if start is None else start
            file.seek(first * RECORD_BYTES)
            for number in range(first + 1, told + 1):
                check_quietly(file.read(RECORD_BYTES) == record(number),
                              f"record {number} of {told} is lost")
        self.checked = told

    def goes_on(self):
        """Waits until another record is there."""
        told, deadline = self.told, time.monotonic() + PATIENCE * 5
        while self.told == told:
            check_quietly(time.monotonic() < deadline, f"no record comes after {told}")
            time.sleep(0.01)


# ---- The guest -----------------------------------------------------------------------------------


class Guest:
    """A shell in the guest. Its connection lasts as long as the guest does: it ends with the monitor; a
    guest that is reset leaves it open, and comes with another one."""

    def __init__(self, alive):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.settimeout(PATIENCE * 5)
        self.alive = alive  # fails if what is to run does not
        self.jobs = 0
        self.boot = self.stream = None
        self.text = b""

    def accept(self):
        """Waits for the guest to boot."""
        self.stream, _ = self.listener.accept()
        self.stream.settimeout(1)
        self.text = b""
        boot = self._line()
        check_quietly(boot and boot != self.boot, "a connection of the guest is lost, but not the guest")
        self.boot = boot

    def _line(self, patience=PATIENCE * 5):
        """The next line, or None when the guest is gone."""
        deadline = time.monotonic() + patience
        while b"\n" not in self.text:
            if self.stream.fileno() < 0:
                return None
            self.alive()
            check_quietly(time.monotonic() < deadline, f"the guest says nothing more: {self.text}")
            readable, _, _ = select.select([self.stream, self.listener], [], [], 1)
            try:
                more = self.stream.recv(65536) if self.stream in readable else b""
            except ConnectionError:
                more = b""
            if not readable:
                continue
            if not more:
                self.stream.close()
                return None
            self.text += more
        line, _, self.text = self.text.partition(b"\n")
        return line.decode(errors="replace")

    def begin(self, command):
        """Starts a command; returns its number."""
        self.jobs += 1
        try:
            self.stream.sendall(f"( {command}; echo @{self.jobs} $? ) </dev/null &\n".encode())
        except OSError:  # the guest is gone, as is told when its end is waited for
            pass
        return self.jobs

    def is_over(self, job):
        """Whether it has ended already, or the guest has."""
        readable, _, _ = select.select([self.stream, self.listener], [], [], 0)
        if readable == [self.listener]:
            return True
        if readable:
            try:
                ahead = self.stream.recv(65536, socket.MSG_PEEK)
            except ConnectionError:
                return True
            return not ahead or f"@{job} ".encode() in self.text + ahead
        return f"@{job} ".encode() in self.text

    def end(self, job, patience=PATIENCE * 5):
        """Waits for its end: (status, what was printed), or None when the guest is gone."""
        said = []
        while (line := self._line(patience)) is not None:
            if line.startswith(f"@{job} "):
                return int(line.split()[1]), "\n".join(said)
            if not line.startswith("@"):  # the end of an earlier one, which nobody waited for
                said.append(line)
        return None

    def ask(self, command):
        """What it prints; a guest that is killed meanwhile is asked again."""
        for _ in range(3):
            told = self.end(self.begin(command))
            if told is not None:
                return told[1]
            self.accept()
        raise Failed(f"the guest ends, again and again, when it is to run: {command}")

    def until_gone(self):
        """Waits until a guest that is being killed has ended."""
        while self._line() is not None:
            pass


def when_in(phase, command):
    """A command of the guest's that it runs when its updater is in a phase, if it ever is."""
    return (f"{{ while [ -e /tmp/busy ]; do read -r state <{STATE}; case $state in "
            f"*'\"phase\":\"{phase}\"'*) {command}; break;; esac; done; }} &")


# ---- The two versions ----------------------------------------------------------------------------


class Version:
    """A program, its package, and the guest extension in that."""

    def __init__(self, test, name, program):
        folder = test.folder / name
        folder.mkdir()
        self.name = name
        self.digest = hashlib.sha256(program).hexdigest()
        (folder / "program").write_bytes(program)
        extension = deb(folder, "extension", name, {EXTENSION: f"{name}\n"})
        trusted = test.folder / "trusted"
        trusted.mkdir(exist_ok=True)
        run("package", "keygen", "--no-password", folder / "key")
        (folder / "key.pub").rename(trusted / f"{name}.pub")
        self.package = folder / f"{name}.strake"
        run("package", "build", "--key", folder / "key.key", "--program", folder / "program", "--version",
            name, "--guest", extension, "--expires", "2100-01-01T00:00:00Z", self.package)


def two_versions(test):
    """That of the program which is installed, and another; their programs are as large as their
    payloads are to be."""
    program = Path(vm.strake()).read_bytes()
    own = json.loads(subprocess.run([vm.strake(), "monitor", "--self-test"], check=True, timeout=PATIENCE,
                                    capture_output=True).stdout)["version"].encode()
    other = OTHER[:len(own)]
    changed = program.replace(b"\0" + own + b"\0", b"\0" + other + b"\0")
    check_quietly(changed != program, f"the program does not say that it is {own}")
    return (Version(test, own.decode(), program + random.Random(1).randbytes(PADDING_BYTES)),
            Version(test, other.decode(), changed + random.Random(2).randbytes(PADDING_BYTES)))


# ---- The host ------------------------------------------------------------------------------------


def kill(pids):
    """Kills processes, and waits until they have let go of what they held."""
    watched = []
    for pid in pids:
        try:
            watched.append(os.pidfd_open(pid))
        except ProcessLookupError:
            pass
    for descriptor in watched:
        try:
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        except ProcessLookupError:
            pass
    for descriptor in watched:
        select.select([descriptor], [], [], PATIENCE)
        os.close(descriptor)


def about(pid):
    """What is known of a process."""
    try:
        return f"{pid}: " + " ".join(Path(f"/proc/{pid}/{name}").read_text(encoding="ascii").replace("\0", " ")
                                     for name in ("cmdline", "wchan", "stat"))
    except OSError:
        return f"{pid}: it has ended"


def role_of(pid):
    """What a process of Strake's is: "daemon", "monitor", or "usernet", which holds the connections of
    a partition's network, and so outlives handovers in the program that it was started in."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[1].decode()
    except (OSError, IndexError):
        return None


def digest_of(path):
    """Of a file, or None where there is none."""
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError:
        return None


class System:
    """A supervisor with two partitions, of which one brings updates."""

    def __init__(self, test):
        if UNDER_QEMU:
            raise Skipped("QEMU is no peer for this test")
        need(vm.KERNEL, vm.INITRAMFS)
        for tool in ("mke2fs", "dpkg-deb", initramfs.COMPILER):
            if not shutil.which(tool, path=os.environ["PATH"] + ":/usr/sbin:/sbin"):
                raise Skipped(f"'{tool}' is missing")
        self.versions = two_versions(test)
        self.version = self.versions[0]
        self.supervisor = Supervisor(test, ["--trusted", test.folder / "trusted", "--allow-downgrade",
                                            "--restart-delay", "20", "--confirm-within", "30"])
        self.update = self.supervisor.state / "update"
        self.ledger = Ledger(test.folder)
        self.guest = Guest(self.is_alive)
        self.installed = digest_of(vm.strake())
        self.torn = 0  # lines of the audit log
        self.alarms, self.victim = 0, None
        self.ends = {}
        self.log_mark = self.audit_mark = 0
        self.handovers = {}
        create(self.supervisor, "plain", echo_guest(test), restart="always")
        create(self.supervisor, "web", self._definition(test), updates=True, restart="always")
        self.guest.accept()
        self.ledger.goes_on()

    def _definition(self, test):
        tree, disk = test.folder / "tree", test.folder / "disk"
        (tree / "root" / EXTENSION).parent.mkdir(parents=True)
        (tree / "root" / EXTENSION).write_text(f"{self.version.name}\n", encoding="ascii")
        for version in self.versions:
            shutil.copy(version.package, tree)
        subprocess.run(["mke2fs", "-q", "-t", "ext4", "-F", "-d", tree, disk, "64M"], check=True,
                       env={**os.environ, "PATH": os.environ["PATH"] + ":/usr/sbin:/sbin"})
        overlay = cpio.Tree()
        overlay.file("usr/bin/ledger", initramfs.compile_static(LEDGER), 0o755)
        script = SCRIPT.format(ledger=self.ledger.listener.getsockname()[1],
                               shell=self.guest.listener.getsockname()[1])
        overlay.file("strake/run", "#!/bin/sh\n" + script, 0o755)
        return {"kernel": str(vm.KERNEL), "initrd": str(vm.with_overlay(overlay, test.folder / "initrd")),
                "memory": "256M", "append": "quiet", "net": "user",
                "disk": [str(disk), str(self.ledger.path)]}

    def is_alive(self):
        """Fails when the supervisor has ended, and nobody has killed it. By its own alarm it may, if it
        was to find a monitor that was killed: it is started again, as a service manager does."""
        status = self.supervisor.process.poll()
        if status == -signal.SIGALRM and self.victim == kill_monitor:
            self.alarms += 1
            self.supervisor.start()
            status = None
        check_quietly(status is None, f"the supervisor has ended with {status}")

    # ---- What has happened since begin_watching()

    def begin_watching(self):
        """From here on steps count."""
        self.log_mark = self.supervisor.log.stat().st_size
        self.audit_mark = (self.update / "history.jsonl").stat().st_size
        self.handovers = {name: self._handovers(name) for name in ("plain", "web")}

    def _handovers(self, name):
        text = (self.supervisor.state / "records" / f"{name}.json").read_text(encoding="utf-8")
        return json.loads(text)["handovers"]

    def is_recorded(self, event):
        """Whether the audit log has it."""
        with open(self.update / "history.jsonl", "rb") as log:
            size = os.fstat(log.fileno()).st_size
            log.seek(self.audit_mark if self.audit_mark <= size else 0)  # it was put aside
            return f'"event":"{event}"'.encode() in log.read()

    def is_handed_over(self, name):
        """Whether the partition was, and the supervisor knows."""
        return self._handovers(name) > self.handovers[name]

    def is_logged(self, words):
        """Whether the supervisor has said so."""
        with open(self.supervisor.log, "rb") as log:
            log.seek(self.log_mark)
            return words.encode() in log.read()

    def is_received_in_part(self):
        """Whether some of a payload is on the disk for sure."""
        for path in self.update.glob("staging/*/stage.json"):
            try:
                stage = json.loads(path.read_text(encoding="ascii"))
            except OSError:  # it has gone
                continue
            if 0 < stage["offset"] < stage["bytes"]:
                return True
        return False

    # ---- What is to hold

    def disagreement(self):
        """What is not yet as it is to be in the end, or None."""
        state = json.loads((self.update / "state.json").read_text(encoding="utf-8"))
        link = self.update / "current"
        if state["pending"]:
            return f"{state['current']} is pending"
        if state["current"] == "installed":
            wanted, target = self.installed, None
        else:
            target = f"slots/{state['current']}"
            wanted = digest_of(self.update / target / "strake")
        if target != (os.readlink(link) if link.is_symlink() else None):
            return f"the link is not that of {state['current']}"
        version = next((one for one in self.versions
                        if wanted == one.digest and target == f"slots/{one.name}"), None)
        if wanted == self.installed:
            version = self.versions[0]
        if not version:
            return f"{state['current']} is neither of the two"
        partitions = {one["name"]: one for one in self.supervisor.call("GET", "/v1/partitions")}
        states = {name: one["state"] for name, one in partitions.items()}
        if states != {"plain": "running", "web": "running"}:
            return f"partitions are {states}"
        if (said := self.supervisor.call("GET", "/v1")["version"]) != version.name:
            return f"{version.name} is current, the supervisor is {said}"
        runs = {pid: digest_of(f"/proc/{pid}/exe") for pid in self.supervisor.marked()
                if role_of(pid) != "usernet"}
        left = set(runs) - {self.supervisor.process.pid, *(one["pid"] for one in partitions.values())}
        if left:
            return f"processes are left over: {[about(pid) for pid in left]}"
        if set(runs.values()) != {wanted}:
            names = {self.installed: "installed", **{one.digest: one.name for one in self.versions}}
            return f"{state['current']} is current, programs are " \
                f"{ {pid: names.get(digest) for pid, digest in runs.items()} }"
        self.version = version
        return None

    def check_agreement(self):
        """One version runs, and that alone."""
        deadline = time.monotonic() + PATIENCE * 5
        while True:
            self.is_alive()
            try:
                why = self.disagreement()
            except (OSError, http.client.HTTPException, Failed) as error:  # it goes on as another program
                why = str(error)
            if not why:
                break
            check_quietly(time.monotonic() < deadline, f"in the end, {why}")
            time.sleep(0.05)
        for slot in (self.update / "slots").iterdir():
            check_quietly(any(digest_of(slot / "strake") == one.digest and slot.name == one.name
                              for one in self.versions), f"slot {slot.name} is not whole")

    def check_audit(self):
        """The log is whole, but for what was torn on purpose."""
        bad = 0
        for path in self.update.glob("history*.jsonl"):
            text = path.read_bytes()
            check_quietly(text.endswith(b"\n"), f"the last line of {path.name} is torn")
            for line in text.splitlines():
                try:
                    check_quietly(json.loads(line)["event"], f"a line of {path.name}: {line}")
                except ValueError:
                    bad += 1
        check_quietly(bad <= self.torn, f"of the audit log {bad} lines are torn, and by the test {self.torn}")

    def check_guest(self):
        """The guest's part is that of the version, and it has nothing more to do."""
        said = self.guest.ask(f"cat /mnt/root/{EXTENSION}")
        check_quietly(said == self.version.name, f"the extension is of {said}, {self.version.name} runs")
        said = self.guest.ask(f"cat {STATE} 2>/dev/null")
        check_quietly(not said or json.loads(said)["phase"] == "idle", f"the guest is not done: {said}")

    # ---- A round

    def settle(self, job):
        """Has the guest's updater come to its end, from boot to boot. Returns how it ended: its
        last status, and whether that is of the first try."""
        first = True
        for _ in range(20):
            told = self.guest.end(job)
            if told is None:
                self.guest.accept()
            elif told[0] in ENDS:
                return told[0], first
            elif told[0] not in (UNFINISHED, KILLED):
                raise Failed(f"strake-update ends with {told[0]}: {self.guest.ask('cat /tmp/out')}")
            first = False
            job = self.guest.begin(f"{UPDATE} resume >/tmp/out 2>&1")
        raise Failed(f"the updater does not come to an end: {self.guest.ask('cat /tmp/out')}")

    def round(self, number, what, moment):
        """One update, in which `what` is killed at a moment."""
        before, target = self.version, self.versions[self.version == self.versions[0]]
        boot, boots, start = self.guest.boot, self.ledger.boots, time.monotonic()
        self.victim = what
        self.begin_watching()
        job = self.guest.begin(f"touch /tmp/busy; {moment.in_guest(what)} {UPDATE} apply "
                               f"/mnt/{target.name}.strake >/tmp/out 2>&1; set -- $?; rm -f /tmp/busy; "
                               "(exit $1)")
        try:
            met = moment.wait(self, job)
            told = what(self) if what and not moment.phase else ""
            status, first = self.settle(job)
            self.check_agreement()
            self.check_guest()
        except (Failed, OSError) as error:
            raise Failed(f"round {number}, {title(what)} killed {moment}, {before.name} to {target.name}: "
                         f"{error}\n{self.logs()}") from error
        check_quietly(self.version in ((target,) if first and status == DONE else (before, target)),
                      f"the updater ends with {status}, {self.version.name} runs")
        check_quietly(status == DONE or self.version == before,
                      f"the update is {ENDS[status]}, {self.version.name} runs")
        if what in (None, kill_supervisor, kill_updater):
            check_quietly((self.guest.boot, self.ledger.boots) == (boot, boots), "the guest notices")
        self.ledger.goes_on()
        self.ledger.check()
        self.check_audit()
        word = f"step {number}. "  # no letter of it means anything to that guest
        self.supervisor.wait_console("plain", "ready")
        self.supervisor.type("plain", word.encode())
        self.supervisor.wait_console("plain", word)
        end = ENDS[status] if first or status != DONE else \
            "committed later" if self.version == target else "given up"
        self.ends[end] = self.ends.get(end, 0) + 1
        check(True, f"round {number}: {title(what)} killed {moment}{'' if met else ' (over before)'}{told}: "
              f"{before.name} to {target.name} is {end}, {time.monotonic() - start:.1f} s")
        return time.monotonic() - start

    def logs(self):
        """The ends of the audit log and the supervisor's, for who looks into a failure."""
        log = (self.update / "history.jsonl").read_text(errors="replace")
        return f"{log[-4000:]}\n{self.supervisor.text()[-4000:]}"

    def check_all(self):
        """At the end: every record since the beginning, and the guest's kernel."""
        self.ledger.check(0)
        check(True, f"all {self.ledger.checked} records that the guest was told to be on its disk are there, "
              f"after {self.ledger.boots} boots")
        trouble = [line for line in self.guest.ask("dmesg").splitlines() if TROUBLE.search(line)]
        check(not trouble, f"the guest's kernel has nothing to complain about {trouble[:3] or ''}")
        check(True, f"updates were {', '.join(f'{end}: {count}' for end, count in self.ends.items())}; "
              f"{self.alarms} ended by the supervisor's alarm")


# ---- What is killed ------------------------------------------------------------------------------


def title(what):
    """Its name."""
    return what.__doc__.split(":")[0] if what else "nothing"


def kill_supervisor(system):
    """the supervisor: its partitions run on."""
    system.supervisor.restart()
    return ""


def kill_monitor(system):
    """a monitor: that of a partition, old or new, or one that tests itself."""
    found = [pid for pid in system.supervisor.marked() if role_of(pid) == "monitor"]
    kill(random.sample(found, 1))
    return f" (one of {len(found)})"


def lose_power(system):
    """Kills all, looks at the guest's disk, and tears the store. Returns what was torn."""
    while found := set(system.supervisor.marked()):
        kill(found)
        system.supervisor.process.wait()
    system.ledger.check()
    torn = tear(system.update)
    system.torn += "history.jsonl" in torn
    return torn


def kill_tree(system):
    """all that runs on the host: the guests are gone, and power was lost."""
    torn = lose_power(system)
    system.supervisor.start()
    return f" (torn: {', '.join(torn)})" if torn else ""


def kill_again(system):
    """all on the host, twice: the second time while what the first left is put in order."""
    torn = lose_power(system)
    system.supervisor.start(wait=False)
    time.sleep(random.uniform(0, 0.5))
    torn += lose_power(system)
    system.supervisor.start()
    return f" (torn: {', '.join(torn)})" if torn else ""


def kill_updater(system):
    """the guest's updater: it is told to go on."""
    system.guest.begin("killall -9 strake-update")
    return ""


def kill_guest(system):
    """the guest: it boots again, without having synced anything."""
    system.guest.begin("reboot -n -f")
    system.guest.until_gone()
    return ""


KILLS = (kill_supervisor, kill_tree, kill_monitor, kill_updater, kill_guest, kill_again)


def tear(store):
    """What losing power may do to a store of updates beyond what a kill does: writes that were not
    synced are lost in part or whole. Returns what was torn."""
    torn = []
    log = store / "history.jsonl"
    if random.random() < 0.5:  # the last line may not have been synced yet
        text = log.read_bytes()
        last = text.rstrip(b"\n").rfind(b"\n") + 1
        if last < len(text):
            os.truncate(log, random.randrange(last, len(text)))
            torn.append(log.name)
    for record_path in store.glob("staging/*/stage.json"):
        payload = record_path.parent / "payload"
        synced = json.loads(record_path.read_text(encoding="ascii"))["offset"]
        if payload.stat().st_size > synced:
            with open(payload, "r+b") as file:  # what came after it is lost, or something else
                file.seek(synced)
                file.write(random.randbytes(random.randrange(payload.stat().st_size - synced)))
                file.truncate()
            torn.append("payload")
        (record_path.parent / "stage.json.new").write_bytes(cut(record_path))
    for name in ("state.json", "current"):
        if random.random() < 0.3:  # was being replaced
            new = store / f"{name}.new"
            new.unlink(missing_ok=True)
            if name == "current":
                new.symlink_to("slots/none")
            else:
                new.write_bytes(cut(store / name))
                new.chmod(0o600)
            torn.append(new.name)
    for path in (store / "slots").glob(".*/*"):  # on their way in or out
        os.truncate(path, random.randint(0, path.stat().st_size))
        torn.append(f"{path.parent.name}/{path.name}")
    return torn


def cut(path):
    """A file's content without its end."""
    content = path.read_bytes()
    return content[:random.randint(0, len(content))]


# ---- When ----------------------------------------------------------------------------------------


class Moment:
    """At a step, as soon as it is seen; in a phase of the guest's updater; or after some time."""

    def __init__(self, step=None, phase=None, seconds=None):
        self.step, self.phase, self.seconds = step, phase, seconds

    def __str__(self):
        return f'at "{self.step}"' if self.step else \
            f'in the guest\'s phase "{self.phase}"' if self.phase else f"after {self.seconds:.2f} s"

    def in_guest(self, what):
        """What the guest is to do beside its update."""
        commands = {kill_updater: "killall -9 strake-update", kill_guest: "reboot -n -f"}
        return when_in(self.phase, commands[what]) if self.phase else ""

    def wait(self, system, job):
        """Waits for it, or for the update's end; whether it came."""
        if self.phase:
            return True
        deadline = None if self.step else time.monotonic() + self.seconds
        while not (STEPS[self.step](system) if self.step else time.monotonic() >= deadline):
            if system.guest.is_over(job):
                return False
            time.sleep(0.0005)
        return True


def recorded(event):
    """A step that is in the audit log."""
    return lambda system: system.is_recorded(event)


STEPS = {
    "offered": recorded("offered"), "received in part": System.is_received_in_part,
    "received": recorded("received"),
    "validated": recorded("validated"), "committing": recorded("committing"),
    "pending": recorded("pending"),
    "the first is handed over": lambda system: system.is_handed_over("plain"),
    "the last is handed over": lambda system: system.is_handed_over("web"),
    "it is executed": lambda system: system.is_logged("the supervisor goes on as"),
    "confirmed": recorded("confirmed"),
    "ready": lambda system: system.is_logged("the supervisor is ready"),
}
PHASES = ("sending", "installing", "committing")


def undisturbed(system, number):
    """A round in which nothing is killed; how long it took."""
    before = system.version
    took = system.round(number, None, Moment(seconds=0))
    check_quietly(system.version != before, "an undisturbed update is committed")
    return took


def seed():
    """Of what is random: STRAKE_TEST_SEED=N chooses it."""
    number = int(os.environ.get("STRAKE_TEST_SEED") or random.randrange(1 << 32))
    print(f"seed {number}", flush=True)
    random.seed(number)
