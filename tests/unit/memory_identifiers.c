// SPDX-License-Identifier: BSD-2-Clause
// Identifiers: generation counts, and the table of them.
#include <stdio.h>

#include "memory/memory.h"
#include "unit.h"

#define TABLE_BYTES (1u << 20)

static void generations_of_neighbours_never_meet(void **state)
{
    (void)state;
    static bool seen[65536];

    printf("all generations of an even and of an odd place: each once, none in both\n");
    for (unsigned odd = 0; odd < 2; odd++) {
        uint16_t first = memory_identifier_at(odd, 32000), identifier = first;
        for (unsigned i = 0; i < MEMORY_GENERATIONS; i++) {
            assert_false(seen[identifier]);
            assert_int_not_equal(identifier, MEMORY_IDENTIFIER_NONE);
            assert_int_not_equal(identifier, MEMORY_IDENTIFIER_LOOK);
            assert_int_equal(memory_identifier_steps(first, identifier), i);
            assert_int_equal(memory_identifier_at(odd, 32000 + i), identifier);
            seen[identifier] = true;
            identifier = memory_identifier_next(identifier);
        }
        assert_int_equal(identifier, first);
    }
    assert_int_equal(memory_identifier_steps(1, 2), UINT32_MAX);
    assert_int_equal(memory_identifier_steps(2, MEMORY_IDENTIFIER_NONE), UINT32_MAX);
    assert_int_equal(memory_identifier_steps(1, MEMORY_IDENTIFIER_LOOK), UINT32_MAX);
    assert_int_equal(memory_identifier_steps(MEMORY_IDENTIFIER_LOOK, 1), UINT32_MAX);
    // Nor are any with what marks an object's end.
    for (unsigned i = 0; i <= UINT16_MAX; i++) {
        assert_int_equal(memory_identifier_is_valid((uint16_t)i), seen[i]);
        assert_false(seen[i] && seen[i ^ MEMORY_IDENTIFIER_PARTIAL]);
    }
    assert_false(seen[MEMORY_IDENTIFIER_NONE ^ MEMORY_IDENTIFIER_PARTIAL]);
    assert_false(seen[MEMORY_IDENTIFIER_LOOK ^ MEMORY_IDENTIFIER_PARTIAL]);
}

static void pointers_carry_them(void **state)
{
    (void)state;
    uint64_t pointer = memory_pointer_make(0x123456789abc, 0x7edc);

    printf("a pointer is put together and taken apart\n");
    assert_int_equal(pointer, 0x7edc123456789abc);
    assert_int_equal(memory_pointer_gva(pointer), 0x123456789abc);
    assert_int_equal(memory_pointer_identifier(pointer), 0x7edc);
}

static void entries_are_set(void **state)
{
    (void)state;
    struct memory_identifiers table;

    printf(
        "objects of all sizes up to 300 at all granules of a word: entries and what is beside\n");
    assert_int_equal(memory_identifiers_init(&table, TABLE_BYTES, NULL), 0);
    for (uint64_t gva = 4096; gva < 4096 + 64; gva += MEMORY_GRANULE_BYTES) {
        for (uint64_t bytes = 0; bytes <= 300; bytes++) {
            memory_identifiers_set(&table, gva, bytes, 7);
            for (uint64_t at = gva - 64; at < gva + 512; at += MEMORY_GRANULE_BYTES) {
                uint16_t expected = MEMORY_IDENTIFIER_NONE;
                if (at >= gva && at < gva + bytes)
                    expected =
                        at + MEMORY_GRANULE_BYTES <= gva + bytes ? 7 : MEMORY_IDENTIFIER_LOOK;
                assert_int_equal(memory_identifiers_get(&table, at), expected);
            }
            memory_identifiers_set(&table, gva, 320, MEMORY_IDENTIFIER_NONE);
        }
    }
    memory_identifiers_fini(&table);
}

static void entries_are_dropped(void **state)
{
    (void)state;
    struct memory_identifiers table;

    printf("a part is dropped, its neighbours stay\n");
    assert_int_equal(memory_identifiers_init(&table, TABLE_BYTES, NULL), 0);
    memory_identifiers_set(&table, 0, TABLE_BYTES, 5);
    memory_identifiers_drop(&table, 65536, 65536);
    for (uint64_t gva = 0; gva < TABLE_BYTES; gva += MEMORY_GRANULE_BYTES)
        assert_int_equal(memory_identifiers_get(&table, gva), gva / 65536 == 1 ? 0 : 5);
    memory_identifiers_fini(&table);
}

static void odd_tables_are_refused(void **state)
{
    (void)state;
    static const uint64_t bytes[] = {0, 1, 4095, UINT64_MAX, MEMORY_POINTER_BYTES + 4096};
    struct memory_identifiers table;

    printf("tables that are not of pages, or reach too far\n");
    for (size_t i = 0; i < BASE_COUNT_OF(bytes); i++) {
        struct error err = {0};
        assert_int_equal(memory_identifiers_init(&table, bytes[i], &err), -EINVAL);
        assert_int_not_equal(err.message[0], 0);
        memory_identifiers_fini(&table);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(generations_of_neighbours_never_meet),
        cmocka_unit_test(pointers_carry_them),
        cmocka_unit_test(entries_are_set),
        cmocka_unit_test(entries_are_dropped),
        cmocka_unit_test(odd_tables_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
