// SPDX-License-Identifier: BSD-2-Clause
// Integer instructions, translated, against the interpreter: random sequences in which an
// instruction often goes on with the result of the one before it, as those do that are translated
// as one.
#include <stdio.h>

#include "jit/jit.h"

#define GUEST_ENGINE hart_engine_jit
#include "interp_guest.h"

#define SEQUENCES 4000
#define LENGTH 24
#define TURNS_REGISTER 12  // counts the turns of a sequence; none of random_register()'s

static uint64_t seed = 1;

static uint64_t random_next(void)
{
    seed = seed * 6364136223846793005 + 1442695040888963407;
    return seed >> 29 ^ seed << 35;
}

static uint64_t random_value(void)
{
    static const uint64_t edges[] = {
        0,          1,          UINT64_MAX,         INT64_MAX,
        1ull << 63, 0x80000000, 0xffffffff7fffffff, 0x00ff008000010000};

    return random_next() % 3 ? random_next() >> random_next() % 64
                             : edges[random_next() % BASE_COUNT_OF(edges)];
}

// Pinned registers and others, and x0. Not those that the guest's way to stop needs.
static unsigned random_register(void)
{
    static const uint8_t registers[] = {0, 1, 2, 5, 8, 10, 14, 15, 18, 28, 31};

    return registers[random_next() % BASE_COUNT_OF(registers)];
}

static bool computes(const struct isa_insn *insn)
{
    const unsigned others = ISA_BRANCH | ISA_JUMP | ISA_LOAD | ISA_STORE | ISA_SYSTEM | ISA_FP;

    return insn->op != ISA_ILLEGAL && !(isa_op_flags(insn->op) & others) &&
           isa_op_flags(insn->op) & ISA_RD;
}

// An instruction that computes; `from` is often what it reads and writes.
static struct isa_insn random_insn(unsigned from)
{
    static const uint8_t opcodes[] = {0x13, 0x13, 0x1b, 0x33, 0x33, 0x3b, 0x37, 0x17};
    struct isa_insn insn;

    do {
        bool follows = random_next() % 2;
        unsigned rd = follows ? from : random_register();
        unsigned rs1 = follows ? from : random_register();
        uint32_t raw = (uint32_t)random_next();

        if (random_next() % 4)  // no funct7, as most
            raw = (raw & 0x7000) | random_register() << 20;
        if (random_next() % 4 == 0)  // shifts by what extensions shift by
            raw = (raw & 0x40007000) | (random_next() % 2 ? 32u : 48u) << 20;
        raw = (raw & 0xfff07000) | opcodes[random_next() % BASE_COUNT_OF(opcodes)] | rd << 7 |
              rs1 << 15;
        isa_decode(raw, &insn);
    } while (!computes(&insn));
    return insn;
}

static void set_registers(struct guest *guest, const uint64_t *values)
{
    for (unsigned i = 1; i < 32; i++)
        if (i != 3 && i != 9 && i != 11)
            guest->hart->x[i] = values[i];
}

// Something that may leave the sequence, or calls while it is under way: a branch over an
// instruction, a load or store that the TLB has not seen yet, or one that traps.
static uint32_t random_exit(void)
{
    unsigned reg = random_register(), at = random_next() % 255 * 4;

    switch (random_next() % 16) {
    case 0:
        return ld(reg, 0, 0);  // no memory there
    case 1:
    case 2:
    case 3:
        return sw(reg, 11, 1024 + at);  // where nobody loads
    case 4:
    case 5:
    case 6:
        return lw(reg, 11, at);
    case 7:
    case 8:
        return ld(reg, 11, at);
    default:
        return branch((unsigned)(random_next() % 2 + random_next() % 2 * 4), reg, random_register(),
                      8);
    }
}

