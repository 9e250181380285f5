#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""The monitor beneath a Debian guest is updated by the guest's apt: `apt-get upgrade` installs a newer
strake-monitor-update from a repository, and when it returns the newer monitor runs, while a stream over TCP
goes on. Also what apt makes of an update that the host refuses, and of a power cut in the middle."""

import json
import os
import shutil
import sys

from lib.apt import UPGRADE, Guest, the_flagship, the_same
from lib.harness import UNDER_QEMU, Skipped, check, main, need
import vm

FILLER_BYTES = 12 << 20  # makes an update large enough to be interrupted
APPLY = "strake-update apply /usr/lib/strake-monitor-update/update.strake"


def is_outdated(guest):
    """Whether the unit says so that watches over it."""
    guest.shell.run("systemctl start strake-monitor-check.service")
    return "strake-monitor-check" in guest.shell.done("systemctl --failed --plain --no-legend")


def the_refused(guest):
    """An update that the host refuses, and that is made when the reason is gone."""
    version = "2.0.0"
    guest.archive.publish(version, key="other", with_guest=False)
    status, said = guest.shell.run(UPGRADE)
    check(status == 0 and "strake-update: Strake refused: " in said and "(error 6)" in said,
          "an update that the host does not trust does not make apt fail, but apt's output has why")
    check(guest.installed()["strake-monitor-update"] == version and guest.beneath() == "1.0.0",
          "the package is installed, the monitor is the old one")
    check(is_outdated(guest), "a failed unit tells so from now on")
    guest.shell.done("apt-get -q -y upgrade")
    guest.archive.trust("other")
    guest.shell.done(APPLY)
    check(guest.beneath() == version and not is_outdated(guest),
          "when the host trusts the key it is applied, and the unit is content")
    check(guest.installed()["strake-guest"] == version,
          "strake-guest came with it, as the repository does not have it")


def the_bundled(guest):
    """A strake-guest that the repository does not have, while apt has dpkg's lock."""
    version = "2.1.0"
    guest.archive.publish(version, with_guest=False)
    said = guest.shell.done(UPGRADE)
    check(guest.beneath() == version and f"installing strake-guest {version} over 2.0.0" in said
          and guest.shell.done("strake-update --version").strip() == f"strake-update {version}",
          "the strake-guest that the package brings is there when apt returns")
    query = "dpkg-query -W -f '${Status} ${Version}' strake-guest"
    guest.wait_for(lambda: guest.shell.done(query) == f"install ok installed {version}")
    check(not is_outdated(guest), "and known to dpkg a moment later")


def the_interrupted(guest):
    """The power goes out while apt is at it."""
    version = "3.0.0"
    guest.archive.publish(version, filler=FILLER_BYTES)
    guest.shell.send(
        f"{{ {UPGRADE}; }} </dev/null >/root/upgrade.log 2>&1 &\n"
        "until grep -q '\"phase\":\"[sic][eno]' /var/lib/strake-update/state.json; do sleep 0.1; done\n"
        "cp /var/lib/strake-update/state.json /root/; sync /root/state.json\n"
        "echo b >/proc/sysrq-trigger\n")
    guest.wait_shell("the guest is cut off in the middle of it and boots again")
    phase = json.loads(guest.shell.done("cat /root/state.json"))["phase"]
    log = guest.shell.done("for i in $(seq 600); do grep -q '\"phase\":\"idle\"' "
                           "/var/lib/strake-update/state.json && break; sleep 1; done; strake-update log")
    check(guest.beneath() == version and " resumed " in log,
          f"the update goes on by itself, from '{phase}', to its end")
    said = guest.shell.done("dpkg --configure -a")
    check(f"Strake {version} runs beneath" in said and not is_outdated(guest),
          "dpkg finds nothing left to do")
    check(guest.installed() == {"strake-guest": version, "strake-monitor-update": version},
          "both packages are installed")
    guest.shell.done("apt-get -q -y upgrade")


def the_forbidden(guest, test):
    """In a partition that may not update."""
    guest.shell.send("systemctl poweroff\n")
    guest.wait_for(lambda: guest.supervisor.show("debian")["state"] == "stopped")
    guest.supervisor.call("DELETE", guest.supervisor.path("debian"))
    guest.boot(vsock=f"7,{test.folder / 'vsock'}")
    guest.archive.publish("4.0.0")
    status, said = guest.shell.run(UPGRADE)
    check(status == 0 and "strake-update: Strake refused: " in said and "(error 3)" in said,
          "without permission apt's output has why, too")
    check(guest.installed()["strake-monitor-update"] == "4.0.0" and guest.beneath() == "3.0.0"
          and is_outdated(guest), "and the unit tells so")


def update_apt(test):
    if UNDER_QEMU:
        raise Skipped("QEMU cannot be updated")
    need(vm.KERNEL, vm.INITRAMFS)
    for program in ("debootstrap", "dpkg-scanpackages", "gpg"):
        if not shutil.which(program, path=os.environ["PATH"] + ":/usr/sbin:/sbin"):
            raise Skipped(f"{program} is missing")
    guest = Guest(test)
    with guest.watched():
        guest.boot(updates=True)
        the_same(guest)
        check(not is_outdated(guest), "the unit that watches over it is content")
        the_flagship(guest)
        the_refused(guest)
        the_bundled(guest)
        the_interrupted(guest)
        the_forbidden(guest, test)


if __name__ == "__main__":
    sys.exit(main(update_apt))
