#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Packets through several modules, in one partition and in several; only those that match; guests that only
observe; and interceptors that share a partition."""

import os
import signal
import socket

from lib import agent
from lib.daemon import create, events_of
from lib.harness import Failed, check, main
from lib.leverage import Capture, ip, wait_until
from lib.wire import HOST, HOST6, OUT, OUT6, Wire, check_as_before, refused, talk

TAPS = ("fw0", "mid0", "mid1", "mid2", "mid3", "strake0")
SECOND_PAIR = {"outer": "02:00:00:00:00:12", "inner": "02:00:00:00:00:13"}
# Everything but one port.
RULES = "table bridge filter { chain forward { type filter hook forward priority 0; tcp dport %d drop; }; }\n"


def modules(wire):
    """Three, of which each forbids another port: two in the partition `fw`, one in `last`."""
    found = []
    for number, where in enumerate(("fw,pair=0", "fw,pair=1", "last")):
        path = wire.test.folder / f"rules{number}.nft"
        path.write_text(RULES % (81 + number), encoding="ascii")
        found.append(f"{where},config={path}")
    return found


def chain(test):
    """The whole of it."""
    addressed = [f"{tap},mac={mac}" for tap, mac in zip(TAPS[2:4], SECOND_PAIR.values())]
    wire = Wire(test, taps=(*TAPS[:2], *addressed), start=False)
    create(wire.host, "last", {**wire.definition, "net": [f"tap={tap}" for tap in TAPS[4:]],
                               "vsock": f"8,{test.folder}/vsock2"}, start=False)
    wire.start_partition()
    wire.start_partition("last")
    in_a_row(wire, modules(wire))
    refusals(wire)
    matching(wire)
    observing(wire)
    sharing(wire)
    for name in ("fw", "last"):
        wire.host.call("POST", wire.host.path(name, "/kill"))
    check_as_before(wire.bare, "in the end the host's configuration is as before", *TAPS)


def in_a_row(wire, names):
    """Each module has its say."""
    wire.intercept(module=names, fail="closed")
    for host in (HOST, HOST6):
        for port in (81, 82, 83):
            check(refused(lambda: wire.connect(host, port, timeout=1)),  # pylint: disable=cell-var-from-loop
                  f"{host} port {port} is forbidden by one of three modules")
        talk(wire.connect(host, 80))
    connection = wire.connect(OUT6, 80, there=False)
    talk(connection)
    check(refused(lambda: wire.connect(OUT, 82, there=False, timeout=1)), "outwards, too")
    for name in ("last", "fw"):
        before = wire.host.monitor(name)
        wire.host.call("POST", wire.host.path(name, "/handover"))
        check(wire.host.monitor(name) != before, f"partition {name} is handed over")
        talk(connection)
    os.kill(wire.host.monitor("last"), signal.SIGKILL)
    wire.host.wait_state("wan", "shut")
    check("last" in wire.host.interceptor("wan")["why"] or "strake0" in wire.host.interceptor("wan")["why"],
          f"without one of them nothing passes: {wire.host.interceptor('wan')['why']}")
    wire.host.wait_state("wan", "active")
    talk(connection)
    check(True, "and when it is there again, connections go on")
    wire.host.give_up("wan")


def refusals(wire):
    """What makes no sense is refused, with what is wrong in it."""
    for keys, what in (({"match": "tcp dprot 80"}, 'at "dprot"'), ({"match": "tcp dport 80 accept"}, "terminal"),
                       ({"match_out": "drop; drop"}, "one expression"),
                       ({"device": "lo"}, '"lo"'), ({"mode": "nat", "match": "tcp dport 80"}, "nat")):
        definition = {"kind": "net", "name": "no", "fail": "open", "device": "eth0", "module": "fw",
                      **{key.replace("_", "-"): value for key, value in keys.items()}}
        status, answer = wire.host.api("POST", "/v1/interceptors", definition)
        if status < 400 or what not in answer["error"]:
            raise Failed(f"{keys}: {status} {answer}")
        check(not wire.host.interceptor("no"), f"refused: {answer['error']}")


def matching(wire):
    """Only what matches takes part."""
    wire.intercept(match="tcp dport { 80, 81 }", match_out="tcp sport { 80, 81 }")
    check("dev eth0" in ip(f"route get {OUT}"), "with match, routes stay")
    capture = Capture("mid0")
    for host in (HOST, HOST6):
        talk(wire.connect(host, 80))
        check(refused(lambda: wire.connect(host, 81, timeout=1)),  # pylint: disable=cell-var-from-loop
              f"what matches goes through the guest ({host})")
        talk(wire.connect(host, 99), b"not matching")
        check(True, "the rest does not, though the guest would not have it")
    capture.stop()
    check(not capture.has(b"not matching"), "and the guest has not seen it")
    wire.host.give_up("wan")


def observing(wire):
    """Guests have copies."""
    wire.intercept(verdict="observe", time_limit="2s")
    check("dev eth0" in ip(f"route get {OUT}") and "inet" not in ip("address show dev mid0"),
          "to observe, neither routes nor addresses are needed")
    copies = Capture("fw0")
    for host in (HOST, HOST6):
        talk(wire.connect(host, 81), b"observed by the guest")
    talk(wire.connect(OUT, 80, there=False), b"observed by the guest")
    copies.stop()
    check(copies.has(b"observed by the guest"), "what the guest would forbid passes, and it has copies")
    sender = wire.outside.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sender.sendto(b"let through", (HOST, 5000))
    wait_until(lambda: wire.host.counters("wan")["packets"]["returned_in"] > 0, "the guest lets something through")
    stats = wire.host.counters("wan")
    check(stats["seen"] > 20 and stats["dropped"] == 0,
          f"what comes back from it is counted, and goes nowhere: {stats['packets']}")
    monitor = wire.host.monitor("fw")
    os.kill(monitor, signal.SIGSTOP)
    wire.host.wait_state("wan", "bypassed")
    talk(wire.connect(HOST, 81))
    check(True, "a guest that has stopped disturbs nobody, though it is to fail closed")
    os.kill(monitor, signal.SIGCONT)
    wait_until(lambda: wire.host.interceptor("wan")["state"] == "active", "it observes again")
    wire.host.give_up("wan")


def sharing(wire):
    """Two interceptors have a pair each of one partition: what is wrong with one is nothing to the other."""
    ip("link add other0 type veth peer name other1")
    ip("link set other0 up")
    first, second = modules(wire)[:2]
    wire.intercept("first", module=first)
    for keys in ({}, {"match": "tcp dport 80"}):
        _, answer = wire.host.api("POST", "/v1/interceptors", {
            "kind": "net", "name": "second", "fail": "open", "device": "eth0", "module": second, **keys})
        check('"first" has device "eth0"' in answer.get("error", ""), f"not on one device: {answer.get('error')}")
    wire.intercept("second", module=second, device="other0")
    events = events_of(wire.host.follow("/v1/events"))
    with agent.wait(wire.test.folder / "vsock") as talker:
        talker.request("configure", payload="# no rules\n", run="firewall", pair="1", mode="inline", **SECOND_PAIR)
    states = []
    while states[-1:] != [("second", "active")]:
        _, event = next(events)
        if event["event"] == "interceptor-state":
            states.append((event["name"], event["state"]))
    check(("second", "shut") in states, f"a pair that has lost its rules shuts its interceptor: {states}")
    check(all(name == "second" for name, _ in states), "and not that of the other pair")
    for name in ("first", "second"):
        check(wire.host.interceptor(name)["restarts"] == 0, "nor has its process had to be started again")
        wire.host.give_up(name)
    ip("link del other0")


main(chain)
