#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Packages: minisign and strake take each other's keys and signatures, GNU tar makes the same file, the
same input gives the same bytes, an altered byte anywhere is refused, and the manifest's schema says what
the reader does."""

import copy
import hashlib
import json
import os
import random
import re
import shutil
import subprocess

from lib.harness import Failed, Skipped, check, main, PROJECT
import vm

EXPIRES = "2099-01-01T00:00:00Z"
PASSWORD = "open sesame\n"
TAR = ["tar", "--format=ustar", "--owner=0", "--group=0", "--numeric-owner", "--mtime=@0", "--mode=0644"]


def run(*arguments, **options):
    return subprocess.run([str(argument) for argument in arguments], capture_output=True, text=True,
                          timeout=600, check=False, **options)


def package(*arguments, **options):
    return run(vm.strake(), "package", *arguments, **options)


def must(result, what=None):
    """The output of what must have succeeded."""
    if result.returncode:
        raise Failed(f"{what or result.args}: {result.stderr}")
    if what:
        check(True, what)
    return result.stdout


def refused(result, word, what):
    """One line that has the word in it, and status 1."""
    lines = result.stderr.splitlines()
    check(result.returncode == 1 and len(lines) == 1 and word in lines[0],
          f"{what} is refused: {lines[-1] if lines else result}")


# ---- Keys and signatures --------------------------------------------------------------------------


def signs(folder, key, public, password=None):
    """What strake signs with a key, minisign verifies, and the other way round in both of its ways."""
    manifest = folder / "manifest.json"
    must(package("sign", "--key", key, folder, input=password))
    must(run("minisign", "-V", "-q", "-m", manifest, "-p", public))
    for options in ([], ["-l"]):
        must(run("minisign", "-S", *options, "-s", key, "-m", manifest, "-t", "a comment",
                 input=password))
        must(package("verify", "--public", public, folder))


def keys(folder, unpacked):
    """Keys of both, encrypted and not."""
    if not shutil.which("minisign"):
        raise Skipped("there is no minisign (package minisign)")
    must(package("keygen", "--no-password", folder / "plain"))
    signs(unpacked, folder / "plain.key", folder / "plain.pub")
    check(True, "a key of ours, not encrypted, serves both")
    must(package("keygen", folder / "sealed", input=PASSWORD))
    signs(unpacked, folder / "sealed.key", folder / "sealed.pub", PASSWORD)
    check(True, "a key of ours, encrypted, serves both")
    must(run("minisign", "-G", "-W", "-p", folder / "theirs.pub", "-s", folder / "theirs.key"))
    signs(unpacked, folder / "theirs.key", folder / "theirs.pub")
    check(True, "a key of minisign's, not encrypted, serves both")
    must(run("minisign", "-G", "-p", folder / "both.pub", "-s", folder / "both.key",
             input=PASSWORD * 2))
    signs(unpacked, folder / "both.key", folder / "both.pub", PASSWORD)
    check(True, "a key of minisign's, encrypted, serves both")
    refused(package("sign", "--key", folder / "sealed.key", unpacked, input="open says me\n"),
            "password", "a wrong password")
    refused(package("keygen", "--no-password", folder / "plain"), "exists", "a key's name that is taken")
    check((folder / "plain.key").stat().st_mode & 0o777 == 0o600, "a secret key is its owner's")
    (folder / "half.pub").touch()
    refused(package("keygen", "--no-password", folder / "half"), "exists", "a public key's name that is taken")
    check(not (folder / "half.key").exists(), "and no secret key is left that has no public one")
    result = package("sign", "--key", folder / "plain.key", unpacked)
    check(result.stderr == "", "of a key that is its owner's nothing is said")
    (folder / "plain.key").chmod(0o640)
    result = package("sign", "--key", folder / "plain.key", unpacked)
    check(result.returncode == 0 and "plain.key" in result.stderr, "of one that others may read, a warning")


def trust(folder, path):
    """Keys of a folder, rotated and revoked."""
    trusted = folder / "trusted.d"
    refused(package("verify", "--trusted", trusted, path), "not trusted", "no folder of keys")
    trusted.mkdir()
    shutil.copy(folder / "others.pub", trusted)
    refused(package("verify", "--trusted", trusted, path), "not trusted", "an unknown key")
    shutil.copy(folder / "ours.pub", trusted)
    must(package("verify", "--trusted", trusted, path), "a trusted key is trusted")
    shutil.copy(folder / "ours.pub", trusted / "stolen.revoked")
    refused(package("verify", "--trusted", trusted, path), "revoked", "a revoked key")
    (trusted / "stolen.revoked").unlink()
    trusted.chmod(0o775)
    refused(package("verify", "--trusted", trusted, path), "others", "a folder that others may write to")


# ---- Building ---------------------------------------------------------------------------------------


def build(folder, name, *more, **options):
    old, deb = folder / "old", folder / "strake-guest_0.2.0_riscv64.deb"
    path = folder / name
    return path, package("build", "--version", "0.2.0", "--epoch", 3, "--base", f"0.1.0={old}",
                         "--guest", deb, "--expires", EXPIRES, "--notes", folder / "notes", *more,
                         path, **options)


def inputs(folder):
    """An earlier program, which differs from this one in places; a package; notes."""
    program = bytearray(open(vm.strake(), "rb").read())
    numbers = random.Random(1)
    for _ in range(200):
        at = numbers.randrange(len(program))
        program[at:at + 16] = numbers.randbytes(numbers.randrange(32))
    (folder / "old").write_bytes(program)
    (folder / "strake-guest_0.2.0_riscv64.deb").write_bytes(b"!<arch>\n" + numbers.randbytes(3000))
    (folder / "notes").write_text("Grüße\n\tin two lines\n", encoding="utf-8")


def reproducible(folder):
    """Nothing of where, when and how it was built is in a package."""
    path, result = build(folder, "a.strake", "--key", folder / "ours.key")
    must(result)
    other = folder / "elsewhere"
    other.mkdir()
    again, result = build(folder, "b.strake", "--key", folder / "ours.key", cwd=other, umask=0o077,
                          env={**os.environ, "TZ": "Asia/Tokyo", "LC_ALL": "C.UTF-8", "HOME": "/"})
    must(result)
    check(path.read_bytes() == again.read_bytes(), "built twice, it is the same")
    unpacked = folder / "unpacked"
    unpacked.mkdir()
    must(run("tar", "-xf", path, "-C", unpacked))
    names = must(run("tar", "-tf", path)).split()
    check(names == ["manifest.json", "manifest.json.minisig", "monitor-full.zst",
                    "monitor-from-0.1.0.zst", "guest/strake-guest_0.2.0_riscv64.deb"],
          f"its files are {', '.join(names)}")
    must(run(*TAR, "-C", unpacked, "-cf", again, *names))
    check(path.read_bytes() == again.read_bytes(), "GNU tar makes the same of its files")
    must(run("zstd", "-dqf", unpacked / "monitor-full.zst", "-o", folder / "program")) \
        if shutil.which("zstd") else shutil.copy(vm.strake(), folder / "program")
    check((folder / "program").read_bytes() == open(vm.strake(), "rb").read(),
          "the payload is the program")
    return path, unpacked


def verifies(folder, path, unpacked):
    """verify and show, of a file and of a folder."""
    public = folder / "ours.pub"
    for shape in (path, unpacked):
        found = json.loads(must(package("verify", "--json", "--public", public, "--base",
                                        f"0.1.0={folder / 'old'}", shape)))
        check(found["unpacked"] == ["monitor-full.zst", "monitor-from-0.1.0.zst"],
              f"{shape.name}: both payloads are unpacked")
        shown = json.loads(must(package("show", "--json", shape)))
        check(shown["manifest"] == found["manifest"] and shown["key"] == found["key"] ==
              must(package("show", shape)).split("signed by      key ")[1][:16],
              f"{shape.name}: what is shown is what was verified")
    sizes = [payload["bytes"] for payload in found["manifest"]["monitor"]]
    print(f"program {found['manifest']['program']['bytes']} bytes, whole {sizes[0]} packed, "
          f"as a delta {sizes[1]}")
    check(sizes[1] < sizes[0] / 4, "a delta to what differs in 200 places is small")
    check(found["manifest"] == json.loads((unpacked / "manifest.json").read_text(encoding="utf-8")),
          "the manifest is what is in the file")
    refused(package("verify", "--public", folder / "others.pub", path), "not trusted",
            "another key")
    late, result = build(folder, "late.strake", "--key", folder / "ours.key", "--expires",
                         "2020-01-01T00:00:00Z")
    must(result)
    refused(package("verify", "--public", public, late), "expired", "an expired package")
    bare, result = build(folder, "bare.strake")
    must(result)
    refused(package("verify", "--public", public, bare), "not signed", "an unsigned package")
    must(package("sign", "--key", folder / "ours.key", bare))
    check(bare.read_bytes() == path.read_bytes(), "signed later, it is the same")
    (folder / "binary").write_bytes(b"no\0tes")
    _, result = build(folder, "no.strake", "--notes", folder / "binary")
    refused(result, "no text", "notes that are none")
    _, result = build(folder, "no.strake", "--program", folder / "notes", "--key",
                      folder / "ours.key")
    must(result)
    refused(package("verify", "--public", public, folder / "no.strake"), "ELF",
            "a program that is none")


def altered(folder, path, unpacked):
    """Bytes here and there in each member's header, contents and padding; cut at many lengths."""
    public = folder / "ours.pub"
    good, other = path.read_bytes(), folder / "altered.strake"
    numbers, places, at = random.Random(2), [], 0
    while good[at:at + 1] != b"\0":
        size = int(good[at + 124:at + 135], 8)
        end = at + 512 + (size + 511) // 512 * 512
        places += [at + 3, at + 130, at + 150, at + 300, at + 512, at + 511 + size, end - 1]
        places += [numbers.randrange(at, end) for _ in range(5)]
        at = end
    places += [at, len(good) - 1]
    for place in places:
        data = bytearray(good)
        data[place] ^= 1
        other.write_bytes(data)
        if package("verify", "--public", public, other).returncode != 1:
            member = hashlib.sha256(data).hexdigest()
            raise Failed(f"byte {place} altered is taken ({member})")
    check(True, f"{len(places)} altered bytes are refused, in each part of each file")
    lengths = [0, 1, 511, 512, len(good) - 1] + [numbers.randrange(len(good)) for _ in range(40)]
    for length in lengths:
        other.write_bytes(good[:length])
        if package("verify", "--public", public, other).returncode != 1:
            raise Failed(f"cut at {length} is taken")
    check(True, f"{len(lengths)} lengths are refused")
    for name in ("manifest.json", "manifest.json.minisig", "monitor-full.zst",
                 "monitor-from-0.1.0.zst", "guest/strake-guest_0.2.0_riscv64.deb"):
        data = (unpacked / name).read_bytes()
        (unpacked / name).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        refused(package("verify", "--public", public, unpacked), "", f"{name} altered in a folder")
        (unpacked / name).write_bytes(data)
    (unpacked / "more").write_bytes(b"")
    refused(package("verify", "--public", public, unpacked), "does not name", "a file too many")
    (unpacked / "more").unlink()
    must(package("verify", "--public", public, unpacked))


