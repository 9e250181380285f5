// SPDX-License-Identifier: BSD-2-Clause
// Stress: threads that alloc, resolve, acquire, put, replace and release on one table while it
// grows, and check at every resolve that the object is the handle's own and not reclaimed.
//
// usage: stress-handles [SECONDS]
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "handle/handle.h"

#define THREADS 6
#define SHARED 512      // handles that all threads know
#define GROWN 120000u   // handles that are added and removed to make the hierarchy grow
#define LIMIT 100000u   // on live handles: reached now and then
#define REMEMBERED 256  // handles that a thread tries again later
#define FREED UINT64_C(0xdeaddeaddeaddead)

// `name` is what makes it this handle's and no other's: threads share handles with their names.
struct object {
    struct handle_deferred deferred;
    uint64_t name;
    uint64_t mirror;  // ~name; FREED once reclaimed
};

// A handle and the name of its object. Written and read as two atomic words: `name` is in both, so
// a reader tells when they do not belong together.
struct shared {
    uint64_t handle;
    uint64_t name;
    uint64_t version;  // odd while written
};

struct stress {
    struct handle_table *table;
    struct shared shared[SHARED];
    uint64_t next_name;
    uint64_t reclaimed;
    bool stop;
};

struct remembered {
    uint64_t handle, name;
};

struct worker {
    struct stress *stress;
    uint64_t seed;
    struct remembered remembered[REMEMBERED];
    uint64_t resolved, stale, allocated, refused;
    pthread_t thread;
};

static uint64_t random_next(struct worker *worker)
{
    worker->seed ^= worker->seed << 13;
    worker->seed ^= worker->seed >> 7;
    worker->seed ^= worker->seed << 17;
    return worker->seed >> 16;
}

static unsigned type_of(uint64_t name)
{
    return name % HANDLE_TYPE_MAX + 1;
}

static struct object *object_new(uint64_t name)
{
    struct object *object = malloc(sizeof(*object));
    if (!object)
        abort();
    object->name = name;
    object->mirror = ~name;
    return object;
}

static void object_reclaim(void *opaque, void *memory)
{
    struct stress *stress = opaque;
    struct object *object = memory;
    if (object->mirror != ~object->name)
        abort();
    object->mirror = FREED;
    __atomic_fetch_add(&stress->reclaimed, 1, __ATOMIC_RELAXED);
    free(object);
}

static void fail(const char *what, uint64_t handle, uint64_t name, uint64_t found)
{
    fprintf(stderr, "%s: handle 0x%016llx of object %llu gave object %llu\n", what,
            (unsigned long long)handle, (unsigned long long)name, (unsigned long long)found);
    abort();
}

// `name` is 0 when any object of its type is right.
static void check(const char *what, const struct object *object, uint64_t handle, uint64_t name)
{
    if (object->mirror != ~object->name || type_of(object->name) != handle_type(handle) ||
        (name && object->name != name))
        fail(what, handle, name, object->name);
}

// A handle that was shared, with its name, or false when it is being exchanged.
static bool shared_read(struct shared *shared, uint64_t *handle, uint64_t *name)
{
    uint64_t before = __atomic_load_n(&shared->version, __ATOMIC_ACQUIRE);
    *handle = __atomic_load_n(&shared->handle, __ATOMIC_ACQUIRE);
    *name = __atomic_load_n(&shared->name, __ATOMIC_ACQUIRE);
    return before % 2 == 0 && __atomic_load_n(&shared->version, __ATOMIC_RELAXED) == before;
}

