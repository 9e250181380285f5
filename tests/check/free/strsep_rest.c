// SPDX-License-Identifier: BSD-2-Clause
// strsep() moves the pointer that is freed afterwards.
// kind: interior-free
// object: 8 bytes, at 4
#include "twin.h"
#include <stdlib.h>
#include <string.h>

int main(void)
{
    char *line = strdup("key=val");  // @allocated
    char *rest = line;
    char *key = strsep(&rest, "=");
    USE(key);
    free(HIDE(TWIN(rest, line)));  // @access
    return 0;
}
