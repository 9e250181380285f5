// SPDX-License-Identifier: BSD-2-Clause
// A hart that is given to another process, which was warmed: it goes on there with what was
// translated and mapped ahead, and what became untrue meanwhile is not used.
#include <pthread.h>
#include <stdio.h>
#include <unistd.h>

#include "jit/internal.h"

static struct hart_engine engine;
#define GUEST_ENGINE engine
#include "interp_guest.h"

#define PAGE ((uint64_t)MEMORY_PAGE_BYTES)
#define KERNEL 0xffffffc000000000ull
#define USER 0x10000ull
#define PATIENCE_NS 120000000000ull
#define LOOPS 200
#define FUNCTIONS 600u

enum { ROOT, LOW, LOW_PAGES, HIGH, HIGH_PAGES, TABLE_PAGES };
#define TABLES (RAM_GPA + 0x100000)
#define SPACES 3

enum { V = 1, R = 2, W = 4, X = 8, U = 16, G = 32, A = 64, D = 128 };
#define RW (V | R | W | A | D)

static const struct jit_options usual = {.window_after = 1};

// ---- Two processes: each has its own mapping of the same RAM

static struct guest *start(void **state)
{
    engine = hart_engine_jit;
    engine.options = &usual;
    guest_setup(state);
    return *state;
}

// What goes on with the guest's first hart.
static struct guest *successor(const struct guest *old, const struct jit_options *options)
{
    const struct memory_ram *ram = memory_find_ram(old->memory, RAM_GPA);
    struct guest *guest;
    void *state;

    engine.options = options;
    guest_setup(&state);
    guest = state;
    memory_destroy(guest->memory);
    assert_int_equal(memory_create(&guest->memory, NULL), 0);
    assert_int_equal(memory_add_ram(guest->memory, RAM_GPA, RAM_BYTES, dup(ram->fd), NULL), 0);
    guest_add_stop(guest);
    for (unsigned i = 0; i < GUEST_HARTS; i++)
        guest->harts[i]->memory = guest->memory;
    guest->here = old->here;
    return guest;
}

static struct hart_hot hot_of(struct guest *guest)
{
    struct hart_hot hot;

    assert_int_equal(hart_hot(guest->hart, &hot, PATIENCE_NS), 0);
    return hot;
}

static void warm(struct guest *guest, const struct hart_hot *hot)
{
    hart_warm(guest->hart, hot->bytes, hot->length_bytes, NULL);
}

// The hart's state goes from one to the other.
static void hand_over(const struct guest *from, struct guest *to)
{
    struct hart_state state;

    hart_state_save(from->hart, &state);
    hart_state_restore(to->hart, &state);
}

// All of it, with nothing changed meanwhile.
static struct guest *go_on(struct guest *old, const struct jit_options *options)
{
    struct guest *guest = successor(old, options);
    struct hart_hot hot = hot_of(old);

    warm(guest, &hot);
    free(hot.bytes);
    hand_over(old, guest);
    hart_settle(guest->hart);
    return guest;
}

static void end(struct guest *guest)
{
    void *state = guest;

    guest_teardown(&state);
}

static struct jit_stats stats_of(struct guest *guest)
{
    struct jit_stats stats;

    jit_stats(guest->hart->engine_state, &stats);
    return stats;
}

// ---- Code

// Adds to x5, and returns.
static void put_adder(struct guest *guest, uint64_t gpa, int value)
{
    put_at(guest, gpa, addi(5, 5, value));
    put(guest, jalr(0, 1, 0));
}

// Calls FUNCTIONS adders, which lie two in a page, some of them over its end.
static uint64_t adder_at(unsigned i)
{
    return RAM_GPA + 0x10000 + i / 2 * PAGE + (i % 2 ? PAGE - 10 + i / 2 % 4 * 2 : 64);
}

static uint64_t put_adders(struct guest *guest)
{
    uint64_t pc;

    for (unsigned i = 0; i < FUNCTIONS; i++)
        put_adder(guest, adder_at(i), 1);
    guest->here = pc = CODE;
    put(guest, addi(5, 0, 0));
    for (unsigned i = 0; i < FUNCTIONS; i++) {
        int64_t away = (int64_t)(adder_at(i) - guest->here);
        put(guest, auipc(6, (uint32_t)(away + 0x800)));
        put(guest, jalr(1, 6, (int)(((uint64_t)away & 0xfff) ^ 0x800) - 0x800));
    }
    put_stop(guest);
    return pc;
}

