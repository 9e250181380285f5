// SPDX-License-Identifier: BSD-2-Clause
// strftime() with the maximum of another buffer.
// kind: heap-buffer-overflow
// missed-by: asan
// access: write
// object: 11 bytes
#include "twin.h"
#include <stdlib.h>
#include <time.h>

int main(void)
{
    struct tm when = {.tm_year = 100, .tm_mday = 1};
    char *text = malloc(11);  // @allocated
    size_t bytes =
        strftime(HIDE(text), HIDE((size_t)TWIN(64, 11)), "%Y-%m-%d %H:%M", &when);  // @access
    USE(bytes);
    free(text);
    return 0;
}
