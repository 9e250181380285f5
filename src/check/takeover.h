// SPDX-License-Identifier: BSD-2-Clause
// takeover: functions of a checked program that the monitor does in their place. Allocators (malloc
// and its family, C++ operators, what the command line names) become calls of the heap; functions
// of libc on memory and texts are done by the host, on ranges that were checked exactly. They are
// found by the symbols of the files whose code the program maps.
//
// What is taken over, in which file:
// - libc (by its soname) and static programs with glibc or musl: everything.
// - C++ runtime libraries (by soname) and static programs: operators new and delete, unless the
//   program has its own.
// - Any file that defines malloc and free itself, as an allocator of its own: these. Not one that
//   hands on to libc's (it imports dlsym or __libc_malloc, and neither mmap nor sbrk).
// - Any file: what the command line names, and what compiled code says of its variables
//   (variables.h).
//
// Threads: all calls from any thread; takeover_has, _name and _call take no locks.
#ifndef STRAKE_CHECK_TAKEOVER_H
#define STRAKE_CHECK_TAKEOVER_H

#include "base/base.h"
#include "hart/hart.h"

struct takeover;
struct checker_thread;

// Where the resolvers of indirect functions (STT_GNU_IFUNC) lead to: addresses of no code at all,
// at which takeover_has is true.
#define TAKEOVER_LANDING_BYTES MEMORY_PAGE_BYTES

struct takeover_options {
    // What the user named: "alloc=NAME,free=NAME", and calloc=NAME, realloc=NAME. A name may have
    // @N behind it: the number of bytes, or the pointer to be freed or reallocated, is argument N,
    // from 1 on; of calloc and realloc the other one is the next.
    const char *const *allocators;
    size_t allocators_count;
    // gva of TAKEOVER_LANDING_BYTES that are mapped, to be executed as far as takeover_has is not
    // asked. 0: there is none, and indirect functions are not taken over.
    uint64_t landing;
};

// 0, -ENOMEM, or -EINVAL with what is wrong with an option in *err.
BASE_NODISCARD int takeover_create(struct takeover **out, const struct takeover_options *options,
                                   struct error *err);
void takeover_destroy(struct takeover *takeover);  // NULL is ignored
// Around fork(), on the thread that makes it.
void takeover_lock(struct takeover *takeover);
void takeover_unlock(struct takeover *takeover);

// [gva, gva+bytes) shows the file that `fd` is open at, from `offset` on, and may be executed. The
// file may be anything, and may change: what cannot be read has no functions. To be followed by a
// fence (HART_FENCE_I) of all harts. 0 or -ENOMEM: not all of its functions are taken over.
BASE_NODISCARD int takeover_map(struct takeover *takeover, uint64_t gva, uint64_t bytes, int fd,
                                uint64_t offset);
// It shows something else, or nothing. To be followed by a fence as well.
void takeover_unmap(struct takeover *takeover, uint64_t gva, uint64_t bytes);

// Calls `missing` for each name of the options that no file had that was mapped so far.
void takeover_each_missing(struct takeover *takeover, void (*missing)(const char *name));
// Whether one of these was a static program without symbols, of which nothing can be taken over.
bool takeover_is_nameless(const struct takeover *takeover);

// Whether the function at `pc` is taken over.
bool takeover_has(const struct takeover *takeover, uint64_t pc);
// What of it may be tried before takeover_call: for takeover_few. NULL: nothing.
const void *takeover_few_at(const struct takeover *takeover, uint64_t pc);
// As hart_at_once.perform.
bool takeover_few(struct takeover *takeover, struct checker_thread *thread, struct hart *hart,
                  const void *what, uint64_t pc);
// Its name, NULL: it is not taken over. Lives as long as `takeover`.
const char *takeover_name(const struct takeover *takeover, uint64_t pc);
// Does what the function at hart->pc is to do and returns from it; or has set pc to where else
// execution goes on (a fault, a part of the function itself), or hart_stop was called. On the
// hart's thread, in a hook of the hart; may block.
void takeover_call(struct takeover *takeover, struct checker_thread *thread, struct hart *hart);

#endif
