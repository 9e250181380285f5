// SPDX-License-Identifier: BSD-2-Clause
// A pointer went through an int.
// kind: wild-pointer
// access: read 8
// missed-by: asan
#include "twin.h"
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>

int main(void)
{
    long *page = mmap((void *)0x2345670000, 4096, PROT_READ | PROT_WRITE,  // above 4 GiB
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    if (page == MAP_FAILED)
        return 1;
    TWIN(uint32_t, uint64_t) number = (TWIN(uint32_t, uint64_t))(uintptr_t)page;
    long *back = (long *)(uintptr_t)HIDE(number);
    USE(*HIDE(back));  // @access
    munmap(page, 4096);
    return 0;
}
