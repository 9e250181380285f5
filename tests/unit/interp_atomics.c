// SPDX-License-Identifier: BSD-2-Clause
// LR/SC, AMOs and fences: on one hart, and of two harts against each other.
#include <pthread.h>

#include "interp_guest.h"

// ---- One hart

static void run_code(struct guest *guest, const uint32_t *insns, unsigned count)
{
    guest->here = CODE;
    for (unsigned i = 0; i < count; i++)
        put(guest, insns[i]);
    put_stop(guest);
    guest->hart->engine->fence_i(guest->hart, guest->interp);
    guest_run(guest, CODE);
}

#define RUN(guest, ...)                                                                            \
    do {                                                                                           \
        const uint32_t insns[] = {__VA_ARGS__};                                                    \
        run_code(guest, insns, BASE_COUNT_OF(insns));                                              \
    } while (0)

static void test_sc_after_lr(void **state)
{
    struct guest *guest = *state;
    struct hart *hart = guest->hart;

    write_u64(guest, DATA, 0x8000000012345678);
    hart->x[6] = 77;
    RUN(guest, lr_d(7, 11), sc_d(8, 6, 11), sc_d(12, 6, 11));
    assert_int_equal(hart->x[7], 0x8000000012345678);
    assert_int_equal(hart->x[8], 0);
    assert_int_equal(hart->x[12], 1);  // the reservation is used up
    assert_int_equal(read_u64(guest, DATA), 77);

    // A word is sign-extended, and only it is written.
    write_u64(guest, DATA, 0x11111111fffffffe);
    RUN(guest, lr_w(7, 11), sc_w(8, 6, 11));
    assert_int_equal(hart->x[7], UINT64_MAX - 1);
    assert_int_equal(hart->x[8], 0);
    assert_int_equal(read_u64(guest, DATA), 0x111111110000004d);
}

static void test_sc_fails(void **state)
{
    struct guest *guest = *state;
    struct hart *hart = guest->hart;

    write_u64(guest, DATA, 5);
    write_u64(guest, DATA + 8, 6);
    hart->x[6] = 77;
    hart->x[13] = DATA + 8;
    RUN(guest, sc_d(8, 6, 11));  // without a reservation
    assert_int_equal(hart->x[8], 1);
    RUN(guest, lr_d(7, 11), sc_d(8, 6, 13), sc_d(12, 6, 11));  // elsewhere, which takes it away
    assert_int_equal(hart->x[8], 1);
    assert_int_equal(hart->x[12], 1);
    RUN(guest, lr_d(7, 11), sd(13, 11, 0), sc_d(8, 6, 11));  // after a store
    assert_int_equal(hart->x[8], 1);
    RUN(guest, lr_d(7, 13), lr_d(7, 11), sc_d(8, 6, 13));  // of the reservation before
    assert_int_equal(hart->x[8], 1);
    assert_int_equal(read_u64(guest, DATA), DATA + 8);
    assert_int_equal(read_u64(guest, DATA + 8), 6);
}

// Another hart's store between LR and SC.
static void test_sc_fails_after_anothers_store(void **state)
{
    struct guest *guest = *state;
    struct hart *hart = guest->hart;

    write_u64(guest, DATA, 5);
    hart->x[6] = 77;
    RUN(guest, lr_d(7, 11));
    write_u64(guest, DATA, 6);
    RUN(guest, sc_d(8, 6, 11));
    assert_int_equal(hart->x[8], 1);
    assert_int_equal(read_u64(guest, DATA), 6);
}

struct amo_case {
    const char *name;
    unsigned f5;
    uint64_t memory, operand, word, doubleword;  // the last two: memory afterwards
};

static void test_amo_results(void **state)
{
    static const struct amo_case cases[] = {
        {"swap", 1, 0x1111111180000000, 0x2222222200000001, 0x1111111100000001, 0x2222222200000001},
        {"add", 0, 0x1111111180000001, 0x22222222ffffffff, 0x1111111180000000, 0x3333333480000000},
        {"xor", 4, 0x1111111180000001, 0x22222222ffffffff, 0x111111117ffffffe, 0x333333337ffffffe},
        {"and", 12, 0x3333333380000001, 0x22222222ffffffff, 0x3333333380000001, 0x2222222280000001},
        {"or", 8, 0x1111111180000001, 0x222222220000ffff, 0x111111118000ffff, 0x333333338000ffff},
        {"min", 16, 0x1111111180000000, 0x8000000000000001, 0x1111111180000000, 0x8000000000000001},
        {"max", 20, 0x1111111180000000, 0x8000000000000001, 0x1111111100000001, 0x1111111180000000},
        {"minu", 24, 0x1111111180000000, 0x8000000000000001, 0x1111111100000001,
         0x1111111180000000},
        {"maxu", 28, 0x1111111180000000, 0x8000000000000001, 0x1111111180000000,
         0x8000000000000001},
    };
    struct guest *guest = *state;
    struct hart *hart = guest->hart;

    for (unsigned i = 0; i < BASE_COUNT_OF(cases); i++) {
        const struct amo_case *c = &cases[i];

        print_message("amo%s\n", c->name);
        for (unsigned width = 2; width <= 3; width++) {
            write_u64(guest, DATA, c->memory);
            hart->x[6] = c->operand;
            RUN(guest, amo(c->f5, width, 7, 11, 6));
            assert_int_equal(hart->x[7], width == 2 ? (uint64_t)(int32_t)c->memory : c->memory);
            assert_int_equal(read_u64(guest, DATA), width == 2 ? c->word : c->doubleword);
        }
    }
}

