#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Each refusal of an update, brought about by a guest at a supervisor: altered, cut and lying packages,
programs that are none, and frames that are not as docs/guest-channel.md says. Each is told with its
code, ends what the page says, is in the audit log, and changes nothing. No code is without a case."""

import base64
import contextlib
import ctypes
import hashlib
import json
import shutil
import struct
import time

from lib.channel import COMMIT, FINISH, HEADER, HELLO, MAGIC, OFFER, STATUS, WITHDRAW, WRITE, Refused
from lib.daemon import PATIENCE, Supervisor, create
from lib.harness import Failed, PROJECT, Skipped, check, main, need
from lib.refusals import CRASHES, Judge, Row, coded, documented, elf, everything, says
from lib.updates import Door, Guest, facts, pack, sign
import vm

# Cases that are elsewhere, and the words by which they are found there.
ELSEWHERE = {"too-slow": ("tests/system/update_hostile.py", '"too-slow"'),
             "no-space": ("tests/unit/update_channel_refusals.c", "UPDATE_REFUSAL_NO_SPACE")}
VERSION = "9.0.0"
MANIFEST, SIGNATURE, PAYLOAD = "manifest.json", "manifest.json.minisig", "monitor-full.zst"
MANIFEST_BYTES, SIGNATURE_BYTES, FRAME_BYTES = 61440, 4092, 65536
QUOTA, PROGRAM_BYTES = 256 << 20, 1 << 30
DISK_BYTES = 128 << 20
CLONE_NEWNS, MS_REC, MS_PRIVATE, MNT_DETACH = 0x20000, 1 << 14, 1 << 18, 2  # of Linux


class Disk:
    """A small disk, if there may be one: in a mount namespace of the test's, so that nothing of it is
    left whatever becomes of the test."""

    def __init__(self, test):
        self.path = test.folder / "disk"
        self.path.mkdir()
        self.libc = ctypes.CDLL(None)
        private = self.libc.unshare(CLONE_NEWNS) == 0 and \
            self.libc.mount(b"none", b"/", None, ctypes.c_ulong(MS_REC | MS_PRIVATE), None) == 0
        self.mounted = private and self.libc.mount(
            b"none", bytes(self.path), b"tmpfs", ctypes.c_ulong(0),
            f"size={DISK_BYTES},mode=0700".encode()) == 0
        test.guests.append(self)

    def stop(self):
        """It goes with the last who uses it."""
        if self.mounted:
            self.libc.umount2(bytes(self.path), MNT_DETACH)


def refusals(test):
    need(vm.KERNEL, vm.INITRAMFS)
    if not shutil.which("minisign"):
        raise Skipped("there is no minisign (package minisign)")
    disk, web, plain = Disk(test), Door(test), Door(test)
    supervisor = Supervisor(test, ["--trusted", test.folder / "trusted"], folder=disk.path)
    create(supervisor, "plain", plain.definition, vsock=f"7,{test.folder / 'vsock'}")
    create(supervisor, "web", web.definition, updates=True)
    good = pack(test, "good", program(version=VERSION), version=VERSION)
    judge = Judge(supervisor, web, "web")
    for row in (*offers(test, good), *manifests(test, good), *payloads(test, good), *frames(web, good)):
        judge.judge(row)
    untrusted_comment(judge, good)
    no_space(test, judge, good, disk)
    host(test, judge, good)
    epoch(test, judge)
    judge.restart()
    judge.judge(Row("offers without end", "busy", lambda guest: too_often(guest, good), None))
    judge.restart()
    judge.judge(Row("a fifth connection", "busy", lambda guest: connections(guest, web), None,
                    ends="connection"))
    judge.judge(Row("a program that is no monitor", "rolled-back", lambda guest: commit(guest, good),
                    None, spares=True))
    complete(judge.seen | not_permitted(supervisor, plain))


def program(**changes):
    """A program that says of itself what ours does, but for the changes, and can do nothing else."""
    return says(json.dumps({**facts(), **changes}).encode())


# ---- Offers ---------------------------------------------------------------------------------------


def offer(name, refusal, files, **options):
    """An OFFER that is refused."""
    return Row(name, refusal, lambda guest: guest.offer(files), **options)


def altered(data, at):
    """With one byte that is another."""
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1:]


def altered_line(signature, line, at):
    """With one byte of what a line is the base64 of."""
    lines = signature.split(b"\n")
    lines[line] = base64.b64encode(altered(base64.b64decode(lines[line]), at))
    return b"\n".join(lines)


def offers(test, good):
    """Signatures, and signed manifests of what this host does not take."""
    manifest, signature = good[MANIFEST], good[SIGNATURE]
    stolen = pack(test, "stolen", program(version=VERSION), version=VERSION)
    trusted = test.folder / "trusted"
    shutil.copy(trusted / "stolen.pub", trusted / "stolen.revoked")
    strange = pack(test, "strange", program(version=VERSION), version=VERSION)
    (trusted / "strange.pub").unlink()

    yield offer("no signature", "unsigned", {**good, SIGNATURE: b""})
    yield offer("a key that is not trusted", "unknown-key", strange)
    yield offer("a key that was revoked", "revoked-key", stolen)
    yield offer("another manifest's signature", "bad-signature",
                {**good, SIGNATURE: sign(test, "good", good, b"{}")[SIGNATURE]})
    places = {"first byte": 0, "last byte": len(manifest) - 1} | {
        f'"{key}"': manifest.index(f'"{key}":'.encode()) + 1 for key in json.loads(manifest)} | {
        f'value of "{key}"': manifest.index(f'"{key}":'.encode()) + len(key) + 5
        for key in ("version", "epoch", "expires")}
    for name, at in places.items():
        yield offer(f"manifest altered: {name}", "bad-signature",
                    {**good, MANIFEST: altered(manifest, at)})
    for name, line, at in (("algorithm", 1, 0), ("signature, first byte", 1, 10),
                           ("signature, last byte", 1, 73), ("global signature, first byte", 3, 0),
                           ("global signature, last byte", 3, 63)):
        yield offer(f"signature file altered: {name}", "bad-signature",
                    {**good, SIGNATURE: altered_line(signature, line, at)})
    yield offer("signature file altered: key id", "unknown-key",
                {**good, SIGNATURE: altered_line(signature, 1, 2)})
    starts = [0]
    for line in signature.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    for name, at in (("untrusted comment's name", 3), ("line feed of base64", starts[2] - 1),
                     ("trusted comment's name", starts[2] + 3),
                     ("trusted comment", starts[2] + 17), ("its last letter", starts[3] - 2),
                     ("last byte", len(signature) - 1)):
        yield offer(f"signature file altered: {name}", "bad-signature",
                    {**good, SIGNATURE: altered(signature, at)})
    yield offer("signature file altered: no letter of base64", "bad-signature",
                {**good, SIGNATURE: signature[:starts[1] + 5] + b"!" + signature[starts[1] + 6:]})
    for name, cut in (("by a byte", manifest[:-1]), ("in the middle", manifest[:len(manifest) // 2]),
                      ("to a byte", manifest[:1]), ("and lengthened", manifest[:-1] + b"  ")):
        yield offer(f"manifest cut {name}", "bad-signature", {**good, MANIFEST: cut})
    for line, (start, end) in enumerate(zip(starts, starts[1:]), 1):
        yield offer(f"signature file cut in line {line}", "bad-signature",
                    {**good, SIGNATURE: signature[:(start + end) // 2]})
        yield offer(f"signature file cut before the end of line {line}", "bad-signature",
                    {**good, SIGNATURE: signature[:end - 1]})
    yield offer("signature file lengthened", "bad-signature", {**good, SIGNATURE: signature + b"\n"})


def manifests(test, good):
    """Signed ones, of what this host does not take."""
    mine = facts()
    newest, oldest = mine["state"]["newest"], mine["state"]["oldest"]
    text = program(version=VERSION)
    yield offer("an expired package", "expired",
                pack(test, "expired", text, version=VERSION, expires="2020-01-01T00:00:00Z"))
    yield offer("the version that runs", "downgrade",
                pack(test, "same", text, version=mine["version"]))
    yield offer("an older version", "downgrade", pack(test, "older", text, version="0.0.1"))
    yield offer("state that is too new", "state-version",
                pack(test, "new-state", text, version=VERSION, states=f"{newest + 1}-{newest + 2}"))
    if oldest < newest:
        yield offer("state that is too old", "state-version",
                    pack(test, "old-state", text, version=VERSION, states=f"{oldest}-{newest - 1}"))

    def signed(name, refusal, changes):
        manifest = json.loads(good[MANIFEST])
        changes(manifest)
        return offer(name, refusal, sign(test, "good", good, manifest))

    yield signed("another product", "wrong-product", lambda made: made.update(product="other"))
    yield signed("another architecture", "wrong-architecture",
                 lambda made: made.update(architecture="riscv64"))
    delta = {"base": {"version": "0.0.9", "sha256": "5" * 64}, "file": "monitor-from-0.0.9.zst"}
    yield signed("a delta to what is not here", "no-base",
                 lambda made: made["monitor"][0].update(delta))
    yield signed("a payload beyond the quota", "too-large",
                 lambda made: made["monitor"][0].update(bytes=QUOTA + 1))
    yield signed("a payload far beyond it", "too-large",
                 lambda made: made["monitor"][0].update(bytes=(8 << 30) - 1))
    yield signed("a program beyond the limit", "too-large",
                 lambda made: made["program"].update(bytes=PROGRAM_BYTES + 1))
    yield signed("a key too many", "bad-manifest", lambda made: made.update(more=1))
    yield signed("a key too few", "bad-manifest", lambda made: made.pop("epoch"))
    yield signed("an epoch that is none", "bad-manifest", lambda made: made.update(epoch=0))
    yield signed("a version that is none", "bad-manifest", lambda made: made.update(version="../9"))
    yield signed("a file's name that leads out", "bad-manifest",
                 lambda made: made["monitor"][0].update(file="../monitor-full.zst"))
    yield signed("no payload", "bad-manifest", lambda made: made["monitor"].clear())
    yield signed("another format", "bad-manifest", lambda made: made.update(format=2))
    manifest = good[MANIFEST]
    for name, made in (("no JSON", manifest[:-3]), ("a NUL in it", manifest[:-2] + b"\0}\n"),
                       ("a key twice", manifest.replace(b"{", b'{"epoch": 1,', 1)), ("a list", b"[]"),
                       ("lists in lists", b"[" * MANIFEST_BYTES)):
        yield offer(f"a manifest that is signed: {name}", "bad-manifest",
                    sign(test, "good", good, made))


def untrusted_comment(judge, good):
    """The only bytes of a package that are nobody's word: what they are changes nothing."""
    before = everything(judge.supervisor)
    signature = good[SIGNATURE].replace(b"untrusted comment: ", b"untrusted comment: x", 1)
    with contextlib.closing(judge.door.greet()) as guest:
        session = guest.offer({**good, SIGNATURE: signature})
        check(session["phase"] == "offered" and session["manifest"] == guest.digest,
              "with another untrusted comment it is the same offer")
        guest.send(WITHDRAW)
        guest.answer()
    check(everything(judge.supervisor) == before, "withdrawn, it leaves nothing")


