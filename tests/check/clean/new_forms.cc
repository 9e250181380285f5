// SPDX-License-Identifier: BSD-2-Clause
// All forms of new and delete, each with its own.
// kind: none
#include "twin.h"
#include <cstdint>
#include <cstdlib>
#include <new>

struct alignas(128) wide {
    char bytes[256];
};

struct with_destructor {
    long value = 1;
    ~with_destructor()
    {
        value = 0;
    }
};

struct own_new {
    int value = 2;
    static void *operator new(size_t bytes)
    {
        return malloc(bytes);
    }
    static void operator delete(void *block)
    {
        free(block);
    }
};

int main()
{
    delete HIDE(new int(5));
    delete[] HIDE(new with_destructor[7]);  // a count before the first
    delete HIDE(new own_new);
    wide *aligned = new wide, *array = new wide[3];
    if (reinterpret_cast<uintptr_t>(aligned) % 128 || reinterpret_cast<uintptr_t>(array) % 128)
        return 1;
    delete HIDE(aligned);
    delete[] HIDE(array);
    char *perhaps = new (std::nothrow) char[10];
    operator delete[](HIDE(perhaps), std::nothrow);
    alignas(with_destructor) char place[sizeof(with_destructor)];
    with_destructor *placed = new (place) with_destructor;
    placed->~with_destructor();
    operator delete(operator new(33));
    delete static_cast<int *>(HIDE(static_cast<int *>(nullptr)));
    delete[] HIDE(new char[0]);
    return 0;
}
