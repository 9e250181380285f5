#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""The life of partitions under a supervisor: every operation in every state, Debian's kernel started
and stopped by its power button, crashes, and restarts by policy with growing delays."""

import json
import os
import re
import signal
import time

from lib.daemon import PATIENCE, Supervisor, create, echo_guest, events_of
from lib.harness import check, main, need
import vm

DELAY_MS = 100  # the first; the test has no minutes to wait


def life(test):
    need(vm.KERNEL, vm.INITRAMFS)
    guest = echo_guest(test)
    supervisor = Supervisor(test, ["--restart-delay", str(DELAY_MS)])
    operations(supervisor, guest)
    commands(supervisor, guest)
    linux(supervisor)
    handover(supervisor, guest)
    crash(supervisor, guest)
    core(test, guest)
    policies(supervisor, guest)
    health(supervisor, guest)
    editing(supervisor, guest)


def operate(supervisor, name, operation, body=None):
    """An operation by the API: (status, answer)."""
    return supervisor.api("POST", supervisor.path(name, f"/{operation}"), body)


def operations(supervisor, guest):
    """What is possible in which state."""
    create(supervisor, "one", guest)
    pid = supervisor.show("one")["pid"]
    check(pid and pid != supervisor.process.pid, "a partition runs in a process of its own")
    for operation, possible in (("start", False), ("resume", False), ("pause", True)):
        status, answer = operate(supervisor, "one", operation)
        check((status == 200) == possible, f"{operation} while it runs: {status}")
    check(supervisor.show("one")["state"] == "paused", "it is paused")
    before = supervisor.call("GET", supervisor.path("one", "/stats"))["harts"][0]["retired"]
    time.sleep(0.2)
    later = supervisor.call("GET", supervisor.path("one", "/stats"))["harts"][0]["retired"]
    check(before == later, "a paused guest runs no instruction")
    for operation in ("start", "pause", "stop"):
        status, answer = operate(supervisor, "one", operation)
        check(status == 409 and "is paused" in answer["error"], f"{operation} while paused: 409")
    status, answer = supervisor.api("DELETE", supervisor.path("one"))
    check(status == 409 and answer["code"] == "busy", "remove while paused: 409, busy")
    check(operate(supervisor, "one", "resume")[0] == 200, "it is resumed")
    supervisor.type("one", b"go on")
    supervisor.wait_console("one", "go on")
    check(True, "and goes on")
    status, answer = operate(supervisor, "one", "stop")
    check(status == 409 and answer["code"] == "no-driver", f"{answer['error']}")
    check(supervisor.show("one")["state"] == "running", "it runs on")
    os.kill(pid, signal.SIGSTOP)
    started = time.monotonic()
    status, answer = operate(supervisor, "one", "stop", {"timeout_ms": 300})
    check(status == 504 and "has not ended within 0.3 s" in answer["error"] and
          time.monotonic() - started >= 0.3, f"what does not hear its power button: {status}")
    check(supervisor.api("GET", "/metrics")[0] == 200, "metrics do not wait for it")
    os.kill(pid, signal.SIGCONT)
    check(operate(supervisor, "one", "kill")[0] == 200, "it is killed")
    partition = supervisor.show("one")
    check(partition["state"] == "stopped" and partition["pid"] is None and
          partition["last_end"]["end"] == "stopped", "it is stopped, and so it is told")
    check(not os.path.exists(f"/proc/{pid}"), "its process is gone")
    status, _ = operate(supervisor, "one", "start", {"paused": True})
    check(status == 200 and supervisor.show("one")["state"] == "paused", "it can start paused")
    check(supervisor.console("one") == "", "then it has not run")
    operate(supervisor, "one", "resume")
    supervisor.wait_console("one", "ready")
    supervisor.type("one", b"f")
    partition = supervisor.wait_for("one", "failed", "the guest reports failure")
    check(partition["last_end"]["end"] == "failed" and partition["last_end"]["code"] == 7,
          "what the guest reports is told")
    check(supervisor.console("one").startswith("ready"), "its console can still be read")
    status, _ = operate(supervisor, "one", "restart")
    check(status == 200 and supervisor.show("one")["state"] == "running",
          "restart starts one that does not run")
    supervisor.wait_console("one", "ready")
    supervisor.type("one", b"r")
    deadline = time.monotonic() + PATIENCE
    while supervisor.console("one").count("ready") < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    check(supervisor.show("one")["runs"] == 3, "a reboot is no end")
    operate(supervisor, "one", "kill")
    supervisor.call("DELETE", supervisor.path("one"))
    check(supervisor.show("one") is None, "it is removed")


def commands(supervisor, guest):
    """The subcommands do the same."""
    for name in ("a", "b", "c"):
        create(supervisor, name, guest, start=False)
    supervisor.done("start", "a", "b")
    listed = supervisor.done("list")
    check(re.search(r"^a +running .*\nb +running .*\nc +stopped ", listed, re.MULTILINE),
          "list has a line each")
    check(json.loads(supervisor.done("list", "--json"))[0]["name"] == "a", "list --json is JSON")
    check(supervisor.done("list", "--quiet").split() == ["a", "b", "c"], "list --quiet has names")
    supervisor.done("pause", "--all")
    check([supervisor.show(name)["state"] for name in "abc"] == ["paused", "paused", "stopped"],
          "--all means those that it makes sense for")
    supervisor.done("resume", "b", "a")
    shown = supervisor.done("show", "a", "c")
    check("name: a" in shown and "state: running" in shown and "firmware: /" in shown,
          "show tells state and definition")
    check(json.loads(supervisor.done("show", "a", "--json"))["definition"]["memory"] == "64M",
          "options may come last")
    result = supervisor.strake("start", "a", "nobody", "c")
    check(result.returncode == 1 and result.stderr.count("\n") == 2 and
          'no partition "nobody"' in result.stderr and "is running" in result.stderr,
          "what cannot be done is told, a line each")
    check(supervisor.show("c")["state"] == "running", "the rest is done")
    result = supervisor.strake("remove", "a")
    check(result.returncode == 1 and "stop it first" in result.stderr, "remove takes none that runs")
    supervisor.done("stop", "--timeout", "0", "--kill", "b")
    check(supervisor.show("b")["state"] == "stopped", "stop --kill kills what does not stop")
    supervisor.done("remove", "--force", "a", "b")
    supervisor.done("kill", "--all")
    supervisor.done("remove", "c")
    check(supervisor.done("list", "--quiet") == "", "all are removed")
    for arguments in (["start"], ["start", "--all", "x"], ["show"], ["console"], ["list", "x"],
                      ["start", "--nonsense", "x"], ["stop", "--timeout", "x", "y"]):
        result = supervisor.strake(*arguments)
        check(result.returncode == 2 and "see: strake help" in result.stderr,
              f"strake {' '.join(arguments)}: {result.stderr.strip()}")


def linux(supervisor):
    """Debian's kernel hears its power button."""
    definition = {"kernel": str(vm.KERNEL), "initrd": str(vm.INITRAMFS), "memory": "256M"}
    create(supervisor, "linux", definition)
    supervisor.wait_console("linux", vm.PROMPT)
    check(True, "Debian's kernel comes to its prompt")
    supervisor.type("linux", b"echo $((6*7))x\n")
    supervisor.wait_console("linux", "42x")
    check(True, "its shell answers")
    supervisor.done("restart", "linux", timeout=PATIENCE * 5)
    check(supervisor.show("linux")["runs"] == 2, "restart: it has ended, and runs again")
    supervisor.wait_console("linux", vm.PROMPT)
    supervisor.done("stop", "linux", timeout=PATIENCE * 5)
    partition = supervisor.show("linux")
    check(partition["state"] == "stopped" and partition["last_end"]["end"] == "poweroff",
          "stop: it has switched itself off")
    supervisor.call("DELETE", supervisor.path("linux"))


