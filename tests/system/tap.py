#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""A guest on a tap interface talks with the host's kernel, both ways and in bulk. The interface is in a
network namespace of this test's own, which ends with it."""

import ctypes
import hashlib
import http.server
import os
import random
import socket
import subprocess
import threading
import urllib.request

from lib.harness import TIMEOUT, Skipped, check, main, need
import vm

CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
HOST, GUEST = "192.0.2.1", "192.0.2.2"  # of TEST-NET-1, RFC 5737

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


main(tap)
