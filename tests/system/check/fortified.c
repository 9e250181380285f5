// SPDX-License-Identifier: BSD-2-Clause
// Built with _FORTIFY_SOURCE: of objects what overflows is reported, of other memory the program is
// ended by its own libc.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char place[8];

struct message {
    char name[8];
    char text[8];
};

static int is(int argc, char **argv, const char *what)
{
    return argc > 1 && !strcmp(argv[1], what);
}

// What libc does itself, to the end of an object or of a member.
static void asks_libc(int argc, char **argv, char *block, FILE *lines)
{
    struct message *message = calloc(1, sizeof(*message));

    sprintf(block, "%s", is(argc, argv, "print") ? argv[2] : "printed");   // @print
    fgets(block, is(argc, argv, "line") ? 20 : 10, lines);                 // @line
    if (read(fileno(lines), block, is(argc, argv, "read") ? 11 : 10) < 0)  // @read
        return;
    sprintf(message->name, "%s", is(argc, argv, "member") ? argv[2] : "name");
    free(message);
}

int main(int argc, char **argv)
{
    char *block = malloc(10);
    size_t bytes = is(argc, argv, "object") ? 11 : 10;
    FILE *lines = tmpfile();

    memset(block, 'a', bytes);  // @object
    block[9] = 0;
    fputs("a line that is longer", lines);
    rewind(lines);
    asks_libc(argc, argv, block, lines);
    fclose(lines);
    strcpy(block, is(argc, argv, "text") ? argv[2] : "short");  // @text
    if (is(argc, argv, "static"))
        strcpy(place, argv[2]);
    puts(block);
    free(block);
    return 0;
}
