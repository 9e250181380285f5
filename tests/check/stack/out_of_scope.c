// SPDX-License-Identifier: BSD-2-Clause
// A variable of an inner block, used after the block.
// kind: dead-stack-use
// access: read 4
// needs: tagging
// missed-by: memcheck
#include "twin.h"

int main(void)
{
    int outer = 1, *kept;
    {
        int inner[4] = {1, 2, 3, 4};
        kept = TWIN(HIDE(&inner[2]), HIDE(&outer));
    }
    USE(*HIDE(kept));  // @access
    return 0;
}
