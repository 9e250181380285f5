# SPDX-License-Identifier: BSD-2-Clause
"""Debian's riscv64 programs, run by `strake user` with build/sysroot: what the tests user_*.py share.

STRAKE_USER=check has `strake check` run them, which may have nothing to report; STRAKE_USER=qemu has
qemu-riscv64, their children too: a session that fails there is wrong.
"""

import difflib
import http.server
import json
import os
import shlex
import shutil
import signal
import subprocess
import threading

from lib import harness
from lib.harness import PROJECT, Failed, Skipped, check
import vm

SYSROOT = PROJECT / "build/sysroot"
PROGRAMS = SYSROOT / "usr/bin"
SCRIPTS = PROJECT / "tests/system/programs"
RUNNER = os.environ.get("STRAKE_USER", "strake")
PATIENCE = 900  # seconds for one program on a busy machine
# That the kernel executes riscv64 programs by QEMU holds for a user namespace of the test's own.
MAGIC = rb"\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xf3\x00".decode()
MASK = rb"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff".decode()
BY_QEMU = f"""mount -t binfmt_misc binfmt /proc/sys/fs/binfmt_misc || exit 77
printf '%s' ':riscv64:M::{MAGIC}:{MASK}:'"$(command -v qemu-riscv64)":FP >/proc/sys/fs/binfmt_misc/register || exit 77
exec "$@" """


class Programs:
    """The programs, in a folder of their own that they find empty."""

    def __init__(self, test):
        if not (SYSROOT / "versions").exists():
            raise Skipped(f"'{SYSROOT}' is missing (tools/sysroot.py makes it)")
        self.test = test
        self.folder = test.folder / "session"
        self.folder.mkdir()
        self.environment = {"HOME": str(self.folder), "TMPDIR": str(self.folder), "LC_ALL": "C.UTF-8", "TZ": "UTC0",
                            "TERM": "dumb"}
        self.ours = {"PATH": str(PROGRAMS), "GIT_EXEC_PATH": str(SYSROOT / "usr/lib/git-core")}
        self.before, self.runner, self.reports = [], [], test.folder / "reports"
        if RUNNER == "qemu":
            self.before = ["unshare", "--user", "--mount", "--map-root-user", "sh", "-c", BY_QEMU, "sh"]
            self.ours["QEMU_LD_PREFIX"] = str(SYSROOT)
            if subprocess.run([*self.before, "true"], capture_output=True, check=False).returncode == 77:
                raise Skipped("the kernel has no binfmt_misc of a user namespace's own, which QEMU would need")
        elif RUNNER in ("strake", "check"):
            kind = "check" if RUNNER == "check" else "user"
            self.runner = [vm.strake(), kind, "-L", SYSROOT]
            if kind == "check":
                self.runner += ["--report=json", f"--report-file={self.reports}"]
        else:
            raise Failed(f"STRAKE_USER is '{RUNNER}', none of 'strake', 'check' and 'qemu'")
        said = self.output("uname", "-sm")
        check(said == b"Linux riscv64\n", f"{RUNNER}: programs run as riscv64's")

    def command(self, program, *words, **environment):
        """The command line that runs a program of the sysroot, or one that a path names."""
        values = {**self.environment, **self.ours, **environment}
        path = PROGRAMS / program if isinstance(program, str) else program
        return list(map(str, [*self.before, "/usr/bin/env", "-i", *(f"{k}={v}" for k, v in values.items()),
                              *self.runner, path, *words]))

    def start(self, program, *words, environment=None, **options):
        """Starts a program; with whatever it starts itself it is a process group."""
        return self.start_command(self.command(program, *words, **(environment or {})), **options)

    def start_command(self, command, **options):
        """Starts a command of the host's."""
        options = {"cwd": self.folder, "stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE,
                   "stderr": subprocess.PIPE, **options}
        return subprocess.Popen(list(map(str, command)), start_new_session=True, **options)

    def run(self, program, *words, given=b"", environment=None, **options):
        """Runs a program to its end: (status, output, errors). The status is negative after a signal."""
        return self.run_command(self.command(program, *words, **(environment or {})), given, **options)

    def run_command(self, command, given=b"", **options):
        """Runs a command of the host's to its end, as run() does."""
        with self.start_command(command, stdin=subprocess.PIPE, **options) as process:
            try:
                output, errors = process.communicate(given, PATIENCE)
            except subprocess.TimeoutExpired as expired:
                raise Failed(f"{shlex.join(map(str, command))} does not end: {expired.stdout!r}") from None
            finally:
                end(process)
        return process.returncode, output, errors

    def output(self, program, *words, **options):
        """What a program that has to succeed, without a word of complaint, writes."""
        status, output, errors = self.run(program, *words, **options)
        if status != 0 or errors:
            raise Failed(f"{program} {words} ends with status {status}: {errors.decode(errors='replace')}")
        return output

    def session(self, parts, program, *words, **options):
        """Runs parts of a session, {what it shows: (script, output)}: a script is a program's last word."""
        for what, (script, wanted) in parts.items():
            status, output, errors = self.run(program, *words, script, **options)
            same(what, output.decode(errors="replace") + errors.decode(errors="replace"), wanted)
            check(status == 0, f"{what}: status 0")

    def as_native(self, what, native, program, *words, given=b""):
        """Has a program of the sysroot do what one of the host's does, each in an empty folder of its own: they write
        the same and end the same way."""
        said = []
        for kind in ("native", "ours"):
            folder = self.test.folder / kind
            folder.mkdir()
            own = {"HOME": str(folder), "TMPDIR": str(folder)}
            if kind == "ours":
                command = self.command(program, *words, **own)
            else:
                values = {**self.environment, **own, "PATH": os.defpath}
                command = ["/usr/bin/env", "-i", *(f"{k}={v}" for k, v in values.items()), native, *words]
            status, output, errors = self.run_command(command, given, cwd=folder)
            said.append(f"{output.decode(errors='replace')}{errors.decode(errors='replace')}status {status}\n")
            shutil.rmtree(folder)
        same(f"{what}: as natively, {len(said[0].splitlines())} lines", said[1], said[0])

    def reported(self):
        """What was reported of programs since this was asked last."""
        if not self.reports.exists():
            return []
        found = [json.loads(line) for line in self.reports.read_text(encoding="utf-8").splitlines()]
        self.reports.unlink()
        return found


