// SPDX-License-Identifier: BSD-2-Clause
// A handler of exceptions deletes what the function deleted before it threw.
// kind: double-free
// object: 400 bytes, at 0
#include "twin.h"
#include <stdexcept>

static void work(int *data, bool fails)
{
    if (fails) {
        if (TWIN(1, 0))
            delete[] data;  // @freed
        throw std::runtime_error("failed");
    }
    data[0] = 1;
}

int main()
{
    int *data = new int[100];  // @allocated
    try {
        work(HIDE(data), HIDE(1));
    } catch (const std::exception &) {
    }
    delete[] HIDE(data);  // @access
    return 0;
}
