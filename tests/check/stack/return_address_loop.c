// SPDX-License-Identifier: BSD-2-Clause
// Words are written up the stack, one by one, past the frame.
// kind: return-address-overwritten or stack-buffer-overflow
// only: O0
// missed-by: memcheck
#include "twin.h"

__attribute__((noinline)) static void touch(long *words)
{
    USE(words);
}

__attribute__((noinline)) static long fill(long count)
{
    register long i;  // not in the frame
    long words[4];
    touch(words);
    for (i = 0; i < count; i++)
        HIDE(&words[0])[i] = 0x41414141;  // @access
    return HIDE(&words[0])[0];
}  // @access

int main(void)
{
    USE(fill(HIDE(TWIN(10L, 4L))));
    return 0;
}
