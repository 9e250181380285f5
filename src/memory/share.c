// SPDX-License-Identifier: BSD-2-Clause
// RAM that several partitions share until one of them writes to it.
//
// All of them map one file, the base, read-only. RAM is in chunks; the first store to a chunk
// raises SIGSEGV, whose handler copies the chunk into the partition's own memfd and maps that in
// its place. The kernel's copy-on-write (MAP_PRIVATE) would not do: what it copies is seen through
// one mapping only, and a monitor has several of the same RAM (the translator's windows), and hands
// it on.
//
// Which chunks are own is one byte each in a memfd: a monitor that takes the partition over maps it
// too, and can so be up to date with few mappings at the last moment (memory_share_settle).
//
// Chunks are as large as makes CHUNKS_MAX of them, 64 KiB at least: a process may have 65530
// mappings, and windows want most of them.
//
// Threading: a chunk goes from SHARED over COPYING to OWN, once. Who moves it to COPYING copies;
// others wait, which is as long as a memcpy of a chunk and one mmap take. The store of OWN releases
// what was copied; whoever acquires it may map the memfd at that place.
//
// In the handler: memcpy, mmap and sched_yield are system calls or plain code, and no lock is
// taken.
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "memory/internal.h"

#define CHUNKS_MAX 2048u
#define CHUNK_BYTES_MIN (64u << 10)
#define SHARES_MAX 64u  // RAM regions with a base, a process

enum chunk { CHUNK_SHARED, CHUNK_COPYING, CHUNK_OWN };

struct memory_share {
    uint8_t *hva;  // where the guest's RAM is, with chunks of both kinds
    uint8_t *own;  // all of the memfd
    uint64_t length_bytes, chunk_bytes;
    size_t chunks;
    int fd, base_fd, map_fd;
    atomic_uchar *map;  // enum chunk, shared with whoever holds map_fd
    uint8_t *mapped;    // whether hva has the own chunk; while no hart runs
};

// The handler has no other way to know. Set and cleared while the RAM is not in use.
static struct memory_share *_Atomic shares[SHARES_MAX];

static uint64_t chunk_length(const struct memory_share *share, size_t chunk)
{
    uint64_t offset = chunk * share->chunk_bytes, left = share->length_bytes - offset;

    return left < share->chunk_bytes ? left : share->chunk_bytes;
}

static bool show(struct memory_share *share, size_t chunk, int fd, int protection)
{
    uint64_t offset = chunk * share->chunk_bytes;

    return mmap(share->hva + offset, chunk_length(share, chunk), protection,
                MAP_SHARED | MAP_FIXED | MAP_NORESERVE, fd, (off_t)offset) != MAP_FAILED;
}

// ---- Making a chunk own -------------------------------------------------------------------------

static void take(struct memory_share *share, size_t chunk)
{
    unsigned char expected = CHUNK_SHARED;
    uint64_t offset = chunk * share->chunk_bytes;

    if (!atomic_compare_exchange_strong(&share->map[chunk], &expected, CHUNK_COPYING)) {
        while (atomic_load_explicit(&share->map[chunk], memory_order_acquire) != CHUNK_OWN)
            sched_yield();
        return;
    }
    memcpy(share->own + offset, share->hva + offset, chunk_length(share, chunk));
    // Without the mapping the store that brought us here would fault for ever.
    if (!show(share, chunk, share->fd, PROT_READ | PROT_WRITE))
        abort();
    atomic_store_explicit(&share->map[chunk], CHUNK_OWN, memory_order_release);
}

static bool is_own(const struct memory_share *share, size_t chunk)
{
    return atomic_load_explicit(&share->map[chunk], memory_order_acquire) == CHUNK_OWN;
}

static bool on_fault(const void *hva, void *context)
{
    (void)context;
    for (size_t i = 0; i < SHARES_MAX; i++) {
        struct memory_share *share = shares[i];
        uint64_t offset = share ? (uintptr_t)hva - (uintptr_t)share->hva : UINT64_MAX;

        if (share && offset < share->length_bytes) {
            take(share, offset / share->chunk_bytes);
            return true;
        }
    }
    return false;
}

// ---- Life ---------------------------------------------------------------------------------------

static bool register_share(struct memory_share *share)
{
    for (size_t i = 0; i < SHARES_MAX; i++) {
        struct memory_share *none = NULL;
        if (atomic_compare_exchange_strong(&shares[i], &none, share))
            return true;
    }
    return false;
}

static void unregister_share(struct memory_share *share)
{
    for (size_t i = 0; i < SHARES_MAX; i++) {
        struct memory_share *expected = share;
        atomic_compare_exchange_strong(&shares[i], &expected, NULL);
    }
}

uint64_t memory_base_map_bytes(uint64_t length_bytes)
{
    uint64_t chunk_bytes = CHUNK_BYTES_MIN;

    while ((length_bytes + chunk_bytes - 1) / chunk_bytes > CHUNKS_MAX)
        chunk_bytes *= 2;
    return (length_bytes + chunk_bytes - 1) / chunk_bytes;
}

static bool is_of_length(int fd, uint64_t length_bytes)
{
    struct stat status;

    return fstat(fd, &status) == 0 && (uint64_t)status.st_size == length_bytes;
}

