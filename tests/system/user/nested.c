// SPDX-License-Identifier: BSD-2-Clause
// A function within a function, whose address is that of code on the stack: the program's file says
// that the stack is executable.
#include "check.h"

static __attribute__((noinline)) int apply(int (*function)(int value), int value)
{
    return function(value);
}

int main(int argc, char **argv)
{
    int more = argc + 3;
    int add(int value)
    {
        return value + more;
    }

    (void)argv;
    check(apply(add, 3) == 7, "code on the stack is executed where the program asks for that");
    return check_done();
}
