// SPDX-License-Identifier: BSD-2-Clause
// Measures handle tables beside other ways to get from a number to an object: a plain
// bounds-checked array, which is the limit, the same under a pthread rwlock, liburcu's cds_lfht and
// Concurrency Kit's ck_ht. bench/handles.py runs it and reads what it prints: one JSON object a
// line.
//
// usage: handles RUNS MILLISECONDS MAX_SIZE
//
// resolve: one after the other. The handle depends on the object before it, as in a program that
//   looks at what it resolved; so this is the time of one resolve, not of many that the processor
//   overlaps. That is measured too ("overlapped"), and resolves beside a thread that allocates and
//   releases without making the table grow ("churned").
// alloc_release: the pair. mixed: of 20 operations 18 are resolves, one an alloc, one a release.
//
// Handles are drawn uniformly from all that are live. Where there are read sections, one spans 50
// operations. The thread that grows the table allocates 64 handles and releases 32 each 200 us; the
// one that churns releases all.
// Threads that are measured are pinned, each to its processor; pieces of a measurement in which
// another thread had that processor are left out. A figure is the best of RUNS.
#include <malloc.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>
#include <x86intrin.h>

#define _LGPL_SOURCE
#include <urcu/urcu-bp.h>

#include <urcu/rculfhash.h>

#include <ck_ht.h>

#include "handle/handle.h"

#define TYPE 3
#define SECTION 50          // operations in a read section
#define CHUNK 1000          // operations between two looks at the clock
#define OWN 64              // handles that a thread of `mixed` keeps
#define CYCLES_MAX 65536    // longer operations count as this long
#define OBJECTS (1u << 16)  // what handles stand for; only addresses matter

// How a subject is used. The measuring loops are inlined for each subject, so that what may be
// inlined into a program is inlined there.
struct subject {
    const char *name;
    bool one_writer;  // changed by one thread only
    void *(*create)(uint32_t size);
    void (*destroy)(void *set);
    uint64_t (*alloc)(void *set, void *object);
    void (*release)(void *set, uint64_t handle);
    void *(*resolve)(void *set, uint64_t handle);
    void (*enter)(void);  // a read section
    void (*leave)(void);
};

static void no_section(void)
{
}

static uint64_t objects[OBJECTS];

static void *object_at(uint64_t number)
{
    return &objects[number % OBJECTS];
}

static void *or_die(void *memory)
{
    if (!memory) {
        perror("handles");
        exit(1);
    }
    return memory;
}

// ---- strake -------------------------------------------------------------------------------------

static void *strake_create(uint32_t size)
{
    struct handle_table *table = NULL;
    (void)size;
    if (handle_table_create(&table, NULL))
        exit(1);
    return table;
}

static void strake_destroy(void *set)
{
    handle_table_destroy(set, NULL, NULL);
}

static inline uint64_t strake_alloc(void *set, void *object)
{
    uint64_t handle;
    if (handle_table_alloc(set, object, TYPE, &handle))
        exit(1);
    return handle;
}

static inline void strake_release(void *set, uint64_t handle)
{
    if (handle_table_release(set, handle, TYPE, NULL))
        exit(1);
}

static inline void *strake_resolve(void *set, uint64_t handle)
{
    return handle_table_resolve(set, handle, TYPE);
}

static const struct subject strake = {
    "strake",       false,          strake_create,    strake_destroy,     strake_alloc,
    strake_release, strake_resolve, handle_read_lock, handle_read_unlock,
};

// ---- array: the slots of a handle table in one piece. Nothing is checked but the bounds, and only
// one thread may change it; it is as large as it will ever be, but touched only as it fills.
// --------

#define ARRAY_SLOTS HANDLE_LIVE_MAX

struct array {
    uint32_t count;
    struct handle_slot *slots;
    uint32_t *unused;
    uint32_t unused_count;
};

