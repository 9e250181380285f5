#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""The supervisor on its host: as an ordinary user, started by a service manager with its socket, and
absent; the units that are installed, and completion of command lines."""

import os
import pty
import re
import select
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

from lib.daemon import PATIENCE, Supervisor, check, check_quietly, create, echo_guest
from lib.harness import PROJECT, is_listened_at, main
import vm

USER = 65534  # nobody


def host(test):
    guest = echo_guest(test)
    absent(test)
    creating(test, guest)
    if os.geteuid() == 0 and shutil.which("setpriv"):
        ordinary(test, guest)
    usual_places(test)
    activation(test, guest)
    if shutil.which("systemd-socket-activate"):
        systemd_activation(test, guest)
    units()
    bash(test, guest)
    zsh(test, guest)


def absent(test):
    """Without a supervisor, subcommands say what to do."""
    for words in (["list"], ["show", "x"], ["start", "x", "y"], ["console", "x"], ["stats", "x"],
                  ["create", "x", "--kernel", "/x"], ["logs", "x"], ["handover", "--all"]):
        result = subprocess.run(
            [vm.strake(), words[0], "--socket", str(test.folder / "none"), *words[1:]],
            capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL)
        check(result.returncode == 1 and result.stderr.count("\n") == 1 and
              "(start it with: strake daemon)" in result.stderr,
              f"strake {' '.join(words)}: {result.stderr.strip()[:90]}...")
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(test.folder / "other"))
        other.listen()
        client = subprocess.Popen([vm.strake(), "list", "--socket", str(test.folder / "other")],
                                  stderr=subprocess.PIPE)
        connection, _ = other.accept()
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno")
        said = client.communicate(timeout=60)[1].decode()
        connection.close()
        check("is no supervisor" in said, f"something else at the socket: {said.strip()}")


def creating(test, guest):
    """strake create, from options and files."""
    supervisor = Supervisor(test)
    firmware = os.path.basename(guest["firmware"])
    out = supervisor.done("create", "web", "--firmware", firmware, "--memory", "64M", "--restart",
                          "always", "--start", "--json", cwd=test.folder)
    check('"state": "running"' in out, "create --start: it runs")
    shown = supervisor.done("show", "web", "--json")
    check(guest["firmware"] in shown, "a relative path is made absolute")
    definition = test.folder / "definition.json"
    definition.write_text(f'{{"firmware": "{firmware}", "memory": "32M", "name": "x"}}',
                          encoding="ascii")
    supervisor.done("create", "--from", definition, cwd=test.folder)
    supervisor.done("create", "--from", definition, "y", cwd=test.folder)
    supervisor.done("create", "--from", "-", "z", input=definition.read_text(encoding="ascii"),
                    cwd=test.folder)
    check(supervisor.done("list", "--quiet").split() == ["web", "x", "y", "z"],
          "from a file, under its name or another")
    check(supervisor.show("z")["memory_bytes"] == 32 << 20, "with what it says")
    definition.write_text("{", encoding="ascii")
    for words, status, told in (
            (["web", "--kernel", "/x"], 1, "already"),
            (["a", "--cpus", "x", "--kernel", "/x"], 2, "not a number"),
            (["a"], 1, "nothing to run"), ([], 2, "no name"), (["a", "b"], 2, "too many"),
            (["--from", "/none"], 1, "/none"), (["--from", str(definition)], 1, "not a JSON object"),
            (["--from", str(definition), "--cpus", "2"], 2, "--from"),
            (["../x", "--kernel", "/x"], 1, "name")):
        result = supervisor.strake("create", *words)
        check(result.returncode == status and told in result.stderr and
              result.stderr.count("\n") == 1, f"create {' '.join(words)[:30]}: "
              f"{result.stderr.strip()}")
    supervisor.stop()


def ordinary(test, guest):
    """As an ordinary user, with what that user may do."""
    supervisor = Supervisor(test, user=USER)
    create(supervisor, "web", guest)
    status = Path(f"/proc/{supervisor.show('web')['pid']}/status").read_text(encoding="ascii")
    check(f"Uid:\t{USER}\t{USER}\t{USER}" in status, "a partition runs as an ordinary user")
    supervisor.restart(signal.SIGKILL)
    supervisor.type("web", b"hello")
    supervisor.wait_console("web", "hello")
    check(supervisor.done("list", "--quiet") == "web\n", "and is adopted again")
    secret = test.folder / "secret"
    secret.write_bytes(bytes(4096))
    secret.chmod(0o600)
    create(supervisor, "thief", {**guest, "disk": [str(secret)]}, start=False)
    status, answer = supervisor.api("POST", supervisor.path("thief", "/start"))
    check(status == 403 and "Permission denied" in answer["error"],
          f"what the user may not open is refused: {answer['error']}")
    check(supervisor.socket.stat().st_mode & 0o077 == 0 and
          supervisor.state.stat().st_mode & 0o077 == 0, "its socket and folder are nobody else's")
    supervisor.done("kill", "web")
    check(supervisor.end() == 0, "it ends")


def usual_places(test):
    """Where an ordinary user's supervisor has its files."""
    if os.geteuid() != 0 or not shutil.which("setpriv"):
        return
    home = test.folder / "home"
    for folder in (home, home / "run"):
        folder.mkdir()
        os.chown(folder, USER, USER)
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "XDG_RUNTIME_DIR": f"{home}/run"}
    command = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups",
               os.path.abspath(vm.strake())]
    with subprocess.Popen([*command, "daemon"], env=environment) as process:
        deadline = time.monotonic() + PATIENCE
        while not is_listened_at(home / "run/strake/strake.sock") and time.monotonic() < deadline:
            time.sleep(0.02)
        result = subprocess.run([*command, "list"], env=environment, timeout=60,
                                capture_output=True, text=True, check=False)
        process.terminate()
    check(result.returncode == 0 and result.stdout.startswith("NAME"),
          "a user's own supervisor is found without being told where")
    check((home / ".local/state/strake/partitions").is_dir(), "its state is in ~/.local/state")


