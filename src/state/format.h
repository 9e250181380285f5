// SPDX-License-Identifier: BSD-2-Clause
// The format of a state, for the files of this room and its tests. docs/state.md has it in words.
#ifndef STRAKE_STATE_FORMAT_H
#define STRAKE_STATE_FORMAT_H

#include "state/state.h"

// All integers are little-endian, nothing is aligned.
//
// container: magic[8], u32 format version, u32 sections, u64 length of all, u32 0, u32 check sum
// section:   u32 check sum, name[24], u32 instance, u16 version, u16 fields, u32 bytes of fields;
//            then the fields
// field:     u8 length of the name, name, u8 type, u32 count; then the values: integers of the
//            type's width, bytes, numbers of descriptors; a list has u32 bytes, then its elements
// element:   u16 fields, then the fields
//
// A check sum is CRC-32 as in zlib, of what comes before it in the container's head, and of what
// comes after it in the section.
#define STATE_MAGIC "\x89STRAKE\n"  // neither text nor UTF-8
#define STATE_MAGIC_BYTES 8u
#define STATE_FORMAT_VERSION 1u
#define STATE_HEAD_BYTES 32u
#define STATE_NAME_BYTES 24u
#define STATE_SECTION_BYTES 40u
#define STATE_SECTIONS_MAX 4096u  // looked up one by one
#define STATE_DEPTH_MAX 8u        // of lists in lists
#define STATE_NO_FD UINT32_MAX

// What stands for a type in the file; never changed.
enum state_code {
    STATE_CODE_BOOL = 1,
    STATE_CODE_U8 = 2,
    STATE_CODE_U16 = 3,
    STATE_CODE_U32 = 4,
    STATE_CODE_U64 = 5,
    STATE_CODE_BYTES = 6,
    STATE_CODE_BLOB = 7,
    STATE_CODE_LIST = 8,
    STATE_CODE_FD = 9,
    STATE_CODES,
};

struct state_kind {
    const char *name;
    uint8_t code;
    uint8_t width_bytes;  // of an element in the file
};

// By enum state_type, and by enum state_code (NULL for a code that is none).
const struct state_kind *state_kind_of_type(enum state_type type);
const struct state_kind *state_kind_of_code(unsigned code);

// Unsigned integers of 1 to 8 bytes.
uint64_t state_get(const uint8_t *bytes, size_t width_bytes);
void state_put(uint8_t *bytes, uint64_t value, size_t width_bytes);
uint32_t state_check_sum(const uint8_t *bytes, size_t count);

// Where a parse is; `left` bytes follow `at`.
struct state_cursor {
    const uint8_t *at;
    size_t left;
};

// The next `count` bytes, or NULL when there are not as many.
const uint8_t *state_take(struct state_cursor *cursor, size_t count);

struct state_section {
    const char *name;  // NUL-terminated
    uint32_t instance;
    uint16_t version, field_count;
    struct state_cursor fields;
};

// A field as it is in the file: `values` holds `count` elements, all of them inside the state.
struct state_item {
    char name[256];
    const struct state_kind *kind;
    uint32_t count;
    struct state_cursor values;
};

// Takes the next field. Its values are not looked at, but for a list's length. -EINVAL with *err
// set when it is none or goes beyond the cursor's end.
BASE_NODISCARD int state_item_next(struct state_cursor *cursor, struct state_item *item,
                                   struct error *err);

// Checks a container as state_reader_create does and gives its sections, which the caller frees.
BASE_NODISCARD int state_sections(const void *bytes, size_t length_bytes,
                                  struct state_section **out, size_t *count, struct error *err);

// The section's version in what is read; 0: it is not there.
unsigned state_reader_version(const struct state_reader *reader, const char *name,
                              unsigned instance);

#endif
