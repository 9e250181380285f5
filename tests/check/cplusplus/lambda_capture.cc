// SPDX-License-Identifier: BSD-2-Clause
// A function object captured a pointer to what is gone by the time of its call.
// kind: heap-use-after-free
// access: read 8
// object: 8 bytes, at 0
#include "twin.h"
#include <functional>
#include <memory>

static std::function<long()> make(std::unique_ptr<long> &owner)
{
    long *captured = HIDE(owner.get());
    return [captured] { return *captured; };  // @access
}

int main()
{
    auto owner = std::make_unique<long>(5);  // @allocated
    std::function<long()> later = make(owner);
    if (TWIN(1, 0))
        owner.reset();  // @freed
    long value = later();  // @access
    return TWIN(0, value != 5);
}
