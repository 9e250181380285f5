// SPDX-License-Identifier: BSD-2-Clause
// Floating point in blocks, translated, against the interpreter: random sequences and loops full of
// NaNs, in which results are computed with, stored, moved and compared, or overwritten before
// anything looks at them; left by branches, traps, and stops between two turns. With an argument,
// that many times the usual number.
#include <stdio.h>
#include <stdlib.h>

#include "jit/jit.h"

#define GUEST_ENGINE hart_engine_jit
#include "interp_guest.h"

#define SEQUENCES 4000
#define LENGTH 20
#define TURNS_REGISTER 12
#define STOP_REGISTER 13  // holds STOP_GPA
#define DATA_BYTES 1024
#define STATES_MAX 64

#define fld(rd, rs1, imm) i_type(0x07, 3, rd, rs1, imm)
#define flw(rd, rs1, imm) i_type(0x07, 2, rd, rs1, imm)
#define fsd(rs2, rs1, imm) s_type(0x27, 3, rs1, rs2, imm)
#define fsw(rs2, rs1, imm) s_type(0x27, 2, rs1, rs2, imm)
#define flt_d(rd, rs1, rs2) r_type(0x53, 1, 0x51, rd, rs1, rs2)

static unsigned factor = 1;
static uint64_t seed = 1;

static uint64_t random_next(void)
{
    seed = seed * 6364136223846793005 + 1442695040888963407;
    return seed >> 29 ^ seed << 35;
}

static bool one_in(unsigned n)
{
    return random_next() % n == 0;
}

// NaNs of all kinds, infinities, zeros, and numbers near one.
static uint64_t random_value(void)
{
    static const uint64_t doubles[] = {0x7ff8000000000000,
                                       0xfff8000000000000,
                                       0x7ff8000000000123,
                                       0x7ff0000000000001,
                                       0x7ff0000000000000,
                                       0xfff0000000000000,
                                       0,
                                       1ull << 63,
                                       0x0010000000000000,
                                       0x7fefffffffffffff};
    static const uint32_t singles[] = {0x7fc00000, 0xffc00000, 0x7fc00123, 0x7f800001, 0x7f800000,
                                       0xff800000, 0,          1u << 31,   0x00800000, 0x7f7fffff};
    uint64_t near = random_next() % 3 ? 0x3ff0000000000000 | random_next() >> 12
                                      : 0xffffffff3f800000 | random_next() >> 41;

    switch (random_next() % 4) {
    case 0:
        return doubles[random_next() % BASE_COUNT_OF(doubles)];
    case 1:
        return 0xffffffff00000000 | singles[random_next() % BASE_COUNT_OF(singles)];
    default:
        return near;
    }
}

// In xmm registers and not.
static unsigned random_f(void)
{
    static const uint8_t registers[] = {0, 5, 8, 10, 14, 15, 18, 31};

    return registers[random_next() % BASE_COUNT_OF(registers)];
}

static unsigned random_x(void)
{
    static const uint8_t registers[] = {5, 8, 14, 15, 28};

    return registers[random_next() % BASE_COUNT_OF(registers)];
}

// Computes, moves, compares or converts; mostly doubles.
static uint32_t random_arithmetic(void)
{
    static const uint8_t opcodes[] = {0x53, 0x53, 0x53, 0x43, 0x47, 0x4b, 0x4f};
    // Of add, sub, mul, div: much more often than of all others.
    static const uint8_t usual[] = {0x00, 0x04, 0x08, 0x0c};
    struct isa_insn insn;

    do {
        uint32_t raw = opcodes[random_next() % BASE_COUNT_OF(opcodes)] | random_f() << 15 |
                       random_f() << 20 | (one_in(4) ? 0u : 7u) << 12;
        unsigned f7 = one_in(2) ? usual[random_next() % 4] : (unsigned)random_next() % 128;

        if (one_in(3))
            raw = (raw & ~(7u << 12)) | (uint32_t)(random_next() % 4) << 12;
        if (one_in(8))
            raw = (raw & ~(31u << 20)) | (uint32_t)(random_next() % 4) << 20;
        f7 = (f7 & ~3u) | !one_in(4);
        if ((raw & 0x7f) != 0x53)
            f7 = random_f() << 2 | (f7 & 3);
        isa_decode(raw | f7 << 25, &insn);
        if (insn.op != ISA_ILLEGAL)
            isa_decode(insn.raw | (isa_op_flags(insn.op) & ISA_FRD ? random_f() : random_x()) << 7,
                       &insn);
    } while (insn.op == ISA_ILLEGAL || !(isa_op_flags(insn.op) & ISA_FP));
    return insn.raw;
}

