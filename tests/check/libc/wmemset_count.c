// SPDX-License-Identifier: BSD-2-Clause
// wmemset() of one character too many.
// kind: heap-buffer-overflow
// access: write
// object: 36 bytes
// missed-by: asan
#include "twin.h"
#include <stdlib.h>
#include <wchar.h>

int main(void)
{
    wchar_t *row = malloc(9 * sizeof(wchar_t));           // @allocated
    wmemset(HIDE(row), L'-', HIDE((size_t)TWIN(10, 9)));  // @access
    free(row);
    return 0;
}
