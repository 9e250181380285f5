// SPDX-License-Identifier: BSD-2-Clause
// The element behind an array of objects with constructors: a count is before the first.
// kind: heap-buffer-overflow
// access: write 8
#include "twin.h"

struct cell {
    long value = 1;
    ~cell()
    {
        value = 0;
    }
};

int main()
{
    cell *cells = new cell[6];                // @allocated
    HIDE(cells)[HIDE(TWIN(6, 5))].value = 3;  // @access
    delete[] cells;
    return 0;
}
