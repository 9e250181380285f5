// SPDX-License-Identifier: BSD-2-Clause
// The same on the stack, towards lower addresses.
// kind: overlapping-copy
#include "twin.h"
#include <string.h>

int main(void)
{
    char buffer[128] = {0};
    for (int i = 0; i < 128; i++)
        buffer[i] = (char)i;
    TWIN(memcpy, memmove)(HIDE(buffer + 0), buffer + 1, HIDE((size_t)100));  // @access
    USE(buffer[5]);
    return 0;
}
