// SPDX-License-Identifier: BSD-2-Clause
// How soon an engine leaves the guest's code when the hart's attention is wanted: that is, how late
// an interrupt can be.
//
// It is counted in guest instructions, so that a busy host makes no difference: guest code counts
// its steps in x5 and stores the count; another thread asks for attention at random moments and
// then reads the count; what the guest counted beyond that by the time the engine has left, it did
// while attention was wanted. (It may have done a little more, between asking and reading.) Ten
// microseconds are LATENCY_INSNS_MAX instructions at the engine's best.
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "interp_guest.h"

#ifndef LATENCY_INSNS_MAX
#define LATENCY_INSNS_MAX 2000
#endif

#define ROUNDS 60
#define STACK (DATA + 0x100000u)  // grows down
#define HANDLER (RAM_GPA + 0x100u)
#define MRET 0x30200073u
#define MEPC 0x341

// ---- Guest code that never ends

// Counts a step.
static void put_step(struct guest *guest)
{
    put(guest, addi(5, 5, 1));
    put(guest, sd(5, 11, 0));
}

static void put_jump(struct guest *guest, uint64_t to)
{
    put(guest, jal(0, (int)(to - guest->here)));
}

static void put_small_loop(struct guest *guest)
{
    put_step(guest);
    put_jump(guest, CODE);
}

static void put_branch_loop(struct guest *guest)
{
    put_step(guest);
    put(guest, bne(9, 0, -8));
}

static void put_blocks_of_a_page(struct guest *guest)
{
    put_step(guest);
    put_jump(guest, CODE + 0x80);
    guest->here = CODE + 0x40;
    put_jump(guest, CODE);
    guest->here = CODE + 0x80;
    put_jump(guest, CODE + 0x40);
}

static void put_two_pages(struct guest *guest)
{
    put_step(guest);
    put_jump(guest, CODE + 0x1040);
    guest->here = CODE + 0x1040;
    put_jump(guest, CODE);
}

// An instruction that straddles the two pages is in the loop.
static void put_straddling_loop(struct guest *guest)
{
    guest->here = CODE + 0xff6;
    put_step(guest);
    put(guest, addi(6, 6, 1));
    put_jump(guest, CODE + 0xff6);
    guest->here = CODE;
    put_jump(guest, CODE + 0xff6);
}

static void put_indirect_jumps(struct guest *guest)
{
    put_step(guest);
    put(guest, jalr(0, 10, 0x100));
    guest->here = CODE + 0x100;
    put(guest, jalr(0, 10, 0));
}

// An indirect jump with another target each time.
static void put_changing_targets(struct guest *guest)
{
    put_step(guest);
    put(guest, i_type(0x13, 7, 6, 5, 7));  // andi x6, x5, 7
    put(guest, i_type(0x13, 1, 6, 6, 6));  // slli x6, x6, 6
    put(guest, add(6, 6, 10));
    put(guest, jalr(0, 6, 0x100));
    for (unsigned i = 0; i < 8; i++) {
        guest->here = CODE + 0x100 + 0x40 * i;
        put_jump(guest, CODE);
    }
}

static void put_calls(struct guest *guest)
{
    put_step(guest);
    put(guest, jal(1, 0x100 - 8));
    put(guest, jal(1, 0x100 - 8));
    put_jump(guest, CODE);
    guest->here = CODE + 0x100;
    put(guest, addi(6, 6, 1));
    put(guest, jalr(0, 1, 0));
}

// 20480 calls deep; then as many returns, all to one place, with no other jump in between.
static void put_recursion(struct guest *guest)
{
    const uint64_t function = CODE + 0x40;

    put(guest, addi(2, 12, 0));
    put(guest, lui(8, 0x5000));
    put(guest, jal(1, (int)(function - guest->here)));
    put_jump(guest, CODE);
    guest->here = function;
    put_step(guest);
    put(guest, addi(2, 2, -8));
    put(guest, sd(1, 2, 0));
    put(guest, addi(8, 8, -1));
    put(guest, beq(8, 0, 8));
    put(guest, jal(1, (int)(function - guest->here)));
    put_step(guest);
    put(guest, ld(1, 2, 0));
    put(guest, addi(2, 2, 8));
    put(guest, jalr(0, 1, 0));
}

