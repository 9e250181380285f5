// SPDX-License-Identifier: BSD-2-Clause
// A default that is a literal is freed like the value that was allocated.
// kind: invalid-free
// missed-by: asan
#include "twin.h"
#include <stdlib.h>
#include <string.h>

struct option {
    char *value;
};

static void option_init(struct option *option, const char *value)
{
    option->value = value ? strdup(value) : TWIN("default", strdup("default"));
}

int main(void)
{
    struct option option;
    option_init(&option, HIDE((const char *)NULL));
    free(HIDE(option.value));  // @access
    return 0;
}