static void *array_create(uint32_t size)
{
    (void)size;
    struct array *array = or_die(calloc(1, sizeof(*array)));
    array->slots = or_die(calloc(ARRAY_SLOTS, sizeof(array->slots[0])));
    array->unused = or_die(calloc(ARRAY_SLOTS, sizeof(array->unused[0])));
    return array;
}

static void array_destroy(void *set)
{
    struct array *array = set;
    free(array->slots);
    free(array->unused);
    free(array);
}

static inline uint64_t array_alloc(void *set, void *object)
{
    struct array *array = set;
    uint32_t index = array->unused_count ? array->unused[--array->unused_count] : array->count;
    array->slots[index].tag += UINT64_C(1) << 30;
    array->slots[index].object = object;
    if (index == array->count)
        __atomic_store_n(&array->count, index + 1, __ATOMIC_RELEASE);
    return array->slots[index].tag | index;
}

static inline void array_release(void *set, uint64_t handle)
{
    struct array *array = set;
    array->slots[handle_index(handle)].object = NULL;
    array->unused[array->unused_count++] = handle_index(handle);
}

static inline void *array_resolve(void *set, uint64_t handle)
{
    struct array *array = set;
    uint32_t index = handle_index(handle);
    if (index >= __atomic_load_n(&array->count, __ATOMIC_ACQUIRE))
        return NULL;
    return __atomic_load_n(&array->slots[index].object, __ATOMIC_RELAXED);
}

static const struct subject array = {
    "array",       true,          array_create, array_destroy, array_alloc,
    array_release, array_resolve, no_section,   no_section,
};

// ---- rwlock: an array that grows, with generations, under a lock --------------------------------

struct rwlock {
    pthread_rwlock_t lock;
    uint32_t count, capacity;
    struct handle_slot *slots;
    uint32_t *unused;
    uint32_t unused_count;
};

static void *rwlock_create(uint32_t size)
{
    (void)size;
    struct rwlock *rwlock = or_die(calloc(1, sizeof(*rwlock)));
    pthread_rwlock_init(&rwlock->lock, NULL);
    return rwlock;
}

static void rwlock_destroy(void *set)
{
    struct rwlock *rwlock = set;
    free(rwlock->slots);
    free(rwlock->unused);
    free(rwlock);
}

static void rwlock_grow(struct rwlock *rwlock)
{
    rwlock->capacity = rwlock->capacity ? rwlock->capacity * 2 : 256;
    size_t slots_bytes = rwlock->capacity * sizeof(rwlock->slots[0]);
    size_t unused_bytes = rwlock->capacity * sizeof(rwlock->unused[0]);
    rwlock->slots = or_die(realloc(rwlock->slots, slots_bytes));
    rwlock->unused = or_die(realloc(rwlock->unused, unused_bytes));
    memset(rwlock->slots + rwlock->count, 0,
           slots_bytes - rwlock->count * sizeof(rwlock->slots[0]));
}

static inline uint64_t rwlock_alloc(void *set, void *object)
{
    struct rwlock *rwlock = set;
    pthread_rwlock_wrlock(&rwlock->lock);
    if (!rwlock->unused_count && rwlock->count == rwlock->capacity)
        rwlock_grow(rwlock);
    uint32_t index =
        rwlock->unused_count ? rwlock->unused[--rwlock->unused_count] : rwlock->count++;
    struct handle_slot *slot = &rwlock->slots[index];
    slot->tag = (slot->tag & ~HANDLE_TYPE_MASK) + (UINT64_C(1) << 30 | TYPE << 24);
    slot->object = object;
    uint64_t handle = slot->tag | index;
    pthread_rwlock_unlock(&rwlock->lock);
    return handle;
}

static inline void rwlock_release(void *set, uint64_t handle)
{
    struct rwlock *rwlock = set;
    pthread_rwlock_wrlock(&rwlock->lock);
    rwlock->slots[handle_index(handle)].tag &= ~HANDLE_TYPE_MASK;
    rwlock->unused[rwlock->unused_count++] = handle_index(handle);
    pthread_rwlock_unlock(&rwlock->lock);
}

