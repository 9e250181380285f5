#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""The guest gets an address by DHCP, fetches a file from a server on the host's loopback, and is
reached through a port forward."""

import hashlib
import http.server
import random
import socket
import threading
import urllib.request

from lib.harness import TIMEOUT, check, free_port, main, need
import vm

SCRIPT = """
ip address show eth0 | grep -o 'inet [0-9./]*'
wget -q -O /tmp/file http://10.0.2.2:%d/file && echo "fetched $(sha256sum </tmp/file)"
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


main(net)
