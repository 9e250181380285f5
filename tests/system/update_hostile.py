#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Guests that mean no good, or give up, while the service has work for others: a program that never
ends its self-test, two partitions at once, ten thousand frames of garbage, floods of requests and of
connections, talk without end, connections that are lost, silence, and claims on the disk. Then an
update as it should be, from the partition that sent the garbage."""

import contextlib
import json
import os
import random
import select
import time

from lib.channel import COMMIT, FINISH, HEADER, HELLO, MAGIC, STATUS, WITHDRAW, WRITE, Refused
from lib.daemon import PATIENCE, Supervisor, create
from lib.harness import Failed, check, main, need
from lib.refusals import HANGS, audit, documented, everything, is_over, says
from lib.updates import Door, Guest, facts, make_package, pack, sign, version
import vm

FRAMES, CONNECTIONS = 10_000, 60
MOST = 16  # frames of a connection that are answered before it ends
REQUESTS = 1024  # a second
CROWD = 8  # connections of a partition
SAMPLES = 20
AUDIT_BURST, AUDIT_SECONDS = 64, 10
QUOTA = 256 << 20
CPU_SECONDS, MEMORY_BYTES = 10, 64 << 20  # far more than it takes
VERSION = "9.0.0"
PAYLOAD, MANIFEST = "monitor-full.zst", "manifest.json"
NOISE = random.Random(5)

# An OFFER of a MiB, which is refused by its header: the guest has far more to say when it is told so.
LOUD_TIMES = 20
LOUD = rf"""
printf '\124\123\002\000\000\000\020\000\000\000\000\000\000\000\000\000' >/tmp/frame
head -c 1048576 /dev/zero >>/tmp/frame
told=0
for i in $(seq {LOUD_TIMES}); do
    vsock connect 5354 </tmp/frame >/tmp/answer 2>/dev/null
    [ "$(wc -c </tmp/answer)" -gt 16 ] && told=$((told + 1))
