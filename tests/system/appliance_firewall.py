#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""The appliance `firewall`, told what to do over vsock as an interceptor does it. On its first pair of devices
it is a wire with rules, on the second one a router; on either side of each is a network namespace."""

import socket
import struct
import threading
import time

from lib import agent, ends
from lib.flows import CONTENT, connection, count, exchange, frame, ping
from lib.harness import PROJECT, UNDER_QEMU, Skipped, check, main, need
from lib.leverage import enter_host
import vm

APPLIANCE = PROJECT / "build" / "appliance" / "firewall"
# Devices in this order, and the last bytes of their addresses.
TAPS = {"out0": 1, "in0": 2, "out1": 3, "in1": 4, "lan1": 5}
MAC = {tap: f"02:00:00:00:00:{number:02x}" for tap, number in TAPS.items()}
MARKER = b"the last one"

RULES = """# a user's rules
table bridge mine {
    set open { type inet_service; elements = { 80, 5000, 5001 } }
    chain forward {
        type filter hook forward priority filter; policy drop
        ether type vlan vlan id 10 accept
        ether type vlan drop
        ether type { arp, 0x88b5 } accept
        icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
        ct state established,related accept
        ip saddr 192.0.2.66 drop
        ip6 saddr 2001:db8::66 drop
        iifname "inner" meta l4proto { tcp, udp } th dport 9 drop
        iifname "inner" accept
        tcp dport @open accept
        udp dport @open accept
        icmp type echo-request accept
        icmpv6 type echo-request accept
    }
}
"""
BROKEN = RULES.replace("udp dport @open", "udp dport @closed")


class Pair:
    """Two ends, with the frames that arrive at either."""

    def __init__(self, left, right):
        self.left, self.right = left, right
        self.wires = {left: left.wire(), right: right.wire()}

    def arrive(self, source, frames):
        """Sends frames from one end; those of them that arrive at the other before one that always passes."""
        target = self.right if source is self.left else self.left
        for entry in frames:
            self.wires[source].send(entry)
        return self.until_marked(source, target)

    def until_marked(self, source, target):
        """What arrives at the target before a frame that is sent now."""
        before = ends.waiting(self.wires[target])
        self.wires[source].send(frame(0x88b5, MARKER))
        return before + ends.received(self.wires[target], MARKER)[:-1]


def send_datagrams(source, addresses, payload):
    """UDP from (address, port) to (address, port), for each."""
    for (here, port), there in addresses:
        with source.socket(socket.SOCK_DGRAM, here, port) as sender:
            sender.sendto(payload, there)


def check_rules(pair):
    """The rules of RULES, both ways."""
    outside, host = pair.left, pair.right
    for there, here, name in (("192.0.2.2", "192.0.2.1", "IPv4"), ("2001:db8::2", "2001:db8::1", "IPv6")):
        client, server = connection(outside, here, host, there, 80)
        check(exchange(client, server), f"{name}: a TCP stream that is allowed comes in, and back, unharmed")
        client.close()
        server.close()
        client, server = connection(host, there, outside, here, 8080)
        check(exchange(client, server), f"{name}: one that the host begins goes out")
        client.close()
        server.close()
    check(ping(outside, "192.0.2.1", "192.0.2.2") and ping(outside, "2001:db8::1", "2001:db8::2"),
          "pings are answered, of IPv4 and IPv6")

    pair.until_marked(outside, host)
    for port in (81, 82):
        for here, there in (("192.0.2.1", "192.0.2.2"), ("2001:db8::1", "2001:db8::2")):
            with outside.socket(socket.SOCK_STREAM, here) as client:
                client.setblocking(False)
                client.connect_ex((there, port))
    send_datagrams(outside, [(("192.0.2.1", 0), ("192.0.2.2", 5000)), (("192.0.2.1", 0), ("192.0.2.2", 5002)),
                             (("192.0.2.66", 0), ("192.0.2.2", 5000)),
                             (("2001:db8::1", 0), ("2001:db8::2", 5000)),
                             (("2001:db8::1", 0), ("2001:db8::2", 5002)),
                             (("2001:db8::66", 0), ("2001:db8::2", 5000))], b"a datagram")
    frames = pair.until_marked(outside, host)
    check(count(frames, b"a datagram") == 2,
          "of datagrams those to an open port arrive, of both families, and none to another or from who is refused")
    check(not any((entry[12:14], entry[23:24]) == (b"\x08\0", b"\6") or
                  (entry[12:14], entry[20:21]) == (b"\x86\xdd", b"\6") for entry in frames),
          "nothing of a connection to a closed port arrives")

    pair.until_marked(host, outside)  # with what the host said about those that arrived
    send_datagrams(host, [(("192.0.2.2", 0), ("192.0.2.1", 9)), (("2001:db8::2", 0), ("2001:db8::1", 9)),
                          (("192.0.2.2", 0), ("192.0.2.1", 99))], b"a datagram")
    check(count(pair.until_marked(host, outside), b"a datagram") == 1, "what the host must not send does not get out")


def check_frames(pair):
    """Tags, other protocols, sizes."""
    outside, host = pair.left, pair.right
    frames = pair.arrive(outside, [frame(0x800, b"tag 10", 10), frame(0x800, b"tag 11", 11),
                                   frame(0x88b6, b"another protocol"), frame(0x88b5, b"j" * 8000)])
    check(frame(0x800, b"tag 10", 10) in frames, "a frame with an allowed tag arrives, tag and all")
    check(not count(frames, b"tag 11") and not count(frames, b"another protocol"),
          "one with another tag does not, nor one of another protocol")
    check(count(frames, b"j" * 8000) == 1, "one of 8,000 bytes does")
    frames = pair.arrive(host, [frame(0x800, b"tag 10", 10), frame(0x800, b"tag 11", 11)])
    check(count(frames, b"tag 10") == 1 and not count(frames, b"tag 11"), "so it is outwards")


def check_fragments(pair):
    """Ports are in the first fragment alone."""
    outside, host = pair.left, pair.right
    for here, there in (("192.0.2.1", "192.0.2.2"), ("2001:db8::1", "2001:db8::2")):
        with host.socket(socket.SOCK_DGRAM, there, 5001) as receiver:
            pair.until_marked(outside, host)
            send_datagrams(outside, [((here, 0), (there, 5003)), ((here, 0), (there, 5001))], CONTENT[:20000])
            check(receiver.recv(65536) == CONTENT[:20000], f"a datagram in fragments arrives whole at {there}")
            frames = pair.until_marked(outside, host)
            check(len([entry for entry in frames if len(entry) > 500]) == 3,
                  "in its three fragments again; of one to a closed port no fragment arrives")


def refused(talk, what, **request):
    """The agent answers an error, which is returned."""
    try:
        talk.request("configure", **request)
    except agent.AgentError as error:
        print(f"ok: {what}: {error}")
        return str(error)
    check(False, f"{what}: an error")
    return None


def inline(talk, pair):
    """The first pair of devices."""
    request = {"run": "firewall", "mode": "inline", "pair": "0", "outer": MAC["out0"], "inner": MAC["in0"]}
    refused(talk, "a device that is not there", **{**request, "inner": "02:00:00:00:00:99"})
    pair.left.wire().send(frame(0x88b5, b"too early"))
    talk.request("configure", payload=RULES, **request)
    check("run=firewall pair=0 mode=inline" in talk.request("health"), "the firewall is well")
    check(not count(pair.until_marked(pair.left, pair.right), b"too early"), "nothing passed before it had rules")
    check_rules(pair)
    check_frames(pair)
    check_fragments(pair)

    client, server = connection(pair.left, "192.0.2.1", pair.right, "192.0.2.2", 80)
    why = refused(talk, "rules that are wrong", payload=BROKEN, **request)
    line = BROKEN[:BROKEN.index("@closed")].count("\n") + 1
    check(f"firewall.nft:{line}:" in why, "it names the line")
    refused(talk, "rules that are no text", payload=bytes(range(256)) * 16, **request)
    check_frames(pair)
    talk.request("configure", payload=RULES.replace("80, 5000", "8080"), **request)
    check(exchange(client, server), "a connection that was made before the rules changed goes on")
    client.close()
    server.close()
    pair.until_marked(pair.left, pair.right)
    send_datagrams(pair.left, [(("192.0.2.1", 0), ("192.0.2.2", 5000)), (("192.0.2.1", 0), ("192.0.2.2", 8080))],
                   b"a datagram")
    check(count(pair.until_marked(pair.left, pair.right), b"a datagram") == 1, "what is new goes by the new rules")


def dhcp(end):
    """The address and the router that a DHCP server offers at an end."""
    mac = b"\x02\0\0\0\0\x77"
    discover = struct.pack(">BBBBIHH16s16s192x4s", 1, 1, 6, 0, 7, 0, 0x8000, b"", mac, b"\x63\x82\x53\x63")
    with end.socket(socket.SOCK_DGRAM, "", 68) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, end.tap.encode())
        client.settimeout(5)
        for _ in range(12):
            client.sendto(discover + b"\x35\1\1\xff", ("255.255.255.255", 67))
            try:
                answer = client.recv(2048)
            except TimeoutError:
                continue
            options, found = answer[240:], {}
            while options and options[0] != 255:
                found[options[0]], options = options[2:2 + options[1]], options[2 + options[1]:]
            return socket.inet_ntoa(answer[16:20]), socket.inet_ntoa(found[3])
    return None, None


def advertised(end):
    """Whether an end gives itself an address of the prefix that is advertised to it."""
    end.run("sysctl", "-q", "-w", f"net.ipv6.conf.{end.tap}.accept_ra=1")
    end.run("ip", "link", "set", end.tap, "down")
    end.run("ip", "link", "set", end.tap, "up")  # has it ask
    for _ in range(120):
        if "inet6 fd83:" in end.run("ip", "-6", "address", "show", "dev", end.tap):
            return True
        time.sleep(0.5)
    return False


def name_server(listener):
    """Answers each question for an address with 203.0.113.5."""
    while True:
        try:
            question, peer = listener.recvfrom(2048)
        except OSError:
            return
        name = question[12:question.index(b"\0", 12) + 5]
        listener.sendto(question[:2] + b"\x81\x80\0\1\0\1\0\0\0\0" + name +
                        b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4" + socket.inet_aton("203.0.113.5"), peer)


def nat(talk, outside, host, lan):
    """The second pair of devices: a router with the address 198.51.100.9."""
    talk.request("configure", run="firewall", mode="nat", pair="1", outer=MAC["out1"], inner=MAC["in1"],
                 lan=MAC["lan1"], outer_mac="02:00:00:00:01:09", address=["198.51.100.9/24", "2001:db8:1::9/64"],
                 gateway=["198.51.100.1", "2001:db8:1::1"], inside="10.83.0.1/24", inside6="fd83::1/64",
                 host="10.83.0.2", host6="fd83::2", dhcp="10.83.0.100,10.83.0.200", dns="198.51.100.1",
                 forward=["tcp:8080:10.83.0.2:80", "tcp:8081:[fd83::2]:80", "udp:5000:10.83.0.2:5001"])
    check("run=firewall pair=1 mode=nat" in talk.request("health"), "the router is well")
    host.run("ip", "route", "add", "default", "via", "10.83.0.1")
    host.run("ip", "-6", "route", "add", "default", "via", "fd83::1")

    for here, there, known in (("10.83.0.2", "198.51.100.1", "198.51.100.9"),
                               ("fd83::2", "2001:db8:1::1", "2001:db8:1::9")):
        client, server = connection(host, here, outside, there, 7000)
        peer, address = server.accept()
        check(address[0] == known, f"the host is {known} to the outside")
        peer.close()
        client.close()
        again = host.socket(socket.SOCK_STREAM, here)
        again.connect((there, 7000))
        check(exchange(again, server), "and what it sends and gets is unharmed")
        again.close()
        server.close()
    for inside, port, public in (("10.83.0.2", 8080, "198.51.100.9"), ("fd83::2", 8081, "2001:db8:1::9")):
        server = host.socket(socket.SOCK_STREAM, inside, 80)
        server.listen()
        client = outside.socket(socket.SOCK_STREAM, "::" if ":" in inside else "0.0.0.0")
        client.connect((public, port))
        check(exchange(client, server), f"port {port} of {public} is forwarded to the host's port 80")
        client.close()
        server.close()
    client = outside.socket(socket.SOCK_STREAM, "0.0.0.0")
    client.settimeout(2)
    check(client.connect_ex(("198.51.100.9", 80)) != 0, "port 80 itself is not")
    client.close()

    outside_neighbour = outside.run("ip", "neigh", "show", "198.51.100.9")
    check("02:00:00:00:01:09" in outside_neighbour, "the router has the Ethernet address that it was given")
    address, router = dhcp(lan)
    check(address and address.startswith("10.83.0.1") and router == "10.83.0.1",
          f"another partition is offered {address} by DHCP, with the router {router}")
    check(advertised(lan), "and it finds itself one of IPv6")
    lan.add(f"{address}/24")
    lan.run("ip", "route", "add", "default", "via", router)
    client, server = connection(lan, address, outside, "198.51.100.1", 7001)
    check(exchange(client, server, 100_000), "with which it reaches the outside")
    client.close()
    server.close()

    with outside.socket(socket.SOCK_DGRAM, "198.51.100.1", 53) as listener, \
            host.socket(socket.SOCK_DGRAM, "10.83.0.2") as client:
        threading.Thread(target=name_server, args=(listener,), daemon=True).start()
        client.sendto(b"\x12\x34\1\0\0\1\0\0\0\0\0\0\3www\7example\3org\0\0\1\0\1", ("10.83.0.1", 53))
        check(client.recv(2048).endswith(socket.inet_aton("203.0.113.5")), "names are looked up through the router")


def check_agent(path, talk):
    """Requests that are none."""
    for request, why in ((b"\n", "begins with a word"), (b"hello \x01\n", "printable"),
                         (b"hello length=x\n", "length"), (b"hello length=99999999\n", "length"),
                         (b"hello " + b"a" * 70000 + b"\n", "at most"), (b"../../bin/sh\n", "begins with a word")):
        stream = agent.connect(path)
        stream.sendall(request)
        answer = b""
        try:
            while data := stream.recv(4096):
                answer += data
        except ConnectionError:
            pass
        stream.close()
        check(answer.startswith(b"error ") and why.encode() in answer, f"{request[:20]!r} is refused: {answer!r}")
    for verb, values in (("nothing", {}), ("configure", {"run": "../control"}), ("configure", {}),
                         ("configure", {"run": "firewall", "pair": "9"}),
                         ("configure", {"run": "firewall", "pair": "2", "outer": "$(reboot)", "inner": "*"})):
        try:
            talk.request(verb, **values)
            check(False, f"{verb} {values} is refused")
        except agent.AgentError as error:
            print(f"ok: {verb} {values} is refused: {error}")
    idle = [agent.connect(path) for _ in range(300)]
    check("runs firewall" in talk.request("hello"), "it answers while 300 connections say nothing")
    for stream in idle:
        stream.close()
    with agent.wait(path) as another:
        check("runs firewall" in another.request("hello"), "and a new one when they are gone")


def appliance_firewall(test):
    if UNDER_QEMU:
        raise Skipped("QEMU is no peer for this test")
    need(APPLIANCE / "initrd")
    enter_host()
    options = []
    for tap, mac in MAC.items():
        ends.run("ip", "tuntap", "add", tap, "mode", "tap", "vnet_hdr")
        ends.run("ip", "link", "set", tap, "mtu", "1500" if tap != "out0" and tap != "in0" else "9000", "up")
        options += ["--net", f"tap={tap},mac={mac}"]
    path = test.folder / "vsock"
    test.start(vm.Machine(kernel=APPLIANCE / "Image", initrd=APPLIANCE / "initrd", vsock=f"3,{path}",
                          more=options))
    with agent.wait(path) as talk:
        check("appliance firewall" in talk.request("hello"), "the agent says which appliance it is in")
        two = [ends.End("out0", "192.0.2.1/24", "192.0.2.66/24", "2001:db8::1/64", "2001:db8::66/64"),
               ends.End("in0", "192.0.2.2/24", "2001:db8::2/64")]
        three = [ends.End("out1", "198.51.100.1/24", "2001:db8:1::1/64"), ends.End("in1", "10.83.0.2/24", "fd83::2/64"),
                 ends.End("lan1")]
        try:
            inline(talk, Pair(*two))
            nat(talk, *three)
            check_frames(Pair(*two))
            check_agent(path, talk)
        finally:
            for end in two + three:
                end.close()


main(appliance_firewall)