def other_tars(folder, unpacked):
    """Tars of other kinds, as other programs make them."""
    names = sorted(str(path.relative_to(unpacked)) for path in unpacked.rglob("*") if path.is_file())
    other = folder / "other.strake"
    kinds = {"pax": ["--format=pax"], "GNU's": ["--format=gnu"], "an old tar's": ["--format=v7"],
             "one with a time": ["--mtime=@1"], "one that may be run": ["--mode=0755"],
             "one of another user": ["--owner=1000"]}
    for kind, options in kinds.items():
        must(run(*TAR, *options, "-C", unpacked, "-cf", other, *names))
        refused(package("show", other), "is no package", f"a tar of another kind ({kind})")
    must(run("tar", "--sort=name", "--format=ustar", "-C", unpacked, "-cf", other, "."))
    refused(package("show", other), "is no package", "a tar with folders")


# ---- The schema ---------------------------------------------------------------------------------------

ODD = [None, True, 0, 1, 2, -1, 1.0, 1.5, 10**9, 10**9 + 1, 2**33 - 1, 2**33, 2**63, "", "x", "1", "0.1.0",
       "01.2", "1.2.3.4.5.6.7.8", "1.2.3.4.5.6.7.8.9", "1234567890", "../x", "a_b", "A", "-a", "a b",
       "monitor-a.zst", "monitor-.zst", "guest/a.deb", "guest/a/b.deb", "guest/" + "a" * 89 + ".deb",
       "guest/" + "a" * 90 + ".deb", "a" * 64, "A" * 64, "a" * 65, "a" * 128, "a" * 129, "n" * 16384,
       "n" * 16385, "2027-01-01T00:00:00Z", "2027-01-01", "\u001b", "\u0080", "\u00a0", "a\n", "\n", "ü",
       [], {}, [1], {"x": 1}]


