// SPDX-License-Identifier: BSD-2-Clause
// operator[] of a vector behind its capacity.
// kind: heap-buffer-overflow
// access: read 4
// object: 40 bytes, at 40
#include "twin.h"
#include <vector>

static int last_of(const std::vector<int> &values)
{
    const int *data = HIDE(values.data());
    return data[values.size() - TWIN(0, 1)];  // @access
}

int main()
{
    std::vector<int> values(10, 7);  // @allocated
    USE(last_of(values));  // @access
    return 0;
}
