// SPDX-License-Identifier: BSD-2-Clause
// System calls that fail, and one that has nothing to do.
// kind: none
#include "twin.h"
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

int main(void)
{
    int ends[2];
    char *byte = malloc(1);
    if (pipe(ends) || write(ends[1], "ab", 2) != 2)
        return 1;
    ssize_t got = read(ends[0], byte, HIDE((size_t)1));
    if (read(-1, HIDE(byte), 1) != -1 || errno != EBADF)
        return 2;
    if (read(ends[0], HIDE((char *)NULL), 0) != 0)
        return 3;
    free(byte);
    return got != 1;
}
