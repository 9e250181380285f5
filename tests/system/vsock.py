#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""vsock streams between guest and host, opened from either side, carry data both ways. The host's
ends are Unix sockets in the convention of Firecracker and Cloud Hypervisor."""

import random
import socket
import threading

from lib.harness import TIMEOUT, check, main, need
import vm

CONTENT = random.Random(2).randbytes(1_000_003)

SCRIPT = """
head -c 1000003 /dev/zero | tr '\\0' x >/tmp/sent
vsock connect 5000 </tmp/sent >/tmp/answer
cmp /tmp/sent /tmp/answer && echo "the host echoed"
vsock connect 5001 </dev/null && echo "connected to nobody"
vsock echo 6000
"""


def echo_once(listener, received):
    """Sends back what one client sends, until it ends its direction."""
    peer, _ = listener.accept()
    with peer:
        while data := peer.recv(65536):
            received.append(data)
            peer.sendall(data)


def exchange(stream, content):
    """Sends content while reading as much back; returns what came."""
    sender = threading.Thread(target=stream.sendall, args=(content,))
    sender.start()
    back = bytearray()
    while len(back) < len(content):
        data = stream.recv(65536)
        if not data:
            break
        back += data
    sender.join()
    return bytes(back)


def vsock(test):
    need(vm.KERNEL, vm.INITRAMFS)
    path = test.folder / "vsock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{path}_5000")
        listener.listen()
        received = []
        threading.Thread(target=echo_once, args=(listener, received), daemon=True).start()
        initrd = vm.with_script(SCRIPT, test.folder / "initrd")
        guest = test.start(vm.Machine(initrd=initrd, vsock=f"3,{path}"))
        guest.expect("listening on port 6000", TIMEOUT)
    text = guest.text()
    check(b"".join(received) == b"x" * 1_000_003, "the guest's stream reaches the host's socket")
    check("the host echoed" in text, "and what the host answers reaches the guest")
    check("connected to nobody" not in text, "a port without a listener on the host is refused")

    with socket.socket(socket.AF_UNIX) as nobody:
        nobody.settimeout(60)
        nobody.connect(str(path))
        nobody.sendall(b"CONNECT 6001\n")
        check(nobody.recv(64) == b"", "a port without a listener in the guest is refused")
    with socket.socket(socket.AF_UNIX) as stream:
        stream.settimeout(120)
        stream.connect(str(path))
        stream.sendall(b"CONNECT 6000\n")
        answer = b""
        while not answer.endswith(b"\n"):
            byte = stream.recv(1)
            check_more(byte, answer)
            answer += byte
        check(answer.startswith(b"OK ") and answer[3:-1].isdigit(),
              f"the host's CONNECT is answered {answer.decode().strip()!r}")
        check(exchange(stream, CONTENT) == CONTENT, "1 MB comes back from the guest unharmed")
    test.finish(guest)
    check(not path.exists(), "the monitor removes its socket when it ends")


def check_more(byte, answer):
    """Fails when the stream ended instead of answering."""
    if not byte:
        check(False, f"the answer to CONNECT is a line, not {answer!r}")


main(vsock)