done
echo "told: $told times"
"""


def hostile(test):
    need(vm.KERNEL, vm.INITRAMFS)
    web, db, quiet = Door(test), Door(test), Door(test, LOUD)
    busy, idle = (Supervisor(test, ["--trusted", test.folder / "trusted"]) for _ in range(2))
    create(busy, "web", web.definition, updates=True)
    create(busy, "db", db.definition, updates=True)
    create(idle, "quiet", quiet.definition, updates=True)
    noise = NOISE.randbytes(300_000)  # what cannot be packed, so that there is something to send
    good = pack(test, "good", says(json.dumps({**facts(), "version": VERSION}).encode()) + noise,
                version=VERSION)
    hangs = pack(test, "hangs", HANGS, version=VERSION)

    idle.wait_console("quiet", "times")
    check(f"told: {LOUD_TIMES} times" in idle.console("quiet"),
          "a guest that talks on is told why its connection ends, each time")
    silent = falls_silent(quiet, good)
    before = everything(busy)
    testing = hang(busy, web, hangs)
    second_partition(busy, db, good)
    garbage(busy, db)
    flood(db)
    hang_ends(busy, testing, before)
    silence_ends(idle, silent, quiet, good)
    crowd(idle, quiet)
    abandoned(idle, quiet, good, test)
    claims(idle, quiet, good, test)
    update(busy, db, make_package(test, "real"))


def refused(guest, name, what, do):
    """What is done is refused so."""
    try:
        answer = do()
    except Refused as told:
        check(told.code == documented()[name].code, f"{what}: {name} ({told})")
        return
    raise Failed(f"{what}: {answer}")


# ---- A program that does not end, and others meanwhile ---------------------------------------------


def hang(supervisor, door, files):
    """It is tested. The connection is lost meanwhile, and the next one waits for the same test."""
    before = set(supervisor.marked())
    with contextlib.closing(door.greet()) as guest:
        guest.offer(files)
        guest.write(files[PAYLOAD])
        guest.send(FINISH)
        wait_until(supervisor, lambda: set(supervisor.marked()) - before, "the program is tested")
    guest = door.greet()
    session = guest.offer(files)
    check(session["phase"] == "validating", f"offered again it is {session['phase']}")
    guest.send(FINISH)
    return guest, before


def wait_until(supervisor, condition, what):
    """Waits for something."""
    deadline = time.monotonic() + PATIENCE * 5
    while not condition():
        if time.monotonic() > deadline:
            raise Failed(f"{what}: {supervisor.text()[-500:]}")
        time.sleep(0.05)


def hang_ends(supervisor, testing, before):
    """After a minute."""
    guest, processes = testing
    refused(guest, "self-test", "a program that does not end its self-test", guest.answer)
    check(guest.ask(STATUS)["session"] is None, "the session has ended")
    wait_until(supervisor, lambda: not set(supervisor.marked()) - processes, "and so has the program")
    check(everything(supervisor) == before, "nothing is changed")
    # That the connection which was lost has lost its session may be told it, too.
    events = [record for record in audit(supervisor)
              if record.get("partition") == "web" and record.get("refusal") != "no-session"]
    check([record["event"] for record in events] == ["offered", "received", "resumed", "refused"] and
          events[-1]["refusal"] == "self-test" and events[-1]["session"] == guest.digest,
          "and it is in the audit log")
    guest.close()


def second_partition(supervisor, door, good):
    """Two sessions at once there are not."""
    with contextlib.closing(door.greet()) as guest:
        refused(guest, "busy", "another partition's offer meanwhile", lambda: guest.offer(good))
        status = guest.ask(STATUS)
        check(status["busy"] and status["session"] is None, "which STATUS says, and no more")
    record = audit(supervisor)[-1]
    check((record["refusal"], record["partition"]) == ("busy", "db"), "and the audit log, too")


# ---- Garbage --------------------------------------------------------------------------------------


class Usage:
    """What a process has taken."""

    def __init__(self, pid):
        stat = open(f"/proc/{pid}/stat", encoding="utf-8").read().rsplit(")", 1)[1].split()
        self.seconds = (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")
        self.bytes = int(stat[21]) * os.sysconf("SC_PAGE_SIZE")
        self.files = len(os.listdir(f"/proc/{pid}/fd"))


def garbage_frame(kind):
    """Noise; or a frame of a type that there is not, with noise in it."""
    payload = NOISE.randbytes(NOISE.randrange(96))
    if kind == "noise":
        return NOISE.randbytes(16) + payload
    return HEADER.pack(MAGIC, NOISE.randrange(8, 0x10000), len(payload), NOISE.randrange(1 << 64)) + \
        payload


def garbage_connection(door, kind, count):
    """Sends frames, and reads until the host ends it. Returns how many errors came."""
    guest = Guest(door) if kind == "noise" else door.greet()
    errors = 0
    with contextlib.closing(guest), contextlib.suppress(OSError):
        guest.stream.sendall(b"".join(garbage_frame(kind) for _ in range(count)))
        while True:
            try:
                guest.answer()
            except Refused as told:
                if told.code != 1:
                    raise
                errors += 1
    return errors


def garbage(supervisor, door):
    """Ten thousand frames of it: each connection ends soon, and none of them costs much."""
    before, start, since = Usage(supervisor.process.pid), len(audit(supervisor)), time.monotonic()
    errors = []
    for number in range(CONNECTIONS):
        kind = ("noise", "frames")[number % 2]
        errors.append(garbage_connection(door, kind, FRAMES // CONNECTIONS + 1))
    after = Usage(supervisor.process.pid)
    check(max(errors) <= MOST and sum(errors) > 0,
          f"{FRAMES} frames of garbage come over {CONNECTIONS} connections; {sum(errors)} errors are "
          f"told, at most {max(errors)} a connection")
    check(after.seconds - before.seconds < CPU_SECONDS,
          f"they take {after.seconds - before.seconds:.2f} s of the supervisor's time")
    check(after.bytes - before.bytes < MEMORY_BYTES,
          f"and {(after.bytes - before.bytes) >> 10} KiB of its memory")
    wait_until(supervisor, lambda: Usage(supervisor.process.pid).files <= before.files,
               "no connection of them is left")
    records = audit(supervisor)[start:]
    most = AUDIT_BURST + (time.monotonic() - since) / AUDIT_SECONDS + 1
    check({record.get("refusal") for record in records} <= {"malformed", "self-test"} and
          len(records) <= most, f"the audit log has {len(records)} records of it, of {most:.0f} at most")


def flood(door):
    """Requests that are short and good come no faster than long ones."""
    hello = json.dumps({"protocol": 1}).encode()
    with contextlib.closing(door.greet()) as guest:
        since = time.monotonic()
        guest.stream.sendall((HEADER.pack(MAGIC, HELLO, len(hello), 0) + hello) * 3 * REQUESTS)
        for _ in range(3 * REQUESTS):
            guest.answer()
        seconds = time.monotonic() - since
    check(seconds > 1.5, f"{3 * REQUESTS} requests at once are answered in {seconds:.1f} s")


def crowd(supervisor, door):
    """Connections that say nothing: the service takes a few of them at a time, and no more."""
    before, taken, guests = Usage(supervisor.process.pid).files, [], []

    def most_have_ended():
        # One that is about to be reset counts for a moment.
        taken.append(min(Usage(supervisor.process.pid).files - before for _ in range(SAMPLES)))
        streams = [guest.stream for guest in guests]
        return len(select.select(streams, (), (), 0)[0]) >= len(guests) - CROWD

    try:
        for _ in range(2 * CROWD):
            guests.append(Guest(door))
            most_have_ended()
            time.sleep(0.1)  # the door takes them one after the other
        wait_until(supervisor, most_have_ended, "connections are reset")
    finally:
        for guest in guests:
            guest.close()
    check(0 < max(taken) <= CROWD, f"of {len(guests)} connections of a partition {max(taken)} are taken")
    wait_until(supervisor, lambda: Usage(supervisor.process.pid).files <= before,
               "no connection of them is left")


# ---- Silence, and sessions that are left -----------------------------------------------------------


def falls_silent(door, good):
    """A guest that sends a part of the payload and no more."""
    guest = door.greet()
    guest.offer(good)
    sent = len(good[PAYLOAD]) // 2
    guest.write(good[PAYLOAD], 0, sent)
    check(guest.ask(STATUS)["session"]["offset"] == sent, "half of a payload is there")
    return guest


def silence_ends(supervisor, guest, door, good):
    """After a minute the connection ends; the session goes on over the next one."""
    refused(guest, "too-slow", "a guest that falls silent", guest.answer)
    check(documented()["too-slow"].ends == "connection" and is_over(guest), "its connection ends")
    record = audit(supervisor)[-1]
    check((record["refusal"], record["session"]) == ("too-slow", guest.digest),
          "and the audit log has it")
    with contextlib.closing(door.greet()) as again:
        session = again.offer(good)
        sent = len(good[PAYLOAD]) // 2
        check(session["offset"] == sent, "the next connection goes on where it was")
        again.stream.sendall(HEADER.pack(MAGIC, WRITE, 5000, again.handle) + bytes(2500))
    with contextlib.closing(door.greet()) as again:
        session = again.offer(good)
        check((session["phase"], session["offset"]) == ("receiving", sent),
              "and again, when it is lost in the middle of a frame")


def offer_instead(guest, files):
    """Offers something else than what a connection that has ended brought, once its end is seen."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return guest.offer(files)
        except Refused as told:
            if told.code != documented()["busy"].code or time.monotonic() > deadline:
                raise
            time.sleep(4)  # the service takes few offers


