// SPDX-License-Identifier: BSD-2-Clause
// Floating-point instructions, translated, against hart_fpu: each instruction with each rounding
// mode, on all pairs of special values and on random ones, with flags raised before or not. With an
// argument, that many times the usual number of random operands.
#include <stdio.h>
#include <stdlib.h>
#include <xmmintrin.h>

#include "jit/internal.h"

#define GUEST_ENGINE hart_engine_jit
#include "interp_guest.h"

enum { RNE, RTZ, RDN, RUP, RMM, DYNAMIC = 7 };
#define FRM_SHIFT 5
#define RECORDS 4096u
#define RANDOM_RECORDS 1500u
#define FIRST_INTEGER 12  // an operand or a result that is not floating point is in this register

// What the guest's loop goes over.
struct record {
    uint64_t operands[3], fcsr;
    uint64_t result, fcsr_after, mstatus_after;
    uint64_t unused;
};

static unsigned factor = 1;
static uint64_t seed = 1;

static uint64_t random_next(void)
{
    seed = seed * 6364136223846793005 + 1442695040888963407;
    return seed >> 29 ^ seed << 35;
}

// ---- Operands

static const uint64_t doubles[] = {
    0x0000000000000000, 0x0000000000000001, 0x000fffffffffffff, 0x0010000000000000,
    0x0010000000000001, 0x0018000000000000, 0x3fdfffffffffffff, 0x3fe0000000000000,
    0x3ff0000000000000, 0x3ff0000000000001, 0x3ff8000000000000, 0x4004000000000000,
    0x41dfffffffc00000, 0x41dfffffffe00000, 0x41e0000000000000, 0x41e0000000200000,
    0x41efffffffe00000, 0x41effffffff00000, 0x41f0000000000000, 0x433fffffffffffff,
    0x43dfffffffffffff, 0x43e0000000000000, 0x43efffffffffffff, 0x43f0000000000000,
    0x7fe0000000000000, 0x7fefffffffffffff, 0x7ff0000000000000, 0x7ff0000000000001,
    0x7ff8000000000000, 0x7ff8000000000123, 0x380fffffffffffff, 0x47efffffe0000000,
    0x47efffffffffffff, 0x36a0000000000000, 0xffffffff3f800000,
};
static const uint32_t singles[] = {
    0x00000000, 0x00000001, 0x007fffff, 0x00800000, 0x00800001, 0x00c00000, 0x3effffff,
    0x3f000000, 0x3f800000, 0x3f800001, 0x3fc00000, 0x40200000, 0x4effffff, 0x4f000000,
    0x4f7fffff, 0x4f800000, 0x5effffff, 0x5f000000, 0x5f7fffff, 0x5f800000, 0x7f000000,
    0x7f7fffff, 0x7f800000, 0x7f800001, 0x7fc00000, 0x7fc00123,
};
static const uint64_t integers[] = {
    0,
    1,
    2,
    INT32_MAX,
    0x80000000,
    UINT32_MAX,
    0x01000001,
    0x0020000000000001,
    0x001fffffffffffff,
    0x7ffffffffffffc00,
    INT64_MAX,
    1ull << 63,
    UINT64_MAX,
    0xfffffffffffffbff,
    0xffe0000000000000,
};

enum type { INTEGER, SINGLE, DOUBLE };

static unsigned specials(enum type type)
{
    return type == DOUBLE   ? 2 * BASE_COUNT_OF(doubles)
           : type == SINGLE ? 2 * BASE_COUNT_OF(singles) + 1
                            : BASE_COUNT_OF(integers);
}

// Of each floating-point value there is a negative one; the last single is not boxed.
static uint64_t special(enum type type, unsigned i)
{
    if (type == INTEGER)
        return integers[i];
    if (type == DOUBLE)
        return doubles[i / 2] ^ (uint64_t)(i % 2) << 63;
    if (i == 2 * BASE_COUNT_OF(singles))
        return 0xfffffffe3f800000;
    return 0xffffffff00000000 | (singles[i / 2] ^ (uint32_t)(i % 2) << 31);
}

// Exponents of a few operands in a row are near each other now and then.
static uint64_t random_operand(enum type type, unsigned near)
{
    uint64_t bits = random_next(), fraction = random_next() % 4 ? bits : bits << 30;
    unsigned exponent = near + (unsigned)(random_next() % 5);

    if (random_next() % 8 == 0)
        return special(type, (unsigned)(random_next() % specials(type)));
    if (type == INTEGER)
        return bits >> random_next() % 64;
    if (type == DOUBLE)
        return (bits & 1ull << 63) | (uint64_t)(exponent & 0x7ff) << 52 |
               (fraction & 0xfffffffffffff);
    return 0xffffffff00000000 | (bits & 1u << 31) | (exponent & 0xff) << 23 | (fraction & 0x7fffff);
}

