// SPDX-License-Identifier: BSD-2-Clause
// An object is deleted through a base without a virtual destructor: its member is not.
// kind: leak-definite or mismatched-free
// missed-by: asan
#include "twin.h"
#include <memory>

struct base {
    long id = 0;
    TWIN(, virtual) ~base() = default;
};

struct holder : base {  // @allocated, by its constructor
    std::unique_ptr<char[]> text{new char[64]};  // @allocated
};

__attribute__((noinline)) static void work()
{
    base *object = new holder;  // @allocated
    delete HIDE(object);  // @access
}

__attribute__((noinline)) static int deep(int depth)
{
    volatile long zeros[64] = {0};
    return depth ? deep(depth - 1) + int(zeros[3]) : 0;
}

int main()
{
    work();  // @access
    return deep(HIDE(30));
}
