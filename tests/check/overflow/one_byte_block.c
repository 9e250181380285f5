// SPDX-License-Identifier: BSD-2-Clause
// The second byte of a block of one.
// kind: heap-buffer-overflow
// access: read 1
// object: 1 bytes, at 1
#include "twin.h"
#include <stdbool.h>
#include <stdlib.h>

int main(void)
{
    bool *flag = calloc(1, sizeof(bool));  // @allocated
    bool *other = HIDE(flag) + TWIN(1, 0);
    int is_set = *other;  // @access
    USE(is_set);
    free(flag);
    return 0;
}