static uint64_t sum(struct guest *guest, uint64_t pc)
{
    guest_run(guest, pc);
    return guest->hart->x[5];
}

static void test_blocks(void **state)
{
    struct guest *guest = start(state), *next;
    uint64_t pc = put_adders(guest), translations;

    assert_int_equal(sum(guest, pc), FUNCTIONS);
    next = go_on(guest, &usual);
    translations = stats_of(next).translations;
    printf("%u blocks told, %u translated ahead\n", (unsigned)stats_of(guest).translations,
           (unsigned)translations);
    assert_in_range(translations, FUNCTIONS, stats_of(guest).translations);
    assert_int_equal(sum(next, pc), FUNCTIONS);
    assert_int_equal(stats_of(next).translations, translations);
    end(next);
    guest_teardown(state);
}

// Code that changes before it is translated ahead, after that, and after the hart has moved.
static void test_changed_code(void **state)
{
    struct guest *guest = start(state), *next;
    uint64_t pc = put_adders(guest);
    struct hart_hot hot;

    assert_int_equal(sum(guest, pc), FUNCTIONS);
    hot = hot_of(guest);
    next = successor(guest, &usual);
    put_adder(next, adder_at(0), 10);
    put_adder(next, adder_at(1), 10);
    warm(next, &hot);
    put_adder(next, adder_at(10), 100);
    put_adder(next, adder_at(11), 100);
    hand_over(guest, next);
    put_adder(next, adder_at(20), 500);
    put_adder(next, adder_at(21), 500);
    hart_settle(next->hart);
    put_adder(next, adder_at(30), 1000);
    put_adder(next, adder_at(31), 1000);
    assert_int_equal(sum(next, pc), FUNCTIONS - 8 + 2 * 1610);
    free(hot.bytes);
    end(next);
    guest_teardown(state);
}

// Only a part of a page's code changes: blocks that lead to each other.
static void test_changed_page(void **state)
{
    struct guest *guest = start(state), *next;
    struct hart_hot hot;
    uint64_t middle;

    put(guest, addi(5, 0, 0));
    put(guest, addi(6, 0, LOOPS));
    put(guest, jal(0, 8));
    put(guest, ECALL);
    middle = guest->here;
    put(guest, addi(5, 5, 1));
    put(guest, jal(0, 4));
    put(guest, addi(6, 6, -1));
    put(guest, bne(6, 0, -12));
    put_stop(guest);
    assert_int_equal(sum(guest, CODE), LOOPS);
    hot = hot_of(guest);
    next = successor(guest, &usual);
    warm(next, &hot);
    free(hot.bytes);
    put_at(next, middle, addi(5, 5, 3));
    hand_over(guest, next);
    hart_settle(next->hart);
    assert_int_equal(sum(next, CODE), 3 * LOOPS);
    put_at(next, middle, addi(5, 5, 4));
    next->hart->engine->fence_i(next->hart, next->hart->engine_state);
    assert_int_equal(sum(next, CODE), 4 * LOOPS);
    end(next);
    guest_teardown(state);
}

// The other has less code memory, or one with a single part, or none ahead of time.
static void test_less_room(void **state)
{
    static const struct jit_options small = {.code_bytes = JIT_CODE_BYTES_MIN},
                                    smallest = {.code_bytes = 2 * JIT_CODE_BYTES_MIN},
                                    windowless = {.no_windows = true};
    const struct jit_options *const options[] = {&small, &smallest, &windowless};
    struct guest *guest = start(state), *next;
    uint64_t pc = put_adders(guest);

    assert_int_equal(sum(guest, pc), FUNCTIONS);
    for (unsigned i = 0; i < BASE_COUNT_OF(options); i++) {
        next = go_on(guest, options[i]);
        assert_int_equal(stats_of(next).drops, 0);
        for (unsigned round = 0; round < 3; round++)
            assert_int_equal(sum(next, pc), FUNCTIONS);
        end(next);
    }
    guest_teardown(state);
}

static bool no_more(void *opaque)
{
    ++*(unsigned *)opaque;
    return false;
}

