#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Interceptors of files, against a scanner that does what the test tells it to: which opens are held and which
are not, what is kept of verdicts, infected files, failures, and processes killed at any moment. (What Debian's
ClamAV in a guest says is leverage_files_clamav.py's.)"""

import errno
import json
import mmap
import os
import signal
import stat
import subprocess
import time

from lib.files import (PATIENCE, Case, Interceptor, Scanner, eicar, held_soon, need_fanotify, read, settled, start_read,
                       write)
from lib.harness import Failed, check, main
from lib.leverage import CLONE_NEWNS, unshare, wait_until


def marks(process):
    """What the groups of a process have marked, as lines of the kernel's."""
    found = []
    for entry in os.scandir(f"/proc/{process}/fdinfo"):
        with open(entry.path, encoding="ascii") as file:
            found += [line for line in file if line.startswith("fanotify ino") or line.startswith("fanotify sdev")]
    return found


def check_verdicts(test):
    """Clean, infected, kept verdicts, changes of a file in all ways that there are."""
    case = Case(test, "verdicts").active()
    path = case.path
    clean = write(path / "sub/deep/clean", b"clean")
    bad = write(path / "bad", b"...." + eicar())
    check(case.scanned(read, clean) == (b"clean", 1), "a clean file is scanned, and opened")
    check(case.scanned(read, clean) == (b"clean", 0), "and not scanned again")
    check(case.scanned(read, bad) == (errno.EPERM, 1), "an infected one is not opened: EPERM")
    found = case.it.wait(lambda: case.it.events and case.it.events.pop(), "there is an event")
    check(found["name"] == "infected" and found["path"] == str(bad) and found["uid"] == os.getuid()
          and found["signature"] == "Test.Eicar" and found["pid"] > 0, "the event says what, who, and where")
    check(case.scanned(read, write(path / "empty", b"")) == (b"", 0), "an empty file can be opened, and needs no scan")

    with open(clean, "ab") as file:
        file.write(eicar())
    check(read(clean) == errno.EPERM, "a file that has changed is scanned again")
    write(clean, b"clean")
    check(case.scanned(read, clean)[0] == b"clean" and case.scanned(read, clean)[1] == 0,
          "and again when it has been repaired")
    os.truncate(clean, 3)
    check(case.scanned(read, settled(clean)) == (b"cle", 1), "one that was truncated, too")
    os.utime(clean, (1, 1))
    check(case.scanned(read, settled(clean))[1] == 1, "and one whose times were set")

    # What was written within the same tick as the scan cannot be told by its times.
    fresh = path / "fresh"
    fresh.write_bytes(b"clean")
    check(read(fresh) == b"clean" and case.scanned(read, fresh)[1] in (0, 1), "a fresh file can be opened")
    check_mappings(case, path)
    check_names(case, path)
    check_programs(case, path)
    case.finish()


def check_mappings(case, path):
    """Who can write without being seen."""
    mapped = write(path / "mapped", b"." * 4096)
    read(mapped)
    check(case.scanned(read, mapped)[1] == 0, "a file is kept as clean")
    with open(mapped, "r+b") as file:
        memory = mmap.mmap(file.fileno(), 4096)
    memory[100] = 65
    check(case.scanned(read, mapped)[1] == 1, "it is not while somebody has a mapping of it to write to")
    memory[:len(eicar())] = eicar()
    check(read(mapped) == errno.EPERM, "so what comes through the mapping is found")
    memory[:1] = b"."
    memory.close()
    read(settled(mapped))
    check(case.scanned(read, mapped)[1] == 0,
          "when it is gone the file can be kept as clean again")

    held = write(path / "held", b"clean")
    writer = subprocess.Popen(["sh", "-c", f"exec 5<>{held}; echo; read -r line; printf '%s' \"$line\" >&5; echo; read line"],
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    writer.stdout.readline()
    read(held)
    check(case.scanned(read, held) == (b"clean", 1), "a file is scanned each time while somebody has it open for writing")
    writer.stdin.write(eicar().decode() + "\n")
    writer.stdin.flush()
    writer.stdout.readline()
    check(read(held) == errno.EPERM, "so what is written through an open that was allowed is found")
    writer.communicate("\n")


def check_names(case, path):
    """Renames, links, folders that come and go."""
    outside = case.outside
    bad = write(outside / "bad", eicar())
    check(case.scanned(read, bad) == (eicar(), 0), "outside of the path nothing is held")
    os.link(bad, path / "linked")
    check(read(path / "linked") == errno.EPERM, "an infected file that is linked into the path is found")
    check(read(bad) == eicar(), "but its name outside is not held")
    os.rename(bad, path / "renamed")
    check(read(path / "renamed") == errno.EPERM, "one that is renamed into the path is found")
    os.rename(path / "renamed", bad)
    check(case.scanned(read, bad) == (eicar(), 0), "and not held any more when it has gone")

    folder = outside / "folder" / "deep"
    folder.mkdir(parents=True)
    write(folder / "bad", eicar())
    os.rename(outside / "folder", path / "folder")
    held_soon(path / "folder/deep/bad", "folders that are moved into the path are part of it")
    os.rename(path / "folder", outside / "folder")
    wait_until(lambda: read(folder / "bad") == eicar(), "a folder is not held")
    check(case.scanned(read, folder / "bad") == (eicar(), 0), "and those that are moved out of it are not any more")
    (path / "new").mkdir()
    held_soon(write(path / "new" / "bad", eicar()), "new folders are part of it")
    os.symlink(outside / "bad", path / "link")
    check(read(path / "link") == eicar(), "what a symbolic link leads to outside is not")
    os.symlink(path / "new" / "bad", outside / "link")
    check(read(outside / "link") == errno.EPERM, "and what one from outside leads to is")


def check_programs(case, path):
    """What is executed."""
    def execute(name, text):
        program = path / name
        program.write_bytes(text)
        program.chmod(0o755)
        settled(program)
        try:
            return subprocess.run([program], check=False, capture_output=True, timeout=PATIENCE).returncode
        except OSError as error:
            return -error.errno

    with open("/bin/true", "rb") as file:
        true = file.read()
    check(execute("script", b"#!/bin/sh\nexit 3\n") == 3, "a clean script can be executed")
    check(execute("bad-script", b"#!/bin/sh\nexit 3\n#" + eicar()) == -errno.EPERM, "an infected one cannot")
    check(execute("program", true) == 0, "a clean program can be executed")
    check(execute("bad-program", true + eicar()) == -errno.EPERM, "an infected one cannot")


def check_quarantine(test):
    """Where infected files go."""
    kept = test.folder / "quarantine" / "kept"
    case = Case(test, "quarantine", infected="quarantine", quarantine=str(kept)).active()
    bad = write(case.path / "bad", eicar())
    os.chown(bad, 1000, 1000)
    os.link(bad, case.outside / "other")
    settled(bad)
    check(read(bad) == errno.EPERM and not bad.exists(), "an infected file is moved to the quarantine")
    event = case.it.wait(lambda: case.it.events and case.it.events.pop(), "there is an event")
    file = kept / event["quarantine"]
    note = json.loads((kept / (event["quarantine"] + ".json")).read_text(encoding="utf-8"))
    check(file.read_bytes() == eicar() and stat.S_IMODE(file.stat().st_mode) == 0, "its content is there, its mode is 0")
    check(all((one.stat().st_uid, one.stat().st_gid, stat.S_IMODE(one.stat().st_mode)) == (0, 0, 0)
              for one in (file, case.outside / "other")), "nobody but root can read it there, or by its other names")
    check(note["owner"] == 1000 and note["path"] == str(bad) and note["signature"] == "Test.Eicar" and note["mode"] == 0o644,
          "and what is known of it beside it")
    check(stat.S_IMODE(kept.stat().st_mode) == 0o700, "the folder is its owner's alone")

    # Who can rename can swap folders while the file is scanned.
    victim = case.outside / "victim"
    victim.mkdir()
    write(victim / "bad", b"precious")
    (case.path / "trap").mkdir()
    wait_until(lambda: read(write(case.path / "trap" / "first", eicar())) == errno.EPERM, "the folder is held")
    write(case.path / "trap" / "bad", eicar())
    case.scanner.mute = True
    finish = start_read(case.path / "trap" / "bad")
    case.held(1)
    os.rename(case.path / "trap", case.path / "away")
    os.symlink(victim, case.path / "trap")
    case.scanner.mute = False
    check(finish() == errno.EPERM and (victim / "bad").read_bytes() == b"precious",
          "no link leads the quarantine to another file")
    case.finish()

    other = "/dev/shm"
    if os.stat(other).st_dev == os.stat(test.folder).st_dev:
        return
    far = os.path.join(other, test.folder.name)
    case = Case(test, "far", infected="quarantine", quarantine=far).active()
    try:
        bad = write(case.path / "bad", eicar())
        check(read(bad) == errno.EPERM and not bad.exists(), "a quarantine may be on another file system")
        event = case.it.wait(lambda: case.it.events and case.it.events.pop(), "there is an event")
        with open(os.path.join(far, event["quarantine"]), "rb") as copy:
            about = os.fstat(copy.fileno())
            check(copy.read() == eicar() and (about.st_uid, stat.S_IMODE(about.st_mode)) == (0, 0),
                  "the copy is whole, and root's alone")
        case.finish()
    finally:
        subprocess.run(["rm", "-rf", far], check=True)


def check_policy(test):
    """What becomes of opens while nobody scans, or takes too long, or dies."""
    for fail, expected in (("closed", errno.EPERM), ("open", eicar())):
        case = Case(test, f"policy-{fail}", fail=fail, **{"time-limit": "10s", "size-limit": "1M"}).active()
        bad = write(case.path / "bad", eicar())
        check(read(bad) == errno.EPERM, f"fail {fail}: an infected file is not opened")
        large = write(case.path / "large", eicar() + bytes(2 << 20))
        check((read(large) == errno.EPERM) == (fail == "closed"), f"fail {fail}: what is too large goes by that")

        case.scanner.mute = True
        began = time.monotonic()
        check(read(bad) == expected and time.monotonic() - began > 9.9, f"fail {fail}: so does what takes too long")
        check(case.it.stats()["timed_out"] == 1, "and is counted")
        case.scanner.mute = False

        case.scanner.mute = True
        finish = start_read(bad)
        case.held(1)
        case.scanner.die()
        check(finish() == expected, f"fail {fail}: so does what is being scanned when the scanner dies")
        case.scanner.mute = False
        case.it.wait_state("shut" if fail == "closed" else "bypassed")
        check(read(bad) == expected, f"fail {fail}: and what comes then")
        case.scanner.come()
        case.it.wait_state("active")
        check(read(bad) == errno.EPERM, "when the scanner is back files are scanned again")
        case.it.view(0, state="down")
        case.it.wait_state("shut" if fail == "closed" else "bypassed")
        check(read(bad) == expected, f"fail {fail}: the same when its partition is down")
        case.finish()

    case = Case(test, "observe", verdict="observe").active()
    bad = write(case.path / "bad", eicar())
    check(read(bad) == eicar(), "an observer holds nothing")
    case.it.wait(lambda: case.it.events, "and tells of what it finds")
    case.finish()


def check_chain(test):
    """Several scanners."""
    case = Case(test, "chain", scanners=2).active()
    first, second = case.scanners
    second.extra = b"only the second knows"
    clean, other, bad = (write(case.path / name, text) for name, text in
                         (("clean", b"clean"), ("other", b"what only the second knows"), ("bad", eicar())))
    check(read(clean) == b"clean" and (first.scans, second.scans) == (1, 1), "each scanner sees a clean file")
    check(read(other) == errno.EPERM, "each can find something")
    scans = second.scans
    check(read(bad) == errno.EPERM and second.scans == scans, "the first that does decides")
    second.die()
    case.it.wait_state("shut")
    check(read(write(case.path / "next", b"clean")) == errno.EPERM, "without one of them nobody can say that a file is clean")
    case.finish()


def check_signatures(test):
    """What the user gives the scanner."""
    given = test.folder / "signatures.tar"
    given.write_bytes(b"first" * 100000)
    folder = test.folder / "given"
    folder.mkdir()
    scanner = Scanner(folder / "vsock")
    scanner.config = given
    (folder / "path").mkdir()
    it = Interceptor(test, {"path": str(folder / "path")}, [scanner])
    it.wait_state("active")
    check(scanner.configured == [b"first" * 100000], "the scanner gets the user's signatures")
    clean = write(folder / "path" / "clean", b"not known yet")
    read(clean)
    scans = scanner.scans
    check(read(clean) == b"not known yet" and scanner.scans == scans, "a file is kept as clean")
    scanner.extra = b"not known yet"
    given.write_bytes(b"second")
    it.ask("reload")
    it.wait(lambda: len(scanner.configured) == 2, "it gets others")
    it.wait(lambda: read(clean) == errno.EPERM, "what was clean is scanned with those")
    check(scanner.configured[1] == b"second", "on a reload it gets those that there are then")
    scanner.refuse = "no"
    given.write_bytes(b"third")
    for count in (1, 2):
        it.ask("reload")
        it.wait(lambda: [event["name"] for event in it.events].count("not-reloaded") == count, "an event tells")
    told = [event for event in it.events if event["name"] == "not-reloaded"][0]
    check(it.state == "active" and read(clean) == errno.EPERM, "those that it refuses change nothing")
    check(told["partition"] == "p0" and told["why"] in it.why, f"events say so, one for each reload: {told}")
    it.remove()


def check_many(test):
    """Many at once, and the supervisor's own opens."""
    case = Case(test, "many").active()
    files = [write(case.path / f"file{i}", eicar() if i % 10 == 0 else b"%d" % i) for i in range(100)]
    readers = [(start_read(file), i) for i, file in enumerate(files)]
    wrong = [i for finish, i in readers if finish() != (errno.EPERM if i % 10 == 0 else b"%d" % i)]
    check(not wrong, f"100 processes open 100 files at once: {len(wrong)} are answered wrongly")
    one = write(case.path / "one", b"one")
    case.scanner.slow = 0.3
    value, scans = case.scanned(lambda: {finish() for finish in [start_read(one) for _ in range(100)]})
    check(value == {b"one"} and scans <= 3, f"100 processes open the same file at once: it is scanned {scans} times")
    case.scanner.slow, case.scanner.mute = 0, True
    bad = write(case.path / "bad", eicar())
    blocked = [start_read(bad) for _ in range(20)]
    case.held(20)
    with open(bad, "rb") as file:
        check(file.read() == eicar() and case.it.stats()["waiting"] == 20, "the supervisor waits for nobody, others do")
    case.scanner.mute = False
    check({finish() for finish in blocked} == {errno.EPERM}, "and get their answer")
    case.finish()


def check_crashes(test):
    """The process is killed; another takes over what it had begun."""
    case = Case(test, "crashes", **{"time-limit": "30s"}).active()
    bad, clean = write(case.path / "bad", eicar()), write(case.path / "clean", b"clean")
    case.scanner.mute = True
    waiting = [(start_read(bad), errno.EPERM) for _ in range(10)] + [(start_read(clean), b"clean") for _ in range(10)]
    case.held(20)
    case.it.kill()
    late = [(start_read(bad), errno.EPERM), (start_read(clean), b"clean")]
    time.sleep(0.5)
    case.scanner.mute = False
    case.it.start()
    wrong = [(expected, said) for finish, expected in waiting + late if (said := finish()) != expected]
    check(not wrong, f"after a kill, what waited and what came meanwhile is scanned and answered by another process: {wrong}")
    case.it.wait_state("active")
    write(case.path / "sub" / "bad", eicar())
    check(read(case.path / "sub" / "bad") == errno.EPERM, "which goes on with the marks")
    for _ in range(5):
        readers = [(start_read(bad), errno.EPERM), (start_read(clean), b"clean")]
        case.it.kill()
        case.it.start()
        wrong += [expected for finish, expected in readers if finish() != expected]
    check(not wrong, "so it is when it is killed again and again, at any moment")

    # The supervisor itself may be waiting when nobody is there to answer.
    case.it.wait_state("active")
    time.sleep(0.5)
    case.it.kill()
    began = time.monotonic()
    with open(bad, "rb"):
        check(time.monotonic() - began < 30, "without any process, the supervisor's own opens are let go")
    check(read(clean) == errno.EPERM, "and others are not (closed)")
    case.it.start()
    case.it.wait_state("active")
    check(read(clean) == b"clean", "until another has come")
    check(marks(case.it.process.pid), "there are marks")
    kept = dict(case.it.kept)
    case.it.remove()
    check(kept and read(bad) == eicar() and read(clean) == b"clean", "after a removal nothing is held")

    case = Case(test, "removal", **{"time-limit": "30s"}).active()
    bad = write(case.path / "bad", eicar())
    case.scanner.mute = True
    waiting = [start_read(bad) for _ in range(10)]
    case.held(10)
    own = marks(case.it.process.pid)
    case.it.ask("remove")
    check({finish() for finish in waiting} == {errno.EPERM}, "a removal answers all that wait (closed)")
    check(own and not marks(os.getpid()), "and leaves no marks, though the groups are still there")
    case.it.stop()


class Couple:
    """An interceptor and a supervisor, both of which can be killed at once: the supervisor is a process of its own."""

    def __init__(self, test, folder, definition, scanner):
        ours, theirs = os.pipe()
        self.supervisor = os.fork()
        if self.supervisor == 0:
            try:
                one = Interceptor(test, definition, [scanner], folder / "socket")
                one.wait_state("active")
                os.write(theirs, b"%d" % one.process.pid)
                signal.pause()
            finally:
                os._exit(1)  # pylint: disable=protected-access
        os.close(theirs)
        said = os.read(ours, 16)
        os.close(ours)
        if not said:
            raise Failed("no interceptor under a supervisor of its own")
        self.worker = int(said)
        self.guard = wait_until(self.find_guard, "there is a guard")

    def find_guard(self):
        """The worker's child that has got as far as to call itself a guard; None: there is none yet."""
        for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
            said = status(pid)
            if said.get("Name") == "strake-guard" and said["PPid"] == str(self.worker):
                return pid
        return None

    def kill(self):
        """Kills both."""
        os.kill(self.supervisor, signal.SIGSTOP)  # else it could see the other's end
        os.kill(self.worker, signal.SIGKILL)
        os.kill(self.supervisor, signal.SIGKILL)
        os.waitpid(self.supervisor, 0)

    def guarded(self):
        """Whether the guard is there."""
        return status(self.guard).get("Name") == "strake-guard" and status(self.guard)["State"][0] != "Z"


def status(process):
    """What the kernel says of a process."""
    try:
        with open(f"/proc/{process}/status", encoding="utf-8", errors="replace") as file:
            return dict((part.strip() for part in line.split(":", 1)) for line in file)
    except OSError:
        return {}


def check_all_killed(test):
    """Supervisor and interceptor are killed in one moment."""
    folder = test.folder / "all-killed"
    path, other = folder / "path", folder / "other"
    path.mkdir(parents=True)
    other.mkdir()
    scanner = Scanner(folder / "vsock")
    bad, clean = write(path / "bad", eicar()), write(path / "clean", b"clean")
    closed = {"path": str(path), "time-limit": "60s", "fail": "closed"}
    couple = Couple(test, folder, {**closed, "fail": "open"}, scanner)
    couple.kill()
    check(read(bad) == eicar(), "when all processes are killed the path is open (open)")
    wait_until(lambda: not couple.guarded(), "the guard has ended")

    couple = Couple(test, folder, closed, scanner)
    try:
        couple.kill()
        check(read(bad) == errno.EPERM and read(clean) == errno.EPERM, "and it is shut (closed)")
        time.sleep(1)
        check(read(clean) == errno.EPERM and couple.guarded(), "for as long as nobody comes")
        it = Interceptor(test, closed, [scanner], folder / "socket")
        it.wait_state("active")
        check(read(clean) == b"clean" and read(bad) == errno.EPERM, "the next supervisor's process takes over")
        wait_until(lambda: not couple.guarded(), "then the guard has ended")
        it.remove()
        check(read(bad) == eicar() and sorted(os.listdir(folder)) == ["other", "path", "socket", "vsock"],
              "after a removal nothing is left")

        couple = Couple(test, folder, closed, scanner)
        scanner.mute = True
        waiting = [start_read(bad), start_read(clean)]
        time.sleep(0.5)
        couple.kill()
        waiting += [start_read(bad), start_read(clean)]
        it = Interceptor(test, closed, [scanner], folder / "socket")
        scanner.mute = False
        said = [finish() for finish in waiting]
        check(said[0::2] == [errno.EPERM] * 2 and set(said[1::2]) <= {b"clean", errno.EPERM},
              f"what waited is scanned by the one that comes at once, or refused when it came late: {said}")
        it.remove()

        couple = Couple(test, folder, closed, scanner)
        couple.kill()
        it = Interceptor(test, {**closed, "path": str(other)}, [scanner], folder / "socket")
        wait_until(lambda: not couple.guarded(), "a successor for another path lets go of the former")
        check(read(bad) == eicar(), "which is not held any more")
        it.remove()
    finally:
        if couple.guarded():
            os.kill(couple.guard, signal.SIGKILL)


def check_whole(test):
    """A path that is a file system of its own: all of it is held, from the first moment that a folder is there."""
    folder = test.folder / "whole" / "path"
    folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "none", folder], check=True)
    try:
        case = Case(test, "whole").active()
        (case.path / "new").mkdir()
        bad = case.path / "new" / "bad"
        bad.write_bytes(eicar())
        check(read(bad) == errno.EPERM, "in a file system of its own a new folder is held at once")
        os.rename(case.path / "new", case.path / "other")
        check(read(case.path / "other" / "bad") == errno.EPERM, "and one that was renamed")
        clean = write(case.path / "sub/clean", b"clean")
        check(read(clean) == b"clean" and case.scanned(read, clean) == (b"clean", 0), "clean files are kept there, too")
        case.it.kill()
        late = start_read(case.path / "other" / "bad")
        case.it.start()
        check(late() == errno.EPERM, "and its opens wait for a successor")
        case.it.wait_state("active")
        case.finish()
        check(read(case.path / "other" / "bad") == eicar(), "after the removal nothing is held")
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def check_refusals(test):
    """What cannot be held."""
    scanner = Scanner(test.folder / "refusals")
    for path, why in (("/usr", "strake itself needs"), (str(test.folder / "none"), "No such file"),
                      ("/", "strake itself needs"), ("/proc", "the kernel's own"), ("/proc/self/net", "the kernel's own"),
                      ("/sys", "the kernel's own")):
        try:
            Interceptor(test, {"path": path}, [scanner])
            raise AssertionError(path)
        except Failed as failure:
            check(why in str(failure), f"{path}: {failure}")
    (test.folder / "self").mkdir()
    try:
        Interceptor(test, {"path": str(test.folder / "self"), "infected": "quarantine",
                           "quarantine": str(test.folder / "self" / "q")}, [scanner])
        raise AssertionError("quarantine")
    except Failed as failure:
        check("below the path" in str(failure), f"a quarantine below the path: {failure}")


def run(test):
    """All of it."""
    need_fanotify()
    unshare(CLONE_NEWNS)
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    check_verdicts(test)
    check_quarantine(test)
    check_policy(test)
    check_chain(test)
    check_signatures(test)
    check_many(test)
    check_crashes(test)
    check_all_killed(test)
    check_whole(test)
    check_refusals(test)


main(run)
