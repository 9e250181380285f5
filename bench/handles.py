# SPDX-License-Identifier: BSD-2-Clause
"""handles: resolve, alloc with release, and a mix of them, beside a plain array, an array under a
rwlock, liburcu's cds_lfht and Concurrency Kit's ck_ht. What is measured how: bench/handles.c.

RUNS and SCALE (of the time for each measurement) as in bench/run.py; MAX_SIZE leaves out larger tables.
What a read section costs in each flavour of liburcu comes last: bench/handles_sections.c.
"""

import json
import os
import subprocess
import sys

IMPLS = ("strake", "array", "rwlock", "lfht", "ck_ht")
MILLISECONDS = 20


def announce(rows):
    """Says how far the measurement is: on a terminal with each row, else with each subject."""
    impl = rows[-1]["impl"]
    text = f"{len(rows)} measured, {rows[-1]['size']} {impl:6}"
    if sys.stderr.isatty():
        print(f"\r{text}", end="", file=sys.stderr, flush=True)
    elif len(rows) == 1 or rows[-2]["impl"] != impl:
        print(text, file=sys.stderr, flush=True)


def measure(program, *arguments, progress=False):
    """The rows that the program prints."""
    rows = []
    with subprocess.Popen([program, *arguments], stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            rows.append(json.loads(line))
            if progress:
                announce(rows)
    if progress and sys.stderr.isatty():
        print(file=sys.stderr)
    if process.returncode:
        sys.exit(f"bench: '{program}' failed ({process.returncode})")
    return rows


class Rows:
    """Rows by what was measured."""

    def __init__(self, rows):
        self.by_key = {(row["op"], row["size"], row["threads"], row["growing"], row["impl"]): row
                       for row in rows}
        self.sizes = sorted({row["size"] for row in rows})
        self.threads = sorted({row["threads"] for row in rows})

    def get(self, op, size, threads=1, growing=False, impl="strake"):
        return self.by_key.get((op, size, threads, growing, impl))

    def ns(self, *key, **named):
        row = self.get(*key, **named)
        return row["ns"] if row else float("nan")


def print_table(rows):
    print(f"{'ns an operation':14} {'size':>9} threads growing" +
          "".join(f"{impl:>10}" for impl in IMPLS) + "     p99.9 of strake")
    keys = dict.fromkeys(key[:4] for key in rows.by_key)
    for op, size, threads, growing in sorted(keys, key=lambda key: (key[0], *key[1:])):
        figures = (rows.get(op, size, threads, growing, impl) for impl in IMPLS)
        print(f"{op:14} {size:>10} {threads:>7} {'yes' if growing else 'no':>7}" +
              "".join(f"{row['ns']:10.1f}" if row else f"{'-':>10}" for row in figures) +
              f"{rows.get(op, size, threads, growing)['p999_ns']:12.1f}")
    for size in rows.sizes:
        print(f"bytes a handle {size:>10} {'':15}" + "".join(
            f"{rows.get('resolve', size, impl=impl)['bytes_per_handle']:10.1f}" for impl in IMPLS))


def goals(rows):
    """(what, value, bound, whether it is reached)."""
    for op in ("resolve", "overlapped"):
        for size in rows.sizes:
            ratio = rows.ns(op, size) / rows.ns(op, size, impl="array")
            yield f"{op} at {size}, times the array", ratio, 2, ratio <= 2
    for op in ("resolve", "overlapped"):
        for size in (size for size in rows.sizes if size <= 1000000):
            best = min(rows.ns(op, size, impl=impl) for impl in ("lfht", "ck_ht"))
            ratio = best / rows.ns(op, size)
            yield f"{op} at {size}, times faster than the best hash table", ratio, 3, ratio >= 3
    if len(rows.threads) > 1:
        most = rows.threads[-1]
        bound = 0.95 * most
        for size in rows.sizes:
            scale = most * rows.ns("churned", size) / rows.ns("churned", size, threads=most)
            yield (f"resolve at {size} beside a thread that churns, {most} threads to 1", scale,
                   bound, scale >= bound)
    for size in rows.sizes:
        still, growing = (rows.get("resolve", size, growing=growing)["p999_ns"]
                          for growing in (False, True))
        yield (f"resolve at {size}, p99.9 with growth to without", growing / still, 1.2,
               growing / still <= 1.2)
    for size in rows.sizes:
        ns = rows.ns("alloc_release", size)
        yield f"alloc and release at {size}, ns", ns, 40, ns <= 40
    if 1000000 in rows.sizes:
        size = rows.get("resolve", 1000000)["bytes_per_handle"]
        yield "bytes a handle at 1000000", size, 24, size <= 24


def main(options, output):
    milliseconds = str(MILLISECONDS * options.scale)
    measured = measure(str(output / "handles"), str(options.runs), milliseconds,
                       os.environ.get("MAX_SIZE") or "10000000", progress=True)
    sections = measure(str(output / "handles_sections"), str(options.runs), milliseconds)
    rows = Rows(measured)
    print_table(rows)
    print("\na read section, by flavour    ns    a grace period, us")
    for row in sections:
        print(f"{row['flavour']:24} {row['section_ns']:7.2f} {row['grace_us']:13.1f}")
    print("\nto reach")
    for what, value, bound, reached in goals(rows):
        print(f"  {what:62} {value:8.2f}  ({bound:g})  {'reached' if reached else 'MISSED'}")
    path = output / "handles.json"
    more = ("overlapped", "churned")
    result = {"bench": "handles", "rows": [row for row in measured if row["op"] not in more]}
    for op in more:
        result[op] = [{key: row[key] for key in ("size", "threads", "impl", "ns", "p999_ns")}
                      for row in measured if row["op"] == op]
    result["sections"] = sections
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"in {path.relative_to(output.parent.parent)}")
