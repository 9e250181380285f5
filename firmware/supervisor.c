// SPDX-License-Identifier: BSD-2-Clause
// supervisor: a guest in S-mode that has Strake allocate for it (include/strake/guest.h), resizes
// and frees, and uses what it freed. Where nothing is checked it says so and switches off.
#define STRAKE_GUEST_SUPERVISOR
#include "strake/guest.h"

#define SBI_SRST 0x53525354
#define SBI_DBCN 0x4442434e
#define DBCN_WRITE_BYTE 2

__asm__(".section .text.start, \"ax\"\n"
        ".globl _start\n"
        "_start:\n"
        "la sp, stack_end\n"
        "call start\n"
        ".bss\n"
        ".balign 16\n"
        ".skip 4096\n"
        "stack_end:\n"
        ".text\n");

void start(void);

static void print(const char *text)
{
    unsigned long value;

    for (; *text; text++)
        strake_guest_ecall(SBI_DBCN, DBCN_WRITE_BYTE, (unsigned char)*text, 0, &value);
}

static void shut_down(void)
{
    unsigned long value;

    strake_guest_ecall(SBI_SRST, 0, 0, 0, &value);
}

static long use(volatile long *object)
{
    object = strake_resize((void *)object, 2 * sizeof(*object));
    object[1] = 3;
    strake_free((void *)object);
    return object[1];  // used after it was freed
}

void start(void)
{
    long *object = strake_allocate(sizeof(*object), 64);

    if (object && strake_plain(object) == object)
        print("no identifier\n");
    print(object ? "checked\n" : "not checked\n");
    if (object)
        use(object);
    print("the end\n");
    shut_down();
}
