#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""git: the scripts programs/git/* do under `strake user` what they do natively, by the host's; and repositories that are
reached by HTTP, by git's own program for servers."""

import functools
import http.server

from lib.harness import check
from lib.programs import SCRIPTS, SYSROOT, main, same, serve

WHO = {f"GIT_{role}_{what}": value for role in ("AUTHOR", "COMMITTER")
       for what, value in (("NAME", "Ann"), ("EMAIL", "ann@localhost"), ("DATE", "1767225600 +0000"))}
MAKE = """git init -q -b main made && cd made || exit 1
for i in $(seq 12); do seq $i 3000 >file$((i % 5)); git add .; git commit -q -m "Commit $i"; done
cd .. && git clone -q --bare made served && git -C served config http.receivepack true && git -C served rev-parse HEAD"""
CHANGE = """git checkout -q -b topic && head -c 300000 /dev/urandom >random && git add random && git commit -q -m Random &&
git push -q origin topic && git rev-parse HEAD"""


class Backend(http.server.BaseHTTPRequestHandler):
    """A server that has git-http-backend answer (RFC 3875)."""

    def __init__(self, programs, *rest):
        self.programs = programs
        super().__init__(*rest)

    def do_GET(self):  # pylint: disable=invalid-name
        """GET and POST."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path, _, query = self.path.partition("?")
        given = {"GIT_PROJECT_ROOT": self.programs.folder, "GIT_HTTP_EXPORT_ALL": "1", "REQUEST_METHOD": self.command,
                 "PATH_INFO": path, "QUERY_STRING": query, "CONTENT_LENGTH": len(body), "REMOTE_ADDR": "127.0.0.1",
                 "REMOTE_USER": "ann", "CONTENT_TYPE": self.headers.get("Content-Type", ""),
                 "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
                 "GIT_PROTOCOL": self.headers.get("Git-Protocol", "")}
        status, output, errors = self.programs.run(SYSROOT / "usr/lib/git-core/git-http-backend", given=body,
                                                   environment=given)
        head, _, content = output.partition(b"\r\n\r\n")
        if status != 0 or not head:
            self.send_error(500, errors.decode(errors="replace").replace("\n", " "))
            return
        lines = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
        self.send_response(int(lines.pop("Status", "200").split()[0]))
        for name, value in {**lines, "Content-Length": len(content)}.items():
            self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(content)

    do_POST = do_GET

    def log_message(self, *_words):
        pass


def git(programs):
    for script in sorted((SCRIPTS / "git").glob("*.sh")):
        programs.as_native(script.name, "/bin/dash", "dash", script)
    over_http(programs)


def over_http(programs):
    """Clone, push and fetch."""
    head = programs.output("dash", "-c", MAKE, environment=WHO)
    server, url = serve(functools.partial(Backend, programs))
    programs.output("git", "clone", "-q", f"{url}/served", "cloned")
    same("cloned by HTTP", programs.output("git", "-C", "cloned", "rev-parse", "HEAD"), head)
    pushed = programs.output("dash", "-c", CHANGE, environment=WHO, cwd=programs.folder / "cloned")
    same("pushed by HTTP", programs.output("git", "-C", "served", "rev-parse", "topic"), pushed)
    programs.output("git", "-C", "made", "fetch", "-q", "--depth", "2", f"{url}/served", "topic")
    same("fetched by HTTP", programs.output("git", "-C", "made", "rev-parse", "FETCH_HEAD"), pushed)
    for name in ("cloned", "served", "made"):
        programs.output("git", "-C", name, "fsck", "--strict", "--no-dangling", "--no-progress")
    check(programs.run("git", "clone", "-q", f"{url}/nothing", "none")[0] == 128, "what is not there is not cloned by HTTP")
    server.shutdown()


main(git)
