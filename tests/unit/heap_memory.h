// SPDX-License-Identifier: BSD-2-Clause
// Memory of this process for a heap, for tests, fuzz targets and stress programs of it.
#ifndef STRAKE_TESTS_HEAP_MEMORY_H
#define STRAKE_TESTS_HEAP_MEMORY_H

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "heap/heap.h"

#define HEAP_MEMORY_STEP_BYTES (1ull << 20)

// `opaque` points to the host's address of guest address 0.
static inline uint8_t *heap_memory_at(void *opaque, uint64_t gva)
{
    return *(uint8_t **)opaque + gva;
}

static inline int heap_memory_map(void *opaque, uint64_t gva, uint64_t bytes)
{
    return mprotect(heap_memory_at(opaque, gva), bytes, PROT_READ | PROT_WRITE) ? -errno : 0;
}

static inline void heap_memory_unmap(void *opaque, uint64_t gva, uint64_t bytes)
{
    uint8_t *hva = heap_memory_at(opaque, gva);
    if (madvise(hva, bytes, MADV_DONTNEED) || mprotect(hva, bytes, PROT_NONE)) {
        perror("cannot unmap a heap's memory");
        abort();
    }
}

static inline void *heap_memory_hva(void *opaque, uint64_t gva, uint64_t bytes)
{
    (void)bytes;
    return heap_memory_at(opaque, gva);
}

static inline int heap_memory_zero(void *opaque, uint64_t gva, uint64_t bytes)
{
    memset(heap_memory_at(opaque, gva), 0, bytes);
    return 0;
}

static inline int heap_memory_copy(void *opaque, uint64_t to, uint64_t from, uint64_t bytes)
{
    memcpy(heap_memory_at(opaque, to), heap_memory_at(opaque, from), bytes);
    return 0;
}

// Reserves guest addresses [0, flat_bytes), and makes a heap in [gva, gva + bytes) of them.
static inline struct heap_space heap_memory_space(uint8_t **hva, uint64_t flat_bytes, uint64_t gva,
                                                  uint64_t bytes)
{
    *hva = mmap(NULL, flat_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (*hva == MAP_FAILED) {
        perror("cannot reserve a heap's memory");
        abort();
    }
    return (struct heap_space){.gva = gva,
                               .bytes = bytes,
                               .map = heap_memory_map,
                               .unmap = heap_memory_unmap,
                               .zero = heap_memory_zero,
                               .copy = heap_memory_copy,
                               .hva = heap_memory_hva,
                               .step_bytes = HEAP_MEMORY_STEP_BYTES,
                               .opaque = hva};
}

#endif
