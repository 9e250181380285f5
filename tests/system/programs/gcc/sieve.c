// SPDX-License-Identifier: BSD-2-Clause
#include "sieve.h"

#include <stdlib.h>

size_t sieve_count(size_t limit)
{
    unsigned char *composite = calloc(limit, 1);
    size_t count = 0;
    for (size_t n = 2; composite && n < limit; n++) {
        if (composite[n])
            continue;
        count++;
        for (size_t multiple = n * n; multiple < limit; multiple += n)
            composite[multiple] = 1;
    }
    free(composite);
    return count;
}
