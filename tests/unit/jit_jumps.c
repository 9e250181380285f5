// SPDX-License-Identifier: BSD-2-Clause
// Where jumps lead when translations or code change: what a flush names is forgotten, what it does
// not name is kept.
#include <stdio.h>

#include "jit/jit.h"

#define GUEST_ENGINE hart_engine_jit
#include "interp_guest.h"

#define PAGE ((uint64_t)MEMORY_PAGE_BYTES)
#define USER 0x10000ull  // where the user's pages begin
#define TABLES (RAM_GPA + 0x100000)

enum { ROOT, LOW, LOW_PAGES, TABLE_PAGES };
enum { V = 1, X = 8, U = 16, A = 64 };

// ---- Address spaces, which have user pages of code and nothing else

static uint64_t table(unsigned space, unsigned page)
{
    return TABLES + (space * TABLE_PAGES + page) * PAGE;
}

static void point(struct guest *guest, uint64_t slot, uint64_t gpa, uint64_t flags)
{
    write_u64(guest, slot, gpa >> 2 | flags);
}

static void map(struct guest *guest, unsigned space, uint64_t gva, uint64_t gpa)
{
    point(guest, table(space, LOW_PAGES) + gva / PAGE % 512 * 8, gpa, V | X | U | A);
}

static uint64_t asid_of(unsigned space)
{
    return space + 1;
}

static void use_space(struct guest *guest, unsigned space)
{
    uint64_t satp = 8ull << 60 | asid_of(space) << 44 | table(space, ROOT) >> 12;

    assert_int_equal(hart_csr_poke(guest->hart, ISA_CSR_SATP, satp), 0);
}

static void make_spaces(struct guest *guest, unsigned count)
{
    for (unsigned space = 0; space < count; space++) {
        point(guest, table(space, ROOT), table(space, LOW), V);
        point(guest, table(space, LOW), table(space, LOW_PAGES), V);
    }
    assert_int_equal(hart_csr_poke(guest->hart, ISA_CSR_PMPADDR0, UINT64_MAX), 0);
    assert_int_equal(hart_csr_poke(guest->hart, ISA_CSR_PMPCFG0, 0x1f), 0);
}

// The user's code ends in a trap to M-mode. Returns x5.
static unsigned run_user(struct guest *guest, uint64_t pc)
{
    guest->hart->x[5] = 0;
    guest->hart->privilege = HART_U;
    hart_mmu_update(guest->hart);
    guest_run(guest, pc);
    return (unsigned)guest->hart->x[5];
}

// A page of code that adds `value` to x5 and calls, through x6, its own next instruction.
static void put_user_page(struct guest *guest, uint64_t gpa, int value)
{
    put_at(guest, gpa, auipc(6, 0));
    put(guest, jalr(1, 6, 8));
    put(guest, addi(5, 5, value));
    put(guest, ECALL);
}

static struct jit_stats stats_of(struct guest *guest)
{
    struct jit_stats stats;

    jit_stats(guest->hart->engine_state, &stats);
    return stats;
}

// ---- Flushes

// Address spaces that take turns find their jumps again, up to eight of them.
static void test_spaces_keep_jumps(void **state)
{
    const unsigned spaces = 8, rounds = 50;
    struct guest *guest = *state;
    uint64_t fetches = 0;

    make_spaces(guest, spaces);
    for (unsigned space = 0; space < spaces; space++) {
        put_user_page(guest, DATA + space * PAGE, 1 + (int)space);
        map(guest, space, USER, DATA + space * PAGE);
    }
    for (unsigned round = 0; round < rounds; round++) {
        for (unsigned space = 0; space < spaces; space++) {
            use_space(guest, space);
            assert_int_equal(run_user(guest, USER), 1 + space);
        }
        if (round == 0)
            fetches = stats_of(guest).fetches;
    }
    printf("%u switches of address space: %lu pages looked up in the first %u, %lu later\n",
           rounds * spaces, (unsigned long)fetches, spaces,
           (unsigned long)(stats_of(guest).fetches - fetches));
    assert_int_equal(stats_of(guest).fetches, fetches);
}

