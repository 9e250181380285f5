// SPDX-License-Identifier: BSD-2-Clause
// Exceptions through many frames, with destructors on their way.
// kind: none
#include "twin.h"
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

static int living;

struct counted {
    std::unique_ptr<int[]> data{new int[50]};
    counted()
    {
        living++;
    }
    ~counted()
    {
        living--;
    }
};

__attribute__((noinline)) static int descend(int depth)
{
    counted local;
    HIDE(local.data.get())[49] = depth;
    if (depth == 0)
        throw std::runtime_error(std::string(100, 'x'));
    try {
        return descend(depth - 1) + local.data[49];
    } catch (const std::logic_error &) {
        return -1;
    }
}

int main()
{
    int caught = 0;
    for (int i = 0; i < 50; i++) {
        try {
            descend(HIDE(i % 20));
        } catch (const std::exception &error) {
            caught += std::string(error.what()).size() == 100;
        }
    }
    try {
        throw std::vector<int>(1000, 5);
    } catch (const std::vector<int> &thrown) {
        caught += thrown.size() == 1000;
    }
    return caught != 51 || living;
}
