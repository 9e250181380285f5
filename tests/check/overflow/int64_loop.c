// SPDX-License-Identifier: BSD-2-Clause
// A hundred numbers of eight bytes into room for fifty.
// kind: heap-buffer-overflow
// access: write 8
// object: 400 bytes, at 400
#include "twin.h"
#include <stdint.h>
#include <stdlib.h>

int main(void)
{
    int64_t source[100] = {0};
    int64_t *data = malloc(TWIN(50, 100) * sizeof(int64_t));  // @allocated
    for (size_t i = 0; i < 100; i++)
        HIDE(data)[i] = HIDE(&source[0])[i];  // @access
    free(data);
    return 0;
}