def epoch(test, judge):
    """Where a version with a higher security epoch was confirmed once."""
    path = judge.supervisor.state / "update" / "state.json"
    was = path.read_text(encoding="utf-8") if path.exists() else None
    state = {"current": "installed", "previous": "", "pending": None, **json.loads(was or "{}")}
    files = pack(test, "epoch", program(version=VERSION, epoch=6), version=VERSION, epoch=6)

    def set_state(text):
        path.write_text(text, encoding="utf-8")
        path.chmod(0o600)

    judge.restart(lambda: set_state(json.dumps({**state, "epoch": 7})))
    judge.judge(offer("an older epoch", "downgrade", files))
    judge.restart(lambda: set_state(was) if was else path.unlink())


def host(test, judge, good):
    """Keys that cannot be read are the host's own fault."""
    path = test.folder / "trusted" / "broken.pub"
    path.write_text("no key\n")
    judge.judge(offer("a host whose keys are damaged", "host", good))
    path.unlink()


def no_space(test, judge, good, disk):
    """A payload that the quota allows, and the disk does not."""
    if not disk.mounted:
        print("no-space: there is no disk of our own here")
        return
    manifest = json.loads(good[MANIFEST])
    manifest["monitor"][0]["bytes"] = DISK_BYTES + 1
    judge.judge(offer("a disk that is too small", "no-space", sign(test, "good", good, manifest)))


