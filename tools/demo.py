#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Boots Debian's own riscv64 kernel under Strake, and has the guest replace the Strake beneath it by the
version that follows. On a terminal, leaves the user at a root shell in the guest; otherwise shows a tour
of it, checks what it shows, and exits 0 if all is well."""

import contextlib
import datetime
import fcntl
import http.server
import os
import platform
import re
import shutil
import signal
import socketserver
import subprocess
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "guest"))

import archive  # pylint: disable=wrong-import-position
import fetch  # pylint: disable=wrong-import-position
import initramfs  # pylint: disable=wrong-import-position
import package  # pylint: disable=wrong-import-position
import packages  # pylint: disable=wrong-import-position
import supervised  # pylint: disable=wrong-import-position
import vm  # pylint: disable=wrong-import-position

BUILD = fetch.GUEST.parent
FOLDER = BUILD / "demo"
NEXT = BUILD / "strake-next"  # the same sources, as the version that follows
NAME = "demo"
PAGE = b"Hello from the machine that Strake runs on.\n"
VSOCK_PORT = 1024
MIB = 1 << 20
OFF_S = 60


# ---- The host's side ----------------------------------------------------------------------------


class Web(http.server.BaseHTTPRequestHandler):
    """A server on the host's loopback for the guest to fetch from: a page, and packages."""

    def do_GET(self):
        """The method that http.server calls."""
        wanted = FOLDER / Path(self.path).name
        content = PAGE if self.path == "/" else \
            wanted.read_bytes() if wanted.match("*.strake") and wanted.exists() else None
        self.send_response(404 if content is None else 200)
        self.send_header("Content-Length", str(len(content or b"")))
        self.end_headers()
        self.wfile.write(content or b"")

    def log_message(self, *_):
        """Nothing on the screen."""


class Parrot(socketserver.StreamRequestHandler):
    """The host's end of the guest's vsock streams."""

    def handle(self):
        """The method that socketserver calls."""
        for line in self.rfile:
            self.wfile.write(b"the host heard: " + line)


@contextlib.contextmanager
def servers():
    """Runs both servers; yields the web server's port."""
    web = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Web)
    path = FOLDER / f"vsock_{VSOCK_PORT}"
    path.unlink(missing_ok=True)
    parrot = socketserver.ThreadingUnixStreamServer(str(path), Parrot)
    for server in (web, parrot):
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield web.server_port
    finally:
        path.unlink(missing_ok=True)


def pack():
    """The package of the version that follows, made anew when something that it is made of is newer, and
    signed with a key that is made at the first time. Returns its path and the key's."""
    quiet("ninja", "-C", BUILD, "strake-next")
    version = package.version(NEXT)
    key, path = FOLDER / "release.key", FOLDER / f"strake-{version}.strake"
    if not key.exists():
        quiet(vm.strake(), "package", "keygen", "--no-password", FOLDER / "release")
    (FOLDER / "trusted").mkdir(exist_ok=True)
    shutil.copy(FOLDER / "release.pub", FOLDER / "trusted")
    inputs = [NEXT, Path(vm.strake()), key, *initramfs.SOURCES.rglob("*"),
              *packages.PACKAGING.rglob("*"), *Path(__file__).parent.rglob("*.py")]
    if not path.exists() or path.stat().st_mtime <= max(one.stat().st_mtime for one in inputs):
        base = f"{package.version(vm.strake())}={vm.strake()}"
        package.build(NEXT, path, key, [base], [packages.guest(FOLDER, version)])
    return path, key


def quiet(*command):
    """Runs a program; what it prints is shown when it fails."""
    run = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                         check=False)
    if run.returncode != 0:
        print(run.stdout, end="")
        run.check_returncode()


def machine(size):
    """The demo's machine, with a new disk, and a terminal of so many columns and rows."""
    disk = FOLDER / "disk"
    disk.unlink(missing_ok=True)
    disk.touch()
    os.truncate(disk, 64 * MIB)
    return vm.Machine(cpus=2, disks=[disk], net=[], vsock=f"3,{FOLDER}/vsock",
                      append=f"quiet strake.size={size[0]}x{size[1]}")


