// SPDX-License-Identifier: BSD-2-Clause
// The length of a string that was freed.
// kind: heap-use-after-free
// access: read
// object: 6 bytes
#include "twin.h"
#include <stdlib.h>
#include <string.h>

int main(void)
{
    char *text = strdup(HIDE("spoon"));  // @allocated
    if (TWIN(1, 0))
        free(HIDE(text));                // @freed
    size_t length = strlen(HIDE(text));  // @access
    USE(length);
    if (TWIN(0, 1))
        free(text);
    return 0;
}