def handover(supervisor, guest):
    """A running partition gets a new monitor, by the API and the subcommand."""
    for name in ("one", "two", "off"):
        create(supervisor, name, guest, start=name != "off")
    stream = supervisor.follow(supervisor.path("one", "/console?follow=1"))
    before = supervisor.show("one")
    out = supervisor.done("handover", "one")
    after = supervisor.show("one")
    check(re.fullmatch(r"one: handed over, the guest stood still for [\d.]+ ms "
                       r"\(frozen [^)]*\)\n", out),
          f"handover: {out.strip()}")
    check(after["pid"] != before["pid"] and after["handovers"] == 1 and after["runs"] == 1 and
          after["last_handover"]["blackout_ns"] > 0, "it is another process, and the same run")
    out = supervisor.done("handover", "--all")
    check(out.count("\n") == 2 and supervisor.show("off")["state"] == "stopped",
          "--all means those that run")
    result = supervisor.strake("handover", "--all", "--binary", "/bin/true")
    check(result.returncode == 1 and result.stderr.count("\n") == 1 and "hello" in result.stderr
          and result.stdout.count("\n") == 1 and result.stdout.startswith("one: failed"),
          f"a program that is no monitor: {result.stderr.splitlines()[0]}")
    check(supervisor.show("one")["pid"] and supervisor.show("one")["handovers"] == 2,
          "the guest goes on where it was")
    supervisor.call("POST", supervisor.path("one", "/pause"))
    supervisor.done("handover", "one")
    check(supervisor.show("one")["state"] == "paused", "a paused one stays paused")
    supervisor.call("POST", supervisor.path("one", "/resume"))
    pid = supervisor.show("one")["pid"]
    supervisor.type("one", b"still me")
    supervisor.wait_console("one", "still me")
    supervisor.done("kill", "one")
    check(stream.read() == b"ready\r\nstill me", "a console that is attached has noticed nothing")
    check(not os.path.exists(f"/proc/{pid}"), "kill ends the new one")
    supervisor.restart()
    supervisor.type("two", b"me too")
    supervisor.wait_console("two", "me too")
    check(supervisor.show("two")["handovers"] == 1, "one that was handed over is adopted")
    for name in ("one", "two", "off"):
        supervisor.done("remove", "--force", name)


