// SPDX-License-Identifier: BSD-2-Clause
// A single store hits the return address, and nothing between.
// kind: return-address-overwritten or stack-buffer-overflow
// only: O0
// missed-by: memcheck asan
#include "twin.h"

__attribute__((noinline)) static void nothing(void)
{
    USE(0);
}

__attribute__((noinline)) static void poke(long by)
{
    void **slot = (void **)__builtin_frame_address(0);
#ifdef __riscv
    slot -= 1;  // the return address is below the frame's own
#else
    slot += 1;
#endif
    char *address = *slot;
    nothing();
    *HIDE(slot) = address + by;  // @access
    nothing();
}  // @access

int main(void)
{
    poke(HIDE(TWIN(4L, 0L)));
    return 0;
}