def too_often(guest, good):
    """Offers that are refused for something else, until they are refused for being too many."""
    for _ in range(1000):
        try:
            guest.offer({**good, SIGNATURE: b""})
        except Refused as refused:
            if refused.code != 5:
                raise


# ---- Payloads -------------------------------------------------------------------------------------


def bring(name, refusal, files, payload=None):
    """A payload that is refused when all of it is there."""
    def do(guest):
        guest.offer(files)
        guest.write(payload or files[PAYLOAD])
        guest.ask(FINISH)
    return Row(name, refusal, do, ("offered", "received"))


def repacked(test, good, name, payload, size=None, digest=None):
    """Brings a payload of which the signed manifest says the truth, unless told otherwise."""
    manifest = json.loads(good[MANIFEST])
    manifest["monitor"][0].update(bytes=len(payload), sha256=hashlib.sha256(payload).hexdigest())
    manifest["program"].update({"bytes": size} if size else {})
    manifest["program"].update({"sha256": digest} if digest else {})
    return bring(name, "bad-digest", {**sign(test, "good", good, manifest), PAYLOAD: payload})


def payloads(test, good):
    """What is found out by unpacking, looking at the program, and having it test itself."""
    payload, size = good[PAYLOAD], json.loads(good[MANIFEST])["program"]["bytes"]
    for name, at in (("first byte", 0), ("fourth byte", 3), ("header", 4),
                     ("middle", len(payload) // 2), ("last byte", len(payload) - 1)):
        yield bring(f"payload altered: {name}", "bad-digest", good, altered(payload, at))
    yield repacked(test, good, "a payload that holds less", payload, size=size + 1)
    yield repacked(test, good, "a payload that holds more", payload, size=size - 1)
    yield repacked(test, good, "a payload of another program", payload, digest="5" * 64)
    yield repacked(test, good, "a payload with more behind it", payload + b"\0")
    yield repacked(test, good, "a payload that is cut, and signed so", payload[:-1])
    yield repacked(test, good, "a payload that is not packed", program(version=VERSION))

    whole = program(version=VERSION)
    for name, made in (("a text", b"#!/bin/sh\nexit 0\n"), ("one of RISC-V", elf(b"\0\0", 243)),
                       ("one that is cut", whole[:-1]), ("a header alone", whole[:64]),
                       ("a library", elf(b"\0\0", kind=3)), ("an object", elf(b"\0\0", kind=1))):
        slug = "program-" + name.replace(" ", "-")
        yield bring(f"a program that is none: {name}", "no-program",
                    pack(test, slug, made, version=VERSION))
    told = {**facts(), "version": VERSION}
    for name, made in (("ends with 1", says(json.dumps(told).encode(), 1)), ("crashes", CRASHES),
                       ("says nothing", says(b"")), ("talks nonsense", says(b"all is well\n")),
                       ("talks without end", says(b"{" * 1_000_000)),
                       ("is of another version", program(version="9.0.1")),
                       ("is of another epoch", program(version=VERSION, epoch=told["epoch"] + 1)),
                       ("loads other state", program(version=VERSION, state={
                           "oldest": told["state"]["oldest"], "newest": told["state"]["newest"] + 1})),
                       ("says less", says(json.dumps({"version": VERSION}).encode()))):
        yield bring(f"a program whose self-test {name}", "self-test",
                    pack(test, "test-" + name.replace(" ", "-"), made, version=VERSION))


# ---- Frames ---------------------------------------------------------------------------------------


def frame(name, kind, payload=b"", refusal="malformed", magic=MAGIC, length=None, **options):
    """A frame that is refused; of a session that is not there if it has to be one's."""
    def do(guest):
        size = len(payload) if length is None else length
        guest.stream.sendall(HEADER.pack(magic, kind, size, 0x55) + payload)
        return guest.answer()[0]
    return Row(name, refusal, do, **options)


def after_offer(name, refusal, good, *requests, **options):
    """Requests of which the last is refused, after a good OFFER."""
    def do(guest):
        guest.offer(good)
        for kind, payload in requests:
            guest.send(kind, payload)
        while True:
            guest.answer()
    return Row(name, refusal, do, ("offered",), **options)


def write(data, at):
    """A WRITE of these bytes."""
    return WRITE, struct.pack("<Q", at) + data


def frames(door, good):
    """Frames that are not as they should be, or do not come when they should."""
    payload = good[PAYLOAD]

    def offered(manifest, rest, length=None):
        size = len(manifest) if length is None else length
        return OFFER, struct.pack("<I", size) + manifest + rest

    yield frame("a type that is none", 0x55)
    yield frame("an answer", HELLO | 0x80, b"{}")
    yield frame("HELLO without JSON", HELLO, b"hello")
    yield frame("HELLO without a protocol", HELLO, b"{}")
    yield frame("an agent with too long a name", HELLO,
                json.dumps({"protocol": 1, "agent": "x" * 65}).encode())
    yield frame("STATUS with a payload", STATUS, b"x")
    yield frame("FINISH with a payload", FINISH, b"x")
    yield frame("WRITE without bytes", WRITE, bytes(8))
    yield frame("OFFER without anything", OFFER)
    yield frame("OFFER that is cut", OFFER, b"\1\0\0")
    yield frame("OFFER of no manifest", *offered(b"", good[SIGNATURE]))
    yield frame("OFFER that is cut in the manifest",
                *offered(good[MANIFEST][:-1], b"", len(good[MANIFEST])))
    yield frame("OFFER with a length beyond all", *offered(good[MANIFEST], b"", 0xffffffff))
    yield frame("OFFER of too large a manifest", *offered(bytes(MANIFEST_BYTES + 1), b""))
    yield frame("OFFER of too large a signature",
                *offered(good[MANIFEST], bytes(SIGNATURE_BYTES + 1)))
    yield frame("a manifest of more than 64 KiB", OFFER, length=FRAME_BYTES + 1, ends="connection")
    yield frame("the largest length", WRITE, length=0xffffffff, ends="connection")
    yield frame("a wrong magic", STATUS, magic=MAGIC ^ 0x100, ends="connection")
    yield Row("sixteen frames of no type", "malformed", malformed, ("refused",) * 15,
              ends="connection")
    yield frame("HELLO of another protocol", HELLO, b'{"protocol": 2}', "protocol", greeted=False)
    yield frame("OFFER before HELLO", *offered(good[MANIFEST], good[SIGNATURE]), "protocol",
                greeted=False)
    yield frame("STATUS before HELLO", STATUS, b"", "protocol", greeted=False)
    for name, kind in (("WRITE", WRITE), ("FINISH", FINISH), ("COMMIT", COMMIT),
                       ("WITHDRAW", WITHDRAW)):
        yield frame(f"{name} without a session", kind, bytes(9) if kind == WRITE else b"",
                    "no-session")
    yield Row("FINISH after WITHDRAW", "no-session", lambda guest: withdrawn(guest, good),
              ("offered", "withdrawn"))
    yield after_offer("COMMIT of what is not there", "not-validated", good, (COMMIT, b""))
    yield after_offer("FINISH of what is not there", "out-of-order", good, (FINISH, b""))
    yield after_offer("WRITE behind a gap", "out-of-order", good, write(b"x", 1))
    yield after_offer("WRITE at the end of all numbers", "out-of-order", good, write(b"x", 2**64 - 1))
    yield after_offer("WRITE again", "out-of-order", good, write(payload[:9], 0), write(b"x", 8))
    yield after_offer("a payload that is cut", "out-of-order", good, write(payload[:-1], 0),
                      (FINISH, b""))
    yield after_offer("a payload longer than announced", "too-large", good, write(payload + b"x", 0))
    yield Row("another manifest, while one is under way", "busy",
              lambda guest: second_session(guest, door, good), ("offered",))


def malformed(guest):
    """The sixteenth is the last."""
    for number in range(16):
        guest.send(0x55)
        try:
            guest.answer()
        except Refused:
            if number == 15:
                raise


def withdrawn(guest, good):
    """A handle that was good."""
    guest.offer(good)
    guest.send(WITHDRAW)
    guest.answer()
    guest.ask(FINISH)


def second_session(guest, door, good):
    """Another connection of the same partition's, with another manifest."""
    guest.offer(good)
    second = door.greet()
    try:
        return second.offer({**good, MANIFEST: good[MANIFEST] + b" "})
    except Refused as refused:
        second.close()
        return refused, second


# ---- The rest -------------------------------------------------------------------------------------


def not_permitted(supervisor, door):
    """A partition without `updates` is told so whatever it says."""
    judge = Judge(supervisor, door, "plain")
    with contextlib.suppress(Refused):
        door.greet()
    for name, kind in (("HELLO", HELLO), ("STATUS", STATUS), ("nothing that is known", 0x55)):
        judge.judge(frame(f"{name} of a partition without permission", kind, b"{}", "not-permitted",
                          greeted=False))
    return judge.seen


def connections(guest, door):
    """Four others beside it, one too many. Of those that have ended some may count for a moment."""
    deadline = time.monotonic() + PATIENCE
    while True:
        others = [Guest(door) for _ in range(4)]
        for number, other in enumerate(others, 2):
            try:
                other.hello()
            except Refused as refused:
                if number < 5 and time.monotonic() < deadline:
                    break
                check(number == 5, f"connection {number} is refused: {refused}")
                return refused, other
        else:
            return guest
        for other in others:
            other.close()
        time.sleep(1)


def commit(guest, good):
    """A program that says what is expected is validated; partitions cannot be handed over to it."""
    guest.offer(good)
    guest.write(good[PAYLOAD])
    told = guest.ask(FINISH)
    check(told["version"] == VERSION, f"a program that is no monitor is validated: {told}")
    guest.ask(COMMIT)


def complete(seen):
    """The page, the header and the tests know the same codes."""
    table = {name: refusal.code for name, refusal in documented().items()}
    check(table == coded() and sorted(table.values()) == list(range(1, len(table) + 1)),
          f"the page has the {len(table)} codes of the header")
    for name, (path, words) in ELSEWHERE.items():
        check(words in (PROJECT / path).read_text(encoding="utf-8"), f"{name} is a case of {path}")
    missing = table.keys() - seen - ELSEWHERE.keys()
    if missing:
        raise Failed(f"no case comes to {', '.join(sorted(missing))}")
    check(True, f"{len(seen)} of them were seen here")


main(refusals)
