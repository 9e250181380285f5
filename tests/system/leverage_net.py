#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Packets between an outside host and the host go through a guest that filters: what its rules forbid never
shows on strake0, what they allow does, both ways, IPv4 and IPv6, TCP, UDP, ICMP, fragments, tagged frames.
Connections go on when the interceptor comes, when its partition is handed over, and when it goes."""

import json
import shutil
import socket
import struct
import time

from lib.harness import Skipped, check, main
from lib.leverage import Capture, configuration, ip, run, wait_until
from lib.wire import (ETH_P_ALL, HOST, HOST6, OUT, OUT6, SO_BINDTODEVICE, Wire, check_as_before, frame,
                      mac_of, refused, start_iperf, talk)

BIG = 4000  # bytes of a datagram that goes in three fragments
CASES = ((socket.AF_INET, HOST, OUT), (socket.AF_INET6, HOST6, OUT6))


def net(test):
    """The whole of it, with one guest."""
    if not shutil.which("iperf3"):
        raise Skipped("iperf3 is not installed")
    wire = Wire(test)
    before = configuration()
    early = wire.connect(HOST, 80)
    talk(early, b"y" * 1000)
    known = wire.intercept()
    check(known["state"] == "active", "the interceptor is active")
    talk(early)
    check(True, "a connection from before goes on through the guest")
    check_where(wire)
    streams(wire)
    datagrams(wire)
    echoes(wire)
    tagged(wire)
    outbound(wire)
    reload(wire)
    followed(wire)
    handed_over(wire)
    statistics(wire)
    late = wire.connect(HOST6, 80)
    wire.host.give_up("wan")
    check_as_before(before, "after the removal the host's configuration is as before", "fw0", "strake0")
    talk(early)
    talk(late)
    check(True, "connections from before and from meanwhile go on without the guest")
    wire.host.call("POST", wire.host.path("fw", "/kill"))
    check_as_before(wire.bare, "without the partition nothing is left")


def check_where(wire):
    """Routes, and what is still there."""
    for address in (OUT, OUT6, "198.51.100.1", "2001:db8:1::1"):
        check("dev strake0" in ip(f"route get {address}"), f"the way to {address} is through the guest")
    check("dev eth0" in ip("route show default"), "the device has its own routes still")
    check(mac_of("strake0") == mac_of("eth0"), "strake0 has the device's Ethernet address")


def tcp_ports(data):
    """The ports of a frame, if it is one of TCP and its IP header has no options."""
    kind, = struct.unpack_from(">H", data, 12)
    protocol, start = {0x0800: (data[23], 34), 0x86dd: (data[20], 54)}.get(kind, (None, 0))
    return set(struct.unpack_from(">HH", data, start)) if protocol == socket.IPPROTO_TCP else set()


def streams(wire):
    """TCP from outside."""
    for _, host, _ in CASES:
        capture = Capture("strake0")
        talk(wire.connect(host, 80))
        check(refused(lambda: wire.connect(host, 81, timeout=1.5)),  # pylint: disable=cell-var-from-loop
              f"port 81 of {host} cannot be connected to")
        there = set().union(*(tcp_ports(one) for one, _ in capture.stop())) & {80, 81}
        check(there == {80}, f"of TCP to {host}, only port 80 shows on strake0")


def datagrams(wire):
    """UDP from outside, whole and in fragments; what is forbidden goes first, so what is allowed comes after."""
    for family, host, _ in CASES:
        receivers = {}
        for port in (5000, 5001):
            receivers[port] = socket.socket(family, socket.SOCK_DGRAM)
            receivers[port].bind((host, port))
            receivers[port].settimeout(60)
        sender = wire.outside.socket(family, socket.SOCK_DGRAM)
        capture = Capture("strake0")
        for size in (100, BIG):
            sender.sendto(b"forbidden" * (size // 9), (host, 5001))
            sender.sendto(b"permitted" * (size // 9), (host, 5000))
            data = receivers[5000].recv(65536)
            check(data == b"permitted" * (size // 9), f"a datagram of {size} bytes comes to {host}")
        capture.stop()
        check(capture.has(b"permitted") and not capture.has(b"forbidden"),
              f"nothing of a forbidden one, fragments neither, shows on strake0 ({host})")
        receivers[5001].settimeout(0.1)
        check(refused(lambda: (receivers[5001].recv(1),)), "nor comes it to the host")


def icmp(kind, data):
    """An ICMP message, as a raw socket takes it."""
    message = struct.pack(">BBHHH", kind, 0, 0, 77, 1) + data
    total = sum(struct.unpack(f">{len(message) // 2}H", message))
    total = (total >> 16) + (total & 0xffff)
    total += total >> 16
    return message[:2] + struct.pack(">H", ~total & 0xffff) + message[4:]


def echoes(wire):
    """Pings; and what is no ping does not come through."""
    for family, host, protocol, echo, other in (
            (socket.AF_INET, HOST, socket.IPPROTO_ICMP, 8, 13),
            (socket.AF_INET6, HOST6, socket.IPPROTO_ICMPV6, 128, 140)):
        capture = Capture("strake0")
        pinger = wire.outside.socket(family, socket.SOCK_RAW, protocol)
        pinger.settimeout(60)
        pinger.sendto(icmp(other, b"forbidden!" * 4), (host, 0))
        pinger.sendto(icmp(echo, b"permitted!" * 200), (host, 0))
        while b"permitted!" not in pinger.recv(4096):
            pass
        check(True, f"{host} answers a ping, in fragments")
        capture.stop()
        check(capture.has(b"permitted!") and not capture.has(b"forbidden!"), "other ICMP does not get there")


def tagged(wire):
    """Frames with VLAN tags, and of types that nobody knows."""
    raw = wire.outside.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    raw.bind(("eth0", 0))
    to, source = mac_of("eth0"), mac_of("eth0", wire.outside)
    capture = Capture("strake0")
    for name, vlan, ethertype in ((b"unknown", None, 0x88b5), (b"twenty", 20, 0x88b5), (b"ten", 10, 0x88b5)):
        raw.send(frame(to, source, ethertype, name * 5, vlan))
    wait_until(lambda: capture.has(b"ten" * 5), "a frame of VLAN 10 comes through")
    capture.stop()
    check(not capture.has(b"twenty") and not capture.has(b"unknown"),
          "one of VLAN 20 does not, nor one of an unknown type")
    here = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    here.bind(("strake0", 0))
    outside = Capture("eth0", wire.outside)
    here.send(frame(source, to, 0x88b5, b"outwards-twenty", 20))
    here.send(frame(source, to, 0x88b5, b"outwards-ten", 10))
    wait_until(lambda: outside.has(b"outwards-ten"), "the same holds outwards")
    outside.stop()
    check(not outside.has(b"outwards-twenty"), "the same holds outwards")


def outbound(wire):
    """What the host sends: also past its routes."""
    for family, host, out in CASES:
        capture = Capture("eth0", wire.outside)
        talk(wire.connect(out, 4444, there=False))
        receiver = wire.outside.socket(family, socket.SOCK_DGRAM)
        receiver.bind((out, 5000))
        receiver.settimeout(60)
        # What answers the device's own questions for neighbours comes to strake0.
        ip(f"neighbour replace {out} lladdr {mac_of('eth0', wire.outside)} dev eth0 nud reachable")
        for device in ("", "eth0", "strake0"):
            sender = socket.socket(family, socket.SOCK_DGRAM)
            sender.setsockopt(socket.SOL_SOCKET, SO_BINDTODEVICE, device.encode())
            sender.bind((host, 0))
            for size in (100, BIG):
                sender.sendto(b"forbidden" * (size // 9), (out, 9))
                sender.sendto(b"permitted" * (size // 9), (out, 5000))
                check(receiver.recv(65536) == b"permitted" * (size // 9),
                      f"{size} bytes go to {out} by '{device}'")
        capture.stop()
        check(capture.has(b"permitted") and not capture.has(b"forbidden"),
              "what the guest forbids does not get out, whatever device it was sent by")
    raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    raw.bind(("eth0", 0))
    capture = Capture("eth0", wire.outside)
    here, there = mac_of("eth0"), mac_of("eth0", wire.outside)
    raw.send(frame(there, here, 0x88b5, b"forbidden"))
    raw.send(frame(there, here, 0x88b5, b"permitted", 10))
    wait_until(lambda: capture.has(b"permitted"), "a packet socket's frame gets out")
    capture.stop()
    check(not capture.has(b"forbidden"), "not even by a packet socket")


def reload(wire):
    """A user edits the rules."""
    check(refused(lambda: wire.connect(HOST, 8080, timeout=1.5)), "port 8080 is closed")
    wire.write_rules(ports="80, 5201, 8080")
    wire.host.call("POST", "/v1/interceptors/wan/reload")
    wait_until(lambda: not refused(lambda: wire.connect(HOST, 8080, timeout=2)),
               "it is open when the rules say so")
    check(True, "port 8080 is open when the rules say so")
    wire.write_rules(ports="80, 5201, nonsense-port")
    wire.host.api("POST", "/v1/interceptors/wan/reload")
    wait_until(lambda: "keeps its configuration" in wire.host.text(), "rules with a mistake are refused")
    check(not refused(lambda: wire.connect(HOST, 8080)), "rules with a mistake change nothing")
    wait_until(lambda: "firewall.nft:" in wire.host.interceptor("wan").get("why", ""), "it says what is wrong")
    check(wire.host.interceptor("wan")["state"] == "active", "the interceptor is active still, and says what is wrong")
    wire.write_rules(ports="80, 5201, 8080")
    wire.host.call("POST", "/v1/interceptors/wan/reload")
    wait_until(lambda: "why" not in wire.host.interceptor("wan"), "it is well again")
    check(True, "and no longer when it is mended")


def followed(wire):
    """The device changes, and strake0 with it; somebody else has a table, too."""
    process = wire.host.interceptor("wan")["pid"]
    run("nft add table netdev another")
    ip("address add 192.0.2.3/24 dev eth0")
    wait_until(lambda: "192.0.2.3/24" in ip("address show dev strake0"), "strake0 has a new address")
    talk(wire.connect("192.0.2.3", 80))
    check(True, "an address that the device gets meanwhile is the guest's matter, too")
    ip("address del 192.0.2.3/24 dev eth0")
    wait_until(lambda: "192.0.2.3" not in ip("address show dev strake0"), "strake0 has lost it")
    ip("link set eth0 mtu 1400")
    wait_until(lambda: "mtu 1400" in ip("link show strake0"), "strake0 has the device's MTU")
    talk(wire.connect(HOST, 80))
    ip("link set eth0 mtu 1500")
    wait_until(lambda: "mtu 1500" in ip("link show strake0"), "strake0 has the device's MTU")
    ip("link set eth0 down")
    wait_until(lambda: "strake0" not in ip("route show"), "routes go with the device")
    ip("link set eth0 up")
    if HOST6 not in ip("address show dev eth0"):  # the kernel takes IPv6's away
        ip(f"address add {HOST6}/64 dev eth0 nodad")
    for family, out in (("-4", OUT), ("-6", OUT6)):
        ip(f"{family} route replace default via {out} dev eth0")
    wait_until(lambda: "strake0" in ip("route get 198.51.100.1") and "strake0" in
               ip("route get 2001:db8:1::1"), "routes come back with it")
    for _, host, _ in CASES:
        talk(wire.connect(host, 80))
    check(True, "after the device was down, everything is as it was")
    run("nft delete table netdev another")
    check(wire.host.interceptor("wan")["pid"] == process, "all that was one process's work")


def handed_over(wire):
    """The partition gets another monitor while iperf3 runs."""
    client = start_iperf(wire.outside, OUT, 8, wire.test)
    before = wire.host.monitor("fw")
    time.sleep(2)
    wire.host.call("POST", wire.host.path("fw", "/handover"))
    check(wire.host.monitor("fw") != before, "the partition is handed over")
    output, _ = client.communicate(timeout=120)
    result = json.loads(output)
    check("error" not in result, f"iperf3's connection goes on ({result.get('error')})")
    rate = result["end"]["sum_received"]["bits_per_second"]
    seconds = [one["sum"]["bytes"] for one in result["intervals"]]
    check(sum(count > 0 for count in seconds) >= len(seconds) / 2, f"and moves bytes ({rate / 1e6:.0f} Mbit/s)")
    check(wire.host.interceptor("wan")["state"] == "active", "the interceptor did not notice")


def statistics(wire):
    """What it has counted."""
    stats = wire.host.counters("wan")
    check(stats["seen"] > 1000 and stats["returned"] > 1000 and stats["dropped"] > 0 and
          stats["bypassed"] == 0, f"packets are counted: {stats['packets']}")
    latency = stats["latency"]
    check(latency["count"] > 0 and 0 < latency["p50"] <= latency["p99"] <= latency["max"],
          f"how long they take is known: {latency['count']} of them, {latency['p50'] / 1000:.0f} us")
    check(stats["changed"] == 0, "none came out changed")


main(net)
