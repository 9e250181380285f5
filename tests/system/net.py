#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""The guest gets an address by DHCP, fetches a file from a server on the host's loopback, pings the
host, and is reached through a port forward; the same as an ordinary user."""

import hashlib
import http.server
import os
import random
import shutil
import socket
import threading
import urllib.request

from lib.harness import TIMEOUT, UNDER_QEMU, check, free_port, main, need
import vm

USER = 65534  # nobody
PING = """
ping -c 3 -W 20 10.0.2.2 >/dev/null && echo "ping answered"
ping -c 1 -W 5 10.0.2.99 >/dev/null || echo "nobody answers for others"
"""

SCRIPT = """
ip address show eth0 | grep -o 'inet [0-9./]*'
wget -q -O /tmp/file http://10.0.2.2:%d/file && echo "fetched $(sha256sum </tmp/file)"
ping -c 3 -W 20 10.0.2.2 >/dev/null && echo "ping answered"
mkdir -p /tmp/www
cp /tmp/file /tmp/www/served
httpd -p 80 -h /tmp/www
echo "the guest serves"
nc -l -p 9 </dev/null
"""


class OneFile(http.server.BaseHTTPRequestHandler):
    """Serves one content, whatever is asked for."""

    content = random.Random(1).randbytes(3_000_017)  # of no round size

    def do_GET(self):
        """The method that http.server calls."""
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.content)))
        self.end_headers()
        self.wfile.write(self.content)

    def log_message(self, *_):
        """Nothing on the screen."""


def get(port):
    """What the guest's web server answers through the forward."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/served", timeout=120) as answer:
        return answer.read()


def net(test):
    need(vm.KERNEL, vm.INITRAMFS)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), OneFile)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    web, stop = free_port(), free_port()
    initrd = vm.with_script(SCRIPT % server.server_port, test.folder / "initrd")
    guest = test.start(vm.Machine(initrd=initrd, net=[f"tcp:127.0.0.1:{web}-:80",
                                                      f"tcp:127.0.0.1:{stop}-:9"]))
    guest.expect("the guest serves", TIMEOUT)
    digest = hashlib.sha256(OneFile.content).hexdigest()
    text = guest.text()
    check("inet 10.0.2.15/24" in text, "the guest has its address from DHCP")
    check(f"fetched {digest}" in text, "the guest fetches 3 MB from the host's loopback, unharmed")
    check("ping answered" in text, "the host answers the guest's ping")
    check(get(web) == OneFile.content, "the host fetches them back through a port forward")
    results = []
    clients = [threading.Thread(target=lambda: results.append(get(web) == OneFile.content))
               for _ in range(4)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    check(results == [True] * 4, "four connections at once work too")
    # The guest waits for a connection on the other forward before it ends.
    socket.create_connection(("127.0.0.1", stop), timeout=60).close()
    test.finish(guest)
    if os.geteuid() == 0 and shutil.which("setpriv") and not UNDER_QEMU:
        ordinary(test)


def ordinary(test):
    """Ping as an ordinary user, who may not send any: it is answered without the host's kernel."""
    test.folder.chmod(0o755)
    machine = vm.Machine(initrd=vm.with_script(PING, test.folder / "initrd-user"), net=[])
    guest = test.run(["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups",
                      *machine.strake_command()])
    test.finish(guest)
    text = guest.text()
    check("ping answered" in text, "an ordinary user's guest has an answer to its ping, too")
    check("nobody answers for others" in text, "from an address where nobody is there is none")


main(net)
