// SPDX-License-Identifier: BSD-2-Clause
// An array whose length is known at run time only.
// kind: stack-buffer-overflow
// access: write 8
// missed-by: memcheck strake
#include "twin.h"

__attribute__((noinline)) static void work(int count)
{
    long values[count];
    for (int i = 0; i TWIN(<=, <) count; i++)
        HIDE(&values[0])[i] = i;  // @access
}

int main(void)
{
    work(HIDE(12));
    return 0;
}
