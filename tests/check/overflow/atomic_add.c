// SPDX-License-Identifier: BSD-2-Clause
// An atomic operation behind the block.
// kind: heap-buffer-overflow
// object: 24 bytes, at 24
#include "twin.h"
#include <stdatomic.h>
#include <stdlib.h>

int main(void)
{
    atomic_long *counters = calloc(3, sizeof(*counters));  // @allocated
    for (int i = 0; i < TWIN(4, 3); i++)
        atomic_fetch_add(&HIDE(counters)[i], 1);  // @access
    free(counters);
    return 0;
}
