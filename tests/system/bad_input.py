#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Bad input gives one clear line on standard error and the right exit status, at once, and leaves
nothing half-created behind."""

import os
import re
import socket
import struct
import subprocess

from lib import firmware
from lib.harness import UNDER_QEMU, Skipped, check, main, need
import vm

USAGE, FAILED = 2, 1


def elf(machine=243, bits=64, kind=2, segments=((0x1000, 0x80200000, 16, 16),), size=0x2000, loader=b""):
    """A small ELF file; segments are (offset, physical address, bytes in file, in memory)."""
    table = [struct.pack("<IIQQQQQQ", 1, 7, offset, address, address, stored, memory, 4096)
             for offset, address, stored, memory in segments]
    if loader:
        table.append(struct.pack("<IIQQQQQQ", 3, 4, size, 0, 0, len(loader) + 1, len(loader) + 1, 1))
    header = struct.pack("<4sBBB9xHHIQQQIHHHHHH", b"\x7fELF", 1 if bits == 32 else 2, 1, 1, kind,
                         machine, 1, 0x80200000, 64, 0, 0, 64, 56, len(table), 0, 0, 0)
    return (header + b"".join(table)).ljust(size, b"\0") + (loader + b"\0" if loader else b"")


def image(magic=b"RSC\x05", size=1 << 20):
    """A Linux Image that says it takes `size` bytes."""
    header = struct.pack("<IIQQQIIQ8s4sI", 0x6f, 0, 0x200000, size, 0, 2, 0, 0, b"RISCV\0\0\0",
                         magic, 0)
    return header.ljust(1 << 20, b"\0")


FILES = {
    "empty": b"",
    "text": b"this is no kernel\n" * 100,
    "elf": elf(),
    "elf-x86": elf(machine=62),
    "elf-32": elf(bits=32),
    "elf-object": elf(kind=1),
    "elf-header-cut": elf()[:40],
    "elf-table-cut": elf()[:100],
    "elf-segment-cut": elf(size=0x1008),
    "elf-end-cut": elf(segments=((0x1000, 0x80200000, 16, 64),), size=0x200),
    "elf-low": elf(segments=((0x1000, 0x1000, 16, 16),)),
    "elf-high": elf(segments=((0x1000, 2**64 - 8, 16, 16),)),
    "elf-wide": elf(segments=((0x1000, 0x80200000, 16, 2**63),)),
    "elf-far": elf(segments=((2**64 - 4, 0x80200000, 16, 16),)),
    "elf-shrinking": elf(segments=((0x1000, 0x80200000, 4096, 16),)),
    "elf-loader": elf(loader=b"/missing"),
    "script": b"#!missing\n",
    "image": image(),
    "image-arm": image(magic=b"ARM\x64"),
    "image-header-cut": image()[:48],
    "image-huge": image(size=2**63),
    "disk": bytes(1 << 20),
}

OK = "--firmware echo.bin"

# Arguments (files are in the test's folder), exit status, what the message must name.
TABLE = [
    ("", USAGE, ""),
    ("nonsense", USAGE, "nonsense"),
    ("run --nonsense", USAGE, "--nonsense"),
    ("run --memory", USAGE, "--memory"),
    (f"run {OK} stray", USAGE, "stray"),
    ("run", USAGE, "kernel|firmware"),
    ("run --append quiet", USAGE, "kernel"),
    ("help nonsense", USAGE, "nonsense"),

    ("run --kernel missing", FAILED, "missing"),
    ("run --kernel .", FAILED, r'"\."'),
    ("run --kernel empty", FAILED, "empty"),
    ("run --kernel fifo", FAILED, "fifo.*regular"),
    ("run --kernel text", FAILED, "text"),
    ("run --kernel elf-x86", FAILED, "elf-x86"),
    ("run --kernel elf-32", FAILED, "elf-32"),
    ("run --kernel elf-object", FAILED, "elf-object"),
    ("run --kernel elf-header-cut", FAILED, "elf-header-cut"),
    ("run --kernel elf-table-cut", FAILED, "elf-table-cut"),
    ("run --kernel elf-segment-cut", FAILED, "elf-segment-cut"),
    ("run --kernel elf-low", FAILED, "elf-low"),
    ("run --kernel elf-high", FAILED, "elf-high"),
    ("run --kernel elf-wide", FAILED, "elf-wide"),
    ("run --kernel elf-far", FAILED, "elf-far"),
    ("run --kernel elf-shrinking", FAILED, "elf-shrinking"),
    ("run --kernel image-arm", FAILED, "image-arm"),
    ("run --kernel debian-cut", FAILED, "debian-cut.*truncated"),
    ("run --kernel image-header-cut", FAILED, "image-header-cut"),
    ("run --kernel image-huge", FAILED, "image-huge"),
    ("run --firmware missing", FAILED, "missing"),
    ("run --firmware empty", FAILED, "empty"),
    ("run --firmware elf-segment-cut", FAILED, "elf-segment-cut"),
    ("run --firmware huge --memory 64M", FAILED, "huge"),
    ("run --kernel image --initrd missing", FAILED, "missing"),
    ("run --kernel image --initrd huge --memory 64M", FAILED, "huge"),
    ("run --kernel image --memory 64M --append LONG", FAILED, "append|command line"),

    (f"run {OK} --memory 0", FAILED, "memory"),
    (f"run {OK} --memory 15M", FAILED, "memory"),
    (f"run {OK} --memory 65G", FAILED, "memory"),
    (f"run {OK} --memory 99999999999999999999G", FAILED, "memory"),
    (f"run {OK} --memory -64M", USAGE, "memory"),
    (f"run {OK} --memory plenty", USAGE, "plenty"),
    (f"run {OK} --memory 64Q", USAGE, "64Q"),
    (f"run {OK} --memory 16777217", FAILED, "16777217"),
    (f"run {OK} --cpus 0", FAILED, "cpus"),
    (f"run {OK} --cpus 17", FAILED, "cpus"),
    (f"run {OK} --cpus -1", USAGE, "cpus"),
    (f"run {OK} --cpus two", USAGE, "two"),
    (f"run {OK} --engine steam", USAGE, "steam"),
    (f"run {OK} --engine interp --jit-cache 1M", USAGE, "jit-cache.*--engine jit"),
    (f"run {OK} --engine jit --jit-cache 127K", FAILED, "127 KiB.*128K to 256M"),
    (f"run {OK} --engine jit --jit-cache 257M", FAILED, "128K to 256M"),
    (f"run {OK} --engine jit --jit-cache 99999999999999999999G", FAILED, "128K to 256M"),
    (f"run {OK} --engine jit --jit-cache some", USAGE, "some"),
    (f"run {OK} --engine interp --log jit", USAGE, "log jit.*--engine jit"),
    (f"run {OK} --engine interp --perf-map", USAGE, "perf-map.*--engine jit"),
    (f"run {OK} --engine jit --perf-map=missing", FAILED, "symbols.*missing"),
    (f"run {OK} --engine jit --perf-map=text", FAILED, "symbols.*text"),
    (f"run {OK} --engine jit --perf-map=elf-table-cut", FAILED, "symbols.*elf-table-cut"),
    (f"run {OK} --engine jit" + " --perf-map=text" * 17, USAGE, "16 files"),
    (f"run {OK} --stats=much", USAGE, "--stats"),
    (f"run {OK} --log loud", USAGE, "loud"),
    (f"run {OK} --log info,loud", USAGE, "info,loud"),

    (f"run {OK} --disk missing", FAILED, "missing"),
    (f"run {OK} --disk .", FAILED, r'"\."'),
    (f"run {OK} --disk disk,maybe", FAILED, "maybe"),
    (f"run {OK} --disk fifo,ro", FAILED, "fifo.*regular"),
    (f"run {OK} --disk in-use", FAILED, "in-use"),
    (f"run {OK} --disk in-use,ro", FAILED, "in-use"),
    (f"run {OK} --disk disk --disk disk", FAILED, "disk"),
    (f"run {OK}" + " --disk disk,ro" * 9, USAGE, "disk|slot"),

    (f"run {OK} --net", USAGE, "--net"),
    (f"run {OK} --net pigeon", USAGE, "pigeon"),
    (f"run {OK} --net user,hostfwd=tcp:127.0.0.1:PORT-:80", FAILED, "PORT"),
    (f"run {OK} --net user,hostfwd=tcp:127.0.0.1:99999-:80", USAGE, "99999"),
    (f"run {OK} --net user,hostfwd=tcp:127.0.0.1-:80", USAGE, "127.0.0.1"),
    (f"run {OK} --net user,hostfwd=smoke:127.0.0.1:1-:80", USAGE, "smoke"),
    (f"run {OK} --net tap=longer-than-interfaces-have-it", FAILED, "longer-than"),
    (f"run {OK} --net tap=", USAGE, "tap"),
    (f"run {OK} --gdb 127.0.0.1:PORT", FAILED, "PORT"),
    (f"run {OK} --gdb nowhere", FAILED, "nowhere"),

    (f"run {OK} --vsock 2,vsock", USAGE, "2"),
    (f"run {OK} --vsock 3", USAGE, "3"),
    (f"run {OK} --vsock cid,vsock", USAGE, "cid"),
    (f"run {OK} --vsock 3,listening", FAILED, "listening"),
    (f"run {OK} --vsock 3,text", FAILED, "text"),
    (f"run {OK} --vsock 3,missing/vsock", FAILED, "missing/vsock"),
    (f"run {OK} --vsock 3,{'p' * 200}", FAILED, "ppp"),
    (f"run {OK} --console screen", USAGE, "screen"),
    (f"run {OK} --console file=missing/log", FAILED, "missing/log"),
    (f"run {OK} --console file=in-use", FAILED, "in-use"),
    (f"run {OK} --disk disk --console file=disk", FAILED, "disk"),
    (f"run {OK} --console unix=listening", FAILED, "listening"),
    (f"run {OK} --console unix=missing/socket", FAILED, "missing/socket"),
    (f"run {OK} --dump-dtb missing/tree", FAILED, "missing/tree"),

    # Of what a supervisor would be asked for: it is not asked for this.
    ("leverage", USAGE, "too few"),
    ("leverage nonsense", USAGE, "nonsense"),
    ("leverage add net", USAGE, "a kind and a name"),
    ("leverage add pigeon wan --module fw", FAILED, "pigeon.*net, files, mount"),
    ("leverage add net wan --device eth0 --fail open", FAILED, "needs a module"),
    ("leverage add net a/b --module fw", FAILED, "name"),
    ("leverage add net wan --module fw,speed=1", USAGE, "speed=1"),
    ("leverage add net wan --module fw,pair=x", USAGE, "fw,pair=x"),
    ("leverage add net wan --fail maybe", USAGE, "maybe.*open, closed"),
    ("leverage add net wan --verdict perhaps", USAGE, "perhaps.*enforce, observe"),
    ("leverage add net wan --mode bridge", USAGE, "bridge.*inline, nat"),
    ("leverage add net wan --time-limit 3y", USAGE, "3y"),
    ("leverage add net wan --time-limit 0", USAGE, "10ms to 600s"),
    ("leverage add net wan --forward tcp:99999-10.0.0.1:80", USAGE,
     '--forward "tcp:99999-10.0.0.1:80": not tcp:'),
    ("leverage add net wan --module fw --fail open --device eth0 --path dir", FAILED, '"path"'),
    ("leverage add net wan --module fw --fail open --device eth0 --lan br0", FAILED, "--mode nat"),
    ("leverage add files in --size-limit lots", USAGE, "lots"),
    ("leverage add files in --infected burn", USAGE, "burn.*deny, quarantine"),
    ("leverage add net wan --wait soon", USAGE, "soon"),
    ("leverage add --from missing", FAILED, "missing"),
    ("leverage add --from text", FAILED, "text.*JSON"),
    ("leverage add --from text net wan", USAGE, "--from"),
    ("leverage list wan", USAGE, "wan"),
    ("leverage list --fail open", USAGE, "for add"),
    ("leverage show ../wan", FAILED, "name"),
    ("leverage show wan --socket missing", FAILED, "supervisor.*missing"),
    ("mount disk", USAGE, "too few"),
    ("mount missing .", FAILED, "missing"),
    ("mount disk missing", FAILED, "missing"),
    ("mount disk . --part x", USAGE, "part.*x"),
    ("mount disk . --socket missing", FAILED, "supervisor.*missing"),
    ("umount missing", FAILED, "missing"),
    ("umount . --socket missing", FAILED, "supervisor.*missing"),

    ("user", USAGE, "no program"),
    ("user --nonsense elf", USAGE, "--nonsense"),
    ("user --report json elf", USAGE, "--report"),
    ("user --engine verify elf", USAGE, "interp and jit"),
    ("user --env NAME elf", USAGE, "NAME=VALUE"),
    ("user -L", USAGE, "-L"),
    ("user -L missing elf", FAILED, "missing"),
    ("user --gdb nowhere elf", FAILED, "nowhere"),
    ("user --program-fd 99 elf", FAILED, "Bad file"),
    ("user missing", FAILED, "missing.*No such file"),
    ("user .", FAILED, r'"\.".*Permission'),
    ("user fifo", FAILED, "fifo.*Permission"),
    ("user text", FAILED, "text.*Permission"),
    ("user elf-x86", FAILED, "elf-x86.*no program for riscv64"),
    ("user elf-32", FAILED, "elf-32.*no program for riscv64"),
    ("user elf-object", FAILED, "elf-object.*object file"),
    ("user elf-header-cut", FAILED, "elf-header-cut.*no program"),
    ("user elf-table-cut", FAILED, "elf-table-cut.*cut off"),
    ("user elf-end-cut", FAILED, "elf-end-cut.*cut off"),
    ("user elf-low", FAILED, "elf-low"),
    ("user elf-high", FAILED, "elf-high.*address space"),
    ("user elf-wide", FAILED, "elf-wide.*address space"),
    ("user elf-far", FAILED, "elf-far.*address space"),
    ("user elf-shrinking", FAILED, "elf-shrinking.*address space"),
    ("user script", FAILED, "missing.*No such file"),
    ("user -L . elf-loader", FAILED, "elf-loader.*loader.*missing.*-L"),
    ("check", USAGE, "no program"),
    ("check missing", FAILED, "missing"),
    ("check elf-x86", FAILED, "elf-x86"),
    ("check --report xml elf", USAGE, "text, json, sarif, html"),
    ("check --leaks some elf", USAGE, "some.*definite"),
    ("check --report-fd 99 elf", USAGE, "99.*not open"),
    ("check --report-fd two elf", USAGE, "two"),
    ("check --suppressions missing elf", FAILED, "suppressions.*missing"),
    ("check --suppressions text elf", FAILED, "text.*line 1"),
    ("check --allocator pool elf", FAILED, "pool.*alloc=NAME"),
    ("check --allocator free=give elf", FAILED, "nothing in it allocates"),
    ("check --memory 64M elf", USAGE, "--machine"),
    ("check --cpus 2 elf", USAGE, "--machine"),
    ("check --machine pc elf", USAGE, "pc.*virt, virt-supervisor"),
    ("check --machine virt", USAGE, "no program"),
    ("check --machine virt elf stray", USAGE, "stray"),
    ("check --machine virt --gdb 127.0.0.1:PORT elf", USAGE, "gdb"),
    ("check --machine virt --env A=B elf", USAGE, "env"),
    ("check --machine virt --argv0 other elf", USAGE, "argv0"),
    ("check --machine virt --cpus 17 elf", FAILED, "17"),
    ("check --machine virt --memory 1M elf", FAILED, "1M|1 MiB|memory"),
    ("check --machine virt missing", FAILED, "missing"),
    ("check --machine virt .", FAILED, r'"\."'),
    ("check --machine virt text", FAILED, "text.*no ELF"),
    ("check --machine virt elf-x86", FAILED, "elf-x86"),
    ("check --machine virt elf-low", FAILED, "elf-low"),

    # What was created before the failing step goes away again.
    (f"run {OK} --vsock 3,vsock --console unix=console --disk missing", FAILED, "missing"),
    (f"run {OK} --vsock 3,vsock --console unix=console --gdb 127.0.0.1:PORT", FAILED, "PORT"),
    ("run --kernel text --vsock 3,vsock --console unix=console --dump-dtb tree", FAILED, "text"),
]


def prepare(test):
    """The files of the table; sockets and a port in use, which are returned."""
    for name, content in FILES.items():
        (test.folder / name).write_bytes(content)
        if name.startswith(("elf", "script")):
            (test.folder / name).chmod(0o755)
    debian = vm.KERNEL.read_bytes()
    (test.folder / "debian-cut").write_bytes(debian[:len(debian) // 2])
    (test.folder / "huge").touch()
    os.truncate(test.folder / "huge", 1 << 30)
    firmware.build("echo", test.folder)
    os.mkfifo(test.folder / "fifo")
    (test.folder / "in-use").write_bytes(bytes(1 << 20))
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(test.folder / "listening"))
    listening.listen()
    port = socket.socket()
    port.bind(("127.0.0.1", 0))
    port.listen()
    return listening, port


def complaint(result, status, names, help_instead):
    """What is wrong with how it failed, or None."""
    lines = result.stderr.splitlines()
    if result.returncode != status:
        return f"exit status {result.returncode}, not {status}"
    if len(lines) != 1 and not help_instead:
        return f"{len(lines)} lines"
    if not lines or not (help_instead or re.match("strake: [^ ].*[^ ]$", lines[0])):
        return "no line `strake: what failed: why`"
    if not re.search(names, lines[0]):
        return f"the message does not name {names!r}"
    if result.stdout:
        return "something on standard output"
    return None


def bad_input(test):
    if UNDER_QEMU:
        raise Skipped("these are Strake's own messages")
    need(vm.KERNEL)
    keep = prepare(test)
    port = str(keep[1].getsockname()[1])
    holder = test.start(vm.Machine(kernel=None, initrd=None, append=None,
                                   firmware=test.folder / "echo.bin",
                                   disks=[test.folder / "in-use"]))
    holder.expect("ready\r\n", 60)
    before = sorted(os.listdir(test.folder))
    wrong = 0
    for arguments, status, names in TABLE:
        words = [word.replace("PORT", port).replace("LONG", "x" * 70000)
                 for word in arguments.split()]
        try:
            result = subprocess.run([os.path.abspath(vm.strake()), *words], cwd=test.folder,
                                    stdin=subprocess.DEVNULL, capture_output=True, text=True,
                                    errors="replace", timeout=60, check=False)
            problem = complaint(result, status, names.replace("PORT", port), not words)
            said = result.stderr.strip()
        except subprocess.TimeoutExpired:
            problem, said = "it went on running", ""
        after = sorted(os.listdir(test.folder))
        if after != before:
            problem = problem or f"left behind: {sorted(set(after) ^ set(before))}"
            for name in set(after) - set(before):
                os.unlink(test.folder / name)
        print(f"{'FAILED' if problem else 'ok'}: strake {arguments}\n    {said[:200]}")
        if problem:
            print(f"    {problem}")
            wrong += 1
    holder.send("still here?")
    holder.expect("still he", 60)
    check(True, "the partition whose disk was asked for runs on")
    check(all((test.folder / disk).read_bytes() == bytes(1 << 20) for disk in ("disk", "in-use")),
          "no disk was written to")
    with open("/dev/full", "w", encoding="ascii") as full:
        result = subprocess.run([vm.strake(), "help"], stdout=full, stderr=subprocess.PIPE,
                                text=True, timeout=60, check=False)
    check(result.returncode == FAILED and "standard output" in result.stderr,
          "help that standard output does not take has failed")
    command = [os.path.abspath(vm.strake()), "run", *OK.split()]
    result = subprocess.run(["sh", "-c", 'ulimit -f 2048; exec "$@"', "sh", *command],
                            cwd=test.folder, stdin=subprocess.DEVNULL, capture_output=True,
                            text=True, timeout=60, check=False)
    check(result.returncode == FAILED and "RAM: File too large" in result.stderr,
          "a limit on the size of files, which RAM is one of, is told")
    check(wrong == 0, f"{len(TABLE)} kinds of bad input, {wrong} of them handled badly")
    for kept in keep:
        kept.close()


main(bad_input)
