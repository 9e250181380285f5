// SPDX-License-Identifier: BSD-2-Clause
// Saving and loading by tables of fields: every type there and back, what is refused and how, older
// versions, dump and comparison.
#include "state/format.h"
#include "unit.h"

struct part {
    uint16_t length;
    struct state_blob data;
};

struct thing {
    bool on;
    uint8_t small;
    uint16_t middle;
    uint32_t large;
    uint64_t huge;
    uint16_t array[3];
    char name[8];
    struct state_blob blob;
    struct state_list parts;
    int fd;
    uint32_t later;
};

static int part_check(const void *object, const char **field, const char **why)
{
    const struct part *part = object;

    *field = "length";
    *why = "is not the data's";
    return part->length == part->data.length_bytes ? 0 : -EINVAL;
}

static const struct state_field part_fields[] = {
    STATE_FIELD(struct part, length, STATE_U16, 1, 0),
    STATE_FIELD(struct part, data, STATE_BLOB, 1, 100),
    {.name = NULL},
};
static const struct state_schema part_schema = {.name = "part",
                                                .version = 1,
                                                .struct_bytes = sizeof(struct part),
                                                .fields = part_fields,
                                                .check = part_check};

#define THING_FIELDS                                                                               \
    STATE_FIELD(struct thing, on, STATE_BOOL, 1, 0),                                               \
        STATE_FIELD(struct thing, small, STATE_U8, 1, 15),                                         \
        STATE_FIELD(struct thing, middle, STATE_U16, 1, 0),                                        \
        STATE_FIELD(struct thing, large, STATE_U32, 1, 0),                                         \
        STATE_FIELD(struct thing, huge, STATE_U64, 1, 0),                                          \
        STATE_ARRAY(struct thing, array, STATE_U16, 1, 1000),                                      \
        STATE_ARRAY(struct thing, name, STATE_BYTES, 1, 0),                                        \
        STATE_FIELD(struct thing, blob, STATE_BLOB, 1, 0),                                         \
        STATE_LIST_OF(struct thing, parts, &part_schema, 1, 4),                                    \
        STATE_FIELD(struct thing, fd, STATE_FD, 1, 0)

static const struct state_field thing_fields[] = {THING_FIELDS, {.name = NULL}};
static const struct state_schema thing_schema = {
    .name = "thing", .version = 1, .struct_bytes = sizeof(struct thing), .fields = thing_fields};

// The same, later.
static const struct state_field later_fields[] = {
    THING_FIELDS, STATE_FIELD(struct thing, later, STATE_U32, 2, 0), {.name = NULL}};
static const struct state_schema later_schema = {
    .name = "thing", .version = 2, .struct_bytes = sizeof(struct thing), .fields = later_fields};

static struct part parts[] = {{.length = 3, .data = {"abc", 3}}, {.length = 0}};
static const struct thing example = {
    .on = true,
    .small = 15,
    .middle = 0xfedc,
    .large = 0x12345678,
    .huge = 0x123456789abcdef0,
    .array = {1, 2, 1000},
    .name = "strake",
    .blob = {(void *)"\x00\x01\xff", 3},
    .parts = {parts, 2},
    .fd = 5,
    .later = 77,
};

struct saved {
    uint8_t bytes[4096];
    size_t count;
    int fds[4];
    size_t fd_count;
};

static void save(struct saved *saved, const struct state_schema *schema, const struct thing *thing)
{
    struct state_writer *writer;
    const void *bytes;
    const int *fds;

    assert_int_equal(state_writer_create(&writer, true), 0);
    state_write(writer, schema, 3, thing);
    assert_int_equal(state_writer_finish(writer, &bytes, &saved->count, &fds, &saved->fd_count), 0);
    assert_true(saved->count <= sizeof(saved->bytes) && saved->fd_count <= 4);
    memcpy(saved->bytes, bytes, saved->count);
    memcpy(saved->fds, fds, saved->fd_count * sizeof(*fds));
    state_writer_destroy(writer);
}

