// SPDX-License-Identifier: BSD-2-Clause
// Random operations on a heap, each compared with a reference: a list of the objects that there are
// and were. What the inline comparison and the heap allow is exactly what the reference does.
#include "heap_fixture.h"

#define SPACE_BYTES (8ull << 30)
#define OPERATIONS 400000u
#define OBJECTS 200u

struct known {
    uint64_t pointer, bytes;
    enum heap_family family;
    bool live, reallocated, used;
    uint8_t pattern;
    uint32_t ended;  // at which operation
};

struct model {
    struct fixture fixture;
    struct known objects[OBJECTS];
    uint64_t seed, live_objects, live_bytes;
    uint32_t now;
    unsigned allowed, refused, told;
};

static uint64_t below(struct model *model, uint64_t count)
{
    model->seed ^= model->seed << 13;
    model->seed ^= model->seed >> 7;
    model->seed ^= model->seed << 17;
    return (model->seed >> 20) % count;
}

// Mostly small, some large, with ends at all places of a granule.
static uint64_t some_bytes(struct model *model)
{
    static const uint64_t limits[] = {16, 64, 64, 300, 300, 5000, 40000, 400000};
    return below(model, limits[below(model, BASE_COUNT_OF(limits))]);
}

// Of a large object only its ends.
static void fill(struct model *model, const struct known *known)
{
    uint8_t *bytes = fixture_at(&model->fixture, known->pointer);
    for (uint64_t i = 0; i < known->bytes;
         i += i == 1000 && known->bytes > 3000 ? known->bytes - 2000 : 1)
        bytes[i] = (uint8_t)(known->pattern + i);
}

static void assert_filled(struct model *model, const struct known *known, uint64_t bytes)
{
    const uint8_t *at = fixture_at(&model->fixture, known->pointer);
    for (uint64_t i = 0; i < bytes && i <= 1000; i++)
        assert_int_equal(at[i], (uint8_t)(known->pattern + i));
}

static void begin(struct model *model, struct known *known, uint64_t pointer,
                  const struct heap_request *request)
{
    *known = (struct known){.pointer = pointer,
                            .bytes = request->bytes,
                            .family = request->family,
                            .live = true,
                            .used = true,
                            .pattern = (uint8_t)below(model, 256)};
    fill(model, known);
    model->live_objects++;
    model->live_bytes += request->bytes;
}

static void end(struct model *model, struct known *known, bool reallocated)
{
    known->live = false;
    known->reallocated = reallocated;
    known->ended = model->now;
    model->live_objects--;
    model->live_bytes -= known->bytes;
}

static void try_allocate(struct model *model, struct known *known)
{
    struct heap_request request = {.bytes = some_bytes(model),
                                   .alignment = below(model, 4) ? 0 : 1ull << below(model, 14),
                                   .family = (enum heap_family)below(model, HEAP_ANY),
                                   .zero = below(model, 3) == 0,
                                   .who = model->now};
    uint64_t pointer;

    if (known->live)
        return;
    assert_int_equal(heap_allocate(model->fixture.thread, &request, &pointer), 0);
    assert_int_equal(memory_pointer_gva(pointer) % (request.alignment ? request.alignment : 16), 0);
    assert_int_not_equal(pointer, known->pointer);
    for (uint64_t i = 0; request.zero && i < request.bytes; i += i < 1000 ? 1 : 4093)
        assert_int_equal(fixture_at(&model->fixture, pointer)[i], 0);
    begin(model, known, pointer, &request);
}

static void try_free(struct model *model, struct known *known)
{
    struct heap_finding finding = {.fault = HEAP_FINE};
    enum heap_family family = (enum heap_family)below(model, HEAP_ANY + 1);
    bool right = family == HEAP_ANY || family == known->family;

    if (!known->used)
        return;
    if (known->live)
        assert_filled(model, known, known->bytes);
    int rc = heap_free(model->fixture.thread, known->pointer, family, 1, &finding);
    assert_int_equal(rc, known->live && right ? 0 : -EINVAL);
    if (rc == 0)
        end(model, known, false);
    else if (known->live)
        assert_int_equal(finding.fault, HEAP_MISMATCHED_FREE);
    else if (model->now - known->ended < 1000)
        assert_int_equal(finding.fault, HEAP_DOUBLE_FREE);
}

