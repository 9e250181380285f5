// SPDX-License-Identifier: BSD-2-Clause
// scanf("%s") without a width.
// kind: heap-buffer-overflow
// access: write
// object: 10 bytes
// stdin: internationalization\n
#include "twin.h"
#include <stdio.h>
#include <stdlib.h>

int main(void)
{
    char *word = malloc(10);                                  // @allocated
    int fields = scanf(HIDE(TWIN("%s", "%9s")), HIDE(word));  // @access
    free(word);
    return fields != 1;
}
