// SPDX-License-Identifier: BSD-2-Clause
// Output through the ns16550a, the end through the test device, and the book-keeping of checks.
#include "firmware.h"

#define UART ((volatile uint8_t *)0x10000000ul)
#define UART_LSR 5
#define UART_LSR_THRE 0x20
#define TEST_DEVICE ((volatile uint32_t *)0x00100000ul)
#define TEST_PASS 0x5555u
#define TEST_FAIL 0x3333u
#define FAILURES_PRINTED_MAX 100
#define INSN_ECALL 0x73

extern struct test_case cases_begin[], cases_end[];
uint64_t firmware_checks;  // also counted by firmware_case_check
static uint64_t failures, group_checks, group_failures;
static const char *group_name;

_Noreturn void firmware_main(void);
_Noreturn void firmware_unexpected_trap(uint64_t cause, uint64_t epc, uint64_t tval);
void firmware_case_failed(const struct test_case *test, uint64_t got, uint64_t a1, uint64_t a2,
                          uint64_t a3, uint64_t want);

void print(const char *text)
{
    for (; *text; text++) {
        while (!(UART[UART_LSR] & UART_LSR_THRE))
            ;
        *UART = (uint8_t)*text;
    }
}

static void print_number(uint64_t value, unsigned base)
{
    char text[24], *p = text + sizeof(text);

    *--p = 0;
    do
        *--p = "0123456789abcdef"[value % base];
    while (value /= base);
    print(p);
}

void print_hex(uint64_t value)
{
    print("0x");
    print_number(value, 16);
}

void print_decimal(uint64_t value)
{
    print_number(value, 10);
}

_Noreturn void finish(unsigned code)
{
    *TEST_DEVICE = code ? TEST_FAIL | code << 16 : TEST_PASS;
    for (;;)
        __asm__ volatile("wfi");
}

static void end_group(void)
{
    if (group_name) {
        print(failures == group_failures ? "ok   " : "FAIL ");
        print(group_name);
        print(": ");
        print_decimal(firmware_checks - group_checks);
        print(" checks\n");
    }
}

void group(const char *name)
{
    end_group();
    group_name = name;
    group_checks = firmware_checks;
    group_failures = failures;
}

// Returns whether the failure may be printed: one broken instruction can fail thousands of checks.
static bool count_failure(void)
{
    if (++failures == FAILURES_PRINTED_MAX)
        print("     (further failures are counted only)\n");
    return failures < FAILURES_PRINTED_MAX;
}

static void print_mismatch(uint64_t got, uint64_t want)
{
    print(": expected ");
    print_hex(want);
    print(", got ");
    print_hex(got);
    print("\n");
}

void check_row(const char *what, uint64_t row, uint64_t got, uint64_t want)
{
    firmware_checks++;
    if (got == want || !count_failure())
        return;
    print("     ");
    print(what);
    print(" [");
    print_decimal(row);
    print("]");
    print_mismatch(got, want);
}

void check(const char *what, uint64_t got, uint64_t want)
{
    firmware_checks++;
    if (got == want || !count_failure())
        return;
    print("     ");
    print(what);
    print_mismatch(got, want);
}

void firmware_case_failed(const struct test_case *test, uint64_t got, uint64_t a1, uint64_t a2,
                          uint64_t a3, uint64_t want)
{
    if (!count_failure())
        return;
    print("     ");
    print(test->name);
    print(" (a1 ");
    print_hex(a1);
    print(", a2 ");
    print_hex(a2);
    print(", a3 ");
    print_hex(a3);
    print(")");
    print_mismatch(got, want);
}

_Noreturn void firmware_unexpected_trap(uint64_t cause, uint64_t epc, uint64_t tval)
{
    print("FAIL unexpected trap: cause ");
    print_hex(cause);
    print(", epc ");
    print_hex(epc);
    print(", tval ");
    print_hex(tval);
    print("\n");
    finish(2);
}

static void mark_ran(const char *stub)
{
    for (struct test_case *test = cases_begin; test < cases_end; test++)
        if (test->entry == stub)
            test->ran = 1;
}

struct firmware_outcome run_at(enum mode mode, const char *stub, uint64_t offset, uint64_t a0,
                               uint64_t a1, uint64_t a2)
{
    struct firmware_entry entry = {(uint64_t)stub + offset, (uint64_t)mode << 11, {a0, a1, a2}};
    struct firmware_outcome outcome;

    mark_ran(stub);
    firmware_enter(&entry, &outcome);
    return outcome;
}

struct firmware_outcome run_raw(enum mode mode, uint32_t raw)
{
    static uint16_t code[8] __attribute__((aligned(8)));
    unsigned halves = (raw & 3) == 3 ? 2 : 1;

    code[0] = (uint16_t)raw;
    code[1] = (uint16_t)(raw >> 16);
    code[halves] = INSN_ECALL;
    code[halves + 1] = 0;
    __asm__ volatile("fence.i" ::: "memory");
    return run(mode, (const char *)code, 0, 0);
}

bool completed(const struct firmware_outcome *outcome)
{
    return outcome->cause == CAUSE_ECALL_U || outcome->cause == CAUSE_ECALL_S ||
           outcome->cause == CAUSE_ECALL_M;
}

void check_cause(const char *what, struct firmware_outcome outcome, uint64_t cause)
{
    check(what, completed(&outcome) ? CAUSE_NONE : outcome.cause, cause);
}

void check_trap(const char *what, struct firmware_outcome outcome, uint64_t cause, uint64_t tval)
{
    check_cause(what, outcome, cause);
    check(what, outcome.tval, tval);
}

__attribute__((weak)) void hart_main(unsigned hart)
{
    (void)hart;
}

static void check_every_case_ran(void)
{
    for (const struct test_case *test = cases_begin; test < cases_end; test++)
        if (!test->ran && count_failure()) {
            print("     never ran: ");
            print(test->name);
            print("\n");
        }
}

_Noreturn void firmware_main(void)
{
    test_main();
    group("every case ran");
    check_every_case_ran();
    group(NULL);
    print_decimal(firmware_checks);
    print(" checks, ");
    print_decimal(failures);
    print(" failed\n");
    finish(failures ? 1 : 0);
}
