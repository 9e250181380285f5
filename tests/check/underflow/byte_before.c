// SPDX-License-Identifier: BSD-2-Clause
// The byte before a string, looked at while blanks are cut off its end.
// kind: heap-buffer-underflow
// access: read 1
// object: 16 bytes, at -1
#include "twin.h"
#include <stdlib.h>
#include <string.h>

static void trim(char *text)
{
    char *end = text + strlen(text);
    while (TWIN(, end > text &&) HIDE(end)[-1] == ' ')  // @access
        *--end = 0;
}

int main(void)
{
    char *text = calloc(16, 1);  // @allocated
    memcpy(text, "    ", 4);
    trim(text);
    free(text);
    return 0;
}