def main(session):
    """Runs a test with its programs. When they are checked, all that it has not asked for is wrong."""
    def whole(test):
        programs = Programs(test)
        try:
            session(programs)
        finally:
            found = programs.reported()
            for finding in found:
                print(said_of(finding))
        if RUNNER == "check":
            check(not found, "strake check has nothing to report")
    harness.main(whole)


def said_of(finding):
    """A finding in a few lines."""
    stacks = {"": finding.get("stack"), **{f"{what}: ": (finding.get("object") or {}).get(what)
                                           for what in ("allocated", "freed")}}
    return "\n".join([f"    {finding['kind']} {finding.get('access', '')} {finding.get('address', '')}",
                      *(f"      {what}{frame.get('function') or frame.get('pc')} {frame.get('module') or ''}"
                        for what, stack in stacks.items() for frame in stack or [])])


def serve(handler, context=None):
    """A server of HTTP, or by a TLS context of HTTPS, on a port of its own; and its URL."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    if context:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server, f"http{'s' if context else ''}://127.0.0.1:{server.server_port}"


def end(process):
    """Ends a process and what it has started."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


def same(what, said, wanted):
    """Checks a program's output."""
    if said != wanted and isinstance(wanted, str):
        print("".join(f"    {line}\n" for line in difflib.unified_diff(
            wanted.splitlines(), said.splitlines(), "wanted", "said", lineterm="")))
    elif said != wanted:
        print(f"    {said!r}")
    check(said == wanted, what)
