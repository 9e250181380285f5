// SPDX-License-Identifier: BSD-2-Clause
// Streams with buffers of the program's own, and in memory.
// kind: none
#include "twin.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(void)
{
    FILE *file = tmpfile();
    char *buffer = malloc(BUFSIZ);
    setvbuf(file, buffer, _IOFBF, BUFSIZ);
    for (int i = 0; i < 3000; i++)
        fprintf(file, "line %d\n", i);
    rewind(file);
    char *line = NULL;
    size_t room = 0;
    int lines = 0;
    while (getline(&line, &room, file) > 0)
        lines += !strncmp(line, "line ", 5);
    fclose(file);
    free(line);
    free(buffer);

    char *text = NULL;
    size_t bytes = 0;
    FILE *memory = open_memstream(&text, &bytes);
    for (int i = 0; i < 1000; i++)
        fputs(HIDE("abc"), memory);
    fclose(memory);
    int wrong = bytes != 3000 || strlen(text) != 3000 || lines != 3000;
    free(text);
    return wrong;
}
