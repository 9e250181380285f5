// SPDX-License-Identifier: BSD-2-Clause
// strcpy() of a string's end over its beginning.
// kind: overlapping-copy
#include "twin.h"
#include <stdlib.h>
#include <string.h>

int main(void)
{
    char *text = strdup(HIDE("   trimmed"));
    if (TWIN(1, 0))
        strcpy(HIDE(text), HIDE(text) + 3);  // @access
    else
        memmove(text, text + 3, strlen(text + 3) + 1);
    int wrong = TWIN(0, text[0] != 't');
    free(text);
    return wrong;
}
