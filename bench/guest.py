# SPDX-License-Identifier: BSD-2-Clause
"""guest: real programs, from Debian's riscv64 packages, in the guest. Times are read in the guest
from its monotonic clock; the host's clock is read when the lines around them arrive, and a
difference is reported. At SCALE=1 each row takes QEMU some 3 to 8 seconds."""

import itertools
import random
import tempfile
from pathlib import Path

import cpio
import fetch
import initramfs
import run as bench
import vm

SKEW_ALLOWED = 0.02  # of a time, between the guest's clock and the host's
SKEW_SECONDS = 0.05  # what the console may take to bring a line

# The rows that compute; what the others do most is call the kernel.
COMPUTE = ("openssl sha256", "openssl aes-128-cbc", "xz -6", "gzip -9", "sqlite3", "python3", "perl")

PYTHON = """
def primes(limit):
    sieve = bytearray([1]) * limit
    for number in range(2, int(limit ** 0.5) + 1):
        if sieve[number]:
            sieve[number * number::number] = bytes(len(range(number * number, limit, number)))
    return sum(sieve) - 2

def collatz(limit):
    longest = {1: 1}
    for start in range(2, limit):
        number, path = start, []
        while number not in longest:
            path.append(number)
            number = number // 2 if number % 2 == 0 else 3 * number + 1
        for step, passed in enumerate(reversed(path), longest[number] + 1):
            longest[passed] = step
    return max(longest, key=longest.get)

def words(count):
    seen = {}
    for number in range(count):
        word = '%x' % (number * 2654435761 % 65536)
        seen[word] = seen.get(word, 0) + 1
    return len(sorted(seen))

print(primes(SIZE * 20), collatz(SIZE // 2), words(SIZE * 2))
"""

PERL = r"""
my ($pairs, $ends, $dates, %count) = (0, 0, 0);
while (<>) {
    $pairs++ while /\b(\w)\w*\s+\1\w*/g;
    $ends++ if /(?:ing|ed|ly)\b.*?\b(?:un|re|in)\w+/;
    $dates += () = /\b\d{2,4}-(?:0[1-9]|1[0-2])\b/g;
    s/([aeiou])([^aeiou\s])/$2$1/g;
    $count{lc $1}++ while /\b([a-z]{3,})/gi;
}
printf "%d %d %d %d\n", $pairs, $ends, $dates, scalar keys %count;
"""


def text(size):
    """So many bytes that compress about as natural language does; always the same."""
    chance = random.Random(20)
    letters = "eeeeeetttttaaaaooooiiinnnsshhrrdlucmfwypvbgk"
    words = ["".join(chance.choices(letters, k=chance.randint(1, 11))) for _ in range(8000)]
    words += [f"{chance.randint(1900, 2099)}-{chance.randint(1, 12):02}" for _ in range(200)]
    weights = list(itertools.accumulate(1 / (rank + 3) for rank in range(len(words))))
    chunks, length = [], 0
    while length < size:
        line = " ".join(chance.choices(words, cum_weights=weights, k=12)) + "\n"
        chunks.append(line)
        length += len(line)
    return "".join(chunks).encode()[:size]