// Puts a new handle in the place of a shared one, and releases that one.
static void exchange(struct worker *worker, struct shared *shared)
{
    struct stress *stress = worker->stress;
    uint64_t version = __atomic_load_n(&shared->version, __ATOMIC_RELAXED);
    if (version % 2 || !__atomic_compare_exchange_n(&shared->version, &version, version + 1, false,
                                                    __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
        return;
    uint64_t name = __atomic_add_fetch(&stress->next_name, 1, __ATOMIC_RELAXED), fresh = 0;
    struct object *object = object_new(name);
    uint64_t old = shared->handle, old_name = shared->name;
    if (handle_table_alloc(stress->table, object, type_of(name), &fresh)) {
        free(object);
        name = 0;
        worker->refused++;
    }
    worker->allocated += fresh != 0;
    __atomic_store_n(&shared->handle, fresh, __ATOMIC_RELEASE);
    __atomic_store_n(&shared->name, name, __ATOMIC_RELEASE);
    __atomic_store_n(&shared->version, version + 2, __ATOMIC_RELEASE);

    if (!old_name)
        return;
    handle_read_lock();
    void *released = NULL;
    if (handle_table_release(stress->table, old, type_of(old_name), &released))
        fail("release", old, old_name, 0);
    check("release", released, old, old_name);
    handle_read_unlock();
    if (handle_table_release(stress->table, old, type_of(old_name), NULL) != -ENOENT)
        fail("second release", old, old_name, 0);
}

// Resolves what is shared now, and what was shared some time ago and may have been released since.
static void resolve(struct worker *worker, struct shared *shared)
{
    struct remembered *remembered = &worker->remembered[random_next(worker) % REMEMBERED], now;
    if (!shared_read(shared, &now.handle, &now.name))
        return;
    const struct remembered *tried[] = {&now, remembered};
    handle_read_lock();
    for (unsigned i = 0; i < 2; i++) {
        uint64_t handle = tried[i]->handle;
        struct object *object =
            handle_table_resolve(worker->stress->table, handle, handle_type(handle));
        if (object)
            check("resolve", object, handle, tried[i]->name);
        worker->resolved += object != NULL;
        worker->stale += object == NULL;
    }
    handle_read_unlock();
    *remembered = now;
}

// A guess: right index and type, generation near that of a handle. It must not give what another
// generation had, freed or of another type.
static void resolve_guess(struct worker *worker, struct shared *shared)
{
    uint64_t handle = __atomic_load_n(&shared->handle, __ATOMIC_ACQUIRE);
    uint64_t generation = UINT64_C(1) << (HANDLE_INDEX_BITS + HANDLE_TYPE_BITS);
    uint64_t guess = handle + generation * (random_next(worker) % 3);
    guess ^= (random_next(worker) % HANDLE_TYPE_MAX) << HANDLE_INDEX_BITS;
    handle_read_lock();
    struct object *object = handle_table_resolve(worker->stress->table, guess, handle_type(guess));
    if (object)
        check("resolve of a guess", object, guess, 0);
    handle_read_unlock();
}

static void hold(struct worker *worker, struct shared *shared)
{
    uint64_t handle, name;
    bool belong = shared_read(shared, &handle, &name);
    struct object *object =
        handle_table_acquire(worker->stress->table, handle, handle_type(handle));
    if (!object)
        return;
    for (unsigned i = 0; i < random_next(worker) % 64; i++)
        check("acquire", object, handle, belong ? name : 0);
    if (handle_table_put(worker->stress->table, handle))
        fail("put", handle, name, 0);
}

// The handle's new object has the name of the old one, which is ours to give back, once, whoever
// releases the handle meanwhile.
static void replace(struct worker *worker, struct shared *shared)
{
    struct handle_table *table = worker->stress->table;
    uint64_t handle, name;
    void *old;
    if (!shared_read(shared, &handle, &name) || !handle)
        return;
    struct object *object = object_new(name);
    if (handle_table_replace(table, handle, handle_type(handle), object, &old)) {
        free(object);
        return;
    }
    check("replace", old, handle, name);
    handle_table_reclaim(table, old);
    worker->allocated++;
}

static void *work(void *opaque)
{
    struct worker *worker = opaque;
    struct stress *stress = worker->stress;
    while (!__atomic_load_n(&stress->stop, __ATOMIC_RELAXED)) {
        uint64_t at = random_next(worker) % SHARED;
        struct shared *shared = &stress->shared[at];
        switch (random_next(worker) % 8) {
        case 0:
        case 1:
            exchange(worker, shared);
            break;
        case 2:
            // What is held may not be reclaimed after it was replaced: some handles see one, some
            // the other.
            (at % 2 ? hold : replace)(worker, shared);
            break;
        case 3:
            resolve_guess(worker, shared);
            break;
        default:
            resolve(worker, shared);
            break;
        }
    }
    return NULL;
}

// Fills the table, which takes it through all levels to its limit, and empties it; then fills and
// empties it to some extent, again and again.
static void *grow(void *opaque)
{
    struct worker *worker = opaque;
    struct stress *stress = worker->stress;
    uint64_t *handles = calloc(GROWN, sizeof(*handles));
    if (!handles)
        abort();
    unsigned count = GROWN;
    while (!__atomic_load_n(&stress->stop, __ATOMIC_RELAXED)) {
        for (unsigned i = 0; i < count; i++) {
            uint64_t name = __atomic_add_fetch(&stress->next_name, 1, __ATOMIC_RELAXED);
            struct object *object = object_new(name);
            if (handle_table_alloc(stress->table, object, type_of(name), &handles[i])) {
                free(object);
                worker->refused++;
                count = i;
            }
        }
        for (unsigned i = 0; i < count; i++)
            if (handle_table_release(stress->table, handles[i], handle_type(handles[i]), NULL))
                abort();
        worker->allocated += count;
        count = random_next(worker) % GROWN;
    }
    free(handles);
    return NULL;
}

static void leftover(void *opaque, uint64_t handle, void *object)
{
    (void)opaque;
    check("left over", object, handle, 0);
    free(object);
}

int main(int argc, char **argv)
{
    unsigned seconds = argc > 1 ? (unsigned)atoi(argv[1]) : 2;
    static struct stress stress;
    struct handle_options options = {.live_max = LIMIT,
                                     .reclaim = object_reclaim,
                                     .opaque = &stress,
                                     .deferred_offset_bytes = offsetof(struct object, deferred)};
    if (handle_table_create(&stress.table, &options))
        return 1;

    struct worker workers[THREADS] = {0};
    for (unsigned i = 0; i < THREADS; i++) {
        workers[i] = (struct worker){.stress = &stress, .seed = 0x9e3779b97f4a7c15 * (i + 1)};
        if (pthread_create(&workers[i].thread, NULL, i == 0 ? grow : work, &workers[i]))
            return 1;
    }
    nanosleep(&(struct timespec){.tv_sec = seconds}, NULL);
    __atomic_store_n(&stress.stop, true, __ATOMIC_RELAXED);

    struct worker sum = {0};
    for (unsigned i = 0; i < THREADS; i++) {
        pthread_join(workers[i].thread, NULL);
        sum.resolved += workers[i].resolved;
        sum.stale += workers[i].stale;
        sum.allocated += workers[i].allocated;
        sum.refused += workers[i].refused;
    }
    struct handle_stats stats;
    handle_table_stats(stress.table, &stats);
    uint32_t left = handle_table_destroy(stress.table, leftover, NULL);
    printf("%llu resolves checked, %llu stale, %llu objects allocated, %llu refused, %u left, "
           "%u slots in %u levels\n",
           (unsigned long long)sum.resolved, (unsigned long long)sum.stale,
           (unsigned long long)sum.allocated, (unsigned long long)sum.refused, left, stats.capacity,
           stats.levels);
    if (left != stats.live || sum.allocated != left + stress.reclaimed || !sum.resolved ||
        !sum.refused || stats.levels != 3) {
        fprintf(stderr, "%u live, %llu reclaimed: the sums are wrong\n", stats.live,
                (unsigned long long)stress.reclaimed);
        return 1;
    }
    return 0;
}
