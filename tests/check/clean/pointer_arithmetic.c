// SPDX-License-Identifier: BSD-2-Clause
// Pointers are added to and taken from each other as numbers.
// kind: none
#include "twin.h"
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

int main(void)
{
    int *numbers = malloc(100 * sizeof(int));
    uintptr_t base = (uintptr_t)HIDE(numbers);
    for (uintptr_t at = base; at < base + 400; at += sizeof(int))
        *(int *)at = (int)((at - base) / 4);
    int *end = numbers + 100;
    ptrdiff_t count = HIDE(end) - HIDE(numbers);
    int sum = 0;
    for (ptrdiff_t i = -count; i < 0; i++)  // from the end, by negative indices
        sum += end[i];
    uintptr_t middle = base / 2 + ((uintptr_t)end) / 2 + (base & (uintptr_t)end & 1);
    sum += *(int *)(HIDE(middle) & ~(uintptr_t)3) == 50;
    intptr_t half = (intptr_t)(base >> 1);  // and back
    sum += ((int *)((uintptr_t)HIDE(half) << 1 | (base & 1)))[1];
    free((void *)HIDE(base));
    return sum != 4950 + 1 + 1;
}
