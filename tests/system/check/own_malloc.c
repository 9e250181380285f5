// SPDX-License-Identifier: BSD-2-Clause
// A program with an allocator of its own in malloc's place: BUMP, of memory that it has itself; or
// one that counts, and hands on to libc's.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static unsigned count;

#ifdef BUMP
static char memory[1 << 22];
static size_t used;

void *malloc(size_t bytes)
{
    void *place = memory + used;

    count++;
    used += (bytes + 15) / 16 * 16;
    return place;
}

void free(void *place)
{
    (void)place;
}
#else
void *__libc_malloc(size_t bytes);

void *malloc(size_t bytes)
{
    count++;
    return __libc_malloc(bytes);
}

void free(void *place)
{
    void (*next)(void *) = dlsym(RTLD_NEXT, "free");
    next(place);
}
#endif

void *calloc(size_t number, size_t bytes)
{
    void *place = malloc(number * bytes);
    return place ? memset(place, 0, number * bytes) : NULL;
}

void *realloc(void *place, size_t bytes)
{
    void *grown = malloc(bytes);

    if (grown && place)
        memcpy(grown, place, bytes < 8 ? bytes : 8);
    free(place);
    return grown;
}

int main(int argc, char **argv)
{
    char *text = malloc(10);
    size_t length = argc > 1 ? 10 : 9;

    (void)argv;
    memset(text, 'a', length);
    text[length] = 0;  // @overflow
    text = realloc(text, 20);
    puts(count ? "counted" : "not counted");
    free(text);
    return 0;
}
