// SPDX-License-Identifier: BSD-2-Clause
// Memory that a program tags itself: what its pointers may reach, to the byte, and what they are
// told to be that may not.
#include "check/tags.h"

#include "unit.h"

#define BYTES (1ull << 20)
#define GVA 0x8000u

struct fixture {
    struct memory_identifiers identifiers;
    struct tags *tags;
};

static int setup(void **state)
{
    struct fixture *fixture = calloc(1, sizeof(*fixture));
    struct error err;

    assert_non_null(fixture);
    assert_int_equal(memory_identifiers_init(&fixture->identifiers, BYTES, &err), 0);
    assert_int_equal(tags_create(&fixture->tags, &fixture->identifiers), 0);
    *state = fixture;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *fixture = *state;

    tags_destroy(fixture->tags);
    memory_identifiers_fini(&fixture->identifiers);
    free(fixture);
    return 0;
}

static uint64_t add(struct fixture *fixture, uint64_t gva, uint64_t bytes, uint32_t who)
{
    uint64_t pointer = 0;

    assert_int_equal(tags_add(fixture->tags, gva, bytes, who, &pointer), 0);
    assert_int_equal(memory_pointer_gva(pointer), gva);
    assert_true(memory_identifier_is_valid(memory_pointer_identifier(pointer)));
    return pointer;
}

static void end(struct fixture *fixture, uint64_t pointer, uint32_t who)
{
    struct heap_finding finding;
    assert_int_equal(tags_end(fixture->tags, pointer, who, &finding), 0);
}

// As an access is made: what the table allows needs no asking.
static bool allowed(struct fixture *fixture, uint64_t pointer, uint64_t bytes)
{
    uint64_t gva = memory_pointer_gva(pointer);
    bool within = gva % MEMORY_GRANULE_BYTES + bytes <= MEMORY_GRANULE_BYTES;
    bool exact = tags_allow(fixture->tags, pointer, bytes);

    if (within &&
        memory_identifiers_get(&fixture->identifiers, gva) == memory_pointer_identifier(pointer))
        assert_true(exact);
    return exact;
}

static struct heap_finding diagnose(struct fixture *fixture, uint64_t pointer, uint64_t bytes)
{
    struct heap_finding finding;

    assert_false(allowed(fixture, pointer, bytes));
    assert_true(tags_diagnose(fixture->tags, pointer, bytes, &finding));
    return finding;
}

static enum heap_fault end_wrongly(struct fixture *fixture, uint64_t pointer)
{
    struct heap_finding finding;

    assert_int_equal(tags_end(fixture->tags, pointer, 9, &finding), -EINVAL);
    return finding.fault;
}

static void test_ends_are_exact(void **state)
{
    struct fixture *fixture = *state;
    uint64_t pointer = add(fixture, GVA, 35, 1);

    assert_true(allowed(fixture, pointer, 8));
    assert_true(allowed(fixture, pointer + 34, 1));
    assert_true(allowed(fixture, pointer + 12, 8));
    struct heap_finding finding = diagnose(fixture, pointer + 35, 1);
    assert_int_equal(finding.fault, HEAP_OVERFLOW);
    assert_true(finding.has_object && !finding.has_memory);
    assert_int_equal(finding.object.gva, GVA);
    assert_int_equal(finding.object.bytes, 35);
    assert_int_equal(finding.object.allocated_by, 1);
    assert_int_equal(finding.offset, 35);
    assert_int_equal(diagnose(fixture, pointer + 28, 8).fault, HEAP_OVERFLOW);
    assert_int_equal(diagnose(fixture, pointer - 1, 1).fault, HEAP_UNDERFLOW);
    assert_int_equal(diagnose(fixture, pointer + 5000, 1).fault, HEAP_OVERFLOW);
    // Memory around it is as ever.
    assert_true(allowed(fixture, GVA + 35, 8));
    assert_true(allowed(fixture, GVA - 8, 8));
    assert_int_equal(diagnose(fixture, GVA + 34, 1).fault, HEAP_WILD);
    assert_int_equal(diagnose(fixture, GVA - 4, 8).fault, HEAP_WILD);
}