static inline void *rwlock_resolve(void *set, uint64_t handle)
{
    struct rwlock *rwlock = set;
    uint32_t index = handle_index(handle);
    pthread_rwlock_rdlock(&rwlock->lock);
    struct handle_slot *slot = &rwlock->slots[index];
    void *object = index < rwlock->count && slot->tag >> 24 == handle >> 24 ? slot->object : NULL;
    pthread_rwlock_unlock(&rwlock->lock);
    return object;
}

static const struct subject rwlock = {
    "rwlock",       false,          rwlock_create, rwlock_destroy, rwlock_alloc,
    rwlock_release, rwlock_resolve, no_section,    no_section,
};

// ---- lfht: liburcu's lock-free hash table. It starts with as many buckets as handles. -----------

struct lfht {
    struct cds_lfht *table;
    uint64_t next;
};

struct lfht_node {
    struct cds_lfht_node node;
    uint64_t handle;
    void *object;
    struct rcu_head head;
};

static uint32_t power_of_two(uint32_t size)
{
    uint32_t power = 64;
    while (power < size)
        power *= 2;
    return power;
}

static void *lfht_create(uint32_t size)
{
    struct lfht *lfht = or_die(calloc(1, sizeof(*lfht)));
    lfht->table = or_die(cds_lfht_new_flavor(power_of_two(size), 64, 0,
                                             CDS_LFHT_AUTO_RESIZE | CDS_LFHT_ACCOUNTING,
                                             &urcu_bp_flavor, NULL));
    return lfht;
}

static void lfht_free(struct rcu_head *head)
{
    free(caa_container_of(head, struct lfht_node, head));
}

static void lfht_destroy(void *set)
{
    struct lfht *lfht = set;
    struct cds_lfht_iter iter;
    struct lfht_node *node;
    urcu_bp_read_lock();
    cds_lfht_for_each_entry(lfht->table, &iter, node, node)
    {
        cds_lfht_del(lfht->table, &node->node);
        urcu_bp_call_rcu(&node->head, lfht_free);
    }
    urcu_bp_read_unlock();
    urcu_bp_barrier();
    cds_lfht_destroy(lfht->table, NULL);
    free(lfht);
}

static inline unsigned long lfht_hash(uint64_t handle)
{
    uint64_t mixed = handle * UINT64_C(0x9e3779b97f4a7c15);
    return mixed ^ mixed >> 32;
}

static int lfht_match(struct cds_lfht_node *node, const void *key)
{
    return caa_container_of(node, struct lfht_node, node)->handle == *(const uint64_t *)key;
}

static inline uint64_t lfht_alloc(void *set, void *object)
{
    struct lfht *lfht = set;
    struct lfht_node *node = or_die(malloc(sizeof(*node)));
    node->handle = __atomic_add_fetch(&lfht->next, 1, __ATOMIC_RELAXED);
    node->object = object;
    uint64_t handle = node->handle;
    urcu_bp_read_lock();
    cds_lfht_add(lfht->table, lfht_hash(handle), &node->node);
    urcu_bp_read_unlock();
    return handle;
}

static inline struct lfht_node *lfht_find(struct lfht *lfht, uint64_t handle)
{
    struct cds_lfht_iter iter;
    cds_lfht_lookup(lfht->table, lfht_hash(handle), lfht_match, &handle, &iter);
    struct cds_lfht_node *node = cds_lfht_iter_get_node(&iter);
    return node ? caa_container_of(node, struct lfht_node, node) : NULL;
}

static inline void lfht_release(void *set, uint64_t handle)
{
    struct lfht *lfht = set;
    urcu_bp_read_lock();
    struct lfht_node *node = lfht_find(lfht, handle);
    if (!node || cds_lfht_del(lfht->table, &node->node))
        exit(1);
    urcu_bp_read_unlock();
    urcu_bp_call_rcu(&node->head, lfht_free);
}

