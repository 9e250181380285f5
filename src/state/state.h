// SPDX-License-Identifier: BSD-2-Clause
// state: what a device or hart is made of, told once as a table of fields; from the table come
// saving, loading, a readable dump and comparison. docs/state.md has the format.
//
// How a room uses it: a plain struct holds what is to be saved, apart from locks, atomics and host
// handles (`struct uart_state`); one constant table describes it (`struct state_schema`); the
// device copies itself into the struct and out of it under its own locks, and nothing else knows
// the format. A loaded struct has passed the table's bounds and the schema's `check`: what else
// could do harm (an index, a length, a sum) is for `check`.
//
// Versions: a section carries the version of the schema that wrote it. A reader knows all versions
// up to its own: fields with a later `since` than the section's keep the value that the struct had
// before (set the default there). A section of a later version than the reader's, a field missing
// or left over, is refused with section and field named.
//
// Trust: a state may come from a file or from a process that a guest has taken over. Nothing in it
// makes a reader crash, loop or allocate more than the state is long.
//
// Threads: none; a writer or reader belongs to its caller.
#ifndef STRAKE_STATE_H
#define STRAKE_STATE_H

#include <stdio.h>

#include "base/base.h"

// The version of all tables together, which is what an update and a host compare before anything
// is saved. It is raised by one when the version of any section rises, or a section is added or
// goes; tests/project/state_set.py holds us to it. A program loads all sets from 1 to its own.
#define STATE_SET_OLDEST 1
#define STATE_SET_VERSION 2

enum state_type {
    STATE_BOOL,  // bool
    STATE_U8,    // unsigned integers in host representation, little-endian in the file
    STATE_U16,
    STATE_U32,
    STATE_U64,
    STATE_BYTES,  // uint8_t or char array of fixed length: shown as hexadecimal or text
    STATE_BLOB,   // struct state_blob: bytes of any length
    STATE_LIST,   // struct state_list: any number of elements with a table of their own
    STATE_FD,     // int: a descriptor, carried by a handover, -1 in a file; -1 stands for none
};

// Bytes or elements that a state points to. While saving they are the caller's. What a reader puts
// here is the reader's and lives as long as it does.
struct state_blob {
    void *bytes;
    size_t length_bytes;
};
struct state_list {
    void *elements;  // of the element table's struct
    size_t count;
};

struct state_field {
    const char *name;
    uint32_t offset;  // in the struct
    uint32_t count;   // elements: 1, or of an array; STATE_BYTES: bytes
    enum state_type type;
    uint16_t since;  // the schema's version that first had it; 1 from the beginning
    uint64_t max;    // largest value (integers), bytes (BLOB), elements (LIST); 0: any
    const struct state_schema *element;  // LIST: of these (version follows the outer schema's)
};

struct state_schema {
    const char *name;  // of the section, up to 23 characters: "hart", "uart", "virtio-blk", ...
    uint16_t version;  // from 1
    uint32_t struct_bytes;
    const struct state_field *fields;  // ends with a NULL name
    // Relations between fields that bounds do not tell. 0, or -EINVAL with *field naming the field
    // (static string) and *why saying what is wrong with it ("is beyond the queue"). May be NULL.
    int (*check)(const void *object, const char **field, const char **why);
};

// What a value of each type takes in the struct; an array's element.
#define STATE_SIZE(kind)                                                                           \
    ((kind) == STATE_U64                            ? 8                                            \
     : (kind) == STATE_U32 || (kind) == STATE_FD    ? 4                                            \
     : (kind) == STATE_U16                          ? 2                                            \
     : (kind) == STATE_BLOB || (kind) == STATE_LIST ? sizeof(struct state_blob)                    \
                                                    : 1)
// 1, or no constant expression when the member is not of the type's size.
#define STATE_IS(member_, kind) (1 / (sizeof(member_) == STATE_SIZE(kind)))

// One field of `struct type`: STATE_FIELD(struct uart_state, ier, STATE_U8, 1, 0x0f)
#define STATE_FIELD(type_, member, kind, since_, max_)                                             \
    {                                                                                              \
        .name = #member, .offset = offsetof(type_, member),                                        \
        .count = STATE_IS(((type_ *)0)->member, kind), .type = kind, .since = since_, .max = max_  \
    }
#define STATE_ARRAY(type_, member, kind, since_, max_)                                             \
    {                                                                                              \
        .name = #member, .offset = offsetof(type_, member),                                        \
        .count = BASE_COUNT_OF(((type_ *)0)->member) * STATE_IS(((type_ *)0)->member[0], kind),    \
        .type = kind, .since = since_, .max = max_                                                 \
    }
#define STATE_LIST_OF(type_, member, schema, since_, max_)                                         \
    {                                                                                              \
        .name = #member, .offset = offsetof(type_, member),                                        \
        .count = STATE_IS(((type_ *)0)->member, STATE_LIST), .type = STATE_LIST, .since = since_,  \
        .max = max_, .element = schema                                                             \
    }

// ---- Writing ------------------------------------------------------------------------------------

struct state_writer;
struct state_reader;

// Descriptors are kept for a handover (`with_fds`), or written as -1. 0 or -ENOMEM.
BASE_NODISCARD int state_writer_create(struct state_writer **out, bool with_fds);
void state_writer_destroy(struct state_writer *writer);  // NULL is ignored
// For comparing what was loaded: sections are written from now on in the versions that they have in
// what `reader` reads, and those that it has not are left out. `reader` outlives the writing.
void state_writer_follow(struct state_writer *writer, const struct state_reader *reader);
// Adds a section: `object` is of the schema's struct, `instance` tells several of a kind apart (the
// hart's id, the device's slot). An error (-ENOMEM) is kept and returned by state_writer_finish, so
// that callers need not look.
void state_write(struct state_writer *writer, const struct state_schema *schema, unsigned instance,
                 const void *object);
// Ends the state. The bytes and descriptors stay the writer's (descriptors: the objects').
BASE_NODISCARD int state_writer_finish(struct state_writer *writer, const void **bytes,
                                       size_t *length_bytes, const int **fds, size_t *fd_count);

// ---- Reading ------------------------------------------------------------------------------------

// Checks the container: magic, version, lengths and check sums of all sections; `bytes` must stay
// as they are for the reader's life (copy what others can write to). `fds` (may be NULL, then every
// STATE_FD reads -1) stay the caller's: a section that is read gets the number, no duplicate.
BASE_NODISCARD int state_reader_create(struct state_reader **out, const void *bytes,
                                       size_t length_bytes, const int *fds, size_t fd_count,
                                       struct error *err);
void state_reader_destroy(struct state_reader *reader);  // NULL is ignored
// Takes the section into `object`, which holds the defaults. -ENOENT when there is none (and *err
// says so), -EINVAL when it is refused; `object` is then not to be used.
BASE_NODISCARD int state_read(struct state_reader *reader, const struct state_schema *schema,
                              unsigned instance, void *object, struct error *err);
// After everything has been read: refuses sections that nobody took.
BASE_NODISCARD int state_reader_finish(struct state_reader *reader, struct error *err);

// ---- Looking ------------------------------------------------------------------------------------

// Prints a state for people, as text or as JSON. It needs no schema: names and types of fields are
// in the state.
BASE_NODISCARD int state_dump(const void *bytes, size_t length_bytes, bool json, FILE *out,
                              struct error *err);
// Compares two states field by field. 0 when equal, else -EINVAL with the first difference named:
// section, instance, field, both values.
BASE_NODISCARD int state_compare(const void *a, size_t a_bytes, const void *b, size_t b_bytes,
                                 struct error *err);

#endif
