// SPDX-License-Identifier: BSD-2-Clause
// Leaks at the end: what is lost, together with all else that the same stack allocated.
#include "check/checker_internal.h"

#include <stdlib.h>

#define LOST_MAX (1u << 22)

struct lost {
    enum check_kind kind;
    struct heap_object object;
};

struct losses {
    struct checker *checker;
    struct lost *lost;
    size_t count, max;
    bool possible;  // are wanted, too
};

static int read_heap(void *opaque, uint64_t gva, void *to, uint64_t bytes)
{
    return checker_copy_in(opaque, to, gva, bytes);
}

void checker_root(struct checker *checker, uint64_t gva, uint64_t bytes)
{
    if (checker->scan)
        (void)!heap_scan_memory(checker->scan, gva, bytes);
}

void checker_root_word(struct checker *checker, uint64_t word)
{
    if (checker->scan)
        (void)!heap_scan_word(checker->scan, word);
}

// What the C library keeps for threads, also when they have ended: what the dynamic loader has
// allocated; and vectors that say where thread-local variables are (dtv), of which there is a
// pointer to the second element only, and whose first is the number of those behind it.
static bool is_kept_for_threads(struct checker *checker, const struct heap_object *object)
{
    enum { ELEMENT_BYTES = 16, ELEMENTS_MIN = 14 };  // as many as glibc has to spare
    struct checker_shown shown;
    uint64_t count = 0;

    checker_show(checker, object, &shown);
    if (shown.object.allocated.count > 1 && checker_is_library(checker, shown.allocated[1], true))
        return true;
    return checker_copy_in(checker, &count, object->gva, sizeof(count)) == 0 &&
           count >= ELEMENTS_MIN && count == object->bytes / ELEMENT_BYTES - 2 &&
           object->bytes % ELEMENT_BYTES == 0;
}

static void add_lost(void *opaque, const struct heap_object *object, enum heap_leak leak)
{
    struct losses *losses = opaque;
    bool definite = leak == HEAP_LEAK_DEFINITE;

    if (!definite && (!losses->possible || is_kept_for_threads(losses->checker, object)))
        return;
    if (losses->count == losses->max) {
        size_t max = losses->max ? 2 * losses->max : 64;
        struct lost *more = max <= LOST_MAX ? realloc(losses->lost, max * sizeof(*more)) : NULL;
        if (!more)
            return;
        losses->lost = more;
        losses->max = max;
    }
    losses->lost[losses->count++] =
        (struct lost){definite ? CHECK_LEAK_DEFINITE : CHECK_LEAK_POSSIBLE, *object};
}

// By kind, those of one stack together, in the order of addresses.
static int lost_compare(const void *a, const void *b)
{
    const struct lost *left = a, *right = b;
    const uint64_t keys[][2] = {{left->kind, right->kind},
                                {left->object.allocated_by, right->object.allocated_by},
                                {left->object.gva, right->object.gva}};

    for (size_t i = 0; i < BASE_COUNT_OF(keys); i++)
        if (keys[i][0] != keys[i][1])
            return keys[i][0] < keys[i][1] ? -1 : 1;
    return 0;
}

// The first of those of one kind and stack is shown. How many there are.
static size_t report_together(struct checker_thread *thread, const struct lost *lost, size_t count)
{
    struct checker_shown shown;
    struct check_finding finding = {
        .kind = lost->kind, .gva = lost->object.gva, .object = &shown.object};

    while (finding.objects < count && lost[finding.objects].kind == lost->kind &&
           lost[finding.objects].object.allocated_by == lost->object.allocated_by)
        finding.bytes += lost[finding.objects++].object.bytes;
    checker_show(thread->checker, &lost->object, &shown);
    checker_report_add(thread, &finding);
    return finding.objects;
}

void checker_leaks(struct checker_thread *thread)
{
    struct checker *checker = thread->checker;
    const struct checker_target *target = &checker->target;
    struct losses losses = {.checker = checker,
                            .possible = checker->options.leaks != CHECKER_LEAKS_DEFINITE};

    if (heap_scan_create(checker->heap, read_heap, checker, &checker->scan) < 0)
        return;
    target->roots(target->opaque, checker);
    int rc = heap_scan_leaks(checker->scan, add_lost, &losses);
    heap_scan_destroy(checker->scan);
    checker->scan = NULL;
    if (losses.count)
        qsort(losses.lost, losses.count, sizeof(*losses.lost), lost_compare);
    for (size_t i = 0; rc == 0 && i < losses.count;)
        i += report_together(thread, losses.lost + i, losses.count - i);
    free(losses.lost);
}