// 64 KiB without a jump, again and again.
static void put_straight_line(struct guest *guest)
{
    while (guest->here < CODE + (64 << 10)) {
        put_step(guest);
        for (unsigned i = 0; i < 6; i++)
            put(guest, addi(6, 6, 1));
    }
    put_jump(guest, CODE);
}

// 128 KiB of jumps, all but the last of them forward.
static void put_forward_jumps(struct guest *guest)
{
    while (guest->here < CODE + (128 << 10)) {
        put_step(guest);
        put(guest, jal(0, 8));
        put(guest, 0);
    }
    put_jump(guest, CODE);
}

static void put_forward_branches(struct guest *guest)
{
    while (guest->here < CODE + (128 << 10)) {
        put_step(guest);
        put(guest, beq(0, 0, 8));
        put(guest, 0);
    }
    put_jump(guest, CODE);
}

static void put_handler(struct guest *guest)
{
    guest->here = HANDLER;
    put(guest, csrrs(6, MEPC, 0));
    put(guest, addi(6, 6, 4));
    put(guest, csrrw(0, MEPC, 6));
    put(guest, MRET);
}

static void put_traps(struct guest *guest)
{
    put_step(guest);
    put(guest, ECALL);
    put_jump(guest, CODE);
    put_handler(guest);
}

// What a lock is made of; the SC always fails.
static void put_reservations(struct guest *guest)
{
    put_step(guest);
    put(guest, lr_d(6, 11));
    put(guest, addi(7, 11, 64));
    put(guest, sc_d(6, 5, 7));
    put(guest, bne(6, 0, -20));
}

static void put_fences(struct guest *guest)
{
    put_step(guest);
    put(guest, FENCE_I);
    put(guest, SFENCE_VMA);
    put(guest, csrrs(6, MEPC, 0));
    put_jump(guest, CODE);
}

static const struct shape {
    const char *name;
    void (*put)(struct guest *guest);
    unsigned step_insns;  // at most, from one step to the next
} shapes[] = {
    {"loop of a few instructions", put_small_loop, 3},
    {"loop of a branch", put_branch_loop, 3},
    {"blocks of a page", put_blocks_of_a_page, 5},
    {"two pages", put_two_pages, 4},
    {"instruction that straddles pages", put_straddling_loop, 4},
    {"indirect jumps", put_indirect_jumps, 4},
    {"changing targets", put_changing_targets, 7},
    {"calls", put_calls, 9},
    {"recursion", put_recursion, 12},
    {"straight line", put_straight_line, 8},
    {"forward jumps", put_forward_jumps, 3},
    {"forward branches", put_forward_branches, 3},
    {"traps", put_traps, 8},
    {"LR and SC", put_reservations, 6},
    {"fences", put_fences, 6},
};

// ---- Counting

struct asker {
    struct guest *guest;
    atomic_uint round;     // that the runner is in, from 1
    atomic_uint answered;  // the last in which attention was asked for, and...
    uint64_t seen;         // ...the guest's count just after that
};

static void wait_for(atomic_uint *word, unsigned value)
{
    while (atomic_load(word) != value)
        sched_yield();
}

static void *ask(void *opaque)
{
    struct asker *asker = opaque;
    unsigned seed = 1;

    for (unsigned round = 1; round <= ROUNDS; round++) {
        wait_for(&asker->round, round);
        usleep(20 + (useconds_t)rand_r(&seed) % 200);
        atomic_fetch_or(&asker->guest->hart->attention, HART_ATTENTION_STOP);
        asker->seen = read_u64(asker->guest, DATA);
        atomic_store(&asker->answered, round);
    }
    return NULL;
}

// Returns the steps made while attention was wanted.
static uint64_t run_round(struct asker *asker, unsigned round)
{
    struct guest *guest = asker->guest;
    struct hart *hart = guest->hart;

    atomic_store(&hart->attention, 0);
    atomic_store(&asker->round, round);
    hart->engine->run(hart, hart->engine_state);
    wait_for(&asker->answered, round);
    return read_u64(guest, DATA) - asker->seen;
}

