#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""The guest's updater, built for the host, against a host of Python's: it brings updates from all
kinds of places, survives the loss of every connection and its own death at every request, and puts
guest extensions back when an update does not come to its end. With and without dpkg, one of our own."""

import functools
import http.server
import json
import os
import shutil
import subprocess
import threading
from pathlib import Path

from lib import harness
from lib.channel import Host, Lost
from lib.harness import check, main
from lib.updater import (BAD_PACKAGE, BUSY, DONE, FAILED, NO_HOST, NOT_INSTALLED, OLDER, PAYLOAD, REFUSED,
                         ROLLED_BACK, UNFINISHED, USAGE, Guest, deb, package, sha256, wait_for,
                         write_tar)
import cpio
import fetch
import initramfs
import packages
import vm

def places(test, files):
    """From a file, a folder and over HTTP, with a download that is gone on with."""
    guest = Guest(test)
    path = write_tar(files, test.folder / "p.strake")
    text = guest.expect(DONE, "apply", path, what="a package from a file is applied")
    check("0.1.0 is replaced by 0.2.0" in text and "3 partitions" in text and "4.2 ms" in text
          and "has been up" in text, "it tells versions, blackout and uptime")
    check(guest.host.data == PAYLOAD and guest.host.requests[:2] == ["hello", "offer"],
          "the host received the payload")
    check(guest.versions() == {"ext": "2.0"}, "the guest extension is installed")
    events = [json.loads(line)["event"] for line in (guest.state / "log.jsonl").read_text().splitlines()]
    check(events == ["applied", "validated", "installed", "committed"], "the log says what happened")
    check("committed" in guest.expect(DONE, "log", what="`log` prints it"), "for people")
    status = json.loads(guest.expect(DONE, "--json", "status", what="`status`"))
    check(status["guest"]["phase"] == "idle" and status["host"]["version"] == "0.2.0",
          "says what runs")
    checked_versions(guest)
    text = guest.expect(DONE, "--json", "apply", path, what="applied once more")
    lines = [json.loads(line) for line in text.splitlines()]
    check(lines[-1]["event"] == "committed" and lines[-1]["blackout_ns"] == 4200000
          and lines[-1]["seconds"] == 1.5, "the host knows it already; --json prints JSON only")

    folder = test.folder / "unpacked"
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    guest = Guest(test)
    guest.expect(DONE, "apply", folder, what="a package from a folder is applied")
    over_http(test, path)


def checked_versions(guest):
    """`check`, of a host with 0.2.0."""
    for version in ("0.1.9", "0.2", "0.2.0", "0.1.10.1"):
        text = guest.expect(DONE, "check", version, what=f"0.2.0 is no older than {version}")
        check("0.2.0 runs" in text, "and is told")
    for version in ("0.2.1", "0.10", "0.2.0.0", "1"):
        text = guest.expect(OLDER, "check", version, what=f"0.2.0 is older than {version}")
        check(f"0.2.0 runs beneath, which is older than {version}" in text, "and is told")
    for version in ("", ".", "1.", ".1", "1..2", "1.2x", "v1", "-1"):
        guest.expect(USAGE, "check", "--", version, what=f"'{version}' is no version")


class Server(http.server.BaseHTTPRequestHandler):
    """Serves one content; the first answer ends in its middle."""

    def __init__(self, content, seen, *words):
        self.content, self.seen = content, seen
        super().__init__(*words)

    def do_GET(self):
        self.seen.append(self.headers.get("Range"))
        start = 0
        if self.headers.get("Range") and self.headers.get("If-Range") == '"a tag"':
            start = int(self.headers["Range"][6:-1])
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(self.content) - 1}/{len(self.content)}")
        self.send_header("Content-Length", str(len(self.content) - start))
        self.send_header("ETag", '"a tag"')
        self.end_headers()
        end = len(self.content) // 2 if len(self.seen) == 1 else len(self.content)
        self.wfile.write(self.content[start:end])

    def log_message(self, *_words):
        pass


def over_http(test, path):
    guest = Guest(test)
    seen = []
    handler = functools.partial(Server, path.read_bytes(), seen)
    with http.server.HTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://localhost:{server.server_port}/p.strake"
        text = guest.expect(FAILED, "apply", url, what="a download that ends in the middle fails")
        check("server ended" in text and guest.host.requests == [], "and says so")
        guest.expect(DONE, "apply", url, what="a second attempt succeeds")
        check(len(seen) == 2 and seen[1] is not None, f"by going on with the first ({seen[1]})")
        server.shutdown()
    check(not (guest.state / "download").exists(), "the download is not kept")
    guest.expect(FAILED, "apply", url, what="a server that is gone")
    guest.expect(USAGE, "apply", "https://localhost/", what="https is not spoken")
    guest.expect(USAGE, "apply", what="without a package")


def damaged(test, files):
    """Damage of every kind is noticed before the host is asked."""
    kinds = {}
    for name in files:
        if name.endswith((".zst", ".deb")):
            kinds[f"a byte of {name} is another"] = {
                **files, name: files[name][:1000] + b"\x55" + files[name][1001:]}
            kinds[f"{name} is short"] = {**files, name: files[name][:-1]}
            kinds[f"{name} is missing"] = {key: files[key] for key in files if key != name}
    kinds["a file more"] = {**files, "more": b"x"}
    kinds["no signature"] = {key: files[key] for key in files if not key.endswith("minisig")}
    kinds["a manifest that is no JSON"] = {**files, "manifest.json": files["manifest.json"][:-1]}
    kinds["a name that leads out"] = {
        **files, "manifest.json": files["manifest.json"].replace(b"monitor-full", b"../onitor-ful")}
    kinds["a manifest that is too large"] = {
        **files, "manifest.json": files["manifest.json"] + b" " * 61440}
    guest = Guest(test)
    for what, content in kinds.items():
        guest.expect(BAD_PACKAGE, "apply", write_tar(content, test.folder / "bad.strake"), what=what)
    whole = write_tar(files, test.folder / "whole.strake").read_bytes()
    for end in (0, 100, 600, 5000, len(whole) // 2):
        (test.folder / "bad.strake").write_bytes(whole[:end])
        guest.expect(BAD_PACKAGE, "apply", test.folder / "bad.strake", what=f"a package cut at {end}")
    check(guest.host.requests == [] and guest.versions() == {}, "the host was asked for none of it")
    check(not list(guest.state.glob("package*")), "nothing of it is kept")


def refusals(test, path):
    """Every code, at every request: nothing changes."""
    for request in ("hello", "offer", "write", "finish", "commit"):
        for code in range(1, 27) if request == "offer" else (3, 15, 18, 20, 26):
            guest = Guest(test, ext="1.0")
            (guest.state / "kept").mkdir(parents=True)
            (guest.state / "kept/ext_1.0.deb").touch()
            guest.host.refuse, guest.host.always = {request: code}, True
            status, text = guest.run("apply", path)
            if status != REFUSED or f"error {code}" not in text or guest.versions() != {"ext": "1.0"} or \
                    guest.phase() != "idle":
                print(text)
                check(False, f"{request} refused with {code}: status {status}, {guest.versions()}")
            guest.host.close()
        check(True, f"{request} refused with each code ends with status 4, and changes nothing")
    guest = Guest(test)
    guest.host.refuse = {"write": 17}
    guest.expect(DONE, "apply", path, what="what is out of order is offered and sent anew")


def losses(test, path):
    """The connection is lost at each request, or its answer is."""
    guest = Guest(test)
    guest.expect(DONE, "apply", path, what="an update whose requests are counted")
    requests = guest.host.requests
    for kind in ("lose", "lose_after"):
        for number, name in enumerate(requests):
            if name == "write" and number % 10 != 3:
                continue
            guest = Guest(test)
            setattr(guest.host, kind, {number})
            status, text = guest.run("apply", path)
            if number == 0 or (number == 1 and kind == "lose"):
                # The first connection of all: nobody has been there yet.
                good = status == NO_HOST and guest.versions() == {} and guest.phase() == "idle"
            elif number == 1:
                good = status == NO_HOST
            else:
                good = status == DONE and guest.versions() == {"ext": "2.0"} and guest.phase() == "idle"
            if not good or (status == DONE and guest.host.data != PAYLOAD):
                print(text)
                check(False, f"{kind} request {number} ({name}): status {status}")
            guest.host.close()
        check(True, f"{len(requests)} requests, {kind} at each: the update comes to its end all the same")
    guest = Guest(test)
    guest.host.lose = set(range(3, 1000, 4))
    guest.expect(DONE, "apply", path, what="every fourth request is lost")
    check(guest.host.data == PAYLOAD, "all arrived")


def deaths(test, path):
    """The updater is killed at each request; `resume` goes on."""
    guest = Guest(test)
    guest.run("apply", path)
    for name in ("hello", "offer", "write", "finish", "commit"):
        guest = Guest(test, ext="1.0")
        (guest.state / "kept").mkdir(parents=True)
        (guest.state / "kept/ext_1.0.deb").touch()
        guest.host.hooks[name] = functools.partial(kill_updater, guest, name)
        guest.program = ["sh", "-c", f'echo $$ >"{guest.folder}/pid"; exec "$0" "$@"', *guest.program]
        status, _ = guest.run("apply", path)
        check(status == -9 and guest.phase() == ("committing" if name == "commit" else "sending"),
              f"killed at {name}: the state is {guest.phase()}")
        sent = len(guest.host.data)
        guest.expect(DONE, "resume", what="`resume` brings it to its end")
        check(guest.host.data == PAYLOAD and guest.versions() == {"ext": "2.0"}
              and guest.phase() == "idle", f"nothing is missing ({sent} bytes were there)")
        guest.expect(DONE, "resume", what="another `resume` has nothing to do")
    guest = Guest(test)
    guest.expect(DONE, "--no-commit", "apply", path, what="--no-commit")
    check(guest.host.phase == "validated" and guest.versions() == {}, "ends when it is validated")
    guest.expect(DONE, "resume", what="`resume` at the boot")
    check(guest.host.phase == "validated", "does not commit either")
    other = write_tar(package("0.3.0"), test.folder / "other.strake")
    guest.expect(BUSY, "apply", other, what="another update meanwhile is refused")
    guest.expect(DONE, "withdraw", what="`withdraw`")
    check(guest.host.phase is None and guest.phase() == "idle", "gives it up on both sides")
    guest.expect(DONE, "--no-commit", "apply", path, what="once more")
    shutil.rmtree(guest.state / "package")
    guest.expect(DONE, "withdraw", what="`withdraw` when the package was lost")
    guest.expect(DONE, "--no-commit", "apply", path, what="and once more")
    guest.expect(DONE, "apply", path, what="without --no-commit it goes on")
    check(guest.host.phase == "committed" and guest.host.requests.count("commit") == 1
          and guest.versions() == {"ext": "2.0"}, "to the end")


def vanish(host):
    host.close()
    raise Lost


def kill_updater(guest, name):
    del guest.host.hooks[name]
    os.kill(int((guest.folder / "pid").read_text()), 9)


def going_back(test, path, two):
    """A failing installation, and a host that rolls back."""
    guest = Guest(test, ext="1.0")
    (guest.root / "var/cache/apt/archives").mkdir(parents=True)
    (guest.root / "var/cache/apt/archives/ext_1.0_all.deb").touch()
    guest.host.commit = "rolled-back"
    text = guest.expect(ROLLED_BACK, "apply", path, what="the host rolls back")
    check(guest.versions() == {"ext": "1.0"} and "did not prove itself" in text,
          "the earlier extension is back, and the reason is told")
    check(guest.phase() == "idle" and guest.host.requests[-1] == "withdraw", "the host may forget it")
    guest.host.commit = "committed"
    guest.expect(DONE, "apply", path, what="the next attempt succeeds")

    guest = Guest(test)
    guest.host.commit = "rolled-back"
    guest.host.hooks["commit"] = lambda: guest.host.lose_after.add(len(guest.host.requests) - 1)
    guest.expect(ROLLED_BACK, "apply", path, what="it rolls back, which is noticed with the next OFFER")
    check(guest.versions() == {}, "what was not there before is removed")

    guest = Guest(test, second="0.5")
    (guest.state / "kept").mkdir(parents=True)
    (guest.state / "kept/second_0.5.deb").touch()
    guest.expect(NOT_INSTALLED, "apply", two, what="a package that cannot be installed",
                        FAKE_FAILS="first")
    check("commit" not in guest.host.requests and guest.host.requests[-1] == "withdraw"
          and guest.host.phase is None, "the update is withdrawn before COMMIT")
    check(guest.versions() == {"second": "0.5"} and guest.phase() == "idle", "the guest is as before")

    guest = Guest(test)
    guest.host.hooks["finish"] = lambda: guest.host.refuse.update(offer=4)
    guest.host.lose_after = {41}
    guest.expect(DONE, "apply", path, what="a host that is busy when it is to be gone on is waited for")

    guest = Guest(test)
    guest.host.hooks["commit"] = functools.partial(vanish, guest.host)
    guest.expect(UNFINISHED, "apply", path, wait=10, what="the host is gone during COMMIT")
    check(guest.phase() == "committing" and guest.versions() == {"ext": "2.0"}, "the state is kept")
    os.unlink(guest.host.path)
    guest.host = Host(guest.host.path)
    guest.expect(UNFINISHED, "check", "0.1.0", what="a check meanwhile")
    guest.expect(DONE, "resume", what="a host that has forgotten it all")
    check(guest.host.data == PAYLOAD and guest.host.phase == "committed", "is brought to the same end")


def without_dpkg(test):
    """On busybox: the files are unpacked, and put back."""
    for compress in ("gzip", "xz", "none", "zstd"):
        new = deb(test.folder, "ext", "2.0", {"usr/bin/ext": "new", "opt/ext/more/data": "more",
                                              "a" * 70 + "/" + "b" * 90: "a long name"}, compress)
        path = write_tar(package(debs=[new]), test.folder / "u.strake")
        guest = Guest(test, dpkg=False)
        (guest.root / "usr/bin/ext").write_text("old")
        guest.host.commit = "rolled-back"
        guest.expect(ROLLED_BACK, "apply", path, what=f"unpacked ({compress}), rolled back")
        check(guest.files() == {"usr/bin/ext": "old"} and not (guest.root / "opt").exists(),
              "all is as it was")
        guest.host.commit = "committed"
        guest.expect(DONE, "apply", path, what="unpacked, committed")
        check(guest.files()["usr/bin/ext"] == "new" and guest.files()["opt/ext/more/data"] == "more"
              and len(guest.files()) == 3, "all files are there")
        text = guest.expect(DONE, "apply", path, what="once more")
        check("installing" not in text, "nothing is installed again")
    # The same in a maintainer script: dpkg gets to know afterwards.
    guest = Guest(test, ext="1.0")
    (guest.root / "locked").touch()
    text = guest.expect(DONE, "apply", path, what="from a maintainer script, dpkg's database being locked",
                        DPKG_MAINTSCRIPT_PACKAGE="strake-monitor-update")
    check(guest.files()["usr/bin/ext"] == "new" and guest.versions() == {"ext": "1.0"},
          "the files are there, dpkg does not know")
    (guest.root / "locked").unlink()
    wait_for(lambda: guest.versions() == {"ext": "2.0"} and guest.phase() == "idle")
    check(guest.host.requests.count("commit") == 1, "when the lock is gone dpkg is told")


def nonsense(test, path):
    """A host that is none."""
    answers = {"garbage": bytes(range(1, 100)), "a wrong magic": b"x" * 16,
               "too much": b"\x54\x53\x81\x00\xff\xff\xff\xff" + bytes(8),
               "another answer": b"\x54\x53\x86\x00\x00\x00\x00\x00" + bytes(8),
               "an error without code": b"\x54\x53\xff\x00\x01\x00\x00\x00" + bytes(9),
               "no JSON": b"\x54\x53\x81\x00\x01\x00\x00\x00" + bytes(8) + b"{"}
    for what, answer in answers.items():
        guest = Guest(test)
        guest.host.raw["hello"] = answer
        guest.expect(NO_HOST, "apply", path, what=f"answered with {what}")
        guest.host.close()
    guest = Guest(test)
    guest.host.close()
    os.unlink(guest.host.path)
    guest.expect(NO_HOST, "apply", path, what="nobody there")
    check(guest.phase() == "idle" and guest.versions() == {}, "nothing has changed")


def with_real_host(test, ext):
    """The host's own side of the channel."""
    host = {"epoch": 3, "state": {"oldest": 4, "newest": 6},
            "program": {"bytes": 3000, "sha256": sha256(b"program")}}
    path = write_tar(package(debs=[ext], signature=b"good", **host), test.folder / "for-host.strake")
    for commit, status in (("committed", DONE), ("rolled-back", ROLLED_BACK)):
        guest = Guest(test)
        guest.host.close()
        os.unlink(guest.host.path)
        with subprocess.Popen([os.environ["CHANNEL_HOST"], guest.host.path, commit]) as process:
            try:
                wait_for(lambda g=guest: os.path.exists(g.host.path))
                guest.expect(DONE, "--no-commit", "apply", path, what="the host's own channel validates")
                text = guest.expect(DONE, "status", what="and tells so")
                check("its session: validated, to 0.2.0" in text, "in its status")
                text = guest.expect(status, "apply", path, what=f"COMMIT: {commit}")
                check(guest.versions() == ({"ext": "2.0"} if status == DONE else {})
                      and guest.phase() == "idle", "and the guest follows")
                if status == DONE:
                    text = guest.expect(DONE, "apply", path, what="once more")
                    check("is replaced by 0.2.0" in text, "it is known to be committed")
                other = package(signature=b"unknown", notes="other", **host)
                bad = write_tar(other, test.folder / "bad.strake")
                other = Guest(test)
                other.host.path = guest.host.path
                text = other.expect(REFUSED, "apply", bad, what="another signature is refused")
                check("error 6" in text, "as unknown-key")
            finally:
                process.kill()


