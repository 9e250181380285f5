#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""A guest on a tap interface talks with the host's kernel, both ways and in bulk, also after handovers
that failed: the new monitor has had the tap's descriptor then. The interface is in a network namespace
of this test's own, which ends with it."""

import array
import ctypes
import fcntl
import hashlib
import http.server
import os
import random
import signal
import socket
import struct
import subprocess
import threading
import time
import urllib.request

from lib.daemon import Supervisor, create
from lib.harness import TIMEOUT, UNDER_QEMU, Skipped, check, main, need
import vm

CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
HOST, GUEST = "192.0.2.1", "192.0.2.2"  # of TEST-NET-1, RFC 5737
SIOCETHTOOL, GET_TX_CHECKSUM, GET_TSO = 0x8946, 0x16, 0x1e  # <linux/ethtool.h>
ATTEMPTS = 10  # to kill a new monitor that is built before the guest is its own

SCRIPT = f"""
ip address add {GUEST}/24 dev eth0 && ip link set eth0 up
ping -c 3 -W 20 {HOST} >/dev/null && echo "ping answered"
mkdir -p /tmp/www
wget -q -O /tmp/www/served http://{HOST}:8000/ && echo "fetched $(sha256sum </tmp/www/served)"
cat /sys/class/net/eth0/address
httpd -p 80 -h /tmp/www
echo "the guest serves"
nc -l -p 9 </dev/null
"""


class OneFile(http.server.BaseHTTPRequestHandler):
    """Serves one content, whatever is asked for."""

    content = random.Random(2).randbytes(8_000_011)

    def do_GET(self):
        """The method that http.server calls."""
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.content)))
        self.end_headers()
        self.wfile.write(self.content)

    def log_message(self, *_):
        """Nothing on the screen."""


def enter_namespace():
    """A network of our own; as an ordinary user, in which we are root."""
    uid, gid = os.getuid(), os.getgid()
    flags = CLONE_NEWNET | (CLONE_NEWUSER if uid else 0)
    if ctypes.CDLL(None, use_errno=True).unshare(flags) != 0:
        raise Skipped(f"no network namespace: {os.strerror(ctypes.get_errno())}")
    if uid:
        for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
            with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
                file.write(text)
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        raise Skipped("/dev/net/tun cannot be opened")
    for command in ("link set lo up", "tuntap add tap0 mode tap", f"address add {HOST}/24 dev tap0",
                    "link set tap0 up"):
        subprocess.run(["ip", *command.split()], check=True)


def offloads(name):
    """What the kernel leaves to a tap's reader: unfinished check sums, segmentation of TCP."""
    found = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as query:
        for what in (GET_TX_CHECKSUM, GET_TSO):
            value = array.array("I", [what, 0])
            request = struct.pack("16sP16x", name.encode(), value.buffer_info()[0])
            fcntl.ioctl(query, SIOCETHTOOL, request)
            found.append(bool(value[1]))
    return found


def sandboxed(pid):
    """Whether a monitor has built its partition, and has locked itself in."""
    try:
        with open(f"/proc/{pid}/status", encoding="ascii") as status:
            return "Seccomp:\t2" in status.read()
    except OSError:
        return True  # it has ended


def killed_handover(supervisor):
    """A handover whose new monitor is killed once it is built; (status, answer)."""
    path, known, outcome = supervisor.path("tapped", "/handover"), set(supervisor.marked()), []
    thread = threading.Thread(target=lambda: outcome.append(supervisor.api("POST", path)))
    thread.start()
    new = None
    while thread.is_alive() and new is None:
        new = next((pid for pid in supervisor.marked() if pid not in known), None)
    while thread.is_alive() and not sandboxed(new):
        continue
    if thread.is_alive():
        os.kill(new, signal.SIGKILL)  # the supervisor has yet to wait for it
    thread.join()
    return outcome[0]


def check_network(what):
    """The host fetches the guest's file."""
    with urllib.request.urlopen(f"http://{GUEST}/served", timeout=120) as answer:
        check(answer.read() == OneFile.content, f"8 MB come from the guest unharmed {what}")


SEVERAL = f"""
ip address add {GUEST}/24 dev eth0 && ip link set eth0 up
set -- /sys/class/net/eth0/queues/rx-*
echo "receive queues: $#"
for port in 5001 5002 5003 5004; do nc -ll -p $port -e cat & done
while [ "$(netstat -ltn | grep -c ':500[1-4] ')" -lt 4 ]; do sleep 0.1; done
echo "the guest serves"
sleep 100000
"""


def echoed(connection, data):
    """Sends `data` on a connection and takes what comes back."""
    sender = threading.Thread(target=connection.sendall, args=(data,))
    sender.start()
    back = bytearray()
    while len(back) < len(data) and (more := connection.recv(1 << 20)):
        back += more
    sender.join()
    return bytes(back)


