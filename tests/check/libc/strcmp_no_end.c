// SPDX-License-Identifier: BSD-2-Clause
// strcmp() of a string with one that has no end and is equal so far.
// kind: heap-buffer-overflow
// access: read
// object: 4 bytes
#include "twin.h"
#include <stdlib.h>
#include <string.h>

int main(void)
{
    char *word = malloc(TWIN(4, 5));  // @allocated
    memcpy(word, "wordy", TWIN(4, 5));
    if (TWIN(0, 1))
        word[4] = 0;
    int order = strcmp(HIDE(word), HIDE("word"));  // @access
    USE(order);
    free(word);
    return 0;
}
