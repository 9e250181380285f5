// SPDX-License-Identifier: BSD-2-Clause
// Stress: threads that allocate, reallocate, free and check the same objects, some of which two of
// them free at once. Checked: who holds a pointer alone has its memory alone; a pointer of old is
// refused; of frees of one object one succeeds.
//
// usage: stress-heap [SECONDS]
#include <pthread.h>
#include <time.h>

#include "../unit/heap_memory.h"

#define THREADS 6
#define CELLS 256       // pointers that threads take from each other
#define REMEMBERED 256  // pointers of old that a thread tries
#define FLAT_BYTES (1ull << 36)
#define SPACE_GVA (1ull << 32)
#define SPACE_BYTES (32ull << 30)

struct stress {
    uint8_t *hva;
    struct memory_identifiers identifiers;
    struct heap *heap;
    _Atomic uint64_t own[CELLS];     // whoever takes one out has it alone
    _Atomic uint64_t common[CELLS];  // anyone may free them
    atomic_bool stop;
};

struct worker {
    struct stress *stress;
    struct heap_thread *thread;
    uint64_t seed;
    uint64_t remembered[REMEMBERED];
    uint64_t allocated, freed, lost_races, refused;
    pthread_t pthread;
};

static void promise(bool kept, const char *what)
{
    if (kept)
        return;
    fprintf(stderr, "%s\n", what);
    abort();
}

static uint64_t below(struct worker *worker, uint64_t count)
{
    worker->seed ^= worker->seed << 13;
    worker->seed ^= worker->seed >> 7;
    worker->seed ^= worker->seed << 17;
    return (worker->seed >> 20) % count;
}

// Objects begin with their size and a word made of it.
static void mark(struct worker *worker, uint64_t pointer, uint64_t bytes)
{
    uint64_t words[] = {bytes, ~bytes};
    memcpy(worker->stress->hva + memory_pointer_gva(pointer), words, sizeof(words));
    uint8_t *last = worker->stress->hva + memory_pointer_gva(pointer) + bytes - 1;
    if (bytes > sizeof(words))
        *last = (uint8_t)bytes;
}

static uint64_t marked_bytes(struct worker *worker, uint64_t pointer)
{
    const uint8_t *at = worker->stress->hva + memory_pointer_gva(pointer);
    uint64_t words[2];
    memcpy(words, at, sizeof(words));
    promise(words[0] == ~words[1], "an object's memory is not its own");
    promise(words[0] <= sizeof(words) || at[words[0] - 1] == (uint8_t)words[0],
            "an object's end is not its own");
    return words[0];
}

static uint64_t allocate(struct worker *worker, bool own)
{
    uint64_t limit = below(worker, 50) ? 300 : 600000, pointer;
    struct heap_request request = {.bytes = 16 + below(worker, limit),
                                   .zero = own && below(worker, 4) == 0};

    promise(heap_allocate(worker->thread, &request, &pointer) == 0, "no memory");
    worker->allocated++;
    if (own)
        mark(worker, pointer, request.bytes);
    return pointer;
}

static void remember(struct worker *worker, uint64_t pointer)
{
    worker->remembered[below(worker, REMEMBERED)] = pointer;
}

static void release(struct worker *worker, uint64_t pointer)
{
    promise(heap_free(worker->thread, pointer, HEAP_MALLOC, 0, NULL) == 0, "a free is refused");
    worker->freed++;
    remember(worker, pointer);
}

static uint64_t reallocate(struct worker *worker, uint64_t pointer, uint64_t bytes)
{
    struct heap_request request = {.bytes = 16 + below(worker, 2 * bytes)};
    uint64_t moved;

    promise(heap_reallocate(worker->thread, pointer, &request, &moved, NULL) == 0, "no memory");
    remember(worker, pointer);
    mark(worker, moved, request.bytes);
    return moved;
}

static void work_alone(struct worker *worker)
{
    _Atomic uint64_t *cell = &worker->stress->own[below(worker, CELLS)];
    uint64_t pointer = atomic_exchange(cell, 0);

    if (pointer) {
        struct heap *heap = worker->stress->heap;
        uint64_t bytes = marked_bytes(worker, pointer);
        promise(heap_allows(heap, pointer, bytes) && !heap_allows(heap, pointer, bytes + 1) &&
                    heap_allows(heap, pointer + bytes - 1, 1) &&
                    heap_usable_bytes(heap, pointer) == bytes,
                "an object has another size");
        if (below(worker, 3)) {
            release(worker, pointer);
            pointer = 0;
        } else {
            pointer = reallocate(worker, pointer, bytes);
        }
    } else {
        pointer = allocate(worker, true);
    }
    if (pointer)
        pointer = atomic_exchange(cell, pointer);
    if (pointer)
        release(worker, pointer);
}

