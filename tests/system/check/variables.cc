// SPDX-License-Identifier: BSD-2-Clause
// A program whose variables have identifiers (include/strake/tagging.cfg): what it does by its first
// argument. Lines that are marked are those of the errors.
#include <csetjmp>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <pthread.h>
#include <stdexcept>
#include <string>
#include <unistd.h>
#include <vector>

extern "C" const char *library_name(int which);
extern "C" int library_count(const int *which);
extern "C" int counts[3];

static int table[5] = {5, 3, 4, 1, 2};
static const char words[4][6] = {"one", "two", "three", "four"};
static thread_local int own[4];

#define APART __attribute__((noinline))

static int by_value(const void *a, const void *b)
{
    return *(const int *)a - *(const int *)b;
}

static APART int descend(int depth, const int *outer)
{
    int here[8] = {depth, *outer};
    return depth ? descend(depth - 1, here) + here[1] : here[0];
}

static APART void thrower(int *seen)
{
    char text[24];
    snprintf(text, sizeof(text), "thrown %d", ++*seen);
    throw std::runtime_error(text);
}

static void *work(void *argument)
{
    long sums[6] = {};
    for (int i = 0; i < 6000; i++) {
        int part[3] = {i, i + 1, i + 2};
        sums[i % 6] += descend(3, part);
        own[i % 4]++;
    }
    *(long *)argument = sums[0] + own[0];
    return nullptr;
}

static int clean()
{
    int sorted[5], seen = 0, ends[2], first = 0;
    char line[16], kept[48];
    std::vector<std::string> all;
    jmp_buf state;

    memcpy(sorted, table, sizeof(table));
    qsort(sorted, 5, sizeof(sorted[0]), by_value);
    for (int i = 0; i < 3; i++) {
        try {
            thrower(&seen);
        } catch (const std::exception &error) {
            all.push_back(error.what());
        }
        all.push_back(library_name(i));
    }
    if (setjmp(state) == 0)
        longjmp(state, 1);
    if (pipe(ends) || write(ends[1], words[2], sizeof(words[2])) != sizeof(words[2]) ||
        read(ends[0], line, sizeof(line)) != sizeof(words[2]))
        return 1;
    snprintf(kept, sizeof(kept), "%s %s %d %zu", line, all[1].c_str(), library_count(&first),
             strlen(words[3]));
    long results[2] = {};
    pthread_t threads[2];
    for (int i = 0; i < 2; i++)
        pthread_create(&threads[i], nullptr, work, &results[i]);
    for (pthread_t thread : threads)
        pthread_join(thread, nullptr);
    printf("%s %d %d\n", kept, sorted[4], results[0] == results[1]);
    return 0;
}

static APART int *gone()
{
    int here[4] = {1, 2, 3, 4};
    int *volatile there = here;
    return there;
}

static APART void fill(char *to, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        ((volatile char *)to)[i] = 'x';  // @fill
}

static APART int error(const char *name, volatile int one)
{
    char name_of[32], other[32] = "";

    if (!strcmp(name, "stack"))
        fill(name_of, sizeof(name_of) + one);
    if (!strcmp(name, "static"))
        return table[4 + one];  // @static
    if (!strcmp(name, "literal"))
        return words[0][24 * one];  // @literal
    if (!strcmp(name, "library"))
        return library_count(&counts[2 + one]);
    if (!strcmp(name, "copy"))
        memcpy(name_of, other, sizeof(other) + one);  // @copy
    if (!strcmp(name, "call"))
        return (int)write(1, other, sizeof(other) + one);  // @call
    if (!strcmp(name, "gone"))
        return *gone();  // @gone
    if (!strcmp(name, "gone-call"))
        return (int)read(0, gone(), sizeof(int));  // @gone-call
    return other[0] + name_of[0];
}

int main(int argc, char **argv)
{
    return argc < 2 ? 2 : !strcmp(argv[1], "clean") ? clean() : error(argv[1], 1);
}