def withdraw(guest):
    """The guest gives it up."""
    guest.send(WITHDRAW)
    guest.answer()


def staged(supervisor):
    """Digests of what is on its way."""
    return [path.name for path in (supervisor.state / "update" / "staging").iterdir()]


def abandoned(supervisor, door, good, test):
    """A session without connection makes way for the same partition's next; and what it had received
    is kept."""
    before = staged(supervisor)
    other = sign(test, "good", good, {**json.loads(good[MANIFEST]), "notes": "another"})
    with contextlib.closing(door.greet()) as guest:
        session = offer_instead(guest, other)
        check(session["phase"] == "offered", "a session that was abandoned makes way for another")
        withdraw(guest)
    events = [record["event"] for record in audit(supervisor)[-3:]]
    check(events == ["abandoned", "offered", "withdrawn"], f"the audit log has it: {events}")
    check(staged(supervisor) == before, "what was received before is there still, and no more")
    with contextlib.closing(door.greet()) as guest:
        session = guest.offer(good)
        check(session["offset"] == len(good[PAYLOAD]) // 2, "and is gone on with")
        guest.write(good[PAYLOAD], session["offset"])
        check(guest.ask(FINISH)["version"] == VERSION, "all of it is validated")
        withdraw(guest)
    check(not staged(supervisor), "withdrawn, it is gone")


def claims(supervisor, door, good, test):
    """What a guest has announced and not sent never counts for more than the quota."""
    manifest = json.loads(good[MANIFEST])
    manifest["monitor"][0]["bytes"] = QUOTA // 2 + 1
    for number in range(3):
        offered = sign(test, "good", good, {**manifest, "notes": str(number)})
        with contextlib.closing(door.greet()) as guest:
            offer_instead(guest, offered)
            check(staged(supervisor) == [guest.digest],
                  "of claims that are more than the quota together only the last one holds")
            if number == 2:
                withdraw(guest)


# ---- As it should be ------------------------------------------------------------------------------


def update(supervisor, door, files):
    """Offered to committed."""
    guest = door.greet()
    guest.offer(files)
    guest.write(files[PAYLOAD])
    guest.ask(FINISH)
    try:
        committed = guest.ask(COMMIT)
    except OSError:
        committed = outcome(door, files)
    check(committed["new"] == version() and committed["partitions"] == 2,
          f"the partition that sent garbage updates the monitor: {committed}")
    suppressed = sum(record.get("suppressed", 0) for record in audit(supervisor))
    check(suppressed > 0, f"the audit log says that it has left out {suppressed} records")


def outcome(door, files):
    """After the supervisor has executed itself anew."""
    deadline = time.monotonic() + PATIENCE * 5
    while time.monotonic() < deadline:
        with contextlib.closing(door.greet()) as guest:
            session = guest.offer(files)
        if session["phase"] != "committing":
            return session["result"]
        time.sleep(5)  # the service takes few offers
    raise Failed("nothing becomes of the update")


main(hostile)