// ---- Instructions

// An encoding of `op` with all registers 0 and the rounding mode 0; 0: it has none here.
static uint32_t encoding(enum isa_op op)
{
    static const uint8_t fused[] = {0x43, 0x47, 0x4b, 0x4f};
    struct isa_insn insn;

    for (uint32_t i = 0; i < 8; i++) {
        isa_decode(fused[i / 2] | (i % 2) << 25, &insn);
        if (insn.op == op)
            return insn.raw;
    }
    for (uint32_t i = 0; i < 128 * 4 * 3; i++) {
        isa_decode(0x53 | (i / 12) << 25 | (i / 3 % 4) << 20 | (i % 3) << 12, &insn);
        if (insn.op == op)
            return insn.raw;
    }
    return 0;
}

static enum type operand_type(enum isa_op op)
{
    const char *name = isa_op_name(op), *last = name + strlen(name) - 1;

    if (isa_op_flags(op) & ISA_RS1)
        return INTEGER;
    return *last == 's' || (last[-1] == '.' && *last == 'w') ? SINGLE : DOUBLE;
}

struct program {
    enum isa_op op;
    unsigned rm;
    bool clean;             // FS is Clean before the instruction
    unsigned registers[4];  // rd, rs1, rs2, rs3
};

#define fld(rd, rs1, imm) i_type(0x07, 3, rd, rs1, imm)
#define fsd(rs2, rs1, imm) s_type(0x27, 3, rs1, rs2, imm)
#define csrrc(rd, csr, rs1) i_type(0x73, 3, rd, rs1, csr)

// x5: the record, x6: the end of records, x13: the lower bit of FS.
static void put_program(struct guest *guest, const struct program *program)
{
    unsigned flags = isa_op_flags(program->op), rd = program->registers[0];
    uint32_t raw = encoding(program->op);
    bool from_x = flags & ISA_RS1, to_x = flags & ISA_RD;
    uint64_t loop = guest->here = CODE;

    put(guest, ld(7, 5, offsetof(struct record, fcsr)));
    put(guest, csrrw(0, ISA_CSR_FCSR, 7));
    put(guest, ld(FIRST_INTEGER, 5, 0));
    for (int i = 1; i <= 3; i++)
        put(guest, fld(program->registers[i], 5, 8 * (i - 1)));
    if (program->clean)
        put(guest, csrrc(0, ISA_CSR_MSTATUS, 13));
    raw |= (to_x ? FIRST_INTEGER : rd) << 7;
    raw |= (from_x ? FIRST_INTEGER : program->registers[1]) << 15;
    if (flags & ISA_FRS2)
        raw |= program->registers[2] << 20;
    if (flags & ISA_FRS3)
        raw |= program->registers[3] << 27;
    if (flags & ISA_ROUNDS)
        raw |= program->rm << 12;
    put(guest, raw);
    put(guest, csrrs(8, ISA_CSR_MSTATUS, 0));
    put(guest, to_x ? sd(FIRST_INTEGER, 5, offsetof(struct record, result))
                    : fsd(rd, 5, offsetof(struct record, result)));
    put(guest, csrrs(7, ISA_CSR_FCSR, 0));
    put(guest, sd(7, 5, offsetof(struct record, fcsr_after)));
    put(guest, sd(8, 5, offsetof(struct record, mstatus_after)));
    put(guest, addi(5, 5, sizeof(struct record)));
    put(guest, bne(5, 6, (int)(int64_t)(loop - guest->here)));
    put_stop(guest);
    put(guest, FENCE_I);
}

// Registers that alias now and then.
static void choose_registers(struct program *program)
{
    static const uint8_t registers[] = {0, 1, 5, 8, 10, 11, 12, 14, 15, 18, 28, 31};

    for (unsigned i = 0; i < 4; i++)
        program->registers[i] = registers[random_next() % BASE_COUNT_OF(registers)];
}

// ---- Comparison

static void check(const struct program *program, const struct record *record)
{
    const unsigned flags = isa_op_flags(program->op);
    unsigned rm = program->rm == DYNAMIC ? (unsigned)record->fcsr >> FRM_SHIFT : program->rm;
    uint64_t f[32], want;
    unsigned raised = 0, fs = 3;

    for (unsigned i = 1; i <= 3; i++)
        f[program->registers[i]] = record->operands[i - 1];
    want =
        hart_fpu(program->op, rm, flags & ISA_RS1 ? record->operands[0] : f[program->registers[1]],
                 f[program->registers[2]], f[program->registers[3]], &raised);
    if (program->clean && !(flags & ISA_FRD) && !raised)
        fs = 2;
    if (record->result == want && record->fcsr_after == (record->fcsr | raised) &&
        (record->mstatus_after >> 13 & 3) == fs)
        return;
    fail_msg("%s rm %u f%u f%u f%u f%u of %#lx %#lx %#lx, fcsr %#lx: got %#lx fcsr %#lx FS %lu, "
             "want %#lx fcsr %#lx FS %u",
             isa_op_name(program->op), program->rm, program->registers[0], program->registers[1],
             program->registers[2], program->registers[3], record->operands[0], record->operands[1],
             record->operands[2], record->fcsr, record->result, record->fcsr_after,
             record->mstatus_after >> 13 & 3, want, record->fcsr | raised, fs);
}