static void test_no_time(void **state)
{
    struct guest *guest = start(state), *next = successor(guest, &usual);
    uint64_t pc = put_adders(guest);
    unsigned asked = 0;
    const struct hart_pace pace = {.go_on = no_more, .opaque = &asked};
    struct hart_hot hot;

    assert_int_equal(sum(guest, pc), FUNCTIONS);
    hot = hot_of(guest);
    hart_warm(next->hart, hot.bytes, hot.length_bytes, &pace);
    free(hot.bytes);
    assert_int_equal(asked, 1);
    assert_in_range(stats_of(next).translations, 1, FUNCTIONS);  // of more than twice as many
    hand_over(guest, next);
    assert_int_equal(sum(next, pc), FUNCTIONS);  // settles by itself
    end(next);
    guest_teardown(state);
}

static void *run_for_long(void *opaque)
{
    hart_run(((struct guest *)opaque)->hart);
    return NULL;
}

// Asked while the hart executes, until it has translated most of its blocks, two a function.
static void test_while_running(void **state)
{
    struct guest *guest = start(state), *next;
    uint64_t pc = put_adders(guest);
    pthread_t thread;
    struct hart_hot hot;

    guest->here -= 4;
    put(guest, jal(0, (int)(CODE - guest->here)));
    assert_int_equal(hart_start(guest->hart, pc, 0, 0), 0);
    assert_int_equal(pthread_create(&thread, NULL, run_for_long, guest), 0);
    while (hot = hot_of(guest), hot.length_bytes < 2 * FUNCTIONS * sizeof(struct jit_warm_record))
        free(hot.bytes);
    hart_stop(guest->hart);
    assert_int_equal(pthread_join(thread, NULL), 0);
    next = successor(guest, &usual);
    warm(next, &hot);
    free(hot.bytes);
    printf("%zu records told, %u blocks translated ahead\n",
           hot.length_bytes / sizeof(struct jit_warm_record),
           (unsigned)stats_of(next).translations);
    assert_true(stats_of(next).translations >= FUNCTIONS);
    end(next);
    guest_teardown(state);
}

// ---- Windows

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

static void run_as(struct guest *guest, enum hart_privilege privilege, uint64_t pc)
{
    guest->hart->privilege = (uint8_t)privilege;
    hart_mmu_update(guest->hart);
    guest->hart->scause = 0;
    guest_run(guest, pc);
}

// What LOOPS loads from gva find, by S-mode's code or U-mode's.
static uint64_t load(struct guest *guest, enum hart_privilege privilege, uint64_t gva)
{
    guest->hart->x[6] = gva;
    run_as(guest, privilege, privilege == HART_U ? USER : CODE);
    if (guest->hart->scause && guest->hart->scause != HART_CAUSE_ECALL_U)
        return UINT64_MAX;
    return guest->hart->x[5] / LOOPS;
}

static void put_loop(struct guest *guest, uint64_t gpa, uint32_t last)
{
    put_at(guest, gpa, addi(7, 0, LOOPS));
    put(guest, addi(5, 0, 0));
    put(guest, ld(8, 6, 0));
    put(guest, add(5, 5, 8));
    put(guest, addi(7, 7, -1));
    put(guest, bne(7, 0, -12));
    put(guest, last);
}

#define USER_CODE (CODE + PAGE)
#define STORE_CODE (CODE + 0x800)
#define PAGES 8u  // of data, a space

static uint64_t data_of(unsigned space, unsigned page)
{
    return DATA + (space * 2 * PAGES + 2 * page) * PAGE;
}

// Each space has pages of its own, with numbers in them, and all have those of the kernel, which
// are numbered as if they were those of one space more.
static struct guest *start_spaces(void **state)
{
    struct guest *guest = start(state);
    struct hart *hart = guest->hart;

