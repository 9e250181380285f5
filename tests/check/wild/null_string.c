// SPDX-License-Identifier: BSD-2-Clause
// strlen() of a variable of the environment that is not set.
// kind: null-dereference
// access: read
#include "twin.h"
#include <stdlib.h>
#include <string.h>

int main(void)
{
    const char *value = getenv(HIDE("STRAKE_SUITE_SETS_NO_SUCH_THING"));
    if (TWIN(0, 1))
        value = "unset";
    size_t length = strlen(HIDE(value));  // @access
    USE(length);
    return 0;
}
