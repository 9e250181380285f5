// SPDX-License-Identifier: BSD-2-Clause
// strlen() without the byte that ends the string.
// kind: heap-buffer-overflow
// access: write
// object: 11 bytes
#include "twin.h"
#include <stdlib.h>
#include <string.h>

static char *duplicate(const char *text)
{
    char *copy = malloc(strlen(text) + TWIN(0, 1));  // @allocated
    strcpy(copy, text);                              // @access
    return copy;
}

int main(int argc, char **argv)
{
    char *copy = duplicate(HIDE("hello world"));
    int wrong = copy[0] != 'h';
    free(copy);
    return wrong;
}
