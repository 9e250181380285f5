# SPDX-License-Identifier: BSD-2-Clause
"""What the ends of lib/ends.py send each other."""

import hashlib
import random
import socket
import struct
import threading

CONTENT = random.Random(4).randbytes(6_000_013)


def exchange(client, server, size=len(CONTENT)):
    """What the client's side sends comes back whole: a stream of unequal ends, each in its own thread."""
    def echo():
        peer, _ = server.accept()
        with peer:
            while data := peer.recv(262144):
                peer.sendall(data)
    threading.Thread(target=echo, daemon=True).start()
    sender = threading.Thread(target=client.sendall, args=(CONTENT[:size],))
    sender.start()
    digest, left = hashlib.sha256(), size
    while left > 0 and (data := client.recv(262144)):
        digest.update(data)
        left -= len(data)
    sender.join()
    return digest.digest() == hashlib.sha256(CONTENT[:size]).digest()


def connection(source, here, target, there, port):
    """A TCP connection between two ends, with the server that took it."""
    server = target.socket(socket.SOCK_STREAM, there, port)
    server.listen()
    client = source.socket(socket.SOCK_STREAM, here)
    client.connect((there, port))
    return client, server


def frame(protocol, payload, tag=None):
    """An Ethernet frame to everybody."""
    vlan = b"" if tag is None else struct.pack(">HH", 0x8100, tag)
    return b"\xff" * 6 + b"\x02\0\0\0\0\x99" + vlan + struct.pack(">H", protocol) + payload


def ping(source, here, there):
    """Whether an echo request is answered."""
    kind, protocol, base, reply = (socket.AF_INET6, 58, 128, 129) if ":" in there else (socket.AF_INET, 1, 8, 0)
    with source():
        raw = socket.socket(kind, socket.SOCK_RAW, protocol)
    with raw:
        raw.settimeout(60)
        raw.bind((here, 0))
        # The check sum of IPv4's; the kernel makes that of IPv6's.
        raw.sendto(struct.pack(">BBHHH", base, 0, ~(base * 256 + 7 + 9) & 0xffff, 7, 9), (there, 0))
        while True:
            try:
                packet = raw.recv(2048)
            except TimeoutError:
                return False
            if packet[0 if protocol == 58 else 20] == reply:
                return True


def count(frames, text):
    return sum(text in entry for entry in frames)


def check_sum(data):
    """The Internet's, of an even number of bytes (RFC 1071)."""
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff


def datagram(here, there, port, payload):
    """An IPv4 packet of UDP, without a check sum of its own."""
    head = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 28 + len(payload), 0, 0, 64, 17, 0, socket.inet_aton(here),
                       socket.inet_aton(there))
    head = head[:10] + struct.pack(">H", check_sum(head)) + head[12:]
    return head + struct.pack(">HHHH", 4000, port, 8 + len(payload), 0) + payload
