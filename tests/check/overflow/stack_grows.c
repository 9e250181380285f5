// SPDX-License-Identifier: BSD-2-Clause
// A stack of a calculator whose bound is not looked at.
// kind: heap-buffer-overflow
// access: write 8
// object: 32 bytes, at 32
// only: O0
#include "twin.h"
#include <stdlib.h>

struct calculator {
    long *stack;
    size_t depth, max;
};

static int push(struct calculator *calculator, long value)
{
    if (TWIN(0, calculator->depth == calculator->max))
        return -1;
    calculator->stack[calculator->depth++] = value;  // @access
    return 0;
}

int main(void)
{
    struct calculator calculator = {.max = 4};
    calculator.stack = malloc(calculator.max * sizeof(long));  // @allocated
    for (const char *digit = HIDE("31415"); *digit; digit++)
        push(&calculator, *digit - '0');
    free(calculator.stack);
    return 0;
}
