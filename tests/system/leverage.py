#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Interceptors and their supervisor: definitions that are kept, the API and the subcommand, refusals, and
what goes on when anything of it is killed: the interceptor's process, the supervisor, both, the partition's
monitor; over handovers, and as the supervisor goes on as another program.

The kind is one made for this test (leverage_kind.c): in its folder it leaves a mark, which it removes when it
is removed, and a file that is locked for as long as anybody has its lifeline."""

import fcntl
import json
import os
import random
import signal
import threading
import time
from pathlib import Path

from lib.daemon import create, echo_guest, events_of
from lib.harness import check, main, need
from lib.leverage import Host, check_same, configuration, enter_host, wait_until, words_of

ROUNDS = 8  # of a supervisor that is killed at any moment


def leverage(test):
    need(os.environ.get("STRAKE_WITH_KIND", "(STRAKE_WITH_KIND)"))
    os.environ["STRAKE"] = os.environ["STRAKE_WITH_KIND"]
    enter_host()
    before = configuration()
    host = Host(test)
    guest = echo_guest(test)
    create(host, "fw", guest)
    folder = test.folder / "marked"
    folder.mkdir()
    subcommand(host, folder)
    refusals(host, folder)
    lost_processes(host, folder)
    partitions(host, folder)
    supervisors(host, folder)
    reexecution(host)
    versions(host, folder)
    snapshots(test, host)
    removal(host, folder)
    any_moment(host, folder)
    broken_definition(host)
    host.stop()
    check_same(before, "nothing of the host's configuration has changed")


def alive(pid):
    """Whether there is such a process, and it is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def is_held(folder):
    """Whether anybody has a lifeline."""
    with open(folder / "lifeline", "ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def workers(host):
    """Processes of interceptors."""
    found = []
    for pid in host.marked():
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if words[1:2] == [b"interceptor"]:
            found.append(pid)
    return found


def add(host, folder, name="wall", **more):
    """Adds an interceptor."""
    return host.intercept("files", name, **{"module": ["fw"], "path": str(folder), "fail": "closed",
                                            **more})


def subcommand(host, folder):
    """All of its life by strake leverage, as people and programs see it."""
    stream = events_of(host.follow("/v1/events"))
    told = host.done("leverage", "add", "files", "wall", "--module", "fw,config=rules", "--path", "marked",
                     "--fail", "closed", cwd=folder.parent)
    warning = 'partition "fw" has no vsock device to speak with its guest by, which it gets when it is started again'
    check(told == f"wall: active: {warning}\n", "one that is added says how it is, and what has to be done")
    definition = json.loads((host.state / "interceptors/wall.json").read_text(encoding="utf-8"))
    check(definition == {"kind": "files", "name": "wall", "path": str(folder), "fail": "closed",
                         "module": [f"fw,run=clamav,config={folder.parent}/rules"]},
          "its definition is kept, with absolute paths")
    table = host.done("leverage", "list")
    rows = words_of(table)
    check(rows[0][:6] == ["NAME", "KIND", "STATE", "OF", "MODULES", "FAIL"] and
          rows[1][:6] == ["wall", "files", "active", str(folder), "fw", "closed"], "it is listed")
    check(all(len(line) + len("/srv/uploads") - len(str(folder)) <= 80 for line in table.splitlines()),
          "in 80 columns, but for the length of its path")
    check(host.done("leverage", "list", "--quiet") == "wall\n", "and by name only")
    shown = json.loads(host.done("leverage", "show", "wall", "--json"))
    check(shown["pid"] in workers(host) and shown["restarts"] == 0, "it has a process")
    check(shown["warning"] == warning and f"warning: {warning}\n" in host.done("leverage", "show", "wall"),
          "it is shown, with the warning")
    counters = json.loads(host.done("leverage", "stats", "wall", "--json"))
    check(counters["seen"] == 1 and counters["latency"]["count"] == 1 and counters["kept"] == 0,
          "it has counted")
    check("seen: 1\n" in host.done("leverage", "stats", "wall"), "for people, too")
    metrics = host.call("GET", "/metrics").decode()
    check('strake_interceptor_seen_total{interceptor="wall"} 1\n' in metrics and
          'strake_interceptors{state="active"} 1\n' in metrics, "and for Prometheus")
    host.done("leverage", "reload", "wall")
    host.done("leverage", "remove", "wall")
    check(host.interceptor("wall") is None and not workers(host), "it is removed, with its process")
    check("wall: active" in host.done("leverage", "add", "--from", "-", input=json.dumps(definition)),
          "a definition is taken as it was kept")
    host.done("leverage", "remove", "wall")
    for text, words in (("[]", "not a JSON object"), ('{"name": "wall"}', "needs a kind")):
        result = host.strake("leverage", "add", "--from", "-", input=text)
        check(result.returncode == 1 and words in result.stderr, f"or refused: {result.stderr.strip()}")
    check(not (folder / "mark").exists(), "and what it did")
    check(not is_held(folder), "the partition's monitor has let go of its lifeline")
    check(not (host.state / "interceptors/wall.json").exists(), "and its definition is gone")
    check(not list((host.state / "run/.interceptors").iterdir()), "nothing is left where it was found")
    wanted = ["interceptor-state active", "interceptor-added", "interceptor-reloaded",
              "interceptor-state removing", "interceptor-removed"]
    for _, event in stream:
        if event["event"].startswith("interceptor-") and wanted:
            what = " ".join(filter(None, (event["event"], event.get("state"))))
            check(what == wanted[0] and event["name"] == "wall" and event["kind"] == "files",
                  f"an event tells: {what}")
            wanted.pop(0)
        if not wanted:
            break


def refusals(host, folder):
    """What is refused, in which words; and that nothing is left of it."""
    good = {"kind": "files", "name": "wall", "module": ["fw"], "path": str(folder), "fail": "open"}
    add(host, folder, "there")
    table = [
        ({"name": "there"}, 409, 'there is an interceptor "there" already'),
        ({"name": "../x"}, 400, "name"),
        ({"name": "x" * 41}, 400, "name"),
        ({"kind": "nonsense"}, 400, "net, files, mount"),
        ({"kind": "mount"}, 400, "has no"),
        ({"fail": None}, 400, '"fail"'),
        ({"module": []}, 400, "needs a module"),
        ({"module": ["nobody"]}, 400, 'there is no partition "nobody"'),
        ({"module": ["fw,nonsense=1"]}, 400, "nonsense"),
        ({"path": "relative"}, 400, "not an absolute path"),
        ({"path": "/nowhere/at/all"}, 400, 'cannot add interceptor "wall": cannot mark'),
        ({"nonsense": 1}, 400, '"nonsense"'),
    ]
    for change, status, words in table:
        got, answer = host.api("POST", "/v1/interceptors", {**good, **change})
        check(got == status and words in answer["error"], f"{change}: {got} {answer['error']}")
    del good["fail"]
    got, answer = host.api("POST", "/v1/interceptors", good)
    check(got == 400 and "--fail open or --fail closed" in answer["error"], answer["error"])
    check(host.interceptor("wall") is None and len(workers(host)) == 1 and
          [path.name for path in (host.state / "interceptors").iterdir()] == ["there.json"],
          "nothing is left of what was refused")
    for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/stats"), ("POST", "/reload")):
        got, answer = host.api(method, f"/v1/interceptors/nobody{path}", {} if method == "POST" else None)
        check(got == 404 and 'there is no interceptor "nobody"' in answer["error"],
              f"{method} {path} of nobody is 404")
    host.call("POST", host.path("fw", "/kill"))
    add_late(host, folder)
    result = host.strake("remove", "fw")
    check(result.returncode == 1 and 'interceptor "there" has a module in it' in result.stderr,
          f"a partition that one names stays: {result.stderr.strip()}")
    host.wait_state("there", "shut")
    host.give_up("there")
    host.call("POST", host.path("fw", "/start"))


def add_late(host, folder):
    """One whose partition does not run (yet)."""
    words = ["leverage", "add", "files", "late", "--module", "fw", "--path", folder, "--fail", "open"]
    result = host.strake(*words, "--wait", "6")
    check(result.returncode == 1 and 'interceptor "late" is bypassed after 6 s: partition "fw" does not run' in
          result.stderr, f"who waits is told: {result.stderr.strip()}")
    check("latency: nothing was measured yet\n" in host.done("leverage", "stats", "late"), "and that nothing was measured yet")
    host.give_up("late")
    threading.Timer(1, lambda: host.call("POST", host.path("fw", "/start"))).start()
    check(host.done(*words, "--wait", "100") == "late: active\n", "or that it is active at last")
    host.give_up("late")
    host.call("POST", host.path("fw", "/kill"))


def lost_processes(host, folder):
    """The interceptor's process dies: its successor takes over, and meanwhile the monitor holds on."""
    add(host, folder)
    stream = events_of(host.follow("/v1/events"))
    for round_ in (1, 2, 3):
        lost = host.worker("wall")
        os.kill(lost, signal.SIGKILL)
        wait_until(lambda lost=lost, round_=round_: (host.interceptor("wall")["restarts"] == round_ and
                                                     host.worker("wall") not in (lost, None)),
                   "another process takes over")
        check(is_held(folder), "the lifeline is held")
        check(host.wait_state("wall", "active")["restarts"] == round_, f"it is active again ({round_})")
    check(host.counters("wall")["kept"] == 1, "its successor has what was kept for it")
    why = next(event["why"] for _, event in stream if event["event"] == "interceptor-restarting")
    check("SIGKILL" in why, f"an event tells why: {why}")
    host.give_up("wall")
    check(not workers(host) and not is_held(folder), "it can be removed as ever")


def partitions(host, folder):
    """The partition ends, is killed, is handed over."""
    add(host, folder)
    add(host, folder, "window", fail="open")
    host.call("POST", host.path("fw", "/kill"))
    check(host.wait_state("wall", "shut")["why"] == 'partition "fw" does not run',
          "a partition that is killed shuts what is closed")
    host.wait_state("window", "bypassed")
    host.give_up("window")
    host.call("POST", host.path("fw", "/start"))
    host.wait_state("wall", "active")
    check("vsock" in host.show("fw")["name"] or
          "vsock" in host.call("GET", host.path("fw"))["definition"], "the partition has a vsock device")
    os.kill(host.monitor("fw"), signal.SIGKILL)
    host.wait_state("wall", "shut")
    host.call("POST", host.path("fw", "/start"))
    host.wait_state("wall", "active")
    seen, pid = host.counters("wall")["seen"], host.worker("wall")
    for _ in range(3):
        host.done("handover", "fw")
    check(host.counters("wall")["seen"] == seen and host.worker("wall") == pid,
          "handovers are nothing to it")
    os.kill(pid, signal.SIGKILL)  # what it had held is held by the third monitor
    wait_until(lambda: not alive(pid), "it has died")
    check(is_held(folder), "the new monitor has its lifeline")
    host.wait_state("wall", "active")


def supervisors(host, folder):
    """The supervisor is killed, or ends; alone, or with all the rest."""
    for number in (signal.SIGKILL, signal.SIGTERM):
        pid = host.worker("wall")
        seen = host.counters("wall")["seen"]
        host.end(number)
        check(alive(pid) and is_held(folder), f"it goes on without a supervisor ({number.name})")
        host.start()
        check(host.wait_state("wall", "active")["pid"] == pid, "the next one finds it")
        check(host.counters("wall")["seen"] <= seen + 1, "and tells it nothing that it knows")
    pid = host.worker("wall")
    host.end(signal.SIGKILL)
    os.kill(pid, signal.SIGKILL)
    check(is_held(folder), "with supervisor and process gone, the monitor holds on")
    host.start()
    check(host.wait_state("wall", "active")["pid"] != pid, "the next supervisor starts another process")
    monitor, pid = host.monitor("fw"), host.worker("wall")
    host.end(signal.SIGKILL)
    os.kill(monitor, signal.SIGKILL)
    check(alive(pid), "it stays while its partition goes, too")
    host.start()
    check(host.wait_state("wall", "shut")["pid"] == pid, "and is told by the next supervisor")
    host.end(signal.SIGKILL)
    host.stop()
    wait_until(lambda: not is_held(folder), "when all are killed, nobody has the lifeline")
    host.start()
    check(host.wait_state("wall", "shut")["definition"]["fail"] == "closed",
          "after a start from nothing it is there by its definition")
    host.call("POST", host.path("fw", "/start"))
    host.wait_state("wall", "active")
    check(is_held(folder), "and active when its partition is there")


def reexecution(host):
    """The supervisor goes on as another program."""
    pid = host.worker("wall")
    host.done("handover", "--all", "--supervisor", "--binary", os.environ["STRAKE"])
    check(host.wait_state("wall", "active")["pid"] == pid, "a supervisor that executes a program finds it")
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: host.worker("wall") not in (pid, None), "it is started again")
    host.wait_state("wall", "active")
    wait_until(lambda: not Path(f"/proc/{pid}").exists(), "and waited for")
    check(True, "what an earlier program of it started is waited for")


