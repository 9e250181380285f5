#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""strake mount, when something is wrong: images that are none, passphrases, partitions to choose from; what is in use;
the guest, the interceptor's process, the supervisor, all of them killed under work; a handover under work."""

import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time

from lib import agent, mounts
from lib.daemon import Connection
from lib.harness import Failed, check, main
from lib.leverage import check_same, configuration, wait_until
import vm

FLIPS = 4  # images with flipped bits
ROUNDS = int(os.environ.get("STRAKE_TEST_ROUNDS", "2"))  # of kills at any moment
GONE = (errno.ENOTCONN, errno.ECONNABORTED, errno.EIO)  # what a file system says that is no more
SEED = int(os.environ.get("STRAKE_TEST_SEED", "1"))


class Case:
    """A host, a folder to mount at, an image with ext4."""

    def __init__(self, test):
        self.host = mounts.host(test)
        self.test = test
        self.folder = test.folder / "mnt"
        self.folder.mkdir()
        self.image = self.new_image("good")
        self.before = configuration()

    def new_image(self, name, size=64 * mounts.MIB):
        """With an ext4 that has a file."""
        image = mounts.blank(self.test.folder / f"{name}.img", size)
        content = self.test.folder / "content"
        content.mkdir(exist_ok=True)
        (content / "hello").write_bytes(b"hello\n")
        subprocess.run(["mke2fs", "-q", "-t", "ext4", "-F", "-d", content, image], check=True)
        return image

    def mount(self, *options, image=None):
        """Mounts; has to succeed."""
        self.host.done("mount", *options, image or self.image, self.folder)
        check_quietly((self.folder / "hello").read_bytes() == b"hello\n", "it cannot be read")

    def refused(self, *options, image=None, why=""):
        """Why it is not mounted, which has to have that in it."""
        result = self.host.strake("mount", *options, image or self.image, self.folder)
        check_quietly(result.returncode == 1, f"it is mounted: {options} {result.stdout}")
        check_quietly(why in result.stderr, f"'{why}' is not in: {result.stderr}")
        self.is_gone()
        return result.stderr.strip()

    def is_gone(self):
        """Nothing is left."""
        wait_until(lambda: self.host.done("leverage", "list", "--quiet") == "", "the interceptor is gone")
        wait_until(lambda: self.host.done("list", "--quiet") == "", "its partition is gone")
        check_quietly(not os.listdir(self.folder), "something is mounted")

    def name(self):
        """Of the interceptor, and its partition."""
        return self.host.done("leverage", "list", "--quiet").strip()

    def intact(self, what):
        """The image can be mounted without repair by whoever wants to."""
        done = subprocess.run(["e2fsck", "-f", "-n", self.image], capture_output=True, text=True, check=False)
        check(done.returncode == 0, what)


def check_quietly(condition, what):
    if not condition:
        raise Failed(what)


def fails_with(function):
    """The error that a system call ends with, or None."""
    try:
        function()
    except OSError as error:
        return error.errno
    return None


# ---- What cannot be mounted

def refused_at_once(case, *words, why):
    """Without a guest; said in one line, of what the user has named."""
    result = case.host.strake("mount", *words)
    check_quietly(result.returncode == 1 and why in result.stderr and result.stderr.count("\n") == 1 and
                  "interceptor" not in result.stderr, f"'{why}' is not what is said: {result.stderr}")
    return result.stderr.strip()


def bad_arguments(case):
    """Words that mean nothing, and no supervisor."""
    short, comma = case.test.folder / "short.img", case.test.folder / "a,b.img"
    short.write_bytes(b"short")
    comma.write_bytes(bytes(mounts.MIB))
    for words, why in (((case.image, case.folder / "nowhere"), "No such file"),
                       ((case.test.folder / "none.img", case.folder), "No such file"),
                       ((case.image, case.image), "Not a directory"),
                       ((case.folder, case.folder), "Is a directory"),
                       (("/dev/null", case.folder), "neither a regular file nor a block device"),
                       ((short, case.folder), "less than one sector"),
                       ((comma, case.folder), "comma"),
                       (("--appliance", "nowhere", case.image, case.folder), "no appliance")):
        refused_at_once(case, *words, why=why)
    result = case.host.strake("mount", "--memory", "much", case.image, case.folder)
    check_quietly("--memory" in result.stderr, result.stderr)
    check(True, "what cannot be mounted, or mounted at, is refused at once")
    done = subprocess.run([vm.strake(), "mount", "--socket", case.test.folder / "nobody", case.image, case.folder],
                          capture_output=True, text=True, check=False)
    check("start it with: strake daemon" in done.stderr, "without a supervisor it is said how to start one")
    result = case.host.strake("umount", case.folder)
    check("nothing is mounted" in result.stderr, "what is not mounted is not unmounted")
    case.refused("--type", "nonsense", why="no driver")
    case.refused("--type", "proc", why="no driver")
    why = case.refused("--type", "f2fs", why="what is in it is ext4")
    case.is_gone()
    check(True, f"a wrong type is refused: {why}")


