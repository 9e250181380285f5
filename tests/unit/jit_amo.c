// SPDX-License-Identifier: BSD-2-Clause
// LR, SC and AMOs, translated, against the interpreter: random sequences on a few words, with
// registers that alias, now and then misaligned.
#include <stdio.h>

#include "jit/jit.h"

#define GUEST_ENGINE hart_engine_jit
#include "interp_guest.h"

#define SEQUENCES 20000
#define LENGTH 12
#define WORDS 4u
#define STEPS_MAX 100

static uint64_t seed = 1;

static uint64_t random_below(uint64_t bound)
{
    seed = seed * 6364136223846793005 + 1442695040888963407;
    return (seed >> 29 ^ seed << 35) % bound;
}

// Addresses are in x11 to x13 (pinned) and x28, x29; what others hold is data.
static unsigned random_address(void)
{
    static const uint8_t registers[] = {11, 12, 13, 28, 29};

    return registers[random_below(BASE_COUNT_OF(registers))];
}

static unsigned random_register(void)
{
    static const uint8_t registers[] = {0, 1, 5, 8, 10, 14, 15, 18, 31};

    return random_below(32) ? registers[random_below(BASE_COUNT_OF(registers))] : random_address();
}

static uint64_t random_value(void)
{
    static const uint64_t edges[] = {0, 1, UINT64_MAX, INT64_MAX, 1ull << 63, 0xc0000000};

    return random_below(2) ? edges[random_below(BASE_COUNT_OF(edges))]
                           : random_below(UINT64_MAX) >> random_below(64);
}

static uint32_t random_insn(void)
{
    static const uint8_t operations[] = {2, 2, 3, 3, 1, 0, 4, 0x0c, 0x08, 0x10, 0x14, 0x18, 0x1c};
    unsigned f5 = operations[random_below(BASE_COUNT_OF(operations))];
    unsigned rs2 = f5 == 2 ? 0 : random_register(), width = 2 + (unsigned)random_below(2);

    return amo(f5, width, random_register(), random_address(), rs2) | (uint32_t)random_below(4)
                                                                          << 25;
}

static void set_state(struct guest *guest)
{
    struct hart *hart = guest->hart;

    guest_reset_hart(hart);
    for (unsigned i = 1; i < 32; i++)
        if (i != 3 && i != 9)
            hart->x[i] = random_value();
    for (unsigned i = 0; i < WORDS; i++)
        write_u64(guest, DATA + 8 * i, random_value());
    for (unsigned i = 0; i < 5; i++)
        hart->x[i < 3 ? 11 + i : 25 + i] =
            DATA + 8 * random_below(WORDS) + (random_below(32) ? 0 : 4 * random_below(2) + 1);
}

static void test_sequences(void **state)
{
    static struct hart want;
    struct guest *guest = *state;
    struct hart *hart = guest->hart;
    unsigned trapped = 0;

    for (unsigned n = 0; n < SEQUENCES; n++) {
        uint64_t before, memory[WORDS];

        guest_put_stop_code(guest);  // which the sequence before may have hit
        guest->here = CODE;
        for (unsigned i = 0; i < LENGTH; i++)
            put(guest, random_insn());
        put_stop(guest);
        hart->engine->fence_i(hart, hart->engine_state);

        before = seed;
        set_state(guest);
        hart->pc = CODE;
        atomic_store(&hart->attention, 0);
        for (unsigned i = 0; i < STEPS_MAX && !atomic_load(&hart->attention); i++)
            hart->engine->step(hart, hart->engine_state);
        if (!atomic_load(&hart->attention))  // it has spoilt the way to the end
            continue;
        want = *hart;
        for (unsigned i = 0; i < WORDS; i++)
            memory[i] = read_u64(guest, DATA + 8 * i);

        seed = before;
        set_state(guest);
        guest_run_hart(hart, CODE);
        for (unsigned i = 0; i < WORDS; i++)
            assert_int_equal(memory[i], read_u64(guest, DATA + 8 * i));
        assert_memory_equal(want.x, hart->x, sizeof(want.x));
        assert_int_equal(want.reservation_gpa, hart->reservation_gpa);
        assert_int_equal(want.reservation_value, hart->reservation_value);
        assert_int_equal(want.mepc, hart->mepc);
        assert_int_equal(want.mcause, hart->mcause);
        trapped += hart->mcause != 0;
    }
    printf("%u sequences agree, %u trapped\n", SEQUENCES, trapped);
    assert_in_range(trapped, SEQUENCES / 20, SEQUENCES / 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {guest_test(test_sequences)};

    return cmocka_run_group_tests_name("jit: atomics", tests, NULL, NULL);
}