def activation(test, guest):
    """The service manager's socket, and its readiness."""
    supervisor = Supervisor(test, start=False)
    notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    notify.bind(str(supervisor.folder / "notify"))
    notify.settimeout(PATIENCE)
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(supervisor.socket))
    listening.listen()
    script = f'LISTEN_PID=$$ LISTEN_FDS=1 exec "$@" 3<&{listening.fileno()}'
    supervisor.process = subprocess.Popen(
        ["sh", "-c", script, "sh", vm.strake(), "daemon", "--state-dir", str(supervisor.state)],
        pass_fds=[listening.fileno()], env={**supervisor.environment(),
                           "NOTIFY_SOCKET": str(supervisor.folder / "notify")})
    check(notify.recv(4096) == b"READY=1", "it says when it is ready")
    listening.close()
    create(supervisor, "web", guest)
    check(supervisor.show("web")["state"] == "running", "it serves the socket that it was given")
    pid = supervisor.show("web")["pid"]
    environment = open(f"/proc/{pid}/environ", "rb").read()
    check(b"LISTEN_FDS" not in environment, "monitors hear nothing of it")
    check(not [fd for fd in os.listdir(f"/proc/{pid}/fd")
               if os.readlink(f"/proc/{pid}/fd/{fd}") ==
               os.readlink(f"/proc/{supervisor.process.pid}/fd/3")], "nor hold its socket")
    check(supervisor.end() == 0 and notify.recv(4096) == b"STOPPING=1", "it says when it ends")
    check(supervisor.socket.exists(), "a socket that is not its own stays")
    supervisor.stop()
    for bad in ("LISTEN_FDS=2", "LISTEN_FDS=1"):
        result = subprocess.run(["sh", "-c", f'LISTEN_PID=$$ {bad} exec "$@" 3</dev/null 4</dev/null',
                                 "sh", vm.strake(), "daemon", "--state-dir",
                                 str(supervisor.state)], timeout=60, capture_output=True, text=True,
                                check=False)
        check(result.returncode == 1 and "service manager" in result.stderr,
              result.stderr.strip()[:110])


