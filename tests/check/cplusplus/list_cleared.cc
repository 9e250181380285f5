// SPDX-License-Identifier: BSD-2-Clause
// A pointer to an element of a list that was cleared.
// kind: heap-use-after-free
// access: read 8
#include "twin.h"
#include <list>

int main()
{
    std::list<long> queue;
    queue.push_back(5);  // @allocated
    const long *front = HIDE(&queue.front());
    if (TWIN(1, 0))
        queue.clear();  // @freed
    USE(*front);        // @access
    return 0;
}
