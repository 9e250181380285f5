// SPDX-License-Identifier: BSD-2-Clause
// Random guest code, run by the engine that compares interpreter and translator block by block;
// what ends is then run by the translator alone, with its blocks linked, and must come to the same.
//
// The input is where every choice comes from (struct choices): the mode, registers worth having,
// the instructions. Code lies in two pages, data in four: two plain ones, one with permissions of
// its own, and a device that never answers the same. Traps lead to code that goes on behind the
// instruction.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "isa/tables.h"
#include "replay.h"
#include "verify/internal.h"

#define RAM 0x80000000u
#define RAM_BYTES 0x40000u
#define PAGE MEMORY_PAGE_BYTES
#define CODE (RAM + 0x10000)
#define CODE_BYTES (2 * PAGE)
#define HANDLER (CODE + CODE_BYTES)
#define STOP_LOOP (HANDLER + 13 * 4)
#define DATA (RAM + 0x20000)
#define DATA_BYTES (3 * PAGE)
#define TABLES (RAM + 0x30000)  // root, middle, leaves
#define STOP_GPA 0x00100000u
#define DEVICE_GPA 0x10000000u
#define BLOCKS_MAX 60  // of one input
#define INSNS_MAX 200

// ---- Choices

struct choices {
    const uint8_t *bytes;
    size_t count;
    uint64_t state;  // for when the bytes are used up
};

static uint32_t next(struct choices *choices)
{
    uint32_t word = 0;

    if (choices->count >= 4) {
        memcpy(&word, choices->bytes, 4);
        choices->bytes += 4;
        choices->count -= 4;
    }
    choices->state = (choices->state ^ word) + 0x9e3779b97f4a7c15;  // splitmix64
    uint64_t z = (choices->state ^ choices->state >> 30) * 0xbf58476d1ce4e5b9;
    return (uint32_t)((z ^ z >> 27) * 0x94d049bb133111eb >> 32);
}

static uint32_t below(struct choices *choices, uint32_t end)
{
    return next(choices) % end;
}

static bool one_in(struct choices *choices, uint32_t n)
{
    return below(choices, n) == 0;
}

static uint64_t any(struct choices *choices)
{
    return (uint64_t)next(choices) << 32 | next(choices);
}

static uint64_t integer(struct choices *choices)
{
    static const uint64_t edges[] = {
        0,          1,  2,  UINT64_MAX, INT64_MAX, 1ull << 63, 0x7fffffff, 0x80000000,
        0xffffffff, 31, 32, 63,         64,        255,        0x8000,     ~0x7fffffffull};

    switch (below(choices, 4)) {
    case 0:
        return any(choices);
    case 1:
        return 1ull << below(choices, 64);
    default:
        return edges[below(choices, BASE_COUNT_OF(edges))] + below(choices, 3) - 1;
    }
}

static uint64_t floating(struct choices *choices)
{
    static const uint64_t doubles[] = {
        0x0000000000000000, 0x3ff0000000000000, 0x7ff0000000000000, 0x7ff8000000000000,
        0x7ff0000000000001, 0x0010000000000000, 0x000fffffffffffff, 0x0000000000000001,
        0x7fefffffffffffff, 0x43e0000000000000, 0x41dfffffffc00000, 0x3fe0000000000000,
        0x4330000000000000, 0x3ca0000000000000, 0x4008000000000000, 0x380fffffffffffff,
    };
    static const uint32_t singles[] = {
        0x00000000, 0x3f800000, 0x7f800000, 0x7fc00000, 0x7f800001, 0x00800000,
        0x007fffff, 0x00000001, 0x7f7fffff, 0x5f000000, 0x4f000000, 0x4effffff,
        0x3f000000, 0x4b000000, 0x33800000, 0x40400000,
    };
    uint64_t sign = next(choices) & 1;
    uint32_t pick = below(choices, 16);

    switch (below(choices, 5)) {
    case 0:
        return any(choices);
    case 1:
        return 0xffffffff00000000 | next(choices);
    case 2:  // not too far from 1
        return sign << 63 | (1023ull + below(choices, 64) - 32) << 52 | any(choices) >> 12;
    case 3:
        return doubles[pick] | sign << 63;
    default:
        return 0xffffffff00000000 | singles[pick] | sign << 31;
    }
}

