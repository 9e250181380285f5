// SPDX-License-Identifier: BSD-2-Clause
// The table of identifiers: one 16-bit entry a granule. Entries are written by the thread that
// allocates or frees an object, and read by all, in translated code without any order: a program
// that hands a pointer to another of its threads orders the entries with it.
#include <errno.h>
#include <sys/mman.h>

#include "memory/memory.h"

#define ENTRIES_A_WORD 4u

static uint64_t table_bytes(uint64_t bytes)
{
    return bytes / MEMORY_GRANULE_BYTES * sizeof(uint16_t);
}

static void *map(void *hva, uint64_t bytes, int protection, int flags)
{
    return mmap(hva, bytes, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | flags, -1, 0);
}

// Room for the entries of all pointers, low if possible.
static void *reserve(void)
{
    uint64_t all = table_bytes(MEMORY_POINTER_BYTES);
    void *hva = map((void *)(uintptr_t)MEMORY_IDENTIFIERS_HVA, all, PROT_NONE,  // NOLINT
                    MAP_FIXED_NOREPLACE);

    return hva == MAP_FAILED ? map(NULL, all, PROT_NONE, 0) : hva;
}

// Sanitizers and limits of the process may leave no room for all.
int memory_identifiers_init(struct memory_identifiers *table, uint64_t bytes, struct error *err)
{
    void *hva;

    *table = (struct memory_identifiers){0};
    if (bytes == 0 || bytes % MEMORY_PAGE_BYTES || bytes > MEMORY_POINTER_BYTES)
        return error_set(err, -EINVAL, "identifiers for %#llx bytes: not a number of pages",
                         (unsigned long long)bytes);
    hva = reserve();
    table->reserved = hva != MAP_FAILED;
    if (table->reserved && mprotect(hva, table_bytes(bytes), PROT_READ | PROT_WRITE) != 0) {
        munmap(hva, table_bytes(MEMORY_POINTER_BYTES));
        table->reserved = false;
    }
    if (!table->reserved)
        hva = map(NULL, table_bytes(bytes), PROT_READ | PROT_WRITE, 0);
    if (hva == MAP_FAILED)
        return error_set_errno(err, -errno, "identifiers for %#llx bytes",
                               (unsigned long long)bytes);
    table->entries = hva;
    table->bytes = bytes;
    return 0;
}

void memory_identifiers_fini(struct memory_identifiers *table)
{
    if (table->entries)
        munmap((void *)table->entries,
               table_bytes(table->reserved ? MEMORY_POINTER_BYTES : table->bytes));
    *table = (struct memory_identifiers){0};
}

// Four entries a store where they lie in one word.
static void fill(_Atomic uint16_t *entry, uint64_t count, uint16_t value)
{
    uint64_t word = value * 0x0001000100010001ull;

    for (; count > 0 && (uintptr_t)entry % sizeof(word); entry++, count--)
        atomic_store_explicit(entry, value, memory_order_relaxed);
    for (; count >= ENTRIES_A_WORD; entry += ENTRIES_A_WORD, count -= ENTRIES_A_WORD)
        atomic_store_explicit((_Atomic uint64_t *)entry, word, memory_order_relaxed);
    for (; count > 0; entry++, count--)
        atomic_store_explicit(entry, value, memory_order_relaxed);
}

void memory_identifiers_set(const struct memory_identifiers *table, uint64_t gva, uint64_t bytes,
                            uint16_t identifier)
{
    _Atomic uint16_t *entry = &table->entries[gva / MEMORY_GRANULE_BYTES];
    uint64_t whole = bytes / MEMORY_GRANULE_BYTES;

    fill(entry, whole, identifier);
    if (bytes % MEMORY_GRANULE_BYTES)
        atomic_store_explicit(&entry[whole], MEMORY_IDENTIFIER_LOOK, memory_order_relaxed);
}

void memory_identifiers_drop(const struct memory_identifiers *table, uint64_t gva, uint64_t bytes)
{
    _Atomic uint16_t *entry = &table->entries[gva / MEMORY_GRANULE_BYTES];

    // What cannot be given back, as when pages are locked, is cleared in place.
    if (madvise((void *)entry, bytes / MEMORY_GRANULE_BYTES * sizeof(*entry), MADV_DONTNEED) != 0)
        fill(entry, bytes / MEMORY_GRANULE_BYTES, MEMORY_IDENTIFIER_NONE);
}
