// SPDX-License-Identifier: BSD-2-Clause
// A union of a pointer and a number, and a word with a tag for what it holds.
// kind: none
#include "twin.h"
#include <stdint.h>
#include <stdlib.h>

union word {
    void *pointer;
    int64_t number;
    double real;
};

struct value {
    int kind;
    union word word;
};

int main(void)
{
    struct value values[30];
    for (int i = 0; i < 30; i++) {
        values[i].kind = i % 3;
        if (i % 3 == 0)
            values[i].word.pointer = calloc(1, 8);
        else if (i % 3 == 1)
            values[i].word.number = -i;
        else
            values[i].word.real = i / 2.0;
    }
    double sum = 0;
    for (int i = 0; i < 30; i++) {
        union word word = HIDE(&values[0])[i].word;
        sum += values[i].kind == 0   ? *(int64_t *)word.pointer
               : values[i].kind == 1 ? (double)word.number
                                     : word.real;
        if (values[i].kind == 0)
            free(word.pointer);
    }
    return sum == 0.5;
}
