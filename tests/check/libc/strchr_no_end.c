// SPDX-License-Identifier: BSD-2-Clause
// strchr() in something that is no string.
// kind: heap-buffer-overflow
// access: read
// object: 7 bytes
#include "twin.h"
#include <stdlib.h>
#include <string.h>

int main(void)
{
    char *letters = malloc(7);  // @allocated
    memcpy(letters, "abcdefg", 7);
    if (TWIN(0, 1))
        letters[6] = 0;
    char *found = strchr(HIDE(letters), HIDE('z'));  // @access
    USE(found);
    free(letters);
    return 0;
}
