// SPDX-License-Identifier: BSD-2-Clause
// A shared pointer that deletes what came from a C library.
// kind: mismatched-free
// object: 12 bytes
#include "twin.h"
#include <cstdlib>
#include <memory>

static int *c_library_make()
{
    return static_cast<int *>(calloc(3, sizeof(int)));  // @allocated
}

int main()
{
    {
        std::shared_ptr<int> held(HIDE(c_library_make()), TWIN(std::default_delete<int>(), free));
        std::shared_ptr<int> other = held;
        held.reset();
    }  // @access
    return 0;
}
