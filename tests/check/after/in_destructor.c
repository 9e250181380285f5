// SPDX-License-Identifier: BSD-2-Clause
// A function that runs at exit uses what main() has freed.
// kind: heap-use-after-free
// access: read 4
// object: 4 bytes, at 0
#include "twin.h"
#include <stdlib.h>

static int *counter;

static void at_exit(void)
{
    if (counter)
        USE(*HIDE(counter));  // @access
}

int main(void)
{
    atexit(at_exit);
    counter = calloc(1, sizeof(int));  // @allocated
    free(HIDE(counter));               // @freed
    if (TWIN(0, 1))
        counter = NULL;
    return 0;
}
