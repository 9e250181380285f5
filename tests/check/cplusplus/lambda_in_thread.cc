// SPDX-License-Identifier: BSD-2-Clause
// A lambda that a thread runs, which compilers put into what calls it.
// kind: heap-buffer-overflow
// access: write 4
// object: 16 bytes, at 16
// build: -pthread
#include "twin.h"
#include <thread>

int main()
{
    int *sums = new int[4];  // @allocated
    std::thread adder([sums] {
        for (int i = 0; i < TWIN(5, 4); i++)
            HIDE(sums)[i] = i;  // @access
    });
    adder.join();
    delete[] sums;
    return 0;
}
