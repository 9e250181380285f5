// SPDX-License-Identifier: BSD-2-Clause
// Memory windows: what is mapped when, what fences take away, that traps are precise and that
// nothing but the guest's memory is within reach.
#include <stdio.h>

#include "jit/jit.h"

static struct hart_engine engine;  // the translator, with windows for all address spaces at once
static const struct jit_options at_once = {.window_after = 1, .window_maps = 5000};
#define GUEST_ENGINE engine
#include "interp_guest.h"

#define PAGE ((uint64_t)MEMORY_PAGE_BYTES)
#define KERNEL 0xffffffc000000000ull
#define USER 0x10000ull  // where the user's pages begin
#define LOOPS 1000
#define MANY 7000u  // more pages than a window keeps

// Pages of a space's tables.
enum { ROOT, LOW, LOW_PAGES, HIGH, HIGH_PAGES, TABLE_PAGES = HIGH_PAGES + 1 };
#define TABLES (RAM_GPA + 0x100000)
#define SPACES 3

enum { V = 1, R = 2, W = 4, X = 8, U = 16, G = 32, A = 64, D = 128 };
#define RW (V | R | W | A | D)

static uint64_t table(unsigned space, unsigned page)
{
    return TABLES + (space * TABLE_PAGES + page) * PAGE;
}

static void point(struct guest *guest, uint64_t slot, uint64_t gpa, uint64_t flags)
{
    write_u64(guest, slot, gpa >> 2 | flags);
}

static uint64_t slot_of(unsigned space, uint64_t gva)
{
    return table(space, gva >= KERNEL ? HIGH_PAGES : LOW_PAGES) + gva / PAGE % 512 * 8;
}

static void map(struct guest *guest, unsigned space, uint64_t gva, uint64_t gpa, uint64_t flags)
{
    point(guest, slot_of(space, gva), gpa, flags);
}

// RAM is one to one for S-mode; the page that stops the hart too. 2 MiB at 0 and at KERNEL have
// pages.
static void make_space(struct guest *guest, unsigned space)
{
    point(guest, table(space, ROOT), table(space, LOW), V);
    point(guest, table(space, ROOT) + 2 * 8ull, RAM_GPA, RW | X | G);
    point(guest, table(space, ROOT) + 256 * 8ull, table(space, HIGH), V);
    point(guest, table(space, LOW), table(space, LOW_PAGES), V);
    point(guest, table(space, HIGH), table(space, HIGH_PAGES), V);
    map(guest, space, STOP_GPA, STOP_GPA, RW | G);
}

static void use_space(struct guest *guest, unsigned space)
{
    assert_int_equal(hart_csr_poke(guest->hart, ISA_CSR_SATP,
                                   8ull << 60 | (space + 1ull) << 44 | table(space, ROOT) >> 12),
                     0);
}

static struct guest *start(void **state)
{
    struct guest *guest;
    struct hart *hart;

    engine = hart_engine_jit;
    engine.options = &at_once;
    guest_setup(state);
    guest = *state;
    hart = guest->hart;
    for (unsigned space = 0; space < SPACES; space++)
        make_space(guest, space);
    hart->privilege = HART_S;
    hart->medeleg = UINT64_MAX;
    hart->stvec = STOP_CODE;
    hart->menvcfg = HART_ENVCFG_ADUE;
    assert_int_equal(hart_csr_poke(hart, ISA_CSR_PMPADDR0, UINT64_MAX), 0);
    assert_int_equal(hart_csr_poke(hart, ISA_CSR_PMPCFG0, 0x1f), 0);
    use_space(guest, 0);
    guest->here = CODE;
    return guest;
}

static uint64_t faults(struct guest *guest)
{
    struct jit_stats stats;

    jit_stats(guest->hart->engine_state, &stats);
    return stats.faults;
}