// More spaces than there are tables: the jumps of the oldest are made anew.
static void test_more_spaces_than_tables(void **state)
{
    const unsigned spaces = 12;
    struct guest *guest = *state;

    make_spaces(guest, spaces);
    for (unsigned space = 0; space < spaces; space++) {
        put_user_page(guest, DATA + space * PAGE, 1 + (int)space);
        map(guest, space, USER, DATA + space * PAGE);
    }
    for (unsigned turn = 0; turn < 5 * spaces; turn++) {
        use_space(guest, turn * 5 % spaces);
        assert_int_equal(run_user(guest, USER), 1 + turn * 5 % spaces);
    }
}

// A flush of an address space that is not the current one.
static void test_flush_of_another_space(void **state)
{
    struct guest *guest = *state;

    make_spaces(guest, 2);
    for (unsigned page = 0; page < 4; page++)
        put_user_page(guest, DATA + page * PAGE, 1 + (int)page);
    for (unsigned round = 0; round < 8; round++) {
        map(guest, 0, USER, DATA + round % 4 * PAGE);
        map(guest, 1, USER, DATA + PAGE);
        hart_mmu_flush_page(guest->hart, USER, round % 2 ? asid_of(0) : HART_ANY_ASID);
        use_space(guest, 0);
        assert_int_equal(run_user(guest, USER), 1 + round % 4);
        use_space(guest, 1);
        assert_int_equal(run_user(guest, USER), 2);
    }
}

// `count` jumps through a register, each to the next instruction, over several pages; then the
// first page is mapped elsewhere, where its code adds 2 instead of 1 at a time.
static void many_jumps(struct guest *guest, unsigned count)
{
    const unsigned a_page = (unsigned)PAGE / 8, pages = count / a_page;
    const uint64_t other = DATA + 64 * PAGE, end = DATA + pages * PAGE;
    unsigned dispatches;

    make_spaces(guest, 1);
    for (unsigned i = 0; i < count + a_page; i++) {
        uint64_t gpa = i < count ? DATA + 8ull * i : other + 8ull * (i - count);
        put_at(guest, gpa, addi(5, 5, i < count ? 1 : 2));
        put(guest, jalr(6, 6, 8));
    }
    put_at(guest, end, ECALL);
    for (unsigned page = 0; page <= pages; page++)
        map(guest, 0, USER + page * PAGE, DATA + page * PAGE);
    use_space(guest, 0);
    for (unsigned round = 0; round < 3; round++) {
        guest->hart->x[6] = USER;
        assert_int_equal(run_user(guest, USER), count);
    }

    map(guest, 0, USER, other);
    hart_mmu_flush_page(guest->hart, USER, HART_ANY_ASID);
    dispatches = (unsigned)stats_of(guest).dispatches;
    guest->hart->x[6] = USER;
    assert_int_equal(run_user(guest, USER), count + a_page);
    dispatches = (unsigned)stats_of(guest).dispatches - dispatches;
    printf("%u jumps known, %u of them flushed: %u dispatches\n", count, a_page, dispatches);
    assert_in_range(dispatches, a_page, a_page + 10);
}

static void test_page_of_few_jumps(void **state)
{
    many_jumps(*state, 512);
}

static void test_page_of_many_jumps(void **state)
{
    many_jumps(*state, 3072);
}

static void test_page_of_more_jumps_than_noted(void **state)
{
    many_jumps(*state, 6144);
}

// ---- Code that changes

// Blocks of an endless loop are linked to each other; somebody else writes the way out into one,
// and has the hart fence.
static void test_loop_that_another_patches(void **state)
{
    struct guest *guest = *state;

    put_at(guest, CODE, addi(5, 5, 1));
    put(guest, jal(0, 0x100));
    put_at(guest, CODE + 0x104, addi(6, 6, 1));
    put(guest, jal(0, -0x108));
    guest_run_long(guest->hart, CODE, 1000, HART_ATTENTION_FENCE);

    put_at(guest, CODE + 0x108, jalr(0, 9, 0));
    guest->hart->engine->fence_i(guest->hart, guest->hart->engine_state);
    guest_run(guest, guest->hart->pc);
    assert_int_equal(guest->hart->x[5], guest->hart->x[6]);
    printf("%lu rounds before the way out\n", (unsigned long)guest->hart->x[5]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        guest_test(test_spaces_keep_jumps),         guest_test(test_more_spaces_than_tables),
        guest_test(test_flush_of_another_space),    guest_test(test_page_of_few_jumps),
        guest_test(test_page_of_many_jumps),        guest_test(test_page_of_more_jumps_than_noted),
        guest_test(test_loop_that_another_patches),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
