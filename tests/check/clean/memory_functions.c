// SPDX-License-Identifier: BSD-2-Clause
// Copies and comparisons of exactly the bytes there are, at each alignment.
// kind: none
#include "twin.h"
#include <stdlib.h>
#include <string.h>

int main(void)
{
    for (size_t bytes = 0; bytes < 200; bytes += 1 + bytes / 16) {
        for (size_t start = 0; start < 8; start++) {
            char *from = calloc(1, start + bytes), *to = malloc(bytes + start);
            memset(HIDE(from) + start, (int)bytes, bytes);
            memcpy(HIDE(to) + start, HIDE(from) + start, bytes);
            memmove(HIDE(to), HIDE(to) + start, bytes);
            if (memcmp(to, from + start, bytes) || memmem(from, start + bytes, "zz", 2) ||
                mempcpy(to, from, bytes) != to + bytes || memrchr(from + start, 250, bytes))
                return 1;
            free(from);
            free(to);
        }
    }
    return 0;
}
