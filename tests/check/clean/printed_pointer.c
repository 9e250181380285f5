// SPDX-License-Identifier: BSD-2-Clause
// A pointer goes through text and comes back.
// kind: none
#include "twin.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

int main(void)
{
    int *number = malloc(sizeof(int));
    char text[64], other[64];
    void *back;
    snprintf(text, sizeof(text), "%p", (void *)number);
    if (sscanf(HIDE(&text[0]), "%p", &back) != 1)
        return 1;
    *(int *)HIDE(back) = 5;
    snprintf(other, sizeof(other), "%" PRIuPTR, (uintptr_t)number);
    int wrong = *(int *)(uintptr_t)strtoull(HIDE(&other[0]), NULL, 10) != 5;
    free(back);
    return wrong;
}
