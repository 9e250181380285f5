# SPDX-License-Identifier: BSD-2-Clause
"""Judges refusals of updates: each has to be the one that is documented, told to the guest and to the
audit log, and to leave everything as it was. Also programs that are none of ours."""

import hashlib
import json
import os
import re
import signal
import struct
from typing import Callable, NamedTuple

from lib.channel import STATUS, WITHDRAW, Refused
from lib.daemon import PATIENCE
from lib.harness import Failed, PROJECT, check
from lib.updates import Guest

PAGE = PROJECT / "docs/guest-channel.md"
HEADER = PROJECT / "src/update/update.h"
OFFERS, RECORDS = 12, 48  # of a partition, before the service lets it wait and leaves records out
SECRET = ("host", "no-space")  # why is for the host alone


class Refusal(NamedTuple):
    """What the page's table says of one."""

    code: int
    ends: str  # "–", "session" or "connection"


def documented():
    """The table, by names."""
    rows = re.findall(r"^\| (\d+) \| ([a-z-]+) \| [^|]+ \| (–|session|connection) \| [^|]+ \|$",
                      PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    return {name: Refusal(int(code), ends) for code, name, ends in rows}


def coded():
    """Codes in the header, by names."""
    text = HEADER.read_text(encoding="utf-8")
    table = text[text.index("#define UPDATE_REFUSALS(X)"):text.index("#define UPDATE_PHASES(X)")]
    return {name: int(code) for code, name in re.findall(r'X\(\w+,\s*(\d+),\s*"([a-z-]+)"', table)}


def audit(supervisor):
    """The audit log's records."""
    log = supervisor.state / "update" / "history.jsonl"
    return [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()] \
        if log.exists() else []


def tree(folder):
    """What is in a folder, by paths: digests, targets of links, or None for folders."""
    def content(path):
        if path.is_symlink():
            return os.readlink(path)
        return None if path.is_dir() else hashlib.sha256(path.read_bytes()).hexdigest()
    return {str(path.relative_to(folder)): content(path) for path in sorted(folder.rglob("*"))}


def everything(supervisor):
    """All that a refused update may not change: the store with what is staged, what runs."""
    kept = {name: content for folder in ("update", "updates")
            for name, content in tree(supervisor.state / folder).items()
            if not name.startswith("history") and name != "lock"}
    now = supervisor.call("GET", "/v1")
    running = {one["name"]: (one["pid"], one["state"], one["handovers"],
                             os.stat(f"/proc/{one['pid']}/exe").st_ino)
               for one in supervisor.call("GET", "/v1/partitions")}
    return {"supervisor": (now["version"], now["pid"]), **kept, **running}


class Row(NamedTuple):
    """A case: `do` is given a connection on which HELLO was said, or nothing was, and has to come to
    the refusal. `events` come before it, None: any do. `ends` when it is not what the page says."""

    name: str
    refusal: str
    do: Callable
    events: tuple = ()
    ends: str = None
    greeted: bool = True
    spares: bool = False  # leaves a slot that nothing refers to


class Judge:
    """Of a partition's cases, one after the other. Where the partition has done what it may in some
    time, the supervisor is started anew, which has forgotten that."""

    def __init__(self, supervisor, door, partition):
        self.supervisor, self.door, self.partition = supervisor, door, partition
        self.table, self.seen = documented(), set()
        self.guest, self.records, self.offers = None, 0, 0

    def restart(self, meanwhile=lambda: None):
        """All limits are unused again."""
        self.leave()
        self.supervisor.end(signal.SIGKILL)
        meanwhile()
        self.supervisor.start()
        for one in self.supervisor.call("GET", "/v1/partitions"):
            self.supervisor.wait_for(one["name"], "running", "is taken over")
        self.records = self.offers = 0

    def leave(self):
        """The connection, if there is one, ends."""
        if self.guest:
            self.offers += self.guest.offers
            self.guest.close()
        self.guest = None

    def _connect(self, row):
        offers = self.offers + (self.guest.offers if self.guest else 0)
        if offers > OFFERS or self.records > RECORDS:
            self.restart()
        if not row.greeted:
            self.leave()
            self.guest = Guest(self.door)
        elif not self.guest:
            self.guest = self.door.greet()

    def judge(self, row):
        """Has it come to the refusal, and looks at all that has become of it."""
        self._connect(row)
        before, start = everything(self.supervisor), len(audit(self.supervisor))
        told, by = self._refused(row)
        refusal = self.table[row.refusal]
        check_row(row, told.code == refusal.code, f"told {told.code}: {told}")
        ends = row.ends or refusal.ends
        events = self._check_end(row, by, ends)
        self._check_records(row, told, by, audit(self.supervisor)[start:], events)
        after = everything(self.supervisor)
        changed = {name for name in before.keys() | after.keys()
                   if before.get(name, 0) != after.get(name, 0) and
                   not (row.spares and name.startswith(("slots/", "last")))}
        check_row(row, not changed, f"changes {changed}")
        self.seen.add(row.refusal)
        check(True, f"{row.name}: {row.refusal} ({told})")

    def _refused(self, row):
        """The refusal, and the connection that was told it."""
        try:
            other = row.do(self.guest)
        except Refused as refused:
            return refused, self.guest
        if not isinstance(other, tuple):
            raise Failed(f"{row.name}: is taken: {other}")
        return other

    def _check_end(self, row, by, ends):
        """What is to end has, and nothing else. Returns the events of ending the rest."""
        if ends == "connection":
            check_row(row, is_over(by), "leaves the connection")
            if by is self.guest:
                self.leave()
                return []
        session = self.guest.ask(STATUS)["session"]
        check_row(row, not (ends == "session" and session), f"leaves {session}")
        if not session:
            return []
        self.guest.send(WITHDRAW)
        self.guest.answer()
        return ["withdrawn"]

    def _check_records(self, row, told, by, records, events):
        self.records += len(records)
        found = [record["event"] for record in records]
        wanted = found[:len(found) - len(events) - 1] if row.events is None else list(row.events)
        check_row(row, found == [*wanted, "refused", *events], f"is recorded as {found}")
        record = records[len(wanted)]
        refusal = self.table[row.refusal]
        facts = (record["code"], record["refusal"], record["partition"])
        check_row(row, facts == (refusal.code, row.refusal, self.partition), f"is {facts}")
        check_row(row, row.refusal in SECRET or record["why"] == str(told),
                  f"the log says {record['why']!r}, the guest is told {str(told)!r}")
        check_row(row, refusal.ends != "session" or record["session"] == by.digest,
                  f"is of the session {record.get('session')}")


def check_row(row, condition, what):
    """Failed, with the case's name."""
    if not condition:
        raise Failed(f"{row.name}: {what}")


def is_over(guest):
    """Whether the host ends the connection, with nothing more said."""
    guest.stream.settimeout(PATIENCE)
    try:
        return guest.stream.recv(1) == b""
    except ConnectionError:
        return True


# ---- Programs -------------------------------------------------------------------------------------


def elf(code, machine=62, kind=2):
    """A static program of x86-64 that is these bytes of code: System V ABI, AMD64, chapter 4."""
    base, head = 0x400000, 64 + 56
    ident = b"\x7fELF\2\1\1".ljust(16, b"\0")
    return struct.pack("<16sHHIQQQIHHHHHH", ident, kind, machine, 1, base + head, 64, 0, 0, 64, 56, 1,
                       64, 0, 0) + \
        struct.pack("<IIQQQQQQ", 1, 5, 0, base, base, head + len(code), head + len(code), 4096) + code


def _call(number, *arguments):
    """mov eax, number; mov edi, ...; syscall"""
    loads = zip((b"\xb8", b"\xbf", b"\xba"), (number, *arguments))
    return b"".join(load + struct.pack("<I", value) for load, value in loads) + b"\x0f\x05"


def says(text, status=0):
    """A program that prints something and ends."""
    end = _call(60, status)
    write = _call(1, 1, len(text))
    # lea rsi, [rip + what is between here and the text]
    return elf(b"\x48\x8d\x35" + struct.pack("<I", len(write) + len(end)) + write + end + text)


CRASHES = elf(b"\x0f\x0b")  # ud2
HANGS = elf(_call(34) + b"\xeb\xf7")  # pause; jmp to its mov
