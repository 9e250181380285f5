#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""The appliance `ips`: the firewall on its first pair of devices, Suricata on its second one, one behind the
other between two network namespaces."""

import socket
import struct
import time

from lib import agent, ends
from lib.flows import connection, count, datagram, exchange, frame, ping
from lib.harness import PROJECT, TIMEOUT, UNDER_QEMU, Skipped, check, main, need
from lib.leverage import enter_host
import vm

APPLIANCE = PROJECT / "build" / "appliance" / "ips"
TAPS = {"out0": 1, "in0": 2, "out1": 3, "in1": 4}
MAC = {tap: f"02:00:00:00:00:{number:02x}" for tap, number in TAPS.items()}
BAD = b"an attack of the first kind"
OTHER = b"an attack of the second kind"
FIREWALL = """table bridge filter {
    chain forward {
        type filter hook forward priority filter; policy accept
        udp dport 5002 drop
    }
}
"""


def rules(content):
    """Suricata's, against this content."""
    return ('# a user\'s rules\n'
            f'drop ip any any -> any any (msg:"found"; content:"{content.decode()}"; sid:1000001; rev:1;)\n')


class Path:
    """From the outside to the host, through the guest, and what arrives at the host."""

    def __init__(self, outside, host):
        self.outside, self.host, self.wire = outside, host, host.wire()
        self.sender = outside.wire()

    def arrive(self, texts, here="192.0.2.1", there="192.0.2.2", port=5000, frames=()):
        """Sends datagrams, and frames as they are; those that arrive at the host between two that always pass."""
        with self.outside.socket(socket.SOCK_DGRAM, here) as sender:
            sender.sendto(b"the first one", (there, 5000))
            ends.received(self.wire, b"the first one")
            for entry in frames:
                self.sender.send(entry)
            for text in texts:
                sender.sendto(text, (there, port))
            sender.sendto(b"the last one", (there, 5000))
        return ends.received(self.wire, b"the last one")[:-1]


def check_drops(path, bad, good):
    """`bad` is dropped wherever it is, `good` is not."""
    for here, there in (("192.0.2.1", "192.0.2.2"), ("2001:db8::1", "2001:db8::2")):
        frames = path.arrive([good, b"in front " + bad + b" behind", good], here, there)
        check(count(frames, good) == 2 and not count(frames, bad),
              f"to {there}, a datagram with {bad.decode()!r} is dropped, others pass")
        for port, text in ((80, good), (81, bad)):
            client, server = connection(path.outside, here, path.host, there, port)
            peer, _ = server.accept()
            peer.settimeout(60 if text is good else 3)
            client.sendall(b"x" * 3000 + text)
            read = b""
            try:
                while len(read) < 3000 + len(text) and (data := peer.recv(65536)):
                    read += data
            except TimeoutError:
                pass
            check((text in read) == (text is good), f"a stream with {text.decode()!r} "
                  + ("arrives" if text is good else "does not arrive"))
            for end in (client, server, peer):
                end.close()


def check_hidden(path):
    """What would hide something."""
    def tagged(text):
        return frame(0x800, datagram("192.0.2.1", "192.0.2.2", 5000, text), tag=10)
    twice = frame(0x8100, struct.pack(">HH", 11, 0x800) +
                  datagram("192.0.2.1", "192.0.2.2", 5000, b"under two tags"), tag=10)
    frames = path.arrive([], frames=[tagged(b"under a tag"), tagged(BAD), twice, frame(0x88b6, b"another protocol")])
    check(tagged(b"under a tag") in frames, "a tagged frame arrives, tag and all")
    check(not count(frames, BAD), "one with what is dropped does not")
    check(not count(frames, b"under two tags") and not count(frames, b"another protocol"),
          "nor does what Suricata would not see")
    with path.host.socket(socket.SOCK_DGRAM, "192.0.2.2", 5001) as receiver:
        receiver.settimeout(60)
        with path.outside.socket(socket.SOCK_DGRAM, "192.0.2.1") as sender:
            sender.sendto(b"y" * 2950 + BAD + b"y" * 1000, ("192.0.2.2", 5001))  # over two fragments
            sender.sendto(b"z" * 4000, ("192.0.2.2", 5001))
        check(receiver.recv(65536) == b"z" * 4000, "of datagrams in fragments the good one arrives whole")


