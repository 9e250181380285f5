# SPDX-License-Identifier: BSD-2-Clause
"""A Debian guest, the apt repository that is its only source, and the partition it runs in: what the tests of
updates by apt have in common."""

import contextlib
import functools
import http.server
import json
import os
import shutil
import socket
import subprocess
import threading
import time
from pathlib import Path

from lib.daemon import PATIENCE, Supervisor, create
from lib.harness import Failed, check
import busy
import cpio
import debian
import initramfs
import packages
import repository
import vm

HOUR = 3600  # seconds, for what takes a minute on a quiet machine

SOURCE = """Types: deb
URIs: http://10.0.2.2:{port}/
Suites: ./
Signed-By: /etc/apt/keyrings/strake.asc
"""
# A root shell without a terminal, at the end of a stream to the test.
SHELL = "exec /bin/bash 0<>/dev/tcp/10.0.2.2/{port} >&0 2>&1"
UNIT = """[Service]
ExecStart=/bin/bash -c '{shell}'
Environment=HOME=/root LC_ALL=C
Restart=always
RestartSec=1
"""
NETWORK = """
ip link set eth0 up
ip address add 10.0.2.15/24 dev eth0
ip route add default via 10.0.2.2
"""
UPGRADE = "apt-get -q update && apt-get -q -y upgrade"


class Shell(vm.Console):
    """A root shell in the guest."""

    def __init__(self, listener):
        super().__init__()
        self._connection, _ = listener.accept()
        self.watch(self._connection.recv)

    def write(self, data):
        self._connection.sendall(data)

    def run(self, command):
        """Runs a command: its status and what it printed."""
        status, said = self.shell(f"{{ {command}; }} </dev/null", HOUR)
        print("".join(f"    {line}\n" for line in [f"# {command}", *said.splitlines()]), end="",
              flush=True)
        return status, said

    def done(self, command):
        """Runs a command that has to succeed; what it printed."""
        status, said = self.run(command)
        if status != 0:
            raise Failed(f"'{command}' ends with status {status} in the guest")
        return said


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves a folder's files."""

    def log_message(self, *_words):
        pass


class Archive:
    """The repository, its web server, and the keys that updates are signed with."""

    def __init__(self, test):
        self.test = test
        self.folder, self.keys = test.folder / "repository", test.folder / "keys"
        self.trusted = test.folder / "trusted"
        self.trusted.mkdir()
        self.own = json.loads(strake("monitor", "--self-test"))["version"]
        for name in ("good", "other"):
            strake("package", "keygen", "--no-password", test.folder / name)
        self.trust("good")
        self.folder.mkdir()
        self.server = http.server.ThreadingHTTPServer(
            ("127.0.0.1", 0), functools.partial(Quiet, directory=str(self.folder)))
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def trust(self, key):
        """Has the host trust a key."""
        shutil.copy(self.test.folder / f"{key}.pub", self.trusted / f"{key}.pub")

    def publish(self, version, key="good", filler=0, with_guest=True):
        """Puts an update to a version into the repository; strake-guest is in it, and beside it."""
        folder = self.test.folder / version
        guest = packages.guest(folder, version)
        program = Path(vm.strake()).read_bytes()
        program = program.replace(b"\0%s\0" % self.own.encode(), b"\0%s\0" % version.encode())
        (folder / "program").write_bytes(program + os.urandom(filler))
        strake("package", "build", "--key", self.test.folder / f"{key}.key", "--program",
               folder / "program", "--version", version, "--expires", "2100-01-01T00:00:00Z",
               "--guest", guest, folder / "package.strake")
        update = packages.update(folder, folder / "package.strake")
        repository.make(self.folder, [update, *([guest] if with_guest else [])], self.keys)


def strake(*words):
    """Runs a subcommand; what it prints."""
    return subprocess.run([vm.strake(), *map(str, words)], check=True, timeout=HOUR,
                          stdout=subprocess.PIPE).stdout


