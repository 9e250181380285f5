# SPDX-License-Identifier: BSD-2-Clause
"""A guest that is busy, and watched: guest/load.c and guest/probe.c from the host's side. System
tests and the benchmark of handover have this in common.

A guest needs a network with a forward to port ECHO_PORT, and a disk for the loads of these names.
"""

import dataclasses
import json
import os
import socket
import struct
import threading
import time
import zlib

ECHO_PORT = 7
BLOCK_BYTES, MESSAGE_BYTES = 16384, 8192
HEADER = struct.Struct("<QQQ")  # number, generation, CRC-32 of the rest
UNANSWERED_MAX = 4
TIMEOUT = 120  # seconds for an answer, on a busy machine


def is_right(data, number, generation=None):
    """Whether a block or a message is the one with this number, unharmed."""
    found, found_generation, crc = HEADER.unpack_from(data)
    return (found == number and generation in (None, found_generation)
            and crc == zlib.crc32(data[HEADER.size:]))


def check_image(path):
    """Looks at each block that a guest has written to a disk's file: (how many are wrong, the
    checksum of their generations as the guest's `load disk` has it)."""
    wrong, generations = 0, b""
    with open(path, "rb") as image:
        number = 0
        while block := image.read(BLOCK_BYTES):
            generation = block[8:16]
            generations += generation
            wrong += generation != bytes(8) and not is_right(block, number)
            number += 1
    return wrong, zlib.crc32(generations)


@dataclasses.dataclass
class Stream:
    """What one end of a connection has seen; `crc` is of all that it received."""

    sent: int = 0
    received: int = 0
    wrong: int = 0
    crc: int = 0

    def receive(self, connection):
        """Takes one message; None at the end."""
        data = b""
        while len(data) < MESSAGE_BYTES:
            more = connection.recv(MESSAGE_BYTES - len(data))
            if not more:
                return None
            data += more
        self.wrong += not is_right(data, self.received, 0)
        self.crc = zlib.crc32(data, self.crc)
        self.received += 1
        return data


class Peer:
    """The host's ends of the streams: it sends back what the guest sends, and sends messages to the
    guest. What the last connections saw is in `echo` and `call`."""

    def __init__(self):
        self.echo, self.call = Stream(), Stream()
        self.calls = 0  # connections made
        self._ending = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._caller = None
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            try:
                connection = self._listener.accept()[0]
            except OSError:  # closed
                return
            self.echo = Stream()
            threading.Thread(target=self._send_back, args=(connection, self.echo),
                             daemon=True).start()

    @staticmethod
    def _send_back(connection, stream):
        with connection:
            try:
                while data := stream.receive(connection):
                    connection.sendall(data)
                    stream.sent += 1
            except OSError:
                pass

    def start_calling(self, port_of, pause):
        """Sends the guest a message each `pause` seconds; port_of() is the loopback port to
        reach it through, and is asked again when a connection is lost."""
        def converse():
            while not self._ending.is_set():
                try:
                    self._converse(port_of(), pause)
                except OSError:
                    time.sleep(0.1)

        self._caller = threading.Thread(target=converse, daemon=True)
        self._caller.start()

    def _converse(self, port, pause):
        stream = Stream()
        noise = os.urandom(2 * MESSAGE_BYTES)
        with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT) as connection:
            self.call = stream
            self.calls += 1
            while not self._ending.wait(pause):
                body = noise[stream.sent % MESSAGE_BYTES:][:MESSAGE_BYTES - HEADER.size]
                connection.sendall(HEADER.pack(stream.sent, 0, zlib.crc32(body)) + body)
                stream.sent += 1
                while stream.sent - stream.received >= UNANSWERED_MAX:
                    if not stream.receive(connection):
                        return
            while stream.received < stream.sent and stream.receive(connection):
                pass

    def stop_calling(self):
        """Ends the stream to the guest, when all is answered."""
        self._ending.set()
        if self._caller:
            self._caller.join(TIMEOUT)

    def close(self):
        """Takes no more connections."""
        self._ending.set()
        self._listener.close()


