# SPDX-License-Identifier: BSD-2-Clause
"""net: one TCP connection through user-mode networking, to the guest and from it, by the host's
clock. The guest's ends are busybox' nc and dd. At SCALE=1 a direction takes 3 seconds."""

import socket
import tempfile
import time
from pathlib import Path

import fetch
import initramfs
import run as bench
import vm

SECONDS = 3  # at SCALE=1
LEAD_IN_S = 0.5  # until buffers are full and windows open
CHUNK = 1 << 20
TO_GUEST, FROM_GUEST = 5001, 5002

SCRIPT = f"""
nc -ll -p {TO_GUEST} -e dd of=/dev/null bs=64k 2>/dev/null &
nc -ll -p {FROM_GUEST} -e dd if=/dev/zero bs=64k 2>/dev/null &
while [ "$(netstat -ltn | grep -c ':500[12] ')" -lt 2 ]; do sleep 0.1; done
echo "the guest listens"
sleep 1000000
"""


def free_port():
    """A TCP port of the loopback interface that nobody uses at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def rate(move, seconds):
    """MB/s of what move() says that it has moved."""
    lead_in = time.monotonic() + LEAD_IN_S
    while time.monotonic() < lead_in:
        move()
    moved, start = 0, time.monotonic()
    while (passed := time.monotonic() - start) < seconds:
        moved += move()
    return moved / passed / 1e6


def transfers(ports, seconds):
    """MB/s each way."""
    data, inbox = bytes(CHUNK), bytearray(CHUNK)
    with socket.create_connection(("127.0.0.1", ports[0]), timeout=60) as sink:
        to_guest = rate(lambda: sink.send(data), seconds)
    with socket.create_connection(("127.0.0.1", ports[1]), timeout=60) as source:
        from_guest = rate(lambda: source.recv_into(inbox), seconds)
    return {"to the guest": to_guest, "from the guest": from_guest}


def run(options):
    """The rows; see bench/run.py."""
    fetch.fetch("base")
    initramfs.build()

    def measure(initrd, command):
        ports = free_port(), free_port()
        forwards = [f"tcp:127.0.0.1:{ports[0]}-:{TO_GUEST}",
                    f"tcp:127.0.0.1:{ports[1]}-:{FROM_GUEST}"]
        with vm.Running(command(options.machine(initrd=initrd, net=forwards))) as guest:
            guest.expect("the guest listens", timeout=1800)
            rates = transfers(ports, SECONDS * options.scale)
        print("".join(f"   {what} {value:.1f} MB/s\n" for what, value in rates.items()), end="")
        return rates

    with tempfile.TemporaryDirectory() as folder:
        initrd = vm.with_script(SCRIPT, Path(folder) / "initrd")
        samples = bench.measure(lambda _, command: measure(initrd, command), options)
    return [bench.row(what, "MB/s", samples) for what in samples]


def goals(result):
    return [(f"{entry['name']}, times as fast as QEMU", entry["ratio"], ">=", 1.5)
            for entry in result["rows"]]
