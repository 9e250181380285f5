#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""The host's view of updates: what the API, `strake update`, events and metrics tell of them; and going
back by hand, of all partitions and the supervisor, to the previous version and to others, also when that
version fails, or the supervisor is killed meanwhile."""

import hashlib
import json
import os
import signal
import struct
import subprocess
import time
from pathlib import Path

from lib.channel import COMMIT, FINISH, STATUS, WITHDRAW, WRITE, Refused
from lib.daemon import PATIENCE, Supervisor, create, echo_guest, events_of
from lib.harness import Failed, check, main, need
from lib.updates import Door, facts, pack
import vm

NAMES = ("plain", "web")
INSTALLED = "installed"
TRIES = 5  # to stop a process at the right moment


def rest(test):
    need(vm.KERNEL, vm.INITRAMFS)
    host = Host(test)
    nothing_yet(host)
    create(host.supervisor, "plain", echo_guest(test))
    create(host.supervisor, "web", host.door.definition, updates=True)
    first, second = host.package("first", "1"), host.package("second", "2")
    told_of_session(host, first)
    told_of_outcome(host, first)
    host.bring(second)
    host.check_at(second, first, "the guest's second update")
    completes(host)
    back_and_forth(host, first, second)
    killed(host, first, second)
    by_hand(host, first, second)
    fails(host, first, second)
    refusals_are_counted(host)
    host.check_unharmed()


class Package:
    """A version."""

    def __init__(self, version, program, files):
        self.version, self.files = version, files
        self.sha256 = hashlib.sha256(program).hexdigest()


class Host:
    """A supervisor, whose partition web brings versions."""

    def __init__(self, test):
        self.test, self.door, self.own = test, Door(test), facts()["version"]
        (test.folder / "trusted").mkdir()
        self.supervisor = Supervisor(test, ["--trusted", test.folder / "trusted",
                                            "--confirm-within", "600"])
        self.installed = Package(INSTALLED, Path(vm.strake()).read_bytes(), None)

    def package(self, name, last, change=None):
        """A program that calls itself by a version of its own, which ends in `last`."""
        version = "9.9.9.9.9"[:len(self.own) - 1] + last
        program = Path(vm.strake()).read_bytes().replace(f"\0{self.own}\0".encode(),
                                                         f"\0{version}\0".encode())
        if change:
            check(change[0] in program, f"a program that is {name}")
            program = program.replace(*change)
        return Package(version, program, pack(self.test, name, program, version=version))

    def commit(self, package):
        """The guest brings it, up to COMMIT."""
        guest = self.door.greet()
        guest.offer(package.files)
        guest.write(package.files["monitor-full.zst"])
        guest.ask(FINISH)
        try:
            guest.ask(COMMIT)
        except OSError:  # the supervisor goes on as that version
            pass

    def bring(self, package):
        """The guest brings it, and is told that it was committed."""
        self.commit(package)
        deadline = time.monotonic() + PATIENCE
        while True:
            session = self.door.greet().offer(package.files)
            if session["phase"] == "committed":
                return
            if session["phase"] != "committing" or time.monotonic() > deadline:
                raise Failed(f"the update is {session}")
            time.sleep(0.1)

    def status(self):
        """What the host is told."""
        return self.supervisor.call("GET", "/v1/update")

    def update(self, *arguments, **options):
        """`strake update`."""
        return self.supervisor.strake("update", *arguments, **options)

    def update_in_background(self, *arguments):
        """Likewise, without waiting for its end."""
        return subprocess.Popen(
            [vm.strake(), "update", "--socket", self.supervisor.socket, *arguments],
            env=self.supervisor.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True)

    def is_pending(self):
        """By what is on the disk."""
        state = self.supervisor.state / "update" / "state.json"
        return json.loads(state.read_text(encoding="utf-8"))["pending"] is not None

    def check_at(self, package, previous, what):
        """The host is at that version: so are the supervisor and, in the end, all partitions."""
        status = self.status()
        check(status["current"] == package.version and status["pending"] is None and
              status["previous"] == previous.version and status["sha256"] == package.sha256,
              f"{what}: the host is at {package.version}, and was at {previous.version}")
        for name in NAMES:
            self.supervisor.wait_for(name, lambda one: one["pid"] and
                                     digest_of(one["pid"]) == package.sha256,
                                     f"{name} runs in {package.version}")
        check(digest_of(self.supervisor.process.pid) == package.sha256,
              "supervisor and partitions are")

    def told(self):
        """The guest: what became of the last update."""
        return self.door.greet().ask(STATUS)["last"]

    def check_unharmed(self):
        """The guests were there all the time."""
        for name in NAMES:
            one = self.supervisor.show(name)
            check(one["runs"] == 1 and one["state"] == "running",
                  f"{name} ran on through {one['handovers']} handovers")
        self.supervisor.type("plain", b"still here")
        self.supervisor.wait_console("plain", "still here")


def digest_of(pid):
    """SHA-256 of what a process executes."""
    try:
        return hashlib.sha256(Path(f"/proc/{pid}/exe").read_bytes()).hexdigest()
    except OSError:  # it has ended, and its successor is not known yet
        return None


# ---- What is told

def nothing_yet(host):
    """Before any update."""
    supervisor, status = host.supervisor, host.status()
    check(status["version"] == host.own and status["current"] == INSTALLED and
          [status[key] for key in ("previous", "pending", "session", "last")] == [None] * 4 and
          status["slots"] == [] and status["epoch"] == facts()["epoch"] and status["trusted"]["keys"] == [],
          "at first there is the installed version")
    check(supervisor.call("GET", "/v1/update/history") == [], "and the audit log is empty")
    table = [
        ("rollback", {}, 409, "no version before"),
        ("rollback", {"version": INSTALLED}, 409, "is current already"),
        ("rollback", {"version": "9.9"}, 404, "9.9"),
        ("rollback", {"version": "../../x"}, 404, "../../x"),
        ("rollback", {"version": ""}, 404, "no version"),
        ("rollback", {"version": "9" * 5000}, 404, "999..."),
        ("rollback", {"version": 9}, 400, "version"),
        ("rollback", {"version": None}, 400, "version"),
        ("rollback", {"to": "9.9"}, 400, "to"),
        ("confirm", {}, 409, "nothing is to be confirmed"),
        ("confirm", {"version": "9.9"}, 400, "version"),
    ]
    for what, body, code, words in table:
        got, answer = supervisor.api("POST", f"/v1/update/{what}", body)
        check(got == code and words in answer["error"] and len(answer["error"]) < 300,
              f"{what} {str(body)[:40]}: {got}, {answer['error']}")
    got, answer = supervisor.api("GET", "/v1/update/history?limit=x")
    check(got == 400, f"history?limit=x: {got}, {answer['error']}")
    for arguments, code, words in ((["rollback"], 1, "no version before"),
                                   (["confirm"], 1, "nothing is to be confirmed"),
                                   (["nonsense"], 2, "nonsense"),
                                   ([], 2, "too few"),
                                   (["status", "9.9"], 2, "too many"),
                                   (["rollback", "9.9", "9.8"], 2, "too many")):
        result = host.update(*arguments)
        check(result.returncode == code and words in result.stderr and
              len(result.stderr.splitlines()) == 1, f"strake update {result.stderr.strip()}")
    if os.geteuid() == 0:
        result = subprocess.run(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups",
                                 vm.strake(), "update", "--socket", supervisor.socket, "status"],
                                capture_output=True, text=True, timeout=PATIENCE, check=False)
        check(result.returncode == 1 and "may not talk" in result.stderr,
              f"somebody else: {result.stderr.strip()}")
    check(host.status() == {**status, "sha256": host.installed.sha256}, "nothing has changed")


def told_of_session(host, package):
    """While a guest brings a version: the session, events; somebody else's rollback is none of it."""
    stream = host.supervisor.follow("/v1/events")
    guest = host.door.greet()
    payload = package.files["monitor-full.zst"]
    guest.offer(package.files)
    guest.send(WRITE, struct.pack("<Q", 0) + payload[:50000])
    wait_until(lambda: host.status()["session"]["offset"] == 50000, "it is received")
    session = host.status()["session"]
    check(session["partition"] == "web" and session["version"] == package.version and
          session["phase"] == "receiving" and session["bytes"] == len(payload),
          f"a session: {session}")
    shown = host.update("status").stdout
    check(f"version {package.version} from web: receiving" in shown, "strake update status has it")
    guest.send(WITHDRAW)
    guest.answer()
    names = []
    for _, event in events_of(stream):
        names.append(event["event"])
        if event["event"] == "update-withdrawn":
            break
    stream.connection.close()
    check(names == ["update-offered", "update-withdrawn"] and event["partition"] == "web" and
          event["version"] == package.version, f"events: {', '.join(names)}")
    check(host.status()["session"] is None, "and it is gone")


