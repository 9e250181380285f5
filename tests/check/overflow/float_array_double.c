// SPDX-License-Identifier: BSD-2-Clause
// An array of float, summed up as double.
// kind: heap-buffer-overflow
// access: read 8
// object: 40 bytes, at 40
#include "twin.h"
#include <stdlib.h>

int main(void)
{
    float *values = calloc(10, sizeof(*values));  // @allocated
    TWIN(double, float) *read_as = (void *)HIDE(values);
    double sum = 0;
    for (int i = 0; i < 10; i++)
        sum += HIDE(read_as)[i];  // @access
    free(values);
    return sum != 0;
}