def mutants(good):
    """Manifests that differ from a good one in one place."""
    def places(node, path):
        yield path
        items = node.items() if isinstance(node, dict) else \
            enumerate(node) if isinstance(node, list) else ()
        for key, value in items:
            yield from places(value, path + (key,))

    def at(root, path):
        for key in path:
            root = root[key]
        return root

    for path in places(good, ()):
        for value in ODD if path else ():
            made = copy.deepcopy(good)
            at(made, path[:-1])[path[-1]] = value
            yield f"{path} = {json.dumps(value)[:40]}", made
        if path:
            made = copy.deepcopy(good)
            del at(made, path[:-1])[path[-1]]
            yield f"{path} missing", made
        if isinstance(at(good, path), dict):
            made = copy.deepcopy(good)
            at(made, path)["more"] = 1
            yield f"{path} with more", made
        if isinstance(at(good, path), list):
            for count in (1, 16, 17, 64, 65):
                made = copy.deepcopy(good)
                item = at(made, path)[0]
                before, after = item["file"][:8], item["file"][-4:]
                at(made, path)[:] = [{**item, "file": f"{before}{i}{after}"} for i in range(count)]
                yield f"{path} of {count}", made


def beyond_schema(made):
    """What a schema cannot say: see its description."""
    try:
        files = [item["file"] for part in ("monitor", "guest") for item in made[part]]
        return len(set(files)) < len(files) or made["state"]["newest"] < made["state"]["oldest"]
    except (KeyError, TypeError):
        return False