// Runs code at `pc`, of S-mode, or of U-mode that ends in a trap.
static void run_as(struct guest *guest, enum hart_privilege privilege, uint64_t pc)
{
    guest->hart->privilege = (uint8_t)privilege;
    hart_mmu_update(guest->hart);
    guest->hart->scause = 0;
    guest_run(guest, pc);
}

// A short loop is translated four times in a row, and its first turn with what is before it; each
// place has so many faults before it goes round the window.
#define LOOP_PLACES 5
#define STRIKES 4

// x5 = the sum of LOOPS loads from x6 + 8, for either mode.
static uint64_t put_load_loop(struct guest *guest, uint32_t end)
{
    uint64_t pc = guest->here;

    put(guest, addi(7, 0, LOOPS));
    put(guest, addi(5, 0, 0));
    put(guest, ld(8, 6, 8));
    put(guest, add(5, 5, 8));
    put(guest, addi(7, 7, -1));
    put(guest, bne(7, 0, -12));
    put(guest, end);
    return pc;
}

#define STOP jalr(0, 9, 0)

static uint64_t load_loop(struct guest *guest, uint64_t pc, uint64_t gva)
{
    guest->hart->x[6] = gva - 8;
    run_as(guest, HART_S, pc);
    return guest->hart->x[5] / LOOPS;
}

static void test_kernel_pages(void **state)
{
    struct guest *guest = start(state);
    uint64_t loop = put_load_loop(guest, STOP), before;

    map(guest, 0, KERNEL, DATA, RW | G);
    map(guest, 0, KERNEL + PAGE, DATA + 5 * PAGE, RW);
    write_u64(guest, DATA + 16, 1234);
    write_u64(guest, DATA + 5 * PAGE, 4321);
    assert_int_equal(load_loop(guest, loop, KERNEL + 16), 1234);
    before = faults(guest);
    assert_in_range(before, 1, 2);
    assert_int_equal(load_loop(guest, loop, KERNEL + 16), 1234);
    assert_int_equal(faults(guest), before);
    printf("%u loads of a page: %u faults\n", LOOPS, (unsigned)before);

    // One that is not global is not shown, and the access soon goes round the window.
    assert_int_equal(load_loop(guest, loop, KERNEL + PAGE), 4321);
    assert_in_range(faults(guest), before + 1, before + LOOP_PLACES * STRIKES);
    guest_teardown(state);
}

// A clean page is read through the window; the first store makes it dirty.
static void test_dirty(void **state)
{
    struct guest *guest = start(state);
    uint64_t loop = put_load_loop(guest, STOP), store = guest->here, before;

    put(guest, sd(7, 6, 0));
    put_stop(guest);
    map(guest, 0, KERNEL, DATA, V | R | W | G);
    write_u64(guest, DATA, 77);
    assert_int_equal(load_loop(guest, loop, KERNEL), 77);
    assert_int_equal(read_u64(guest, slot_of(0, KERNEL)) & (A | D), A);
    before = faults(guest);
    guest->hart->x[6] = KERNEL;
    guest->hart->x[7] = 88;
    run_as(guest, HART_S, store);
    assert_int_equal(read_u64(guest, slot_of(0, KERNEL)) & (A | D), A | D);
    assert_int_equal(read_u64(guest, DATA), 88);
    assert_int_equal(faults(guest), before + 1);
    guest->hart->x[7] = 99;
    run_as(guest, HART_S, store);
    assert_int_equal(read_u64(guest, DATA), 99);
    assert_int_equal(faults(guest), before + 1);

    // Clean again, and fenced: the next store is seen.
    write_u64(guest, slot_of(0, KERNEL), read_u64(guest, slot_of(0, KERNEL)) & ~(uint64_t)D);
    hart_mmu_flush_page(guest->hart, KERNEL, HART_ANY_ASID);
    run_as(guest, HART_S, store);
    assert_int_equal(read_u64(guest, slot_of(0, KERNEL)) & D, D);
    guest_teardown(state);
}

