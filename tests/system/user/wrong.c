// SPDX-License-Identifier: BSD-2-Clause
// A program with errors of memory, for a debugger.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char source[64] = "0123456789abcdef";

__attribute__((noinline)) void overflow(char *at, int index)
{
    at[index] = 'x';  // overflow
}

__attribute__((noinline)) void copy(char *at, size_t bytes)
{
    memcpy(at, source, bytes);  // copy
    at[0] = 'c';
}

__attribute__((noinline)) void twice(char *at)
{
    free(at);
    free(at);  // twice
}

__attribute__((noinline)) void call(char *at, size_t bytes)
{
    ssize_t got = read(0, at, bytes);  // call
    printf("read %d\n", (int)got);
}

__attribute__((noinline)) void null(char *at)
{
    *(volatile char *)(at + 8) = 'n';  // null
}

static volatile int size = 10;

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";
    char *at = malloc((size_t)size);

    setvbuf(stdout, NULL, _IONBF, 0);
    strcpy(at, "123456789");
    if (strcmp(what, "overflow") == 0)
        overflow(at, size + 2);
    if (strcmp(what, "copy") == 0)
        copy(at, (size_t)size + 1);
    if (strcmp(what, "twice") == 0)
        twice(at);
    else if (strcmp(what, "call") == 0)
        call(at, (size_t)size + 1);
    if (strcmp(what, "null") == 0)
        null(NULL);
    printf("end\n");
    return 5;
}
