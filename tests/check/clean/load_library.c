// SPDX-License-Identifier: BSD-2-Clause
// Libraries are loaded and unloaded; their functions allocate.
// kind: none
// only: dynamic
// build: -ldl
#include "twin.h"
#include <dlfcn.h>
#include <stdlib.h>

int main(void)
{
    for (int i = 0; i < 3; i++) {
        void *library = dlopen("libm.so.6", RTLD_NOW);
        if (!library)
            return 1;
        double (*root)(double) = (double (*)(double))dlsym(library, "sqrt");
        if (!root || root(HIDE(16.0f)) != 4)
            return 2;
        dlclose(library);
    }
    void *self = dlopen(NULL, RTLD_LAZY);
    void *(*allocate)(size_t) = (void *(*)(size_t))dlsym(self, "malloc");
    void (*give_back)(void *) = (void (*)(void *))dlsym(self, "free");
    char *block = allocate(10);
    HIDE(block)[9] = 1;
    give_back(block);
    dlclose(self);
    return 0;
}
