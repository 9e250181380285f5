// SPDX-License-Identifier: BSD-2-Clause
// The same of wide characters.
// kind: none
#include "twin.h"
#include <stdlib.h>
#include <wchar.h>

int main(void)
{
    for (size_t length = 0; length < 40; length++) {
        wchar_t *text = malloc((length + 1) * sizeof(wchar_t));
        wmemset(HIDE(text), L'a', length);
        text[length] = 0;
        wchar_t *copy = wcsdup(text);
        if (wcslen(text) != length || wcscmp(text, copy) || wcschr(text, L'b') ||
            wmemchr(text, L'b', length) || wcsncmp(text, copy, 100))
            return 1;
        wcscpy(copy, HIDE(text));
        free(copy);
        free(text);
    }
    return 0;
}
