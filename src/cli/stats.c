// SPDX-License-Identifier: BSD-2-Clause
// strake run --stats: what the harts have counted, as a table: a column a hart and their sum.
//
// A row is a field of struct monitor_counters or a ratio of two, so that a new counter is a line in
// `rows`.
#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "cli/stats.h"

static_assert(sizeof(struct monitor_counters) % sizeof(uint64_t) == 0,
              "a column is an array of counters");

#define FIELD(member) offsetof(struct monitor_counters, member)

enum row_kind {
    HEADING,
    COUNT,
    COUNT_IF_ANY,  // no row where all are 0
    SECONDS,       // of ns
    KIB,           // of bytes
    HIT_PERCENT,   // of `total` those that are not `field`; no row where there is no total
    MIPS,          // `field` a microsecond of `total` (ns)
};

static const struct row {
    enum row_kind kind;
    const char *label;
    size_t field, total;
} rows[] = {
    {HEADING, "instructions", 0, 0},
    {COUNT, "retired", FIELD(hart.retired), 0},
    {SECONDS, "seconds", FIELD(wall_ns), 0},
    {SECONDS, "seconds of host CPU", FIELD(cpu_ns), 0},
    {SECONDS, "seconds asleep", FIELD(hart.slept_ns), 0},
    {COUNT, "times asleep", FIELD(hart.sleeps), 0},
    {MIPS, "million a second", FIELD(hart.retired), FIELD(wall_ns)},
    {MIPS, "million a second of CPU", FIELD(hart.retired), FIELD(cpu_ns)},

    {HEADING, "memory", 0, 0},
    {COUNT_IF_ANY, "loads", FIELD(jit.loads), 0},
    {COUNT, "loads that missed the TLB", FIELD(hart.misses[HART_LOAD]), 0},
    {HIT_PERCENT, "% hit", FIELD(hart.misses[HART_LOAD]), FIELD(jit.loads)},
    {COUNT_IF_ANY, "stores", FIELD(jit.stores), 0},
    {COUNT, "stores that missed the TLB", FIELD(hart.misses[HART_STORE]), 0},
    {HIT_PERCENT, "% hit", FIELD(hart.misses[HART_STORE]), FIELD(jit.stores)},
    {COUNT_IF_ANY, "code pages looked up", FIELD(jit.fetches), 0},
    {COUNT, "code pages that missed", FIELD(hart.misses[HART_EXEC]), 0},
    {HIT_PERCENT, "% hit", FIELD(hart.misses[HART_EXEC]), FIELD(jit.fetches)},
    {COUNT_IF_ANY, "faults in memory windows", FIELD(jit.faults), 0},
    {COUNT, "device registers read", FIELD(hart.device_reads), 0},
    {COUNT, "device registers written", FIELD(hart.device_writes), 0},
    {COUNT, "TLB flushes", FIELD(hart.flushes), 0},

    {HEADING, "traps", 0, 0},
    {COUNT_IF_ANY, "instruction misaligned", FIELD(hart.exceptions[HART_CAUSE_FETCH_MISALIGNED]),
     0},
    {COUNT_IF_ANY, "instruction access fault", FIELD(hart.exceptions[HART_CAUSE_FETCH_ACCESS]), 0},
    {COUNT_IF_ANY, "illegal instruction", FIELD(hart.exceptions[HART_CAUSE_ILLEGAL]), 0},
    {COUNT_IF_ANY, "breakpoint", FIELD(hart.exceptions[HART_CAUSE_BREAKPOINT]), 0},
    {COUNT_IF_ANY, "load misaligned", FIELD(hart.exceptions[HART_CAUSE_LOAD_MISALIGNED]), 0},
    {COUNT_IF_ANY, "load access fault", FIELD(hart.exceptions[HART_CAUSE_LOAD_ACCESS]), 0},
    {COUNT_IF_ANY, "store misaligned", FIELD(hart.exceptions[HART_CAUSE_STORE_MISALIGNED]), 0},
    {COUNT_IF_ANY, "store access fault", FIELD(hart.exceptions[HART_CAUSE_STORE_ACCESS]), 0},
    {COUNT_IF_ANY, "call from U-mode", FIELD(hart.exceptions[HART_CAUSE_ECALL_U]), 0},
    {COUNT_IF_ANY, "call from S-mode", FIELD(hart.exceptions[HART_CAUSE_ECALL_S]), 0},
    {COUNT_IF_ANY, "call from M-mode", FIELD(hart.exceptions[HART_CAUSE_ECALL_M]), 0},
    {COUNT_IF_ANY, "instruction page fault", FIELD(hart.exceptions[HART_CAUSE_FETCH_PAGE]), 0},
    {COUNT_IF_ANY, "load page fault", FIELD(hart.exceptions[HART_CAUSE_LOAD_PAGE]), 0},
    {COUNT_IF_ANY, "store page fault", FIELD(hart.exceptions[HART_CAUSE_STORE_PAGE]), 0},
    {COUNT_IF_ANY, "S software interrupt", FIELD(hart.interrupts[1]), 0},
    {COUNT_IF_ANY, "M software interrupt", FIELD(hart.interrupts[3]), 0},
    {COUNT_IF_ANY, "S timer interrupt", FIELD(hart.interrupts[5]), 0},
    {COUNT_IF_ANY, "M timer interrupt", FIELD(hart.interrupts[7]), 0},
    {COUNT_IF_ANY, "S external interrupt", FIELD(hart.interrupts[9]), 0},
    {COUNT_IF_ANY, "M external interrupt", FIELD(hart.interrupts[11]), 0},
    {COUNT_IF_ANY, "call of the built-in SBI", FIELD(hart.sbi_calls), 0},
};

