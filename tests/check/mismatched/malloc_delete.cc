// SPDX-License-Identifier: BSD-2-Clause
// malloc() and delete.
// kind: mismatched-free
// object: 8 bytes
#include "twin.h"
#include <cstdlib>

int main()
{
    double *number = static_cast<double *>(std::malloc(sizeof(double)));  // @allocated
    *HIDE(number) = 1.5;
    if (TWIN(1, 0))
        delete HIDE(number);  // @access
    else
        std::free(number);
    return 0;
}
