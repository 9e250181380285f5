// SPDX-License-Identifier: BSD-2-Clause
// That verify finds differences: translated code is made to go wrong in one way after another, and
// the report says where and how; and that it finds none where there is none.
#include <stdio.h>

#include "jit/internal.h"
#include "verify/internal.h"

#define GUEST_ENGINE hart_engine_verify
#include "interp_guest.h"

#define CONSTANT 0x12345000

static struct verify *verify_in(struct guest *guest)
{
    return guest->hart->engine_state;
}

static bool has(const char *text, const char *part)
{
    if (strstr(text, part))
        return true;
    printf("no \"%s\" in:\n%s\n", part, text);
    return false;
}

// A block that is right, then the one to go wrong, then the end. Both load and store.
static void put_program(struct guest *guest)
{
    put(guest, lui(12, 0x1000));
    put(guest, sd(12, 11, 0));
    put(guest, jal(0, 8));
    put_stop(guest);
    put(guest, lui(13, CONSTANT));
    put(guest, ld(14, 11, 0));
    put(guest, sd(13, 11, 8));
    put(guest, jal(0, 8));
    put_stop(guest);
    put_stop(guest);
}

#define WRONG (CODE + 16)  // where the wrong block starts

// Runs the program, which must not come to its end; returns the report, which is printed too.
static const char *run_to_difference(struct guest *guest)
{
    const char *report;

    printf("---- what verify writes:\n");
    fflush(stdout);
    assert_int_equal(guest_run_hart(guest->hart, CODE), HART_ATTENTION_FAIL);
    report = verify_report(verify_in(guest));
    assert_non_null(report);
    assert_true(has(report, "interp and jit differ in the block at M:80001010"));
    assert_true(has(report, "guest code, as interp executed it"));
    assert_true(has(report, "lui        a3,0x12345"));
    assert_true(has(report, "host code:"));
    return report;
}

static void test_no_difference(void **state)
{
    struct guest *guest = *state;
    struct verify_stats stats;

    put_program(guest);
    guest_run(guest, CODE);
    verify_stats(verify_in(guest), &stats);
    assert_null(verify_report(verify_in(guest)));
    assert_int_equal(guest->hart->x[13], CONSTANT);
    assert_int_equal(read_u64(guest, DATA + 8), CONSTANT);
    assert_true(stats.blocks >= 4);
    assert_int_equal(stats.instructions, guest->hart->instret);
    assert_int_equal(stats.unstable, 0);
}

// One byte of a translation is changed: the constant that it loads.
static void test_spoilt_translation(void **state)
{
    const uint32_t constant = CONSTANT, other = CONSTANT + 0x1000;
    struct guest *guest = *state;
    const char *report;
    struct jit *jit = verify_in(guest)->jit;
    uint8_t *place;

    put_program(guest);
    guest_run(guest, CODE);
    place = memmem(jit->code, jit->part->code_used, &constant, sizeof(constant));
    assert_non_null(place);
    memcpy(place, &other, sizeof(other));
    report = run_to_difference(guest);
    assert_true(has(report, "a3                  0000000012345000  0000000012345000  "
                            "0000000012346000"));
    assert_true(has(report, "interp [store of 8 bytes at 80200008: 12345000]"));
    assert_true(has(report, "jit    [store of 8 bytes at 80200008: 12346000]"));
    // The guest is as the interpreter left it.
    assert_int_equal(guest->hart->x[13], CONSTANT);
    assert_int_equal(read_u64(guest, DATA + 8), CONSTANT);
}

// The translator with a mistake in the one block; `mistake` is made behind it.
static void run_with(struct hart *hart, void *jit, void (*mistake)(struct hart *hart))
{
    bool here = hart->pc == WRONG;

    jit_run_block(hart, jit);
    if (here)
        mistake(hart);
}

static void change_register(struct hart *hart)
{
    hart->x[12]++;
}

static void run_wrong_register(struct hart *hart, void *jit)
{
    run_with(hart, jit, change_register);
}

static void test_register(void **state)
{
    struct guest *guest = *state;

    put_program(guest);
    verify_in(guest)->run_block = run_wrong_register;
    assert_true(has(run_to_difference(guest), "a2                  0000000000001000  "
                                              "0000000000001000  0000000000001001"));
}

static void change_flags(struct hart *hart)
{
    hart->fflags |= 1;
    hart->mepc = 4;
}

static void run_wrong_flags(struct hart *hart, void *jit)
{
    run_with(hart, jit, change_flags);
}

static void test_csrs(void **state)
{
    struct guest *guest = *state;
    const char *report;

    put_program(guest);
    verify_in(guest)->run_block = run_wrong_flags;
    report = run_to_difference(guest);
    assert_true(has(report, "fflags"));
    assert_true(has(report, "mepc"));
}

static void store_more(struct hart *hart)
{
    assert_true(hart_store(hart, DATA + 16, 4, 7) || hart->trap_cause == HART_CAUSE_LEAVE);
}

static void run_one_store_more(struct hart *hart, void *jit)
{
    run_with(hart, jit, store_more);
}

static void test_store_too_many(void **state)
{
    struct guest *guest = *state;
    const char *report;

    put_program(guest);
    verify_in(guest)->run_block = run_one_store_more;
    report = run_to_difference(guest);
    assert_true(has(report, "80200010  0000000000000000  0000000000000007"));
    assert_int_equal(read_u64(guest, DATA + 16), 0);
}

// Wrong where the TLB is hit, as inline code may be, and right where the access is called.
static void change_behind_tlb(struct hart *hart)
{
    const struct hart_tlb_entry *entry = &hart->tlb[hart_tlb_index(DATA)];

    if (entry->store == DATA)
        *(uint8_t *)hart_tlb_hva(entry, DATA + 24) = 9;
}

static void run_wrong_hit(struct hart *hart, void *jit)
{
    run_with(hart, jit, change_behind_tlb);
}

static void test_tlb_hit(void **state)
{
    struct guest *guest = *state;
    const char *report;

    put_program(guest);
    verify_in(guest)->run_block = run_wrong_hit;
    report = run_to_difference(guest);
    assert_true(has(report, "(only where accesses hit the TLB)"));
    assert_true(has(report, "80200018  0000000000000000  0000000000000009"));
    assert_int_equal(read_u64(guest, DATA + 24), 0);
}

static void run_nothing(struct hart *hart, void *jit)
{
    if (hart->pc != WRONG)
        jit_run_block(hart, jit);
}

static void test_standstill(void **state)
{
    struct guest *guest = *state;

    put_program(guest);
    verify_in(guest)->run_block = run_nothing;
    assert_true(has(run_to_difference(guest), "pc                  0000000080001010"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        guest_test(test_no_difference),  guest_test(test_spoilt_translation),
        guest_test(test_register),       guest_test(test_csrs),
        guest_test(test_store_too_many), guest_test(test_tlb_hit),
        guest_test(test_standstill),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
