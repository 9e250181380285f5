// SPDX-License-Identifier: BSD-2-Clause
// fstat() into a block of a pointer's size.
// kind: syscall-buffer-overflow or heap-buffer-overflow
// access: write
// missed-by: asan
// object: 8 bytes
#include "twin.h"
#include <stdlib.h>
#include <sys/stat.h>

int main(void)
{
    struct stat *about = malloc(TWIN(sizeof(about), sizeof(*about)));  // @allocated
    int failed = fstat(0, HIDE(about));                                // @access
    free(about);
    return failed != 0;
}