    put_loop(guest, CODE, jalr(0, 9, 0));
    put_loop(guest, USER_CODE, ECALL);
    put_at(guest, STORE_CODE, sd(7, 6, 0));
    put_stop(guest);
    for (unsigned space = 0; space <= SPACES; space++)
        for (unsigned page = 0; page < PAGES; page++)
            write_u64(guest, data_of(space, page), 100 * space + page);
    for (unsigned space = 0; space < SPACES; space++) {
        make_space(guest, space);
        map(guest, space, USER, USER_CODE, V | R | X | U | A);
        for (unsigned page = 0; page < PAGES; page++) {
            map(guest, space, USER + (1 + page) * PAGE, data_of(space, page), RW | U);
            map(guest, space, KERNEL + page * PAGE, data_of(SPACES, page), RW | G);
        }
    }
    hart->medeleg = UINT64_MAX;
    hart->stvec = STOP_CODE;
    hart->menvcfg = HART_ENVCFG_ADUE;
    assert_int_equal(hart_csr_poke(hart, ISA_CSR_PMPADDR0, UINT64_MAX), 0);
    assert_int_equal(hart_csr_poke(hart, ISA_CSR_PMPCFG0, 0x1f), 0);
    hart->privilege = HART_S;
    return guest;
}

static void use_all(struct guest *guest, uint64_t user, uint64_t kernel)
{
    for (unsigned page = 0; page < PAGES; page++) {
        assert_int_equal(load(guest, HART_S, KERNEL + page * PAGE), kernel + page);
        assert_int_equal(load(guest, HART_U, USER + (1 + page) * PAGE), user + page);
    }
}

static void use_all_spaces(struct guest *guest)
{
    for (unsigned space = 0; space < SPACES; space++) {
        use_space(guest, space);
        use_all(guest, 100 * space, 100 * SPACES);
    }
}

static void test_windows(void **state)
{
    struct guest *guest = start_spaces(state), *next;

    use_all_spaces(guest);
    use_all_spaces(guest);
    next = go_on(guest, &usual);
    use_all(next, 100 * (SPACES - 1), 100 * SPACES);
    use_all_spaces(next);
    printf("%u faults, then %u\n", (unsigned)stats_of(guest).faults,
           (unsigned)stats_of(next).faults);
    assert_in_range(stats_of(guest).faults, 1, UINT64_MAX);
    assert_int_equal(stats_of(next).faults, 0);
    end(next);
    guest_teardown(state);
}

// Of the space that is current at the end, of others, and of the kernel: before warming and after.
static void test_changed_tables(void **state)
{
    struct guest *guest = start_spaces(state), *next;
    struct hart_hot hot;

    use_all_spaces(guest);
    use_all_spaces(guest);
    hot = hot_of(guest);
    next = successor(guest, &usual);
    for (unsigned when = 0; when < 2; when++) {
        if (when)
            warm(next, &hot);
        for (unsigned space = 0; space < SPACES; space++) {
            map(next, space, USER + (1 + when) * PAGE, data_of(space, PAGES - 1), RW | U);
            map(next, space, USER + (3 + when) * PAGE, 0, 0);
            map(next, space, KERNEL + when * PAGE, data_of(SPACES, PAGES - 1), RW | G);
            map(next, space, KERNEL + (2 + when) * PAGE, 0, 0);
            // Not global any more, and not writable: both are found out by faults.
            map(next, space, KERNEL + (4 + when) * PAGE, data_of(SPACES, 4 + when), RW);
            map(next, space, USER + (5 + when) * PAGE, data_of(space, 4 + when), V | R | U | A);
        }
    }
    free(hot.bytes);
    hand_over(guest, next);
    hart_settle(next->hart);
    for (unsigned i = SPACES; i-- > 0;) {
        use_space(next, i);
        for (unsigned page = 0; page < PAGES; page++) {
            uint64_t user = page < 2 ? PAGES - 1 : page;
            assert_int_equal(load(next, HART_U, USER + (1 + page) * PAGE),
                             page == 2 || page == 3 ? UINT64_MAX : 100 * i + user);
            assert_int_equal(load(next, HART_S, KERNEL + page * PAGE),
                             page == 2 || page == 3 ? UINT64_MAX : 100 * SPACES + user);
        }
    }
    end(next);
    guest_teardown(state);
}

// The guest makes a page clean that was mapped to be written.
static void test_clean_page(void **state)
{
    struct guest *guest = start_spaces(state), *next;
    uint64_t slot = slot_of(0, KERNEL + 3 * PAGE);
    struct hart_hot hot;

    use_all_spaces(guest);
    use_space(guest, 0);
    guest->hart->x[6] = KERNEL + 3 * PAGE;
    guest->hart->x[7] = 303;
    run_as(guest, HART_S, STORE_CODE);
    hot = hot_of(guest);
    next = successor(guest, &usual);
    warm(next, &hot);
    free(hot.bytes);
    write_u64(next, slot, read_u64(next, slot) & ~(uint64_t)D);
    hand_over(guest, next);
    hart_settle(next->hart);
    next->hart->x[6] = KERNEL + 3 * PAGE;
    next->hart->x[7] = 404;
    run_as(next, HART_S, STORE_CODE);
    assert_int_equal(read_u64(next, slot) & D, D);
    assert_int_equal(read_u64(next, data_of(SPACES, 3)), 404);
    end(next);
    guest_teardown(state);
}

