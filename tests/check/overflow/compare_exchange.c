// SPDX-License-Identifier: BSD-2-Clause
// A lock word that is not in the object: taken by compare and exchange.
// kind: heap-buffer-overflow
// object: 8 bytes, at 8
#include "twin.h"
#include <stdatomic.h>
#include <stdlib.h>

struct guarded {
    int value[2];
    atomic_int lock;
};

int main(void)
{
    struct guarded *guarded = calloc(1, TWIN(8, sizeof(*guarded)));  // @allocated
    int free_lock = 0;
    atomic_compare_exchange_strong(&HIDE(guarded)->lock, &free_lock, 1);  // @access
    free(guarded);
    return 0;
}
