// SPDX-License-Identifier: BSD-2-Clause
// Sizes of nothing and of everything, and NULL for all that takes it.
// kind: none
#include "twin.h"
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>

int main(void)
{
    free(HIDE((void *)NULL));
    void *nothing = malloc(HIDE((size_t)0)), *other = calloc(HIDE((size_t)0), 10);
    if (nothing && nothing == other)
        return 1;
    nothing = realloc(nothing, 5);
    free(nothing);
    free(other);
    errno = 0;
    if (malloc(HIDE((size_t)PTRDIFF_MAX)) || errno != ENOMEM)
        return 2;
    if (calloc(HIDE((size_t)1 << 33), (size_t)1 << 33) || malloc(HIDE(SIZE_MAX)))
        return 3;
    char *kept = realloc(HIDE((void *)NULL), 10);
    if (realloc(kept, HIDE(SIZE_MAX / 2 + 10)) || reallocarray(kept, HIDE(SIZE_MAX / 2), 4))
        return 4;
    HIDE(kept)[9] = 1;  // still there
    free(kept);
    void *aligned = (void *)1;
    if (posix_memalign(&aligned, HIDE((size_t)3), 10) != EINVAL || aligned != (void *)1)
        return 5;
    return 0;
}
