// SPDX-License-Identifier: BSD-2-Clause
// Structures of odd sizes, copied as wholes at the ends of their arrays.
// kind: none
#include "twin.h"
#include <stdlib.h>

struct odd {
    char bytes[13];
};

struct __attribute__((packed)) packed {
    char tag;
    long value;
    short rest;
};

int main(void)
{
    struct odd *odds = calloc(7, sizeof(*odds));
    struct packed *packed = calloc(5, sizeof(*packed));
    for (int i = 0; i < 7; i++)
        HIDE(odds)[i] = HIDE(odds)[6 - i];
    for (int i = 0; i < 5; i++) {
        HIDE(packed)[i].value = i;
        HIDE(packed)[4 - i] = HIDE(packed)[i];
    }
    free(odds);
    free(packed);
    return 0;
}
