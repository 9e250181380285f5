// SPDX-License-Identifier: BSD-2-Clause
// Fuzz target for the memory manager of checked programs: the input is a program's calls, each with
// any arguments. Whatever they are, each object has its bytes to itself, its pointer is allowed
// there and nowhere else, and pointers of old are refused.
#include <stdbool.h>

#include "../unit/heap_memory.h"
#include "replay.h"

#define FLAT_BYTES (1ull << 32)
#define SPACE_GVA (1ull << 28)
#define SPACE_BYTES (1ull << 30)
#define POINTERS 32u

struct input {
    const uint8_t *bytes;
    size_t count;
};

struct known {
    uint64_t pointer, bytes;
    bool live;
};

struct target {
    uint8_t *hva;
    struct memory_identifiers identifiers;
    struct heap *heap;
    struct heap_thread *thread;
    struct known known[POINTERS];
};

static void promise(bool kept)
{
    if (!kept)
        abort();
}

static uint64_t take(struct input *input, size_t bytes)
{
    uint64_t value = 0;
    if (bytes > input->count)
        bytes = input->count;
    memcpy(&value, input->bytes, bytes);
    input->bytes += bytes;
    input->count -= bytes;
    return value;
}

// Small, middling, or anything at all.
static uint64_t take_bytes(struct input *input)
{
    uint64_t kind = take(input, 1);
    if (kind < 160)
        return take(input, 1);
    return kind < 250 ? take(input, 2) * (kind & 7) : take(input, 8);
}

static void look_at(const struct target *target, const struct known *known)
{
    struct heap *heap = target->heap;

    if (!known->live) {
        promise(known->pointer == 0 || !heap_allows(heap, known->pointer, 1));
        return;
    }
    promise(heap_allows(heap, known->pointer, known->bytes));
    promise(!heap_allows(heap, known->pointer, known->bytes + 1));
    promise(!heap_allows(heap, known->pointer - 1, 1));
    promise(heap_usable_bytes(heap, known->pointer) == known->bytes);
    uint64_t gva = memory_pointer_gva(known->pointer);
    promise(gva >= SPACE_GVA && gva - SPACE_GVA <= SPACE_BYTES - known->bytes);
    for (unsigned i = 0; i < POINTERS; i++) {
        const struct known *other = &target->known[i];
        uint64_t other_gva = memory_pointer_gva(other->pointer);
        promise(other == known || !other->live || gva + known->bytes <= other_gva ||
                other_gva + other->bytes <= gva);
    }
}

static void begin(struct target *target, struct known *known, uint64_t pointer, uint64_t bytes)
{
    *known = (struct known){pointer, bytes, true};
    look_at(target, known);
}

static void call_allocate(struct target *target, struct known *known, struct input *input)
{
    struct heap_request request = {.bytes = take_bytes(input),
                                   .alignment = 1ull << take(input, 1) % 80 % 64,
                                   .zero = take(input, 1) & 1};
    uint64_t pointer;

    if (take(input, 1) == 7)
        request.alignment = take(input, 8);
    int rc = heap_allocate(target->thread, &request, &pointer);
    promise(rc == 0 || rc == -ENOMEM ||
            (rc == -EINVAL && (request.alignment & (request.alignment - 1))));
    if (rc < 0)
        return;
    promise(request.alignment == 0 || memory_pointer_gva(pointer) % request.alignment == 0);
    if (known->live)
        promise(heap_free(target->thread, known->pointer, HEAP_MALLOC, 0, NULL) == 0);
    begin(target, known, pointer, request.bytes);
}

static void call_free(struct target *target, struct known *known)
{
    struct heap_finding finding;
    int rc = heap_free(target->thread, known->pointer, HEAP_MALLOC, 0, &finding);

    promise(rc == (known->live || known->pointer == 0 ? 0 : -EINVAL));
    known->live = false;
    look_at(target, known);
}

static void call_reallocate(struct target *target, struct known *known, struct input *input)
{
    struct heap_request request = {.bytes = take_bytes(input)};
    struct heap_finding finding;
    uint64_t pointer;
    int rc = heap_reallocate(target->thread, known->pointer, &request, &pointer, &finding);

    promise(rc != -EINVAL || (!known->live && known->pointer != 0));
    if (rc < 0) {
        look_at(target, known);
        return;
    }
    promise(known->live || known->pointer == 0);
    known->live = false;
    look_at(target, known);
    begin(target, known, pointer, request.bytes);
}

// Anything may be asked about and freed. What is freed so was some object of ours.
static void call_anything(struct target *target, struct input *input)
{
    uint64_t pointer = take(input, 8), bytes = take_bytes(input);
    struct heap_finding finding;
    struct heap_object object;

    heap_diagnose(target->heap, pointer, bytes, &finding);
    promise(heap_allows(target->heap, pointer, bytes) == (finding.fault == HEAP_FINE));
    (void)heap_find(target->heap, pointer, &object);
    if (heap_free(target->thread, pointer, HEAP_ANY, 0, &finding) < 0) {
        promise(finding.fault >= HEAP_DOUBLE_FREE && finding.fault <= HEAP_MISMATCHED_FREE);
        return;
    }
    bool ours = pointer == 0;
    for (unsigned i = 0; i < POINTERS; i++) {
        if (!target->known[i].live || target->known[i].pointer != pointer)
            continue;
        target->known[i].live = false;
        ours = true;
    }
    promise(ours);
}

static void start(struct target *target)
{
    struct heap_space space = heap_memory_space(&target->hva, FLAT_BYTES, SPACE_GVA, SPACE_BYTES);

    promise(memory_identifiers_init(&target->identifiers, FLAT_BYTES, NULL) == 0);
    promise(heap_create(&target->heap, &space, &target->identifiers, NULL) == 0);
    promise(heap_thread_create(target->heap, &target->thread) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count)
{
    struct input input = {bytes, count};
    struct target target = {0};

    start(&target);
    while (input.count > 0) {
        uint64_t call = take(&input, 1);
        struct known *known = &target.known[call / 8 % POINTERS];
        switch (call % 8) {
        case 0:
        case 1:
        case 2:
            call_allocate(&target, known, &input);
            break;
        case 3:
        case 4:
            call_free(&target, known);
            break;
        case 5:
        case 6:
            call_reallocate(&target, known, &input);
            break;
        default:
            call_anything(&target, &input);
        }
    }
    for (unsigned i = 0; i < POINTERS; i++)
        look_at(&target, &target.known[i]);
    heap_destroy(target.heap);
    memory_identifiers_fini(&target.identifiers);
    munmap(target.hva, FLAT_BYTES);
    return 0;
}
