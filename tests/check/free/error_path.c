// SPDX-License-Identifier: BSD-2-Clause
// The error path frees what the callee has already freed.
// kind: double-free
// object: 64 bytes, at 0
#include "twin.h"
#include <stdlib.h>

static int parse(char *buffer, const char *text)
{
    if (!*text) {
        if (TWIN(1, 0))
            free(buffer);  // @freed
        return -1;
    }
    buffer[0] = *text;
    return 0;
}

int main(void)
{
    char *buffer = malloc(64);  // @allocated
    if (parse(HIDE(buffer), HIDE("")) < 0) {
        free(HIDE(buffer));  // @access
        return 0;
    }
    free(buffer);
    return 1;
}