def snapshots(test, host):
    """A partition that an interceptor names, in another place: with the device that was chosen for it, and
    without what its monitor holds."""
    host.call("POST", host.path("fw", "/snapshot"), {"path": str(test.folder / "snapshot")})
    copy = host.call("POST", "/v1/restore", {"path": str(test.folder / "snapshot"), "changes": {"name": "copy"}})
    check(copy["state"] == "running", "a copy from a snapshot runs")
    held = [os.readlink(link) for link in Path(f"/proc/{copy['pid']}/fd").iterdir()]
    check(not any(path.endswith("/lifeline") for path in held), "and holds nothing for an interceptor")
    check(host.interceptor("wall")["state"] == "active", "which does not notice")
    host.call("POST", host.path("copy", "/kill"))
    host.call("POST", host.path("copy", "/start"))
    check("vsock" not in host.call("GET", host.path("copy"))["definition"],
          "started anew, it is by its own definition")
    host.call("POST", host.path("copy", "/kill"))
    host.done("remove", "copy")


def versions(host, folder):
    """An update, and back: a process of the supervisor's version takes over."""
    for binary in (os.environ["STRAKE_NEXT_WITH_KIND"], os.environ["STRAKE"]):
        pid = host.worker("wall")
        host.done("handover", "--all", "--supervisor", "--binary", binary)
        wait_until(lambda pid=pid: host.worker("wall") not in (pid, None), "one of another version is replaced")
        held = is_held(folder)
        host.wait_state("wall", "active")
        check(held and host.interceptor("wall")["restarts"] == 0, f"{Path(binary).name} takes over")
        wait_until(lambda pid=pid: not Path(f"/proc/{pid}").exists(), "its predecessor is waited for")