def configure(talk, content):
    """Tells Suricata its rules; returns what went wrong, or None."""
    try:
        talk.request("configure", payload=content, run="ips", pair="1", mode="inline", outer=MAC["out1"],
                     inner=MAC["in1"])
    except agent.AgentError as error:
        return str(error)
    return None


def well_again(talk):
    """What `health` says when it says no error any more."""
    deadline = time.monotonic() + TIMEOUT
    while True:
        try:
            return talk.request("health")
        except agent.AgentError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def ips(guest, talk, path):
    """All of it, in an order."""
    check_drops(path, BAD, OTHER)
    check_hidden(path)
    check(ping(path.outside, "192.0.2.1", "192.0.2.2") and ping(path.host, "2001:db8::2", "2001:db8::1"),
          "pings are answered, of IPv4 and IPv6")
    check(not path.arrive([b"for the firewall"], port=5002), "the firewall in front of it drops what it drops")
    check(any("found" in line for line in talk.request("log")), "what was found is in the guest's log")
    client, server = connection(path.outside, "192.0.2.1", path.host, "192.0.2.2", 82)

    why = configure(talk, rules(BAD) + "drop tcp any any -> any any (contant; sid:1;)\n")
    check(why and "ips.rules:3:" in why, f"wrong rules are refused: {why}")
    why = configure(talk, bytes(range(1, 256)) * 8)
    check(why, f"so is what is no text: {why}")
    check_drops(path, BAD, OTHER)
    check(configure(talk, rules(OTHER)) is None, "others are taken")
    check_drops(path, OTHER, BAD)
    check(exchange(client, server), "a connection that was made before goes on, unharmed")
    client.close()
    server.close()

    guest.send("killall -9 suricata; echo kil''led\n")
    guest.expect("killed", TIMEOUT)
    check("run=ips pair=1 mode=inline" in well_again(talk), "Suricata is there again when it has crashed")
    check_drops(path, OTHER, BAD)


def appliance_ips(test):
    if UNDER_QEMU:
        raise Skipped("QEMU is no peer for this test")
    need(APPLIANCE / "initrd")
    enter_host()
    options = []
    for tap, mac in MAC.items():
        ends.run("ip", "tuntap", "add", tap, "mode", "tap", "vnet_hdr")
        ends.run("ip", "link", "set", tap, "up")
        options += ["--net", f"tap={tap},mac={mac}"]
    path = test.folder / "vsock"
    guest = test.start(vm.Machine(kernel=APPLIANCE / "Image", initrd=APPLIANCE / "initrd", vsock=f"3,{path}",
                                  append="quiet strake.shell", more=options))
    with agent.wait(path) as talk:
        try:
            talk.request("health")
            check(False, "a guest that has been told nothing is not healthy")
        except agent.AgentError as error:
            print(f"ok: a guest that has been told nothing says {error}")
        outside, host = ends.End("out0", "192.0.2.1/24", "2001:db8::1/64"), ends.End("in1", "192.0.2.2/24",
                                                                                   "2001:db8::2/64")
        ends.run("ip", "link", "add", "middle", "type", "bridge", "mcast_snooping", "0")
        for tap in ("in0", "out1"):
            ends.run("ip", "link", "set", tap, "master", "middle")
        ends.run("ip", "link", "set", "middle", "up")
        try:
            talk.request("configure", payload=FIREWALL, run="firewall", pair="0", outer=MAC["out0"], inner=MAC["in0"])
            check(configure(talk, rules(BAD)) is None, "the guest is configured")
            found = talk.request("health")
            check("run=ips pair=1 mode=inline" in found and "run=firewall pair=0 mode=inline" in found,
                  "both are well")
            ips(guest, talk, Path(outside, host))
        finally:
            for end in (outside, host):
                end.close()


main(appliance_ips)