def told_of_outcome(host, package):
    """After an update: versions, keys, the audit log, events, metrics."""
    host.bring(package)
    host.check_at(package, host.installed, "the guest's first update")
    status = host.status()
    last = status["last"]
    check(status["version"] == package.version and last["phase"] == "committed" and
          last["partition"] == "web" and last["result"]["partitions"] == 2,
          f"the last update: {last}")
    check([(slot["version"], slot["sha256"], slot["current"]) for slot in status["slots"]] ==
          [(package.version, package.sha256, True)], "it has a slot")
    keys = {key["file"]: key["revoked"] for key in status["trusted"]["keys"]}
    check(keys == {"first.pub": False, "second.pub": False}, f"trusted keys: {keys}")
    key = host.test.folder / "trusted" / "second"
    key.with_suffix(".revoked").write_bytes(key.with_suffix(".pub").read_bytes())
    keys = {key["file"]: key["revoked"] for key in host.status()["trusted"]["keys"]}
    check(keys == {"first.pub": False, "second.pub": True, "second.revoked": True},
          f"one is revoked: {keys}")
    check("second.revoked, revoked" in host.update("status").stdout, "strake update status says so")
    key.with_suffix(".revoked").unlink()
    records = host.supervisor.call("GET", "/v1/update/history")
    check([one["event"] for one in records][-4:] == ["committing", "installed", "pending",
                                                     "confirmed"], "the audit log ends with it")
    check(host.supervisor.call("GET", "/v1/update/history?limit=3") == records[-3:] and
          json.loads(host.update("history", "--json", "--limit", "3").stdout) == records[-3:] and
          host.update("history", "--limit", "3").stdout.count("\n") == 4, "the last three of it")
    event = event_that_came(host, "update-committed")
    check(event["version"] == package.version and event["from"] == INSTALLED,
          "an event tells that it is committed")
    samples = metrics(host)
    check(samples['strake_updates_total{outcome="committed"}'] == 1 and
          samples['strake_updates_total{outcome="rolled-back"}'] == 0 and
          samples["strake_update_pending"] == 0, "it is counted")


