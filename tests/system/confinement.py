#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""A guest that has its monitor make any system call it likes (a build for this test has a hook for
that) gets nowhere: no file, socket, process, mount or other memory is within its reach."""

import errno
import os
import re

from lib import firmware
from lib.harness import Skipped, check, main
import vm

REFUSED = {errno.EPERM, errno.ENOSYS}


def confinement(test):
    hooked = os.environ.get("STRAKE_WITH_HOOK")
    if not hooked or not os.path.exists(hooked):
        raise Skipped("strake-with-hook is not built")
    image, elf = firmware.build("escape", test.folder, firmware.KERNEL)
    machine = vm.Machine(kernel=elf, initrd=None, append=None)

    plain = test.start(machine)
    plain.expect("escape: done", 60)
    check("escape: getpid -2" in plain.text(), "a monitor as it is built for users has no hook")
    check(plain.wait(60) == 0, "and the guest ends as it should")

    before, os.environ["STRAKE"] = os.environ.get("STRAKE"), hooked
    try:
        guest = test.start(machine)
    finally:
        if before is None:
            del os.environ["STRAKE"]
        else:
            os.environ["STRAKE"] = before
    guest.expect("escape: done", 60)
    results = {name: int(value)
               for name, value in re.findall(r"escape: (\S+) (-?\d+)", guest.text())}
    check(results.pop("getpid", -1) > 0, "the hook makes system calls of the host")
    check(len(results) >= 27, f"{len(results)} more are tried")
    for name, value in results.items():
        check(-value in REFUSED, f"{name} fails: {errno.errorcode.get(-value, value)}")
    check(guest.wait(60) == 0, "and the guest ends as it should")


main(confinement)