// The destination may be the address or the operand.
static void test_amo_register_overlap(void **state)
{
    struct guest *guest = *state;

    write_u64(guest, DATA, 5);
    guest->hart->x[6] = 7;
    RUN(guest, amo(0u, 3, 6, 11, 6));
    assert_int_equal(guest->hart->x[6], 5);
    assert_int_equal(read_u64(guest, DATA), 12);
    RUN(guest, amo(0u, 3, 11, 11, 6));
    assert_int_equal(guest->hart->x[11], 12);
    assert_int_equal(read_u64(guest, DATA), 17);
}

// ---- Two harts

struct runner {
    struct hart *hart;
    uint64_t pc;
    pthread_barrier_t *barrier;
};

static void *run_thread(void *opaque)
{
    struct runner *runner = opaque;

    pthread_barrier_wait(runner->barrier);
    guest_run_hart(runner->hart, runner->pc);
    return NULL;
}

// Both harts run the code, from `pc` and from `other_pc`, until each has stopped itself.
static void run_both(struct guest *guest, uint64_t pc, uint64_t other_pc)
{
    pthread_barrier_t barrier;
    struct runner runners[GUEST_HARTS] = {{guest->harts[0], pc, &barrier},
                                          {guest->harts[1], other_pc, &barrier}};
    pthread_t threads[GUEST_HARTS];

    pthread_barrier_init(&barrier, NULL, GUEST_HARTS);
    for (unsigned i = 0; i < GUEST_HARTS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, run_thread, &runners[i]), 0);
    for (unsigned i = 0; i < GUEST_HARTS; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(guest->harts[i]->pc, STOP_LOOP);
    }
    pthread_barrier_destroy(&barrier);
}

#define ROUNDS 300000

static void test_increments_are_not_lost(void **state)
{
    struct guest *guest = *state;

    for (unsigned i = 0; i < GUEST_HARTS; i++) {
        guest->harts[i]->x[6] = 1;
        guest->harts[i]->x[5] = ROUNDS;
        guest->harts[i]->x[13] = DATA + 64;
    }
    put(guest, amo(0u, 3, 0, 11, 6));  // +0
    put(guest, lr_w(7, 13));           // +4
    put(guest, addi(7, 7, 1));         // +8
    put(guest, sc_w(8, 7, 13));        // +12
    put(guest, bne(8, 0, -12));        // +16
    put(guest, addi(5, 5, -1));        // +20
    put(guest, bne(5, 0, -24));        // +24
    put_stop(guest);
    run_both(guest, CODE, CODE);
    assert_int_equal(read_u64(guest, DATA), GUEST_HARTS * ROUNDS);
    assert_int_equal(read_u64(guest, DATA + 64), GUEST_HARTS * ROUNDS);
}

// Each hart stores to a word of its own and then loads the other's. x86 would let both load the old
// value; the fence forbids it. Each round has its own words, and starts when both harts have
// arrived in it (or one of them has waited long enough: they may share a processor).
#define LITMUS_ROUNDS 16384
#define LITMUS_BYTES (LITMUS_ROUNDS * 8)

static void put_litmus(struct guest *guest, uint32_t fence)
{
    // x12 the own words, x13 the other's, x14 what was loaded, x15 the own arrivals, x16 the
    // other's, x6 = 1, x5 the round, x8 the last one.
    put(guest, sd(5, 15, 0));
    put(guest, addi(18, 0, 500));
    put(guest, ld(17, 16, 0));
    put(guest, branch(7, 17, 5, 12));  // bgeu: the other one is there
    put(guest, addi(18, 18, -1));
    put(guest, bne(18, 0, -12));
    put(guest, sd(6, 12, 0));
    put(guest, fence);
    put(guest, ld(7, 13, 0));
    put(guest, sd(7, 14, 0));
    for (unsigned reg = 12; reg <= 14; reg++)
        put(guest, addi(reg, reg, 8));
    put(guest, addi(5, 5, 1));
    put(guest, bne(5, 8, -56));
    put_stop(guest);
}

static unsigned litmus_failures(struct guest *guest)
{
    const uint64_t words[] = {DATA, DATA + LITMUS_BYTES};
    const uint64_t loaded[] = {DATA + 2 * LITMUS_BYTES, DATA + 3 * LITMUS_BYTES};
    const uint64_t arrivals[] = {DATA + 4 * LITMUS_BYTES, DATA + 4 * LITMUS_BYTES + 64};
    unsigned failures = 0;

    for (uint64_t gpa = DATA; gpa <= arrivals[1]; gpa += 8)
        write_u64(guest, gpa, 0);
    for (unsigned i = 0; i < GUEST_HARTS; i++) {
        struct hart *hart = guest->harts[i];

        hart->x[5] = hart->x[6] = 1;
        hart->x[8] = LITMUS_ROUNDS + 1;
        hart->x[12] = words[i];
        hart->x[13] = words[!i];
        hart->x[14] = loaded[i];
        hart->x[15] = arrivals[i];
        hart->x[16] = arrivals[!i];
    }
    run_both(guest, CODE, CODE);
    for (uint64_t offset = 0; offset < LITMUS_BYTES; offset += 8)
        failures += !read_u64(guest, loaded[0] + offset) && !read_u64(guest, loaded[1] + offset);
    return failures;
}

static void test_fence_orders_store_before_load(void **state)
{
    struct guest *guest = *state;
    unsigned failures = 0;

    put_litmus(guest, FENCE_RW_RW);
    for (unsigned i = 0; i < 30; i++)
        failures += litmus_failures(guest);
    assert_int_equal(failures, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        guest_test(test_sc_after_lr),
        guest_test(test_sc_fails),
        guest_test(test_sc_fails_after_anothers_store),
        guest_test(test_amo_results),
        guest_test(test_amo_register_overlap),
        guest_test(test_increments_are_not_lost),
        guest_test(test_fence_orders_store_before_load),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
