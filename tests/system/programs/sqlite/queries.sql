-- SPDX-License-Identifier: BSD-2-Clause
.bail on
pragma page_size = 1024;
create table parts (id integer primary key, name text unique, price real, kind text check (kind in ('a', 'b', 'c')));
create table uses (part integer references parts (id) on delete cascade, of integer references parts (id) on delete set null, count int);
create index uses_of on uses (of, count);
pragma foreign_keys = on;
begin;
with recursive n (i) as (select 1 union all select i + 1 from n where i < 20000)
  insert into parts select i, printf('part-%05d', i), (i * 7919 % 10007) / 100.0, substr('abc', i % 3 + 1, 1) from n;
insert into uses select id, id * 31 % 20000 + 1, id % 9 from parts where id % 2;
commit;
select count(*), round(avg(price), 4), min(name), max(price), total(id) from parts;
select kind, count(*), round(sum(price), 4) from parts group by kind having count(*) > 1 order by 2 desc, 1;
select p.name, count(u.part) uses from parts p left join uses u on u.of = p.id group by p.id order by uses desc, p.id limit 3;
explain query plan select part from uses where of = 17 and count > 3;
select id, name, rank() over (order by price desc), sum(price) over (order by id rows 2 preceding) from parts where id < 6;
with recursive down (id, depth) as (select 7, 0 union all select of, depth + 1 from uses, down where part = down.id
  and depth < 10) select max(depth), group_concat(id) from down;
begin; delete from parts where id <= 100; select changes(), count(*) from uses; rollback; select count(*) from parts;
savepoint one; update parts set price = price * 2 where kind = 'a'; release one;
create trigger log after update of price on parts when new.price > 200 begin insert into uses values (new.id, null, -1); end;
update parts set price = 300 where id between 50 and 54; select count(*) from uses where count = -1;
create view dear as select name, price from parts where price > 150 order by price desc, name;
select * from dear limit 3;
select json_extract('{"a": [1, {"b": "c"}]}', '$.a[1].b'), json_group_array(id) from parts where id < 4;
select upper('straße'), length('straße'), hex('é'), substr('interception', 6, 4), instr('abc', 'c'), 'a' like 'A', 'ab' glob 'a?';
select datetime(1000000000, 'unixepoch'), strftime('%j %w', '2026-11-23'), date('2024-02-28', '+2 days');
select 7 / 2, 7 % -3, 7.0 / 2, 1e400, -9223372036854775808, typeof(9223372036854775807 + 1), abs(-2.5), 0x1f, 1 << 40;
select coalesce(null, 'x'), case when null then 1 else 2 end, cast('12abc' as integer), x'00ff' = cast(x'00ff' as blob);
create virtual table words using fts5 (text);
insert into words select name || ' of kind ' || kind from parts where id <= 500;
select count(*) from words where words match 'kind AND b'; select rowid from words where words match '"part 00042"';
create virtual table boxes using rtree (id, x0, x1, y0, y1);
insert into boxes select id, id % 100, id % 100 + 1, id / 100, id / 100 + 1 from parts where id < 5000;
select count(*) from boxes where x0 >= 10 and x1 <= 20 and y0 >= 5 and y1 <= 9;
alter table uses rename column count to number; alter table uses add column note text default 'none';
select * from uses limit 2; drop view dear; vacuum; analyze; reindex;
select name, sql from sqlite_schema where type = 'trigger'; pragma integrity_check;
attach ':memory:' as other; create table other.copy as select * from parts order by random(); select sum(id) from copy;
.mode csv
.headers on
select id, name, 'a "quoted", one' as text from parts limit 2;
