#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Boots Debian's own riscv64 kernel under Strake. On a terminal, leaves the user at a root shell in
the guest; otherwise shows a tour of it, checks what it shows, and exits 0 if all is well."""

import datetime
import http.server
import os
import platform
import re
import shutil
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
import vm  # pylint: disable=wrong-import-position

FOLDER = fetch.GUEST.parent / "demo"
PAGE = b"Hello from the machine that Strake runs on.\n"
VSOCK_PORT = 1024
MIB = 1 << 20


class Web(http.server.BaseHTTPRequestHandler):
    """A server on the host's loopback for the guest to fetch from."""

    def do_GET(self):
        """The method that http.server calls."""
        self.send_response(200)
        self.send_header("Content-Length", str(len(PAGE)))
        self.end_headers()
        self.wfile.write(PAGE)

    def log_message(self, *_):
        """Nothing on the screen."""


class Parrot(socketserver.StreamRequestHandler):
    """The host's end of the guest's vsock streams."""

    def handle(self):
        """The method that socketserver calls."""
        for line in self.rfile:
            self.wfile.write(b"the host heard: " + line)


def serve():
    """Starts both servers; returns the web server's port."""
    web = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Web)
    path = f"{FOLDER}/vsock_{VSOCK_PORT}"
    if os.path.exists(path):
        os.unlink(path)
    parrot = socketserver.ThreadingUnixStreamServer(path, Parrot)
    for server in (web, parrot):
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
    return web.server_port


def machine(size):
    """The demo's machine, with a new disk, and a terminal of so many columns and rows."""
    disk = FOLDER / "disk"
    disk.unlink(missing_ok=True)
    disk.touch()
    os.truncate(disk, 64 * MIB)
    return vm.Machine(cpus=2, disks=[disk], net=[], vsock=f"3,{FOLDER}/vsock",
                      append=f"quiet strake.size={size[0]}x{size[1]}")


def introduce():
    """One line on what is about to run."""
    release, = (fetch.GUEST / "base" / "modules").iterdir()
    version = subprocess.run([vm.strake(), "--version"], capture_output=True, text=True,
                             check=True).stdout.strip()
    kvm = "unused" if os.path.exists("/dev/kvm") else "absent"
    print(f"{version}: Debian's kernel {release.name},")
    print(f"2 harts, 512 MiB, on {platform.machine()} with /dev/kvm {kvm}.", flush=True)


def shell(port):
    """The guest on this terminal; returns Strake's exit status."""
    print(f"""
The shell that comes is root's, in the guest. Try there:
  cat /proc/cpuinfo                        the harts
  dmesg | grep SBI                         who the kernel's firmware is: Strake
  mke2fs /dev/vda; mount /dev/vda /mnt     a disk (here: build/demo/disk)
  wget -qO- http://10.0.2.2:{port}/         a page from this machine's loopback
  echo hello | vsock connect {VSOCK_PORT}          a stream to a Unix socket of this machine
  poweroff                                 or Ctrl-A x, which pulls the plug
""", flush=True)
    return subprocess.run(machine(shutil.get_terminal_size()).strake_command(),
                          check=False).returncode


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


def tour(port):
    """Shows the guest at work; returns 0, or 1 if something was not as it should be."""
    bold, plain = ("\033[1m", "\033[0m") if sys.stdout.isatty() else ("", "")
    failed = []

    def verdict(good, what):
        print(f"   {'ok' if good else 'FAILED'}: {what}", flush=True)
        if not good:
            failed.append(what)

    with vm.Running(machine((500, 50)).strake_command()) as guest:
        guest.expect(vm.PROMPT)
        print(f"\nAt the guest's prompt after {time.monotonic() - guest.started:.1f} s.")
        for title, commands, wanted in stops(port):
            print(f"\n{bold}{title}{plain}")
            shown = ""
            for command in commands:
                print(f"   # {command}", flush=True)
                status, output = guest.shell(command)
                print("".join(f"   {line}\n" for line in output.splitlines()), end="", flush=True)
                shown += output if status == 0 else f"status {status}\n"
            if not re.search(wanted, shown, re.MULTILINE) or "status " in shown:
                verdict(False, title)
        note = b"A note from the guest." in (FOLDER / "disk").read_bytes()
        now = datetime.datetime.now(datetime.timezone.utc)
        print(f"   (this machine's: {now:%a %b %d %H:%M:%S UTC %Y})")
        print(f"\n{bold}And off{plain}\n   # poweroff", flush=True)
        guest.send("poweroff\n")
        status = guest.wait()
    verdict(note, "the guest's note is in this machine's file build/demo/disk")
    verdict(status == 0, f"power-off ended Strake with status {status}")
    return 1 if failed else 0


def main():
    try:
        fetch.fetch("base")
        initramfs.build()
        FOLDER.mkdir(parents=True, exist_ok=True)
        port = serve()
        introduce()
        return shell(port) if sys.stdin.isatty() else tour(port)
    except vm.Timeout as silence:
        return f"demo: the guest is silent: {silence}"
    except (archive.ArchiveError, OSError, ValueError, subprocess.CalledProcessError) as error:
        return f"demo: {error}"


if __name__ == "__main__":
    sys.exit(main())