def with_real_dpkg(test):
    """Debian's own dpkg in a folder, and what it makes of our packages."""
    if os.geteuid() != 0:
        print("skipped: dpkg installs for root only")
        return
    old = deb(test.folder, "ext", "1.0", {"usr/bin/ext": "old", "etc/ext.conf": "x"})
    new = deb(test.folder, "ext", "2.0", {"usr/bin/ext": "new", "usr/share/ext/more": "more"})
    files = package(debs=[new])
    path = write_tar(files, test.folder / "real.strake")

    guest = real_guest(test, old)
    guest.host.commit = "rolled-back"
    guest.expect(ROLLED_BACK, "apply", path, what="dpkg installs, the host rolls back")
    check(real_version(guest) == "1.0" and guest.files()["usr/bin/ext"] == "old"
          and "usr/share/ext/more" not in guest.files() and "etc/ext.conf" in guest.files(),
          "what was there, which nobody had kept, is packed anew and put back")
    guest.host.commit = "committed"
    guest.expect(DONE, "apply", path, what="dpkg installs")
    check(real_version(guest) == "2.0" and guest.files()["usr/bin/ext"] == "new", "the new version")

    guest = real_guest(test)
    guest.host.commit = "rolled-back"
    guest.expect(ROLLED_BACK, "apply", path, what="dpkg installs for the first time, the host rolls back")
    check(real_version(guest) == "" and "usr/bin/ext" not in guest.files(), "it is removed")
    in_maintainer_script(test, old, path)


