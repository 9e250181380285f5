// SPDX-License-Identifier: BSD-2-Clause
// malloc(0) gives a pointer to nothing at all.
// kind: heap-buffer-overflow
// access: write 1
// object: 0 bytes, at 0
// missed-by: asan
#include "twin.h"
#include <stdlib.h>

int main(void)
{
    char *nothing = malloc(HIDE((size_t)TWIN(0, 1)));  // @allocated
    HIDE(nothing)[0] = 1;                              // @access
    free(nothing);
    return 0;
}
