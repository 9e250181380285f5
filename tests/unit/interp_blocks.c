// SPDX-License-Identifier: BSD-2-Clause
// The interpreter's blocks: coherence with memory, pages, chaining, the cache's bound.
#include "interp_guest.h"

static unsigned run_x5(struct guest *guest, uint64_t pc)
{
    guest->hart->x[5] = 0;
    guest_run(guest, pc);
    return (unsigned)guest->hart->x[5];
}

// The hart overwrites an instruction that it has executed: it goes on executing the old one (which
// is this engine's choice) until fence.i, and the new one after that (which is not).
static void test_own_stores_show_at_fence_i(void **state)
{
    struct guest *guest = *state;
    const uint64_t function = CODE + 0x400, fence = CODE + 0x800;

    put_at(guest, function, addi(5, 5, 1));
    put(guest, jalr(0, 1, 0));
    put_at(guest, CODE, jalr(1, 10, 0x400));
    put(guest, sw(6, 10, 0x400));
    put(guest, jalr(1, 10, 0x400));
    put_stop(guest);
    put_at(guest, fence, FENCE_I);
    put(guest, jalr(1, 10, 0x400));
    put_stop(guest);

    guest->hart->x[6] = addi(5, 5, 16);
    assert_int_equal(run_x5(guest, CODE), 2);
    assert_int_equal(run_x5(guest, fence), 16);
    guest->hart->x[6] = addi(5, 5, 32);
    assert_int_equal(run_x5(guest, CODE), 32);
    assert_int_equal(run_x5(guest, fence), 32);
}

static void test_others_stores_show_at_fence_i(void **state)
{
    struct guest *guest = *state;

    put(guest, addi(5, 5, 1));
    put_stop(guest);
    assert_int_equal(run_x5(guest, CODE), 1);
    put_at(guest, CODE, addi(5, 5, 2));
    assert_int_equal(run_x5(guest, CODE), 1);
    guest->hart->engine->fence_i(guest->hart, guest->interp);
    assert_int_equal(run_x5(guest, CODE), 2);
}

// A loop that is chained to itself by its near exit must notice the fence in it.
static void test_fence_i_within_a_loop(void **state)
{
    struct guest *guest = *state;

    // Each round adds x6's current addend and rewrites the addition's immediate to 2.
    put(guest, addi(7, 0, 3));
    put(guest, addi(5, 5, 1));
    put(guest, sw(6, 10, 4));
    put(guest, FENCE_I);
    put(guest, addi(7, 7, -1));
    put(guest, bne(7, 0, -16));
    put_stop(guest);
    guest->hart->x[6] = addi(5, 5, 2);
    assert_int_equal(run_x5(guest, CODE), 1 + 2 + 2);
}

static void test_unchanged_blocks_survive_fence_i(void **state)
{
    struct guest *guest = *state;
    size_t used;

    put(guest, addi(5, 5, 1));
    put_stop(guest);
    assert_int_equal(run_x5(guest, CODE), 1);
    used = guest->interp->arena_used;
    guest->hart->engine->fence_i(guest->hart, guest->interp);
    assert_int_equal(run_x5(guest, CODE), 1);
    assert_int_equal(guest->interp->arena_used, used);
}

// ---- Pages

static void test_straddling_instruction(void **state)
{
    struct guest *guest = *state;
    const uint64_t end = CODE + MEMORY_PAGE_BYTES;

    put_at(guest, end - 4, C_ADDI_X5_1 | C_NOP << 16);
    put_at(guest, end - 2, addi(5, 5, 0x123));
    put_stop(guest);
    assert_int_equal(run_x5(guest, end - 4), 0x124);
    assert_int_equal(run_x5(guest, end - 2), 0x123);

    // A change on the second page only.
    put_at(guest, end - 2, addi(5, 5, 0x234));
    guest->hart->engine->fence_i(guest->hart, guest->interp);
    assert_int_equal(run_x5(guest, end - 4), 0x235);
}