// ---- The guest

enum { LINK = 1, STACK = 2, FIRST = 8, SECOND = 9, THIRD = 18, DEVICE = 19, CODE_POINTER = 20 };
#define RESERVED                                                                                   \
    (1u << STACK | 1u << FIRST | 1u << SECOND | 1u << THIRD | 1u << DEVICE | 1u << CODE_POINTER)

struct guest {
    struct memory *memory;
    struct hart *hart;
    uint64_t reads;  // of the device
};

static uint64_t device_read(void *device, uint64_t offset, unsigned width_bytes)
{
    struct guest *guest = device;

    (void)width_bytes;
    return ++guest->reads * 0x0123456789abcdef ^ offset;
}

static void device_write(void *device, uint64_t offset, unsigned width_bytes, uint64_t value)
{
    struct guest *guest = device;

    (void)width_bytes;
    guest->reads += offset ^ value;
}

static void stop_write(void *device, uint64_t offset, unsigned width_bytes, uint64_t value)
{
    struct guest *guest = device;

    (void)offset, (void)width_bytes, (void)value;
    atomic_fetch_or(&guest->hart->attention, HART_ATTENTION_STOP);
}

static uint64_t no_time(void *opaque)
{
    (void)opaque;
    return 0;
}

static void must(int status)
{
    if (status) {
        fprintf(stderr, "fuzz-jit: cannot make a guest: %d\n", status);
        exit(1);
    }
}

static void make_guest(struct guest *guest, const struct hart_engine *engine)
{
    static const struct memory_device_ops device_ops = {.read = device_read, .write = device_write};
    static const struct memory_device_ops stop_ops = {.read = device_read, .write = stop_write};
    const struct hart_host host = {.clock_ns = no_time};
    const struct memory_device devices[] = {
        {"counter", DEVICE_GPA, PAGE, 1, 8, &device_ops, guest},
        {"stop", STOP_GPA, PAGE, 1, 8, &stop_ops, guest},
    };

    must(memory_create(&guest->memory, NULL));
    must(memory_add_ram(guest->memory, RAM, RAM_BYTES, -1, NULL));
    for (size_t i = 0; i < BASE_COUNT_OF(devices); i++)
        must(memory_add_device(guest->memory, &devices[i], NULL));
    must(hart_create(&guest->hart, 0, guest->memory, &host, engine, NULL));
}

static uint8_t *at(const struct guest *guest, uint64_t gpa)
{
    return memory_ram_hva(guest->memory, gpa, 1);
}

// ---- The program

struct program {
    uint8_t code[CODE_BYTES];
    uint8_t data[DATA_BYTES];
    unsigned start, end;  // in code
    uint64_t x[32], f[32];
    unsigned privilege, frm, fflags, fs, leaf_bits;
    bool paging, adue;
};

static uint32_t put_field(uint32_t raw, struct isa_field field, unsigned value)
{
    raw &= ~((uint32_t)field.mask << field.shift);
    return raw | ((value - field.base) & field.mask) << field.shift;
}

static uint32_t put_immediate(uint32_t raw, unsigned layout, int32_t value)
{
    for (unsigned bit = 0; bit < 32; bit++) {
        const uint32_t part = (uint32_t)isa_immediate(layout, 1u << bit);

        raw &= part ? ~(1u << bit) : ~0u;
        if (part && (uint32_t)value & (part & -part))
            raw |= 1u << bit;
    }
    return raw;
}

// Where loads and stores go: not where code is, which needs a fence.i.
static unsigned pointer(struct choices *choices)
{
    static const uint8_t pointers[] = {FIRST, SECOND, FIRST, SECOND, STACK, THIRD, THIRD, DEVICE};

    return pointers[below(choices, BASE_COUNT_OF(pointers))];
}

