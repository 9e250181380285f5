// SPDX-License-Identifier: BSD-2-Clause
// libc reads whole words behind the end of strings, at each alignment and length.
// kind: none
#include "twin.h"
#include <stdlib.h>
#include <string.h>

int main(void)
{
    for (size_t length = 0; length < 70; length++) {
        for (size_t start = 0; start < 9; start++) {
            char *block = malloc(start + length + 1);
            char *text = HIDE(block) + start;
            memset(text, 'a', length);
            text[length] = 0;
            char *copy = strdup(text);
            if (strlen(text) != length || strnlen(text, 1000) != length || strcmp(text, copy) ||
                strncmp(text, copy, 1000) || strcasecmp(text, copy) || strchr(text, 'b') ||
                strrchr(text, 'b') || *strchrnul(text, 'b') || strstr(text, "ab") ||
                strpbrk(text, "xyz") || strcspn(text, "b") != length ||
                strspn(text, "a") != length || rawmemchr(text, 0) != text + length ||
                memchr(text, 0, 1000) != text + length || stpcpy(copy, text) != copy + length)
                return 1;
            free(copy);
            free(block);
        }
    }
    return 0;
}
