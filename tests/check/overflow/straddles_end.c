// SPDX-License-Identifier: BSD-2-Clause
// An access of eight bytes that begins inside and ends outside.
// kind: heap-buffer-overflow
// access: read 8
// object: 12 bytes, at 8
#include "twin.h"
#include <stdint.h>
#include <stdlib.h>

int main(void)
{
    uint64_t *words = malloc(TWIN(12, 16));  // @allocated
    words[0] = 1;
    uint64_t second = HIDE(words)[1];  // @access
    USE(second);                       // @access
    free(words);
    return 0;
}
