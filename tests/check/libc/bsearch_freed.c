// SPDX-License-Identifier: BSD-2-Clause
// bsearch() in an array that was freed.
// kind: heap-use-after-free
// access: read 8
// object: 80 bytes
#include "twin.h"
#include <stdlib.h>

static int compare(const void *left, const void *right)
{
    long a = *(const long *)left;
    long b = *(const long *)right;  // @access
    return (a > b) - (a < b);
}

int main(void)
{
    long *sorted = calloc(10, sizeof(long));  // @allocated
    long wanted = 5;
    if (TWIN(1, 0))
        free(HIDE(sorted));  // @freed
    void *found = bsearch(&wanted, HIDE(sorted), 10, sizeof(long), compare);
    if (TWIN(0, 1))
        free(sorted);
    return found != NULL;
}