// A loop over a page boundary with an instruction on it: through the straddling block each round.
static void test_loop_over_a_page_boundary(void **state)
{
    struct guest *guest = *state;
    const uint64_t end = CODE + MEMORY_PAGE_BYTES;

    put_at(guest, end - 4, C_ADDI_X5_1);
    put_at(guest, end - 2, addi(7, 7, -1));
    put(guest, bne(7, 0, -6));
    put_stop(guest);
    guest->hart->x[7] = 1000;
    guest->hart->instret = 0;
    assert_int_equal(run_x5(guest, end - 4), 1000);
    assert_int_equal(guest->hart->instret, 3 * 1000 + 1 + STOP_INSNS);
}

#define TABLES (RAM_GPA + 0x100000u)
#define VIRTUAL 0x4000u  // where the tests' pages are; the stop page is mapped one to one
#define PTE_RWXAD 0xcfull

static void map_page(struct guest *guest, uint64_t gva, uint64_t gpa, uint64_t flags)
{
    write_u64(guest, TABLES + 0x2000 + gva / MEMORY_PAGE_BYTES * 8, gpa >> 2 | flags);
}

// S-mode under Sv39: low 2 MiB through a table of pages, the GiBs of RAM and devices one to one.
static void enter_sv39(struct guest *guest)
{
    struct hart *hart = guest->hart;

    write_u64(guest, TABLES, (TABLES + 0x1000) >> 2 | 1);
    write_u64(guest, TABLES + 2 * 8, RAM_GPA >> 2 | PTE_RWXAD);
    write_u64(guest, TABLES + 0x1000, (TABLES + 0x2000) >> 2 | 1);
    map_page(guest, STOP_GPA, STOP_GPA, PTE_RWXAD);
    hart->privilege = HART_S;
    hart->medeleg = UINT64_MAX;
    hart->stvec = STOP_CODE;
    hart->pmpcfg[0] = 0x1f;
    assert_int_equal(hart_csr_poke(hart, ISA_CSR_PMPADDR0, UINT64_MAX), 0);
    assert_int_equal(hart_csr_poke(hart, ISA_CSR_PMPCFG0, 0x1f), 0);
    assert_int_equal(hart_csr_poke(hart, ISA_CSR_SATP, 8ull << 60 | TABLES >> 12), 0);
    hart_mmu_update(hart);
    hart_mmu_flush(hart);
}

static void test_straddling_instruction_of_two_mappings(void **state)
{
    struct guest *guest = *state;
    const uint64_t end = VIRTUAL + MEMORY_PAGE_BYTES, first = CODE, second = CODE + 0x4000,
                   other = CODE + 0x6000;
    uint64_t flush = CODE + 0x8000;

    enter_sv39(guest);
    map_page(guest, VIRTUAL, first, PTE_RWXAD);
    map_page(guest, end, second, PTE_RWXAD);
    guest->here = first + 0xffc;
    put16(guest, C_ADDI_X5_1);
    put_at(guest, first + 0xffe, addi(5, 5, 0x123));
    guest->here = second;
    put16(guest, (uint16_t)(addi(5, 5, 0x123) >> 16));
    put_stop(guest);
    guest->here = other;
    put16(guest, (uint16_t)(addi(5, 5, 0x456) >> 16));
    put_stop(guest);
    put_at(guest, flush, SFENCE_VMA);
    put_stop(guest);
    assert_int_equal(run_x5(guest, end - 4), 0x124);
    map_page(guest, end, other, PTE_RWXAD);
    assert_int_equal(run_x5(guest, flush), 0);
    assert_int_equal(run_x5(guest, end - 4), 0x457);
    map_page(guest, end, second, PTE_RWXAD);
    assert_int_equal(run_x5(guest, flush), 0);
    assert_int_equal(run_x5(guest, end - 4), 0x124);

    // The second page is gone: the fault is the instruction's, the address that page's.
    map_page(guest, end, 0, 0);
    assert_int_equal(run_x5(guest, flush), 0);
    guest->hart->instret = 0;
    assert_int_equal(run_x5(guest, end - 2), 0);
    assert_int_equal(guest->hart->scause, HART_CAUSE_FETCH_PAGE);
    assert_int_equal(guest->hart->sepc, end - 2);
    assert_int_equal(guest->hart->stval, end);
    assert_int_equal(guest->hart->instret, STOP_INSNS);
}

