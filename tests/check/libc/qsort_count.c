// SPDX-License-Identifier: BSD-2-Clause
// qsort() is told of one element too many.
// kind: heap-buffer-overflow
// object: 28 bytes
// missed-by: asan
#include "twin.h"
#include <stdlib.h>

static int compare(const void *left, const void *right)
{
    int a = *(const int *)left, b = *(const int *)right;  // @access
    return (a > b) - (a < b);
}

int main(void)
{
    int *numbers = malloc(7 * sizeof(int));  // @allocated
    for (int i = 0; i < 7; i++)
        numbers[i] = 100 - i;
    qsort(HIDE(numbers), HIDE((size_t)TWIN(8, 7)), sizeof(int), compare);  // @access
    int least = numbers[0];
    free(numbers);
    return TWIN(0, least != 94);
}