def real_guest(test, *debs):
    guest = Guest(test, dpkg=False)
    guest.environment["PATH"] += ":/usr/sbin:/sbin"
    database = guest.root / "var/lib/dpkg"
    for folder in ("info", "updates", "triggers"):
        (database / folder).mkdir(parents=True)
    (database / "status").touch()
    for path in debs:
        real_dpkg(guest, path)
    return guest


def real_dpkg(guest, path):
    """`dpkg -i` in the guest; scripts run here, as there is nothing in the guest's folder to run them."""
    run = subprocess.run(["dpkg", f"--root={guest.root}", "--force-script-chrootless", "--force-architecture", "--force-depends",
                          "-i", path], env=guest.environment, capture_output=True, text=True, check=False)
    return run.returncode, run.stdout + run.stderr


def real_version(guest):
    query = subprocess.run(["dpkg-query", f"--admindir={guest.root}/var/lib/dpkg", "-W",
                            "-f=${Status} ${Version}", "ext"], capture_output=True, text=True, check=False)
    words = query.stdout.split()
    return words[3] if words[2:3] == ["installed"] else ""


def in_maintainer_script(test, old, path):
    """strake-monitor-update's own script, run by dpkg."""
    tool = Path(packages.__file__)
    for folder in ("once", "twice"):
        subprocess.run([tool, "update", path, test.folder / folder], check=True, stdout=subprocess.DEVNULL)
    name = "strake-monitor-update_0.2.0_riscv64.deb"
    check((test.folder / "once" / name).read_bytes() == (test.folder / "twice" / name).read_bytes(),
          "strake-monitor-update is the same bytes when it is made again")
    for commit, version in (("rolled-back", "1.0"), ("committed", "2.0")):
        depends = deb(test.folder, "strake-guest", "0.1.0", {"usr/bin/something": ""})
        guest = real_guest(test, old, depends)
        guest.host.commit = commit
        wrapper = guest.tools / "strake-update"
        wrapper.write_text('#!/bin/sh\n'
                           f'[ "$1" != apply ] || set -- apply {path}\n'
                           f'exec {guest.program[0]} --host unix:{guest.host.path} '
                           f'--root {guest.root} --state {guest.state} "$@"\n')
        wrapper.chmod(0o755)
        (guest.tools / "systemctl").symlink_to("/bin/true")
        result, text = real_dpkg(guest, test.folder / "once" / name)
        if result != 0:
            print(text)
        check(result == 0 and guest.host.requests.count("commit") == 1
              and ("try again" in text) == (commit == "rolled-back"),
              f"dpkg installs strake-monitor-update when the host has {commit}, and tells so")
        wait_for(lambda g=guest: g.phase() == "idle")
        check(real_version(guest) == version
              and guest.files()["usr/bin/ext"] == ("new" if version == "2.0" else "old"),
              f"the extension is {version}, for dpkg, too")
    guest.host.close()
    os.unlink(guest.host.path)
    result, text = real_dpkg(guest, test.folder / "once" / name)
    check(result == 0 and "nothing is updated" in text, "without a Strake beneath it is installed all the same")


