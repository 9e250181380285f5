// SPDX-License-Identifier: BSD-2-Clause
// Behind the buffer that getline() allocated: its size is what was read.
// kind: heap-buffer-overflow
// access: write 1
// object: 120 bytes, at 120
// stdin: hello\n
#include "twin.h"
#include <stdio.h>
#include <stdlib.h>

int main(void)
{
    char *line = NULL;
    size_t room = 0;
    if (getline(&line, &room, stdin) < 0)  // @allocated
        return 1;
    HIDE(line)[room - TWIN(0, 1)] = 0;  // @access
    free(line);
    return 0;
}