def schema(folder, unpacked):
    """A validator of JSON Schema and the reader say the same of each mutant."""
    try:
        import jsonschema  # pylint: disable=import-outside-toplevel
    except ImportError:
        print("the schema is not compared: there is no jsonschema (package python3-jsonschema)")
        return
    text = (PROJECT / "docs/manifest.schema.json").read_text(encoding="utf-8")
    # Patterns are ECMA-262's, in which $ is the end; in Python it is also before a last line feed.
    text = json.loads(re.sub(r'("pattern": ".*?)\$"', r'\1\\\\Z"', text))
    jsonschema.Draft202012Validator.check_schema(text)
    # To JSON Schema 1.0 is an integer; to the reader it is none, as to who reads a manifest in C.
    checker = jsonschema.Draft202012Validator.TYPE_CHECKER.redefine(
        "integer", lambda _, value: isinstance(value, int) and not isinstance(value, bool))
    validator = jsonschema.validators.extend(jsonschema.Draft202012Validator,
                                             type_checker=checker)(text)
    good = json.loads((unpacked / "manifest.json").read_text(encoding="utf-8"))
    path, counts = folder / "mutant.json", {True: 0, False: 0}
    check(validator.is_valid(good), "the schema takes a good manifest")
    for what, made in mutants(good):
        path.write_text(json.dumps(made), encoding="utf-8")
        taken = package("show", path).returncode == 0
        wanted = validator.is_valid(made) and not beyond_schema(made)
        if taken != wanted:
            raise Failed(f"{what}: the reader {'takes' if taken else 'refuses'} it, the schema not: "
                         f"{package('show', path).stderr}")
        counts[taken] += 1
    check(counts[True] > 20 and counts[False] > 500,
          f"schema and reader agree on {counts[True]} manifests that are taken and {counts[False]} "
          "that are not")


def usage():
    """What is wrong with a command line is said."""
    for arguments in ([], ["nonsense", "x"], ["show"], ["show", "a", "b"], ["show", "--key", "k", "x"],
                      ["keygen", "--json", "x"], ["build", "--base", "nonsense", "x"],
                      ["build", "--base", "1..2=x", "x"], ["build", "--states", "1", "x"]):
        result = package(*arguments)
        check(result.returncode == 2 and len(result.stderr.splitlines()) == 1,
              f"strake package {' '.join(arguments)}: {result.stderr.strip()}")


def run_all(test):
    folder = test.folder
    usage()
    inputs(folder)
    must(package("keygen", "--no-password", folder / "ours"))
    must(package("keygen", "--no-password", folder / "others"))
    path, unpacked = reproducible(folder)
    verifies(folder, path, unpacked)
    altered(folder, path, unpacked)
    other_tars(folder, unpacked)
    schema(folder, unpacked)
    trust(folder, path)
    keys(folder, unpacked)


if __name__ == "__main__":
    main(run_all)
