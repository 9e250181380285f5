// SPDX-License-Identifier: BSD-2-Clause
// The report of a difference: what the interpreter executed, what translated code did instead, and
// that code.
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "verify/internal.h"

#define TEXT_BYTES 96

// ---- The guest's code, as the interpreter executes it

// The instruction at hart->pc. False: it cannot be fetched.
static bool fetch(struct hart *hart, struct isa_insn *insn)
{
    uint32_t raw = 0;

    for (unsigned i = 0; i < 2; i++) {
        uint64_t gva = hart->pc + 2 * i, gpa;
        const uint8_t *page = hart_fetch_page(hart, gva, &gpa);
        uint16_t half;

        if (!page)
            return false;
        memcpy(&half, page + (gva & (MEMORY_PAGE_BYTES - 1)), sizeof(half));
        raw |= (uint32_t)half << 16 * i;
        if ((raw & 3) != 3)
            break;
    }
    isa_decode(raw, insn);
    return true;
}

static void print_insn(FILE *out, struct hart *hart)
{
    struct isa_insn insn;
    char text[TEXT_BYTES], *tab;

    fprintf(out, "  %16" PRIx64 "  ", hart->pc);
    if (!fetch(hart, &insn)) {
        fprintf(out, "(cannot be fetched)");
        return;
    }
    isa_disassemble(&insn, hart->pc, text, sizeof(text));
    tab = strchr(text, '\t');
    if (tab)
        *tab = 0;
    fprintf(out, "%-8.*" PRIx32 "  %-10s %-24s", 2 * insn.length, insn.raw, text,
            tab ? tab + 1 : "");
}

static const char *kind_name(const struct verify_access *access)
{
    static const char *const names[] = {"load", "store", "atomic", "cache block", "CSR", "call"};

    return names[access->kind];
}

static void print_access(FILE *out, const struct verify_access *access)
{
    fprintf(out, " [%s", kind_name(access));
    if (access->width_bytes)
        fprintf(out, " of %u bytes", access->width_bytes);
    fprintf(out, " at %" PRIx64, access->gva);
    if (!access->ok)
        fprintf(out, ": exception %" PRIu64, access->cause);
    else if (access->kind == VERIFY_ATOMIC)
        fprintf(out, ": %" PRIx64 " to %" PRIx64, access->value, access->after);
    else if (access->kind != VERIFY_SYSTEM && access->kind != VERIFY_CACHE_BLOCK)
        fprintf(out, ": %" PRIx64, access->value);
    fprintf(out, "]");
}

// ---- Registers

static const char *const x_names[32] = {
    "zero", "ra", "sp", "gp", "tp",  "t0",  "t1", "t2", "s0", "s1", "a0",
    "a1",   "a2", "a3", "a4", "a5",  "a6",  "a7", "s2", "s3", "s4", "s5",
    "s6",   "s7", "s8", "s9", "s10", "s11", "t3", "t4", "t5", "t6",
};

static const struct field {
    const char *name;
    size_t offset, bytes;
} fields[] = {
#define FIELD(name)                                                                                \
    {                                                                                              \
#name, offsetof(struct hart, name), sizeof(((struct hart *)NULL)->name)                    \
    }
    FIELD(pc),         FIELD(privilege),       FIELD(instret),
    FIELD(traps),      FIELD(fflags),          FIELD(frm),
    FIELD(mstatus),    FIELD(mtvec),           FIELD(mscratch),
    FIELD(mepc),       FIELD(mcause),          FIELD(mtval),
    FIELD(medeleg),    FIELD(mideleg),         FIELD(mie),
    FIELD(stvec),      FIELD(sscratch),        FIELD(sepc),
    FIELD(scause),     FIELD(stval),           FIELD(satp),
    FIELD(menvcfg),    FIELD(senvcfg),         FIELD(mcounteren),
    FIELD(scounteren), FIELD(mcountinhibit),   FIELD(mcycle_offset),
    FIELD(stimecmp),   FIELD(minstret_offset), FIELD(reservation_gpa),
    FIELD(pmpcfg),     FIELD(pmpaddr),         FIELD(reservation_value),
#undef FIELD
};

static uint64_t read_field(const struct hart *hart, const struct field *field)
{
    uint64_t value = 0;

    memcpy(&value, (const uint8_t *)hart + field->offset, field->bytes < 8 ? field->bytes : 8);
    return value;
}

static void print_row(FILE *out, const char *name, uint64_t start, uint64_t reference,
                      uint64_t translated)
{
    fprintf(out, "  %-18s  %016" PRIx64 "  %016" PRIx64 "  %016" PRIx64 "\n", name, start,
            reference, translated);
}

static void print_registers(FILE *out, const struct verify *verify)
{
    const struct hart *start = hart_state_view(&verify->start);
    const struct hart *reference = hart_state_view(&verify->reference);
    const struct hart *translated = hart_state_view(&verify->translated);
    char name[8];

    fprintf(out, "registers that differ:\n  %-18s  %-16s  %-16s  %-16s\n", "", "before", "interp",
            "jit");
    for (unsigned i = 0; i < 32; i++)
        if (reference->x[i] != translated->x[i])
            print_row(out, x_names[i], start->x[i], reference->x[i], translated->x[i]);
    for (unsigned i = 0; i < 32; i++)
        if (reference->f[i] != translated->f[i]) {
            snprintf(name, sizeof(name), "f%u", i);
            print_row(out, name, start->f[i], reference->f[i], translated->f[i]);
        }
    for (size_t i = 0; i < BASE_COUNT_OF(fields); i++)
        if (memcmp((const uint8_t *)reference + fields[i].offset,
                   (const uint8_t *)translated + fields[i].offset, fields[i].bytes) != 0)
            print_row(out, fields[i].name, read_field(start, &fields[i]),
                      read_field(reference, &fields[i]), read_field(translated, &fields[i]));
}

