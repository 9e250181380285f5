// SPDX-License-Identifier: BSD-2-Clause
// The result of a realloc() that failed replaces the pointer.
// kind: leak-definite
// object: 56 bytes
#include "twin.h"
#include <stdint.h>
#include <stdlib.h>

static char *buffer;

int main(void)
{
    buffer = malloc(56);  // @allocated
    char *larger = realloc(HIDE(buffer), HIDE((size_t)PTRDIFF_MAX));
    if (TWIN(1, larger != NULL))
        buffer = larger;
    larger = NULL;
    free(HIDE(buffer));
    buffer = NULL;
    return 0;
}
