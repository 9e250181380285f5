// SPDX-License-Identifier: BSD-2-Clause
// What alloca() gave is freed.
// kind: invalid-free
#include "twin.h"
#include <alloca.h>
#include <stdlib.h>

int main(void)
{
    size_t bytes = HIDE((size_t)100);
    char *block = TWIN(alloca(bytes), malloc(bytes));
    HIDE(block)[99] = 1;
    free(HIDE(block));  // @access
    return 0;
}