def guest_package(test):
    """strake-guest: the same bytes each time, and what is to be in it."""
    made = [packages.guest(test.folder / folder, "9.9") for folder in ("once", "twice")]
    check(made[0].read_bytes() == made[1].read_bytes(), "strake-guest is the same bytes when it is made again")
    listing = subprocess.run(["dpkg-deb", "-c", made[0]], capture_output=True, text=True, check=True).stdout
    check(all(name in listing for name in ("./usr/bin/strake-update", "strake-update-resume.service",
                                           "man1/strake-update.1.gz")), "it holds updater, unit and man page")


def riscv(test, path):
    """The very program that goes into guests, where it can be run."""
    emulator = shutil.which("qemu-riscv64")
    if not emulator or not shutil.which(initramfs.COMPILER):
        print("skipped: no qemu-riscv64 or no compiler for the guest's program")
        return
    fetch.GUEST.mkdir(parents=True, exist_ok=True)
    guest_package(test)
    program = test.folder / "strake-update"
    program.write_bytes(initramfs.updater())
    program.chmod(0o755)
    guest = Guest(test)
    guest.program = [emulator, str(program)]
    guest.expect(DONE, "apply", path, what="the riscv64 program applies the package")
    check(guest.host.data == PAYLOAD and guest.versions() == {"ext": "2.0"}, "with all its parts")


