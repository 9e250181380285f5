// SPDX-License-Identifier: BSD-2-Clause
// An iterator is kept across push_back().
// kind: heap-use-after-free
// access: read 4
#include "twin.h"
#include <vector>

int main()
{
    std::vector<int> values;
    values.push_back(1);  // @allocated @freed
    auto first = values.begin();
    for (int i = 0; i < 100; i++)
        values.push_back(i);  // @freed
    if (TWIN(0, 1))
        first = values.begin();
    const int *place = HIDE(&*first);
    USE(*place);  // @access
    return 0;
}
