// SPDX-License-Identifier: BSD-2-Clause
// The element before the first of an array on the stack.
// kind: stack-buffer-overflow
// access: read 1
// missed-by: memcheck
#include "twin.h"

int main(void)
{
    char text[10] = "          ";
    int at = 9;
    while (at >= TWIN(-1, 1) && HIDE(&text[0])[at] == ' ')  // @access
        at--;
    USE(at);
    return 0;
}
