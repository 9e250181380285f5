// SPDX-License-Identifier: BSD-2-Clause
// A page of valloc(), one word too far.
// kind: heap-buffer-overflow
// access: write 8
// object: 4096 bytes, at 4096
#include "twin.h"
#include <malloc.h>
#include <stdlib.h>

int main(void)
{
    long *page = valloc(4096);                               // @allocated
    HIDE(page)[HIDE(4096 / sizeof(long) - TWIN(0, 1))] = 1;  // @access
    free(page);
    return 0;
}
