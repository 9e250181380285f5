#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Interceptors of files where things are not as they mostly are: files that change while they are scanned, what is
no regular file, other file systems and mounts below the path, sizes, folders by the thousand, a quarantine that is
full."""

import errno
import os
import random
import shutil
import signal
import socket
import subprocess
import time

import lib.files
from lib.files import (PATIENCE, Case, Interceptor, Scanner, eicar, held_soon, need_fanotify, read, settled, start_read,
                       write)
from lib.harness import Failed, check, main
from lib.leverage import CLONE_NEWNS, unshare, wait_until

FOLDERS = 3000
MORE_FOLDERS = 17000  # than the kernel queues events of
DEEP = 700


def tool(*words):
    """Runs a program."""
    subprocess.run([str(word) for word in words], check=True, stdout=subprocess.DEVNULL)


def check_changes(test):
    """Files that change while they are scanned, or are other files by then. This process is the supervisor, whom
    nobody holds up: as somebody who has had the file open since before would."""
    case = Case(test, "changes").active()
    path, scanner = case.path, case.scanner

    def during(name, change):
        scans, scanner.mute = scanner.scans, True
        finish = start_read(path / name)
        wait_until(lambda: scanner.scans > scans, "the scanner has the file")
        change(path / name)
        scanner.mute = False
        return finish()

    write(path / "written", b"clean")
    check(during("written", lambda file: file.write_bytes(eicar())) == errno.EPERM,
          "a file that was written to during its scan is scanned again before it is opened")
    write(path / "truncated", b"clean" * 1000)
    check(during("truncated", lambda file: os.truncate(file, 3)) == b"cle", "so is one that was truncated")
    write(path / "removed", b"clean")
    write(path / "removed-bad", eicar())
    check(during("removed", os.unlink) == b"clean" and during("removed-bad", os.unlink) == errno.EPERM,
          "one that was removed is judged by what it has")
    write(path / "changed", b"clean")
    with open(path / "changed", "r+b", buffering=0) as writer:
        value = during("changed", lambda file: writer.write(b"other"))
        check(value == b"other", "a file that somebody goes on writing to is opened after one scan")

    clean, bad = write(path / "clean", b"clean"), write(path / "next", eicar())
    check(read(clean) == b"clean" and case.scanned(read, clean)[1] == 0, "a file is kept as clean")
    os.rename(bad, clean)
    check(read(clean) == errno.EPERM, "a file that was renamed over it is another")
    other = write(case.outside / "other", b"clean")
    os.link(other, path / "link")
    read(settled(path / "link"))
    check(case.scanned(read, path / "link") == (b"clean", 0), "a file with a name outside is kept as clean")
    time.sleep(0.05)
    child = subprocess.run(["sh", "-c", f"printf %s '{eicar().decode()}' >{other}"], check=False)
    check(child.returncode == 0 and read(path / "link") == errno.EPERM, "until it is written to by that name")
    case.finish()


def check_flags(test):
    """Ways to open a file."""
    case = Case(test, "flags").active()
    bad = write(case.path / "bad", eicar())
    check(start_read(bad, os.O_RDWR | os.O_TRUNC)() == errno.EPERM and bad.read_bytes() == eicar(),
          "an infected file cannot be truncated by opening it")
    program = ("import os, sys; fd = os.open(sys.argv[1], os.O_PATH); print(1, flush=True); "
               "os.open(f'/proc/self/fd/{fd}', os.O_RDONLY)")
    run = subprocess.run(["python3", "-c", program, bad], check=False, capture_output=True, text=True)
    check(run.stdout == "1\n" and "PermissionError" in run.stderr,
          "a descriptor that names a file (O_PATH) is no open, and what is opened by it is held")
    bad.unlink()
    made = case.path / "made"
    case.it.view(0, state="down")
    case.it.wait_state("shut")
    check(start_read(made, os.O_RDWR | os.O_CREAT | os.O_EXCL)() == b"", "new files can be made when nothing is scanned")
    case.finish()


def check_kinds(test):
    """What is no regular file, and what cannot be opened at once."""
    case = Case(test, "kinds").active()
    clean = write(case.path / "clean", b"clean")
    fifo = case.path / "fifo"
    os.mkfifo(fifo)
    finish = start_read(fifo)
    time.sleep(0.3)
    check(read(clean) == b"clean", "a pipe by name that has a reader only holds up nobody else")
    tool("sh", "-c", f"echo text >{fifo}")
    check(finish() == b"text\n", "and is opened when it has a writer")
    writer = subprocess.Popen(["sh", "-c", f"echo text >{fifo}"])
    time.sleep(0.3)
    check(case.scanned(read, write(case.path / "next", b"next")) == (b"next", 1), "the same with a writer only")
    check(read(fifo) == b"text\n" and writer.wait(PATIENCE) == 0, "which can be read then")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(case.path / "socket"))
        check(read(case.path / "socket") == errno.ENXIO, "sockets are what they are")
    tool("mknod", case.path / "null", "c", "1", "3")
    check(read(case.path / "null") == b"", "so are devices")

    leased = write(case.path / "leased", b"leased")
    program = ("import fcntl, os, signal, sys; signal.signal(signal.SIGIO, signal.SIG_IGN); "
               "fd = os.open(sys.argv[1], os.O_RDWR); fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK); "
               "print(1, flush=True); sys.stdin.read()")
    holder = subprocess.Popen(["python3", "-c", program, leased], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    check(holder.stdout.readline() == b"1\n", "somebody has a lease of a file, and does not let go of it")
    finish = start_read(leased)
    began = time.monotonic()
    check(read(write(case.path / "later", b"later")) == b"later" and time.monotonic() - began < 40,
          "who opens that holds up nobody else")
    check(finish() == errno.EPERM, "what is leased cannot be opened")
    holder.communicate()
    check(read(leased) == b"leased", "and when it is let go of the file can be opened")
    case.finish()


def check_sizes(test):
    """Files that are not as large as they say, or much larger."""
    case = Case(test, "sizes").active()
    sparse = case.path / "sparse"
    with open(sparse, "wb") as file:
        file.truncate(10 << 30)
    value, scans = case.scanned(read, settled(sparse))
    check(value == errno.EPERM and scans == 0 and case.it.stats()["too_large"] == 1,
          "a file of 10 GiB without content goes by --fail, and nobody reads it")
    case.finish()

    case = Case(test, "endless", **{"time-limit": "1s", "size-limit": "1T"}).active()
    sparse = case.path / "sparse"
    with open(sparse, "wb") as file:
        file.truncate(500 << 30)
    check(read(settled(sparse)) == errno.EPERM, "where that is allowed it is read until its time is over")
    case.it.wait(lambda: case.it.stats()["scanned"] == 1, "its scan ends")
    check(case.scanner.swallowed < 400 << 30, "and no longer")
    clean = write(case.path / "clean", b"clean")
    wait_until(lambda: read(clean) == b"clean", "what is scanned within that second is opened")
    check(True, "other files are scanned then")
    case.finish()


def check_mounts(test):
    """What is mounted below the path, and where else the path is mounted."""
    case = Case(test, "mounts").active()
    path, outside = case.path, case.outside
    for name in ("tmpfs", "bound", "made"):
        (path / name).mkdir()
    (outside / "deep").mkdir()
    (outside / "view").mkdir()
    elsewhere = write(outside / "deep" / "bad", eicar())
    bad = write(path / "sub" / "bad", eicar())
    tool("mount", "-t", "tmpfs", "none", path / "tmpfs")
    tool("mount", "--bind", outside, path / "bound")
    tool("mount", "--bind", path / "sub", outside / "view")
    try:
        case.it.kill()
        case.it.start()  # which looks for folders anew
        case.active()
        check(read(bad) == errno.EPERM, "files below the path are held")
        check(read(outside / "view" / "bad") == errno.EPERM, "also through another mount of the folder")
        write(path / "tmpfs" / "bad", eicar())
        check(read(path / "tmpfs" / "bad") == eicar(), "another file system that is mounted there is not")
        check(read(elsewhere) == eicar() and read(path / "bound/deep/bad") == eicar(),
              "nor is a folder from outside that is mounted there")
        os.rename(path / "sub", path / "made" / "sub")
        time.sleep(0.3)
        check(read(path / "made/sub/bad") == errno.EPERM and read(elsewhere) == eicar(),
              "which folders that come and go do not change")
        case.finish()
    finally:
        for mount in (path / "tmpfs", path / "bound", outside / "view"):
            tool("umount", "--lazy", mount)


def check_own_program(test):
    """The program itself lies below the path, by another name."""
    held, place = test.folder / "own" / "path" / "bin", test.folder / "own" / "bin"
    held.mkdir(parents=True)
    place.mkdir()
    tool("cp", os.environ["STRAKE"], held / "strake")
    tool("mount", "--bind", held, place)
    own, lib.files.STRAKE = lib.files.STRAKE, str(place / "strake")
    try:
        Interceptor(test, {"path": str(test.folder / "own" / "path")}, [Scanner(test.folder / "own" / "vsock")])
        raise AssertionError("own program")
    except Failed as failure:
        check("strake itself needs" in str(failure), f"a path that the program is in is refused: {failure}")
    finally:
        lib.files.STRAKE = own
        tool("umount", "--lazy", place)


def check_overlay(test):
    """An overlay, whose files have no handles that can be opened."""
    top = test.folder / "overlay-parts"
    path = test.folder / "overlay" / "path"
    for folder in (top / "lower" / "sub", top / "upper", top / "work", path):
        folder.mkdir(parents=True)
    write(top / "lower" / "bad", eicar())
    write(top / "lower" / "clean", b"clean")
    tool("mount", "-t", "overlay", "none", "-o",
         f"lowerdir={top}/lower,upperdir={top}/upper,workdir={top}/work", path)
    try:
        case = Case(test, "overlay").active()
        check(read(path / "bad") == errno.EPERM and read(path / "clean") == b"clean", "an overlay is held as a whole")
        (path / "new").mkdir()
        write(path / "new" / "bad", eicar())
        check(read(path / "new" / "bad") == errno.EPERM, "with what is new in it")
        tool("sh", "-c", f"printf %s '{eicar().decode()}' >>{path}/clean")
        check(read(path / "clean") == errno.EPERM, "and what was copied up, and changed")
        case.finish()
        try:
            refused = Interceptor(test, {"path": str(path / "sub")}, [Scanner(test.folder / "overlay-vsock")])
            refused.wait_state("failed")
            raise Failed(f"a folder of an overlay: {refused.why}")
        except Failed as failure:
            check("file handles" in str(failure), f"a folder of it is refused: {failure}")
    finally:
        tool("umount", "--lazy", path)


def check_subvolume(test):
    """Subvolumes of btrfs, which anybody can make."""
    if not shutil.which("mkfs.btrfs"):
        print("skipped: there is no mkfs.btrfs (btrfs-progs)")
        return
    image, place = test.folder / "btrfs.img", test.folder / "btrfs"
    with open(image, "wb") as file:
        file.truncate(256 << 20)
    tool("mkfs.btrfs", "-q", image)
    place.mkdir()
    tool("mount", "-o", "loop", image, place)
    try:
        case = Case(test, "btrfs/it").active()
        tool("btrfs", "subvolume", "create", case.path / "volume")
        held_soon(write(case.path / "volume" / "bad", eicar()), "a subvolume that comes below the path is part of it")
        case.finish()
        (case.path / "volume" / "deep").mkdir()
        write(case.path / "volume" / "deep" / "bad", eicar())
        case = Case(test, "btrfs/it").active()
        check(read(case.path / "volume" / "bad") == errno.EPERM and
              read(case.path / "volume" / "deep" / "bad") == errno.EPERM, "and one that was there before, with its folders")
        case.finish()
    finally:
        tool("umount", "--lazy", place)


def check_folders(test):
    """Thousands of folders, and one below another."""
    case = Case(test, "folders").active()
    path = case.path

    def make(top, count, stopped=False):
        above = [path / top] + [path / top / f"{i}" for i in range(count // 250)]
        for name in above:
            os.mkdir(name)
        if stopped:
            time.sleep(1)
            os.kill(case.it.process.pid, signal.SIGSTOP)
        names = [above[1 + i % (count // 250)] / f"deep{i}" for i in range(count)]
        for name in names:
            os.mkdir(name)
        os.kill(case.it.process.pid, signal.SIGCONT)
        return above + names

    def all_held(names, what):
        picked = random.Random(1).sample(names, 20) + names[-1:]
        for name in picked:
            (name / "bad").write_bytes(eicar())
        wait_until(lambda: all(read(name / "bad") == errno.EPERM for name in picked), what, PATIENCE * 5)
        check(True, what)

    all_held(make("some", FOLDERS), f"{FOLDERS} folders that are made one after another become part of the path")
    all_held(make("more", MORE_FOLDERS, stopped=True), f"so do {MORE_FOLDERS} that are made while nobody looks")

    def dig(top):
        top.mkdir()
        before = os.open(".", os.O_RDONLY)
        os.chdir(top)
        for _ in range(DEEP):
            os.mkdir("d")
            os.chdir("d")
        with open("bad", "wb") as file:
            file.write(eicar())
        bottom = os.open(".", os.O_RDONLY)
        os.fchdir(before)
        os.close(before)
        return bottom

    bottom = dig(path / "deep")
    held_soon(f"/proc/self/fd/{bottom}/bad", f"{DEEP} folders one in another are")
    os.close(bottom)
    bottom = dig(case.outside / "deep")
    os.rename(case.outside / "deep", path / "other")
    held_soon(f"/proc/self/fd/{bottom}/bad", "and those that are moved there")
    case.finish()
    check(read(f"/proc/self/fd/{bottom}/bad") == eicar(), "after the removal none is held")
    case = Case(test, "folders").active()
    check(read(f"/proc/self/fd/{bottom}/bad") == errno.EPERM, "all are held by an interceptor that comes then")
    os.close(bottom)
    case.finish()


def check_full(test):
    """A quarantine that has no room for a file, or for its note."""
    for name, options, content in (("full", "size=64k", eicar() + bytes(200000)), ("no-file", "nr_inodes=3", eicar()),
                                   ("no-note", "size=4k", eicar())):
        kept = test.folder / f"kept-{name}"
        kept.mkdir()
        tool("mount", "-t", "tmpfs", "-o", f"mode=700,{options}", "none", kept)
        (kept / "there").touch()
        try:
            if name == "no-note":
                (kept / "there").write_bytes(bytes(4096))
            case = Case(test, name, infected="quarantine", quarantine=str(kept)).active()
            bad = write(case.path / "bad", content)
            check(read(bad) == errno.EPERM and bad.read_bytes() == content, f"{name}: the file stays, and is not opened")
            event = case.it.wait(lambda: case.it.events and case.it.events.pop(), "there is an event")
            check("space" in event["problem"] and "quarantine" not in event, f"{name}: {event['problem']}")
            check(os.listdir(kept) == ["there"] and case.it.stats()["quarantined"] == 0, f"{name}: nothing half is left")
            check(sorted(os.listdir(case.path)) == ["bad", "sub"], f"{name}: nor beside the file")
            case.finish()
        finally:
            tool("umount", "--lazy", kept)


def check_crowd(test):
    """A hundred processes, when the scanner dies."""
    case = Case(test, "crowd").active()
    files = [write(case.path / f"file{i}", b"%d" % i) for i in range(100)]
    case.scanner.slow = 0.5
    readers = [start_read(file) for file in files]
    time.sleep(0.3)
    case.scanner.die()
    answers = {finish() for finish in readers}
    check(errno.EPERM in answers and answers <= {errno.EPERM, *(b"%d" % i for i in range(100))},
          "100 processes that wait when the scanner dies are answered")
    case.scanner.come()
    case.active()
    check({read(file) for file in files[:3]} == {b"0", b"1", b"2"}, "and when it has come again files are scanned")
    case.finish()


def run(test):
    """All of it."""
    need_fanotify()
    unshare(CLONE_NEWNS)
    tool("mount", "--make-rprivate", "/")
    check_changes(test)
    check_flags(test)
    check_kinds(test)
    check_sizes(test)
    check_mounts(test)
    check_own_program(test)
    check_overlay(test)
    check_subvolume(test)
    check_folders(test)
    check_full(test)
    check_crowd(test)


main(run)
