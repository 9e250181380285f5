// SPDX-License-Identifier: BSD-2-Clause
// The bound of strncat() is what may be appended, not the size of the buffer.
// kind: heap-buffer-overflow
// access: write
// object: 20 bytes
#include "twin.h"
#include <stdlib.h>
#include <string.h>

int main(void)
{
    char *text = malloc(20);  // @allocated
    strcpy(text, "hello ");
    size_t bound = TWIN(20, 20 - strlen(text) - 1);
    strncat(HIDE(text), HIDE("world, and everyone in it"), HIDE(bound));  // @access
    free(text);
    return 0;
}