// One physical page at two virtual addresses shares its blocks, which know their pc all the same.
static void test_blocks_are_shared_by_mappings(void **state)
{
    struct guest *guest = *state;
    const uint64_t alias = VIRTUAL + 0x3000;
    size_t used;

    enter_sv39(guest);
    map_page(guest, VIRTUAL, CODE, PTE_RWXAD);
    map_page(guest, alias, CODE, PTE_RWXAD);
    put(guest, jal(6, 8));
    put(guest, 0);
    put(guest, auipc(5, 0));
    put_stop(guest);
    assert_int_equal(run_x5(guest, VIRTUAL), VIRTUAL + 8);
    assert_int_equal(guest->hart->x[6], VIRTUAL + 4);
    used = guest->interp->arena_used;
    assert_int_equal(run_x5(guest, alias), alias + 8);
    assert_int_equal(guest->hart->x[6], alias + 4);
    assert_int_equal(guest->interp->arena_used, used);
}

// A jump to another page must not outlive that page's mapping, nor the privilege.
static void test_far_jumps_follow_translation(void **state)
{
    struct guest *guest = *state;
    const uint64_t next = VIRTUAL + MEMORY_PAGE_BYTES, flush = CODE + 0x8000;

    enter_sv39(guest);
    map_page(guest, VIRTUAL, CODE, PTE_RWXAD);
    map_page(guest, next, CODE + 0x4000, PTE_RWXAD);
    put(guest, jal(0, MEMORY_PAGE_BYTES));
    put_at(guest, CODE + 0x4000, addi(5, 5, 1));
    put_stop(guest);
    put_at(guest, CODE + 0x6000, addi(5, 5, 2));
    put_stop(guest);
    put_at(guest, flush, SFENCE_VMA);
    put_stop(guest);
    assert_int_equal(run_x5(guest, VIRTUAL), 1);
    assert_int_equal(run_x5(guest, VIRTUAL), 1);
    map_page(guest, next, CODE + 0x6000, PTE_RWXAD);
    assert_int_equal(run_x5(guest, flush), 0);
    assert_int_equal(run_x5(guest, VIRTUAL), 2);

    // U-mode may not fetch from a page without the U bit.
    guest->hart->privilege = HART_U;
    hart_mmu_update(guest->hart);
    assert_int_equal(run_x5(guest, VIRTUAL), 0);
    assert_int_equal(guest->hart->scause, HART_CAUSE_FETCH_PAGE);
    assert_int_equal(guest->hart->sepc, VIRTUAL);
}

// PMP that ends within a page, and within an instruction: the code before is executed, again and
// again, the instruction across and those after are not.
static void test_code_up_to_a_pmp_boundary(void **state)
{
    struct guest *guest = *state;
    struct hart *hart = guest->hart;
    const uint64_t boundary = CODE + 0x20;

    put(guest, addi(5, 5, 1));
    put(guest, addi(7, 7, -1));
    put(guest, bne(7, 0, -8));
    while (guest->here < boundary - 2)
        put16(guest, C_NOP);
    put(guest, addi(5, 0, 0));
    put_stop(guest);

    // Entry 0: RAM up to the boundary (TOR, read and execute). S-mode may do nothing else.
    assert_int_equal(hart_csr_poke(hart, ISA_CSR_PMPADDR0, boundary >> 2), 0);
    assert_int_equal(hart_csr_poke(hart, ISA_CSR_PMPCFG0, 0x0d), 0);
    hart->privilege = HART_S;
    hart_mmu_update(hart);
    hart->x[7] = 100;
    hart->instret = 0;
    assert_int_equal(run_x5(guest, CODE), 100);
    assert_int_equal(hart->mcause, HART_CAUSE_FETCH_ACCESS);
    assert_int_equal(hart->mepc, boundary - 2);
    assert_int_equal(hart->mtval, boundary);
    assert_int_equal(hart->instret, 3 * 100 + 9 + STOP_INSNS);
}