// Puts a sequence down; returns how many of its instructions go on with what the one before left.
static unsigned put_sequence(struct guest *guest, unsigned exits, unsigned length)
{
    unsigned from = 5, pairs = 0;

    guest->here = CODE;
    for (unsigned i = 0; i < length; i++) {
        struct isa_insn insn;

        if (exits && random_next() % exits == 0) {
            put(guest, random_exit());
            continue;
        }
        insn = random_insn(from);
        pairs += i && insn.rs1 == from && insn.rd == from;
        from = insn.rd;
        put(guest, insn.raw);
    }
    put(guest, addi(0, 0, 0));  // a branch over the last one leads behind it
    put(guest, addi(TURNS_REGISTER, TURNS_REGISTER, -1));
    put(guest, bne(TURNS_REGISTER, 0, (int)(CODE - guest->here)));
    put_stop(guest);
    return pairs;
}

static void run_sequences(struct guest *guest, unsigned exits, unsigned turns, unsigned length)
{
    unsigned pairs = 0;

    for (unsigned i = 0; i < SEQUENCES; i++) {
        uint64_t values[32], translated[32], instret;

        pairs += put_sequence(guest, exits, length);
        for (unsigned j = 0; j < 32; j++)
            values[j] = random_value();
        values[TURNS_REGISTER] = turns;
        guest->hart->engine->fence_i(guest->hart, guest->hart->engine_state);
        hart_mmu_flush(guest->hart);
        set_registers(guest, values);
        guest->hart->instret = 0;
        guest_run(guest, CODE);
        instret = guest->hart->instret - STOP_INSNS;
        memcpy(translated, guest->hart->x, sizeof(translated));

        set_registers(guest, values);
        guest->hart->pc = CODE;
        guest->hart->instret = 0;
        while (guest->hart->pc != STOP_CODE)
            guest_step(guest);
        assert_int_equal(instret, guest->hart->instret);
        for (unsigned j = 0; j < 32; j++)
            if (j != 4 && translated[j] != guest->hart->x[j])
                fail_msg("sequence %u: x%u is %#lx, not %#lx", i, j, (unsigned long)translated[j],
                         (unsigned long)guest->hart->x[j]);
    }
    printf("%u instructions, %u on the result of the one before\n", SEQUENCES * length, pairs);
}

static void test_sequences(void **state)
{
    run_sequences(*state, 0, 1, LENGTH);
}

// Whatever leaves a block must find all registers as they are to be then.
static void test_sequences_with_exits(void **state)
{
    run_sequences(*state, 6, 1, LENGTH);
}

// A block that is a loop has registers of its own.
static void test_loops(void **state)
{
    run_sequences(*state, 0, 3, LENGTH);
}

static void test_loops_with_exits(void **state)
{
    run_sequences(*state, 8, 3, LENGTH);
}

// A short one is translated several times in a row.
static void test_short_loops(void **state)
{
    run_sequences(*state, 8, 11, 2);
    run_sequences(*state, 8, 11, 5);
    run_sequences(*state, 8, 11, 7);
}

// Words are rotated by two shifts and something that joins them, and the parts are looked at or
// not.
static void test_rotations(void **state)
{
    static const uint32_t joins[] = {0x00006033, 0x00004033, 0x00000033, 0x0000003b, 0x00007033};
    struct guest *guest = *state;
    unsigned count = 0;

    for (unsigned i = 0; i < 64 * BASE_COUNT_OF(joins); i++)
        for (unsigned word = 0; word < 2; word++) {
            unsigned left = i % 64, bits = word ? 32 : 64, right = (bits - left) % bits;
            unsigned a = random_register() | 1, b = a ^ 12, from = 14, to = random_register();
            uint32_t opcode = word ? 0x1b : 0x13;
            uint64_t values[32], translated[32];

            if (left >= bits || a == 9 || b == 9 || a == 3 || b == 3 || a == 11 || b == 11)
                continue;
            put_at(guest, CODE, i_type(opcode, 1, a, from, (int)left));
            put(guest, i_type(opcode, 5, b, from, (int)right));
            put(guest, joins[i / 64] | to << 7 | a << 15 | b << 20);
            if (i % 3 == 0)
                put(guest, add(from, a, b));
            put(guest, joins[i / 64] | 28u << 7 | to << 15 | to << 20);
            put_stop(guest);
            for (unsigned j = 0; j < 32; j++)
                values[j] = random_value();
            guest->hart->engine->fence_i(guest->hart, guest->hart->engine_state);
            set_registers(guest, values);
            guest_run(guest, CODE);
            memcpy(translated, guest->hart->x, sizeof(translated));
            set_registers(guest, values);
            guest->hart->pc = CODE;
            while (guest->hart->pc != STOP_CODE)
                guest_step(guest);
            guest->hart->x[4] = translated[4];
            assert_memory_equal(translated, guest->hart->x, sizeof(translated));
            count++;
        }
    printf("%u rotations\n", count);
    assert_true(count > 100);
}