static uint32_t random_access(void)
{
    int at = (int)(random_next() % (DATA_BYTES / 8)) * 8;
    unsigned reg = random_f();

    switch (random_next() % 8) {
    case 0:
        return flw(reg, 11, at);
    case 1:
        return fsw(reg, 11, at);
    case 2:
    case 3:
    case 4:
        return fld(reg, 11, at);
    default:
        return fsd(reg, 11, at);
    }
}

// Something that may leave the block, or calls.
static uint32_t random_exit(void)
{
    unsigned reg = random_x();

    switch (random_next() % 12) {
    case 0:
        return one_in(2) ? fld(random_f(), 0, 0) : fsd(random_f(), 0, 0);  // no memory there
    case 1:
        return sd(3, STOP_REGISTER, 0);
    case 2:
        return csrrs(reg, ISA_CSR_FCSR, 0);
    case 3:
        return csrrs(reg, ISA_CSR_FFLAGS, 0);
    case 4:
        return one_in(4) ? csrrs(reg, ISA_CSR_MSTATUS, 0) : csrrw(reg, ISA_CSR_FFLAGS, random_x());
    case 5:
        return csrrs(reg, ISA_CSR_SSTATUS, 0);
    default:
        return branch((unsigned)(random_next() % 2 + random_next() % 2 * 4), reg, random_x(), 8);
    }
}

static void put_quiet_comparison(struct guest *guest)
{
    unsigned saved = random_x();

    put(guest, csrrs(saved, ISA_CSR_FFLAGS, 0));
    put(guest, flt_d(saved == 5 ? 8 : 5, random_f(), random_f()));
    put(guest, csrrw(0, ISA_CSR_FFLAGS, saved));
}

// Short ones, if they are loops, are translated several times in a row.
static void put_sequence(struct guest *guest, unsigned exits)
{
    unsigned length = one_in(2) ? LENGTH : 1 + (unsigned)random_next() % 7;

    guest->here = CODE;
    for (unsigned i = 0; i < length; i++) {
        if (exits && one_in(exits))
            put(guest, random_exit());
        else if (one_in(24))
            put_quiet_comparison(guest);
        else
            put(guest, one_in(3) ? random_access() : random_arithmetic());
    }
    put(guest, addi(0, 0, 0));  // a branch over the last one leads behind it
    put(guest, addi(TURNS_REGISTER, TURNS_REGISTER, -1));
    if (one_in(4)) {
        put(guest, beq(TURNS_REGISTER, 0, 8));
        put(guest, jal(0, (int)(CODE - guest->here)));
    } else {
        put(guest, bne(TURNS_REGISTER, 0, (int)(CODE - guest->here)));
    }
    put_stop(guest);
}

// ---- Running

struct state {
    uint64_t pc, instret, x[32], f[32], mstatus;
    unsigned fflags, frm;
};

static struct state take(const struct hart *hart)
{
    struct state state = {.pc = hart->pc,
                          .instret = hart->instret,
                          .mstatus = hart->mstatus,
                          .fflags = hart->fflags,
                          .frm = hart->frm};

    memcpy(state.x, hart->x, sizeof(state.x));
    memcpy(state.f, hart->f, sizeof(state.f));
    return state;
}

static void give(struct hart *hart, const struct state *state)
{
    hart->pc = state->pc;
    hart->instret = state->instret;
    hart->mstatus = state->mstatus;
    hart->fflags = (uint8_t)state->fflags;
    hart->frm = (uint8_t)state->frm;
    memcpy(hart->x, state->x, sizeof(state->x));
    memcpy(hart->f, state->f, sizeof(state->f));
}

static struct state random_state(const struct hart *hart, unsigned turns)
{
    struct state state = take(hart);