static void test_jump_to_nowhere(void **state)
{
    struct guest *guest = *state;

    put(guest, jalr(5, 0, 0x400));
    guest_run(guest, CODE);
    assert_int_equal(guest->hart->mcause, HART_CAUSE_FETCH_ACCESS);
    assert_int_equal(guest->hart->mepc, 0x400);
    assert_int_equal(guest->hart->mtval, 0x400);
    assert_int_equal(guest->hart->x[5], CODE + 4);
}

// jalr clears bit 0 of its target; a pc that is odd all the same (a debugger's) traps.
static void test_odd_addresses(void **state)
{
    struct guest *guest = *state;

    put(guest, jalr(0, 10, 0x11));
    put_at(guest, CODE + 0x10, addi(5, 5, 1));
    put_stop(guest);
    assert_int_equal(run_x5(guest, CODE), 1);
    assert_int_equal(run_x5(guest, CODE + 0x11), 0);
    assert_int_equal(guest->hart->mcause, HART_CAUSE_FETCH_MISALIGNED);
}

// ---- Chaining and attention

// Loops of one block, of two, through an indirect jump and over two pages are left, with complete
// state: `rounds` in x5 fits the instructions retired.
static void leave_loop(struct guest *guest, uint64_t pc, unsigned insns_a_round)
{
    struct hart *hart = guest->hart;
    uint64_t first;

    hart->x[5] = 0;
    guest_run_long(hart, pc, 1000ull * insns_a_round, HART_ATTENTION_IRQ);
    first = hart->instret;
    assert_true(first > hart->x[5] * insns_a_round - insns_a_round &&
                first <= hart->x[5] * insns_a_round + 1);
}

static void test_attention_leaves_any_loop(void **state)
{
    struct guest *guest = *state;
    const uint64_t two = CODE + 0x100, indirect = CODE + 0x200,
                   pages = CODE + MEMORY_PAGE_BYTES - 4;

    put(guest, addi(5, 5, 1));
    put(guest, jal(0, -4));
    leave_loop(guest, CODE, 2);

    put_at(guest, two, addi(5, 5, 1));
    put(guest, jal(0, 4));
    put(guest, beq(0, 0, -8));
    leave_loop(guest, two, 3);

    put_at(guest, indirect, addi(5, 5, 1));
    put(guest, jalr(0, 10, 0x200));
    leave_loop(guest, indirect, 2);

    put_at(guest, pages, addi(5, 5, 1));
    put(guest, jal(0, -4));
    leave_loop(guest, pages, 2);
}

// A trap handler that traps for ever: mtvec leads to where no code is.
static void test_attention_leaves_endless_traps(void **state)
{
    struct guest *guest = *state;

    guest->hart->mtvec = 0x1000;
    guest->hart->pc = 0x2000;
    for (unsigned i = 0; i < 1000 && guest->hart->pc == 0x2000; i++)
        guest_run_until_asked(guest->hart, guest->hart->pc, HART_ATTENTION_IRQ);
    assert_int_equal(guest->hart->pc, 0x1000);
    assert_int_equal(guest->hart->instret, 0);
}

// Attention that is there from the start: nothing is executed.
static void test_attention_at_once(void **state)
{
    struct guest *guest = *state;

    put(guest, addi(5, 5, 1));
    put_stop(guest);
    guest->hart->pc = CODE;
    atomic_store(&guest->hart->attention, HART_ATTENTION_TIMER);
    guest->hart->engine->run(guest->hart, guest->interp);
    assert_int_equal(guest->hart->pc, CODE);
    assert_int_equal(guest->hart->x[5], 0);
}

