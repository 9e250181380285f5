// SPDX-License-Identifier: BSD-2-Clause
// A page is used after munmap().
// kind: wild-pointer
// access: write 1
#include "twin.h"
#include <stddef.h>
#include <sys/mman.h>

int main(void)
{
    char *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED)
        return 1;
    *HIDE(page) = 1;
    if (TWIN(1, 0))
        munmap(page, 4096);
    HIDE(page)[100] = 2;  // @access
    return 0;
}
