// SPDX-License-Identifier: BSD-2-Clause
// What is printed by a function whose last act it is has been freed by one whose last act that was.
// kind: heap-use-after-free
// access: read
// object: 6 bytes
#include "twin.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

__attribute__((noinline)) static void forget(char **name, int really)
{
    if (really)
        free(*name);  // @freed
}

__attribute__((noinline)) static void greet(char **name)
{
    puts(*name);  // @access
}

int main(void)
{
    char *name = malloc(6);  // @allocated
    strcpy(name, "Nadia");
    forget(HIDE(&name), HIDE(TWIN(1, 0)));
    greet(HIDE(&name));
    TWIN((void)0, free(name));
    return 0;
}