// Returns what state_read says, or the first error before or after it. What `thing` points to is
// looked at while the reader is there.
static int load_and_look(const struct saved *saved, const struct state_schema *schema,
                         struct thing *thing, void (*look)(const struct thing *thing),
                         struct error *err)
{
    struct state_reader *reader;
    uint8_t *copy = malloc(saved->count);  // of its exact size, for ASan

    memcpy(copy, saved->bytes, saved->count);
    int rc = state_reader_create(&reader, copy, saved->count, saved->fds, saved->fd_count, err);
    if (rc == 0) {
        rc = state_read(reader, schema, 3, thing, err);
        if (rc == 0)
            rc = state_reader_finish(reader, err);
        if (rc == 0)
            look(thing);
        state_reader_destroy(reader);
    }
    free(copy);
    return rc;
}

static void look_at_nothing(const struct thing *thing)
{
    (void)thing;
}

static int load(const struct saved *saved, const struct state_schema *schema, struct thing *thing,
                struct error *err)
{
    return load_and_look(saved, schema, thing, look_at_nothing, err);
}

static void assert_refused(const struct saved *saved, const struct state_schema *schema,
                           const char *message)
{
    struct thing thing = {0};
    struct error err = {0};

    assert_int_equal(load(saved, schema, &thing, &err), -EINVAL);
    assert_string_equal(err.message, message);
}

// Makes the check sums right again, so that what comes after them is reached. One section.
static void seal(struct saved *saved)
{
    state_put(saved->bytes + 16, saved->count, 8);
    state_put(saved->bytes + 28, state_check_sum(saved->bytes, 28), 4);
    state_put(saved->bytes + 32 + 36, saved->count - 72, 4);
    state_put(saved->bytes + 32, state_check_sum(saved->bytes + 36, saved->count - 36), 4);
}

// Where a field's type byte is.
static uint8_t *field_find(struct saved *saved, const char *name)
{
    uint8_t *at = memmem(saved->bytes, saved->count, name, strlen(name));

    assert_non_null(at);
    return at + strlen(name);
}

static void look_at_parts(const struct thing *thing)
{
    const struct part *loaded = thing->parts.elements;

    assert_int_equal(thing->blob.length_bytes, 3);
    assert_memory_equal(thing->blob.bytes, "\x00\x01\xff", 3);
    assert_int_equal(thing->parts.count, 2);
    assert_int_equal(loaded[0].length, 3);
    assert_memory_equal(loaded[0].data.bytes, "abc", 3);
    assert_int_equal(loaded[1].length, 0);
    assert_int_equal(loaded[1].data.length_bytes, 0);
}

static void test_every_type(void **state)
{
    struct saved saved;
    struct thing thing = {.fd = 99, .later = 7};
    struct error err;
    (void)state;

    save(&saved, &thing_schema, &example);
    assert_int_equal(saved.fd_count, 1);
    assert_int_equal(saved.fds[0], 5);
    saved.fds[0] = 42;  // as the receiver has it
    assert_int_equal(load_and_look(&saved, &thing_schema, &thing, look_at_parts, &err), 0);
    assert_true(thing.on);
    assert_int_equal(thing.small, 15);
    assert_int_equal(thing.middle, 0xfedc);
    assert_int_equal(thing.large, 0x12345678);
    assert_int_equal(thing.huge, 0x123456789abcdef0);
    assert_memory_equal(thing.array, example.array, sizeof(thing.array));
    assert_string_equal(thing.name, "strake");
    assert_int_equal(thing.fd, 42);
    assert_int_equal(thing.later, 7);  // not in the table
}

