// SPDX-License-Identifier: BSD-2-Clause
// From a difference to the few instructions that make it.
#include "differential.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

// The number of the first snapshot that is not the same; at most what the shorter one has.
static size_t first_difference(const struct outcome *a, const struct outcome *b)
{
    const size_t count = a->count < b->count ? a->count : b->count;
    size_t i = 0;

    while (i < count && !memcmp(&a->snapshots[i], &b->snapshots[i], sizeof(struct snapshot)))
        i++;
    return i;
}

// A search for less that makes the same difference.
struct search {
    const struct hart_engine *engine;
    int status;  // how our side ended on the whole program
};

// Whether the sides differ as they did at first. A program that qemu does not run to its end makes
// no sense any more, and one on which ours ends in another way makes another difference.
static bool differs(const struct search *search, const struct program *program)
{
    struct outcome ours, qemu;
    const bool ran = run_both(program, search->engine, 2, &ours, &qemu) == 0;
    const bool result =
        ran && outcome_well(&qemu) && ours.status == search->status && !outcome_same(&ours, &qemu);

    outcome_free(&ours);
    outcome_free(&qemu);
    return result;
}

// ---- Shrinking ----------------------------------------------------------------------------------

static unsigned length_at(const struct program *program, uint32_t offset)
{
    return (program->code[offset] & 3) == 3 ? 4 : 2;
}

static uint32_t skip_instructions(const struct program *program, uint32_t offset, unsigned count,
                                  uint32_t end)
{
    while (count-- && offset < end)
        offset += length_at(program, offset);
    return offset;
}

// The instruction after erased ones must not be ctzw: what is before it keeps it from where qemu is
// known to be wrong (program.c), which would be a difference, but not the one that is looked for.
static bool may_follow(const struct program *program, uint32_t offset)
{
    struct isa_insn insn;
    uint32_t raw;

    memcpy(&raw, program->code + offset, sizeof(raw));
    isa_decode(raw, &insn);
    return insn.op != ISA_CTZW;
}

// Erases run after run of instructions wherever the difference stays. Returns whether any was.
static bool erase_runs(struct program *program, struct program *trial, uint32_t begin, uint32_t end,
                       unsigned run, const struct search *search)
{
    bool erased = false;

    for (uint32_t offset = begin, stop; offset < end; offset = stop) {
        stop = skip_instructions(program, offset, run, end);
        *trial = *program;
        program_erase(trial, offset, stop - offset);
        if (memcmp(trial->code, program->code, CODE_BYTES) != 0 && may_follow(program, stop) &&
            differs(search, trial)) {
            program_erase(program, offset, stop - offset);
            erased = true;
        }
    }
    return erased;
}

// Shorter and shorter runs, and all again while that helps, but for a bounded time.
static void shrink(struct program *program, uint32_t begin, uint32_t end,
                   const struct search *search)
{
    struct program *trial = malloc(sizeof(*trial));
    bool erased = trial != NULL;

    for (int round = 0; erased && round < 4; round++) {
        erased = false;
        for (unsigned run = round ? 4 : 256; run > 0; run /= 2)
            erased |= erase_runs(program, trial, begin, end, run, search);
    }
    free(trial);
}

// ---- Printing -----------------------------------------------------------------------------------

static void print_code(const struct program *program, uint32_t begin, uint32_t end)
{
    for (uint32_t offset = begin; offset < end; offset += length_at(program, offset)) {
        struct isa_insn insn;
        uint32_t raw = 0;
        char text[128];

        memcpy(&raw, program->code + offset, length_at(program, offset));
        isa_decode(raw, &insn);
        if (insn.op == ISA_ADDI && insn.rd == 0 && insn.rs1 == 0)
            continue;
        printf("  %08x:  %0*x%*s  %s\n", CODE_GVA + offset, insn.length * 2, raw,
               8 - insn.length * 2, "",
               isa_disassemble(&insn, CODE_GVA + offset, text, sizeof(text)));
    }
}

static void print_end(const char *side, const struct outcome *outcome)
{
    const int status = outcome->status;
    const struct verdict *verdict = &outcome->verdict;

    if (WIFSIGNALED(status))
        printf("  %s was ended by signal %d (%s)\n", side, WTERMSIG(status),
               strsignal(WTERMSIG(status)));
    else if (verdict->trapped)
        printf("  %s trapped: cause %" PRIu64 ", pc %" PRIx64 ", tval %" PRIx64 "\n", side,
               verdict->cause, verdict->pc, verdict->tval);
    else if (WEXITSTATUS(status))
        printf("  %s exited with %d\n", side, WEXITSTATUS(status));
}