static int map_chunks(struct memory_share *share)
{
    share->own = mmap(NULL, share->length_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE,
                      share->fd, 0);
    share->map = mmap(NULL, share->chunks, PROT_READ | PROT_WRITE, MAP_SHARED, share->map_fd, 0);
    share->mapped = calloc(share->chunks, 1);
    if (share->own == MAP_FAILED || share->map == MAP_FAILED || !share->mapped)
        return -ENOMEM;
    // Neighbours are mapped in one go: a partition that was just restored has but one piece.
    for (size_t first = 0, end; first < share->chunks; first = end) {
        share->mapped[first] = is_own(share, first);
        for (end = first + 1; end < share->chunks && is_own(share, end) == share->mapped[first];
             end++)
            share->mapped[end] = share->mapped[first];
        uint64_t offset = first * share->chunk_bytes;
        uint64_t bytes = (end - first - 1) * share->chunk_bytes + chunk_length(share, end - 1);
        if (!share->mapped[first] &&
            mmap(share->hva + offset, bytes, PROT_READ, MAP_SHARED | MAP_FIXED | MAP_NORESERVE,
                 share->base_fd, (off_t)offset) == MAP_FAILED)
            return -errno;
    }
    return 0;
}

int memory_share_create(struct memory_share **out, const struct memory_ram *ram,
                        const struct memory_base *base)
{
    size_t chunks = memory_base_map_bytes(ram->length_bytes);
    struct memory_share *share;
    int rc;

    if (!is_of_length(base->fd, ram->length_bytes) || !is_of_length(base->map_fd, chunks))
        return -EINVAL;
    rc = fault_handler_add(on_fault);
    if (rc < 0)
        return rc;
    share = calloc(1, sizeof(*share));
    if (!share)
        return -ENOMEM;
    *share = (struct memory_share){
        .hva = ram->hva,
        .own = MAP_FAILED,
        .length_bytes = ram->length_bytes,
        .chunk_bytes = CHUNK_BYTES_MIN,
        .chunks = chunks,
        .fd = ram->fd,
        .base_fd = base->fd,
        .map_fd = base->map_fd,
        .map = MAP_FAILED,
    };
    while (share->chunk_bytes * chunks < ram->length_bytes)
        share->chunk_bytes *= 2;
    rc = map_chunks(share);
    if (rc == 0 && !register_share(share))
        rc = -ENOSPC;
    if (rc < 0) {
        memory_share_abandon(share);
        return rc;
    }
    *out = share;
    return 0;
}

void memory_share_destroy(struct memory_share *share)
{
    if (!share)
        return;
    close(share->base_fd);
    close(share->map_fd);
    memory_share_abandon(share);
}

void memory_share_abandon(struct memory_share *share)
{
    if (!share)
        return;
    unregister_share(share);
    if (share->own != MAP_FAILED)
        munmap(share->own, share->length_bytes);
    if (share->map != MAP_FAILED)
        munmap(share->map, share->chunks);
    free(share->mapped);
    free(share);
}

// ---- Use ----------------------------------------------------------------------------------------

void memory_share_end(struct memory_share *share, uint64_t offset, uint64_t length_bytes)
{
    uint64_t last = (offset + length_bytes - 1) / share->chunk_bytes;

    for (uint64_t chunk = offset / share->chunk_bytes; chunk <= last; chunk++)
        if (!is_own(share, chunk))
            take(share, chunk);
}

void memory_share_run(struct memory_share *share, uint64_t offset, uint64_t *start, uint64_t *end)
{
    size_t first = offset / share->chunk_bytes, last = first;

    memory_share_end(share, offset, 1);
    while (first > 0 && first * share->chunk_bytes > *start && is_own(share, first - 1))
        first--;
    while (last + 1 < share->chunks && (last + 1) * share->chunk_bytes < *end &&
           is_own(share, last + 1))
        last++;
    if (*start < first * share->chunk_bytes)
        *start = first * share->chunk_bytes;
    if (*end > (last + 1) * share->chunk_bytes)
        *end = (last + 1) * share->chunk_bytes;
}

int memory_share_file(const struct memory_share *share, uint64_t offset, uint64_t *length_bytes)
{
    size_t chunk = offset / share->chunk_bytes;
    uint64_t left = share->chunk_bytes - offset % share->chunk_bytes;

    if (*length_bytes > left)
        *length_bytes = left;
    return is_own(share, chunk) ? share->fd : share->base_fd;
}

// Nobody copies in the monitor that had the partition before once its threads have stopped; while
// they run, this takes in what they have done so far.
void memory_share_settle(struct memory_share *share)
{
    for (size_t chunk = 0; chunk < share->chunks; chunk++) {
        if (share->mapped[chunk] || !is_own(share, chunk))
            continue;
        if (!show(share, chunk, share->fd, PROT_READ | PROT_WRITE))
            abort();
        share->mapped[chunk] = true;
    }
}

void memory_share_drop(struct memory_share *share)
{
    for (size_t chunk = 0; chunk < share->chunks; chunk++) {
        if (!is_own(share, chunk) && !show(share, chunk, share->fd, PROT_READ | PROT_WRITE))
            abort();
        atomic_store_explicit(&share->map[chunk], CHUNK_OWN, memory_order_release);
    }
}