static void test_without_descriptors(void **state)
{
    struct state_writer *writer;
    struct state_reader *reader;
    struct thing thing = {.fd = 99};
    struct error err;
    const void *bytes;
    size_t count, fd_count;
    const int *fds;
    (void)state;

    assert_int_equal(state_writer_create(&writer, false), 0);
    state_write(writer, &thing_schema, 0, &example);
    assert_int_equal(state_writer_finish(writer, &bytes, &count, &fds, &fd_count), 0);
    assert_int_equal(fd_count, 0);
    assert_int_equal(state_reader_create(&reader, bytes, count, NULL, 0, &err), 0);
    assert_int_equal(state_read(reader, &thing_schema, 0, &thing, &err), 0);
    assert_int_equal(thing.fd, -1);
    assert_int_equal(state_read(reader, &thing_schema, 1, &thing, &err), -ENOENT);
    assert_string_equal(err.message, "section \"thing\" 1 is missing in the state");
    state_reader_destroy(reader);
    state_writer_destroy(writer);
}

static void test_versions(void **state)
{
    struct saved saved;
    struct thing thing = {.later = 1234};
    struct error err;
    (void)state;

    save(&saved, &thing_schema, &example);
    assert_int_equal(load(&saved, &later_schema, &thing, &err), 0);
    assert_int_equal(thing.later, 1234);  // the default
    save(&saved, &later_schema, &example);
    assert_int_equal(load(&saved, &later_schema, &thing, &err), 0);
    assert_int_equal(thing.later, 77);
    assert_refused(&saved, &thing_schema,
                   "cannot load section \"thing\" 3 of the state: version 2 is not known, only up "
                   "to 1");
    state_put(saved.bytes + 32 + 32, 1, 2);
    seal(&saved);
    assert_refused(&saved, &later_schema,
                   "cannot load section \"thing\" 3 of the state: field \"later\" is not known");
    save(&saved, &thing_schema, &example);
    state_put(saved.bytes + 32 + 32, 2, 2);
    seal(&saved);
    assert_refused(&saved, &later_schema,
                   "cannot load section \"thing\" 3 of the state: field \"later\" is missing");
    save(&saved, &thing_schema, &example);
    state_put(saved.bytes + 8, 9, 4);
    seal(&saved);
    assert_refused(&saved, &thing_schema,
                   "the state is in format 9, but only format 1 is known here");
}

static void test_every_length(void **state)
{
    struct saved saved;
    struct thing thing;
    struct error err;
    (void)state;

    save(&saved, &thing_schema, &example);
    for (size_t whole = saved.count--; saved.count < whole; saved.count--) {
        err.message[0] = 0;
        assert_int_equal(load(&saved, &thing_schema, &thing, &err), -EINVAL);
        assert_true(strstr(err.message, "cut off") || strstr(err.message, "not a saved state"));
        if (saved.count == 0)
            break;
    }
    save(&saved, &thing_schema, &example);
    saved.bytes[saved.count++] = 0;
    assert_int_equal(load(&saved, &thing_schema, &thing, &err), -EINVAL);
    assert_non_null(strstr(err.message, "followed by something else"));
}

static void test_every_bit(void **state)
{
    struct saved saved;
    struct thing thing;
    struct error err;
    (void)state;

    save(&saved, &thing_schema, &example);
    for (size_t bit = 0; bit < 8 * saved.count; bit++) {
        saved.bytes[bit / 8] ^= 1 << bit % 8;
        assert_int_equal(load(&saved, &thing_schema, &thing, &err), -EINVAL);
        saved.bytes[bit / 8] ^= 1 << bit % 8;
    }
    saved.bytes[100] ^= 4;
    assert_refused(&saved, &thing_schema, "section \"thing\" 3 is damaged: its check sum is wrong");
}

// Every byte is given every value, and the check sums are made right: the loader is on its own.
static void test_every_byte_with_good_check_sums(void **state)
{
    struct saved saved;
    struct thing thing;
    struct error err;
    unsigned loaded = 0;
    (void)state;

    save(&saved, &thing_schema, &example);
    for (size_t at = STATE_HEAD_BYTES + 4; at < saved.count; at++) {
        uint8_t before = saved.bytes[at];
        for (unsigned value = 0; value < 256; value++) {
            saved.bytes[at] = (uint8_t)value;
            state_put(saved.bytes + 32, state_check_sum(saved.bytes + 36, saved.count - 36), 4);
            thing.parts.count = 0;
            int rc = load(&saved, &thing_schema, &thing, &err);
            assert_true(rc == 0 || rc == -EINVAL || rc == -ENOENT);
            if (rc == 0)
                assert_true(thing.small <= 15 && thing.array[2] <= 1000 && thing.parts.count <= 4);
            loaded += rc == 0;
        }
        saved.bytes[at] = before;
    }
    assert_true(loaded > 0);
}

