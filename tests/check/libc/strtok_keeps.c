// SPDX-License-Identifier: BSD-2-Clause
// strtok() goes on in a string that was freed.
// kind: heap-use-after-free
// missed-by: asan
// object: 10 bytes
#include "twin.h"
#include <stdlib.h>
#include <string.h>

int main(void)
{
    char *line = strdup(HIDE("a b c d e"));  // @allocated
    char *word = strtok(line, " ");
    if (TWIN(1, 0))
        free(HIDE(line));            // @freed
    word = strtok(NULL, HIDE(" "));  // @access
    USE(word);
    if (TWIN(0, 1))
        free(line);
    return 0;
}