def systemd_activation(test, guest):
    """With systemd's own tool."""
    supervisor = Supervisor(test, start=False)
    name, _, value = supervisor.mark.partition("=")
    supervisor.process = subprocess.Popen(
        ["systemd-socket-activate", "-l", str(supervisor.socket), "-E", f"{name}={value}", "--",
         os.path.abspath(vm.strake()), "daemon", "--state-dir", str(supervisor.state)],
        env=supervisor.environment(), stderr=subprocess.DEVNULL)
    supervisor.wait_until_ready()
    create(supervisor, "web", guest)
    check(True, "systemd-socket-activate starts it with the first client")
    supervisor.stop()


def units():
    """What systemd is told."""
    service = (PROJECT / "packaging/strake.service.in").read_text(encoding="ascii")
    check("KillMode=process\n" in service and "Type=notify\n" in service,
          "a service whose partitions outlive it")
    check("/run/strake/strake.sock" in
          (PROJECT / "packaging/strake.socket").read_text(encoding="ascii"),
          "its socket is where subcommands look for it")
    if not shutil.which("systemd-analyze"):
        return
    unit = service.replace("@bindir@/strake", "/bin/true")
    folder = PROJECT / "build" / "units"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "strake.service").write_text(unit, encoding="ascii")
    shutil.copy(PROJECT / "packaging/strake.socket", folder)
    result = subprocess.run(["systemd-analyze", "verify", "--man=no", "--recursive-errors=no",
                             str(folder / "strake.service"), str(folder / "strake.socket")],
                            capture_output=True, text=True, timeout=60, check=False)
    shutil.rmtree(folder)
    problems = [line for line in result.stderr.splitlines() if "strake." in line]
    check(not problems, f"systemd-analyze has nothing to say of the units {problems}")


def complete(script, words, environment):
    """What bash offers for the last of the words."""
    quoted = " ".join(f"'{word}'" for word in words)
    program = f"{script}\nCOMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}; _strake; " \
              'printf "%s\\n" "${COMPREPLY[@]}"'
    result = subprocess.run(["bash", "-c", program], capture_output=True, text=True, timeout=60,
                            env=environment, check=True)
    return [line.strip() for line in result.stdout.splitlines() if line]


def helps():
    """All commands with their options, by their help."""
    listed = subprocess.run([vm.strake(), "help"], capture_output=True, text=True, check=True)
    for name in re.findall(r"^  (\w+) ", listed.stdout, re.MULTILINE):
        text = subprocess.run([vm.strake(), "help", name], capture_output=True, text=True,
                              check=True).stdout
        yield name, sorted(set(re.findall(r"^  (--[a-z0-9-]+)", text, re.MULTILINE)))


def bash(test, guest):
    """Completion offers what there is: commands, options, partitions, files."""
    script = subprocess.run([vm.strake(), "completion", "bash"], capture_output=True, text=True,
                            check=True).stdout
    supervisor = Supervisor(test)
    for name in ("web", "work"):
        create(supervisor, name, guest, start=False)
    environment = {**os.environ, "STRAKE_SOCKET": str(supervisor.socket),
                   "PATH": f"{os.path.dirname(os.path.abspath(vm.strake()))}:{os.environ['PATH']}"}
    commands = dict(helps())
    check(sorted(complete(script, ["strake", ""], environment)) == sorted(commands),
          f"bash: all {len(commands)} commands")
    for name, options in commands.items():
        offered = complete(script, ["strake", name, "--"], environment)
        wanted = set(options) | {"--help"}
        check(set(offered) == wanted, f"bash: strake {name} and its {len(options)} options")
    for name in ("start", "console", "remove", "show"):
        check(complete(script, ["strake", name, "w"], environment) == ["web", "work"],
              f"bash: strake {name} has partitions")
    check(complete(script, ["strake", "help", "comp"], environment) == ["completion"],
          "bash: strake help has commands")
    check(complete(script, ["strake", "run", "--kernel", str(test.folder / "echo.e")],
                   environment) == [str(test.folder / "echo.elf")], "bash: files")
    check(complete(script, ["strake", "user", str(test.folder / "echo.e")], environment)
          == [str(test.folder / "echo.elf")], "bash: a program")
    check(complete(script, ["strake", "check", "-L", "/us"], environment) == ["/usr"],
          "bash: a folder, for an option's letter")
    supervisor.stop()