static void test_bounds(void **state)
{
    struct saved saved;
    struct thing thing = example;
    (void)state;

    thing.small = 16;
    save(&saved, &thing_schema, &thing);
    assert_refused(
        &saved, &thing_schema,
        "cannot load section \"thing\" 3 of the state: field \"small\" is 0x10, beyond 0xf");
    thing = example;
    thing.array[1] = 1001;
    save(&saved, &thing_schema, &thing);
    assert_refused(
        &saved, &thing_schema,
        "cannot load section \"thing\" 3 of the state: field \"array\"[1] is 0x3e9, beyond 0x3e8");
    struct part wrong = {.length = 4, .data = {"abc", 3}};
    thing = example;
    thing.parts = (struct state_list){&wrong, 1};
    save(&saved, &thing_schema, &thing);
    assert_refused(&saved, &thing_schema,
                   "cannot load section \"thing\" 3 of the state: field \"parts\", element 0: "
                   "field \"length\" is not the data's");
}

static void test_hostile_fields(void **state)
{
    struct saved saved;
    (void)state;

    save(&saved, &thing_schema, &example);
    state_put(field_find(&saved, "blob") + 1, 0xffffffff, 4);
    seal(&saved);
    assert_refused(&saved, &thing_schema,
                   "cannot load section \"thing\" 3 of the state: field \"blob\" goes beyond the "
                   "section's end");
    save(&saved, &thing_schema, &example);
    state_put(field_find(&saved, "parts") + 1, 4, 4);
    seal(&saved);
    assert_refused(&saved, &thing_schema,
                   "cannot load section \"thing\" 3 of the state: field \"parts\" has 4 elements "
                   "in 55 bytes");
    save(&saved, &thing_schema, &example);
    *field_find(&saved, "small") = STATE_CODE_BOOL;
    seal(&saved);
    assert_refused(&saved, &thing_schema,
                   "cannot load section \"thing\" 3 of the state: field \"small\" is of type bool, "
                   "not u8");
    save(&saved, &thing_schema, &example);
    *field_find(&saved, "small") = 200;
    seal(&saved);
    assert_refused(
        &saved, &thing_schema,
        "cannot load section \"thing\" 3 of the state: field \"small\" is of the unknown "
        "type 200");
    save(&saved, &thing_schema, &example);
    memcpy(field_find(&saved, "small") - 5, "smart", 5);
    seal(&saved);
    assert_refused(&saved, &thing_schema,
                   "cannot load section \"thing\" 3 of the state: field \"smart\" is in place of "
                   "\"small\"");
    save(&saved, &thing_schema, &example);
    state_put(field_find(&saved, "fd") + 5, 1, 4);
    seal(&saved);
    assert_refused(&saved, &thing_schema,
                   "cannot load section \"thing\" 3 of the state: field \"fd\" names descriptor 1, "
                   "which there is not");
}

static void test_unknown_section(void **state)
{
    struct state_writer *writer;
    struct state_reader *reader;
    struct thing thing;
    struct error err;
    const void *bytes;
    size_t count, fd_count;
    const int *fds;
    (void)state;

    assert_int_equal(state_writer_create(&writer, false), 0);
    state_write(writer, &thing_schema, 0, &example);
    state_write(writer, &thing_schema, 1, &example);
    assert_int_equal(state_writer_finish(writer, &bytes, &count, &fds, &fd_count), 0);
    assert_int_equal(state_reader_create(&reader, bytes, count, NULL, 0, &err), 0);
    assert_int_equal(state_read(reader, &thing_schema, 0, &thing, &err), 0);
    assert_int_equal(state_reader_finish(reader, &err), -EINVAL);
    assert_string_equal(err.message, "section \"thing\" 1 of the state is not known here");
    state_reader_destroy(reader);
    state_write(writer, &thing_schema, 1, &example);
    assert_int_equal(state_writer_finish(writer, &bytes, &count, &fds, &fd_count), 0);
    assert_int_equal(state_reader_create(&reader, bytes, count, NULL, 0, &err), -EINVAL);
    assert_string_equal(err.message, "section \"thing\" 1 is in the state twice");
    state_writer_destroy(writer);
}