// Fences of a page, of all, and of what did not change.
static void test_fences(void **state)
{
    struct guest *guest = start(state);
    uint64_t loop = put_load_loop(guest, STOP), before;

    for (uint64_t i = 0; i < 8; i++)
        write_u64(guest, DATA + i * PAGE, i);
    for (uint64_t i = 0; i < 3; i++) {
        map(guest, 0, KERNEL + 2 * i * PAGE, DATA + i * PAGE, RW | G);
        assert_int_equal(load_loop(guest, loop, KERNEL + 2 * i * PAGE), i);
    }
    map(guest, 0, KERNEL, DATA + 4 * PAGE, RW | G);
    hart_mmu_flush_page(guest->hart, KERNEL, HART_ANY_ASID);
    assert_int_equal(load_loop(guest, loop, KERNEL), 4);
    before = faults(guest);
    map(guest, 0, KERNEL + 2 * PAGE, DATA + 5 * PAGE, RW | G);
    hart_mmu_flush(guest->hart);
    assert_int_equal(load_loop(guest, loop, KERNEL), 4);
    assert_int_equal(load_loop(guest, loop, KERNEL + 4 * PAGE), 2);
    assert_int_equal(faults(guest), before);
    assert_int_equal(load_loop(guest, loop, KERNEL + 2 * PAGE), 5);
    assert_int_equal(faults(guest), before + 1);
    map(guest, 0, KERNEL, 0, 0);
    hart_mmu_flush(guest->hart);
    load_loop(guest, loop, KERNEL);
    assert_int_equal(guest->hart->scause, HART_CAUSE_LOAD_PAGE);
    assert_int_equal(guest->hart->stval, KERNEL);
    guest_teardown(state);
}

static uint64_t user_loop(struct guest *guest, uint64_t gva)
{
    guest->hart->x[6] = gva - 8;
    run_as(guest, HART_U, USER);
    assert_int_equal(guest->hart->scause, HART_CAUSE_ECALL_U);
    return guest->hart->x[5] / LOOPS;
}

static void make_user(struct guest *guest, unsigned space, uint64_t data)
{
    map(guest, space, USER, CODE, V | R | X | U | A);
    map(guest, space, USER + PAGE, data, RW | U);
}

// Each address space sees its own pages, before and after it has a window; fences for an address
// space that is not current count when it is.
static void test_address_spaces(void **state)
{
    struct guest *guest = start(state);
    const uint64_t gva = USER + PAGE;
    struct hart *hart = guest->hart;

    put_load_loop(guest, ECALL);
    for (unsigned space = 0; space < SPACES; space++) {
        make_user(guest, space, DATA + space * PAGE);
        write_u64(guest, DATA + space * PAGE, 100 + space);
        write_u64(guest, DATA + (8 + space) * PAGE, 200 + space);
        write_u64(guest, DATA + (16 + space) * PAGE, 300 + space);
    }
    for (unsigned round = 0; round < 4; round++)
        for (unsigned space = 0; space < SPACES; space++) {
            use_space(guest, space);
            assert_int_equal(user_loop(guest, gva), 100 + space);
            assert_int_equal(user_loop(guest, gva), 100 + space);
        }
    assert_in_range(faults(guest), SPACES, 3 * SPACES);

    use_space(guest, 0);
    map(guest, 1, gva, DATA + 9 * PAGE, RW | U);
    hart_mmu_flush_page(hart, gva, 2);
    map(guest, 2, gva, DATA + 10 * PAGE, RW | U);
    assert_int_equal(user_loop(guest, gva), 100);
    use_space(guest, 1);
    assert_int_equal(user_loop(guest, gva), 201);
    hart_mmu_flush_page(hart, gva, 3);
    use_space(guest, 2);
    assert_int_equal(user_loop(guest, gva), 202);

    for (unsigned space = 0; space < SPACES; space++)
        map(guest, space, gva, DATA + (16 + space) * PAGE, RW | U);
    hart_mmu_flush(hart);
    for (unsigned space = SPACES; space-- > 0;) {
        use_space(guest, space);
        assert_int_equal(user_loop(guest, gva), 300 + space);
    }
    guest_teardown(state);
}

