// SPDX-License-Identifier: BSD-2-Clause
// new[] of structures without destructors and free().
// kind: mismatched-free
// object: 240 bytes
#include "twin.h"
#include <cstdlib>

struct point {
    double x, y, z;
};

int main()
{
    point *points = new point[10];  // @allocated
    HIDE(points)[9].z = 1;
    if (TWIN(1, 0))
        free(HIDE(points));  // @access
    else
        delete[] points;
    return 0;
}
