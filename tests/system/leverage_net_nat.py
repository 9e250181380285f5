#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Mode nat: the guest has the host's public addresses; the host and another host, on a bridge (`lan`), are in a
private network behind it, with addresses and names from the guest. Ports are forwarded to the inside."""

import secrets
import socket
import struct
import threading

from lib.harness import check, main
from lib.leverage import LIBC, Capture, Outside, configuration, ip, wait_until
from lib.wire import (HOST, HOST6, OUT, OUT6, PATIENCE, SO_BINDTODEVICE, Wire, check_as_before, refused,
                      talk)

INSIDE, GATEWAY = "10.83.0.2", "10.83.0.1"
NAME, ANSWER = b"\x03www\x07example\x00", "198.51.100.7"
MS_BIND = 4096
FORWARDS = ["tcp:8080-10.83.0.2:80", "udp:5353-10.83.0.2:5000"]


def nat(test):
    """The whole of it."""
    wire = Wire(test, taps=("fw0", "strake0", "lan0"))
    resolv = test.folder / "resolv.conf"
    resolv.write_text(f"nameserver 127.0.0.53\nnameserver {OUT}\n", encoding="ascii")
    LIBC.mount(str(resolv).encode(), b"/etc/resolv.conf", None, MS_BIND, None)
    ip("link add br0 type bridge")
    ip("link set br0 up")
    inside = Outside(test, here="port0")
    ip("link set port0 master br0")
    serve_names(wire)
    wait_until(lambda: "state UP" in ip("link show br0") and "tentative" not in ip("address show dev br0"),
               "the bridge is up")
    before = configuration()
    wire.intercept(mode="nat", module="fw", lan="br0", forward=FORWARDS)
    check("master br0" in ip("link show lan0"), "the third tap is a port of the bridge")
    outwards(wire)
    forwarded(wire)
    neighbour(wire, inside)
    addresses_change(wire)
    wire.host.give_up("wan")
    check_as_before(before, "after the removal the host's configuration is as before", "fw0", "strake0",
                    "lan0")
    talk(wire.connect(HOST, 81))
    wire.host.call("POST", wire.host.path("fw", "/kill"))


def seen_as(wire, make, address, port=4444):
    """Who somebody is to the outside host, to which he connects."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listener = wire.outside.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((address, port))
    listener.listen()
    listener.settimeout(PATIENCE)
    client = make(family, socket.SOCK_STREAM)
    client.settimeout(PATIENCE)
    client.connect((address, port))
    server, peer = listener.accept()
    server.settimeout(PATIENCE)
    talk((client, server))
    listener.close()
    return peer[0]


def outwards(wire):
    """What the host begins."""
    check(f"via {GATEWAY} dev strake0 src {INSIDE}" in
          ip("route get 198.51.100.1").replace(" proto 83", ""), "the host's way out is the guest")
    for address, public in ((OUT, HOST), (OUT6, HOST6)):
        check(seen_as(wire, socket.socket, address) == public, f"the host is {public} to {address}")
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sender.setsockopt(socket.SOL_SOCKET, SO_BINDTODEVICE, b"eth0")
    sender.bind((HOST, 0))
    capture = Capture("eth0", wire.outside)
    ip(f"neighbour replace {OUT} lladdr 02:00:00:00:00:99 dev eth0 nud reachable")
    sender.sendto(b"past the guest", (OUT, 5000))
    sender.sendto(b"a question", (OUT, 67))
    talk(wire.connect(OUT, 4445, there=False))
    capture.stop()
    ip(f"neighbour del {OUT} dev eth0")
    check(not capture.has(b"past the guest"), "the host sends nothing past the guest")
    check(capture.has(b"a question"), "but for what asks for the device's own addresses")
    listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    listener.setsockopt(socket.SOL_SOCKET, SO_BINDTODEVICE, b"eth0")
    listener.bind((HOST, 68))
    listener.settimeout(PATIENCE)
    wire.outside.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"an answer", (HOST, 68))
    check(listener.recv(100) == b"an answer", "and the device hears the answer")


def accept_here(wire, address, port, to):
    """A connection from outside to one of our ports, and who it is from."""
    listener = socket.create_server(("0.0.0.0", to))
    listener.settimeout(PATIENCE)
    client = wire.outside.socket(socket.AF_INET, socket.SOCK_STREAM)
    client.settimeout(PATIENCE)
    client.connect((address, port))
    server, peer = listener.accept()
    listener.close()
    server.settimeout(PATIENCE)
    talk((client, server))
    return peer[0]


def forwarded(wire):
    """Ports that lead to the inside, and others, which do not."""
    capture = Capture("strake0")
    check(accept_here(wire, HOST, 8080, 80) == OUT, "port 8080 leads to the host's port 80")
    receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    receiver.bind((INSIDE, 5000))
    receiver.settimeout(PATIENCE)
    sender = wire.outside.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sender.sendto(b"forbidden", (HOST, 5000))
    sender.sendto(b"permitted" * 400, (HOST, 5353))
    check(receiver.recv(65536) == b"permitted" * 400, "UDP's port 5353 to port 5000, fragments too")
    check(refused(lambda: (accept_here_quickly(wire, 80),)), "port 80 itself leads nowhere")
    capture.stop()
    check(not capture.has(b"forbidden"), "nor does anything else: strake0 has not seen it")


