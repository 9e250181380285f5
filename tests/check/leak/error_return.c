// SPDX-License-Identifier: BSD-2-Clause
// An early return forgets what was allocated before it.
// kind: leak-definite
// object: 77 bytes
#include "twin.h"
#include <stdlib.h>
#include <string.h>

__attribute__((noinline)) static int convert(const char *text)
{
    char *copy = malloc(77);  // @allocated
    strncpy(HIDE(copy), text, 76);
    if (*text == '#') {
        if (TWIN(0, 1))
            free(HIDE(copy));
        return -1;
    }
    free(HIDE(copy));
    return 0;
}

__attribute__((noinline)) static int deep(int depth)
{
    volatile long zeros[64] = {0};
    return depth ? deep(depth - 1) + (int)zeros[3] : 0;
}

int main(void)
{
    convert(HIDE("text"));
    convert(HIDE("# comment"));
    return deep(HIDE(30));
}
