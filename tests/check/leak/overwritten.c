// SPDX-License-Identifier: BSD-2-Clause
// The pointer in a static variable is overwritten by the next.
// kind: leak-definite
// object: 40 bytes
#include "twin.h"
#include <stdlib.h>

static int *current;

__attribute__((noinline)) static void renew(size_t count)
{
    if (TWIN(0, 1))
        free(HIDE(current));
    current = malloc(count * sizeof(int));  // @allocated
}

int main(void)
{
    renew(HIDE((size_t)10));
    renew(HIDE((size_t)20));
    renew(HIDE((size_t)30));
    free(HIDE(current));
    current = NULL;
    return 0;
}
