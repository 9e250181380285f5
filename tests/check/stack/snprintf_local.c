// SPDX-License-Identifier: BSD-2-Clause
// snprintf() into an array on the stack, told a wrong size.
// kind: stack-buffer-overflow
// access: write
// missed-by: memcheck
#include "twin.h"
#include <stdio.h>

__attribute__((noinline)) static void show(int value)
{
    char text[16];
    snprintf(HIDE(&text[0]), HIDE((size_t)TWIN(32, 16)), "the value is %d", value);  // @access
    USE(text[0]);
}

int main(void)
{
    show(HIDE(12345));
    return 0;
}
