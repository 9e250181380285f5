// SPDX-License-Identifier: BSD-2-Clause
// An insertion sort without a sentinel.
// kind: heap-buffer-underflow
// access: read 8
// object: 40 bytes, at -8
#include "twin.h"
#include <stdlib.h>

static void sort(double *values, int count)
{
    for (int i = 1; i < count; i++) {
        double value = values[i];
        int at = i;
        while (at > TWIN(-1, 0) && HIDE(values)[at - 1] >= value) {  // @access
            values[at] = values[at - 1];
            at--;
        }
        values[at] = value;
    }
}

int main(void)
{
    double *values = calloc(5, sizeof(*values));  // @allocated
    values[0] = 5, values[1] = 4, values[4] = -1;
    sort(values, HIDE(5));
    free(values);
    return 0;
}