def read_until(terminal, mark):
    """What a program writes to its terminal, up to a mark."""
    text, deadline = "", time.monotonic() + PATIENCE
    while mark not in text:
        check_quietly(time.monotonic() < deadline, f"zsh does not write {mark!r}: {text[-500:]}")
        if select.select([terminal], [], [], 1)[0]:
            text += os.read(terminal, 65536).decode(errors="replace")
    return text


def complete_zsh(folder, line, environment):
    """The words that zsh lists, in a terminal, for a command line."""
    terminal, other = pty.openpty()
    environment = {**environment, "TERM": "dumb", "PS1": "", "LINES": "500", "COLUMNS": "300"}
    setup = f"fpath=({folder} $fpath); autoload -Uz compinit; compinit -u -D; LISTMAX=9999; " \
            "unset zle_bracketed_paste; bindkey '^I' list-choices; bindkey -s '^X' listed; " \
            "print re''ady\n"
    with subprocess.Popen(["zsh", "-f", "-i"], stdin=other, stdout=other, stderr=other,
                          env=environment, start_new_session=True) as process:
        os.close(other)
        try:
            os.write(terminal, setup.encode())
            read_until(terminal, "ready\r\n")
            os.write(terminal, line.encode() + b"\t\x18")  # list, then write "listed"
            return set(re.findall(r"[\w-]+", read_until(terminal, "listed")[len(line):]))
        finally:
            process.kill()
            os.close(terminal)


def zsh(test, guest):
    """zsh's has the same in it; it is run where there is a zsh."""
    script = subprocess.run([vm.strake(), "completion", "zsh"], capture_output=True, text=True,
                            check=True).stdout
    commands = dict(helps())
    for name, options in commands.items():
        part = re.search(rf"^    {name}\) _arguments(.*?);;", script, re.MULTILINE | re.DOTALL)
        check(part and all(f"{option}[" in part.group(1) for option in options),
              f"zsh: strake {name} and its {len(options)} options")
    if not shutil.which("zsh"):
        print("zsh: it is not run, as there is none (package zsh)")
        return
    folder = test.folder / "zsh"
    folder.mkdir()
    (folder / "_strake").write_text(script, encoding="utf-8")
    subprocess.run(["zsh", "-n", folder / "_strake"], check=True)
    check(True, "zsh takes it")
    supervisor = Supervisor(test)
    for name in ("web", "work"):
        create(supervisor, name, guest, start=False)
    environment = {**os.environ, "STRAKE_SOCKET": str(supervisor.socket), "HOME": str(folder),
                   "PATH": f"{os.path.dirname(os.path.abspath(vm.strake()))}:{os.environ['PATH']}"}
    check(set(commands) <= complete_zsh(folder, "strake ", environment), "zsh lists all commands")
    check(set(commands["create"]) <= complete_zsh(folder, "strake create --", environment),
          "zsh lists a command's options")
    listed = complete_zsh(folder, "strake start w", environment)
    check({"web", "work"} <= listed and "run" not in listed, "zsh lists partitions")
    supervisor.stop()


main(host)
