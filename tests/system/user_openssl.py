#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""openssl: digests, ciphers, keys, signatures and certificates, and a TLS server and client of its own."""

import base64
import hashlib
import hmac
import random
import socket
import ssl
import subprocess

from lib.harness import check, free_port
from lib.programs import PATIENCE, end, main, same
import vm

DATA = random.Random(8).randbytes(300_000)
KEYS = {"rsa": ["RSA", "-pkeyopt", "rsa_keygen_bits:2048"], "ec": ["EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
        "ed25519": ["ED25519"]}
# FIPS 197, appendix C.1: plain text, key, cipher text.
BLOCK = ("00112233445566778899aabbccddeeff", "000102030405060708090a0b0c0d0e0f", "69c4e0d86a7b0430d8cdb78070b4c55a")


def openssl(programs):
    (programs.folder / "data").write_bytes(DATA)
    digests(programs)
    ciphers(programs)
    for kind in KEYS:
        signatures(programs, kind)
    certificates(programs)
    tls(programs)


def digests(programs):
    """As Python's library has them."""
    for name in ("md5", "sha1", "sha256", "sha512", "sha3-256", "blake2b512"):
        wanted = hashlib.new({"blake2b512": "blake2b"}.get(name, name.replace("sha3-", "sha3_")), DATA).hexdigest()
        same(f"digest {name}", programs.output("openssl", "dgst", "-r", f"-{name}", "data").decode(), f"{wanted} *data\n")
    said = programs.output("openssl", "dgst", "-sha256", "-hmac", "key", "-r", "data").decode()
    same("HMAC", said.split()[0], hmac.new(b"key", DATA, "sha256").hexdigest())
    said = programs.output("openssl", "kdf", "-keylen", "32", "-kdfopt", "digest:SHA256", "-kdfopt", "pass:word",
                           "-kdfopt", "salt:salt", "-kdfopt", "iter:2000", "PBKDF2").decode()
    same("PBKDF2", said.replace(":", "").strip().lower(), hashlib.pbkdf2_hmac("sha256", b"word", b"salt", 2000).hex())
    check(base64.b64decode(programs.output("openssl", "base64", "-in", "data")) == DATA, "base64")
    check(len({programs.output("openssl", "rand", "-hex", "32") for _ in range(3)}) == 3, "random numbers differ")


def ciphers(programs):
    """FIPS 197's example; then there and back."""
    plain, key, wanted = BLOCK
    said = programs.output("openssl", "enc", "-aes-128-ecb", "-nopad", "-K", key, given=bytes.fromhex(plain))
    same("AES-128, FIPS 197 appendix C.1", said.hex(), wanted)
    for name in ("aes-256-cbc", "aes-128-ctr", "chacha20", "camellia-192-cbc"):
        words = ["enc", f"-{name}", "-pbkdf2", "-iter", "100", "-pass", "pass:secret"]
        hidden = programs.output("openssl", *words, "-in", "data")
        check(hidden[:8] == b"Salted__" and DATA[:16] not in hidden and
              programs.output("openssl", *words, "-d", given=hidden) == DATA, f"{name}: there and back")


def signatures(programs, kind):
    """A key, and what it signs."""
    programs.run("openssl", "genpkey", "-algorithm", *KEYS[kind], "-out", f"{kind}.key")
    programs.output("openssl", "pkey", "-in", f"{kind}.key", "-pubout", "-out", f"{kind}.pub")
    (programs.folder / "other").write_bytes(DATA[:-1] + b"?")
    words = ["pkeyutl", "-rawin"] + ([] if kind == "ed25519" else ["-digest", "sha256"])
    programs.output("openssl", *words, "-sign", "-inkey", f"{kind}.key", "-in", "data", "-out", "signature")
    for name, status in (("data", 0), ("other", 1)):
        said = programs.run("openssl", *words, "-verify", "-pubin", "-inkey", f"{kind}.pub", "-in", name,
                            "-sigfile", "signature")[0]
        check(said == status, f"{kind}: the signature of {name} is {'right' if status == 0 else 'refused'}")


def certificates(programs):
    """An authority and a server's certificate."""
    subject = ["-subj", "/CN=Authority", "-addext", "basicConstraints=critical,CA:TRUE"]
    programs.output("openssl", "req", "-x509", "-new", "-key", "ec.key", "-days", "2", *subject, "-out", "ca.pem")
    programs.output("openssl", "req", "-new", "-key", "rsa.key", "-subj", "/CN=localhost", "-addext",
                    "subjectAltName=DNS:localhost,IP:127.0.0.1", "-out", "request.pem")
    programs.run("openssl", "x509", "-req", "-in", "request.pem", "-CA", "ca.pem", "-CAkey", "ec.key", "-days", "1",
                 "-copy_extensions", "copy", "-out", "server.pem")
    same("the authority's certificate vouches for the server's",
         programs.output("openssl", "verify", "-CAfile", "ca.pem", "server.pem").decode(), "server.pem: OK\n")
    check(programs.run("openssl", "verify", "server.pem")[0] == 2, "nobody vouches for it without")
    text = programs.output("openssl", "x509", "-in", "server.pem", "-noout", "-text", "-nameopt", "compat").decode()
    check("Issuer: CN=Authority" in text and "IP Address:127.0.0.1" in text, "the certificate in words")
    der = programs.output("openssl", "x509", "-in", "server.pem", "-outform", "DER")
    pem = (programs.folder / "server.pem").read_text(encoding="ascii")
    check(ssl.PEM_cert_to_DER_cert(pem[pem.index("-----BEGIN"):]) == der, "and as its bytes")


def tls(programs):
    """A server and a client, and the host's client."""
    port = free_port()
    server = programs.start("openssl", "s_server", "-accept", f"127.0.0.1:{port}", "-cert", "server.pem", "-key",
                            "rsa.key", "-rev", stderr=subprocess.STDOUT)
    watched = vm.Console()
    watched.watch(server.stdout.fileno())
    try:
        watched.expect("ACCEPT", PATIENCE)
        for version in ("-tls1_2", "-tls1_3"):
            output = programs.run("openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-CAfile", "ca.pem",
                                  "-verify_return_error", "-quiet", version, given=b"turned around\nCLOSE\n")[1]
            same(f"s_server and s_client {version}", output, b"dnuora denrut\n")
        context = ssl.create_default_context(cafile=programs.folder / "ca.pem")
        with socket.create_connection(("127.0.0.1", port)) as wire, \
                context.wrap_socket(wire, server_hostname="localhost") as tunnel:
            tunnel.sendall(b"by the host\n")
            check(tunnel.makefile("rb").readline() == b"tsoh eht yb\n" and tunnel.version() == "TLSv1.3",
                  "the host's client trusts it, and talks with it")
    finally:
        end(server)


main(openssl)
