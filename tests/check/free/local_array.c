// SPDX-License-Identifier: BSD-2-Clause
// An array on the stack is freed.
// kind: invalid-free
#include "twin.h"
#include <stdlib.h>
#include <string.h>

int main(void)
{
    char local[32];
    size_t need = HIDE((size_t)TWIN(20, 40));
    char *buffer = need <= sizeof(local) ? local : malloc(need);
    memset(HIDE(buffer), 0, need);
    free(HIDE(buffer));  // @access
    return 0;
}
