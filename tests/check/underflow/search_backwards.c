// SPDX-License-Identifier: BSD-2-Clause
// Searches backwards for a separator that is not there.
// kind: heap-buffer-underflow
// access: read 1
// object: 9 bytes, at -1
#include "twin.h"
#include <stdlib.h>
#include <string.h>

static const char *base_name(const char *path)
{
    const char *at = path + strlen(path);
    while (TWIN(1, at > path) && *HIDE(at - 1) != '/')  // @access
        at--;
    return at;
}

int main(void)
{
    char *path = malloc(9);  // @allocated
    memcpy(path, "file.txt", 9);
    const char *name = base_name(path);
    USE(name);
    free(path);
    return 0;
}
