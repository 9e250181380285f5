// SPDX-License-Identifier: BSD-2-Clause
// Structures that end in arrays of any length.
// kind: none
#include "twin.h"
#include <stdlib.h>
#include <string.h>

struct text {
    unsigned short length;
    char letters[];
};

struct old_style {
    int count;
    int items[1];
};

int main(void)
{
    for (unsigned short i = 0; i < 40; i++) {
        struct text *text = malloc(sizeof(*text) + i);
        text->length = i;
        memset(HIDE(text)->letters, 'x', i);
        struct old_style *old = malloc(sizeof(*old) + i * sizeof(int));
        old->count = i + 1;
        for (int j = 0; j < old->count; j++)
            HIDE(old)->items[j] = j;
        free(text);
        free(old);
    }
    return 0;
}