def event_that_came(host, name):
    """The first of this name that the supervisor has told since it was executed."""
    stream = host.supervisor.follow("/v1/events?after=1")
    event = next(event for _, event in events_of(stream) if event["event"] == name)
    stream.connection.close()
    return event


def completes(host):
    """bash offers the versions that there are."""
    script = subprocess.run([vm.strake(), "completion", "bash"], capture_output=True, text=True,
                            check=True).stdout
    environment = {**os.environ, "STRAKE_SOCKET": str(host.supervisor.socket),
                   "PATH": f"{os.path.dirname(os.path.abspath(vm.strake()))}:{os.environ['PATH']}"}
    offered = subprocess.run(
        ["bash", "-c", f"{script}\nCOMP_WORDS=(strake update rollback ''); COMP_CWORD=3; _strake; "
                       "echo ${COMPREPLY[@]}"], capture_output=True, text=True, env=environment,
        timeout=PATIENCE, check=True).stdout.split()
    check(offered == [*(slot["version"] for slot in host.status()["slots"]), INSTALLED],
          f"bash: strake update rollback {' '.join(offered)}")


def metrics(host):
    """What Prometheus is told of updates."""
    _, text = host.supervisor.api("GET", "/metrics")
    return {name: float(value) for name, value in
            (line.split() for line in text.decode().splitlines() if "strake_update" in line and
             not line.startswith("#"))}


