#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""vsock under a supervisor: streams from the guest and to it, new ones and such as have been open since
before handovers, with data in both directions."""

import random
import socket
import threading

from lib.daemon import PATIENCE, Supervisor, create
from lib.harness import check, main, need
import vm

HANDOVERS = 5
FROM_GUEST, TO_GUEST = 5000, 6000  # ports
CONTENT = random.Random(3).randbytes(200_003)
SCRIPT = f"""
mkfifo /tmp/typed
vsock connect {FROM_GUEST} </tmp/typed >/tmp/answer &
exec 3>/tmp/typed
vsock echo {TO_GUEST} 3>&- &
vsock echo {TO_GUEST + 1} 3>&- &
echo "hello" >&3
read -r word && echo "$word" >&3
exec 3>&-
wait
echo "the guest was told '$(cat /tmp/answer)'"
echo "new stream" | vsock connect {FROM_GUEST}
"""


def connect(path, port):
    """A stream to a port of the guest's, that the guest has taken."""
    stream = socket.socket(socket.AF_UNIX)
    stream.settimeout(PATIENCE)
    stream.connect(str(path))
    stream.sendall(b"CONNECT %d\n" % port)
    answer = b""
    while not answer.endswith(b"\n"):
        byte = stream.recv(1)
        if not byte:
            raise ConnectionError(f"port {port} of the guest answers {answer!r}")
        answer += byte
    return stream


def echoed(stream, content):
    """What comes back of it."""
    sender = threading.Thread(target=stream.sendall, args=(content,))
    sender.start()
    back = bytearray()
    while len(back) < len(content) and (data := stream.recv(65536)):
        back += data
    sender.join()
    return bytes(back)


def taken(listener):
    """A stream that the guest has opened."""
    stream, _ = listener.accept()
    stream.settimeout(PATIENCE)
    return stream


def vsock(test):
    need(vm.KERNEL, vm.INITRAMFS)
    path = test.folder / "vsock"
    listener = socket.socket(socket.AF_UNIX)
    listener.settimeout(PATIENCE * 5)
    listener.bind(f"{path}_{FROM_GUEST}")
    listener.listen()
    supervisor = Supervisor(test)
    initrd = vm.with_script(SCRIPT, test.folder / "initrd")
    create(supervisor, "one", {"kernel": str(vm.KERNEL), "initrd": str(initrd), "memory": "256M",
                               "append": "quiet", "vsock": f"3,{path}"})
    from_guest = taken(listener)
    check(from_guest.recv(64) == b"hello\n", "the guest opens a stream to the host")
    supervisor.wait_console("one", f"listening on port {TO_GUEST + 1}")
    to_guest = connect(path, TO_GUEST)
    check(echoed(to_guest, CONTENT) == CONTENT, "the host opens one to the guest: 200 KB and back")
    hand_over(supervisor, to_guest)
    check(echoed(to_guest, CONTENT) == CONTENT, "after them it carries as much, unharmed")
    from_guest.sendall(b"after")
    supervisor.type("one", b"typed\n")
    check(from_guest.recv(64) == b"typed\n", "the guest's stream is still open")
    check(from_guest.recv(64) == b"", "and ends when the guest ends it")
    from_guest.close()
    to_guest.close()
    another = connect(path, TO_GUEST + 1)
    check(echoed(another, CONTENT) == CONTENT, "the host opens a new one after handovers")
    another.close()
    supervisor.wait_console("one", "the guest was told 'after'")
    check(True, "the guest has got what the host has sent it")
    check(taken(listener).recv(64) == b"new stream\n", "the guest opens a new one after handovers")
    partition = supervisor.wait_for("one", "stopped", "the guest ends")
    check("ended with status 0" in supervisor.console("one"), "its script has succeeded")
    check(partition["handovers"] == HANDOVERS + 1, f"after {HANDOVERS + 1} handovers")
    check(not path.exists(), "the socket is gone")


def hand_over(supervisor, stream):
    """Again and again, at last with data under way."""
    for _ in range(HANDOVERS):
        supervisor.call("POST", supervisor.path("one", "/handover"), {})
        check(echoed(stream, b"x" * 1000) == b"x" * 1000, "the stream is open after a handover")
    answers = []
    busy = threading.Thread(target=lambda: answers.append(echoed(stream, CONTENT)))
    busy.start()
    supervisor.call("POST", supervisor.path("one", "/handover"), {})
    busy.join()
    check(answers == [CONTENT], "what is under way during one arrives")


main(vsock)
