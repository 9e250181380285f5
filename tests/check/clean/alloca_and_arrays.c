// SPDX-License-Identifier: BSD-2-Clause
// alloca() and arrays of variable length, large and small, in loops.
// kind: none
#include "twin.h"
#include <alloca.h>
#include <string.h>

__attribute__((noinline)) static int work(int bytes)
{
    char array[bytes + 1];
    char *more = alloca((size_t)bytes * 2 + 1);
    memset(HIDE(&array[0]), 1, (size_t)bytes + 1);
    memset(HIDE(more), 2, (size_t)bytes * 2 + 1);
    for (int i = 0; i < 3; i++) {
        char inner[bytes / 2 + 1];
        HIDE(&inner[0])[bytes / 2] = 3;
    }
    return array[bytes] + more[bytes * 2];
}

int main(void)
{
    int sum = 0;
    for (int bytes = 0; bytes < 20000; bytes = bytes * 3 + 1)
        sum += work(HIDE(bytes)) == 3;
    return sum != 10;
}
