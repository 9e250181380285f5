// SPDX-License-Identifier: BSD-2-Clause
// A static array is freed.
// kind: invalid-free
#include "twin.h"
#include <stdlib.h>

static char table[64];

int main(void)
{
    char *used = HIDE(table);
    used[0] = 1;
    if (TWIN(1, used != table))
        free(HIDE(used));  // @access
    return 0;
}