// It was warmed in one address space and goes on in another, that it knows nothing of.
static void test_other_space(void **state)
{
    struct guest *guest = start_spaces(state), *next;
    struct hart_hot hot;

    use_space(guest, 0);
    use_all(guest, 0, 100 * SPACES);
    use_all(guest, 0, 100 * SPACES);
    hot = hot_of(guest);
    next = successor(guest, &usual);
    warm(next, &hot);
    free(hot.bytes);
    use_space(guest, 2);
    hand_over(guest, next);
    hart_settle(next->hart);
    use_all(next, 200, 100 * SPACES);
    use_all_spaces(next);
    end(next);
    guest_teardown(state);
}

// Resets, fences and flushes between warming and settling.
static void test_fences_meanwhile(void **state)
{
    struct guest *guest = start_spaces(state), *next;
    struct hart_hot hot;

    use_all_spaces(guest);
    use_all_spaces(guest);
    hot = hot_of(guest);
    next = successor(guest, &usual);
    warm(next, &hot);
    free(hot.bytes);
    hart_reset(next->hart);
    hart_mmu_flush(next->hart);
    hart_mmu_flush_page(next->hart, KERNEL, HART_ANY_ASID);
    hand_over(guest, next);
    hart_mmu_flush(next->hart);
    hart_settle(next->hart);
    use_all_spaces(next);
    assert_int_equal(stats_of(next).faults, 0);
    end(next);
    guest_teardown(state);
}

// ---- What is told is not to be trusted

static uint64_t next_random(uint64_t *random)
{
    *random = *random * 6364136223846793005 + 1442695040888963407;
    return *random >> 20;
}

static void spoil(struct hart_hot *hot, uint64_t *random, unsigned how)
{
    size_t first = how & 1 ? 32 : 0;

    if (how % 4 == 3)
        hot->length_bytes -= next_random(random) % (hot->length_bytes - 64);
    for (unsigned flips = how % 8 * 20 + 1; flips-- > 0;)
        hot->bytes[first + next_random(random) % (hot->length_bytes - first)] ^=
            (uint8_t)(1u << next_random(random) % 8);
    // Words of pages and of small numbers go further than bits.
    for (unsigned words = how % 5 * 20; words-- > 0;) {
        size_t at = next_random(random) % (hot->length_bytes / 8) * 8;
        uint64_t word = next_random(random) << (next_random(random) & 1 ? 12 : 0);
        if (at >= 32 && at % 32 != 0)
            memcpy(hot->bytes + at, &word, sizeof(word));
    }
}

static void test_hostile(void **state)
{
    struct guest *guest = start_spaces(state), *next;
    struct hart_hot hot, good;
    uint64_t random = 1;

    use_all_spaces(guest);
    use_all_spaces(guest);
    good = hot_of(guest);
    hot.bytes = test_malloc(good.length_bytes);
    for (unsigned i = 0; i < 40; i++) {
        hot.length_bytes = good.length_bytes;
        memcpy(hot.bytes, good.bytes, good.length_bytes);
        spoil(&hot, &random, i);
        next = successor(guest, &usual);
        warm(next, &hot);
        hand_over(guest, next);
        hart_settle(next->hart);
        use_all_spaces(next);
        end(next);
    }
    test_free(hot.bytes);
    free(good.bytes);
    guest_teardown(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_blocks),           cmocka_unit_test(test_changed_code),
        cmocka_unit_test(test_changed_page),     cmocka_unit_test(test_less_room),
        cmocka_unit_test(test_no_time),          cmocka_unit_test(test_while_running),
        cmocka_unit_test(test_windows),          cmocka_unit_test(test_changed_tables),
        cmocka_unit_test(test_clean_page),       cmocka_unit_test(test_other_space),
        cmocka_unit_test(test_fences_meanwhile), cmocka_unit_test(test_hostile),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