static void test_dump(void **state)
{
    struct saved saved;
    struct error err;
    char *text;
    size_t bytes;
    (void)state;

    save(&saved, &thing_schema, &example);
    FILE *out = open_memstream(&text, &bytes);
    assert_int_equal(state_dump(saved.bytes, saved.count, false, out, &err), 0);
    fclose(out);
    assert_string_equal(text, "thing 3 (version 1)\n"
                              "    on = true\n"
                              "    small = 0xf\n"
                              "    middle = 0xfedc\n"
                              "    large = 0x12345678\n"
                              "    huge = 0x123456789abcdef0\n"
                              "    array = 1 2 0x3e8\n"
                              "    name = \"strake\"\n"
                              "    blob = 0001ff\n"
                              "    parts = 2 elements\n"
                              "    [0]\n"
                              "        length = 3\n"
                              "        data = \"abc\"\n"
                              "    [1]\n"
                              "        length = 0\n"
                              "        data = (empty)\n"
                              "    fd = 0\n");
    free(text);
    out = open_memstream(&text, &bytes);
    assert_int_equal(state_dump(saved.bytes, saved.count, true, out, &err), 0);
    fclose(out);
    assert_string_equal(
        strchr(text, '['),
        "[{\"name\":\"thing\",\"instance\":3,\"version\":1,\"fields\":{\"on\":true,\"small\":15,"
        "\"middle\":65244,\"large\":305419896,\"huge\":1311768467463790320,\"array\":[1,2,1000],"
        "\"name\":\"737472616b650000\",\"blob\":\"0001ff\",\"parts\":[{\"length\":3,\"data\":"
        "\"616263\"},{\"length\":0,\"data\":\"\"}],\"fd\":0}}]}\n");
    free(text);
}

static void compare(const struct thing *a, const struct thing *b, const char *message)
{
    struct saved saved_a, saved_b;
    struct error err;

    save(&saved_a, &thing_schema, a);
    save(&saved_b, &thing_schema, b);
    assert_int_equal(
        state_compare(saved_a.bytes, saved_a.count, saved_b.bytes, saved_b.count, &err), -EINVAL);
    assert_string_equal(err.message, message);
}

static void test_compare(void **state)
{
    struct thing other = example;
    struct saved saved;
    struct error err;
    (void)state;

    save(&saved, &thing_schema, &example);
    assert_int_equal(state_compare(saved.bytes, saved.count, saved.bytes, saved.count, &err), 0);
    other.huge++;
    compare(&example, &other,
            "the states differ: section \"thing\" 3: field \"huge\" is 0x123456789abcdef0 and "
            "0x123456789abcdef1");
    other = example;
    other.array[2] = 9;
    compare(&example, &other,
            "the states differ: section \"thing\" 3: field \"array\"[2] is 0x3e8 and 9");
    struct part changed[] = {parts[0], {.length = 1, .data = {"x", 1}}};
    other = example;
    other.parts.elements = changed;
    compare(&example, &other,
            "the states differ: section \"thing\" 3: field \"parts\", element 1: field \"length\" "
            "is 0 and 1");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_type),
        cmocka_unit_test(test_without_descriptors),
        cmocka_unit_test(test_versions),
        cmocka_unit_test(test_every_length),
        cmocka_unit_test(test_every_bit),
        cmocka_unit_test(test_every_byte_with_good_check_sums),
        cmocka_unit_test(test_bounds),
        cmocka_unit_test(test_hostile_fields),
        cmocka_unit_test(test_unknown_section),
        cmocka_unit_test(test_dump),
        cmocka_unit_test(test_compare),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
