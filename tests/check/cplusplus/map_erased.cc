// SPDX-License-Identifier: BSD-2-Clause
// A reference to a map's value, which is erased.
// kind: heap-use-after-free
// access: write 4
#include "twin.h"
#include <map>

int main()
{
    std::map<int, int> ages;
    ages[1] = 20;  // @allocated
    ages[2] = 30;
    int *age = HIDE(&ages[1]);
    if (TWIN(1, 0))
        ages.erase(1);  // @freed
    *age = 21;          // @access
    return 0;
}
