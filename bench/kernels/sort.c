// SPDX-License-Identifier: BSD-2-Clause
// sort: the same keys by quicksort, heap sort and merge sort. Branches nobody can predict, loads
// and stores in a row (quick, merge) and far apart (heap).
#include <string.h>

#include "kernel.h"

enum { KEYS = 1 << 16, FEW = 12 };

static void swap(uint64_t *a, uint64_t *b)
{
    uint64_t was = *a;

    *a = *b;
    *b = was;
}

static void insertion_sort(uint64_t *keys, size_t count)
{
    for (size_t i = 1; i < count; i++) {
        uint64_t key = keys[i];
        size_t at = i;
        for (; at > 0 && keys[at - 1] > key; at--)
            keys[at] = keys[at - 1];
        keys[at] = key;
    }
}

// Hoare's partition around the median of three. Returns how many belong to the lower part.
static size_t partition(uint64_t *keys, size_t count)
{
    uint64_t *first = keys, *middle = keys + count / 2, *last = keys + count - 1;

    if (*middle < *first)
        swap(middle, first);
    if (*last < *middle) {
        swap(last, middle);
        if (*middle < *first)
            swap(middle, first);
    }
    uint64_t pivot = *middle;
    for (;;) {
        while (*first < pivot)
            first++;
        while (*last > pivot)
            last--;
        if (first >= last)
            return (size_t)(last - keys) + 1;
        swap(first++, last--);
    }
}

static void quick_sort(uint64_t *keys, size_t count)
{
    while (count > FEW) {
        size_t lower = partition(keys, count);
        quick_sort(keys, lower);
        keys += lower;
        count -= lower;
    }
    insertion_sort(keys, count);
}

static void sift_down(uint64_t *keys, size_t count, size_t at)
{
    uint64_t key = keys[at];

    for (size_t child; (child = 2 * at + 1) < count; at = child) {
        if (child + 1 < count && keys[child + 1] > keys[child])
            child++;
        if (keys[child] <= key)
            break;
        keys[at] = keys[child];
    }
    keys[at] = key;
}

static void heap_sort(uint64_t *keys, size_t count)
{
    for (size_t at = count / 2; at-- > 0;)
        sift_down(keys, count, at);
    while (count > 1) {
        swap(&keys[0], &keys[--count]);
        sift_down(keys, count, 0);
    }
}

// `scratch` has room for half of them.
static void merge_sort(uint64_t *keys, size_t count, uint64_t *scratch)
{
    if (count <= FEW) {
        insertion_sort(keys, count);
        return;
    }
    size_t half = count / 2;
    merge_sort(keys, half, scratch);
    merge_sort(keys + half, count - half, scratch);
    memcpy(scratch, keys, half * sizeof(*keys));
    size_t left = 0, right = half, at = 0;
    while (left < half && right < count)
        keys[at++] = scratch[left] <= keys[right] ? scratch[left++] : keys[right++];
    while (left < half)
        keys[at++] = scratch[left++];
}

static uint64_t checksum(uint64_t sum, const uint64_t *keys)
{
    for (size_t i = 0; i < KEYS; i++)
        sum = kernel_mix(sum, keys[i]);
    return sum;
}

uint64_t kernel_run(unsigned long rounds)
{
    static uint64_t given[KEYS], keys[KEYS], scratch[KEYS / 2];
    uint64_t random = 2, sum = 0;

    for (unsigned long round = 0; round < rounds; round++) {
        for (size_t i = 0; i < KEYS; i++)
            given[i] = kernel_random(&random);
        memcpy(keys, given, sizeof(keys));
        quick_sort(keys, KEYS);
        sum = checksum(sum, keys);
        memcpy(keys, given, sizeof(keys));
        heap_sort(keys, KEYS);
        sum = checksum(sum, keys);
        memcpy(keys, given, sizeof(keys));
        merge_sort(keys, KEYS, scratch);
        sum = checksum(sum, keys);
    }
    return sum;
}
