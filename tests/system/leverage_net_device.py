#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""What configures the device goes on to, while packets go through a guest: routers advertise prefixes and
themselves, DHCP servers answer, if the guest's rules let them; and jumbo frames pass."""

import socket
import struct

from lib.harness import check, main
from lib.leverage import Capture, ip, wait_until
from lib.wire import (HOST, HOST6, OUT, OUT6, SO_BINDTODEVICE, Wire, check_as_before, refused, talk)

CASES = ((socket.AF_INET, HOST, OUT), (socket.AF_INET6, HOST6, OUT6))
JUMBO = 9000
ALL_NODES = "ff02::1"


def advertise(wire, prefix, lifetime=1800):
    """A router advertisement (RFC 4861, 4.2) of the outside host, with a prefix to make addresses of."""
    sender = wire.outside.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
    sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
    index = wire.outside.do(lambda: socket.if_nametoindex("eth0"))
    information = struct.pack(">BBBBIII16s", 3, 4, 64, 0xc0, 7200, 3600, 0, socket.inet_pton(socket.AF_INET6, prefix))
    with sender:
        sender.sendto(struct.pack(">BBHBBHII", 134, 0, 0, 64, 0, lifetime, 0, 0) + information,
                      (ALL_NODES, 0, 0, index))


def has(device, prefix):
    """The address that a device has of a prefix, or nothing."""
    words = ip(f"-6 -o address show dev {device} -tentative").split()
    return next((word.split("/")[0] for word in words if word.startswith(prefix)), "")


def routers(wire):
    """Addresses and routes of the device are renewed, and strake0 has them."""
    capture = Capture("eth0", wire.outside)
    check(has("strake0", "2001:db8:a:"), "strake0 has what the device has learnt from a router before")
    advertise(wire, "2001:db8:b::")
    wait_until(lambda: has("eth0", "2001:db8:b:"), "the device hears of another prefix")
    address = wait_until(lambda: has("strake0", "2001:db8:b:"), "strake0 has an address of it, too")
    wire.outside.ip("-6 route add 2001:db8:b::/64 dev eth0")
    talk(wire.connect(address, 80))
    check(True, f"what is advertised meanwhile comes to the device and to strake0, and is of use: {address}")
    check("dev strake0" in ip("route get 2001:db8:ffff::1"), "ways lead to strake0 still")
    advertise(wire, "2001:db8:a::", lifetime=0)
    wait_until(lambda: not ip("-6 route show default proto ra"), "a router that is none any more has no route")
    sent = [one for one, outgoing in capture.stop() if one[12:14] == b"\x86\xdd" and one[54] == 134 and not outgoing]
    check(not sent, "a router that is none any more has no route; and nothing of it is sent back")


def leases(wire):
    """Answers of DHCP servers, for a program that listens at the device."""
    for (family, host, out), port in zip(CASES, (68, 546)):
        with socket.socket(family, socket.SOCK_DGRAM) as client, \
                wire.outside.socket(family, socket.SOCK_DGRAM) as server:
            client.setsockopt(socket.SOL_SOCKET, SO_BINDTODEVICE, b"eth0")
            client.bind(("", port))
            client.settimeout(60)
            server.bind((out, 0))
            server.sendto(b"a lease", (host, port))
            check(client.recv(100) == b"a lease", f"what is sent to {host} port {port} comes to who listens at the device")


def forbidden(wire):
    """The guest's rules are above that."""
    wire.write_rules(ports="80, 5201, 8080")
    wire.host.call("POST", "/v1/interceptors/wan/reload")
    wait_until(lambda: not refused(lambda: wire.connect(HOST, 8080, timeout=2)), "the guest has other rules")
    advertise(wire, "2001:db8:c::")
    talk(wire.connect(HOST6, 80))
    check(not has("eth0", "2001:db8:c:") and not has("strake0", "2001:db8:c:"),
          "what the guest forbids does not come to the device")


def jumbo(wire):
    """Frames of the device's MTU, in one piece."""
    wait_until(lambda: all(f"mtu {JUMBO} " in ip(f"link show {tap}") for tap in ("fw0", "strake0")),
               "taps have the device's MTU")
    for family, host, out in CASES:
        ends = [(socket.socket, host), (wire.outside.socket, out)]
        for (make_sender, source), (make_receiver, target) in (ends, ends[::-1]):
            capture = Capture("strake0")
            with make_sender(family, socket.SOCK_DGRAM) as sender, \
                    make_receiver(family, socket.SOCK_DGRAM) as receiver:
                receiver.bind((target, 5000))
                receiver.settimeout(60)
                sender.bind((source, 0))
                sender.sendto(b"x" * (JUMBO - 100), (target, 5000))
                check(len(receiver.recv(65536)) == JUMBO - 100, f"{JUMBO - 100} bytes arrive at {target}")
            check(any(len(one) > JUMBO - 100 for one, _ in capture.stop()), "in one frame")
        talk(wire.connect(host, 80))


def device(test):
    """The whole of it."""
    wire = Wire(test)
    advertise(wire, "2001:db8:a::")
    wait_until(lambda: has("eth0", "2001:db8:a:"), "the device makes an address of a prefix")
    check("dev eth0" in ip("-6 route show default proto ra"), "without the guest, a router configures the device")
    wire.write_rules(more="icmpv6 type nd-router-advert accept; udp dport { 68, 546 } accept")
    wire.intercept()
    routers(wire)
    leases(wire)
    forbidden(wire)
    for change in (lambda: ip(f"link set eth0 mtu {JUMBO}"), lambda: wire.host.give_up("wan"), wire.intercept):
        change()
        wire.outside.ip(f"link set eth0 mtu {JUMBO}")
        if wire.host.interceptor("wan"):
            jumbo(wire)
    wire.host.give_up("wan")
    ip("link set eth0 mtu 1500")
    ip("-6 address flush dev eth0 dynamic")
    for prefix in ("2001:db8:a::/64", "2001:db8:b::/64"):
        ip(f"-6 route flush {prefix}")
    wire.host.call("POST", wire.host.path("fw", "/kill"))
    check_as_before(wire.bare, "in the end the host's configuration is as before")


main(device)
