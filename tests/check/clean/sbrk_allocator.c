// SPDX-License-Identifier: BSD-2-Clause
// Memory from sbrk() and mmap(), behind malloc's back.
// kind: none
#include "twin.h"
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int main(void)
{
    void *known = malloc(100);
    char *more = sbrk(100000);
    if (more != (void *)-1)
        memset(HIDE(more), 1, 100000);
    char *pages = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memset(HIDE(pages), 2, 65536);
    pages = mremap(pages, 65536, 1 << 20, MREMAP_MAYMOVE);
    HIDE(pages)[(1 << 20) - 1] = 3;
    void *other = malloc(200000);
    memset(HIDE(other), 4, 200000);
    free(other);
    free(known);
    return munmap(pages, 1 << 20);
}
