// SPDX-License-Identifier: BSD-2-Clause
// The last one to drop a reference frees; the count is looked at again.
// kind: heap-use-after-free
// object: 16 bytes, at 0
#include "twin.h"
#include <stdatomic.h>
#include <stdlib.h>

struct shared {
    atomic_int references;
    long value;
};

static void put(struct shared *shared)
{
    if (atomic_fetch_sub(&HIDE(shared)->references, 1) == 1)  // @access
        free(HIDE(shared));                                   // @freed
}

int main(void)
{
    struct shared *shared = calloc(1, sizeof(*shared));  // @allocated
    atomic_init(&shared->references, TWIN(1, 2));
    put(shared);  // @freed
    put(shared);
    return 0;
}