static void test_neighbours_may_share_a_granule(void **state)
{
    struct fixture *fixture = *state;
    uint64_t a = add(fixture, GVA + 4, 20, 1), b = add(fixture, GVA + 24, 20, 2);

    assert_int_not_equal(memory_pointer_identifier(a), memory_pointer_identifier(b));
    assert_true(allowed(fixture, a + 16, 4));
    assert_true(allowed(fixture, b, 8));
    struct heap_finding finding = diagnose(fixture, a + 20, 1);
    assert_int_equal(finding.fault, HEAP_OVERFLOW);
    assert_true(finding.has_memory);
    assert_int_equal(finding.memory.gva, GVA + 24);
    assert_int_equal(finding.memory_identifier, memory_pointer_identifier(b));
    assert_int_equal(diagnose(fixture, b - 1, 1).fault, HEAP_UNDERFLOW);
    end(fixture, a, 3);
    assert_true(allowed(fixture, GVA + 16, 8));
    assert_true(allowed(fixture, b, 8));
    assert_int_equal(diagnose(fixture, GVA + 24, 1).fault, HEAP_WILD);
}

static void test_use_after(void **state)
{
    struct fixture *fixture = *state;
    uint64_t old = add(fixture, GVA, 48, 1);

    end(fixture, old, 2);
    assert_true(allowed(fixture, GVA, 8));
    struct heap_finding finding = diagnose(fixture, old + 8, 8);
    assert_int_equal(finding.fault, HEAP_USE_AFTER_FREE);
    assert_int_equal(finding.object.allocated_by, 1);
    assert_int_equal(finding.object.freed_by, 2);
    assert_int_equal(finding.memory_identifier, MEMORY_IDENTIFIER_NONE);
    // And when it is another's.
    uint64_t now = add(fixture, GVA, 48, 3);
    assert_int_equal(memory_pointer_identifier(now),
                     memory_identifier_next(memory_pointer_identifier(old)));
    finding = diagnose(fixture, old + 8, 8);
    assert_int_equal(finding.fault, HEAP_USE_AFTER_FREE);
    assert_int_equal(finding.object.freed_by, 2);
    assert_int_equal(finding.memory.allocated_by, 3);
    assert_int_equal(end_wrongly(fixture, old), HEAP_DOUBLE_FREE);
}

static void test_wrong_ends(void **state)
{
    struct fixture *fixture = *state;
    uint64_t pointer = add(fixture, GVA, 48, 1);

    assert_int_equal(end_wrongly(fixture, pointer + 16), HEAP_INTERIOR_FREE);
    assert_int_equal(end_wrongly(fixture, GVA), HEAP_INVALID_FREE);
    assert_int_equal(end_wrongly(fixture, pointer + 48), HEAP_INVALID_FREE);
    assert_int_equal(end_wrongly(fixture, GVA + 4096), HEAP_INVALID_FREE);
    assert_true(allowed(fixture, pointer, 8));
    end(fixture, pointer, 2);
    assert_int_equal(end_wrongly(fixture, pointer), HEAP_DOUBLE_FREE);
    assert_int_equal(end_wrongly(fixture, pointer + 16), HEAP_INVALID_FREE);
}

static void test_tagging_ends_what_was_there(void **state)
{
    struct fixture *fixture = *state;
    uint64_t a = add(fixture, GVA, 32, 1), b = add(fixture, GVA + 32, 32, 2);
    uint64_t c = add(fixture, GVA + 64, 32, 3), all = add(fixture, GVA + 16, 50, 4);

    assert_true(allowed(fixture, all, 8));
    assert_int_equal(diagnose(fixture, a, 1).fault, HEAP_USE_AFTER_FREE);
    assert_int_equal(diagnose(fixture, b, 1).object.freed_by, 4);
    assert_int_equal(diagnose(fixture, c + 16, 1).fault, HEAP_USE_AFTER_FREE);
    assert_true(allowed(fixture, GVA, 8));
    assert_true(allowed(fixture, GVA + 66, 8));
}

static void test_nobodys(void **state)
{
    struct fixture *fixture = *state;
    struct heap_finding finding;

    assert_false(tags_diagnose(fixture->tags, memory_pointer_make(GVA, 77), 8, &finding));
    assert_true(allowed(fixture, GVA, UINT64_MAX));
    uint64_t nothing = add(fixture, GVA, 0, 1);
    assert_int_equal(diagnose(fixture, nothing + 1, 1).fault, HEAP_OVERFLOW);
    end(fixture, nothing, 2);
}

