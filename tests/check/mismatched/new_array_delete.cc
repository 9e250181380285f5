// SPDX-License-Identifier: BSD-2-Clause
// new[] and delete.
// kind: mismatched-free
// object: 80 bytes
#include "twin.h"

int main()
{
    int *numbers = new int[20];  // @allocated
    HIDE(numbers)[19] = 1;
    if (TWIN(1, 0))
        delete HIDE(numbers);  // @access
    else
        delete[] HIDE(numbers);
    return 0;
}
