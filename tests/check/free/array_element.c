// SPDX-License-Identifier: BSD-2-Clause
// Elements of one block are freed one by one.
// kind: interior-free
// object: 320 bytes, at 32
#include "twin.h"
#include <stdlib.h>

int main(void)
{
    char *pool = calloc(10, 32);  // @allocated
    char *elements[10];
    for (int i = 0; i < 10; i++)
        elements[i] = pool + 32 * i;
    for (int i = TWIN(1, 9); i < HIDE(10); i++)
        free(HIDE(elements[TWIN(i, 0)]));  // @access
    return 0;
}