def taken(case):
    """An image that is mounted, a folder where one is; others' mounts."""
    other, folder = case.new_image("other"), case.test.folder / "more"
    folder.mkdir()
    case.mount()
    refused_at_once(case, case.image, folder, why=f'it is mounted at "{case.folder}"')
    refused_at_once(case, "--read-only", case.image, folder, why=f'it is mounted at "{case.folder}"')
    why = refused_at_once(case, other, case.folder, why=f'"{case.image}" is mounted there')
    case.host.done("umount", case.image)
    check(True, f"what is mounted is not mounted again: {why}")
    case.mount("--read-only")
    case.host.done("mount", "--read-only", case.image, folder)
    check((folder / "hello").read_bytes() == b"hello\n", "unless all only read it")
    case.host.done("umount", folder)
    case.host.done("umount", case.folder)
    case.is_gone()
    read_only = case.test.folder / "bound.img"
    read_only.touch()
    subprocess.run(["mount", "--bind", case.image, read_only], check=True)
    subprocess.run(["mount", "-o", "remount,bind,ro", read_only], check=True)
    refused_at_once(case, read_only, case.folder, why="see: --read-only")
    case.mount("--read-only", image=read_only)
    case.host.done("umount", case.folder)
    subprocess.run(["umount", read_only], check=True)
    check(True, "an image that cannot be written to is mounted read-only, when that is asked for")
    subprocess.run(["mount", "-t", "tmpfs", "none", folder], check=True)
    result = case.host.strake("umount", "--force", folder)
    check(result.returncode == 1 and os.path.ismount(folder), "others' mounts are left alone")
    subprocess.run(["umount", folder], check=True)


def bad_images(case):
    """Garbage, a part of an image, flipped bits."""
    garbage = case.test.folder / "garbage.img"
    garbage.write_bytes(random.Random(SEED).randbytes(4 * mounts.MIB))
    check(True, "garbage: " + case.refused(image=garbage, why="nothing is known"))
    part = case.test.folder / "part.img"
    part.write_bytes(case.image.read_bytes()[:mounts.MIB])
    case.refused(image=part, why="cannot be mounted")
    case.refused(image=mounts.blank(case.test.folder / "empty.img", mounts.MIB), why="nothing is known")
    foreign = case.test.folder / "foreign.img"
    foreign.write_bytes(b"QFI\xfb\x00\x00\x00\x03".ljust(mounts.MIB, b"\0"))
    check(True, "another format: " + case.refused(image=foreign, why="it is a qcow2 image"))
    source = random.Random(SEED)
    good = bytearray(case.image.read_bytes())
    for number in range(FLIPS):
        bad = bytearray(good)
        for _ in range(4000):
            bad[source.randrange(1024, 4 * mounts.MIB)] ^= 1 << source.randrange(8)
        broken = case.test.folder / "broken.img"
        broken.write_bytes(bad)
        if case.host.strake("mount", broken, case.folder).returncode == 0:
            subprocess.run(["cp", "-r", vm.__file__, case.folder], capture_output=True, check=False, timeout=300)
            subprocess.run(["find", case.folder], capture_output=True, check=False, timeout=300)
            case.host.strake("umount", case.folder)
            if case.name():
                case.host.strake("umount", "--force", broken)
        case.is_gone()
    check(True, "garbage, a part of an image, images with flipped bits: all are survived")


ARGON_MIB = 300  # of memory, for a passphrase


def passphrases(case, luks, argon):
    """None, the wrong one, the right one, with a line feed and as a file of its own; one that takes memory."""
    case.refused(image=luks, why="passphrase is needed")
    file = case.test.folder / "passphrase"
    file.write_bytes(b"wrong")
    case.refused("--passphrase-file", file, image=luks, why="not the passphrase")
    case.refused("--passphrase-file", case.test.folder / "none", image=luks, why="No such file")
    file.write_bytes(mounts.PASSPHRASE)
    case.refused("--passphrase-file", file, why="the image is not encrypted, but a passphrase was given")
    case.host.done("mount", "--passphrase-file", file, luks, case.folder)
    (case.folder / "secret").write_bytes(b"in it")
    case.host.done("umount", case.folder)
    check(b"in it" not in luks.read_bytes(), "LUKS: opened by its passphrase, and by no other; nothing is in the clear")
    case.refused("--passphrase-file", file, "--type", "xfs", image=luks, why="what is in it is ext4")
    why = case.refused("--passphrase-file", file, "--memory", "256M", image=argon, why=f"takes {ARGON_MIB} MiB of memory")
    check("see: --memory" in why, f"argon2id, with too little memory: {why}")
    case.host.done("mount", "--passphrase-file", file, argon, case.folder)
    case.host.done("umount", case.folder)
    check(True, "argon2id: a guest has what it takes")


