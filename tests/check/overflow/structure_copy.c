// SPDX-License-Identifier: BSD-2-Clause
// A whole structure is assigned to the element behind the last.
// kind: heap-buffer-overflow
// access: write
// object: 96 bytes
#include "twin.h"
#include <stdlib.h>

struct record {
    long fields[4];
};

int main(void)
{
    struct record zero = {{0}};
    struct record *records = malloc(3 * sizeof(*records));  // @allocated
    for (int i = 0; HIDE(i) < 3 + TWIN(1, 0); i++)
        HIDE(records)[i] = HIDE(&zero)[0];  // @access
    free(records);
    return 0;
}