static unsigned csr(struct choices *choices)
{
    static const uint16_t numbers[] = {
#define ISA_X(id, number, ...) number,
        ISA_CSR_LIST(ISA_X)
#undef ISA_X
    };
    static const uint16_t left_alone[] = {
        ISA_CSR_MTVEC, ISA_CSR_STVEC, ISA_CSR_MEDELEG, ISA_CSR_SATP, ISA_CSR_MEPC,
    };
    unsigned number = one_in(choices, 2) ? 1 + below(choices, 3)
                                         : numbers[below(choices, BASE_COUNT_OF(numbers))];

    for (size_t i = 0; i < BASE_COUNT_OF(left_alone); i++)
        if (number == left_alone[i])
            return ISA_CSR_MSCRATCH;
    return number >> 4 == ISA_CSR_PMPCFG0 >> 4 || number >> 4 == ISA_CSR_PMPADDR0 >> 4
               ? ISA_CSR_SSCRATCH
               : number;
}

static bool usable(const struct isa_insn *insn)
{
    return insn->op != ISA_ILLEGAL && insn->op != ISA_WFI;
}

// An instruction of a random row. What it writes is mostly not a pointer, what it loads and stores
// mostly lies in the data, and where it jumps in the code.
static uint32_t random_insn(struct choices *choices)
{
    struct isa_insn insn;
    uint32_t raw;

    do {
        const struct isa_form_info *form = &isa_forms[1 + below(choices, ISA_FORM_COUNT - 1)];
        unsigned flags = isa_op_flags(form->op);

        raw = (next(choices) & ~form->mask) | form->match;
        if (flags & (ISA_LOAD | ISA_STORE) && form->rs1.mask)
            raw = put_field(raw, form->rs1, pointer(choices));
        if (flags & (ISA_BRANCH | ISA_JUMP) && form->immediate && !form->rs1.mask)
            raw = put_immediate(raw, form->immediate, 2 * ((int)below(choices, 64) - 24));
        if (form->op == ISA_JALR && form->length == 4)
            raw = put_field(raw, form->rs1, CODE_POINTER) & ~(1u << 20);
        if (flags & ISA_BRANCH)
            raw = put_immediate(raw, form->immediate, 2 * ((int)below(choices, 64) - 16));
        if (form->op >= ISA_CSRRW && form->op <= ISA_CSRRCI)
            raw = (raw & 0xfffff) | csr(choices) << 20;
        isa_decode(raw, &insn);
        if (isa_op_flags(insn.op) & ISA_RD && RESERVED >> insn.rd & 1 && !one_in(choices, 16))
            insn.op = ISA_ILLEGAL;
    } while (!usable(&insn));
    return insn.raw;
}

static void put(struct program *program, uint32_t raw)
{
    unsigned bytes = (raw & 3) == 3 ? 4 : 2;

    if (program->end + bytes <= CODE_BYTES)
        memcpy(program->code + program->end, &raw, bytes);
    program->end += bytes;
}

static void make_code(struct choices *choices, struct program *program)
{
    program->end = program->start =
        one_in(choices, 3) ? PAGE - 2 * below(choices, 40) : 2 * below(choices, PAGE / 2);
    for (unsigned left = 8 + below(choices, INSNS_MAX); left > 0; left--)
        put(program, one_in(choices, 64) ? next(choices) : random_insn(choices));
    put(program, 0x30200073);  // mret, to where mepc leads
}

static void make_registers(struct choices *choices, struct program *program)
{
    for (unsigned i = 1; i < 32; i++)
        program->x[i] = integer(choices);
    for (unsigned i = 0; i < 32; i++)
        program->f[i] = floating(choices);
    program->x[FIRST] = DATA + PAGE + 8 * below(choices, 64) - 256;
    program->x[SECOND] = DATA + PAGE - below(choices, 16);
    program->x[STACK] = DATA + 2048 + (below(choices, 2) ? 8 * below(choices, 200) : 1);
    program->x[THIRD] = DATA + 2 * PAGE + (below(choices, 512) & ~7u);
    program->x[DEVICE] = DEVICE_GPA + 2048;
    program->x[CODE_POINTER] = CODE + program->start + 2 * below(choices, 100);
}

