// SPDX-License-Identifier: BSD-2-Clause
// A number was stored where a pointer belongs.
// kind: wild-pointer
// access: read 4
#include "twin.h"
#include <stdint.h>

union slot {
    uintptr_t number;
    int *place;
};

int main(void)
{
    int value = 5;
    union slot slot = {.place = &value};
    if (TWIN(1, 0))
        slot.number = 0x12345678;
    USE(*HIDE(slot.place));  // @access
    return 0;
}
