// SPDX-License-Identifier: BSD-2-Clause
// wcscpy() into a block counted in characters of one byte.
// kind: heap-buffer-overflow
// missed-by: asan
// access: write
// object: 12 bytes
#include "twin.h"
#include <stdlib.h>
#include <wchar.h>

int main(void)
{
    wchar_t *to = malloc(12 * TWIN(1, sizeof(wchar_t)));  // @allocated
    wcscpy(HIDE(to), HIDE(L"wide"));                      // @access
    free(to);
    return 0;
}
