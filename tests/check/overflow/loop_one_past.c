// SPDX-License-Identifier: BSD-2-Clause
// A loop that goes on to the element behind the last.
// kind: heap-buffer-overflow
// access: write 4
// object: 40 bytes, at 40
#include "twin.h"
#include <stdlib.h>

int main(void)
{
    int *squares = malloc(10 * sizeof(*squares));  // @allocated
    for (int i = 0; HIDE(i) TWIN(<=, <) 10; i++)
        squares[i] = i * i;  // @access
    int last = squares[9];
    free(squares);
    return last != 81;
}
