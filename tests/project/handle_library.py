#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""libstrake-handle stands alone: installed into an empty folder, its man page's example compiles there
with nothing but what pkg-config says, and prints what the page says, with the shared library and with
the static one. The page names every function that the header declares and the library exports, and no
other; the library needs nothing but libc and liburcu.

usage: handle_library.py BUILD
"""
import pathlib
import re
import shlex
import subprocess
import sys
import tempfile

COMPILER = ["gcc", "-std=c11", "-Wall", "-Wextra", "-Werror"]
NEEDED = re.compile(r"libc\.so|liburcu[\w-]*\.so|ld-linux")


def run(*command):
    return subprocess.run([str(word) for word in command], check=True, stdout=subprocess.PIPE,
                          text=True).stdout


def only(root, pattern):
    """The one file below root that is called so."""
    found = sorted(path for path in root.rglob(pattern) if path.is_file())
    assert len(found) == 1, f"installed as {pattern}: {found}"
    return found[0]


def displays(page):
    """The literal displays of the section EXAMPLES, as they are shown."""
    section = page[page.index("\n.Sh EXAMPLES"):]
    section = section[:section.index("\n.Sh ", 1)]
    return [text.replace(r"\e", "\\")
            for text in re.findall(r"^\.Bd -literal.*?\n(.*?)^\.Ed", section, re.M | re.S)]


def declared(header):
    """Functions that are for programs: what resolving is made of is not."""
    code = re.sub(r"//.*", "", header)
    inside = {"handle_entry", "handle_leaf_find"}
    return set(re.findall(r"\b(handle_\w+)\([^)*]*\b(?:void|\w+ \*?\*?\w+)", code)) - inside


def check_names(page, header, library):
    documented = set(re.findall(r"^\.F[no] (handle_\w+)", page[:page.index("\n.Sh DESCRIPTION")], re.M))
    assert documented == declared(header), \
        f"in the page or the header only: {sorted(documented ^ declared(header))}"
    exported = {line.split()[-1].split("@")[0]
                for line in run("nm", "-D", "--defined-only", library).splitlines()}
    inline = set(re.findall(r"^static inline [^;{]*?\b(handle_\w+)\(", header, re.M))
    exported.discard("STRAKE_HANDLE_0")
    assert exported == documented - inline, \
        f"in the page or the library only: {sorted(exported ^ (documented - inline))}"
    needed = re.findall(r"NEEDED.*\[(.*)\]", run("readelf", "-d", library))
    assert needed and all(NEEDED.match(name) for name in needed), f"needs {needed}"
    return len(documented)


def compile_and_run(source, prefix, pc_folder, static):
    """What the program prints, built as its author would."""
    pkg_config = ["env", f"PKG_CONFIG_PATH={pc_folder}", "pkg-config",
                  f"--define-variable=prefix={prefix}"]
    flags = shlex.split(run(*pkg_config, "--cflags", "strake-handle"))
    libs = shlex.split(run(*pkg_config, "--libs", *(["--static"] if static else []), "strake-handle"))
    if static:
        libs = ["-l:libstrake-handle.a" if lib == "-lstrake-handle" else lib for lib in libs]
    program = source.with_suffix(".static" if static else ".shared")
    run(*COMPILER, *flags, source, "-o", program, *libs)
    assert ("libstrake-handle" in run("readelf", "-d", program)) != static
    return run("env", f"LD_LIBRARY_PATH={pc_folder.parent}", program)


def main():
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        run("meson", "install", "-C", sys.argv[1], "--no-rebuild", "--quiet", "--destdir", root,
            "--tags", "runtime,devel,man")
        header = only(root, "handle.h")
        prefix = header.parents[2]
        page = only(root, "strake-handle.3").read_text(encoding="utf-8")
        library = only(root, "libstrake-handle.so.*.*")
        only(root, "libstrake-handle.a")
        count = check_names(page, header.read_text(encoding="utf-8"), library)

        program, shown = displays(page)
        source = root / "example.c"
        source.write_text(program, encoding="utf-8")
        for static in (False, True):
            printed = compile_and_run(source, prefix, only(root, "strake-handle.pc").parent, static)
            assert printed == shown, f"the page says {shown!r}, the example prints {printed!r}"
    print(f"{count} functions are documented; the example runs with both libraries")


if __name__ == "__main__":
    main()
