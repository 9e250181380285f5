// SPDX-License-Identifier: BSD-2-Clause
// A buffer of the stack is cleared with a length that reaches the return address.
// kind: return-address-overwritten or stack-buffer-overflow
// only: O0
// missed-by: memcheck
#include "twin.h"
#include <string.h>

__attribute__((noinline)) static void clear(size_t bytes)
{
    char buffer[32];
    memset(HIDE(&buffer[0]), 'A', bytes);  // @access
    USE(buffer[3]);
}  // @access

int main(void)
{
    clear(HIDE((size_t)TWIN(64, 32)));
    return 0;
}
