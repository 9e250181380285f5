# SPDX-License-Identifier: BSD-2-Clause
"""Handovers in a row, of a guest that is busy: what it writes and sends stays right, nothing is lost,
nothing grows."""

import contextlib
import os
import re
import time
from pathlib import Path

from lib.harness import TIMEOUT, UNDER_QEMU, Skipped, check, free_port, need
import busy
import supervised
import vm

DISK_BYTES = 16 << 20
WARM_UP = 5  # handovers before what is held is looked at
FEW = 3  # connections of clients and the like; a leak is one a handover
ANON_MB = 16  # by which a process's own memory may differ
CLOCK_MS = 100  # by which a clock may seem to have moved, on a busy machine
LATE_S = 30  # a lost interrupt would be later: it never comes
TROUBLE = re.compile(r"BUG|WARNING|Oops|stall|lockup|hung|I/O error|timed out|timeout|reset", re.I)


def holdings(pid):
    """What a process holds: descriptors, threads (but for io_uring's, which come and go), MB of
    memory of its own."""
    with open(f"/proc/{pid}/status", encoding="utf-8") as status:
        fields = dict(line.split(":", 1) for line in status)
    names = [path.read_text(encoding="utf-8") for path in Path(f"/proc/{pid}/task").glob("*/comm")]
    return {"descriptors": len(os.listdir(f"/proc/{pid}/fd")),
            "threads": sum(not name.startswith("iou-") for name in names),
            "MB": int(fields["RssAnon"].split()[0]) / 1024}


def children(pid):
    """Processes that a process has started and that run."""
    found = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{entry}/stat", encoding="utf-8") as stat:
            state, parent = stat.read().rpartition(")")[2].split()[:2]
            if int(parent) == pid and state != "Z":
                found.append(int(entry))
    return found


def settled(supervisor, count):
    """Waits until the supervisor has `count` children: monitors that gave their guest away are to
    end. Returns what it and they hold, by what they are."""
    deadline = time.monotonic() + TIMEOUT
    while len(found := children(supervisor.process.pid)) != count and time.monotonic() < deadline:
        time.sleep(0.05)
    check(len(found) == count, f"the supervisor has {count} processes")
    held = {"supervisor": holdings(supervisor.process.pid)}
    for pid in found:
        with open(f"/proc/{pid}/cmdline", "rb") as line:
            held[line.read().split(b"\0")[1].decode()] = holdings(pid)
    return held


def check_held(before, after):
    """Nothing has grown."""
    for who, held in before.items():
        now = after[who]
        for what in ("descriptors", "threads"):
            check(now[what] <= held[what] + FEW,
                  f"{who}: {now[what]} {what}, {held[what]} before")
        check(now["MB"] <= held["MB"] + ANON_MB,
              f"{who}: {now['MB']:.1f} MB of its own, {held['MB']:.1f} before")


def check_said(said, peer, disk):
    """What the loads have to say at their end, and the host's ends of them."""
    disk_said, = said["disk"]
    check(disk_said["wrong"] == disk_said["failed"] == 0 and disk_said["written"] > 0,
          f"the guest finds all it wrote to its disk: {disk_said['written']} writes, "
          f"{disk_said['read']} blocks read back")
    check(busy.check_image(disk) == (0, disk_said["crc"]),
          "the host finds in the disk's file what was written last, block by block")
    for name, own, what in (("tcp", peer.echo, "from the guest"), ("echo", peer.call, "to it")):
        guest, = said[name]
        check(guest["connections"] == 1, f"the stream {what} is one connection")
        check(guest["wrong"] == own.wrong == 0 and guest["crc"] == own.crc
              and guest["received"] == guest["sent"] == own.received == own.sent > 0,
              f"{own.received} messages went {what} and back, with the same checksum at both ends")
    for hart in said["wake"]:
        late = max(hart["tick_late_us"], hart["wake_late_us"]) / 1e6
        check(hart["ticks"] == hart["woken"] > 0 and late < LATE_S,
              f"hart {hart['hart']}: {hart['ticks']} timer ticks, each woke the next hart; "
              f"at most {late:.3f} s late")


def hand_over_and_over(partition, count, seconds):
    """Up to `count` handovers, no new one after `seconds`; returns their blackouts in ms."""
    end = time.monotonic() + seconds
    blackouts = []
    while len(blackouts) < count and time.monotonic() < end:
        blackouts.append(partition.hand_over()["blackout_ns"] / 1e6)
        if len(blackouts) % 100 == 0:
            print(f"{len(blackouts)} handovers", flush=True)
    return blackouts


def handovers(test, count, least, seconds, harts=2):
    """The whole test: `count` handovers, or those of `seconds`, but `least`."""
    if UNDER_QEMU:
        raise Skipped("QEMU is no peer for this test")
    need(vm.KERNEL, vm.INITRAMFS)
    disk, port = test.folder / "disk", free_port()
    disk.touch()
    os.truncate(disk, DISK_BYTES)
    with contextlib.ExitStack() as stack:
        peer = stack.enter_context(contextlib.closing(busy.Peer()))
        supervisor = stack.enter_context(contextlib.closing(supervised.Supervisor(test.folder)))
        partition = supervisor.partition("busy", vm.Machine(
            cpus=harts, disks=[disk], net=[f"tcp:127.0.0.1:{port}-:{busy.ECHO_PORT}"]))
        partition.start()
        test.guests.append(partition)
        partition.expect(vm.PROMPT, TIMEOUT)
        guest = busy.Guest(partition, peer, timeout=TIMEOUT)
        guest.load_all(lambda: port, disk_pause_ms=40, tcp_pause_ms=20)
        guest.start_probe()
        guest.begin()

        blackouts = hand_over_and_over(partition, WARM_UP, TIMEOUT)
        before, offset = settled(supervisor, 2), guest.clock_offset()
        blackouts += hand_over_and_over(partition, count - WARM_UP, seconds)
        after, drift = settled(supervisor, 2), guest.clock_offset() - offset

        check(len(blackouts) >= least, f"{len(blackouts)} handovers in a row, each a success")
        blackouts.sort()
        stretch = guest.end()
        print(f"blackout: median {blackouts[len(blackouts) // 2]:.2f} ms, longest "
              f"{blackouts[-1]:.2f} ms; longest gap in the guest {stretch.longest_ms:.1f} ms")
        check(stretch.back_ms == 0, "the clock went back on no hart")
        check_held(before, after)
        drift_ms = drift / guest.ticks_per_us / 1000
        check(abs(drift_ms) < CLOCK_MS, f"the guest's clock went on ({drift_ms:+.2f} ms)")
        guest.quit_probe()
        check_said(guest.finish(), peer, disk)
        _, log = partition.shell("dmesg")
        trouble = [line for line in log.splitlines() if TROUBLE.search(line)]
        check(not trouble, f"the guest's kernel has nothing to complain about {trouble[:3] or ''}")