static void try_reallocate(struct model *model, struct known *known)
{
    struct heap_request request = {.bytes = below(model, 2) ? some_bytes(model)
                                                            : known->bytes + below(model, 20),
                                   .family = known->family,
                                   .who = model->now};
    uint64_t pointer;

    if (!known->used)
        return;
    int rc = heap_reallocate(model->fixture.thread, known->pointer, &request, &pointer, NULL);
    assert_int_equal(rc, known->live ? 0 : -EINVAL);
    if (rc < 0)
        return;
    struct known old = *known;
    end(model, known, true);
    struct known moved = {.pointer = pointer, .pattern = old.pattern};
    assert_filled(model, &moved, old.bytes < request.bytes ? old.bytes : request.bytes);
    // The new one takes the place of another known one, so that the old one stays known.
    struct known *place = &model->objects[below(model, OBJECTS)];
    if (place->live)
        place = known;
    begin(model, place, pointer, &request);
}

static bool reference_allows(const struct model *model, uint64_t pointer, uint64_t bytes)
{
    for (unsigned i = 0; i < OBJECTS; i++) {
        const struct known *known = &model->objects[i];
        uint64_t offset = pointer - known->pointer;
        if (known->live && offset <= known->bytes && bytes <= known->bytes - offset &&
            memory_pointer_identifier(pointer) == memory_pointer_identifier(known->pointer))
            return true;
    }
    return false;
}

static void try_access(struct model *model, const struct known *known)
{
    static const uint64_t reach[] = {4, 40, 1000, 1 << 20};
    uint64_t far = reach[below(model, BASE_COUNT_OF(reach))];
    uint64_t bytes = below(model, 8) ? 1ull << below(model, 4) : below(model, 3000) + 1;
    uint64_t pointer =
        known->pointer + (below(model, 2) ? known->bytes : 0) + below(model, far) - far / 2;
    struct heap_finding finding;

    if (!known->used)
        return;
    bool allowed = reference_allows(model, pointer, bytes);
    assert_int_equal(fixture_access(&model->fixture, pointer, bytes), allowed);
    assert_int_equal(heap_allows(model->fixture.heap, pointer, bytes), allowed);
    model->allowed += allowed;
    model->refused += !allowed;
    if (allowed || known->bytes == 0 ||
        memory_pointer_identifier(pointer) != memory_pointer_identifier(known->pointer))
        return;
    // What is wrong is known when the pointer is the object's, and still in its bounds if it ended.
    heap_diagnose(model->fixture.heap, pointer, bytes, &finding);
    assert_int_not_equal(finding.fault, HEAP_FINE);
    if (!known->live && pointer - known->pointer < known->bytes &&
        model->now - known->ended < 1000) {
        assert_int_equal(finding.fault,
                         known->reallocated ? HEAP_USE_AFTER_REALLOC : HEAP_USE_AFTER_FREE);
        assert_true(finding.has_object);
        assert_int_equal(finding.object.bytes, known->bytes);
        model->told++;
    }
}

static void behaves_as_the_reference(void **state)
{
    (void)state;
    static struct model model = {.seed = 0x9e3779b97f4a7c15};
    struct heap_stats stats;

    fixture_init(&model.fixture, SPACE_BYTES);
    for (model.now = 1; model.now <= OPERATIONS; model.now++) {
        struct known *known = &model.objects[below(&model, OBJECTS)];
        switch (below(&model, 8)) {
        case 0:
        case 1:
            try_allocate(&model, known);
            break;
        case 2:
            try_free(&model, known);
            break;
        case 3:
            try_reallocate(&model, known);
            break;
        default:
            try_access(&model, known);
        }
    }
    heap_get_stats(model.fixture.heap, &stats);
    assert_int_equal(stats.live_objects, model.live_objects);
    assert_int_equal(stats.live_bytes, model.live_bytes);
    printf("%u operations: %u accesses allowed, %u refused, of these %u told for what they are\n",
           OPERATIONS, model.allowed, model.refused, model.told);
    assert_true(model.allowed > 10000 && model.refused > 10000 && model.told > 1000);
    fixture_fini(&model.fixture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(behaves_as_the_reference)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