class Guest:
    """The Debian guest, its partition and its shell."""

    def __init__(self, test, systemd=True):
        self.archive = Archive(test)
        self.archive.publish(self.archive.own)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.settimeout(HOUR)
        shell = SHELL.format(port=self.listener.getsockname()[1])
        disk = debian.copy(debian.build(), test.folder / "disk")
        initrd = test.folder / "initrd"
        if systemd:
            debian.boot(initrd, self._files(shell), NETWORK)
        else:
            debian.run(initrd, self._files(shell), shell)
        self.definition = {"kernel": str(vm.KERNEL), "initrd": str(initrd), "memory": "1G", "cpus": 2,
                           "append": "quiet", "net": "user", "disk": str(disk)}
        self.supervisor = Supervisor(test, ["--trusted", self.archive.trusted])
        self.shell = None

    def _files(self, shell):
        """What is to be on the disk: a shell for us, and the repository as its only source."""
        root = cpio.Tree()
        units = "etc/systemd/system"
        root.file("etc/apt/sources.list", "")
        root.file("etc/apt/sources.list.d/strake.sources",
                  SOURCE.format(port=self.archive.server.server_port))
        root.file("etc/apt/keyrings/strake.asc", (self.archive.folder / "archive.asc").read_bytes())
        root.file("usr/local/bin/load", initramfs.compile_static(initramfs.SOURCES / "load.c"), 0o755)
        root.file(f"{units}/test-shell.service", UNIT.format(shell=shell))
        root.link(f"{units}/multi-user.target.wants/test-shell.service", "../test-shell.service")
        for timer in ("apt-daily", "apt-daily-upgrade"):  # apt is ours alone
            root.link(f"{units}/{timer}.timer", "/dev/null")
        return root

    def boot(self, **more):
        """Creates the partition, and waits for the guest's shell."""
        create(self.supervisor, "debian", self.definition, **more)
        self.wait_shell("Debian boots")

    @contextlib.contextmanager
    def watched(self):
        """Shows the guest's console when something fails."""
        try:
            yield
        except (Failed, vm.Timeout, TimeoutError):
            print(self.supervisor.console("debian")[-3000:])
            raise

    def wait_shell(self, what):
        """The guest's next shell."""
        start = time.monotonic()
        self.shell = Shell(self.listener)
        self.shell.done("cat /etc/debian_version")
        check(True, f"{what}, in {time.monotonic() - start:.0f} s")

    def wait_for(self, condition):
        """Waits until something has happened."""
        deadline = time.monotonic() + PATIENCE * 10
        while not condition():
            if time.monotonic() > deadline:
                raise Failed("what is waited for does not happen")
            time.sleep(1)

    def beneath(self):
        """The version that runs."""
        return self.supervisor.call("GET", "/v1")["version"]

    def installed(self):
        """Versions that dpkg has, and no state but installed."""
        said = self.shell.done("dpkg-query -W -f '${Package} ${Version} ${Status}\\n' strake-guest "
                               "strake-monitor-update; dpkg --audit strake-guest strake-monitor-update")
        lines = [line.split(" ", 2) for line in said.splitlines()]
        if any(rest[2:] != ["install ok installed"] for rest in lines):
            raise Failed(f"dpkg has unfinished business: {said}")
        return {name: version for name, version, _ in lines}


def the_same(guest):
    """The package of the version that runs already."""
    version = guest.archive.own
    said = guest.shell.done("apt-get -q update && apt-get -q -y install strake-monitor-update")
    check(f"Strake {version} runs beneath" in said and "nothing to update" in said
          and guest.supervisor.show("debian")["handovers"] == 0,
          "installing the package of the version that runs already succeeds, and says so")
    check(guest.installed() == {"strake-guest": version, "strake-monitor-update": version},
          "both packages are installed")


def the_flagship(guest):
    """`apt-get upgrade` replaces the monitor."""
    version = "1.0.0"
    peer = busy.Peer()
    guest.shell.done(f"{{ load tcp 10.0.2.2 {peer.port} 20 >/tmp/load 2>&1 & echo $! >/tmp/pid; }}")
    before = guest.shell.done("cat /proc/sys/kernel/random/boot_id; cut -d. -f1 /proc/uptime").split()
    pid = guest.supervisor.show("debian")["pid"]
    guest.archive.publish(version)
    status, said = guest.shell.run(UPGRADE)
    beneath, partition = guest.beneath(), guest.supervisor.show("debian")
    check(status == 0, "apt-get upgrade returns 0")
    check(beneath == version and partition["handovers"] == 1 and partition["pid"] != pid,
          f"as it returns, Strake {beneath} runs beneath, in another process")
    check(f"is replaced by {version}" in said, "it tells so")
    after = guest.shell.done("cat /proc/sys/kernel/random/boot_id; cut -d. -f1 /proc/uptime").split()
    check(after[0] == before[0] and int(after[1]) >= int(before[1]),
          f"the guest has not been restarted: up for {before[1]} s, then {after[1]} s")
    check(guest.installed() == {"strake-guest": version, "strake-monitor-update": version},
          "dpkg has the new version of both packages")
    said = guest.shell.done("kill $(cat /tmp/pid); wait; cat /tmp/load")
    stream = json.loads(said[len("load: "):])
    check(stream["connections"] == 1 and stream["wrong"] == peer.echo.wrong == 0
          and stream["received"] == stream["sent"] == peer.echo.received == peer.echo.sent > 0
          and stream["crc"] == peer.echo.crc,
          f"the TCP stream saw no error: {stream['sent']} messages went and came, with the same "
          f"checksum at both ends, and waited {stream['slowest_us'] / 1e6:.1f} s at most")
    peer.close()
