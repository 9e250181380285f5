// SPDX-License-Identifier: BSD-2-Clause
// wcsncpy() pads up to a length that is counted in bytes.
// kind: heap-buffer-overflow
// missed-by: asan
// access: write
// object: 40 bytes
#include "twin.h"
#include <stdlib.h>
#include <wchar.h>

int main(void)
{
    wchar_t *to = malloc(10 * sizeof(wchar_t));                                     // @allocated
    wcsncpy(HIDE(to), HIDE(L"wide"), HIDE((size_t)10 * TWIN(sizeof(wchar_t), 1)));  // @access
    free(to);
    return 0;
}