static void measure(const struct shape *shape)
{
    void *state;
    pthread_t thread;
    uint64_t worst = 0;

    assert_int_equal(guest_setup(&state), 0);
    struct guest *guest = state;
    struct asker asker = {.guest = guest};
    shape->put(guest);
    guest->hart->mtvec = HANDLER;
    guest->hart->x[12] = STACK;
    guest->hart->pc = CODE;
    assert_int_equal(pthread_create(&thread, NULL, ask, &asker), 0);
    for (unsigned round = 1; round <= ROUNDS; round++) {
        uint64_t late = run_round(&asker, round);

        worst = late > worst ? late : worst;
    }
    pthread_join(thread, NULL);
    printf("%-32s %10lu instructions, left at most %5lu late\n", shape->name,
           (unsigned long)guest->hart->instret, (unsigned long)(worst * shape->step_insns));
    fflush(stdout);
    assert_true(guest->hart->instret > 0);  // on a loaded machine, attention may come at once
    assert_true(worst * shape->step_insns <= LATENCY_INSNS_MAX);
    guest_teardown(&state);
}

static void test_attention_in_instructions(void **state)
{
    (void)state;
    for (size_t i = 0; i < BASE_COUNT_OF(shapes); i++)
        measure(&shapes[i]);
}

// ---- Time

struct raiser {
    struct hart *hart;
    clockid_t clock;  // of the hart's thread
    atomic_uint round;
    uint64_t raised_ns;
};

static uint64_t now_ns(clockid_t clock)
{
    struct timespec now;

    assert_int_equal(clock_gettime(clock, &now), 0);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void *raise_later(void *opaque)
{
    struct raiser *raiser = opaque;

    for (unsigned round = 1; round <= ROUNDS; round++) {
        wait_for(&raiser->round, round);
        usleep(100);
        raiser->raised_ns = now_ns(raiser->clock);
        hart_set_lines(raiser->hart, HART_IRQ_MSIP, true);
    }
    return NULL;
}

static int by_value(const void *a, const void *b)
{
    uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;

    return left < right ? -1 : left > right;
}

// From an interrupt's being raised by another thread until its handler, in a loop of one
// instruction, has told a device; in CPU time of the hart's thread, since a busy host may give it
// the next slice of its time when it likes.
static void test_interrupt_in_time(void **state)
{
    struct guest *guest = *state;
    struct hart *hart = guest->hart;
    struct raiser raiser = {.hart = hart};
    uint64_t late_ns[ROUNDS];
    pthread_t thread;

    assert_int_equal(pthread_getcpuclockid(pthread_self(), &raiser.clock), 0);
    put(guest, jal(0, 0));
    hart->mie = HART_IRQ_MSIP;
    assert_int_equal(hart_start(hart, CODE, 0, 0), 0);
    assert_int_equal(pthread_create(&thread, NULL, raise_later, &raiser), 0);
    for (unsigned round = 1; round <= ROUNDS; round++) {
        hart->pc = CODE;
        hart->mstatus |= HART_MSTATUS_MIE;
        atomic_store(&raiser.round, round);
        // The handler is at STOP_CODE.
        assert_int_equal(hart_run(hart), HART_EXIT_STOPPED);
        late_ns[round - 1] = now_ns(raiser.clock) - raiser.raised_ns;
        assert_int_equal(hart->mcause, HART_CAUSE_INTERRUPT | 3);
        hart_set_lines(hart, HART_IRQ_MSIP, false);
    }
    pthread_join(thread, NULL);
    qsort(late_ns, ROUNDS, sizeof(late_ns[0]), by_value);
    printf("from an interrupt to its handler's end: best %lu ns, median %lu ns, worst %lu ns\n",
           (unsigned long)late_ns[0], (unsigned long)late_ns[ROUNDS / 2],
           (unsigned long)late_ns[ROUNDS - 1]);
    assert_true(late_ns[ROUNDS / 2] < 1000000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_attention_in_instructions),
        guest_test(test_interrupt_in_time),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