// Each pair that is translated as one, over all kinds of registers.
static void test_pairs(void **state)
{
    static const struct {
        const char *what;
        uint32_t first, second;  // without registers; the second's rs2 is x18
        bool upper;
    } pairs[] = {
        {"lui, addi", 0x7ffff037, 0x7ff00013, true},
        {"lui, addiw", 0x7ffff037, 0x7ff0001b, true},
        {"lui, addiw", 0x80000037, 0xfff0001b, true},
        {"auipc, addi", 0x7ffff017, 0x7ff00013, true},
        {"auipc, addi", 0x80000017, 0x80000013, true},
        {"slli 32, srli 32", 0x02001013, 0x02005013, false},
        {"slli 32, srli 29", 0x02001013, 0x01d05013, false},
        {"slli 32, srli 33", 0x02001013, 0x02105013, false},
        {"slli 48, srli 48", 0x03001013, 0x03005013, false},
        {"slli 56, srli 56", 0x03801013, 0x03805013, false},
        {"slli 32, srai 32", 0x02001013, 0x42005013, false},
        {"slli 48, srai 48", 0x03001013, 0x43005013, false},
        {"slli 56, srai 56", 0x03801013, 0x43805013, false},
        {"slli 1, add", 0x00101013, 0x01200033, false},
        {"slli 3, add", 0x00301013, 0x01200033, false},
        {"slli 4, add", 0x00401013, 0x01200033, false},
    };
    static const uint8_t registers[] = {5, 10, 14, 18};
    struct guest *guest = *state;

    for (unsigned i = 0; i < BASE_COUNT_OF(pairs); i++)
        for (unsigned rd = 0; rd < BASE_COUNT_OF(registers); rd++)
            for (unsigned rs1 = 0; rs1 < BASE_COUNT_OF(registers); rs1++) {
                uint32_t to = registers[rd], from = pairs[i].upper ? 0 : registers[rs1];
                uint64_t values[32], result;

                put_at(guest, CODE, pairs[i].first | to << 7 | from << 15);
                put(guest, pairs[i].second | to << 7 | to << 15);
                put_stop(guest);
                for (unsigned j = 0; j < 32; j++)
                    values[j] = random_value();
                guest->hart->engine->fence_i(guest->hart, guest->hart->engine_state);
                set_registers(guest, values);
                guest_run(guest, CODE);
                result = guest->hart->x[to];
                set_registers(guest, values);
                guest->hart->pc = CODE;
                guest_step(guest);
                guest_step(guest);
                if (result != guest->hart->x[to])
                    fail_msg("%s: x%u is %#lx, not %#lx", pairs[i].what, to, (unsigned long)result,
                             (unsigned long)guest->hart->x[to]);
            }
    printf("%zu pairs, each with 16 choices of registers\n", BASE_COUNT_OF(pairs));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        guest_test(test_sequences),   guest_test(test_sequences_with_exits),
        guest_test(test_loops),       guest_test(test_loops_with_exits),
        guest_test(test_short_loops), guest_test(test_rotations),
        guest_test(test_pairs),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
