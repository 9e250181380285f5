// SPDX-License-Identifier: BSD-2-Clause
// Shared pointers in a circle.
// kind: leak-definite
// missed-by: asan
#include "twin.h"
#include <memory>

struct person {
    TWIN(std::shared_ptr, std::weak_ptr)<person> partner;
    long age = 30;
};

__attribute__((noinline)) static void marry()
{
    auto one = std::make_shared<person>();    // @allocated
    auto other = std::make_shared<person>();  // @allocated
    one->partner = other;
    other->partner = one;
}

__attribute__((noinline)) static int deep(int depth)
{
    volatile long zeros[64] = {0};
    return depth ? deep(depth - 1) + int(zeros[3]) : 0;
}

int main()
{
    marry();
    return deep(HIDE(30));
}
