#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""What docs/leverage.md has to paste does what it says: all its commands but the first block, in order, on a host of
the test's own."""

import contextlib
import os
import re
import signal
import subprocess
from pathlib import Path

from lib.files import need_fanotify
from lib.harness import PROJECT, Failed, check, main, need
from lib.leverage import Host, check_same, configuration, enter_host, run
import vm

DOCUMENT = PROJECT / "docs" / "leverage.md"
PATIENCE_S = 1200
MARK = "@block"

# What a block prints, by something that is in it.
SAYS = {"http.server 80 ": ["port 80 answers", "port 8080 does not", "seen"],
        "leverage reload wan": ["now it does"],
        "strake handover": [],
        "cat uploads/invoice": ["nothing to see here", "and this one is not opened", ".json"],
        "strake mount stick.img": [".md"]}


def blocks():
    """The document's commands, a text each, without what builds strake and starts the supervisor."""
    found = re.findall(r"^```sh\n(.*?)^```", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return found[1:]


def paste(folder, commands, environment):
    """Runs blocks as a reader would, in one shell; what each has printed."""
    script = "".join(f"{block}echo '{MARK}'\n" for block in commands)
    output = folder / "output"
    with open(output, "wb") as file, subprocess.Popen(
            ["bash", "-e", "-c", script], cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=file,
            stderr=file, start_new_session=True) as shell:
        try:
            status = shell.wait(PATIENCE_S)
        finally:
            with contextlib.suppress(ProcessLookupError):  # servers in the background
                os.killpg(shell.pid, signal.SIGKILL)
    text = output.read_text(encoding="utf-8", errors="replace")
    if status != 0:
        raise Failed(f"a command of {DOCUMENT.name} failed, the one after this:\n{text[-3000:]}")
    return text.split(MARK + "\n")


def recipes(test):
    need(*(PROJECT / "build" / "appliance" / name / "initrd" for name in ("firewall", "clamav", "mount")))
    enter_host(need_root=True)
    need_fanotify()
    Path("/run/netns").mkdir(exist_ok=True)
    run("mount -t tmpfs none /run/netns")  # what `ip netns` adds is in these mounts only
    folder = test.folder / "clone"
    folder.mkdir()
    for name in ("build", "docs", "guest"):
        (folder / name).symlink_to(PROJECT / name)
    host = Host(test)
    before = configuration()
    commands = blocks()
    told = paste(folder, commands, {**os.environ, "STRAKE_SOCKET": str(host.socket),
                                    "PATH": f"{Path(vm.strake()).parent}:{os.environ['PATH']}"})
    for part, expected in SAYS.items():
        at, = [index for index, block in enumerate(commands) if part in block]
        for text in expected:
            check(text in told[at], f"the commands with '{part.strip()}' print '{text}'")
    check(host.call("GET", "/v1/interceptors") == [], "no interceptor is left")
    run("ip link del play0")
    run("ip netns del outside")
    check_same(before, "the host is as it was before")


main(recipes)