// S-mode with SUM clear has no access to user pages, and U-mode none to others, in windows too.
static void test_permissions(void **state)
{
    struct guest *guest = start(state);
    uint64_t loop = put_load_loop(guest, ECALL);

    make_user(guest, 0, DATA);
    map(guest, 0, USER + 2 * PAGE, DATA, RW);
    map(guest, 0, KERNEL, DATA, RW | U | G);
    for (unsigned round = 0; round < 3; round++) {
        user_loop(guest, USER + PAGE);
        guest->hart->x[6] = USER + 2 * PAGE;
        run_as(guest, HART_U, USER);
        assert_int_equal(guest->hart->scause, HART_CAUSE_LOAD_PAGE);
        load_loop(guest, loop, KERNEL);
        assert_int_equal(guest->hart->scause, HART_CAUSE_LOAD_PAGE);
        load_loop(guest, loop, USER + PAGE);
        assert_int_equal(guest->hart->scause, HART_CAUSE_LOAD_PAGE);
    }
    guest_teardown(state);
}

// In the middle of a block: what came before is done, nothing after.
static void test_precise_traps(void **state)
{
    struct guest *guest = start(state);
    struct hart *hart = guest->hart;

    map(guest, 0, KERNEL, DATA, RW | G);
    put(guest, addi(5, 5, 1));
    put(guest, sd(5, 6, 0));
    put(guest, addi(5, 5, 1));
    put(guest, ld(5, 7, 0));
    put(guest, addi(5, 5, 1));
    put(guest, sd(5, 6, 0));
    put_stop(guest);
    for (unsigned round = 0; round < 3; round++) {
        hart->x[5] = 10;
        hart->x[6] = KERNEL;
        hart->x[7] = KERNEL + 3 * PAGE + 8 * round;
        hart->instret = 0;
        run_as(guest, HART_S, CODE);
        assert_int_equal(hart->scause, HART_CAUSE_LOAD_PAGE);
        assert_int_equal(hart->stval, hart->x[7]);
        assert_int_equal(hart->sepc, CODE + 12);
        assert_int_equal(hart->x[5], 12);
        assert_int_equal(hart->instret, 3 + STOP_INSNS);
        assert_int_equal(read_u64(guest, DATA), 11);
    }
    guest_teardown(state);
}

static void test_devices(void **state)
{
    struct guest *guest = start(state);
    uint64_t loop = put_load_loop(guest, STOP);

    map(guest, 0, KERNEL + PAGE, STOP_GPA, RW | G);
    assert_int_equal(load_loop(guest, loop, KERNEL + PAGE), 0);
    assert_int_equal(guest->hart->scause, 0);
    assert_in_range(faults(guest), 1, LOOP_PLACES * STRIKES);
    printf("%u loads of a device: %u faults\n", LOOPS, (unsigned)faults(guest));
    guest_teardown(state);
}

static void test_page_crossing(void **state)
{
    struct guest *guest = start(state);
    uint64_t loop = put_load_loop(guest, STOP), before;

    map(guest, 0, KERNEL, DATA, RW | G);
    map(guest, 0, KERNEL + PAGE, DATA + 7 * PAGE, RW | G);
    write_u64(guest, DATA + PAGE - 8, 0x1111111111111111);
    write_u64(guest, DATA + 7 * PAGE, 0x2222222222222222);
    // The sum wraps.
    assert_int_equal(load_loop(guest, loop, KERNEL + PAGE - 4),
                     0x2222222211111111ull * LOOPS / LOOPS);
    before = faults(guest);
    assert_in_range(before, 1, 4);
    map(guest, 0, KERNEL + PAGE, 0, 0);
    hart_mmu_flush_page(guest->hart, KERNEL + PAGE, HART_ANY_ASID);
    load_loop(guest, loop, KERNEL + PAGE - 4);
    assert_int_equal(guest->hart->scause, HART_CAUSE_LOAD_PAGE);
    assert_int_equal(guest->hart->stval, KERNEL + PAGE);
    guest_teardown(state);
}

