// SPDX-License-Identifier: BSD-2-Clause
// Built with _FORTIFY_SOURCE: of objects what overflows is reported, of other memory the program is
// ended by its own libc.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char place[8];

int main(int argc, char **argv)
{
    char *block = malloc(10);
    size_t bytes = argc > 1 && !strcmp(argv[1], "object") ? 11 : 10;

    memset(block, 'a', bytes);  // @object
    block[9] = 0;
    strcpy(block, argc > 1 && !strcmp(argv[1], "text") ? argv[2] : "short");  // @text
    if (argc > 1 && !strcmp(argv[1], "static"))
        strcpy(place, argv[2]);
    puts(block);
    free(block);
    return 0;
}
