// SPDX-License-Identifier: BSD-2-Clause
// A wide string copied into as many bytes as it has characters.
// kind: heap-buffer-overflow
// access: write 4
// object: 8 bytes, at 8
#include "twin.h"
#include <stdlib.h>
#include <wchar.h>

int main(void)
{
    const wchar_t *from = HIDE(L"abcdefg");
    wchar_t *to = malloc((wcslen(from) + 1) * TWIN(1, sizeof(wchar_t)));  // @allocated
    size_t i = 0;
    do
        HIDE(to)[i] = from[i];  // @access
    while (from[i++]);
    free(to);
    return 0;
}
