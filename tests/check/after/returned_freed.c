// SPDX-License-Identifier: BSD-2-Clause
// A function that returns what it has freed.
// kind: heap-use-after-free
// access: read 1
// object: 6 bytes
// only: O0
#include "twin.h"
#include <stdlib.h>
#include <string.h>

static char *reversed(const char *text)
{
    size_t length = strlen(text);
    char *result = malloc(length + 1);  // @allocated
    for (size_t i = 0; i < length; i++)
        result[i] = text[length - 1 - i];
    result[length] = 0;
    if (TWIN(1, 0))
        free(HIDE(result));  // @freed
    return HIDE(result);
}

int main(void)
{
    char *result = reversed(HIDE("abcde"));
    int wrong = HIDE(result)[0] != 'e';  // @access
    if (TWIN(0, 1))
        free(result);
    return TWIN(0, wrong);
}
