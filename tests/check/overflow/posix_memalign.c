// SPDX-License-Identifier: BSD-2-Clause
// Behind a page that posix_memalign() gave.
// kind: heap-buffer-overflow
// access: read 4
// object: 4096 bytes, at 4096
#include "twin.h"
#include <stdint.h>
#include <stdlib.h>

int main(void)
{
    void *page;
    if (posix_memalign(&page, 4096, 4096))  // @allocated
        return 1;
    uint32_t *words = page;
    words[HIDE(1023)] = 5;
    uint32_t *last = HIDE(words) + TWIN(1024, 1023);
    USE(*last);  // @access
    free(page);
    return 0;
}