static void make_program(struct choices *choices, struct program *program)
{
    static const uint8_t privileges[] = {HART_M, HART_M, HART_S, HART_U, HART_U};

    memset(program, 0, sizeof(*program));
    program->privilege = privileges[below(choices, BASE_COUNT_OF(privileges))];
    program->paging = !one_in(choices, 3);
    program->adue = !one_in(choices, 3);
    program->leaf_bits = 1 | below(choices, 8) << 1 | below(choices, 4) << 6;
    program->frm = one_in(choices, 2) ? 0 : below(choices, 8);
    program->fflags = one_in(choices, 2) ? 1 : below(choices, 32);
    program->fs = one_in(choices, 8) ? below(choices, 4) : 3;
    make_code(choices, program);
    make_registers(choices, program);
    for (unsigned i = 0; i < DATA_BYTES; i += 8) {
        uint64_t value = i / 8 % 2 ? floating(choices) : integer(choices);
        memcpy(program->data + i, &value, 8);
    }
}

// ---- Running it

// Goes on behind the instruction that trapped; ends where there is none. x5 is lost in the second
// case only.
static void put_handler(const struct guest *guest)
{
    static const uint32_t code[] = {
        0x34029073,  // csrw mscratch, x5
        0x342022f3,  // csrr x5, mcause
        0xff428293,  // addi x5, x5, -12
        0x02028063,  // beqz x5, stop
        0x00a28293,  // addi x5, x5, 10
        0x0002cc63,  // bltz x5, stop
        0x341022f3,  // csrr x5, mepc
        0x00428293,  // addi x5, x5, 4
        0x34129073,  // csrw mepc, x5
        0x340022f3,  // csrr x5, mscratch
        0x30200073,  // mret
        0x001002b7,  // stop: lui x5, 0x100
        0x0052b023,  // sd x5, 0(x5)
        0x0000006f,  // j .
    };

    memcpy(at(guest, HANDLER), code, sizeof(code));
}

static void put_entry(const struct guest *guest, uint64_t table, uint64_t gva, unsigned level,
                      uint64_t entry)
{
    unsigned shift = 12 + 9 * level;

    memcpy(at(guest, table + (gva >> shift & 511) * 8), &entry, 8);
}

#define POINTER_TO(gpa) ((uint64_t)(gpa) >> 12 << 10 | 1)

static void put_tables(const struct guest *guest, const struct program *program)
{
    const uint64_t middle = TABLES + PAGE, leaves = TABLES + 2 * PAGE, all = 0xcf;
    const uint64_t user = program->privilege == HART_U ? 0x10 : 0;

    put_entry(guest, TABLES, DEVICE_GPA, 2, all | user);  // the first gigabyte
    put_entry(guest, TABLES, RAM, 2, POINTER_TO(middle));
    put_entry(guest, middle, RAM, 1, POINTER_TO(leaves));
    for (uint64_t gva = CODE; gva < DATA + DATA_BYTES; gva += PAGE)
        put_entry(guest, leaves, gva, 0, gva >> 12 << 10 | all | user);
    put_entry(guest, leaves, DATA + 2 * PAGE, 0,
              (uint64_t)(DATA + 2 * PAGE) >> 12 << 10 | program->leaf_bits | user);
    put_entry(guest, leaves, DATA + 3 * PAGE, 0, 0);
}

static void reset(struct guest *guest, const struct program *program)
{
    struct hart *hart = guest->hart;

    memset(at(guest, RAM), 0, RAM_BYTES);
    memcpy(at(guest, CODE), program->code, CODE_BYTES);
    memcpy(at(guest, DATA), program->data, DATA_BYTES);
    put_handler(guest);
    put_tables(guest, program);
    guest->reads = 0;

    hart_reset(hart);
    // Code cannot be written and nothing else executed: when a change is seen would be open.
    must(hart_csr_poke(hart, ISA_CSR_PMPADDR0, (CODE | (4 * PAGE / 2 - 1)) >> 2));
    must(hart_csr_poke(hart, ISA_CSR_PMPADDR0 + 1, UINT64_MAX));
    must(hart_csr_poke(hart, ISA_CSR_PMPCFG0, 0x9b9d));
    must(hart_csr_poke(hart, ISA_CSR_MENVCFG,
                       HART_ENVCFG_CBIE | HART_ENVCFG_CBCFE | HART_ENVCFG_CBZE |
                           (program->adue ? HART_ENVCFG_ADUE : 0)));
    must(hart_csr_poke(hart, ISA_CSR_SATP, program->paging ? 8ull << 60 | TABLES >> 12 : 0));
    must(hart_csr_poke(hart, ISA_CSR_MCOUNTEREN, 7));
    hart->mtvec = HANDLER;
    hart->mepc = hart->sepc = hart->stvec = CODE + program->start;
    hart->mstatus |= program->fs * HART_MSTATUS_FS_INITIAL;
    memcpy(hart->x, program->x, sizeof(hart->x));
    memcpy(hart->f, program->f, sizeof(hart->f));
    hart->frm = (uint8_t)program->frm;
    hart->fflags = (uint8_t)program->fflags;
    hart->privilege = (uint8_t)program->privilege;
    hart->pc = CODE + program->start;
    hart_mmu_update(hart);
    hart_mmu_flush(hart);
    hart->engine->fence_i(hart, hart->engine_state);
    atomic_store(&hart->attention, 0);
}

