// SPDX-License-Identifier: BSD-2-Clause
// swprintf() is told bytes where it takes characters.
// kind: heap-buffer-overflow
// access: write
// object: 24 bytes
// missed-by: asan
#include "twin.h"
#include <stdlib.h>
#include <wchar.h>

int main(void)
{
    wchar_t *text = malloc(6 * sizeof(wchar_t));  // @allocated
    size_t room = HIDE((size_t)TWIN(24, 6));
    swprintf(HIDE(text), room, L"%d", HIDE(TWIN(123456789, 123)));  // @access
    free(text);
    return 0;
}
