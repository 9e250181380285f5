#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""An engine that the host does not have, in the packets' way: Suricata in the appliance `ips`, alone, and behind
a guest with the firewall. What has its signature never shows on strake0, nor outside; the rest passes."""

import socket

from lib import agent
from lib.daemon import create
from lib.harness import PROJECT, check, main, need
from lib.leverage import Capture, ip, wait_until
from lib.wire import HOST, HOST6, OUT, OUT6, Wire, check_as_before, refused, talk

APPLIANCE = PROJECT / "build" / "appliance" / "ips"
TAPS = ("fw0", "fw1", "ips0", "strake0")
FIRST, SECOND = b"an attack of the first kind", b"an attack of the second kind"
FIREWALL = "table bridge filter { chain forward { type filter hook forward priority 0; tcp dport 81 drop; }; }\n"
CASES = ((socket.AF_INET, HOST, OUT), (socket.AF_INET6, HOST6, OUT6))


def write_rules(path, content):
    """Suricata's, against this content."""
    path.write_text(f'drop ip any any -> any any (msg:"found"; content:"{content.decode()}"; sid:1000001; rev:1;)\n',
                    encoding="ascii")


def datagrams(wire, texts, inwards):
    """Sends them through the guests, IPv4 and IPv6, and after them one that has to arrive."""
    for family, here, out in CASES:
        ends = [(socket.socket, here), (wire.outside.socket, out)]
        (make_sender, source), (make_receiver, target) = ends[::-1] if inwards else ends
        with make_sender(family, socket.SOCK_DGRAM) as sender, make_receiver(family, socket.SOCK_DGRAM) as receiver:
            receiver.settimeout(60)
            receiver.bind((target, 5000))
            sender.bind((source, 0))
            for text in (*texts, b"the last one"):
                sender.sendto(b"in front of " + text, (target, 5000))
            while b"the last one" not in receiver.recv(2048):
                pass


def check_drops(wire, bad, good):
    """`bad` is dropped wherever it is, `good` is not."""
    for way, *where in (("in", "strake0"), ("out", "eth0", wire.outside)):
        capture = Capture(*where)
        datagrams(wire, (good, bad, good), inwards=way == "in")
        frames = capture.stop()
        check(sum(good in one for one, _ in frames) == 4, f"{way}: datagrams with {good.decode()!r} pass")
        check(not capture.has(bad), f"{way}: none with {bad.decode()!r} shows")
    capture = Capture("strake0")
    for host in (HOST, HOST6):
        client, server = wire.connect(host, 80)
        talk((client, server), good * 1000)
        client.sendall(b"x" * 3000 + bad)
        server.settimeout(2)
        data = b""
        try:
            while received := server.recv(65536):
                data += received
        except TimeoutError:
            pass
        check(bad not in data, f"a stream to {host} ends before {bad.decode()!r}")
        client.close()
        server.close()
    capture.stop()
    check(capture.has(good) and not capture.has(bad), "which does not show on strake0")


def alone(wire, rules):
    """One partition."""
    write_rules(rules, FIRST)
    wire.intercept(module=f"ips,run=ips,config={rules}")
    check("dev strake0" in ip(f"route get {OUT}"), "the way out is through Suricata's guest")
    check_drops(wire, FIRST, SECOND)
    with agent.wait(wire.test.folder / "vsock2") as talker:
        check(any("found" in line for line in talker.request("log")), "what was found is in the guest's log")
    stats = wire.host.counters("wan")
    check(stats["returned"] > 0 and stats["bypassed"] == 0, f"nothing passes by it: {stats['packets']}")
    connection = wire.connect(HOST, 82)
    before = wire.host.monitor("ips")
    wire.host.call("POST", wire.host.path("ips", "/handover"))
    check(wire.host.monitor("ips") != before, "its partition is handed over")
    talk(connection)
    rules.write_text("drop ip any any -> any any (contant; sid:1;)\n", encoding="ascii")
    wire.host.call("POST", "/v1/interceptors/wan/reload")
    wait_until(lambda: "keeps its configuration" in wire.host.text(), "rules with a mistake are refused")
    check("ips.rules:1:" in wire.host.text(), "rules with a mistake are refused, with their line")
    check_drops(wire, FIRST, SECOND)
    talk(connection)
    check(wire.host.interceptor("wan")["state"] == "active", "and change nothing")
    wire.host.give_up("wan")


def behind(wire, rules):
    """Two partitions: the firewall sees everything first."""
    write_rules(rules, SECOND)
    wire.rules.write_text(FIREWALL, encoding="ascii")
    wire.intercept(module=[f"fw,config={wire.rules}", f"ips,run=ips,config={rules}"])
    check_drops(wire, SECOND, FIRST)
    between = Capture("ips0")
    for host in (HOST, HOST6):
        check(refused(lambda: wire.connect(host, 81, timeout=1.5)),  # pylint: disable=cell-var-from-loop
              f"port 81 of {host} is forbidden by the firewall")
        talk(wire.connect(host, 80))
    frames = between.stop()
    there = [any((0, port) in (tuple(one[36:38]), tuple(one[56:58])) for one, _ in frames) for port in (80, 81)]
    check(there == [True, False], "Suricata has only seen what the firewall lets pass")
    wire.host.give_up("wan")


def ips(test):
    """The whole of it."""
    need(APPLIANCE / "Image", APPLIANCE / "initrd")
    wire = Wire(test, taps=TAPS[:2], start=False)
    create(wire.host, "ips", {**wire.definition, "kernel": str(APPLIANCE / "Image"), "memory": "512M",
                              "initrd": str(APPLIANCE / "initrd"), "net": [f"tap={tap}" for tap in TAPS[2:]],
                              "vsock": f"8,{test.folder}/vsock2"}, start=False)
    for name in ("fw", "ips"):
        wire.start_partition(name)
    rules = test.folder / "ips.rules"
    alone(wire, rules)
    behind(wire, rules)
    for name in ("fw", "ips"):
        wire.host.call("POST", wire.host.path(name, "/kill"))
    check_as_before(wire.bare, "in the end the host's configuration is as before", *TAPS)


main(ips)
