// SPDX-License-Identifier: BSD-2-Clause
// variables: arrays and structures on the stack, and static ones, of programs whose compiler has
// given them identifiers (include/strake/tagging.cfg, docs/check.md). Compiled code chooses 8 bits
// for each; the identifier has these at its top and 0 below. Entries are written by what the
// program calls (takeover_variables), and compared as all others are.
//
// Threads: as in checker.h.
#ifndef STRAKE_CHECK_VARIABLES_H
#define STRAKE_CHECK_VARIABLES_H

#include "check/checker.h"

struct variables;

BASE_NODISCARD int variables_create(struct variables **out);  // 0 or -ENOMEM
void variables_destroy(struct variables *variables);          // NULL is ignored

// Around fork(), on the thread that makes it.
void variables_lock(struct variables *variables);
void variables_unlock(struct variables *variables);

// Whether the pointer is one to a variable, as far as it can tell.
bool variables_has(const struct checker *checker, uint64_t pointer);
// How many of `bytes` from `pointer` on it may be used for: exact.
uint64_t variables_extent(struct checker *checker, uint64_t pointer, uint64_t bytes);
// Whether a byte within the granule in which a static variable ends is among [pointer, pointer +
// bytes), which does not reach farther: a word that libc reads.
bool variables_is_whole_word(struct checker *checker, uint64_t pointer, uint64_t bytes);
// Such a pointer may not be used for this: reports it. True: go on.
bool variables_refuse(struct checker_thread *thread, struct hart *hart, const char *call,
                      uint64_t pointer, uint64_t bytes, enum check_access access);

// The next identifier's 8 bits, for a variable of the calling thread's stack. Any thread.
uint8_t variables_choose(struct checker *checker);
// [gva, gva + bytes), whole granules, is a variable, or, with 0, none. What is not memory outside
// of the heap is ignored.
void variables_mark(struct checker *checker, uint64_t gva, uint64_t bytes, uint8_t tag);
// The same for static ones, for good: `bytes` may end within a granule, whose rest is nobody's.
void variables_add(struct checker *checker, uint64_t gva, uint64_t bytes, uint8_t tag);

#endif
