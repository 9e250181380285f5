// SPDX-License-Identifier: BSD-2-Clause
// Tail calls, functions through tables, and returns that are none of a call's.
// kind: none
#include "twin.h"
#include <setjmp.h>
#include <stdlib.h>

typedef long (*function)(long, const void *);

static long down(long value, const void *table)
{
    const function *functions = table;
    return value <= 0 ? value : HIDE(functions[value % 3])(value - 1, table);
}

static long twice(long value, const void *table)
{
    const function *functions = table;
    return value <= 0 ? value : HIDE(functions[(value + 1) % 3])(value - 2, table);
}

static long labels(long value, const void *table)
{
    static const void *const places[] = {&&even, &&odd};
    goto *HIDE(places[value & 1]);
even:
    return down(value - 1, table);
odd:
    return twice(value - 1, table);
}

int main(void)
{
    const function table[] = {down, twice, labels};
    for (long i = 0; i < 200; i++)
        if (down(HIDE(i), table) > 0)
            return 1;
    return 0;
}
