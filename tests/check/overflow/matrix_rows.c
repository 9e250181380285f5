// SPDX-License-Identifier: BSD-2-Clause
// Rows and columns confused: the matrix has 3 by 5 elements.
// kind: heap-buffer-overflow
// access: write 8
// object: 120 bytes, at 120
#include "twin.h"
#include <stdlib.h>

static double *matrix_at(double *matrix, unsigned row, unsigned column)
{
    return &matrix[row * 5 + column];
}

int main(void)
{
    double *matrix = calloc(3 * 5, sizeof(double));  // @allocated
    for (unsigned row = 0; row < HIDE(TWIN(5u, 3u)); row++)
        for (unsigned column = 0; column < HIDE(TWIN(3u, 5u)); column++)
            *HIDE(matrix_at(matrix, row, column)) = row + column;  // @access
    free(matrix);
    return 0;
}
