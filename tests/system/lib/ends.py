# SPDX-License-Identifier: BSD-2-Clause
"""Network namespaces of a test's own: end points on either side of a guest."""

import contextlib
import ctypes
import os
import signal
import socket
import struct
import subprocess

from lib.leverage import CLONE_NEWNET, LIBC

ETH_ALL = 3


class End:
    """A namespace with one interface, a tap that a guest holds already."""

    def __init__(self, tap, *addresses):
        self.tap = tap
        self.holder = subprocess.Popen(["unshare", "-n", "sh", "-c", "echo; exec sleep 86400"],
                                       stdout=subprocess.PIPE)
        self.holder.stdout.readline()
        run("ip", "link", "set", tap, "netns", str(self.holder.pid))
        self.network = os.open(f"/proc/{self.holder.pid}/ns/net", os.O_RDONLY)
        self.run("sysctl", "-q", "-w", "net.ipv6.conf.default.accept_dad=0", f"net.ipv6.conf.{tap}.accept_dad=0",
                 f"net.ipv6.conf.{tap}.accept_ra=0")
        self.run("ip", "link", "set", "lo", "up")
        self.run("ip", "link", "set", tap, "up")
        for address in addresses:
            self.add(address)

    def add(self, address):
        """Gives the interface an address."""
        self.run("ip", "address", "add", address, "dev", self.tap, *(["nodad"] if ":" in address else []))

    def run(self, *command):
        """Runs a command in the namespace; returns what it prints."""
        return run("nsenter", "-t", str(self.holder.pid), "-n", *command)

    @contextlib.contextmanager
    def __call__(self):
        """Sockets that this thread opens are in the namespace meanwhile."""
        back = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        if LIBC.setns(self.network, CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns")
        try:
            yield
        finally:
            LIBC.setns(back, CLONE_NEWNET)
            os.close(back)

    def socket(self, kind, address="", port=0):
        """A bound socket; of IPv6 if the address has a colon."""
        with self():
            opened = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.settimeout(60)
        opened.bind((address, port))
        return opened

    def wire(self):
        """A socket with the interface's frames, in and out as they are on the wire."""
        with self():
            opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_ALL))
        opened.setsockopt(socket.SOL_SOCKET, 33, 1 << 26)  # SO_RCVBUFFORCE
        opened.setsockopt(263, 8, 1)  # SOL_PACKET, PACKET_AUXDATA: tags, which the kernel takes out
        opened.bind((self.tap, ETH_ALL))
        opened.settimeout(60)
        return opened

    def close(self):
        """Ends the namespace."""
        os.close(self.network)
        self.holder.send_signal(signal.SIGKILL)
        self.holder.wait()
        self.holder.stdout.close()


def run(*command):
    """Runs a command; returns what it prints."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def _read(wire):
    """The next frame on a wire(), with the tag that it had; None for one that was sent here."""
    frame, extra, _, (_, _, kind, _, _) = wire.recvmsg(70000, 64)
    if kind == socket.PACKET_OUTGOING:
        return None
    for level, number, data in extra:
        status, _, _, _, _, tag, protocol = struct.unpack("IIIHHHH", data)
        if (level, number) == (263, 8) and status & 0x10:  # TP_STATUS_VLAN_VALID
            frame = frame[:12] + struct.pack(">HH", protocol, tag) + frame[12:]
    return frame


def waiting(wire):
    """The frames that have arrived on a wire() and were not read: a wire that nobody reads loses what comes when it
    is full."""
    wire.setblocking(False)
    frames = []
    try:
        while True:
            frames.append(_read(wire))
    except BlockingIOError:
        return [frame for frame in frames if frame]


def received(wire, marker, seconds=60):
    """The frames that arrive on a wire() up to one that contains `marker`."""
    wire.settimeout(seconds)
    frames = []
    while not frames or marker not in frames[-1]:
        frame = _read(wire)
        if frame:
            frames.append(frame)
    return frames