static unsigned blocks_left;  // of an input; the engine has no other end

static void run_counted_block(struct hart *hart, void *jit)
{
    jit_run_block(hart, jit);
    if (blocks_left == 0 || --blocks_left == 0)
        atomic_fetch_or(&hart->attention, HART_ATTENTION_STOP);
}

static void fail(const char *what, const struct hart *a, const struct hart *b)
{
    fprintf(stderr, "fuzz-jit: %s\n", what);
    for (unsigned i = 0; a && i < 32; i++) {
        if (a->x[i] != b->x[i])
            fprintf(stderr, "  x%u: %lx, alone %lx\n", i, a->x[i], b->x[i]);
        if (a->f[i] != b->f[i])
            fprintf(stderr, "  f%u: %lx, alone %lx\n", i, a->f[i], b->f[i]);
    }
    if (a)
        fprintf(stderr, "  fflags %x, alone %x; mstatus %lx, alone %lx\n", a->fflags, b->fflags,
                a->mstatus, b->mstatus);
    if (a)
        fprintf(stderr, "  pc %lx, alone %lx; instret %lu, alone %lu; traps %lu, alone %lu\n",
                a->pc, b->pc, a->instret, b->instret, a->traps, b->traps);
    abort();
}

// The translator with links, against what verify has shown to be right.
static void run_alone(const struct guest *verified, struct guest *guest,
                      const struct program *program)
{
    reset(guest, program);
    guest->hart->engine->run(guest->hart, guest->hart->engine_state);
    if (!hart_state_same(verified->hart, guest->hart))
        fail("linked blocks come to another state", verified->hart, guest->hart);
    if (memcmp(at(verified, RAM), at(guest, RAM), TABLES - RAM))
        fail("linked blocks leave other memory", verified->hart, guest->hart);
}

static struct guest verified, alone;

static void destroy_guest(struct guest *guest)
{
    hart_destroy(guest->hart);
    memory_destroy(guest->memory);
}

static void finish(void)
{
    const struct verify *verify = verified.hart->engine_state;
    struct jit_stats stats;

    jit_stats(verify->jit, &stats);
    printf("%lu blocks translated and compared, %lu times; %lu instructions\n", stats.translations,
           verify->stats.blocks, verify->stats.instructions);
    destroy_guest(&verified);
    destroy_guest(&alone);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count)
{
    static struct program program;
    struct choices choices = {bytes, count, count};
    struct verify *verify;

    if (!verified.hart) {
        make_guest(&verified, &hart_engine_verify);
        make_guest(&alone, &hart_engine_jit);
        atexit(finish);
    }
    verify = verified.hart->engine_state;
    verify->run_block = run_counted_block;
    verify->warm_one_in = 1;
    verify->batch = one_in(&choices, 4) ? VERIFY_BATCH : 1;
    make_program(&choices, &program);
    reset(&verified, &program);
    blocks_left = BLOCKS_MAX;
    verified.hart->engine->run(verified.hart, verify);
    if (verify_report(verify))
        fail("the engines differ", NULL, NULL);
    if (verify->stats.unstable)
        fail("the interpreter does not come to the same again", NULL, NULL);
    if (verified.hart->pc == STOP_LOOP)  // not where a store happened to stop it
        run_alone(&verified, &alone, &program);
    return 0;
}
