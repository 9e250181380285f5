// SPDX-License-Identifier: BSD-2-Clause
// A page from mmap() is freed instead of unmapped.
// kind: invalid-free
#include "twin.h"
#include <stdlib.h>
#include <sys/mman.h>

int main(void)
{
    char *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED)
        return 1;
    HIDE(page)[16] = 1;
    if (TWIN(1, 0))
        free(HIDE(page + 16));  // @access
    munmap(page, 4096);
    return 0;
}
