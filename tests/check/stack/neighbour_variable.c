// SPDX-License-Identifier: BSD-2-Clause
// From one array of the stack into the next.
// kind: stack-buffer-overflow
// access: write 4
// missed-by: memcheck
#include "twin.h"

int main(void)
{
    int first[8], second[8];
    for (int i = 0; i < 8; i++)
        first[i] = second[i] = i;
    for (int i = 0; i < HIDE(TWIN(9, 8)); i++)
        HIDE(&first[0])[i] = 1;  // @access
    USE(HIDE(&second[0])[0]);
    return 0;
}