def accept_here_quickly(wire, port):
    """A connection that is not to come about."""
    client = wire.outside.socket(socket.AF_INET, socket.SOCK_STREAM)
    client.settimeout(1.5)
    client.connect((HOST, port))
    return client


# ---- DHCP (RFC 2131) and DNS (RFC 1035), as little as a test needs

def dhcp(inside, mac, kind, options=b""):
    """Asks for an address; (the address, options by number) of the answer."""
    transaction = secrets.token_bytes(4)
    query = struct.pack(">BBBB4sHH16s16s192s4s", 1, 1, 6, 0, transaction, 0, 0x8000, b"", mac, b"",
                        bytes([99, 130, 83, 99])) + bytes([53, 1, kind]) + options + b"\xff"
    asker = inside.socket(socket.AF_INET, socket.SOCK_DGRAM)
    asker.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    asker.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    asker.setsockopt(socket.SOL_SOCKET, SO_BINDTODEVICE, b"eth0")
    asker.bind(("", 68))
    asker.settimeout(3)
    for _ in range(20):
        asker.sendto(query, ("255.255.255.255", 67))
        try:
            answer = asker.recv(2000)
        except TimeoutError:
            continue
        if answer[4:8] != transaction:
            continue
        found, rest = {}, answer[240:]
        while rest and rest[0] != 255:
            found[rest[0]], rest = rest[2:2 + rest[1]], rest[2 + rest[1]:]
        return socket.inet_ntoa(answer[16:20]), found
    raise TimeoutError("nobody answers by DHCP")


def serve_names(wire):
    """A name server outside, which knows one name."""
    server = wire.outside.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind((OUT, 53))

    def serve():
        while True:
            query, peer = server.recvfrom(2000)
            wire.asked_by = peer[0]
            end = query.index(b"\0", 12) + 5
            server.sendto(query[:2] + struct.pack(">HHHHH", 0x8180, 1, 1, 0, 0) + query[12:end] +
                          struct.pack(">HHHIH", 0xc00c, 1, 1, 60, 4) + socket.inet_aton(ANSWER), peer)

    threading.Thread(target=serve, daemon=True).start()


def resolve(make, server):
    """What a name server says of the name."""
    asker = make(socket.AF_INET, socket.SOCK_DGRAM)
    asker.settimeout(5)
    for _ in range(10):
        asker.sendto(struct.pack(">HHHHHH", 7, 0x0100, 1, 0, 0, 0) + NAME + struct.pack(">HH", 1, 1), (server, 53))
        try:
            return socket.inet_ntoa(asker.recv(2000)[-4:])
        except TimeoutError:
            pass
    raise TimeoutError("nobody answers for names")


def neighbour(wire, inside):
    """Another host, on the bridge."""
    line = inside.ip("-o link show eth0")
    mac = bytes.fromhex(line.split("link/ether ")[1].split()[0].replace(":", ""))
    offered, options = dhcp(inside, mac, 1)
    check(offered.startswith("10.83.0."), f"another host behind the guest is offered an address, {offered}")
    given, options = dhcp(inside, mac, 3, bytes([50, 4]) + socket.inet_aton(offered) + bytes([54, 4]) + options[54])
    check(options[53] == b"\x05" and given == offered and socket.inet_ntoa(options[3]) == GATEWAY,
          f"gets it, and its gateway, {GATEWAY}")
    name_server = socket.inet_ntoa(options[6])
    inside.ip(f"address add {given}/24 dev eth0")
    inside.ip(f"route add default via {GATEWAY}")
    check(resolve(inside.socket, name_server) == ANSWER, f"and names from {name_server}")
    check(wire.asked_by == HOST, "which has asked the host's own name server")
    check(seen_as(wire, inside.socket, OUT) == HOST, f"it is {HOST} to the outside, too")
    listener = socket.create_server((INSIDE, 7000))
    client = inside.socket(socket.AF_INET, socket.SOCK_STREAM)
    client.settimeout(PATIENCE)
    client.connect((INSIDE, 7000))
    server, peer = listener.accept()
    listener.close()
    talk((client, server))
    check(peer[0] == given, "and it reaches the host inside")


def addresses_change(wire):
    """The device gets another address: the guest does."""
    ip("address add 192.0.2.3/24 dev eth0")
    wait_until(lambda: not refused(lambda: (accept_soon(wire, "192.0.2.3"),)),
               "the guest has an address that the device gets")
    check(True, "an address that the device gets meanwhile is the guest's")
    ip("address del 192.0.2.3/24 dev eth0")
    check("dev strake0" in ip("route get 198.51.100.1"), "the routes have not changed")


def accept_soon(wire, address):
    """A connection by the first forward, tried once."""
    listener = socket.create_server(("0.0.0.0", 80))
    client = wire.outside.socket(socket.AF_INET, socket.SOCK_STREAM)
    client.settimeout(2)
    try:
        client.connect((address, 8080))
    finally:
        listener.close()
    return client


main(nat)