// Whatever an address is, it is the guest's: what its page tables do not map traps.
static void test_wild_addresses(void **state)
{
    static const uint64_t bases[] = {0,
                                     1ull << 30,
                                     1ull << 38,
                                     (1ull << 38) - 8,
                                     1ull << 39,
                                     1ull << 46,
                                     1ull << 47,
                                     1ull << 62,
                                     1ull << 63,
                                     KERNEL - 8,
                                     -(1ull << 40),
                                     -(1ull << 46),
                                     -(1ull << 30),
                                     (uint64_t)-16};
    struct guest *guest = start(state);
    struct hart *hart = guest->hart;
    uint64_t load = guest->here, random = 1, store;

    put(guest, ld(5, 6, 0));
    put(guest, ECALL);
    store = guest->here;
    put(guest, sd(5, 6, 0));
    put(guest, ECALL);
    map(guest, 0, USER, CODE, V | R | X | U | A);
    for (unsigned i = 0; i < 2000; i++) {
        uint64_t gva = bases[i % BASE_COUNT_OF(bases)];

        random = random * 6364136223846793005 + 1442695040888963407;
        if (i >= BASE_COUNT_OF(bases))
            gva += (uint64_t)((int64_t)random >> (20 + random % 40));
        if ((gva & ~0x1fffffull) == 0 || gva >> 30 == 2)
            continue;
        hart->x[6] = gva;
        run_as(guest, i & 1 ? HART_U : HART_S, i & 1 ? USER : load);
        assert_int_equal(hart->scause, HART_CAUSE_LOAD_PAGE);
        assert_int_equal(hart->stval, gva);
        run_as(guest, i & 1 ? HART_U : HART_S, i & 1 ? USER + store - CODE : store);
        assert_int_equal(hart->scause, HART_CAUSE_STORE_PAGE);
        assert_int_equal(hart->stval, gva);
    }
    guest_teardown(state);
}

// More pages than a window may have pieces, none beside the one before.
static void test_many_pages(void **state)
{
    struct guest *guest = start(state);
    const uint64_t more = TABLES + SPACES * TABLE_PAGES * PAGE, frames = 64;
    uint64_t sum = 0, loop = guest->here;

    put(guest, ld(8, 6, 0));
    put(guest, add(5, 5, 8));
    put(guest, add(6, 6, 28));
    put(guest, addi(7, 7, -1));
    put(guest, bne(7, 0, -16));
    put_stop(guest);
    for (uint64_t i = 0; i < frames; i++)
        write_u64(guest, DATA + i * PAGE, i + 1);
    for (uint64_t i = 0; i < MANY; i++) {
        if (i % 512 == 0)
            point(guest, table(0, HIGH) + i / 512 * 8, more + i / 512 * PAGE, V);
        point(guest, more + i * 8, DATA + (frames - 1 - i % frames) * PAGE, RW | G);
        sum += frames - i % frames;
    }
    for (unsigned round = 0; round < 2; round++) {
        guest->hart->x[5] = 0;
        guest->hart->x[6] = KERNEL;
        guest->hart->x[7] = MANY;
        guest->hart->x[28] = PAGE;
        run_as(guest, HART_S, loop);
        assert_int_equal(guest->hart->x[5], sum);
    }
    guest_teardown(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kernel_pages),   cmocka_unit_test(test_dirty),
        cmocka_unit_test(test_fences),         cmocka_unit_test(test_address_spaces),
        cmocka_unit_test(test_permissions),    cmocka_unit_test(test_precise_traps),
        cmocka_unit_test(test_devices),        cmocka_unit_test(test_page_crossing),
        cmocka_unit_test(test_wild_addresses), cmocka_unit_test(test_many_pages),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
