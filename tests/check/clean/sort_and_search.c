// SPDX-License-Identifier: BSD-2-Clause
// The functions of stdlib that call back, on blocks of exactly their size.
// kind: none
#include "twin.h"
#include <search.h>
#include <stdlib.h>

static int compare(const void *left, const void *right)
{
    const long a = *(const long *)left, b = *(const long *)right;
    return (a > b) - (a < b);
}

int main(void)
{
    void *root = NULL;
    for (size_t count = 0; count < 300; count = count * 2 + 1) {
        long *numbers = malloc(count * sizeof(long));
        for (size_t i = 0; i < count; i++)
            HIDE(numbers)[i] = (long)(i * 7919 % 1000);
        qsort(numbers, count, sizeof(long), compare);
        for (size_t i = 1; i < count; i++)
            if (numbers[i - 1] > numbers[i])
                return 1;
        if (count && !bsearch(&numbers[count / 2], numbers, count, sizeof(long), compare))
            return 2;
        if (count)
            tsearch(&numbers[0], &root, compare);
        if (count)
            tdelete(&numbers[0], &root, compare);
        free(numbers);
    }
    return root != NULL;
}
