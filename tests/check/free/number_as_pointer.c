// SPDX-License-Identifier: BSD-2-Clause
// A number that never was a pointer.
// kind: invalid-free
// missed-by: asan
#include "twin.h"
#include <stdint.h>
#include <stdlib.h>

union value {
    intptr_t number;
    void *pointer;
};

int main(void)
{
    union value value = {.number = 0x123450};
    int is_pointer = HIDE(TWIN(1, 0));
    if (is_pointer)
        free(HIDE(value.pointer));  // @access
    return 0;
}