static void work_in_common(struct worker *worker)
{
    _Atomic uint64_t *cell = &worker->stress->common[below(worker, CELLS / 8)];
    uint64_t pointer = atomic_load(cell);
    struct heap_finding finding, *asked = below(worker, 500) ? NULL : &finding;

    if (pointer && heap_free(worker->thread, pointer, HEAP_MALLOC, 0, asked) < 0) {
        worker->lost_races++;
        return;
    }
    if (pointer) {
        worker->freed++;
        remember(worker, pointer);
    }
    uint64_t fresh = allocate(worker, false);
    if (!atomic_compare_exchange_strong(cell, &pointer, fresh))
        release(worker, fresh);
}

static void try_remembered(struct worker *worker)
{
    uint64_t pointer = worker->remembered[below(worker, REMEMBERED)];
    struct heap_object object;

    if (!pointer)
        return;
    promise(!heap_allows(worker->stress->heap, pointer, 1), "a pointer of old is allowed");
    promise(memory_identifiers_get(&worker->stress->identifiers, memory_pointer_gva(pointer)) !=
                memory_pointer_identifier(pointer),
            "a pointer of old equals its entry");
    (void)heap_find(worker->stress->heap, memory_pointer_gva(pointer), &object);
    worker->refused++;
}

static void *work(void *opaque)
{
    struct worker *worker = opaque;

    while (!atomic_load(&worker->stress->stop)) {
        switch (below(worker, 4)) {
        case 0:
            try_remembered(worker);
            break;
        case 1:
            work_in_common(worker);
            break;
        default:
            work_alone(worker);
        }
        // Threads of the program come and go.
        if (below(worker, 20000) == 0) {
            heap_thread_destroy(worker->thread);
            promise(heap_thread_create(worker->stress->heap, &worker->thread) == 0, "no memory");
        }
    }
    return NULL;
}

static void start(struct stress *stress)
{
    struct heap_space space = heap_memory_space(&stress->hva, FLAT_BYTES, SPACE_GVA, SPACE_BYTES);
    struct error err;

    promise(memory_identifiers_init(&stress->identifiers, FLAT_BYTES, &err) == 0, err.message);
    promise(heap_create(&stress->heap, &space, &stress->identifiers, &err) == 0, err.message);
}

int main(int argc, char **argv)
{
    unsigned seconds = argc > 1 ? (unsigned)atoi(argv[1]) : 2;
    static struct stress stress;
    static struct worker workers[THREADS];

    start(&stress);
    for (unsigned i = 0; i < THREADS; i++) {
        workers[i] = (struct worker){.stress = &stress, .seed = 0x9e3779b97f4a7c15 * (i + 1)};
        promise(heap_thread_create(stress.heap, &workers[i].thread) == 0, "no memory");
        if (pthread_create(&workers[i].pthread, NULL, work, &workers[i]))
            return 1;
    }
    nanosleep(&(struct timespec){.tv_sec = seconds}, NULL);
    atomic_store(&stress.stop, true);

    struct worker sum = {0};
    for (unsigned i = 0; i < THREADS; i++) {
        pthread_join(workers[i].pthread, NULL);
        sum.allocated += workers[i].allocated;
        sum.freed += workers[i].freed;
        sum.lost_races += workers[i].lost_races;
        sum.refused += workers[i].refused;
    }
    struct heap_stats stats;
    heap_get_stats(stress.heap, &stats);
    printf("%llu objects allocated, %llu freed, %llu races to free lost, %llu pointers of old "
           "refused, %llu MiB held, %llu rounds\n",
           (unsigned long long)sum.allocated, (unsigned long long)sum.freed,
           (unsigned long long)sum.lost_races, (unsigned long long)sum.refused,
           (unsigned long long)stats.held_bytes >> 20, (unsigned long long)stats.rounds);
    promise(sum.allocated - sum.freed == stats.live_objects && sum.refused > 0,
            "the sums are wrong");
    heap_destroy(stress.heap);
    memory_identifiers_fini(&stress.identifiers);
    munmap(stress.hva, FLAT_BYTES);
    return 0;
}