def partitions(case):
    """One of several, the only one, none."""
    small = case.new_image("small", 8 * mounts.MIB)
    several = mounts.with_partitions(case.test.folder / "several.img", [small, None, small])
    why = case.refused(image=several, why="1 (ext4, 8 MiB)")
    check("3 (ext4, 8 MiB)" in why, f"several partitions are listed: {why}")
    case.refused("--part", "9", image=several, why="no partition 9")
    case.mount("--part", "3", image=several)
    (case.folder / "third").write_bytes(b"3")
    case.host.done("umount", case.folder)
    case.mount("--part", "1", image=several)
    check(not (case.folder / "third").exists(), "one is chosen by its number")
    case.host.done("umount", case.folder)
    case.mount(image=mounts.with_partitions(case.test.folder / "one.img", [None, small]))
    case.host.done("umount", case.folder)
    case.refused("--part", "1", why="no partitions")
    check(True, "the only one that can be mounted is")


def a_partition_of_others(case):
    """A guest that is there, with the image as its second disk, and one that is encrypted as its third."""
    luks, passphrase = case.test.folder / "luks.img", ("--passphrase-file", case.test.folder / "passphrase")
    appliance = mounts.APPLIANCES / "mount"
    case.host.call("POST", "/v1/partitions", {
        "name": "guest", "kernel": str(appliance / "Image"), "initrd": str(appliance / "initrd"), "append": "quiet",
        "disk": [str(mounts.blank(case.test.folder / "other.img", mounts.MIB)), str(case.image), str(luks)],
        "vsock": "7," + str(case.test.folder / "vs")})
    case.host.intercept("mount", "early", module="guest,run=mount", image=str(case.image), directory=str(case.folder),
                        disk=1)
    early = case.host.interceptor("early")
    check(early["state"] == "starting" and early["why"] == 'partition "guest" does not run', "a mount says what it waits for")
    case.host.call("POST", case.host.path("guest", "/start"))
    why = set()
    wait_until(lambda: why.add((early := case.host.interceptor("early")).get("why")) or early["state"] == "active",
               "it is mounted", 300)
    check(None in why and len(why) > 1, f"and is mounted when that has come: {why}")
    case.host.give_up("early")
    case.mount("--partition", "guest")
    result = case.host.strake("mount", "--partition", "guest", case.test.folder / "other.img", case.test.folder)
    check("has mounted another image" in result.stderr, "a guest mounts one image at a time, and no other for it")
    case.host.done("umount", case.folder)
    check(case.host.show("guest")["state"] == "running", "a guest that is there mounts its second disk, and stays")
    result = case.host.strake("mount", "--partition", "guest", "--type", "xfs", *passphrase, luks, case.folder)
    check_quietly("what is in it is ext4" in result.stderr, result.stderr)
    case.host.done("mount", "--partition", "guest", *passphrase, luks, case.folder)
    check((case.folder / "secret").exists(), "what it has opened in vain is closed")
    case.host.done("umount", case.folder)
    case.host.intercept("mount", "nowhere", module="guest,run=mount", image=str(case.image), directory=str(case.image),
                        disk=1)
    why = case.host.wait_state("nowhere", "failed")["why"]
    case.host.give_up("nowhere")
    with agent.wait(case.test.folder / "vs") as talk:
        told = talk.request("health", run="mount")
    check("mounted=0" in told[0], f"and unmounts what the host then could not mount: {why}")
    case.host.done("kill", "guest")
    case.host.done("remove", "guest")
    case.is_gone()


def without_owners(case, image):
    """A file system that keeps none: whoever may create files there can."""
    case.host.done("mount", image, case.folder)
    done = subprocess.run(["setpriv", "--regid=1000", "--clear-groups", "sh", "-c",
                           f"mkdir {case.folder}/made && echo content >'{case.folder}/made/Name \u00e4 \u4f60'"],
                          capture_output=True, text=True, check=False)
    check_quietly(done.returncode == 0, done.stderr)
    case.host.done("umount", case.folder)
    case.host.done("mount", image, case.folder)
    check((case.folder / "made" / "Name \u00e4 \u4f60").read_text() == "content\n",
          "vfat, which keeps no owners: another group than root's creates files")
    case.host.done("umount", case.folder)
    mounts.check_all(case.test, {"vfat": image})


