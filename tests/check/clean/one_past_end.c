// SPDX-License-Identifier: BSD-2-Clause
// Pointers to the end are made, compared and kept, and never used.
// kind: none
#include "twin.h"
#include <stdlib.h>

struct span {
    char *begin, *end;
};

static size_t span_bytes(struct span span)
{
    size_t bytes = 0;
    while (HIDE(span.begin) != span.end)
        bytes += *span.begin++ == 0;
    return bytes;
}

int main(void)
{
    struct span spans[33];
    for (size_t i = 0; i < 33; i++) {
        char *block = calloc(1, i);
        spans[i] = (struct span){block, block + i};
    }
    for (size_t i = 0; i < 33; i++)
        if (span_bytes(spans[i]) != i || spans[i].end - i != spans[i].begin)
            return 1;
    for (size_t i = 0; i < 33; i++)
        free(HIDE(spans[i].end) - i);
    return 0;
}
