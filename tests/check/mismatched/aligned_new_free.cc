// SPDX-License-Identifier: BSD-2-Clause
// new of an over-aligned type and free().
// kind: mismatched-free
// object: 64 bytes
#include "twin.h"
#include <cstdlib>

struct alignas(64) line {
    char bytes[64];
};

int main()
{
    line *one = new line;  // @allocated
    HIDE(one)->bytes[63] = 1;
    if (TWIN(1, 0))
        free(HIDE(one));  // @access
    else
        delete HIDE(one);
    return 0;
}
