# SPDX-License-Identifier: BSD-2-Clause
"""An outside host, the host, and a guest between them that filters: what the tests of packets through
guests share. All of it is in namespaces of the test's own."""

import socket
import struct
import subprocess
import time

from lib.daemon import create
from lib.harness import PROJECT, UNDER_QEMU, Failed, Skipped, check, need
from lib.leverage import Host, Outside, configuration, differences, enter_host, ip, wait_until

APPLIANCE = PROJECT / "build" / "appliance" / "firewall"
HOST, OUT = "192.0.2.1", "192.0.2.2"  # of TEST-NET-1, RFC 5737
HOST6, OUT6 = "2001:db8::1", "2001:db8::2"  # RFC 3849
PATIENCE = 60
ETH_P_ALL, ETH_P_8021Q = 3, 0x8100
SO_BINDTODEVICE = 25

RULES = """
table bridge filter {
    chain forward {
        type filter hook forward priority filter; policy drop
        vlan id 10 accept
        ether type vlan drop
        ether type arp accept
        icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
        ct state established,related accept
        iifname "inner" meta l4proto { tcp, udp } th dport 9 drop
        iifname "inner" meta protocol { ip, ip6 } accept
        tcp dport { PORTS } accept
        udp dport { 5000, 5201 } accept
        icmp type echo-request accept
        icmpv6 type echo-request accept
        MORE
    }
}
"""


def skip_unless_possible():
    """Skips where there is no appliance, or QEMU is to run it."""
    if UNDER_QEMU:
        raise Skipped("QEMU has no interceptors")
    need(APPLIANCE / "Image", APPLIANCE / "initrd")


class Wire:
    """The hosts, and a supervisor with a partition `fw` of the appliance `firewall`."""

    def __init__(self, test, taps=("fw0", "strake0"), start=True):
        skip_unless_possible()
        enter_host(need_root=True)
        self.test = test
        self.outside = Outside(test)
        for family, host, out, bits in (("-4", HOST, OUT, 24), ("-6", HOST6, OUT6, 64)):
            more = " nodad" if family == "-6" else ""
            ip(f"{family} address add {host}/{bits} dev eth0{more}")
            self.outside.ip(f"{family} address add {out}/{bits} dev eth0{more}")
            ip(f"{family} route add default via {out} dev eth0")
        wait_until(lambda: "tentative" not in ip("address show dev eth0"), "addresses can be used")
        self.bare = configuration()  # with neither partition nor interceptor
        self.host = Host(test)
        self.rules = test.folder / "rules.nft"
        self.write_rules()
        self.definition = {"kernel": str(APPLIANCE / "Image"), "initrd": str(APPLIANCE / "initrd"),
                           "append": "quiet", "memory": "256M", "restart": "always",
                           "net": [f"tap={tap}" for tap in taps],
                           "vsock": f"7,{test.folder}/vsock"}
        create(self.host, "fw", self.definition, start=False)
        if start:
            self.start_partition()

    def start_partition(self, name="fw"):
        """Has the partition run, and its taps made."""
        self.host.call("POST", self.host.path(name, "/start"))
        self.host.wait_console(name, "the appliance is up")

    def write_rules(self, ports="80, 5201", more=""):
        """The guest's rules, as a user would edit them."""
        self.rules.write_text(RULES.replace("PORTS", ports).replace("MORE", more), encoding="utf-8")

    def intercept(self, name="wan", state="active", **keys):
        """Adds an interceptor in front of eth0, and waits for it."""
        keys = {"device": "eth0", "module": f"fw,run=firewall,config={self.rules}", "fail": "closed",
                "time_limit": "20s", **keys}
        self.host.intercept("net", name, **keys)
        return self.host.wait_state(name, state)

    # ---- Traffic

    def connect(self, address, port, there=True, timeout=PATIENCE):
        """A TCP connection from the outside host, or to it: (its end there or here, the other one)."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        make = self.outside.socket if not there else socket.socket
        listener = make(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, port))
        listener.listen()
        make = self.outside.socket if there else socket.socket
        client = make(family, socket.SOCK_STREAM)
        client.settimeout(timeout)
        try:
            client.connect((address, port))
            listener.settimeout(timeout)
            server, _ = listener.accept()
        except OSError:
            client.close()
            raise
        finally:
            listener.close()
        server.settimeout(timeout)
        return client, server


def talk(pair, data=b"x" * 100_000):
    """Sends through a connection, both ways."""
    for one, other in (pair, pair[::-1]):
        one.sendall(data)
        left = len(data)
        while left > 0:
            got = other.recv(left)
            if not got:
                raise Failed("a connection has ended")
            left -= len(got)


def refused(function):
    """Whether an attempt comes to nothing."""
    try:
        for end in function():
            end.close()
        return False
    except OSError:
        return True


def frame(destination, source, ethertype, payload, vlan=None):
    """An Ethernet frame."""
    mac = [bytes.fromhex(one.replace(":", "")) for one in (destination, source)]
    tag = struct.pack(">HH", ETH_P_8021Q, vlan) if vlan is not None else b""
    return mac[0] + mac[1] + tag + struct.pack(">H", ethertype) + payload.ljust(46, b"\0")


def mac_of(interface, outside=None):
    """An interface's address."""
    text = (outside.ip if outside else ip)(f"-o link show {interface}")
    return text.split("link/ether ")[1].split()[0]


def without_queues(config, *taps):
    """A configuration of the network, but for the queueing disciplines of taps, which a tap keeps once
    it was up."""
    config = {key: value for key, value in config.items() if key != "mounts"}
    config["qdiscs"] = [line for line in config["qdiscs"] if not any(f"dev {tap} " in line for tap in taps)]
    for key in ("links", "addresses"):
        config[key] = [{name: value for name, value in one.items()
                        if name != "qdisc" or one.get("ifname") not in taps} for one in config[key]]
    return config


def check_as_before(before, what, *taps):
    """The host's configuration is as it was, but for queues of taps."""
    before = without_queues(before, *taps)
    deadline = time.monotonic() + PATIENCE
    while lines := differences(before, without_queues(configuration(), *taps)):
        if time.monotonic() > deadline:
            raise Failed(f"not so: {what}\n" + "\n".join(lines))
        time.sleep(0.1)
    check(True, what)


def start_iperf(outside, address, seconds, test):
    """iperf3 from here to a server outside; the process of the client, whose output is JSON."""
    server = subprocess.Popen(outside.command(["iperf3", "-s", "-1", "-B", address]),
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    server.stop = lambda: (server.kill(), server.wait())
    server.text = lambda: ""
    test.guests.insert(0, server)
    wait_until(lambda: ":5201" in outside.run("ss -Hltn") or server.poll() is not None,
               "iperf3 listens")
    return subprocess.Popen(["iperf3", "-c", address, "-t", str(seconds), "-J"],
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
