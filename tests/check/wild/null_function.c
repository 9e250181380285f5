// SPDX-License-Identifier: BSD-2-Clause
// A member that is a function was never set.
// kind: null-dereference or wild-pointer
// missed-by: memcheck asan
#include "twin.h"
#include <stddef.h>

struct operations {
    void (*start)(void);
    void (*stop)(void);
};

static void start(void)
{
    USE(1);
}

int main(void)
{
    struct operations operations = {.start = start, .stop = TWIN(NULL, start)};
    HIDE(operations.start)();
    HIDE(operations.stop)();  // @access
    return 0;
}