def refusals_are_counted(host):
    """By their codes."""
    before = host.status()["refusals"]
    guest = host.door.greet()
    guest.handle = 12345
    try:
        guest.ask(FINISH)
        raise Failed("a session is there that nobody has begun")
    except Refused as refused:
        check(refused.code == 22, f"{refused}")
    after = host.status()["refusals"]
    check({name for name in after if after[name] != before[name]} == {"no-session"} and
          metrics(host)['strake_update_refusals_total{code="no-session"}'] == after["no-session"],
          "a refusal is counted by its code")
    check("no-session" in host.update("status").stdout, "strake update status has it")
    event = event_that_came(host, "update-refused")
    check(event["refusal"] == "no-session" and event["partition"] == "web", f"an event: {event}")


# ---- Going back

def back_and_forth(host, first, second):
    """To the previous version, back to the other, and to one that is neither."""
    result = host.update("rollback")
    check(result.returncode == 0, f"strake update rollback: {result.stderr}{result.stdout.strip()}")
    host.check_at(first, second, "back to the previous version")
    event = event_that_came(host, "update-rolled-back")
    check(event["version"] == first.version and event["from"] == second.version and event["why"],
          f"an event: {event}")
    last = host.told()
    check(last["phase"] == "rolled-back" and last["version"] == second.version and
          last["result"]["error"] == 25, f"the guest is told: {last}")
    check(metrics(host)['strake_updates_total{outcome="rolled-back"}'] == 1, "it is counted")
    events = [one["event"] for one in host.supervisor.call("GET", "/v1/update/history")]
    check(events[-3:] == ["rollback", "pending", "confirmed"], f"the audit log has it: {events[-3:]}")
    answer = host.supervisor.call("POST", "/v1/update/rollback", {"version": second.version})
    check(answer["outcome"] == "done" and answer["to"] == second.version and
          sorted(one["name"] for one in answer["partitions"]) == list(NAMES),
          f"to the other by the API: {answer['outcome']}")
    host.supervisor.wait_until_ready()
    wait_until(lambda: host.status()["version"] == second.version, "it goes on as that")
    host.check_at(second, first, "back again")
    check(host.told()["phase"] == "committed", "and the guest is told that it is committed")
    status = json.loads(host.update("rollback", INSTALLED, "--json").stdout)
    check(status["current"] == INSTALLED and status["version"] == host.own,
          "to the installed version")
    host.check_at(host.installed, second, "that was installed on the host")
    host.supervisor.restart()
    host.check_at(host.installed, second, "killed and started")
    result = host.update("rollback", first.version)
    check(result.returncode == 0, f"to one that is neither: {result.stderr}")
    host.check_at(first, host.installed, "and is kept")
    host.update("rollback", second.version)
    host.check_at(second, first, "and to the newest")


