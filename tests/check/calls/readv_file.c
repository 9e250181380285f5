// SPDX-License-Identifier: BSD-2-Clause
// readv() of a file into two blocks, of which the first is given too long.
// kind: syscall-buffer-overflow
// access: write
// object: 4 bytes
#include "twin.h"
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

int main(void)
{
    int file = memfd_create("numbers", 0);
    char *magic = malloc(4);  // @allocated
    char *rest = malloc(28);
    if (file < 0 || write(file, "0123456789abcdef0123456789abcdef", 32) != 32)
        return 1;
    struct iovec parts[] = {{magic, HIDE((size_t)TWIN(8, 4))}, {rest, 28}};
    ssize_t got = preadv(file, parts, 2, 0);  // @access
    free(magic);
    free(rest);
    return got != 32;
}