def crash(supervisor, guest):
    """The crash of a monitor is told, and nobody else's."""
    create(supervisor, "other", guest)
    create(supervisor, "weak", guest)
    supervisor.type("weak", b"hello, I end\n")
    supervisor.wait_console("weak", "hello, I end")
    pid = supervisor.show("weak")["pid"]
    other = supervisor.show("other")
    os.kill(pid, signal.SIGSEGV)
    partition = supervisor.wait_for("weak", "crashed", "its monitor crashes")
    end = partition["last_end"]
    check(end["end"] == "crashed" and end["code"] == signal.SIGSEGV and "SIGSEGV" in end["why"],
          f"a crash is told: {end['why']}")
    check("hello, I end" in end["console"], "with the last lines of the console")
    check(end["core"], f"and about a core: {end['core']}")
    check("hello, I end" in supervisor.done("show", "weak"), "strake show tells it too")
    check(supervisor.show("other") == other, "the other partition is as it was")
    os.kill(other["pid"], signal.SIGKILL)
    end = supervisor.wait_for("other", "crashed", "its monitor is killed")["last_end"]
    check(end["code"] == signal.SIGKILL, f"so is one that was killed: {end['why']}")
    for name in ("weak", "other"):
        supervisor.call("DELETE", supervisor.path(name))


def core(test, guest):
    """The report of a crash where cores are enabled."""
    folder = test.folder / "cores"
    folder.mkdir()
    folder.chmod(0o777)
    supervisor = Supervisor(test, cwd=folder, core=True)
    create(supervisor, "weak", guest)
    supervisor.type("weak", b"some line\nthe last one\n")
    supervisor.wait_console("weak", "the last one")
    pid = supervisor.show("weak")["pid"]
    os.kill(pid, signal.SIGABRT)
    end = supervisor.wait_for("weak", "crashed", "its monitor crashes")["last_end"]
    check(end["code"] == signal.SIGABRT and "SIGABRT" in end["why"], f"the reason: {end['why']}")
    check(end["console"][-2:] == ["some line", "the last one"], f"the last lines: {end['console']}")
    with open("/proc/sys/kernel/core_pattern", encoding="utf-8") as file:
        pattern = file.read().strip()
    if pattern.startswith("|"):
        print(f"what is said of a core's file is not checked: the pattern is {pattern!r}")
    else:
        # None where the host lets monitors leave its file system, as it nearly always does.
        files = [path.name for path in folder.iterdir()]
        told = "written by the pattern" if files else "none was written: a confined monitor"
        check(end["core"].startswith(told) and f'"{pattern}"' in end["core"],
              f"with the files {files} the report says: {end['core']}")
        check(end["core"] in supervisor.done("show", "weak"), "strake show tells it too")
    supervisor.stop()


def policies(supervisor, guest):
    """never, on-failure, always."""
    table = [("never", b"q", False), ("never", b"f", False), ("on-failure", b"q", False),
             ("on-failure", b"f", True), ("always", b"q", True), ("always", b"f", True)]
    for number, (policy, typed, again) in enumerate(table):
        name = f"p{number}"
        create(supervisor, name, guest, restart=policy)
        supervisor.type(name, typed)
        if again:
            supervisor.wait_for(name, lambda one: one["runs"] == 2 and one["state"] == "running",
                                "it is started again")
        else:
            supervisor.wait_for(name, lambda one: one["state"] in ("stopped", "failed"),
                                "it has ended")
            time.sleep(DELAY_MS * 4 / 1000)
        partition = supervisor.show(name)
        check(partition["restarts"] == again and partition["runs"] == 1 + again,
              f"policy {policy}, {'failure' if typed == b'f' else 'power-off'}: "
              f"{'' if again else 'not '}started again")
        if again:
            supervisor.done("kill", name)
            time.sleep(DELAY_MS * 4 / 1000)
            check(supervisor.show(name)["state"] == "stopped", "but not when it was killed by us")
        supervisor.call("DELETE", supervisor.path(name))


