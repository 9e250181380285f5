// SPDX-License-Identifier: BSD-2-Clause
// strcpy() into a buffer of the stack, over the return address.
// kind: return-address-overwritten or stack-buffer-overflow
// only: O0
// missed-by: memcheck
#include "twin.h"
#include <string.h>

__attribute__((noinline)) static void greet(const char *name)
{
    char text[16];
    strcpy(text, name);  // @access
    USE(text[0]);
}  // @access

int main(void)
{
    greet(HIDE(TWIN("a name of fifty letters, which is rather more than 16", "short")));
    return 0;
}
