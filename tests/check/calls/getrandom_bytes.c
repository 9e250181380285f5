// SPDX-License-Identifier: BSD-2-Clause
// getrandom() of bits instead of bytes.
// kind: syscall-buffer-overflow or heap-buffer-overflow
// access: write
// object: 32 bytes
// missed-by: asan
#include "twin.h"
#include <stdlib.h>
#include <sys/random.h>

int main(void)
{
    unsigned char *key = malloc(32);                                     // @allocated
    ssize_t got = getrandom(HIDE(key), HIDE((size_t)TWIN(256, 32)), 0);  // @access
    free(key);
    return got < 32;
}