def wait_until(condition, what):
    """Waits until something is so, also while nobody answers."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            if condition():
                return
        except OSError:
            pass
        if time.monotonic() > deadline:
            raise Failed(what)
        time.sleep(0.001)


def begin_rollback(host, version):
    """One that has come to where the version is pending, or to its end. While partitions that a former
    supervisor has left elsewhere are gathered, it is refused."""
    for _ in range(TRIES * 10):
        client = host.update_in_background("rollback", version)
        wait_until(lambda: client.poll() is not None or host.is_pending(), "it is pending")
        if client.poll() in (None, 0):
            return client
        said = client.communicate()[1]
        check("are being handed over already" in said, f"not now: {said.strip()}")
        time.sleep(0.1)
    raise Failed("partitions are being handed over for ever")


def killed(host, first, second):
    """Killed while it goes back: the next start is at one of the two, with all partitions."""
    caught = 0
    for number, delay in enumerate([0, 0.03, 0.2] + [0] * TRIES):
        if number >= 3 and caught:
            break
        client = begin_rollback(host, first.version)
        time.sleep(delay)
        host.supervisor.process.kill()
        host.supervisor.process.wait()
        pending = host.is_pending()
        host.supervisor.start()
        said = " ".join(client.communicate(timeout=PATIENCE * 5))
        if not pending:
            host.check_at(first, second, f"killed after {delay} s, too late: {said}")
            host.update("rollback")
        host.check_at(second, first, f"killed after {delay} s")
        check(host.told()["phase"] == "committed", "for the guest nothing has changed")
        caught += pending
    check(caught > 0, f"{caught} times it was killed before the version had proved itself")


def by_hand(host, first, second):
    """A version that does not find one of its partitions stays pending, until somebody confirms it."""
    for _ in range(TRIES):
        old = host.supervisor.show("plain")["pid"]
        client = host.update_in_background("rollback", first.version)
        pid = host.supervisor.wait_for("plain", lambda one: one["pid"] not in (old, None),
                                       "it is handed over")["pid"]
        os.kill(pid, signal.SIGSTOP)  # its new monitor does not answer the new supervisor
        wait_until(lambda: host.status()["version"] == first.version, "it goes on as that")
        pending = host.status()["pending"]
        if pending:
            break
        os.kill(pid, signal.SIGCONT)
        client.communicate(timeout=PATIENCE * 5)
        host.update("rollback")
    check(pending and pending["version"] == first.version and pending["manifest"] is None,
          f"it is pending: {pending}")
    check("to be confirmed before" in host.update("status").stdout, "strake update status says so")
    got, answer = host.supervisor.api("POST", "/v1/update/rollback", {"version": INSTALLED})
    check(got == 409 and "only going back" in answer["error"], f"{got}: {answer['error']}")
    result = host.update("confirm")
    check(result.returncode == 0 and f"version {first.version} is confirmed" in result.stdout,
          f"strake update confirm: {result.stdout.strip()}")
    os.kill(pid, signal.SIGCONT)
    out, err = client.communicate(timeout=PATIENCE * 5)
    check(client.returncode == 0, f"who waited for it is told: {out.splitlines()[-1:]}{err}")
    host.check_at(first, second, "confirmed by hand")
    host.update("rollback")
    host.check_at(second, first, "and back")


def fails(host, first, second):
    """A version that passes its self-test, and whose supervisor fails; brought, and gone to by hand."""
    bad = host.package("bad", "9", (b"\0daemon\0", b"\0daemom\0"))
    host.commit(bad)
    check(host.supervisor.process.wait(PATIENCE) != 0, "the new version's supervisor fails")
    host.supervisor.start()
    check(host.told()["phase"] == "rolled-back", "it is taken back")
    host.check_at(second, first, "the next start goes back")
    client = begin_rollback(host, bad.version)
    check(host.supervisor.process.wait(PATIENCE) != 0, "by hand it fails, too")
    host.supervisor.start()
    _, err = client.communicate(timeout=PATIENCE * 5)
    check(client.returncode == 1 and "did not prove itself" in err, f"strake update: {err.strip()}")
    host.check_at(second, first, "the host is where it was")


main(rest)