@contextlib.contextmanager
def supervisor():
    """A supervisor whose state is in the demo's folder, and goes with it."""
    state = FOLDER / "state"
    shutil.rmtree(state, ignore_errors=True)
    try:
        running = supervised.Supervisor(FOLDER, options=["--trusted", FOLDER / "trusted"])
    except OSError as error:
        raise OSError((FOLDER / "log").read_text(errors="replace").strip() or error) from error
    try:
        yield running
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # it does not take long
        with contextlib.suppress(OSError, supervised.Refused):
            for partition in running.call("GET", "/v1/partitions"):
                if partition["state"] == "running":
                    running.call("POST", f"/v1/partitions/{partition['id']}/kill", {})
        running.close()
        shutil.rmtree(state, ignore_errors=True)


def introduce(path, key):
    """What is about to run, and what is there to replace it."""
    release, = (fetch.GUEST / "base" / "modules").iterdir()
    version = subprocess.run([vm.strake(), "--version"], capture_output=True, text=True,
                             check=True).stdout.strip()
    kvm = "unused" if os.path.exists("/dev/kvm") else "absent"
    print(f"{version}: Debian's kernel {release.name},\n"
          f"2 harts, 512 MiB, on {platform.machine()} with /dev/kvm {kvm}.\n"
          f"strake {package.version(NEXT)}: the same sources, in {path.relative_to(BUILD.parent)},\n"
          f"signed with {key.relative_to(BUILD.parent)}.", flush=True)


# ---- The guest's side ---------------------------------------------------------------------------


def bold(text):
    """A heading."""
    return f"\033[1m{text}\033[0m" if sys.stdout.isatty() else text


def show(guest, command):
    """Runs a command at the guest's prompt, and shows it and what it prints, line by line as it comes;
    returns status and output."""
    print(f"   # {command}", flush=True)
    guest.send(f"echo '@''begin'; {command}; echo '@''status' $?\n")
    guest.expect(r"@begin\r?\n")
    shown = ""
    while True:
        # Of a line that was written over and over, what it was in the end.
        line = guest.expect(r"([^\n]*)\n").group(1).decode(errors="replace").rstrip("\r")
        line, status = re.fullmatch(r"(.*?)(?:@status (\d+))?", line.rpartition("\r")[2]).groups()
        if line:
            print(f"   {line}", flush=True)
            shown += line + "\n"
        if status is not None:
            return int(status), shown


def update(guest, port, path):
    """Has the guest replace the Strake beneath it; returns what is wrong with what came of it, or None."""
    print(f"\n{bold('The guest replaces the Strake beneath it')}", flush=True)
    before = guest.supervisor.call("GET", "/v1")
    status, said = show(guest, f"strake-update apply http://10.0.2.2:{port}/{path.name}")
    after = guest.supervisor.call("GET", "/v1")
    wanted = package.version(NEXT)
    if status != 0 or f"is replaced by {wanted}" not in said or "stood still" not in said:
        return f"strake-update ended with status {status}"
    if (after["version"], after["pid"]) != (wanted, before["pid"]):
        return f"the supervisor is version {after['version']}"
    if guest.show()["handovers"] != 1:
        return "the guest was not handed over"
    return None


def shell(guest, port, path):
    """The guest on this terminal, once it has updated; returns the exit status."""
    fault = update(guest, port, path)
    if fault:
        print(f"   FAILED: {fault}; {FOLDER.relative_to(BUILD.parent)}/log may have more")
    print(f"""
The shell that comes is root's, in the guest. Try there:
  strake-update status                     what runs beneath
  cat /proc/cpuinfo                        the harts
  dmesg | grep SBI                         who the kernel's firmware is: Strake
  mke2fs /dev/vda; mount /dev/vda /mnt     a disk (here: build/demo/disk)
  wget -qO- http://10.0.2.2:{port}/         a page from this machine's loopback
  echo hello | vsock connect {VSOCK_PORT}          a stream to a Unix socket of this machine
  poweroff                                 or Ctrl-A x, which pulls the plug
""", flush=True)
    guest.expect(vm.PROMPT)
    status = subprocess.run([vm.strake(), "console", "--socket", guest.supervisor.socket, "--lines",
                             "1", NAME], check=False).returncode
    if guest.show()["state"] == "running":
        print("The demo ends, and its guest with it.")
    return 1 if fault else status