static void print_register(char kind, int number, uint64_t before, uint64_t ours, uint64_t qemu)
{
    if (ours != qemu)
        printf("  %c%-4d before %016" PRIx64 "  qemu %016" PRIx64 "  strake %016" PRIx64 "\n", kind,
               number, before, qemu, ours);
}

static void print_states(const struct snapshot *before, const struct snapshot *ours,
                         const struct snapshot *qemu)
{
    for (int i = 0; i < 32; i++)
        print_register('x', i, before->x[i], ours->x[i], qemu->x[i]);
    for (int i = 0; i < 32; i++)
        print_register('f', i, before->f[i], ours->f[i], qemu->f[i]);
    if (ours->fcsr != qemu->fcsr)
        printf("  fcsr  before %02" PRIx64 "  qemu %02" PRIx64 "  strake %02" PRIx64 "\n",
               before->fcsr, qemu->fcsr, ours->fcsr);
    for (unsigned i = 0; i < WINDOW_BYTES; i++)
        if (ours->window[i] != qemu->window[i])
            printf("  [%08zx] before %02x  qemu %02x  strake %02x\n", ANCHOR_GVA + i,
                   before->window[i], qemu->window[i], ours->window[i]);
}

static void print_operands(const struct program *program, uint32_t begin, uint32_t end)
{
    const struct snapshot *state = &program->data.state;
    uint32_t x = 0, f = 0;

    for (uint32_t offset = begin; offset < end; offset += length_at(program, offset)) {
        struct isa_insn insn;
        uint32_t raw;

        memcpy(&raw, program->code + offset, sizeof(raw));
        isa_decode(raw, &insn);
        const unsigned flags = isa_op_flags(insn.op);
        x |= (flags & ISA_RS1 ? 1u << insn.rs1 : 0) | (flags & ISA_RS2 ? 1u << insn.rs2 : 0);
        f |= (flags & ISA_FRS1 ? 1u << insn.rs1 : 0) | (flags & ISA_FRS2 ? 1u << insn.rs2 : 0) |
             (flags & ISA_FRS3 ? 1u << insn.rs3 : 0);
    }
    for (int i = 1; i < 32; i++)
        if (x >> i & 1)
            printf("  x%-3d = %016" PRIx64 "\n", i, state->x[i]);
    for (int i = 0; i < 32; i++)
        if (f >> i & 1)
            printf("  f%-3d = %016" PRIx64 "\n", i, state->f[i]);
    printf("  fcsr = %02" PRIx64 "\n", state->fcsr);
}

// ---- The whole report ---------------------------------------------------------------------------

static void print_narrowed(struct program *program, unsigned chunk, const struct search *search)
{
    const uint32_t begin = program->chunk_at[chunk], end = program->chunk_at[chunk + 1] - 4;
    struct outcome ours, qemu;

    shrink(program, begin, end, search);
    printf("These instructions, the rest erased:\n");
    print_code(program, begin, end);
    printf("Registers they read, before them:\n");
    print_operands(program, begin, end);
    printf("Difference after them:\n");
    if (run_both(program, search->engine, 10, &ours, &qemu) == 0) {
        print_end("qemu", &qemu);
        print_end("strake", &ours);
        if (ours.count && qemu.count)
            print_states(&program->data.state, &ours.snapshots[0], &qemu.snapshots[0]);
    }
    outcome_free(&ours);
    outcome_free(&qemu);
}

void report_difference(const struct program *program, const struct hart_engine *engine,
                       const struct outcome *ours, const struct outcome *qemu)
{
    const size_t chunk = first_difference(ours, qemu);
    const struct search search = {.engine = engine, .status = ours->status};
    struct program *narrowed = malloc(sizeof(*narrowed));

    printf("seed %" PRIu64 ": qemu-riscv64 and engine \"%s\" differ in chunk %zu of %u\n",
           program->seed, engine->name, chunk, program->chunk_count);
    print_end("qemu", qemu);
    print_end("strake", ours);
    if (!narrowed || chunk >= program->chunk_count)
        goto out;
    *narrowed = *program;
    program_narrow(narrowed, chunk, chunk ? &qemu->snapshots[chunk - 1] : &program->data.state);
    if (differs(&search, narrowed)) {
        print_narrowed(narrowed, chunk, &search);
    } else {
        printf("The chunk alone, from the same state, makes no difference; after it:\n");
        if (chunk < ours->count && chunk < qemu->count)
            print_states(&narrowed->data.state, &ours->snapshots[chunk], &qemu->snapshots[chunk]);
    }
out:
    free(narrowed);
}
