// SPDX-License-Identifier: BSD-2-Clause
// A smart pointer to one object holds an array.
// kind: mismatched-free
// object: 32 bytes
#include "twin.h"
#include <memory>

int main()
{
    long *numbers = new long[4];  // @allocated
    std::unique_ptr<TWIN(long, long[])> holder(HIDE(numbers));
    holder.reset();  // @access
    return 0;
}
