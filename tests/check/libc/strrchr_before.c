// SPDX-License-Identifier: BSD-2-Clause
// What follows the last slash, by a pointer to one before the first letter.
// kind: heap-buffer-underflow
// access: read 1
// object: 5 bytes, at -1
#include "twin.h"
#include <stdlib.h>
#include <string.h>

int main(void)
{
    char *path = strdup("file");  // @allocated
    char *slash = strrchr(HIDE(path), '/');
    char *before = slash ? slash : HIDE(path) - 1;
    int is_hidden = TWIN(1, slash != NULL) && *HIDE(before) == '.';  // @access
    USE(is_hidden);
    free(path);
    return 0;
}