# ---- Ends

def in_use(case):
    """Not unmounted, unless by force; what was written is in the image."""
    case.mount()
    file = os.open(case.folder / "open", os.O_CREAT | os.O_WRONLY)
    os.write(file, b"written before")
    result = case.host.strake("umount", case.folder)
    check(result.returncode == 1 and "in use" in result.stderr, "what is in use is not unmounted")
    case.host.done("umount", "--force", case.folder)
    check(fails_with(lambda: os.write(file, b", and after") and os.fsync(file)) in GONE and
          fails_with(lambda: os.close(file)) in (None, *GONE), "unless by force: then who uses it gets errors")
    case.is_gone()
    case.intact("the image is whole")
    case.mount()
    check((case.folder / "open").read_bytes() == b"written before", "and has what was written")
    subprocess.run(["umount", case.folder], check=True)
    case.is_gone()
    case.intact("umount(8) does what `strake umount` does")


def aborted(case):
    """umount -f, of what is in use: the kernel gives it up, and leaves it there."""
    case.mount()
    with open(case.folder / "hello", "rb"):
        done = subprocess.run(["umount", "-f", case.folder], capture_output=True, check=False)
        check_quietly(done.returncode != 0, "it was not in use")
        wait_until(lambda: not os.path.ismount(case.folder), "it is unmounted, though it be in use")
    case.is_gone()
    check_same(case.before, "what the kernel was made to give up is unmounted, too")
    case.intact("the image is whole")


def busy(folder, errors, stop):
    """Writes and reads, until it is told to stop, or cannot."""
    number = 0
    while not stop.is_set():
        try:
            path = folder / f"busy-{number % 50}"
            path.write_bytes(bytes(100_000))
            check_quietly(path.read_bytes() == bytes(100_000), "it is not what was written")
            number += 1
        except OSError as error:
            errors.append(error.errno)
            return


class Work:
    """Processes that are busy in a mounted folder, in threads; in folders of it, since without the mount its own
    would do as well."""

    def __init__(self, folder):
        self.errors, self.stop = [], threading.Event()
        folders = [folder / "d", folder / "e"]
        for one in folders:
            one.mkdir(exist_ok=True)
        self.threads = [threading.Thread(target=busy, args=(one, self.errors, self.stop), daemon=True)
                        for one in folders]
        for thread in self.threads:
            thread.start()
        time.sleep(0.3)

    def end(self):
        """Every one ends; with which errors."""
        self.stop.set()
        for thread in self.threads:
            thread.join(120)
            check_quietly(not thread.is_alive(), "somebody hangs")
        return self.errors


def events_until(case, name):
    """Follows events in a thread until there is one of that name; returns a function that waits for it."""
    connection = Connection(case.host.socket, timeout=120)
    connection.request("GET", "/v1/events")
    stream = connection.getresponse()
    found = []

    def follow():
        for line in stream:
            if name in line.decode():
                found.append(line)
                return

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()

    def wait():
        thread.join(120)
        connection.close()
        return bool(found)
    return wait


def guest_is_killed(case):
    """Its partition, under work."""
    case.mount()
    told = events_until(case, "interceptor-lost")
    work = Work(case.folder)
    os.kill(case.host.monitor(case.name()), signal.SIGKILL)
    work.threads[0].join(120)
    check(work.end() and told(), "a guest that is killed: who uses the mount gets an error, and it is told")
    case.is_gone()
    check_same(case.before, "the host is as it was")


def guest_is_silent(case):
    """Stopped, not ended: nothing comes any more."""
    name = "silent"
    appliance = mounts.APPLIANCES / "mount"
    case.host.intercept("mount", name, module=f"{name},run=mount", image=str(case.image), directory=str(case.folder),
                        time_limit="15s", partition={
                            "name": name, "kernel": str(appliance / "Image"), "initrd": str(appliance / "initrd"),
                            "append": "quiet", "memory": "256M", "disk": str(case.image), "no-reboot": True})
    case.host.wait_state(name, "active")
    case.host.call("POST", case.host.path(name, "/pause"))
    error = fails_with(lambda: os.listdir(case.folder))
    check(error in GONE, "a guest that is silent is given up in time")
    case.is_gone()


