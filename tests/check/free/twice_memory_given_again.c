// SPDX-License-Identifier: BSD-2-Clause
// The second free() would free somebody else's object, which has the address by then.
// kind: double-free
// object: 72 bytes, at 0
#include "twin.h"
#include <stdlib.h>

int main(void)
{
    void *old = malloc(72);  // @allocated
    free(HIDE(old));         // @freed
    void *new = malloc(72);
    if (TWIN(1, 0))
        free(HIDE(old));  // @access
    free(HIDE(new));
    return 0;
}
