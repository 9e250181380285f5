// SPDX-License-Identifier: BSD-2-Clause
// new and free().
// kind: mismatched-free
// object: 4 bytes
#include "twin.h"
#include <cstdlib>

int main()
{
    int *number = new int(5);  // @allocated
    if (TWIN(1, 0))
        std::free(HIDE(number));  // @access
    else
        delete HIDE(number);
    return 0;
}
