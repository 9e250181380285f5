// SPDX-License-Identifier: BSD-2-Clause
// snprintf() with a size that is not the buffer's.
// kind: heap-buffer-overflow
// access: write
// object: 16 bytes
#include "twin.h"
#include <stdio.h>
#include <stdlib.h>

int main(void)
{
    char *line = malloc(16);  // @allocated
    size_t room = HIDE((size_t)TWIN(64, 16));
    snprintf(HIDE(line), room, "%s %s", "from here", HIDE("to there"));  // @access
    free(line);
    return 0;
}