// An indirect jump whose target changes each time, as of a function called from two places.
static void test_indirect_jumps_change_targets(void **state)
{
    struct guest *guest = *state;
    const uint64_t function = CODE + 0x800;

    put(guest, jalr(1, 10, 0x7ff));
    put(guest, addi(5, 5, 1));
    put(guest, jalr(1, 10, 0x7ff));
    put(guest, addi(5, 5, 16));
    put(guest, addi(7, 7, -1));
    put(guest, bne(7, 0, -20));
    put_stop(guest);
    put_at(guest, function - 2, C_NOP);
    put_at(guest, function, jalr(0, 1, 0));
    guest->hart->x[7] = 10;
    assert_int_equal(run_x5(guest, CODE), 170);
}

// ---- The cache

// Jumps over almost all of RAM, each a block of its own: more than the arena holds.
static void test_cache_overflow(void **state)
{
    struct guest *guest = *state;
    const uint64_t last = RAM_GPA + RAM_BYTES - 4;
    const uint16_t c_j_2 = 0xa009;  // c.j to the next halfword
    uint64_t jumps = 0, drops = guest->interp->drops;

    for (guest->here = CODE; guest->here < last; jumps++)
        put16(guest, c_j_2);
    put_stop(guest);
    for (unsigned round = 0; round < 2; round++) {
        guest->hart->instret = 0;
        guest_run(guest, CODE);
        assert_int_equal(guest->hart->instret, jumps + 1 + STOP_INSNS);
        assert_true(guest->interp->arena_used <= INTERP_ARENA_BYTES);
    }
    assert_true(guest->interp->drops > drops + 2);
}

// Calls of so many functions that a call's own block is dropped while its target is decoded, which
// takes its place in the arena.
static void test_drop_while_following_an_exit(void **state)
{
    struct guest *guest = *state;
    const uint64_t functions = CODE + MEMORY_PAGE_BYTES;
    const unsigned count = 200000;
    const uint16_t ret = 0x8082;
    uint64_t drops = guest->interp->drops;

    put(guest, jalr(1, 12, 0));
    put(guest, addi(12, 12, 4));
    put(guest, bne(12, 13, -8));
    put_stop(guest);
    guest->here = functions;
    for (unsigned i = 0; i < count; i++) {
        put16(guest, C_ADDI_X5_1);
        put16(guest, ret);
    }
    guest->hart->x[12] = functions;
    guest->hart->x[13] = functions + count * 4;
    assert_int_equal(run_x5(guest, CODE), count);
    assert_true(guest->interp->drops > drops);
}

// More instructions than a block may have, and all of one length limit's neighbourhood.
static void test_long_straight_code(void **state)
{
    struct guest *guest = *state;

    for (unsigned count = 1; count < 3 * INTERP_BLOCK_INSNS; count++) {
        guest->here = CODE;
        for (unsigned i = 0; i < count; i++)
            i % 3 ? put(guest, addi(5, 5, 1)) : put16(guest, C_ADDI_X5_1);
        put_stop(guest);
        guest->hart->engine->fence_i(guest->hart, guest->interp);
        guest->hart->instret = 0;
        assert_int_equal(run_x5(guest, CODE), count);
        assert_int_equal(guest->hart->instret, count + 1 + STOP_INSNS);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        guest_test(test_own_stores_show_at_fence_i),
        guest_test(test_others_stores_show_at_fence_i),
        guest_test(test_fence_i_within_a_loop),
        guest_test(test_unchanged_blocks_survive_fence_i),
        guest_test(test_straddling_instruction),
        guest_test(test_loop_over_a_page_boundary),
        guest_test(test_straddling_instruction_of_two_mappings),
        guest_test(test_blocks_are_shared_by_mappings),
        guest_test(test_far_jumps_follow_translation),
        guest_test(test_code_up_to_a_pmp_boundary),
        guest_test(test_jump_to_nowhere),
        guest_test(test_odd_addresses),
        guest_test(test_attention_leaves_any_loop),
        guest_test(test_attention_leaves_endless_traps),
        guest_test(test_attention_at_once),
        guest_test(test_indirect_jumps_change_targets),
        guest_test(test_cache_overflow),
        guest_test(test_drop_while_following_an_exit),
        guest_test(test_long_straight_code),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
