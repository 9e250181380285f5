// SPDX-License-Identifier: BSD-2-Clause
// memcpy() within one buffer, where memmove() is meant.
// kind: overlapping-copy
#include "twin.h"
#include <stdlib.h>
#include <string.h>

int main(void)
{
    char *text = calloc(64, 1);
    strcpy(text, "abcdefghijklmnop");
    TWIN(memcpy, memmove)(HIDE(text) + 4, text, HIDE((size_t)17));  // @access
    free(text);
    return 0;
}
