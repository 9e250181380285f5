// SPDX-License-Identifier: BSD-2-Clause
// What the files of libc's functions share: their arguments, and the work on the program's memory.
#ifndef STRAKE_CHECK_LIBC_H
#define STRAKE_CHECK_LIBC_H

#include "check/takeover_internal.h"

#define UNITS_MAX (MEMORY_POINTER_BYTES / 4)  // more are nowhere

// What functions differ in that do the same otherwise.
enum {
    RETURNS_END = 1,      // stpcpy: where what it has written ends
    SOURCE_FIRST = 2,     // bcopy
    MAY_OVERLAP = 4,      // memmove
    NO_LENGTH = 8,        // rawmemchr
    FOUND_OR_END = 16,    // strchrnul
    ZERO = 32,            // bzero
    REJECT = 64,          // strcspn: up to one that is in the set, or the end
    RETURNS_PLACE = 128,  // strpbrk: where that is
};

static inline bool is(const struct takeover_call *call, unsigned variant)
{
    return call->function->variant & variant;
}

static inline uint64_t bytes_of(const struct takeover_call *call, uint64_t units)
{
    uint64_t bytes;
    return __builtin_mul_overflow(units, call->function->unit_bytes, &bytes) ? UINT64_MAX : bytes;
}

static inline uint64_t at(const struct takeover_call *call, uint64_t pointer, uint64_t units)
{
    return pointer + units * call->function->unit_bytes;
}

// What is looked for, as the function is given it.
static inline uint32_t sought(const struct takeover_call *call, unsigned argument)
{
    uint64_t value = takeover_argument(call, argument);
    return call->function->unit_bytes == 1 ? (uint8_t)value : (uint32_t)value;
}

// A fortified function is told how many units there are from the destination on.
static inline uint64_t limit_of(const struct takeover_call *call)
{
    unsigned which = call->function->limit;
    return which ? takeover_argument(call, which) : UINT64_MAX;
}

static inline bool is_within_limit(const struct takeover_call *call, uint64_t before,
                                   uint64_t units)
{
    uint64_t limit = limit_of(call);

    return before <= limit && units <= limit - before;
}

// For work that is given up at any instruction (takeover_internal.h).
#define ALONE __attribute__((no_sanitize("address", "thread", "undefined")))

// ---- A few bytes, done at once (libc_few.c) -----------------------------------------------------

bool few_length(struct takeover_call *call);
bool few_find_in_text(struct takeover_call *call);
bool few_compare(struct takeover_call *call);
bool few_compare_texts(struct takeover_call *call);
bool few_compare_texts_up_to(struct takeover_call *call);
bool few_copy(struct takeover_call *call);
bool few_fill(struct takeover_call *call);
bool few_copy_text(struct takeover_call *call);
bool few_append(struct takeover_call *call);

#endif