def stops(port):
    """The tour: (what is shown, commands in the guest, what their output must match)."""
    return [
        ("Debian's kernel, unmodified",
         ["uname -sr", "uname -vm"], r"deb13-riscv64"),
        ("Two harts, each a thread of this machine",
         ["grep -c ^processor /proc/cpuinfo", "grep -m1 ^isa /proc/cpuinfo | fold -w 72"], r"^2$"),
        ("Its firmware is Strake's own SBI",
         ["dmesg | grep -o 'SBI [a-z]* .*'"], r"implementation ID=0x"),
        ("A disk is written, and read back from the device",
         ["mke2fs /dev/vda >/dev/null && mount /dev/vda /mnt",
          "echo 'A note from the guest.' >/mnt/note", "umount /mnt && mount /dev/vda /mnt",
          "cat /mnt/note", "umount /mnt"], r"A note from the guest"),
        ("The network reaches a server on this machine's loopback",
         ["ip address show eth0 | grep -o 'inet .* eth0'", f"wget -qO- http://10.0.2.2:{port}/"],
         r"Hello from the machine"),
        ("A vsock stream reaches a Unix socket of this machine",
         [f"echo 'Is anybody there?' | vsock connect {VSOCK_PORT}"],
         r"the host heard: Is anybody there"),
        ("The clock is right", ["date -u"], r"UTC"),
    ]


def tour(guest, port, path):
    """Shows the guest at work; returns 0, or 1 if something was not as it should be."""
    failed = []

    def verdict(good, what):
        print(f"   {'ok' if good else 'FAILED'}: {what}", flush=True)
        if not good:
            failed.append(what)

    for title, commands, wanted in stops(port):
        print(f"\n{bold(title)}")
        shown = ""
        for command in commands:
            status, output = show(guest, command)
            shown += output if status == 0 else f"status {status}\n"
        if not re.search(wanted, shown, re.MULTILINE) or "status " in shown:
            verdict(False, title)
    note = b"A note from the guest." in (FOLDER / "disk").read_bytes()
    now = datetime.datetime.now(datetime.timezone.utc)
    print(f"   (this machine's: {now:%a %b %d %H:%M:%S UTC %Y})")
    fault = update(guest, port, path)
    print(f"\n{bold('And off')}\n   # poweroff", flush=True)
    guest.send("poweroff\n")
    end = wait_for_end(guest)
    verdict(note, "the guest's note is in this machine's file build/demo/disk")
    verdict(not fault, fault or f"Strake {package.version(NEXT)} has taken over beneath the guest")
    verdict(end == "poweroff", f"the guest has switched itself off ({end})")
    return 1 if failed else 0


def wait_for_end(guest):
    """How the guest's run has ended."""
    deadline = time.monotonic() + OFF_S
    while (partition := guest.show())["state"] not in ("stopped", "failed", "crashed"):
        if time.monotonic() > deadline:
            return f"it is {partition['state']}"
        time.sleep(0.05)
    return partition["last_end"]["end"]


def run():
    """All of the demo; returns the exit status."""
    fetch.fetch("base")
    initramfs.build()
    FOLDER.mkdir(parents=True, exist_ok=True)
    with open(FOLDER / "lock", "w", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return "demo: another one is running in this folder"
        path, key = pack()
        introduce(path, key)
        terminal = sys.stdin.isatty()
        with servers() as port, supervisor() as running:
            guest = running.partition(
                NAME, machine(shutil.get_terminal_size() if terminal else (500, 50)), updates=True)
            guest.start()
            guest.expect(vm.PROMPT)
            print(f"\nAt the guest's prompt after {time.monotonic() - guest.started:.1f} s.")
            return (shell if terminal else tour)(guest, port, path)


def main():
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))  # by way of `finally`
    try:
        return run()
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except vm.Timeout as silence:
        return f"demo: the guest is silent: {silence}"
    except (archive.ArchiveError, OSError, ValueError, subprocess.CalledProcessError,
            supervised.Refused) as error:
        return f"demo: {error}"


if __name__ == "__main__":
    sys.exit(main())