SCRIPT = """
strake-update apply /strake/p.strake || echo "status $?"
ext
strake-update status
strake-update apply /strake/p.strake || exit 1
ls /var/lib/strake-update
"""


def in_guest(test):
    """Under Strake, in the initramfs of the demo, over vsock."""
    if harness.UNDER_QEMU or not vm.KERNEL.exists() or not vm.INITRAMFS.exists():
        print("skipped: no guest to boot (tools/guest/fetch.py and tools/guest/initramfs.py make one)")
        return
    new = deb(test.folder, "ext", "2.0", {"usr/bin/ext": "#!/bin/sh\necho the extension runs\n"})
    vsock = test.folder / "vsock"
    host = Host(f"{vsock}_5354")
    tree = cpio.Tree()
    tree.file("strake/p.strake", write_tar(package(debs=[new]), test.folder / "v.strake").read_bytes())
    tree.file("usr/bin/strake-update", initramfs.updater(), 0o755)
    tree.file("strake/run", "#!/bin/sh\n" + SCRIPT, 0o755)
    guest = test.start(vm.Machine(initrd=vm.with_overlay(tree, test.folder / "initrd"), vsock=f"3,{vsock}"))
    test.finish(guest)
    text = guest.text()
    check("0.1.0 is replaced by 0.2.0" in text and "the extension runs" in text and host.data == PAYLOAD,
          "in a busybox guest, over vsock")


def update_guest(test):
    ext = deb(test.folder, "ext", "2.0", {"usr/bin/ext": "new"})
    files = package(debs=[ext])
    path = write_tar(files, test.folder / "good.strake")
    two = write_tar(package(debs=[
        deb(test.folder, "second", "1.0", {"usr/bin/second": "2"}),
        deb(test.folder, "first", "1.0", {"usr/bin/first": "1"})]), test.folder / "two.strake")
    places(test, files)
    damaged(test, files)
    refusals(test, path)
    losses(test, path)
    deaths(test, path)
    going_back(test, path, two)
    without_dpkg(test)
    nonsense(test, path)
    with_real_host(test, ext)
    with_real_dpkg(test)
    riscv(test, path)
    in_guest(test)


main(update_guest)