static inline void *lfht_resolve(void *set, uint64_t handle)
{
    struct lfht_node *node = lfht_find(set, handle);
    return node ? node->object : NULL;
}

static const struct subject lfht = {
    "lfht",       false,        lfht_create,       lfht_destroy,        lfht_alloc,
    lfht_release, lfht_resolve, urcu_bp_read_lock, urcu_bp_read_unlock,
};

// ---- ck_ht: Concurrency Kit's hash table for one writer and many readers, so writers take a
// mutex. It starts with room for twice the handles. What it replaces while it grows is freed at the
// end. ---

struct ck {
    ck_ht_t table;
    pthread_mutex_t writer;
    uint64_t next;
};

static void *ck_allocate(size_t bytes)
{
    return malloc(bytes);
}

static void ck_release_memory(void *memory, size_t bytes, bool defer)
{
    (void)bytes;
    if (!defer)
        free(memory);
}

static struct ck_malloc ck_memory = {.malloc = ck_allocate, .free = ck_release_memory};

static void *ck_ht_set_create(uint32_t size)
{
    struct ck *ck = or_die(calloc(1, sizeof(*ck)));
    pthread_mutex_init(&ck->writer, NULL);
    if (!ck_ht_init(&ck->table, CK_HT_MODE_DIRECT | CK_HT_WORKLOAD_DELETE, NULL, &ck_memory,
                    power_of_two(size) * 2, 42))
        exit(1);
    return ck;
}

static void ck_ht_set_destroy(void *set)
{
    struct ck *ck = set;
    ck_ht_destroy(&ck->table);
    free(ck);
}

static inline uint64_t ck_ht_set_alloc(void *set, void *object)
{
    struct ck *ck = set;
    ck_ht_hash_t hash;
    ck_ht_entry_t entry;
    pthread_mutex_lock(&ck->writer);
    uint64_t handle = ++ck->next;
    ck_ht_hash_direct(&hash, &ck->table, handle);
    ck_ht_entry_set_direct(&entry, hash, handle, (uintptr_t)object);
    if (!ck_ht_put_spmc(&ck->table, hash, &entry))
        exit(1);
    pthread_mutex_unlock(&ck->writer);
    return handle;
}

static inline void ck_ht_set_release(void *set, uint64_t handle)
{
    struct ck *ck = set;
    ck_ht_hash_t hash;
    ck_ht_entry_t entry;
    pthread_mutex_lock(&ck->writer);
    ck_ht_hash_direct(&hash, &ck->table, handle);
    ck_ht_entry_key_set_direct(&entry, handle);
    if (!ck_ht_remove_spmc(&ck->table, hash, &entry))
        exit(1);
    if (handle % 64 == 0)
        ck_ht_gc(&ck->table, 128, handle * 2);
    pthread_mutex_unlock(&ck->writer);
}

static inline void *ck_ht_set_resolve(void *set, uint64_t handle)
{
    struct ck *ck = set;
    ck_ht_hash_t hash;
    ck_ht_entry_t entry;
    ck_ht_hash_direct(&hash, &ck->table, handle);
    ck_ht_entry_key_set_direct(&entry, handle);
    return ck_ht_get_spmc(&ck->table, hash, &entry) ? (void *)ck_ht_entry_value_direct(&entry)
                                                    : NULL;
}

static const struct subject ck_ht_set = {
    "ck_ht",           false,           ck_ht_set_create,
    ck_ht_set_destroy, ck_ht_set_alloc, ck_ht_set_release,
    ck_ht_set_resolve, no_section,      no_section,
};

// ---- Operations ---------------------------------------------------------------------------------

struct worker;
typedef void chunk_fn(struct worker *worker);

// What another thread does meanwhile.
enum company { ALONE, CHURNING, GROWING };

struct bench {
    const struct subject *subject;
    void *set;
    const uint64_t *order;  // handles, drawn at random
    uint32_t order_mask;
    pthread_barrier_t start;
    enum company company;
    bool stop;  // for the other thread
};

