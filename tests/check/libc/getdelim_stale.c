// SPDX-License-Identifier: BSD-2-Clause
// The address of a line is kept while getline() makes its buffer larger.
// kind: use-after-realloc or heap-use-after-free
// access: read 1
// object: 120 bytes, at 0
#include "twin.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char text[300] = "a short line\n";

int main(void)
{
    char *line = NULL, *first = NULL;
    size_t room = 0;
    memset(text + strlen(text), 'x', 200);
    FILE *input = fmemopen(text, strlen(text), "r");
    while (getline(&line, &room, input) > 0)  // @allocated @freed
        if (!first || TWIN(0, 1))
            first = line;
    USE(HIDE(first)[0]);  // @access
    free(line);
    fclose(input);
    return 0;
}