@dataclasses.dataclass
class Stretch:
    """What the probe recorded from a begin to its end: a dictionary a hart, see guest/probe.c."""

    harts: list

    @property
    def longest_ms(self):
        """The longest gap on any hart."""
        return max(hart["longest_us"] for hart in self.harts) / 1000

    @property
    def back_ms(self):
        """By how much the clock went back on any hart."""
        return max(hart["back_us"] for hart in self.harts) / 1000

    def longest_between_ms(self, begin, end):
        """The longest gap in the intervals that have a part between two readings of the clock."""
        return max((hart["longest"][at] for hart in self.harts
                    for at in self._intervals(hart, begin, end)), default=0) / 1000

    def speed(self, begin=None, end=None):
        """Steps per millisecond on all harts, in the whole stretch or in the intervals that have
        a part between two readings of the clock."""
        total = 0
        for hart in self.harts:
            steps = [hart["steps"][at] for at in self._intervals(hart, begin, end)]
            total += sum(steps) / (len(steps) * hart["interval_us"] / 1000) if steps else 0
        return total

    @staticmethod
    def _ticks(hart):
        return hart["interval_us"] * hart["ticks_per_us"]

    def _intervals(self, hart, begin, end):
        """Indexes of whole intervals; the last one of a stretch is not."""
        ticks = self._ticks(hart)
        whole = len(hart["steps"]) - 1
        first = 0 if begin is None else (begin - hart["start"]) // ticks
        last = whole if end is None else -((hart["start"] - end) // ticks)
        return range(max(0, first), min(whole, last))


class Guest:
    """The loads and the probe of a guest whose console is at the shell's prompt."""

    def __init__(self, console, peer, timeout=TIMEOUT):
        self.console = console
        self.peer = peer
        self.timeout = timeout
        self.cpus = 0
        self.ticks_per_us = 10
        self._loads = []

    def load(self, name, command):
        """Starts a load in the guest."""
        self._loads.append(name)
        self._shell(f"{{ load {name} {command} >/tmp/load.{name} 2>&1 & }}")

    def load_all(self, port_of, disk="/dev/vda", disk_pause_ms=100, tcp_pause_ms=50):
        """Starts all loads. The disk's are several writers that each pause; the streams are one each
        way."""
        if disk:
            self.load("disk", f"{disk} {disk_pause_ms}")
        self.load("tcp", f"10.0.2.2 {self.peer.port} {tcp_pause_ms}")
        self.load("echo", ECHO_PORT)
        self.load("wake", 10)
        self.peer.start_calling(port_of, tcp_pause_ms / 1000)

    def start_probe(self):
        """Starts the probe, which has the console until quit()."""
        self.console.send("probe\n")
        self.cpus = int(self.console.expect(r"probe: ready with (\d+) harts\r?\n",
                                            self.timeout).group(1))

    def begin(self):
        """Begins a stretch."""
        self.console.send("begin\n")
        self.console.expect(r"probe: begun\r?\n", self.timeout)

    def end(self):
        """Ends it; returns the Stretch."""
        self.console.send("end\n")
        harts = [json.loads(self.console.expect(r"probe: (\{.*\})\r?\n", self.timeout).group(1))
                 for _ in range(self.cpus)]
        self.console.expect(r"probe: done\r?\n", self.timeout)
        self.ticks_per_us = harts[0]["ticks_per_us"]
        return Stretch(harts)

    def clock_offset(self, samples=20):
        """What to add to the host's monotonic clock, in ticks, for the guest's reading: as the
        quickest of some answers says."""
        best = None
        for _ in range(samples):
            asked = time.monotonic()
            self.console.send("time\n")
            reading = int(self.console.expect(r"probe: time (\d+)\r?\n", self.timeout).group(1))
            took = time.monotonic() - asked
            if best is None or took < best[0]:
                best = took, reading - int((asked + took / 2) * 1e6 * self.ticks_per_us)
        return best[1]

    def sleep(self, timeout):
        """Has the guest sleep for a millisecond; vm.Timeout if it does not wake up again."""
        self.console.send("sleep\n")
        self.console.expect(r"probe: slept\r?\n", timeout)

    def quit_probe(self):
        """Ends the probe: the console is the shell's again."""
        self.console.send("quit\n")
        self._shell("true")

    def finish(self):
        """Ends the loads; returns what each has to say, a list of dictionaries by its name."""
        self.peer.stop_calling()
        self._shell("killall -TERM load; wait")
        said = {name: [] for name in self._loads}
        for name in self._loads:
            for line in self._shell(f"cat /tmp/load.{name}").splitlines():
                if line.startswith("load: {"):
                    said[name].append(json.loads(line[len("load: "):]))
        return said

    def _shell(self, command):
        status, output = self.console.shell(command, self.timeout)
        if status:
            raise ValueError(f"'{command}' fails in the guest: {output.strip()}")
        return output
