// SPDX-License-Identifier: BSD-2-Clause
// realloc() makes a block smaller; its old length is used.
// kind: heap-buffer-overflow
// access: read 1
// object: 10 bytes, at 19
#include "twin.h"
#include <stdlib.h>
#include <string.h>

int main(void)
{
    size_t length = HIDE((size_t)20);
    char *text = malloc(length);
    memset(text, 'a', length);
    text = realloc(text, 10);  // @allocated
    if (TWIN(0, 1))
        length = 10;
    char last = HIDE(text)[length - 1];  // @access
    free(text);
    return last != 'a';
}