def worker_is_killed(case):
    """The interceptor's process: its successor mounts again."""
    case.mount()
    name = case.name()
    work = Work(case.folder)
    old = case.host.worker(name)
    os.kill(old, signal.SIGKILL)
    work.threads[0].join(120)
    check(work.end(), "a process that is killed: who uses the mount gets an error")
    wait_until(lambda: case.host.interceptor(name)["pid"] not in (old, None), "there is a successor")
    case.host.wait_state(name, "active")
    check((case.folder / "hello").read_bytes() == b"hello\n", "and its successor mounts again")
    case.host.done("umount", case.folder)
    case.is_gone()
    check_same(case.before, "the host is as it was")
    case.intact("the image is whole")


def supervisor_is_killed(case):
    """Nobody notices."""
    case.mount()
    work = Work(case.folder)
    case.host.restart()
    time.sleep(0.3)
    check(not work.end(), "a supervisor that is killed and started again: work goes on")
    (case.folder / "after").write_bytes(b"after")
    case.host.wait_state(case.name(), "active")
    case.host.done("umount", case.folder)
    case.is_gone()
    case.intact("the image is whole")


def all_are_killed(case):
    """And a supervisor comes."""
    case.mount()
    case.host.stop()
    check(fails_with(lambda: os.listdir(case.folder)) in GONE,
          "all killed at once: the folder answers with an error, and nobody hangs")
    case.host.start()
    wait_until(lambda: fails_with(lambda: os.listdir(case.folder)) is None, "the folder can be used again")
    case.is_gone()
    check_same(case.before, "the next supervisor leaves the host as it was")


def handed_over(case):
    """The partition goes to another monitor."""
    case.mount()
    work = Work(case.folder)
    for _ in range(3):
        case.host.call("POST", case.host.path(case.name(), "/handover"), {})
    check(not work.end(), "three handovers: work goes on")
    case.host.done("umount", case.folder)
    case.is_gone()
    case.intact("the image is whole")


def interrupted(case):
    """The command, while it waits."""
    process = subprocess.Popen(case.host.as_user([vm.strake(), "mount", "--socket", case.host.socket, case.image,
                                                  case.folder]), stderr=subprocess.PIPE, text=True)
    wait_until(case.name, "there is an interceptor")
    process.send_signal(signal.SIGINT)
    text = process.communicate(timeout=120)[1]
    if process.returncode == 0:  # it was done before it noticed
        case.host.done("umount", case.folder)
    else:
        check("interrupted" in text, "a command that is interrupted gives up")
    case.is_gone()


def killed_any_time(case):
    """The guest or the process, while it is being mounted, used, unmounted."""
    source = random.Random(SEED)
    for _ in range(ROUNDS):
        shutil.copy(case.test.folder / "fresh.img", case.image)
        words = case.host.as_user([vm.strake(), "mount", "--socket", case.host.socket, case.image, case.folder])
        process = subprocess.Popen(words, stderr=subprocess.DEVNULL)
        name = wait_until(case.name, "there is an interceptor")
        time.sleep(source.random() * 2)
        known = case.host.interceptor(name) if source.random() < 0.5 else case.host.show(name)
        if known and known["pid"]:
            try:
                os.kill(known["pid"], signal.SIGKILL)
            except ProcessLookupError:
                pass
        process.wait(300)
        if case.name() and case.host.strake("umount", case.folder).returncode != 0 and case.name():
            case.host.strake("umount", "--force", case.folder)
        case.is_gone()
        check_same(case.before, "the host is as it was, whatever was killed")


def faults(test):
    case = Case(test)
    luks, argon, vfat = (mounts.blank(test.folder / f"{name}.img", 64 * mounts.MIB) for name in ("luks", "argon", "vfat"))
    tools = mounts.Tools(test, [luks, argon, vfat])
    tools.request("make", luks, encrypted=True, type="ext4")
    tools.request("make", argon, encrypted=True, type="ext4", memory=ARGON_MIB)
    tools.request("make", vfat, type="vfat")
    tools.close()
    shutil.copy(case.image, test.folder / "fresh.img")
    bad_arguments(case)
    bad_images(case)
    passphrases(case, luks, argon)
    without_owners(case, vfat)
    for one in (taken, partitions, a_partition_of_others, in_use, aborted, handed_over, supervisor_is_killed, worker_is_killed,
                guest_is_killed, guest_is_silent, all_are_killed, interrupted, killed_any_time):
        print(f"# {one.__name__}", flush=True)
        shutil.copy(test.folder / "fresh.img", case.image)
        one(case)
    check_same(case.before, "at the end the host is as it was at first")


if __name__ == "__main__":
    sys.exit(main(faults))
