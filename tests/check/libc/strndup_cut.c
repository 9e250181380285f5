// SPDX-License-Identifier: BSD-2-Clause
// strndup() of fewer bytes; the old length is used for its end.
// kind: heap-buffer-overflow
// access: write 1
// object: 6 bytes, at 11
#include "twin.h"
#include <stdlib.h>
#include <string.h>

int main(void)
{
    const char *whole = HIDE("hello world");
    char *cut = strndup(whole, 5);            // @allocated
    HIDE(cut)[strlen(TWIN(whole, cut))] = 0;  // @access
    free(cut);
    return 0;
}
