// SPDX-License-Identifier: BSD-2-Clause
// Translated blocks: chaining, pages, coherence with memory, the bound of code memory, attention.
#include <stdio.h>
#include <time.h>

#include "jit/jit.h"

static struct hart_engine engine;  // the translator with the smallest code memory
static const struct jit_options smallest = {.code_bytes = JIT_CODE_BYTES_MIN};
#define GUEST_ENGINE engine
#include "interp_guest.h"

static struct jit_stats stats_of(struct guest *guest)
{
    struct jit_stats stats;

    jit_stats(guest->hart->engine_state, &stats);
    return stats;
}

static unsigned run_x5(struct guest *guest, uint64_t pc)
{
    guest->hart->x[5] = 0;
    guest_run(guest, pc);
    return (unsigned)guest->hart->x[5];
}

// ---- Chaining

// Two blocks of a page that jump to each other leave to the dispatcher only until they are linked.
static void test_near_jumps_are_linked(void **state)
{
    struct guest *guest = *state;

    put(guest, lui(7, 0x10000));
    put(guest, jal(0, 8));
    put_stop(guest);
    put(guest, addi(5, 5, 1));
    put(guest, jal(0, 8));
    put(guest, addi(5, 5, 64));
    put(guest, addi(7, 7, -1));
    put(guest, bne(7, 0, -16));
    put(guest, jal(0, -24));
    assert_int_equal(run_x5(guest, CODE), 0x10000);
    assert_true(stats_of(guest).links >= 3);
    assert_true(stats_of(guest).dispatches < 20);
    printf("65536 rounds through two blocks: %lu dispatches\n",
           (unsigned long)stats_of(guest).dispatches);
}

// Calls to another page and back go through the jump cache.
static void test_far_jumps_are_cached(void **state)
{
    struct guest *guest = *state;

    put_at(guest, CODE + 0x2000, addi(5, 5, 1));
    put(guest, jalr(0, 1, 0));
    put_at(guest, CODE, lui(7, 0x1000));
    put(guest, lui(6, 0x2000));
    put(guest, add(6, 6, 10));
    put(guest, jalr(1, 6, 0));
    put(guest, addi(7, 7, -1));
    put(guest, bne(7, 0, -8));
    put_stop(guest);
    assert_int_equal(run_x5(guest, CODE), 0x1000);
    assert_true(stats_of(guest).dispatches < 20);
    hart_mmu_flush(guest->hart);
    assert_int_equal(run_x5(guest, CODE), 0x1000);
    assert_true(stats_of(guest).dispatches < 40);
}

// An instruction in two pages, in a loop: neither half is linked to, both are found.
static void test_straddling_instruction(void **state)
{
    struct guest *guest = *state;
    const uint64_t end = CODE + 0x1000;

    put_at(guest, CODE, lui(7, 0x1000));
    put(guest, jal(0, (int)(end - 6 - (CODE + 4))));
    guest->here = end - 6;
    put(guest, addi(6, 6, 3));
    put(guest, addi(5, 5, 1));
    put(guest, auipc(8, 0));
    put(guest, addi(7, 7, -1));
    put(guest, bne(7, 0, -16));
    put_stop(guest);
    guest->hart->x[6] = guest->hart->instret = 0;
    assert_int_equal(run_x5(guest, CODE), 0x1000);
    assert_int_equal(guest->hart->x[6], 3 * 0x1000);
    assert_int_equal(guest->hart->x[8], end + 2);
    assert_int_equal(guest->hart->instret, 2 + 5 * 0x1000 + 1 + STOP_INSNS);
    assert_true(stats_of(guest).dispatches < 20);
    // Its second half is code of the second page, and watched like the first.
    put_at(guest, end - 2, addi(5, 5, 2));
    assert_int_equal(run_x5(guest, CODE), 0x1000);
    guest->hart->engine->fence_i(guest->hart, guest->hart->engine_state);
    assert_int_equal(run_x5(guest, CODE), 0x2000);
}

// auipc and links are right wherever a block is executed: blocks are shared by all virtual pages.
static void test_pc_relative(void **state)
{
    struct guest *guest = *state;

    put_at(guest, CODE + 0x7fc, auipc(5, 0x80000000));
    put(guest, jal(6, 8));
    put_stop(guest);
    put(guest, jalr(8, 6, 0));
    guest_run(guest, CODE + 0x7fc);
    assert_int_equal(guest->hart->x[5], CODE + 0x7fc + (uint64_t)INT32_MIN);
    assert_int_equal(guest->hart->x[6], CODE + 0x804);
    assert_int_equal(guest->hart->x[8], CODE + 0x80c);
}

// ---- Coherence

static void test_own_stores_show_at_fence_i(void **state)
{
    struct guest *guest = *state;
    const uint64_t fence = CODE + 0x800;

    put_at(guest, CODE + 0x400, addi(5, 5, 1));
    put(guest, jalr(0, 1, 0));
    put_at(guest, fence, sw(6, 10, 0x400));
    put(guest, FENCE_I);
    put(guest, jalr(1, 10, 0x400));
    put(guest, jal(1, 0x400 - 0x80c));
    put_stop(guest);
    for (int round = 1; round < 100; round++) {
        guest->hart->x[6] = addi(5, 5, round);
        assert_int_equal(run_x5(guest, fence), 2 * round);
    }
}