// What the operations of a thread need; a chunk has it in registers.
struct cursor {
    void *set;
    const uint64_t *order;
    uint32_t order_mask;
    uint32_t at;     // in the order
    uintptr_t last;  // what was resolved last
    uint64_t *own;   // handles of `mixed`
    uint32_t own_at;
};

struct worker {
    struct bench *bench;
    pthread_t thread;
    unsigned cpu;
    chunk_fn *chunk, *timed;
    double milliseconds;
    struct cursor cursor;
    uint64_t own[OWN];
    double ns;
    uint32_t chunk_cycles[CHUNK];
    uint32_t cycles[CYCLES_MAX];  // how many operations took that many
};

#define INLINE static inline __attribute__((always_inline))

// An object's lowest bit is zero, but the processor does not know before it has the object: with
// `wait` this resolve begins when the last has ended.
INLINE void resolve_one(struct cursor *cursor, const struct subject *subject, bool wait)
{
    uint64_t handle = cursor->order[cursor->at++ & cursor->order_mask];
    void *object = subject->resolve(cursor->set, wait ? handle | (cursor->last & 1) : handle);
    if (!object) {
        fprintf(stderr, "handles: a live handle did not resolve\n");
        exit(1);
    }
    cursor->last = wait ? (uintptr_t)object : cursor->last + (uintptr_t)object;
}

INLINE void resolve(struct cursor *cursor, const struct subject *subject, unsigned number)
{
    (void)number;
    resolve_one(cursor, subject, true);
}

INLINE void overlapped(struct cursor *cursor, const struct subject *subject, unsigned number)
{
    (void)number;
    resolve_one(cursor, subject, false);
}

INLINE void alloc_release(struct cursor *cursor, const struct subject *subject, unsigned number)
{
    subject->release(cursor->set, subject->alloc(cursor->set, object_at(number)));
}

INLINE void mixed(struct cursor *cursor, const struct subject *subject, unsigned number)
{
    uint64_t *own = &cursor->own[cursor->own_at % OWN];
    if (number % 20 == 6)
        subject->release(cursor->set, *own);
    else if (number % 20 == 16)
        cursor->own_at++, *own = subject->alloc(cursor->set, object_at(number));
    else
        resolve_one(cursor, subject, true);
}

INLINE void nothing(struct cursor *cursor, const struct subject *subject, unsigned number)
{
    (void)cursor, (void)subject, (void)number;
}

typedef void operation_fn(struct cursor *cursor, const struct subject *subject, unsigned number);

INLINE void chunk(struct worker *worker, const struct subject *subject, operation_fn *operation)
{
    struct cursor cursor = worker->cursor;
    for (unsigned i = 0; i < CHUNK;) {
        subject->enter();
        do
            operation(&cursor, subject, i++);
        while (i % SECTION != 0);
        subject->leave();
    }
    worker->cursor = cursor;
}

// Each operation alone, in cycles of the time-stamp counter, from when all before it is done until
// it is.
INLINE void timed(struct worker *worker, const struct subject *subject, operation_fn *operation)
{
    struct cursor cursor = worker->cursor;
    unsigned cpu;
    for (unsigned i = 0; i < CHUNK; i++) {
        subject->enter();
        _mm_lfence();
        uint64_t begin = __rdtsc();
        _mm_lfence();
        operation(&cursor, subject, i);
        uint64_t cycles = __rdtscp(&cpu) - begin;
        _mm_lfence();
        subject->leave();
        worker->chunk_cycles[i] = cycles < CYCLES_MAX ? (uint32_t)cycles : CYCLES_MAX - 1;
    }
    worker->cursor = cursor;
}

enum operation { RESOLVE, ALLOC_RELEASE, MIXED, OVERLAPPED, NOTHING, OPERATIONS };
static const char *const operation_names[] = {"resolve", "alloc_release", "mixed", "overlapped"};

struct loops {
    const struct subject *subject;
    chunk_fn *chunk[OPERATIONS], *timed[OPERATIONS];
};

