// SPDX-License-Identifier: BSD-2-Clause
// The argument of a callback that runs after its owner has returned.
// kind: dead-stack-use
// access: read 4
#include "twin.h"

static void (*later)(void *);
static void *later_argument;
static int lasting = 1;

static void callback(void *argument)
{
    USE(*HIDE((int *)argument));  // @access
}

__attribute__((noinline)) static void defer(void)
{
    int options[16] = {1, 2, 3};
    later = callback;
    later_argument = TWIN(HIDE((void *)options), HIDE((void *)&lasting));
}

int main(void)
{
    defer();
    HIDE(later)(later_argument);
    return 0;
}