static void run_records(struct guest *guest, const struct program *program, struct record *records,
                        unsigned count)
{
    uint64_t bytes = count * sizeof(*records);

    if (!count)
        return;
    assert_int_equal(memory_write(guest->memory, DATA, records, bytes), 0);
    guest->hart->x[5] = DATA;
    guest->hart->x[6] = DATA + bytes;
    guest->hart->x[13] = 1u << 13;
    guest_run(guest, CODE);
    assert_int_equal(memory_read(guest->memory, DATA, records, bytes), 0);
    for (unsigned i = 0; i < count; i++)
        check(program, &records[i]);
}

static unsigned fill(struct record *record, uint64_t a, uint64_t b, uint64_t c)
{
    const unsigned flags = random_next() % 2 ? 0 : (unsigned)(random_next() % 32);

    *record = (struct record){.operands = {a, b, c}};
    record->fcsr = flags | (unsigned)(random_next() % (RMM + 1)) << FRM_SHIFT;
    return 1;
}

static unsigned test_program(struct guest *guest, const struct program *program)
{
    static struct record records[RECORDS];
    const enum type type = operand_type(program->op), others = type == INTEGER ? DOUBLE : type;
    const unsigned b_count = isa_op_flags(program->op) & ISA_FRS2 ? specials(others) : 1;
    unsigned count = 0, total = 0;

    for (unsigned a = 0; a < specials(type); a++)
        for (unsigned b = 0; b < b_count; b++) {
            count += fill(&records[count], special(type, a), special(others, b),
                          special(others, (unsigned)(random_next() % specials(others))));
            if (count == RECORDS || (a + 1 == specials(type) && b + 1 == b_count)) {
                run_records(guest, program, records, count);
                total += count;
                count = 0;
            }
        }
    for (unsigned i = 0; i < factor * RANDOM_RECORDS; i++) {
        unsigned near = (unsigned)random_next();

        count += fill(&records[count], random_operand(type, near), random_operand(others, near),
                      random_operand(others, 2 * near));
        if (count == RECORDS || i + 1 == factor * RANDOM_RECORDS) {
            run_records(guest, program, records, count);
            total += count;
            count = 0;
        }
    }
    return total;
}

static void test_instructions(struct guest *guest, bool clean)
{
    static const uint8_t modes[] = {RNE, RTZ, RDN, RUP, RMM, DYNAMIC};
    unsigned instructions = 0;

    for (unsigned op = 0; op < ISA_OP_COUNT; op++) {
        struct program program = {.op = op, .clean = clean};
        uint64_t total = 0;

        if (!(isa_op_flags(op) & ISA_FP) || isa_op_flags(op) & (ISA_LOAD | ISA_STORE))
            continue;
        assert_true(encoding(op) != 0);
        instructions++;
        for (unsigned i = 0; i < BASE_COUNT_OF(modes); i++) {
            program.rm = modes[i];
            if (program.rm != DYNAMIC && !(isa_op_flags(op) & ISA_ROUNDS))
                continue;
            choose_registers(&program);
            put_program(guest, &program);
            guest->hart->engine->fence_i(guest->hart, guest->hart->engine_state);
            total += test_program(guest, &program);
        }
        printf("%s: %lu agree\n", isa_op_name(op), total);
    }
    assert_int_equal(instructions, 58);
}

static void fp_on(struct guest *guest)
{
    guest->hart->mstatus |= HART_MSTATUS_FS;
}

static void test_on_host(void **state)
{
    const unsigned flags = 0x3f, before = _mm_getcsr() & ~flags;

    fp_on(*state);
    for (unsigned i = 0; i < 4; i++)
        test_instructions(*state, false);
    assert_int_equal(_mm_getcsr() & ~flags, before);
}

static void test_clean(void **state)
{
    fp_on(*state);
    test_instructions(*state, true);
}

static void test_without_host(void **state)
{
    struct guest *guest = *state;
    struct jit *jit = guest->hart->engine_state;

    jit->cpu &= ~(unsigned)JIT_CPU_FMA;
    fp_on(guest);
    test_instructions(guest, false);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        guest_test(test_on_host),
        guest_test(test_clean),
        guest_test(test_without_host),
    };

    if (argc > 1)
        factor = (unsigned)strtoul(argv[1], NULL, 10);
    return cmocka_run_group_tests_name("jit: floating point", tests, NULL, NULL);
}
