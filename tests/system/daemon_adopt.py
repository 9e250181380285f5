#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Partitions outlive their supervisor: it is killed, or ends, and another one finds what runs, what
has ended meanwhile, and what is to be started. Two do not share a state folder."""

import json
import os
import signal
import subprocess
import time

from lib.daemon import Supervisor, create, echo_guest, events_of
from lib.harness import check, main
from lib.leverage import wait_until
import vm

ROUNDS = 5


def adopt(test):
    guest = echo_guest(test)
    supervisor = Supervisor(test, ["--restart-delay", "20"])
    killed(supervisor, guest)
    meanwhile(supervisor, guest)
    clients(supervisor)
    while_starting(supervisor, guest)
    started_at_start(supervisor, guest)
    one_folder(test, supervisor)
    ends(test, guest)


def killed(supervisor, guest):
    """SIGKILL, again and again, while the guest is spoken to."""
    create(supervisor, "web", guest)
    create(supervisor, "asleep", guest)
    supervisor.call("POST", supervisor.path("asleep", "/pause"))
    before = {name: supervisor.show(name) for name in ("web", "asleep")}
    said = "ready\r\n"
    for number in range(ROUNDS):
        supervisor.end(signal.SIGKILL)
        os.kill(before["web"]["pid"], 0)
        supervisor.start()
        word = f"hello {number}. "
        supervisor.type("web", word.encode())
        said += word
        supervisor.wait_console("web", word)
    for name, state in (("web", "running"), ("asleep", "paused")):
        partition = supervisor.show(name)
        check({**partition, "since": 0} == {**before[name], "since": 0},
              f"{name}: the same process, {state}, after {ROUNDS} supervisors were killed")
    check(supervisor.console("web") == said, "its console has all of it, from the start")
    supervisor.call("POST", supervisor.path("asleep", "/resume"))
    supervisor.type("asleep", b"up again")
    supervisor.wait_console("asleep", "up again")
    check(True, "the paused one can be resumed")
    check(len(list(supervisor.marked())) == 3, "there are two monitors and a supervisor")
    os.kill(before["asleep"]["pid"], signal.SIGKILL)
    end = supervisor.wait_for("asleep", "crashed", "its end is noticed")["last_end"]
    check(end["end"] == "crashed", f"the crash of an adopted one is told: {end['why']}")


def meanwhile(supervisor, guest):
    """What ends while nobody is there."""
    table = [("segv", "never", signal.SIGSEGV, "crashed"), ("kill", "never", signal.SIGKILL,
                                                            "crashed"),
             ("again", "on-failure", signal.SIGSEGV, "running")]
    for name, policy, _, _ in table:
        create(supervisor, name, guest, restart=policy)
    create(supervisor, "off", guest)
    supervisor.type("off", b"qq")
    supervisor.wait_for("off", "stopped", "it switches itself off")
    pids = {name: supervisor.show(name)["pid"] for name, *_ in table}
    supervisor.end(signal.SIGKILL)
    for name, _, number, _ in table:
        os.kill(pids[name], number)
    wait_until(lambda: not set(pids.values()) & set(supervisor.marked()), "they have ended")
    supervisor.start()
    for name, _, number, state in table:
        partition = supervisor.wait_for(name, state, "its end is known")
        check(partition["last_end"]["end"] == "crashed",
              f"{name}: that it crashed meanwhile is told: {partition['last_end']['why']}")
        if number == signal.SIGSEGV:
            check(partition["last_end"]["code"] == number, "with the signal")
        check(partition["last_end"]["console"] == ["ready"], "and the console's last lines")
    check(supervisor.show("again")["restarts"] == 1, "and by its policy it was started again")
    check(supervisor.show("off")["last_end"]["end"] == "poweroff",
          "what had ended before is told as before")
    supervisor.done("kill", "again")
    for name in ("segv", "kill", "again", "off", "asleep"):
        supervisor.call("DELETE", supervisor.path(name))


def clients(supervisor):
    """A console goes on over the supervisor's death, without a byte lost or twice."""
    start = supervisor.console("web")
    out, err = supervisor.folder / "client-out", supervisor.folder / "client-err"
    with open(out, "wb") as to_out, open(err, "wb") as to_err:
        client = subprocess.Popen(
            [vm.strake(), "console", "--all", "--socket", str(supervisor.socket), "web"],
            stdin=subprocess.PIPE, stdout=to_out, stderr=to_err, env=supervisor.environment())
    text = ""
    for number in range(3):
        word = f"<typed {number}>"
        client.stdin.write(word.encode())
        client.stdin.flush()
        supervisor.wait_console("web", word)
        text += word
        supervisor.end(signal.SIGKILL)
        wait_until(lambda number=number: err.read_bytes().count(b"waiting for the supervisor") > number,
                   "it says that it waits for the supervisor")
        supervisor.start()
    check(True, "a console that is attached says when it waits for a supervisor")
    supervisor.type("web", b"<the end>")
    supervisor.wait_console("web", "<the end>")
    wait_until(lambda: out.read_bytes().endswith(b"<the end>"), "it shows what was typed last")
    client.terminate()
    client.communicate(timeout=60)
    check(out.read_bytes().decode() == start + text + "<the end>", "and shows all of it once")


