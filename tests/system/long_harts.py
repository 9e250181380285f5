#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Ten minutes of Debian on four harts that are all busy: programs whose answers are known,
processes and modules that come and go, code that is rewritten while it runs, and wake-ups from hart
to hart.

Each worker repeats its round until the end; each round must say what is expected, and no worker may
be without a round for long. STRAKE_TEST_SECONDS=N makes it shorter."""

import hashlib
import os
import random
import re
from pathlib import Path

from lib.harness import TIMEOUT, check, main, need
import cpio
import fetch
import initramfs
import vm

SECONDS = int(os.environ.get("STRAKE_TEST_SECONDS", 600))
STALL = 150  # seconds of the host's that no round takes, however busy the host
CPUS = 4
HARTS = Path(__file__).parent / "guest" / "harts.c"
DIGESTS = ("md5", "sha1", "sha256", "sha512", "sha3-256", "blake2b512")
CHILDREN = 40
COUNT = 100  # harts.c's

chance = random.Random(4)
TEXT = " ".join(chance.choices([f"{number:x}" for number in range(4000)], k=200_000)).encode()


def hashed(name, data):
    """A digest by the name that openssl gives it."""
    return hashlib.new(name.replace("-", "_").replace("2b512", "2b"), data).hexdigest()


# name: (a round, as a shell command; what it says). Programs by their paths: busybox's shell has
# its own by these names.
WORKERS = {
    "xz": ("/usr/bin/xz -3 -T2 --block-size=256KiB -c /data/text | /usr/bin/xz -dc |"
           " /usr/bin/sha256sum", hashed("sha256", TEXT) + " -"),
    "openssl": ("for name in " + " ".join(DIGESTS) + "; do"
                " /usr/bin/openssl dgst -r -$name /data/text; done | /usr/bin/cut -d' ' -f1",
                " ".join(hashed(name, TEXT) for name in DIGESTS)),
    # The example of FIPS 197, appendix B, many times over.
    "aes": ("/usr/bin/openssl enc -aes-128-ecb -nopad -in /data/block"
            " -K 2b7e151628aed2a6abf7158809cf4f3c | /usr/bin/md5sum",
            hashed("md5", bytes.fromhex("3925841d02dc09fbdc118597196a0b32") * (1 << 16)) + " -"),
    "fork": (f"for i in $(/usr/bin/seq {CHILDREN}); do /usr/bin/expr $i '*' $i; done",
             " ".join(str(number * number) for number in range(1, CHILDREN + 1))),
    "modules": ("modprobe ext4 && mount -t ext4 -o ro /dev/vda /mnt && sha256sum </mnt/text;"
                " umount /mnt && modprobe -r ext4 virtio_rng && grep -c -e ^ext4 -e ^jbd2"
                " -e ^virtio_rng /proc/modules;"
                " modprobe virtio_rng && head -c 64 /dev/hwrng | wc -c",
                hashed("sha256", TEXT) + " - 0 64"),
    "rewrite": (f"harts rewrite {COUNT}", f"rewrite {COUNT} on {CPUS} harts: 0 wrong"),
    "wake": (f"harts wake {COUNT}", f"wake {COUNT} on {CPUS} harts: 0 wrong"),
}

SCRIPT = r"""#!/bin/sh
set -f
export LC_ALL=C
mke2fs /dev/vda >/dev/null && mount -t ext4 /dev/vda /mnt && cp /data/text /mnt/text && umount /mnt

work() {
    while [ ! -e /tmp/end ]; do
        echo "stress: $1:" $(sh -f /strake/$1 2>&1)
    done
}

echo "stress: begin"
grep . /proc/interrupts
for worker in WORKERS; do
    work $worker &
done
sleep SECONDS
touch /tmp/end
wait
echo "stress: end"
grep . /proc/interrupts
dmesg | grep -i -e 'WARNING:' -e 'BUG:' -e Oops -e lockup -e stall -e segfault \
    -e 'unhandled signal' | sed 's,^,dmesg: ,'
echo "stress: done"
"""


def overlay():
    """Debian's programs, the workers, and what they work on."""
    tree = cpio.Tree()
    tree.host_folder("", fetch.fetch("programs") / "root")
    tree.file("data/text", TEXT)
    tree.file("data/block", bytes.fromhex("3243f6a8885a308d313198a2e0370734") * (1 << 16))
    tree.file("usr/bin/harts", initramfs.compile_static(HARTS), 0o755)
    for name, (command, _) in WORKERS.items():
        tree.file(f"strake/{name}", command + "\n")
    script = SCRIPT.replace("WORKERS", " ".join(WORKERS)).replace("SECONDS", str(SECONDS))
    tree.file("strake/run", script, 0o755)
    return tree


def check_worker(guest, name, begin, end):
    """Every round of a worker's said what it should, and none was long in coming."""
    start = f"stress: {name}: "
    rounds = [(when, line[len(start):]) for when, line in guest.lines if line.startswith(start)]
    wrong = [said for _, said in rounds if said != WORKERS[name][1]]
    check(not wrong, f"{name}: none of {len(rounds)} rounds says anything else than expected" +
          "".join(f"; one said '{said}'" for said in wrong[:1]))
    moments = [begin, *(when for when, _ in rounds), end]
    longest = max(after - before for before, after in zip(moments, moments[1:]))
    check(rounds and longest < STALL,
          f"{name}: {longest:.1f} s was the longest between two rounds, less than {STALL}")


def interrupts(text, kind):
    """How many interrupts of a kind each hart has had, in each table that was printed."""
    return [list(map(int, counts.split()))
            for counts in re.findall(rf"^ *\w+:((?: +\d+){{{CPUS}}}) .*{kind}", text, re.MULTILINE)]


def stress(test):
    need(vm.KERNEL, vm.INITRAMFS)
    disk = test.folder / "disk"
    disk.write_bytes(bytes(16 << 20))
    initrd = vm.with_overlay(overlay(), test.folder / "initrd")
    guest = test.start(vm.Machine(initrd=initrd, disks=[disk], cpus=CPUS, memory="1G"))
    guest.expect("stress: begin", TIMEOUT)
    guest.expect("stress: end", SECONDS + TIMEOUT)
    test.finish(guest)

    begin, end = guest.time_of("^stress: begin"), guest.time_of("^stress: end")
    check(end - begin >= SECONDS, f"{CPUS} harts worked for {end - begin:.0f} s")
    for name in WORKERS:
        check_worker(guest, name, begin, end)
    text = guest.text()
    for kind in ("riscv-timer", "Rescheduling", "Function call"):
        before, after = interrupts(text, kind)
        more = [new - old for old, new in zip(before, after)]
        check(min(more) > 0, f"each hart had interrupts, {kind}: {more}")
    bad = re.search(r"dmesg: (.*)\n", text)
    check(not bad, f"the kernel has nothing to complain of{': ' + bad.group(1) if bad else ''}")


main(stress)
