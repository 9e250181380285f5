// SPDX-License-Identifier: BSD-2-Clause
// A length that became negative.
// kind: heap-buffer-overflow or overlapping-copy
// object: 32 bytes
// missed-by: asan
#include "twin.h"
#include <stdlib.h>
#include <string.h>

int main(void)
{
    char *from = calloc(32, 1);
    char *to = malloc(32);  // @allocated
    int header = HIDE(40), all = HIDE(32);
    int length = all - header;
    if (TWIN(1, length > 0))
        memcpy(HIDE(to), HIDE(from), (size_t)length);  // @access
    free(from);
    free(to);
    return 0;
}
