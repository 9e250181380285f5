// SPDX-License-Identifier: BSD-2-Clause
// A name is made longer within what strdup() gave.
// kind: heap-buffer-overflow
// access: write 1
// object: 5 bytes, at 5
#include "twin.h"
#include <stdlib.h>
#include <string.h>

int main(void)
{
    char *name = strdup("name");  // @allocated
    size_t length = strlen(name);
    HIDE(name)[length] = 's';             // a name's plural
    HIDE(name)[length + TWIN(1, 0)] = 0;  // @access
    free(name);
    return 0;
}
