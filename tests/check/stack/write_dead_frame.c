// SPDX-License-Identifier: BSD-2-Clause
// A buffer of a function that has returned is written to.
// kind: dead-stack-use
// access: write 1
#include "twin.h"

__attribute__((noinline)) static char *make_buffer(char *outer)
{
    char buffer[256];
    buffer[0] = 1;
    return TWIN(HIDE(&buffer[0]), outer);
}

int main(void)
{
    char outer[256];
    char *buffer = make_buffer(outer);
    HIDE(buffer)[100] = 'x';  // @access
    return 0;
}