// A loop that is chained to itself rewrites its own first instruction each round.
static void test_fence_i_within_a_loop(void **state)
{
    struct guest *guest = *state;

    put(guest, addi(7, 0, 50));
    put(guest, addi(5, 5, 1));
    put(guest, sw(6, 10, 4));
    put(guest, FENCE_I);
    put(guest, addi(7, 7, -1));
    put(guest, bne(7, 0, -16));
    put_stop(guest);
    guest->hart->x[6] = addi(5, 5, 2);
    assert_int_equal(run_x5(guest, CODE), 1 + 2 * 49);
}

// Blocks that did not change are not translated again, and old links to one that did are mended.
static void test_links_to_replaced_blocks(void **state)
{
    struct guest *guest = *state;
    uint64_t translations, dispatches;

    put(guest, lui(7, 0x1000));
    put(guest, jal(0, 0x100));
    put_at(guest, CODE + 0x104, addi(5, 5, 1));
    put(guest, jal(0, 0x100));
    put_at(guest, CODE + 0x208, addi(7, 7, -1));
    put(guest, bne(7, 0, -0x108));
    put_stop(guest);
    assert_int_equal(run_x5(guest, CODE), 0x1000);
    guest->hart->engine->fence_i(guest->hart, guest->hart->engine_state);
    translations = stats_of(guest).translations;
    assert_int_equal(run_x5(guest, CODE), 0x1000);
    assert_int_equal(stats_of(guest).translations, translations);

    put_at(guest, CODE + 0x104, addi(5, 5, 2));
    guest->hart->engine->fence_i(guest->hart, guest->hart->engine_state);
    dispatches = stats_of(guest).dispatches;
    assert_int_equal(run_x5(guest, CODE), 0x2000);
    assert_int_equal(stats_of(guest).translations, translations + 1);
    assert_true(stats_of(guest).dispatches < dispatches + 20);
}

// ---- Code memory

// More code than fits, twice over: all of it is executed right, and memory stays within its bound.
static void test_code_memory_overflow(void **state)
{
    struct guest *guest = *state;
    const unsigned blocks = 20000;

    put_at(guest, CODE, jal(0, 4));
    for (unsigned i = 0; i < blocks; i++) {
        put(guest, addi(5, 5, 1));
        put(guest, ld(6, 11, 8 * (int)(i % 64)));
        put(guest, jal(0, 4));
    }
    put_stop(guest);
    for (unsigned round = 0; round < 2; round++) {
        assert_int_equal(run_x5(guest, CODE), blocks);
        assert_true(stats_of(guest).code_bytes <= JIT_CODE_BYTES_MIN);
    }
    assert_true(stats_of(guest).drops > 20);
    printf("%lu translations, everything dropped %lu times\n",
           (unsigned long)stats_of(guest).translations, (unsigned long)stats_of(guest).drops);
}

static void test_bounds_of_code_memory(void **state)
{
    struct guest *guest = *state;
    struct jit_options options = {.code_bytes = JIT_CODE_BYTES_MIN - 1};
    void *engine_state;

    engine.options = &options;
    assert_int_equal(engine.create(guest->hart, &engine_state), -EINVAL);
    options.code_bytes = JIT_CODE_BYTES_MAX + 1ul;
    assert_int_equal(engine.create(guest->hart, &engine_state), -EINVAL);
    engine.options = &smallest;
}

// No mapping of this process is writable and executable.
static void test_never_writable_and_executable(void **state)
{
    FILE *maps = fopen("/proc/self/maps", "r");
    char line[512], permissions[8];
    unsigned executable = 0;

    (void)state;
    assert_non_null(maps);
    while (fgets(line, sizeof(line), maps)) {
        assert_int_equal(sscanf(line, "%*s %7s", permissions), 1);
        assert_false(permissions[1] == 'w' && permissions[2] == 'x');
        executable += strstr(line, "strake-code") && permissions[2] == 'x';
    }
    fclose(maps);
    assert_int_equal(executable, GUEST_HARTS);
}

// ---- Attention

// An endless loop that runs from `pc` is left when another thread asks for attention.
static void expect_left(struct guest *guest, uint64_t pc)
{
    guest_run_long(guest->hart, pc, 1000, HART_ATTENTION_STOP);
}

static void test_loops_see_attention(void **state)
{
    struct guest *guest = *state;

    put_at(guest, CODE, jal(0, 0));
    expect_left(guest, CODE);
    put_at(guest, CODE + 0x100, jal(0, 0x20));
    put_at(guest, CODE + 0x120, beq(0, 0, -0x20));
    expect_left(guest, CODE + 0x100);
    put_at(guest, CODE + 0x200, jalr(0, 10, 0x200));
    expect_left(guest, CODE + 0x200);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        guest_test(test_near_jumps_are_linked),      guest_test(test_far_jumps_are_cached),
        guest_test(test_straddling_instruction),     guest_test(test_pc_relative),
        guest_test(test_own_stores_show_at_fence_i), guest_test(test_fence_i_within_a_loop),
        guest_test(test_links_to_replaced_blocks),   guest_test(test_code_memory_overflow),
        guest_test(test_bounds_of_code_memory),      guest_test(test_never_writable_and_executable),
        guest_test(test_loops_see_attention),
    };

    engine = hart_engine_jit;
    engine.options = &smallest;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
