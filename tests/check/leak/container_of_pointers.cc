// SPDX-License-Identifier: BSD-2-Clause
// A container of pointers is destroyed, what they point to is not.
// kind: leak-definite
// object: 48 bytes
#include "twin.h"
#include <vector>

struct event {
    double values[6];
};

__attribute__((noinline)) static void work()
{
    std::vector<event *> events;
    for (int i = 0; i < 3; i++)
        events.push_back(new event{{1.0 * i}});  // @allocated
    if (TWIN(0, 1))
        for (event *one : events)
            delete HIDE(one);
}

__attribute__((noinline)) static int deep(int depth)
{
    volatile long zeros[64] = {0};
    return depth ? deep(depth - 1) + int(zeros[3]) : 0;
}

int main()
{
    work();
    return deep(HIDE(30));
}
