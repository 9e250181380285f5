#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""curl, and git's use of its library, with servers on the loopback interface: HTTP, HTTPS, and what goes wrong."""

import functools
import gzip
import http.server
import json
import random
import ssl
import time

from lib.harness import check, free_port
from lib.programs import main, same, serve

BIG = random.Random(8).randbytes(3_000_000)


class Pages(http.server.BaseHTTPRequestHandler):
    """What the server answers."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_words):
        pass

    def answer(self, body, status=200, **headers):
        """One answer."""
        self.send_response(status)
        for name, value in {"content_length": len(body), **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):  # pylint: disable=invalid-name
        """GET, and what has come with a POST or PUT."""
        given = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = self.path.partition("?")[0]
        if path == "/echo":
            told = {name: self.headers[name] for name in ("Cookie", "User-Agent", "X-Own", "Content-Type", "Authorization")
                    if name in self.headers}
            self.answer(json.dumps([self.command, self.path, len(given), given[:40].decode(errors="replace"), told]).encode())
        elif path == "/moved":
            self.answer(b"", 302, location="/echo?moved", set_cookie="taste=sweet; Path=/")
        elif path == "/packed":
            self.answer(gzip.compress(b"unpacked\n" * 1000), content_encoding="gzip")
        elif path == "/chunks":
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for number in range(20):
                self.wfile.write(b"8\r\nchunk%02d\n\r\n" % number)
            self.wfile.write(b"0\r\n\r\n")
        elif path == "/slow":
            time.sleep(3)
            self.answer(b"late")
        elif path == "/big":
            start = int(self.headers.get("Range", "bytes=0-")[6:].rstrip("-"))
            self.answer(BIG[start:], 206 if start else 200,
                        **({"content_range": f"bytes {start}-{len(BIG) - 1}/{len(BIG)}"} if start else {}))
        elif path == "/cut":
            self.answer(b"only this", content_length=1000)
            self.close_connection = True
        else:
            self.answer(b"nothing here\n", 404)

    do_POST = do_PUT = do_DELETE = do_GET


def curl(programs):
    server, url = serve(Pages)
    requests(programs, url)
    bodies(programs, url)
    failures(programs, url)
    https(programs)
    repository(programs)
    server.shutdown()


def told(programs, *words):
    """What the server was told."""
    return json.loads(programs.output("curl", "-sS", *words))


def requests(programs, url):
    """Methods, headers, cookies, redirections."""
    (programs.folder / "file").write_text("from a file", encoding="utf-8")
    same("GET", told(programs, "-A", "agent", "-H", "X-Own: yes", f"{url}/echo?a=b"),
         ["GET", "/echo?a=b", 0, "", {"User-Agent": "agent", "X-Own": "yes"}])
    form = {"User-Agent": "a", "Content-Type": "application/x-www-form-urlencoded"}
    same("POST", told(programs, "-A", "a", "-d", "x=1", "--data-urlencode", "y=ü &", f"{url}/echo"),
         ["POST", "/echo", 16, "x=1&y=%C3%BC+%26", form])
    same("PUT of a file", told(programs, "-A", "a", "-T", "file", f"{url}/echo"),
         ["PUT", "/echo", 11, "from a file", {"User-Agent": "a"}])
    same("DELETE, with a password", told(programs, "-A", "a", "-X", "DELETE", "-u", "ann:secret", f"{url}/echo"),
         ["DELETE", "/echo", 0, "", {"User-Agent": "a", "Authorization": "Basic YW5uOnNlY3JldA=="}])
    same("a redirection, and the cookie that came with it", told(programs, "-A", "a", "-L", "-c", "jar", f"{url}/moved"),
         ["GET", "/echo?moved", 0, "", {"Cookie": "taste=sweet", "User-Agent": "a"}])
    same("a cookie of a file", told(programs, "-A", "a", "-b", "jar", f"{url}/echo")[4]["Cookie"], "taste=sweet")
    check("multipart/form-data" in told(programs, "-F", "part=@file", f"{url}/echo")[4]["Content-Type"], "a form with a file")
    said = programs.output("curl", "-sS", "-w", "%{http_code} %{size_download} %{num_connects}\\n", "-o", "saved",
                           f"{url}/none", "-o", "again", f"{url}/none").decode()
    same("one connection for two requests", said, "404 13 1\n404 13 0\n")


def bodies(programs, url):
    """What is received."""
    check(programs.output("curl", "-sS", f"{url}/big") == BIG, "3 MB")
    (programs.folder / "part").write_bytes(BIG[:1_000_000])
    programs.output("curl", "-sS", "-C", "-", "-o", "part", f"{url}/big")
    check((programs.folder / "part").read_bytes() == BIG, "the rest of them")
    same("packed", programs.output("curl", "-sS", "--compressed", f"{url}/packed").decode(), "unpacked\n" * 1000)
    same("in chunks", programs.output("curl", "-sS", f"{url}/chunks").decode(), "".join(f"chunk{n:02}\n" for n in range(20)))
    programs.output("curl", "-sS", "-Z", "--parallel-immediate", f"{url}/big?[1-4]", "-o", "big#1")
    check(all((programs.folder / f"big{n}").read_bytes() == BIG for n in range(1, 5)), "four at once")
    same("by a host's name", programs.output("curl", "-sS", "--resolve", f"there.test:{url.rpartition(':')[2]}:127.0.0.1",
                                             f"http://there.test:{url.rpartition(':')[2]}/chunks").decode()[:7], "chunk00")
    same("a file", programs.output("curl", "-sS", f"file://{programs.folder}/file").decode(), "from a file")


def failures(programs, url):
    """Each has a status of its own."""
    for what, words, wanted in (("a server that is not there", [f"http://127.0.0.1:{free_port()}/"], 7),
                                ("a page that is not there", ["-f", f"{url}/none"], 22),
                                ("a server that is slow", ["-m", "0.5", f"{url}/slow"], 28),
                                ("a body that is cut", [f"{url}/cut"], 18), ("an unknown scheme", ["odd://x/"], 1),
                                ("a name that nobody has", ["http://nobody.invalid/"], 6),
                                ("a folder to save in that is not there", ["-o", "no/file", f"{url}/echo"], 23)):
        status, _, errors = programs.run("curl", "-sS", *words)
        check(status == wanted and b"curl: (%d)" % wanted in errors, f"{what}: status {wanted}")


def https(programs):
    """A server whose certificate the sysroot's openssl has made."""
    programs.run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
                 "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "key", "-out", "certificate")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(programs.folder / "certificate", programs.folder / "key")
    server, url = serve(Pages, context)
    check(programs.output("curl", "-sS", "--cacert", "certificate", f"{url}/big") == BIG, "HTTPS: 3 MB")
    check(programs.run("curl", "-sS", f"{url}/echo")[0] in (60, 77), "HTTPS: a certificate that nobody vouches for is refused")
    server.shutdown()


def repository(programs):
    """git clones by HTTP, with a program of its own that uses libcurl."""
    script = """export GIT_AUTHOR_NAME=A GIT_AUTHOR_EMAIL=a@localhost GIT_COMMITTER_NAME=A GIT_COMMITTER_EMAIL=a@localhost
        export GIT_AUTHOR_DATE='1767225600 +0000' GIT_COMMITTER_DATE='1767225600 +0000'
        git init -q -b main made && cd made && seq 1000 >file && git add file && git commit -q -m one
        git repack -q -a -d && git update-server-info && git rev-parse HEAD"""
    head = programs.output("sh", "-c", script)
    server, url = serve(functools.partial(Quiet, directory=str(programs.folder)))
    programs.output("git", "clone", "-q", f"{url}/made/.git", "cloned")
    same("a repository by HTTP", programs.output("git", "-C", "cloned", "rev-parse", "HEAD"), head)
    server.shutdown()


class Quiet(http.server.SimpleHTTPRequestHandler):
    """A folder's files."""

    def log_message(self, *_words):
        pass


main(curl)
