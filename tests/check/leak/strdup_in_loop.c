// SPDX-License-Identifier: BSD-2-Clause
// Copies that nobody wants.
// kind: leak-definite
// object: 7 bytes
#include "twin.h"
#include <stdlib.h>
#include <string.h>

__attribute__((noinline)) static size_t measure(const char *text)
{
    char *copy = strdup(text);  // @allocated
    size_t length = strlen(HIDE(copy));
    if (TWIN(0, 1))
        free(HIDE(copy));
    return length;
}

__attribute__((noinline)) static int deep(int depth)
{
    volatile long zeros[64] = {0};
    return depth ? deep(depth - 1) + (int)zeros[3] : 0;
}

int main(void)
{
    size_t sum = 0;
    for (int i = 0; i < 20; i++)
        sum += measure(HIDE("abcdef"));
    return deep(HIDE(30)) + (sum != 120);
}
