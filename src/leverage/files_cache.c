// SPDX-License-Identifier: BSD-2-Clause
// Which files were found clean, and have not changed since.
//
// Not the kernel's ignore marks: those end with the first write(2), but not with a write through a
// mapping, and with an ignore mark nobody tells us of the open that came before the mapping. Here
// each open is looked at. Its file is the one that was scanned, if
//   - device, inode, size, mtime and ctime are the same. Whatever changes the content sets ctime,
//     which nobody can set back: write(2) each time, a mapping when it first touches a page (each
//     open for writing makes new ones). Times have the grain of a clock tick: a file is kept here
//     only when its times were older than that as it was scanned; and
//   - nobody had it open for writing while it was scanned, or has now: a mapping that is there can
//     write without any trace. The kernel tells who wants a read lease (F_SETLEASE in fcntl(2)); a
//     shared mapping counts as long as it is there.
// So a file that somebody opens for writing is scanned for that one, and for those that come while
// it is open, each time.
//
// A table of fixed size, in which a file has a few places that it may be in; the one that came
// there first makes room.
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "leverage/files.h"

#define SETS 16384u
#define WAYS 4u
#define GRAIN_NS 30000000  // of file times: a tick is at most 10 ms

struct files_cache {
    struct cached {
        struct files_stamp stamp;
        bool used;
    } sets[SETS][WAYS];  // the latest first
};

// ---- Stamps -------------------------------------------------------------------------------------

static bool older(const struct timespec *a, const struct timespec *b, int64_t by_ns)
{
    int64_t seconds = (int64_t)b->tv_sec - a->tv_sec;
    return seconds > 3600 ||
           (seconds >= -3600 && seconds * 1000000000 + (b->tv_nsec - a->tv_nsec) > by_ns);
}

void files_stamp_take(struct files_stamp *stamp, const struct stat *stat,
                      const struct timespec *now)
{
    *stamp = (struct files_stamp){
        .device = stat->st_dev,
        .inode = stat->st_ino,
        .bytes = stat->st_size,
        .changed = stat->st_ctim,
        .modified = stat->st_mtim,
        .steady = older(&stat->st_ctim, now, GRAIN_NS),
    };
}

static bool same_time(const struct timespec *a, const struct timespec *b)
{
    return a->tv_sec == b->tv_sec && a->tv_nsec == b->tv_nsec;
}

bool files_stamp_equal(const struct files_stamp *a, const struct files_stamp *b)
{
    return a->device == b->device && a->inode == b->inode && a->bytes == b->bytes &&
           same_time(&a->changed, &b->changed) && same_time(&a->modified, &b->modified);
}

// A lease that is broken the moment we have it costs whoever breaks it the time until we let go.
bool files_has_writer(int file)
{
    if (fcntl(file, F_SETLEASE, F_RDLCK) < 0)
        return true;
    fcntl(file, F_SETLEASE, F_UNLCK);
    return false;
}

// ---- The table ----------------------------------------------------------------------------------

struct files_cache *files_cache_create(void)
{
    return calloc(1, sizeof(struct files_cache));
}

void files_cache_destroy(struct files_cache *cache)
{
    free(cache);
}

static struct cached *set_of(const struct files_cache *cache, const struct files_stamp *stamp)
{
    uint64_t hash = (stamp->inode ^ (uint64_t)stamp->device << 40) * 0x9e3779b97f4a7c15u;
    return (struct cached *)cache->sets[hash >> 32 & (SETS - 1)];
}

static struct cached *find(const struct files_cache *cache, const struct files_stamp *stamp)
{
    struct cached *set = set_of(cache, stamp);
    for (unsigned i = 0; i < WAYS; i++)
        if (set[i].used && set[i].stamp.inode == stamp->inode &&
            set[i].stamp.device == stamp->device)
            return &set[i];
    return NULL;
}

void files_cache_put(struct files_cache *cache, const struct files_stamp *stamp)
{
    struct cached *set = set_of(cache, stamp), *former = find(cache, stamp);
    size_t before = former ? (size_t)(former - set) : WAYS - 1;
    memmove(set + 1, set, before * sizeof(*set));
    set[0] = (struct cached){.stamp = *stamp, .used = true};
}

bool files_cache_has(const struct files_cache *cache, const struct files_stamp *stamp)
{
    const struct cached *cached = find(cache, stamp);
    return cached && files_stamp_equal(&cached->stamp, stamp);
}

void files_cache_drop(struct files_cache *cache, const struct files_stamp *stamp)
{
    struct cached *cached = find(cache, stamp);
    if (cached)
        cached->used = false;
}

void files_cache_clear(struct files_cache *cache)
{
    memset(cache, 0, sizeof(*cache));
}
