// SPDX-License-Identifier: BSD-2-Clause
// A program of several sources, which the compiler that runs as a riscv64 program builds.
#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sieve.h"

static _Atomic unsigned long total;

static void *add(void *argument)
{
    for (long i = 0; i < 1000; i++)
        atomic_fetch_add(&total, (unsigned long)(long)argument);
    return NULL;
}

static int compare(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static double mean(int count, ...)
{
    va_list numbers;
    double sum = 0;
    va_start(numbers, count);
    for (int i = 0; i < count; i++)
        sum += va_arg(numbers, double);
    va_end(numbers);
    return sum / count;
}

int main(int argc, char **argv)
{
    pthread_t threads[4];
    char *words[] = {"pear", "apple", "fig"};
    struct {
        unsigned low : 3, high : 7;
    } bits = {5, 100};

    qsort(words, 3, sizeof(words[0]), compare);
    printf("%s %s %s, %zu primes, %u %u\n", words[0], words[1], words[2], sieve_count(10000),
           bits.low, bits.high);
    printf("%.12f %.3f %a %Lg\n", sqrt(2) + sin(1), mean(3, 1.0, 2.5, 4.0), 0.1, 1.0L / 3);
    for (long i = 0; i < 4; i++)
        if (pthread_create(&threads[i], NULL, add, (void *)(i + 1)))
            return 2;
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    printf("%lu %s %d\n", total, argc > 1 ? argv[1] : "none", VALUE);
    errno = ENOENT;
    perror("the end");
    return 42;
}