def removal(host, folder):
    """While its process is away, and while its partition is handed over."""
    pid = host.worker("wall")
    os.kill(pid, signal.SIGSTOP)
    status, answer = host.api("GET", "/v1/interceptors/wall/stats")
    check(status == 504, f"one that does not answer is told: {answer['error']}")
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: host.worker("wall") not in (pid, None), "it is started again")
    host.wait_state("wall", "active")
    host.give_up("wall")
    check(not workers(host) and not (folder / "mark").exists() and not is_held(folder),
          "nothing is left when it is removed")


def any_moment(host, folder):
    """A supervisor that is killed while interceptors are added and removed: what is there is whole."""
    dice = random.Random(7)
    for _ in range(ROUNDS):
        wanted = host.interceptor("wall") is None
        pid = os.fork()
        if pid == 0:
            try:
                add(host, folder) if wanted else host.give_up("wall")  # pylint: disable=expression-not-assigned
            finally:
                os._exit(0)
        time.sleep(dice.random() * 0.03)
        host.end(signal.SIGKILL)
        os.waitpid(pid, 0)
        host.start()
        # What was being removed is removed by the next one.
        wait_until(lambda: (host.interceptor("wall") or {"state": "active"})["state"] == "active",
                   "it is active, or gone")
        if host.interceptor("wall"):
            check(len(workers(host)) == 1 and (folder / "mark").exists() and is_held(folder),
                  "after a kill it is there, and whole")
        else:
            wait_until(lambda: not workers(host), "no process is left")
            check(not (folder / "mark").exists() and not is_held(folder),
                  "after a kill it is not there, and nothing of it")
    if host.interceptor("wall"):
        host.give_up("wall")


def broken_definition(host):
    """A definition that somebody has spoilt is passed over, and not written over."""
    path = host.state / "interceptors/spoilt.json"
    path.write_text("{", encoding="ascii")
    host.restart()
    check("spoilt.json" in host.text(), "a definition that cannot be read is logged")
    status, answer = host.api("POST", "/v1/interceptors", {"kind": "files", "name": "spoilt", "path": "/",
                                                           "module": "fw", "fail": "open"})
    check(status == 409 and path.read_text(encoding="ascii") == "{", f"and stays: {answer['error']}")


main(leverage)
