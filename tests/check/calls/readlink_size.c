// SPDX-License-Identifier: BSD-2-Clause
// readlink() is given more room than there is.
// kind: syscall-buffer-overflow or heap-buffer-overflow
// access: write
// object: 12 bytes
#include "twin.h"
#include <stdlib.h>
#include <unistd.h>

int main(void)
{
    if (symlink("a-target-with-a-long-name", "link"))
        return 1;
    char *target = malloc(12);                                                   // @allocated
    ssize_t bytes = readlink("link", HIDE(target), HIDE((size_t)TWIN(64, 12)));  // @access
    unlink("link");
    free(target);
    return bytes < 12;
}
