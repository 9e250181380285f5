// SPDX-License-Identifier: BSD-2-Clause
// What a program may do with allocators and libc beside what errors are about: operators of its own
// (OWN), no memory and handlers for that, errno, symbols looked up while it runs, functions that
// are called by their address.
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <new>
#include <string>
#include <vector>

#define HIDE(value)                                                                                \
    ({                                                                                             \
        auto hidden = (value);                                                                     \
        __asm__ volatile("" : "+r"(hidden) : : "memory");                                          \
        hidden;                                                                                    \
    })

static unsigned own, handled;

#ifdef OWN
void *operator new(std::size_t bytes)
{
    void *place = std::malloc(bytes);

    own++;
    if (!place)
        throw std::bad_alloc();
    return place;
}

void operator delete(void *place) noexcept
{
    std::free(place);
}

void operator delete(void *place, std::size_t) noexcept
{
    std::free(place);
}
#endif

static void handler()
{
    if (++handled == 3)
        std::set_new_handler(nullptr);
}

static int no_memory()
{
    const std::size_t all = HIDE(PTRDIFF_MAX - 100ul);
    unsigned thrown = 0;

    errno = 0;
    if (std::malloc(all) || errno != ENOMEM)
        return 1;
    try {
        delete[] new char[all];
    } catch (const std::bad_alloc &) {
        thrown++;
    }
#ifndef OWN
    std::set_new_handler(handler);
    try {
        operator delete(operator new(all));
    } catch (const std::bad_alloc &) {
        thrown++;
    }
    if (handled != 3)
        return 2;
#else
    thrown++;
#endif
    if (new (std::nothrow) char[all])
        return 3;
    return thrown == 2 ? 0 : 4;
}

static int by_address()
{
    void *(*volatile get)(size_t) = std::malloc;
    void (*volatile put)(void *) = std::free;
    char *(*volatile copy)(char *, const char *) = std::strcpy;
    auto measure = reinterpret_cast<size_t (*)(const char *)>(dlsym(RTLD_DEFAULT, "strlen"));
    char *text = static_cast<char *>(get(6));

    copy(text, HIDE("seven") + 0);
    bool right = !measure || measure(text) == 5;
    put(text);
    return right ? 0 : 5;
}

static int containers()
{
    std::vector<std::string> all;

    for (int i = 0; i < 100; i++)
        all.push_back(std::string(static_cast<size_t>(i), 'x') + std::to_string(i));
    size_t bytes = 0;
    for (const auto &one : all)
        bytes += one.size();
    int *single = new int(4), *several = new int[4]{};
    delete HIDE(single);
    delete[] HIDE(several);
    return bytes == 5140 ? 0 : 6;
}

int main(int argc, char **argv)
{
    int rc = by_address();

    rc = rc ? rc : containers();
    rc = rc ? rc : no_memory();
#ifdef OWN
    rc = rc ? rc : own ? 0 : 7;
#endif
    if (argc > 1 && !std::strcmp(argv[1], "mismatched"))
        std::free(HIDE(new int(3)));  // @mismatched
    if (argc > 1 && !std::strcmp(argv[1], "overflow")) {
        char *text = new char[5];
        std::strcpy(text, HIDE("seven"));  // @overflow
        delete[] text;
    }
    return rc;
}
