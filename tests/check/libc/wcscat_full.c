// SPDX-License-Identifier: BSD-2-Clause
// wcscat() where there is room for one string of two.
// kind: heap-buffer-overflow
// access: write
// object: 32 bytes
#include "twin.h"
#include <stdlib.h>
#include <wchar.h>

int main(void)
{
    wchar_t *both = malloc(TWIN(8, 16) * sizeof(wchar_t));  // @allocated
    wcscpy(both, L"first,");
    wcscat(HIDE(both), HIDE(L"second"));  // @access
    free(both);
    return 0;
}