def health(supervisor, guest):
    """The delay grows while it fails, and is the first again after a good run."""
    stream = supervisor.follow("/v1/events")
    create(supervisor, "ill", guest, restart="on-failure")
    delays = []
    for event in (event for _, event in events_of(stream)):
        if event["event"] == "started" and len(delays) < 4:
            os.kill(event["pid"], signal.SIGKILL)
        elif event["event"] == "restarting":
            delays.append(event["delay_ms"])
        elif event["event"] == "started" and len(delays) == 4:
            time.sleep(DELAY_MS * 61 / 1000)  # long enough to be well
            os.kill(event["pid"], signal.SIGKILL)
        if len(delays) == 5:
            break
    check(delays == [DELAY_MS, DELAY_MS * 2, DELAY_MS * 4, DELAY_MS * 8, DELAY_MS],
          f"delays in ms: {delays}")
    stream.connection.close()
    supervisor.wait_for("ill", "running", "it runs")
    supervisor.done("remove", "--force", "ill")
    create(supervisor, "gone", guest, restart="always", start=False)
    os.rename(guest["firmware"], guest["firmware"] + ".away")
    status, answer = operate(supervisor, "gone", "start")
    check(status == 422 and supervisor.show("gone")["state"] == "failed",
          "what could never start is not tried again")
    os.rename(guest["firmware"] + ".away", guest["firmware"])
    operate(supervisor, "gone", "start")
    supervisor.wait_console("gone", "ready")
    os.rename(guest["firmware"], guest["firmware"] + ".away")
    supervisor.type("gone", b"q")
    partition = supervisor.wait_for("gone", lambda one: one["restarts"] >= 2, "it is tried again")
    check("echo.bin" in partition["last_end"]["why"], "what ran before is tried until it can")
    os.rename(guest["firmware"] + ".away", guest["firmware"])
    supervisor.wait_for("gone", "running", "it runs when it can")
    check(True, "and runs once it can")
    supervisor.wait_console("gone", "ready")
    os.rename(guest["firmware"], guest["firmware"] + ".away")
    supervisor.type("gone", b"q")
    supervisor.wait_for("gone", "restarting", "it waits to be started")
    supervisor.done("stop", "gone")
    check(supervisor.show("gone")["state"] in ("failed", "stopped"), "stop ends that, too")
    os.rename(guest["firmware"] + ".away", guest["firmware"])
    supervisor.call("DELETE", supervisor.path("gone"))


def editing(supervisor, guest):
    """Definitions are files that people may edit."""
    create(supervisor, "edited", guest, start=False)
    path = supervisor.state / "partitions" / "edited.json"
    definition = json.loads(path.read_text(encoding="utf-8"))
    check(definition["memory"] == "64M", "a definition is a JSON file")
    path.write_text(json.dumps({**definition, "memory": "32M"}), encoding="utf-8")
    supervisor.call("POST", supervisor.path("edited", "/start"))
    check(supervisor.show("edited")["memory_bytes"] == 32 << 20, "it is read at each start")
    supervisor.done("kill", "edited")
    for text, words in (("{", "edited.json"), ('{"memory": "64M"}', "kernel"),
                        (json.dumps({**definition, "sped": 1}), "sped"),
                        (json.dumps({**definition, "name": "other"}), "other")):
        path.write_text(text, encoding="utf-8")
        status, answer = operate(supervisor, "edited", "start")
        check(status == 400 and words in answer["error"], f"a wrong one: {answer['error']}")
    supervisor.restart()
    check(supervisor.show("edited") is None and "edited" in supervisor.text(),
          "a supervisor that starts passes over a wrong one, and says so")
    check(supervisor.api("POST", "/v1/partitions", {"name": "edited", **guest})[0] == 409,
          "but does not write over it")
    path.write_text(json.dumps(definition), encoding="utf-8")
    supervisor.restart()
    check(supervisor.show("edited")["memory_bytes"] == 64 << 20, "once it is right, it is there")


main(life)