def inserts(count):
    """SQL: so many inserts in one transaction, and queries on them."""
    chance = random.Random(21)
    lines = ["CREATE TABLE part (id INTEGER PRIMARY KEY, name TEXT, price REAL, kind INTEGER);",
             "CREATE INDEX part_kind ON part (kind, price);", "BEGIN;"]
    lines += [f"INSERT INTO part VALUES ({number}, 'part {chance.getrandbits(40):x}', "
              f"{chance.random() * 1000:.2f}, {chance.randrange(100)});"
              for number in range(count)]
    lines += ["COMMIT;", "SELECT kind, count(*), avg(price) FROM part GROUP BY kind LIMIT 3;",
              "SELECT count(*) FROM part WHERE name LIKE '%ab%';",
              "SELECT count(*) FROM part a JOIN part b ON b.id = a.id / 2 WHERE a.kind = 7;"]
    lines += [f"SELECT name FROM part WHERE id = {chance.randrange(count)};"
              for _ in range(count // 10)]
    return "\n".join(lines) + "\n"


def workloads(scale):
    """[(name, unit, shell command)]: each is measured as a whole, in this order."""
    def sized(full):
        return max(1, round(full * scale))

    seconds = max(1, round(3 * min(scale, 1)))
    # By their paths: busybox's shell has programs of its own by these names.
    speed = f"/usr/bin/openssl speed -elapsed -mr -seconds {seconds} -bytes 8192 -evp"
    return [
        ("openssl sha256", "MB/s", f"{speed} sha256"),
        ("openssl aes-128-cbc", "MB/s", f"{speed} aes-128-cbc"),
        ("xz -6", "s", "/usr/bin/xz -6 -T1 -c /data/short"),
        ("gzip -9", "s", "/usr/bin/gzip -9 -n </data/text"),
        ("sqlite3", "s", "/usr/bin/sqlite3 /tmp/parts.db </data/inserts.sql"),
        ("python3", "s", "/usr/bin/python3 -S /data/cpu.py"),
        ("perl", "s", "/usr/bin/perl /data/regex.pl /data/lines"),
        ("fork and exec", "s", f"bench forkexec {sized(100)} /usr/bin/true"),
        ("pipe ping-pong", "s", f"bench pingpong {sized(14000)}"),
        ("dd, page cache", "s",
         f"/usr/bin/dd if=/dev/zero of=/tmp/file bs=64k count={sized(800)} && "
         "/usr/bin/dd if=/tmp/file of=/dev/null bs=4k"),
    ]


def overlay(rows, scale):
    """What the guest needs beside its initramfs: Debian's programs, and what they work on."""
    tree = cpio.Tree()
    tree.host_folder("", fetch.fetch("programs") / "root")
    content = text(round((16 << 20) * scale))
    tree.file("data/text", content)
    tree.file("data/short", content[:len(content) // 10])
    tree.file("data/lines", content[:len(content) // 25])
    tree.file("data/inserts.sql", inserts(round(20_000 * scale)))
    tree.file("data/cpu.py", PYTHON.replace("SIZE", str(round(32_000 * scale))))
    tree.file("data/regex.pl", PERL)
    script = "#!/bin/sh\nexport LC_ALL=C\n"
    for name, _, command in workloads(scale):
        if name not in rows:
            continue
        script += (f"bench time {label(name)} sh -c '({command}) >/tmp/out 2>/tmp/err' || "
                   "cat /tmp/err\n"
                   "grep -a ^+F: /tmp/out\nrm -f /tmp/*\n")
    tree.file("strake/run", script, 0o755)
    return tree


def label(name):
    """A workload's name as one word."""
    return name.replace(" ", "-").replace(",", "")


def timed(running, word):
    """How long what `bench time` calls `word` took, when it is done; says so when the two clocks
    disagree."""
    match = running.expect(rf"bench: end {word} ([\d.]+) status (\d+)\r?\n", timeout=4 * 3600)
    seconds, status = float(match.group(1)), int(match.group(2))
    if status != 0:
        said = running.text(match.end(), running.expect(r"bench: begin|strake: run ended").start())
        raise ValueError(f"'{word}' ended with status {status}: {said.strip()}")
    ours = running.time_of(f"bench: end {word} ") - running.time_of(f"bench: begin {word}$")
    if abs(ours - seconds) > max(SKEW_ALLOWED * seconds, SKEW_SECONDS):
        print(f"   {word}: its clock says {seconds:.3f} s, the host's {ours:.3f} s")
    return seconds


def collect(running, name, unit):
    """One workload's figure."""
    word = label(name)
    running.expect(f"bench: begin {word}\r?\n", timeout=600)
    figure = timed(running, word)
    if unit == "MB/s":  # +F:INDEX:ALGORITHM:BYTES PER SECOND
        figure = float(running.expect(r"\+F:[^:]*:[^:]*:([\d.]+)\r?\n", 600).group(1)) / 1e6
    print(f"   {name} {figure:.3f} {unit}", flush=True)
    return figure


def run(options):
    """The rows; see bench/run.py."""
    fetch.fetch("base")
    initramfs.build()
    units = {name: unit for name, unit, _ in workloads(options.scale)}
    rows = bench.choose("ROWS", units)
    with tempfile.TemporaryDirectory(prefix="strake-bench-") as folder:
        initrd = vm.with_overlay(overlay(rows, options.scale), Path(folder, "initrd"))
        machine = options.machine(initrd=initrd)

        def work(_, command):
            with vm.Running(command(machine)) as running:
                running.expect("strake: init started", timeout=1800)
                return {name: collect(running, name, units[name]) for name in rows}

        samples = bench.measure(work, options)
    return [bench.row(what, units[what], samples) for what in samples]


def goals(result):
    """Adds the mean of the programs that compute."""
    compute = [entry["ratio"] for entry in result["rows"] if entry["name"] in COMPUTE]
    result["geomean_compute"] = bench.geomean(compute)
    slowest = min(result["rows"], key=lambda entry: entry["ratio"])
    return [("times as fast as QEMU, what computes, geometric mean", result["geomean_compute"], ">=",
             2.5),
            (f"times as fast as QEMU, slowest row ({slowest['name']})", slowest["ratio"], ">=", 1)]
