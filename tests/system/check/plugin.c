// SPDX-License-Identifier: BSD-2-Clause
// A library that is loaded, used and unloaded while the program runs (LIBRARY), and the program.
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef LIBRARY
char *plugin_text(size_t bytes)
{
    char *text = malloc(bytes);
    memset(text, 'p', bytes);
    return text;
}

// An allocator of its own, which the command line names: the bytes are the second argument.
static char pool[4096];
static size_t used;

void *pool_get(int kind, size_t bytes)
{
    used += bytes + (size_t)kind;
    return pool + used - bytes;
}

void pool_put(int kind, void *place)
{
    (void)kind, (void)place;
}

void plugin_use_pool(size_t bytes)
{
    char *place = pool_get(1, 32);
    memset(place, 0, bytes);  // @pool
    pool_put(1, place);
}
#else
int main(int argc, char **argv)
{
    for (int i = 0; i < 20; i++) {
        void *library = dlopen(argv[1], RTLD_NOW);
        if (!library) {
            puts(dlerror());
            return 1;
        }
        char *(*text)(size_t) = (char *(*)(size_t))dlsym(library, "plugin_text");
        void (*use)(size_t) = (void (*)(size_t))dlsym(library, "plugin_use_pool");
        char *made = text(40);
        use(argc > 2 && !strcmp(argv[2], "pool") && i == 19 ? 33 : 32);
        dlclose(library);
        made[39] = 0;
        if (argc > 2 && !strcmp(argv[2], "overflow") && i == 19)
            made[40] = 0;  // @overflow
        if (strlen(made) != 39)
            return 2;
        free(made);
    }
    return 0;
}
#endif