static const struct row translator_rows[] = {
    {HEADING, "translator", 0, 0},
    {COUNT, "blocks translated", FIELD(jit.translations), 0},
    {SECONDS, "seconds translating", FIELD(jit.translation_ns), 0},
    {KIB, "KiB of code now", FIELD(jit.code_bytes), 0},
    {KIB, "KiB of code at most", FIELD(jit.code_bytes_bound), 0},
    {COUNT, "times old code made room", FIELD(jit.drops), 0},
    {COUNT, "jumps linked", FIELD(jit.links), 0},
    {COUNT, "entered from the dispatcher", FIELD(jit.dispatches), 0},

    {HEADING, "left translated code", 0, 0},
    {COUNT, "by a jump not linked yet", FIELD(jit.exits[JIT_EXIT_UNLINKED]), 0},
    {COUNT, "by a jump not in the cache", FIELD(jit.exits[JIT_EXIT_JUMP]), 0},
    {COUNT, "at an entry, for attention", FIELD(jit.exits[JIT_EXIT_ENTRY]), 0},
    {COUNT, "in a call", FIELD(jit.exits[JIT_EXIT_CALL]), 0},

    {HEADING, "calls from translated code", 0, 0},
    {COUNT, "load", FIELD(jit.calls[JIT_CALL_LOAD]), 0},
    {COUNT, "store", FIELD(jit.calls[JIT_CALL_STORE]), 0},
    {COUNT, "atomic", FIELD(jit.calls[JIT_CALL_ATOMIC]), 0},
    {COUNT, "floating point", FIELD(jit.calls[JIT_CALL_FP]), 0},
    {COUNT, "CSR", FIELD(jit.calls[JIT_CALL_CSR]), 0},
    {COUNT, "other SYSTEM", FIELD(jit.calls[JIT_CALL_SYSTEM]), 0},
    {COUNT, "other", FIELD(jit.calls[JIT_CALL_OTHER]), 0},
};

static uint64_t value_of(const struct monitor_counters *column, size_t field)
{
    return *(const uint64_t *)((const char *)column + field);
}

static void print_value(FILE *out, const struct row *row, const struct monitor_counters *column)
{
    double value = (double)value_of(column, row->field), total;

    switch (row->kind) {
    case SECONDS:
        fprintf(out, " %14.3f", value / 1e9);
        break;
    case KIB:
        fprintf(out, " %14.0f", value / 1024);
        break;
    case HIT_PERCENT:
        total = (double)value_of(column, row->total);
        fprintf(out, " %14.3f", total > value ? 100 - 100 * value / total : 0);
        break;
    case MIPS:
        total = (double)value_of(column, row->total);
        fprintf(out, " %14.1f", total > 0 ? 1000 * value / total : 0);
        break;
    default:
        fprintf(out, " %14.0f", value);
    }
}

static bool is_shown(const struct row *row, const struct monitor_counters *sum)
{
    if (row->kind == COUNT_IF_ANY)
        return value_of(sum, row->field) > 0;
    return row->kind != HIT_PERCENT || value_of(sum, row->total) > 0;
}

static void print_rows(FILE *out, const struct row *table, size_t count,
                       const struct monitor_counters *columns, unsigned column_count)
{
    for (const struct row *row = table; row < table + count; row++) {
        if (!is_shown(row, &columns[column_count - 1]))
            continue;
        if (row->kind == HEADING) {
            fprintf(out, "%s\n", row->label);
            continue;
        }
        fprintf(out, "  %-28s", row->label);
        for (unsigned i = 0; i < column_count; i++)
            print_value(out, row, &columns[i]);
        fputc('\n', out);
    }
}

static void add_column(struct monitor_counters *sum, const struct monitor_counters *column)
{
    const uint64_t *from = (const uint64_t *)column;
    uint64_t *to = (uint64_t *)sum;

    for (size_t i = 0; i < sizeof(*sum) / sizeof(*to); i++)
        to[i] += from[i];
}

void cli_print_stats(FILE *out, const json_t *stats)
{
    const json_t *harts = json_object_get(stats, "harts");
    const char *engine = json_string_value(json_object_get(stats, "engine"));
    bool jit = engine && strcmp(engine, hart_engine_jit.name) == 0;
    size_t cpus = json_array_size(harts);
    if (cpus > HART_MAX)
        cpus = HART_MAX;
    struct monitor_counters columns[HART_MAX + 1] = {0}, *sum = &columns[cpus];

    fprintf(out, "%-30s", "strake: statistics");
    for (size_t i = 0; i < cpus; i++) {
        monitor_counters_from_json(&columns[i], json_array_get(harts, i));
        uint64_t wall_ns = sum->wall_ns;
        add_column(sum, &columns[i]);
        sum->wall_ns = columns[i].wall_ns > wall_ns ? columns[i].wall_ns : wall_ns;
        fprintf(out, " %12s%2zu", "hart", i);
    }
    fprintf(out, "%s\n", cpus > 1 ? "            sum" : "");
    unsigned shown = cpus > 1 ? (unsigned)cpus + 1 : 1;
    print_rows(out, rows, BASE_COUNT_OF(rows), columns, shown);
    if (jit)
        print_rows(out, translator_rows, BASE_COUNT_OF(translator_rows), columns, shown);
}
