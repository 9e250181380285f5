#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""sqlite3: a session of queries, files that others write and read too, and processes that write at once."""

import sqlite3
import subprocess

from lib.harness import check
from lib.programs import PATIENCE, SCRIPTS, end, main, same


def sqlite(programs):
    same("queries", programs.output("sqlite3", "made.db", given=(SCRIPTS / "sqlite/queries.sql").read_bytes()).decode(),
         (SCRIPTS / "sqlite/queries.txt").read_bytes().decode())
    with sqlite3.connect(programs.folder / "made.db") as database:
        check(database.execute("pragma integrity_check").fetchone() == ("ok",), "its file is whole for the host's")
        check(database.execute("select sum(id) from parts").fetchone() == (200010000,), "and has the numbers")
    large(programs)
    others_file(programs)
    at_once(programs)
    status, _, errors = programs.run("sqlite3", "made.db", "select * from missing")
    check((status, b"no such table: missing" in errors) == (1, True), "a mistake is told")


def large(programs):
    """Transactions that are larger than the cache of pages: undone, and then done, in each way of keeping a journal."""
    fill = "with recursive n (i) as (select 1 union all select i + 1 from n where i < 50000) insert into t " \
           "select i, printf('%d of text %x', i, i * i), randomblob(i % 100) from n;"
    for mode in ("delete", "wal"):
        said = programs.output("sqlite3", f"large-{mode}.db", given=f"""pragma journal_mode = {mode}; pragma cache_size = 40;
create table t (id integer primary key, words text, bytes blob); create index by_words on t (words);
create virtual table found using fts5 (words, content = t, content_rowid = id);
begin; {fill} select count(*), sum(length(bytes)) from t; rollback; select count(*) from t;
begin; {fill} update t set words = words || '!' where id % 3 = 0; delete from t where id > 49000; commit;
insert into found (found) values ('rebuild'); select count(*) from found where found match 'text';
select rowid from found where found match '"48 of text"'; select sum(id) from t where words glob '*!';
pragma integrity_check; insert into found (found, rank) values ('integrity-check', 1); pragma wal_checkpoint (truncate);
vacuum; pragma integrity_check; pragma freelist_count;
""".encode()).decode()
        marks = "0|0|0" if mode == "wal" else "0|-1|-1"
        same(f"{mode}: large transactions", said,
             f"{mode}\n50000|2475500\n0\n49000\n48\n{sum(range(0, 49001, 3))}\nok\n{marks}\nok\n0\n")


def others_file(programs):
    """The host's sqlite has made it."""
    with sqlite3.connect(programs.folder / "native.db") as database:
        database.execute("create table squares (n integer primary key, square integer, bytes blob)")
        database.executemany("insert into squares values (?, ?, zeroblob(?))", ((n, n * n, n) for n in range(2000)))
    same("a file of the host's", programs.output("sqlite3", "native.db", "select sum(square), sum(length(bytes)) "
                                                 "from squares; pragma integrity_check").decode(),
         "2664667000|1999000\nok\n")
    dump = programs.output("sqlite3", "native.db", ".dump").decode()
    with sqlite3.connect(":memory:") as copy:
        copy.executescript(dump)
        check(copy.execute("select sum(square) from squares").fetchone() == (2664667000,), "what it dumps is all of it")
    (programs.folder / "in.csv").write_text("".join(f"{n},\"text, {n}\"\n" for n in range(1000)), encoding="utf-8")
    same("imported lines", programs.output("sqlite3", ":memory:", "create table t (n int, s text);",
                                           ".import --csv in.csv t", "select sum(n), max(length(s)) from t").decode(),
         "499500|9\n")


def at_once(programs):
    """Processes that write into one file, each way of locking it; with WAL they share memory."""
    for mode in ("delete", "wal"):
        name = f"{mode}.db"
        programs.output("sqlite3", name, f"pragma journal_mode = {mode}; create table t (who, n)")
        writers = []
        for who in range(3):
            script = ".timeout 600000\n" + "".join(f"insert into t values ({who}, {n});\n" for n in range(15))
            writer = programs.start("sqlite3", name, stdin=subprocess.PIPE)
            writer.stdin.write(script.encode())
            writer.stdin.close()
            writers.append(writer)
        for writer in writers:
            try:
                writer.wait(PATIENCE)
            finally:
                end(writer)
        check([writer.returncode for writer in writers] == [0] * 3, f"{mode}: three write at once")
        same(f"{mode}: all of it is there", programs.output(
            "sqlite3", name, "select count(*), count(distinct who), sum(n) from t; pragma integrity_check").decode(),
             "45|3|315\nok\n")


main(sqlite)
