// SPDX-License-Identifier: BSD-2-Clause
// An allocation that is too large fails, and is not looked at.
// kind: null-dereference
// access: write 1
#include "twin.h"
#include <stdint.h>
#include <stdlib.h>

int main(void)
{
    char *block = malloc(HIDE((size_t)PTRDIFF_MAX));
    if (TWIN(1, block != NULL))
        *HIDE(block) = 1;  // @access
    free(block);
    return 0;
}