    state.pc = CODE;
    state.instret = 0;
    for (unsigned i = 1; i < 32; i++)
        if (i != 3 && i != 9 && i != 10 && i != 11)
            state.x[i] = one_in(2) ? random_value() : random_next() % 32;
    for (unsigned i = 0; i < 32; i++)
        state.f[i] = random_value();
    state.x[STOP_REGISTER] = STOP_GPA;
    state.x[TURNS_REGISTER] = turns;
    state.mstatus |= HART_MSTATUS_FS;
    if (one_in(8))
        state.mstatus -= HART_MSTATUS_FS_INITIAL * (1 + random_next() % 2);
    state.fflags = one_in(2) ? 1 : (unsigned)random_next() % 32;
    state.frm = one_in(2) ? 0 : (unsigned)random_next() % 5;
    return state;
}

static void compare(unsigned sequence, const struct state *got, const struct state *want)
{
    for (unsigned i = 0; i < 32; i++)
        if (got->f[i] != want->f[i])
            fail_msg("sequence %u, pc %#lx: f%u is %#lx, not %#lx", sequence, got->pc, i, got->f[i],
                     want->f[i]);
    for (unsigned i = 0; i < 32; i++)
        if (got->x[i] != want->x[i])
            fail_msg("sequence %u, pc %#lx: x%u is %#lx, not %#lx", sequence, got->pc, i, got->x[i],
                     want->x[i]);
    assert_int_equal(got->pc, want->pc);
    assert_int_equal(got->fflags, want->fflags);
    assert_int_equal(got->mstatus, want->mstatus);
}

// Runs until nothing is left to do; what is seen wherever it stopped. Returns how often that was.
static unsigned run_translated(struct guest *guest, struct state states[STATES_MAX])
{
    unsigned count = 0;

    do {
        assert_int_equal(guest_run_hart(guest->hart, guest->hart->pc), HART_ATTENTION_STOP);
        states[count++] = take(guest->hart);
    } while (guest->hart->pc != STOP_LOOP && count < STATES_MAX);
    return count;
}

static void run_sequences(struct guest *guest, unsigned exits, unsigned turns)
{
    static uint64_t data[DATA_BYTES / 8], translated[DATA_BYTES / 8], stepped[DATA_BYTES / 8];
    static struct state states[STATES_MAX];
    unsigned stops = 0;

    for (unsigned i = 0; i < factor * SEQUENCES; i++) {
        struct state start = random_state(guest->hart, turns), now;
        unsigned count;

        put_sequence(guest, exits);
        for (unsigned j = 0; j < BASE_COUNT_OF(data); j++)
            data[j] = random_value();
        guest->hart->engine->fence_i(guest->hart, guest->hart->engine_state);
        hart_mmu_flush(guest->hart);

        assert_int_equal(memory_write(guest->memory, DATA, data, sizeof(data)), 0);
        give(guest->hart, &start);
        count = run_translated(guest, states);
        stops += count - 1;
        assert_int_equal(memory_read(guest->memory, DATA, translated, sizeof(translated)), 0);

        assert_int_equal(memory_write(guest->memory, DATA, data, sizeof(data)), 0);
        give(guest->hart, &start);
        for (unsigned j = 0; j < count; j++) {
            // A trap counts no instruction.
            while (guest->hart->pc != STOP_LOOP &&
                   (guest->hart->instret < states[j].instret ||
                    (guest->hart->instret == states[j].instret && guest->hart->pc != states[j].pc)))
                guest_step(guest);
            now = take(guest->hart);
            states[j].instret = now.instret;  // of STOP_LOOP, it goes on
            compare(i, &states[j], &now);
        }
        assert_int_equal(memory_read(guest->memory, DATA, stepped, sizeof(stepped)), 0);
        assert_memory_equal(translated, stepped, sizeof(stepped));
    }
    printf("%u sequences, %u stops on the way\n", factor * SEQUENCES, stops);
}

static void test_sequences(void **state)
{
    run_sequences(*state, 0, 1);
}

static void test_sequences_with_exits(void **state)
{
    run_sequences(*state, 6, 1);
}

static void test_loops(void **state)
{
    run_sequences(*state, 0, 9);
}

static void test_loops_with_exits(void **state)
{
    run_sequences(*state, 10, 9);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        guest_test(test_sequences),
        guest_test(test_sequences_with_exits),
        guest_test(test_loops),
        guest_test(test_loops_with_exits),
    };

    if (argc > 1)
        factor = (unsigned)strtoul(argv[1], NULL, 10);
    return cmocka_run_group_tests_name("jit: late floating point", tests, NULL, NULL);
}
