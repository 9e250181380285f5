// SPDX-License-Identifier: BSD-2-Clause
// The pointer was advanced while the string was read.
// kind: interior-free
// object: 20 bytes, at 5
#include "twin.h"
#include <stdlib.h>
#include <string.h>

int main(void)
{
    char *text = malloc(20);  // @allocated
    strcpy(text, "12345,67");
    char *at = text;
    while (*HIDE(at) != ',')
        at++;
    free(HIDE(TWIN(at, text)));  // @access
    return 0;
}
