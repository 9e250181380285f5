// SPDX-License-Identifier: BSD-2-Clause
// A structure was copied with its pointer, and both are cleaned up.
// kind: double-free
// object: 16 bytes, at 0
#include "twin.h"
#include <stdlib.h>
#include <string.h>

struct name {
    char *text;
};

static void name_fini(struct name *name)
{
    free(HIDE(name->text));  // @freed @access
}

int main(void)
{
    struct name first = {calloc(1, 16)};  // @allocated
    struct name second = first;
    if (TWIN(0, 1))
        second.text = strdup(first.text);
    name_fini(&first);
    name_fini(&second);
    return 0;
}