def while_starting(supervisor, guest):
    """Killed at moments of a start: what was defined is there, and is whole."""
    for number in range(ROUNDS):
        name = f"s{number}"
        create(supervisor, name, guest, start=False)
        client = subprocess.Popen([vm.strake(), "start", "--socket", str(supervisor.socket), name],
                                  stderr=subprocess.DEVNULL, env=supervisor.environment())
        time.sleep(0.004 * number)
        supervisor.restart(signal.SIGKILL)
        client.wait(60)
        partition = supervisor.wait_for(
            name, lambda one: one["state"] in ("running", "stopped", "failed", "crashed"),
            "it comes to rest")
        status, answer = 200, None
        if partition["state"] != "running":
            status, answer = supervisor.api("POST", supervisor.path(name, "/start"))
        check(status == 200 and supervisor.show(name)["state"] == "running",
              f"killed while it starts one: {partition['state']}, and it runs then")
        supervisor.wait_console(name, "ready")
        supervisor.done("remove", "--force", name)


def started_at_start(supervisor, guest):
    """autostart, and restart: always."""
    create(supervisor, "auto", guest, start=False, autostart=True)
    create(supervisor, "always", guest, restart="always")
    create(supervisor, "stopped", guest, restart="always")
    supervisor.done("kill", "stopped")
    pid = supervisor.show("always")["pid"]
    supervisor.end(signal.SIGKILL)
    os.kill(pid, signal.SIGKILL)
    for path in (supervisor.state / "run" / "always").iterdir():  # as after a start of the host
        path.unlink()
    supervisor.start()
    for name in ("auto", "always"):
        supervisor.wait_for(name, "running", "it is started")
        check(True, f"{name} is started with the supervisor")
    check(supervisor.show("stopped")["state"] == "stopped", "but not what was stopped")
    stream = supervisor.follow("/v1/events?after=1")
    told = {event["name"]: event["event"]
            for _, (_, event) in zip(range(4), events_of(stream)) if event["event"] != "lost"}
    stream.connection.close()
    check(told == {"web": "adopted", "auto": "started", "always": "started"},
          "events tell who was adopted, and who started")


def one_folder(test, supervisor):
    """Two supervisors do not share a folder, or a socket."""
    for options, words in (
            (["--state-dir", supervisor.state, "--socket", test.folder / "s2"], "another supervisor"),
            (["--state-dir", test.folder / "other", "--socket", supervisor.socket],
             "Address already in use"),
            (["--state-dir", "/proc/none", "--socket", test.folder / "s3"], "/proc/none"),
            (["--state-dir", test.folder / "x", "--socket", "/none/at/all"], "/none/at/all"),
            (["--state-dir", test.folder / "x", "--socket", test.folder / ("x" * 200)], "too long"),
            (["--state-dir", supervisor.log, "--socket", test.folder / "s4"], "Not a directory")):
        result = subprocess.run([vm.strake(), "daemon", *map(str, options)], timeout=60,
                                capture_output=True, text=True, check=False)
        check(result.returncode == 1 and words in result.stderr and result.stderr.count("\n") == 1,
              result.stderr.strip()[:160])
    check(supervisor.api("GET", "/v1")[0] == 200, "the first is none the worse")
    (test.folder / "bad").mkdir()
    for name, text in (("epoch", "7"), ("lock", "")):
        (test.folder / "bad" / name).write_text(text, encoding="ascii")
    other = Supervisor(test, folder=test.folder / "bad")
    check(other.end() == 0, "what is left in a folder does no harm")


def ends(test, guest):
    """What becomes of partitions when the supervisor ends."""
    supervisor = Supervisor(test)
    create(supervisor, "web", guest)
    pid = supervisor.show("web")["pid"]
    stream = supervisor.follow(supervisor.path("web", "/console?follow=1"))
    check(supervisor.end(signal.SIGTERM) == 0, "SIGTERM ends the supervisor")
    check(stream.read() == b"ready\r\n", "streams end whole")
    os.kill(pid, 0)
    check(True, "its partition runs on")
    supervisor.options.append("--stop-partitions")
    supervisor.start()
    check(supervisor.show("web")["pid"] == pid, "the next finds it")
    check(supervisor.end(signal.SIGTERM) == 0, "with --stop-partitions it ends, too")
    check(not list(supervisor.marked()), "and so do they")
    record = json.loads((supervisor.state / "records" / "web.json").read_text(encoding="utf-8"))
    check(record["last_end"]["end"] == "stopped", "which is on the disk")


main(adopt)