def several_queues(test):
    """Two queues for a guest of two harts, and what flows through them goes on in other monitors."""
    subprocess.run("ip tuntap add tap2 mode tap multi_queue && ip link set tap0 down && "
                   f"ip address add {HOST}/24 dev tap2 && ip link set tap2 up", shell=True, check=True)
    supervisor = Supervisor(test)
    initrd = vm.with_script(SEVERAL, test.folder / "initrd-several")
    definition = {"kernel": str(vm.KERNEL), "initrd": str(initrd), "memory": "256M", "cpus": 2,
                  "append": "quiet strake.net=none"}
    status, answer = supervisor.api("POST", "/v1/partitions",
                                    {**definition, "name": "one", "net": ["tap=tap2"]})
    if status < 400:
        status, answer = supervisor.api("POST", supervisor.path("one", "/start"))
    check(status >= 400 and "multi_queue" in answer["error"],
          f"one queue of several is refused: {answer.get('error')}")
    create(supervisor, "several", {**definition, "net": ["tap=tap2,queues=2"]})
    supervisor.wait_console("several", "the guest serves")
    check("receive queues: 2" in supervisor.console("several"), "the guest's driver has two queues")
    check(offloads("tap2") == [True, True], "and takes unfinished check sums and long segments")
    data = random.Random(3).randbytes(3_000_017)
    flows = [socket.create_connection((GUEST, port), timeout=120) for port in (5001, 5002, 5003, 5004)]
    for turn in range(3):
        check(all(echoed(flow, data) == data for flow in flows),
              f"four connections bring 3 MB back unharmed, after {turn} handovers")
        busy = threading.Thread(target=lambda: outcomes.append(echoed(flows[0], data) == data))
        outcomes = []
        busy.start()
        supervisor.call("POST", supervisor.path("several", "/handover"), None)
        busy.join()
        check(outcomes == [True], "one goes on while its guest is handed over")
    for flow in flows:
        flow.close()
    supervisor.stop()


def failed_handovers(test):
    """What a new monitor does to the tap is nothing to the old one, when that goes on."""
    supervisor = Supervisor(test)
    initrd = vm.with_script(SCRIPT, test.folder / "initrd-tapped")
    create(supervisor, "tapped", {"kernel": str(vm.KERNEL), "initrd": str(initrd), "memory": "256M",
                                  "append": "quiet strake.net=none", "net": ["tap=tap0"]})
    supervisor.wait_console("tapped", "the guest serves")
    before = offloads("tap0")
    check(before == [True, True], "the guest's driver takes unfinished check sums and long segments")
    check_network("at first")
    for _ in range(ATTEMPTS):
        status, answer = killed_handover(supervisor)
        if status >= 400:
            break
        time.sleep(0.5)  # too late: the guest was the new one's, which may have been killed
        if supervisor.show("tapped")["state"] == "crashed":
            supervisor.call("POST", supervisor.path("tapped", "/start"))
            supervisor.wait_console("tapped", "the guest serves")
    check(status >= 400 and supervisor.show("tapped")["state"] == "running",
          f"a new monitor is killed that has the tap: {answer.get('error')}")
    check(offloads("tap0") == before, "the tap is as it was")
    check_network("after that")
    supervisor.call("POST", supervisor.path("tapped", "/handover"), None)
    check(offloads("tap0") == before, "after one that succeeds, too")
    check_network("after that")
    folder = test.folder / "snap"
    supervisor.call("POST", supervisor.path("tapped", "/snapshot"), {"path": str(folder)})
    supervisor.done("kill", "tapped")
    supervisor.call("POST", "/v1/restore", {
        "path": str(folder), "changes": {"name": "copy", "net": ["tap=tap0"]}})
    # Its driver has the address of "tapped", its device another.
    subprocess.run(["ip", "neigh", "flush", "dev", "tap0"], check=True)
    check_network("of a copy, whose driver goes on with the address that it had")
    supervisor.done("kill", "copy")
    supervisor.call("POST", supervisor.path("tapped", "/start"), {"paused": True})
    check(offloads("tap0") == [False, False], "a guest that starts finds a tap without them")
    supervisor.stop()


def tap(test):
    need(vm.KERNEL, vm.INITRAMFS)
    enter_namespace()
    server = http.server.ThreadingHTTPServer((HOST, 8000), OneFile)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    initrd = vm.with_script(SCRIPT, test.folder / "initrd")
    guest = test.start(vm.Machine(initrd=initrd, append="quiet strake.net=none",
                                  more=["--net", "tap=tap0,mac=02:00:00:00:00:07"]))
    guest.expect("the guest serves", TIMEOUT)
    text = guest.text()
    check("ping answered" in text, "the host answers the guest's ping")
    digest = hashlib.sha256(OneFile.content).hexdigest()
    check(f"fetched {digest}" in text, "the guest fetches 8 MB from the host, unharmed")
    check("02:00:00:00:00:07" in text, "the guest's interface has the address that was asked for")
    with urllib.request.urlopen(f"http://{GUEST}/served", timeout=120) as answer:
        check(answer.read() == OneFile.content, "the host fetches them back")
    for state in ("down", "up"):
        subprocess.run(["ip", "link", "set", "tap0", state], check=True)
    # Answered only if the device lived on; it also lets the guest end.
    socket.create_connection((GUEST, 9), timeout=60).close()
    check(True, "the guest is reached after the tap went down and up")
    test.finish(guest)
    if not UNDER_QEMU:
        failed_handovers(test)
        several_queues(test)


main(tap)
