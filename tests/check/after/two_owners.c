// SPDX-License-Identifier: BSD-2-Clause
// Two owners of one buffer; the second writes after the first has freed it.
// kind: heap-use-after-free
// access: write 1
// object: 100 bytes, at 10
#include "twin.h"
#include <stdlib.h>
#include <string.h>

struct owner {
    char *buffer;
};

static void owner_close(struct owner *owner)
{
    free(owner->buffer);  // @freed
    owner->buffer = NULL;
}

int main(void)
{
    struct owner first = {malloc(100)};  // @allocated
    struct owner second = {HIDE(first.buffer)};
    if (TWIN(1, 0))
        owner_close(&first);
    HIDE(second.buffer)[10] = 1;  // @access
    if (TWIN(0, 1))
        owner_close(&first);
    return 0;
}
