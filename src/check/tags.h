// SPDX-License-Identifier: BSD-2-Clause
// tags: memory that a program itself has given an identifier (docs/firmware.md): blocks of a pool
// of its own, of any alignment and length, in memory that the heap knows nothing of.
//
// Threads: all calls from any thread.
#ifndef STRAKE_CHECK_TAGS_H
#define STRAKE_CHECK_TAGS_H

#include "heap/heap.h"

struct tags;

// `identifiers` stays the caller's and reaches over all that is tagged. 0 or -ENOMEM.
BASE_NODISCARD int tags_create(struct tags **out, const struct memory_identifiers *identifiers);
void tags_destroy(struct tags *tags);  // NULL is ignored

// [gva, gva + bytes), which the caller has found to be the program's memory, has an identifier of
// its own from now on, which *pointer carries; what overlaps has ended. No bytes count as one. 0 or
// -ENOMEM, with nothing changed.
BASE_NODISCARD int tags_add(struct tags *tags, uint64_t gva, uint64_t bytes, uint32_t who,
                            uint64_t *pointer);
// Of a pointer that tags_add gave: it is memory without identifier again. 0, or -EINVAL with
// *finding and nothing changed.
BASE_NODISCARD int tags_end(struct tags *tags, uint64_t pointer, uint32_t who,
                            struct heap_finding *finding);

// May `pointer` be used for an access to `bytes` from it on, as far as it is about tagged memory?
// Exact.
bool tags_allow(struct tags *tags, uint64_t pointer, uint64_t bytes);
// What is wrong with such an access. False: neither the pointer nor the memory is of what has ever
// been tagged.
bool tags_diagnose(struct tags *tags, uint64_t pointer, uint64_t bytes,
                   struct heap_finding *finding);

#endif
