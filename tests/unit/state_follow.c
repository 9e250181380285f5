// SPDX-License-Identifier: BSD-2-Clause
// A state of an older version, loaded by newer tables and saved again as it was: the comparison at
// a handover from an older monitor to a newer one.
#include "state/state.h"
#include "unit.h"

struct element {
    uint32_t kept, added;
};
struct thing {
    uint32_t kept, added;
    struct state_list elements;
};

static const struct state_field old_element_fields[] = {
    STATE_FIELD(struct element, kept, STATE_U32, 1, 0), {0}};
static const struct state_field new_element_fields[] = {
    STATE_FIELD(struct element, kept, STATE_U32, 1, 0),
    STATE_FIELD(struct element, added, STATE_U32, 2, 0),
    {0}};
static const struct state_schema old_element = {.name = "element",
                                                .version = 1,
                                                .struct_bytes = sizeof(struct element),
                                                .fields = old_element_fields};
static const struct state_schema new_element = {.name = "element",
                                                .version = 2,
                                                .struct_bytes = sizeof(struct element),
                                                .fields = new_element_fields};

static const struct state_field old_fields[] = {
    STATE_FIELD(struct thing, kept, STATE_U32, 1, 0),
    STATE_LIST_OF(struct thing, elements, &old_element, 1, 10),
    {0}};
static const struct state_field new_fields[] = {
    STATE_FIELD(struct thing, kept, STATE_U32, 1, 0),
    STATE_FIELD(struct thing, added, STATE_U32, 2, 0),
    STATE_LIST_OF(struct thing, elements, &new_element, 1, 10),
    {0}};
static const struct state_schema old_thing = {
    .name = "thing", .version = 1, .struct_bytes = sizeof(struct thing), .fields = old_fields};
static const struct state_schema new_thing = {
    .name = "thing", .version = 2, .struct_bytes = sizeof(struct thing), .fields = new_fields};

struct saved {
    struct state_writer *writer;
    const void *bytes;
    size_t length_bytes;
};

static void finish(struct saved *saved)
{
    const int *fds;
    size_t fd_count;
    assert_int_equal(
        state_writer_finish(saved->writer, &saved->bytes, &saved->length_bytes, &fds, &fd_count),
        0);
}

static void test_saved_again_as_it_was(void **state)
{
    struct element elements[] = {{1, 2}, {3, 4}};
    struct thing thing = {.kept = 5, .added = 6, .elements = {elements, 2}}, loaded = {.added = 7};
    struct saved old = {0}, follows = {0}, newest = {0};
    struct state_reader *reader;
    struct error err = {0};
    (void)state;
    assert_int_equal(state_writer_create(&old.writer, false), 0);
    state_write(old.writer, &old_thing, 3, &thing);
    finish(&old);
    assert_int_equal(state_reader_create(&reader, old.bytes, old.length_bytes, NULL, 0, &err), 0);
    if (state_read(reader, &new_thing, 3, &loaded, &err) < 0)
        fail_msg("%s", err.message);
    assert_int_equal(loaded.kept, 5);
    assert_int_equal(loaded.added, 7);

    assert_int_equal(state_writer_create(&follows.writer, false), 0);
    state_writer_follow(follows.writer, reader);
    state_write(follows.writer, &new_thing, 3, &loaded);
    state_write(follows.writer, &new_thing, 4, &loaded);  // of which the old one knows nothing
    finish(&follows);
    if (state_compare(old.bytes, old.length_bytes, follows.bytes, follows.length_bytes, &err) < 0)
        fail_msg("%s", err.message);

    assert_int_equal(state_writer_create(&newest.writer, false), 0);
    state_write(newest.writer, &new_thing, 3, &loaded);
    finish(&newest);
    assert_true(
        state_compare(old.bytes, old.length_bytes, newest.bytes, newest.length_bytes, &err) < 0);
    print_message("without following: %s\n", err.message);

    loaded.kept++;
    state_writer_destroy(follows.writer);
    assert_int_equal(state_writer_create(&follows.writer, false), 0);
    state_writer_follow(follows.writer, reader);
    state_write(follows.writer, &new_thing, 3, &loaded);
    finish(&follows);
    assert_true(
        state_compare(old.bytes, old.length_bytes, follows.bytes, follows.length_bytes, &err) < 0);
    print_message("with another value: %s\n", err.message);
    state_reader_destroy(reader);
    state_writer_destroy(old.writer);
    state_writer_destroy(follows.writer);
    state_writer_destroy(newest.writer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_saved_again_as_it_was)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
