// SPDX-License-Identifier: BSD-2-Clause
// The entries of a folder, with a buffer's size taken from another one.
// kind: syscall-buffer-overflow or heap-buffer-overflow
// access: write
// object: 48 bytes
// missed-by: asan
#include "twin.h"
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(void)
{
    int folder = open("/", O_RDONLY | O_DIRECTORY);
    size_t bytes = TWIN(48, 4096);
    char *entries = malloc(bytes);                                                  // @allocated
    long got = syscall(SYS_getdents64, folder, HIDE(entries), HIDE((size_t)4096));  // @access
    free(entries);
    close(folder);
    return got <= 0;
}