static void test_used_again_and_again(void **state)
{
    struct fixture *fixture = *state;
    uint64_t first = 0, left = add(fixture, GVA - 16, 16, 1), right = add(fixture, GVA + 16, 16, 1);

    for (unsigned i = 0; i < MEMORY_GENERATIONS - 2; i++) {  // its neighbours have two
        uint64_t pointer = add(fixture, GVA, 16, 2);
        assert_true(pointer != first);
        assert_int_not_equal(memory_pointer_identifier(pointer), memory_pointer_identifier(left));
        assert_int_not_equal(memory_pointer_identifier(pointer), memory_pointer_identifier(right));
        first = first ? first : pointer;
        end(fixture, pointer, 3);
    }
}

// ---- Against bytes that each say whose they are -------------------------------------------------

#define MODEL_BYTES 512u
#define MODEL_ROUNDS 20000u

struct model {
    uint64_t owner[MODEL_BYTES];  // a pointer, 0: none
    uint64_t pointers[64];        // live or not
};

static uint32_t random_below(uint64_t *state, uint32_t limit)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return (uint32_t)(*state >> 32) % limit;
}

static void model_clear(struct model *model, uint64_t pointer)
{
    for (unsigned i = 0; i < MODEL_BYTES; i++)
        if (model->owner[i] == pointer)
            model->owner[i] = 0;
}

static void model_add(struct fixture *fixture, struct model *model, uint64_t *random)
{
    unsigned at = random_below(random, MODEL_BYTES - 64), bytes = 1 + random_below(random, 64);
    uint64_t pointer = add(fixture, GVA + at, bytes, 1);

    for (unsigned i = at; i < at + bytes; i++)
        if (model->owner[i])
            model_clear(model, model->owner[i]);
    for (unsigned i = at; i < at + bytes; i++)
        model->owner[i] = pointer;
    model->pointers[random_below(random, BASE_COUNT_OF(model->pointers))] = pointer;
}

static void model_end(struct fixture *fixture, struct model *model, uint64_t *random)
{
    uint64_t pointer = model->pointers[random_below(random, BASE_COUNT_OF(model->pointers))];
    struct heap_finding finding;

    if (!pointer)
        return;
    bool live = model->owner[memory_pointer_gva(pointer) - GVA] == pointer;
    assert_int_equal(tags_end(fixture->tags, pointer, 1, &finding), live ? 0 : -EINVAL);
    if (live)
        model_clear(model, pointer);
}

static void model_access(struct fixture *fixture, const struct model *model, uint64_t *random)
{
    uint64_t pointer = model->pointers[random_below(random, BASE_COUNT_OF(model->pointers))];
    unsigned at = random_below(random, MODEL_BYTES - 16), bytes = 1 + random_below(random, 16);
    uint64_t used = random_below(random, 4) ? pointer : 0;
    bool expected = true;

    for (unsigned i = at; i < at + bytes; i++)
        expected &= model->owner[i] == used;
    uint16_t identifier = memory_pointer_identifier(used);
    if (expected != allowed(fixture, memory_pointer_make(GVA + at, identifier), bytes))
        fail_msg("%u bytes at %u: the model says %d", bytes, at, expected);
}

static void test_model(void **state)
{
    struct fixture *fixture = *state;
    struct model *model = calloc(1, sizeof(*model));
    uint64_t random = 88172645463325252;

    assert_non_null(model);
    for (unsigned i = 0; i < MODEL_ROUNDS; i++) {
        switch (random_below(&random, 8)) {
        case 0:
            model_add(fixture, model, &random);
            break;
        case 1:
            model_end(fixture, model, &random);
            break;
        default:
            model_access(fixture, model, &random);
        }
    }
    free(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_ends_are_exact, setup, teardown),
        cmocka_unit_test_setup_teardown(test_neighbours_may_share_a_granule, setup, teardown),
        cmocka_unit_test_setup_teardown(test_use_after, setup, teardown),
        cmocka_unit_test_setup_teardown(test_wrong_ends, setup, teardown),
        cmocka_unit_test_setup_teardown(test_tagging_ends_what_was_there, setup, teardown),
        cmocka_unit_test_setup_teardown(test_nobodys, setup, teardown),
        cmocka_unit_test_setup_teardown(test_used_again_and_again, setup, teardown),
        cmocka_unit_test_setup_teardown(test_model, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