#define LOOP(subject, operation)                                                                   \
    static void subject##_##operation##_chunk(struct worker *worker)                               \
    {                                                                                              \
        chunk(worker, &(subject), operation);                                                      \
    }                                                                                              \
    static void subject##_##operation##_timed(struct worker *worker)                               \
    {                                                                                              \
        timed(worker, &(subject), operation);                                                      \
    }
#define LOOPS(subject)                                                                             \
    LOOP(subject, resolve)                                                                         \
    LOOP(subject, alloc_release)                                                                   \
    LOOP(subject, mixed)                                                                           \
    LOOP(subject, overlapped)                                                                      \
    LOOP(subject, nothing)                                                                         \
    static const struct loops subject##_loops = {                                                  \
        &(subject),                                                                                \
        {subject##_resolve_chunk, subject##_alloc_release_chunk, subject##_mixed_chunk,            \
         subject##_overlapped_chunk, subject##_nothing_chunk},                                     \
        {subject##_resolve_timed, subject##_alloc_release_timed, subject##_mixed_timed,            \
         subject##_overlapped_timed, subject##_nothing_timed},                                     \
    };

LOOPS(strake)
LOOPS(array)
LOOPS(rwlock)
LOOPS(lfht)
LOOPS(ck_ht_set)

static const struct loops *const all_loops[] = {&strake_loops, &array_loops, &rwlock_loops,
                                                &lfht_loops, &ck_ht_set_loops};

// ---- Threads ------------------------------------------------------------------------------------

static double now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

static long preemptions(void)
{
    struct rusage usage;
    getrusage(RUSAGE_THREAD, &usage);
    return usage.ru_nivcsw;
}

// A measurement goes on for its time, and on to ten times that until a chunk was left in peace.
static bool go_on(const struct worker *worker, double begin, uint64_t operations)
{
    double past = now_ns() - begin, planned = worker->milliseconds * 1e6;
    return past < planned || (!operations && past < 10 * planned);
}

static void *worker_run(void *opaque)
{
    struct worker *worker = opaque;
    struct bench *bench = worker->bench;
    cpu_set_t cpus;
    CPU_ZERO(&cpus);
    CPU_SET(worker->cpu, &cpus);
    sched_setaffinity(0, sizeof(cpus), &cpus);
    pthread_barrier_wait(&bench->start);

    // A chunk during which another thread had the processor does not count: what others do on the
    // machine is not measured. A wait for a lock is. Where no chunk is left in peace, the whole is
    // taken as it is.
    double begin = now_ns(), sum = 0;
    uint64_t operations = 0, all = 0;
    while (go_on(worker, begin, operations)) {
        long before = preemptions();
        double chunk_begin = now_ns();
        worker->chunk(worker);
        double ns = now_ns() - chunk_begin;
        all += CHUNK;
        if (preemptions() != before)
            continue;
        sum += ns;
        operations += CHUNK;
    }
    worker->ns = operations ? sum / (double)operations : (now_ns() - begin) / (double)all;

    begin = now_ns(), operations = 0;
    while (go_on(worker, begin, operations)) {
        long before = preemptions();
        worker->timed(worker);
        if (preemptions() != before)
            continue;
        for (unsigned i = 0; i < CHUNK; i++)
            worker->cycles[worker->chunk_cycles[i]]++;
        operations += CHUNK;
    }
    return NULL;
}

static void *company_run(void *opaque)
{
    struct bench *bench = opaque;
    const struct subject *subject = bench->subject;
    uint64_t handles[64];
    pthread_barrier_wait(&bench->start);
    while (!__atomic_load_n(&bench->stop, __ATOMIC_RELAXED)) {
        for (unsigned i = 0; i < 64; i++)
            handles[i] = subject->alloc(bench->set, object_at(i));
        unsigned step = bench->company == GROWING ? 2 : 1;
        for (unsigned i = 0; i < 64 && !subject->one_writer; i += step)
            subject->release(bench->set, handles[i]);
        nanosleep(&(struct timespec){.tv_nsec = 200000}, NULL);
    }
    return NULL;
}

// How many cycles `share` of all operations do not exceed, interpolated between the steps in which
// the counter counts.
static double quantile(const struct worker *workers, unsigned threads, double share)
{
    double total = 0, below = 0, below_at = 0;
    for (unsigned thread = 0; thread < threads; thread++)
        for (unsigned i = 0; i < CYCLES_MAX; i++)
            total += workers[thread].cycles[i];
    for (unsigned i = 0; i < CYCLES_MAX; i++) {
        double here = 0;
        for (unsigned thread = 0; thread < threads; thread++)
            here += workers[thread].cycles[i];
        if (here > 0 && below + here >= share * total)
            return below_at + (i - below_at) * (share * total - below) / here;
        below_at = here > 0 ? i : below_at;
        below += here;
    }
    return CYCLES_MAX;
}

struct figures {
    double ns;
    double p50_cycles, p999_cycles;
};

static struct figures measure_once(struct bench *bench, const struct loops *loops,
                                   enum operation operation, unsigned threads, enum company company,
                                   double milliseconds)
{
    struct worker *workers = or_die(calloc(threads, sizeof(*workers)));
    pthread_t other;
    struct figures figures = {0};
    bench->stop = false;
    bench->company = company;
    pthread_barrier_init(&bench->start, NULL, threads + (company != ALONE));
    for (unsigned i = 0; i < threads; i++) {
        struct worker *worker = &workers[i];
        *worker = (struct worker){.bench = bench, .cpu = i, .milliseconds = milliseconds};
        worker->chunk = loops->chunk[operation];
        worker->timed = loops->timed[operation];
        worker->cursor = (struct cursor){.set = bench->set,
                                         .order = bench->order,
                                         .order_mask = bench->order_mask,
                                         .at = i * (bench->order_mask / threads),
                                         .own = worker->own};
        for (unsigned j = 0; operation == MIXED && j < OWN; j++)
            worker->own[j] = bench->subject->alloc(bench->set, object_at(j));
        if (pthread_create(&worker->thread, NULL, worker_run, worker))
            exit(1);
    }
    if (company != ALONE && pthread_create(&other, NULL, company_run, bench))
        exit(1);
    for (unsigned i = 0; i < threads; i++) {
        pthread_join(workers[i].thread, NULL);
        figures.ns += workers[i].ns / threads;
    }
    __atomic_store_n(&bench->stop, true, __ATOMIC_RELAXED);
    if (company != ALONE)
        pthread_join(other, NULL);
    for (unsigned i = 0; operation == MIXED && i < threads; i++)
        for (unsigned j = 0; j < OWN; j++)
            bench->subject->release(bench->set, workers[i].own[j]);
    figures.p50_cycles = quantile(workers, threads, 0.5);
    figures.p999_cycles = quantile(workers, threads, 0.999);
    pthread_barrier_destroy(&bench->start);
    free(workers);
    return figures;
}

// ---- Rows ---------------------------------------------------------------------------------------

struct options {
    unsigned runs;
    double milliseconds;
    uint32_t size_max;
    unsigned processors;
    double ns_per_cycle;
    double empty_cycles;  // what timing nothing shows
};

static void measure(struct bench *bench, const struct loops *loops, uint32_t size,
                    double bytes_per_handle, enum operation operation, unsigned threads,
                    enum company company, const struct options *options)
{
    struct figures best = {1e12, 1e12, 1e12};
    for (unsigned run = 0; run < options->runs; run++) {
        struct figures once =
            measure_once(bench, loops, operation, threads, company, options->milliseconds);
        best.ns = once.ns < best.ns ? once.ns : best.ns;
        best.p999_cycles =
            once.p999_cycles < best.p999_cycles ? once.p999_cycles : best.p999_cycles;
    }
    printf("{\"op\": \"%s\", \"size\": %u, \"threads\": %u, \"growing\": %s, \"impl\": \"%s\", "
           "\"ns\": %.2f, \"p999_ns\": %.1f, \"bytes_per_handle\": %.1f}\n",
           company == CHURNING ? "churned" : operation_names[operation], size, threads,
           company == GROWING ? "true" : "false", bench->subject->name, best.ns,
           (best.p999_cycles - options->empty_cycles) * options->ns_per_cycle, bytes_per_handle);
    fflush(stdout);
}

static size_t heap_bytes(void)
{
    struct mallinfo2 info = mallinfo2();
    return info.uordblks + info.hblkhd;
}

static uint64_t random_next(uint64_t *seed)
{
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    return *seed >> 20;
}

// Whether a row is asked for, and the subject can do it.
static bool asked(const struct subject *subject, enum operation operation, unsigned threads,
                  enum company company)
{
    if (operation == OVERLAPPED)
        return threads == 1 && company == ALONE;
    if (company == CHURNING)
        return operation == RESOLVE && !subject->one_writer;
    return operation == RESOLVE || !subject->one_writer || (threads == 1 && company == ALONE);
}

// All rows of one subject at one size. Growth comes last, for what it adds stays.
static void measure_subject(const struct loops *loops, uint32_t size, const struct options *options)
{
    const struct subject *subject = loops->subject;
    uint64_t seed = 0x9e3779b97f4a7c15;
    uint32_t order_count = power_of_two(size < 4096 ? 4096 : size);
    uint64_t *handles = or_die(malloc(size * sizeof(*handles)));
    uint64_t *order = or_die(malloc(order_count * sizeof(*order)));
    size_t before = heap_bytes();
    struct bench bench = {.subject = subject, .order = order, .order_mask = order_count - 1};
    bench.set = subject->create(size);
    for (uint32_t i = 0; i < size; i++)
        handles[i] = subject->alloc(bench.set, object_at(i));
    // The array is as large from the start as it may become; what counts is what it fills.
    double bytes = subject->one_writer ? 20.0 : (double)(heap_bytes() - before) / size;
    for (uint32_t i = 0; i < order_count; i++)
        order[i] = handles[random_next(&seed) % size];
    free(handles);

    unsigned more = options->processors > 1 ? options->processors - 1 : 1;
    for (enum company company = ALONE; company <= GROWING; company++)
        for (unsigned threads = 1; threads <= options->processors; threads += more)
            for (enum operation operation = RESOLVE; operation <= OVERLAPPED; operation++)
                if (asked(subject, operation, threads, company))
                    measure(&bench, loops, size, bytes, operation, threads, company, options);
    subject->destroy(bench.set);
    free(order);
}

static void calibrate(struct options *options)
{
    struct bench bench = {.subject = &array, .order = NULL};
    struct figures empty = measure_once(&bench, &array_loops, NOTHING, 1, ALONE, 20);
    options->empty_cycles = empty.p50_cycles;
    double ns = now_ns();
    uint64_t cycles = __rdtsc();
    nanosleep(&(struct timespec){.tv_nsec = 50000000}, NULL);
    options->ns_per_cycle = (now_ns() - ns) / (double)(__rdtsc() - cycles);
}

int main(int argc, char **argv)
{
    if (argc != 4) {
        fprintf(stderr, "usage: handles RUNS MILLISECONDS MAX_SIZE\n");
        return 1;
    }
    struct options options = {.runs = (unsigned)atoi(argv[1]),
                              .milliseconds = atof(argv[2]),
                              .size_max = (uint32_t)atoll(argv[3])};
    long processors = sysconf(_SC_NPROCESSORS_ONLN);
    options.processors = processors < 1 ? 1 : (unsigned)processors;
    calibrate(&options);
    static const uint32_t sizes[] = {100, 10000, 1000000, 10000000};
    for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]) && sizes[i] <= options.size_max; i++)
        for (unsigned j = 0; j < sizeof(all_loops) / sizeof(all_loops[0]); j++)
            measure_subject(all_loops[j], sizes[i], &options);
    return 0;
}
