// SPDX-License-Identifier: BSD-2-Clause
// A search that failed gives -1, and that is the index.
// kind: heap-buffer-underflow
// access: write 1
// object: 26 bytes, at -1
#include "twin.h"
#include <stdlib.h>
#include <string.h>

static int find(const char *text, char wanted)
{
    const char *at = strchr(text, wanted);
    return at ? (int)(at - text) : -1;
}

int main(void)
{
    char *flags = calloc(26, 1);  // @allocated
    int at = find(HIDE("abc"), 'z');
    if (TWIN(1, at >= 0))
        HIDE(flags)[at] = 1;  // @access
    free(flags);
    return 0;
}