// What an instruction changed; a star where the register is one that differs in the end.
static void print_changes(FILE *out, const struct verify *verify, const struct hart *before,
                          const struct hart *after)
{
    const struct hart *reference = hart_state_view(&verify->reference);
    const struct hart *translated = hart_state_view(&verify->translated);

    for (unsigned i = 0; i < 32; i++)
        if (before->x[i] != after->x[i])
            fprintf(out, " %s=%" PRIx64 "%s", x_names[i], after->x[i],
                    reference->x[i] != translated->x[i] ? "*" : "");
    for (unsigned i = 0; i < 32; i++)
        if (before->f[i] != after->f[i])
            fprintf(out, " f%u=%" PRIx64 "%s", i, after->f[i],
                    reference->f[i] != translated->f[i] ? "*" : "");
    if (before->fflags != after->fflags)
        fprintf(out, " fflags=%x%s", after->fflags,
                reference->fflags != translated->fflags ? "*" : "");
    if (before->traps != after->traps)
        fprintf(out, " exception %" PRIu64, after->trap_cause);
}

static void print_guest_code(FILE *out, struct hart *hart, struct verify *verify)
{
    uint64_t end = verify_position(hart_state_view(&verify->reference));
    bool good = true;

    fprintf(out, "guest code, as interp executed it (* differs in the end):\n");
    hart_state_restore(hart, &verify->start);
    verify->replayed = 0;
    verify->differs = false;
    while (good && verify_position(hart) < end) {
        unsigned replayed = verify->replayed;

        hart_state_save(hart, &verify->step);
        print_insn(out, hart);
        good = verify_interp_replay_step(hart, verify);
        print_changes(out, verify, hart_state_view(&verify->step), hart);
        for (; replayed < verify->replayed; replayed++)
            print_access(out, &verify->journal[replayed]);
        fprintf(out, "\n");
    }
}

// ---- Memory

// The guest's address of a byte of a page, from an access to the same page.
static uint64_t page_gva(const struct verify *verify, const struct verify_page *page)
{
    for (unsigned i = 0; i < verify->recorded; i++)
        for (unsigned part = 0; part < 2; part++) {
            const struct verify_access *access = &verify->journal[i];
            uintptr_t offset = (uintptr_t)access->hva[part] - (uintptr_t)page->real;

            if (access->hva[part] && offset < MEMORY_PAGE_BYTES)
                return (access->gva & ~(uint64_t)(MEMORY_PAGE_BYTES - 1)) +
                       part * MEMORY_PAGE_BYTES;
        }
    return 0;
}

static void print_page(FILE *out, const struct verify *verify, const struct verify_page *page)
{
    const uint8_t *after = verify->rewound ? page->after : page->real;

    for (unsigned i = 0; i < MEMORY_PAGE_BYTES; i += 8) {
        uint64_t reference, translated;

        memcpy(&reference, after + i, 8);
        memcpy(&translated, page->copy + i, 8);
        if (reference != translated)
            fprintf(out, "  %16" PRIx64 "  %016" PRIx64 "  %016" PRIx64 "\n",
                    page_gva(verify, page) + i, reference, translated);
    }
}

static void print_memory(FILE *out, const struct verify *verify)
{
    fprintf(out, "memory that differs:\n  %16s  %-16s  %-16s\n", "", "interp", "jit");
    for (unsigned i = 0; i < verify->page_count; i++)
        print_page(out, verify, &verify->pages[i]);
}

// The first access that was not the one that interp made.
static void print_wrong(FILE *out, const struct verify *verify)
{
    fprintf(out, "access that differs:\n  interp");
    if (verify->replayed < verify->recorded || verify->wrong.kind == VERIFY_ATOMIC)
        print_access(out, &verify->journal[verify->wrong.kind == VERIFY_ATOMIC && verify->replayed
                                               ? verify->replayed - 1
                                               : verify->replayed]);
    else
        fprintf(out, " [none]");
    fprintf(out, "\n  jit   ");
    if (verify->differs)
        print_access(out, &verify->wrong);
    else
        fprintf(out, " [none]");
    fprintf(out, "\n");
}

// ---- All of it

static void print(FILE *out, struct hart *hart, struct verify *verify)
{
    const struct hart *start = hart_state_view(&verify->start);
    const uint64_t gva = start->pc;
    fprintf(out,
            "verify: hart %u: interp and jit differ in the block at %c:%" PRIx64 ", after %" PRIu64
            " blocks that were the same\n",
            hart->id, "US?M"[start->privilege], gva, verify -> stats.blocks);
    if (verify->on_copies) {
        fprintf(out, "(only where accesses hit the TLB)\n");
    } else if (verify->differs || verify->replayed < verify->recorded) {
        print_wrong(out, verify);
    }
    print_registers(out, verify);
    if (verify->on_copies)
        print_memory(out, verify);
    print_guest_code(out, hart, verify);
    fprintf(out, "host code:\n");
    hart_state_restore(hart, &verify->start);
    jit_print_block(hart, verify->jit, out);
}

void verify_report_write(struct hart *hart, struct verify *verify)
{
    size_t bytes = 0;
    char *text = NULL;
    FILE *out = open_memstream(&text, &bytes);

    if (!out)
        return;
    print(out, hart, verify);
    fclose(out);
    free(verify->report);
    verify->report = text;
}
