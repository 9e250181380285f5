// SPDX-License-Identifier: BSD-2-Clause
// getcwd() is told of more room than there is.
// kind: heap-buffer-overflow or syscall-buffer-overflow
// access: write
// object: 1 bytes
#include "twin.h"
#include <stdlib.h>
#include <unistd.h>

int main(void)
{
    char *folder = malloc(1);                                       // @allocated
    char *got = getcwd(HIDE(folder), HIDE((size_t)TWIN(4096, 1)));  // @access
    USE(got);
    free(folder);
    return 0;
}
