// SPDX-License-Identifier: BSD-2-Clause
// Names of guest code, from files that the user gives. Private to this room and its tests.
#ifndef STRAKE_JIT_SYMBOLS_H
#define STRAKE_JIT_SYMBOLS_H

#include "base/base.h"

// Functions of several files, by guest virtual address. Zeros are none.
struct jit_symbols {
    struct jit_symbol {
        uint64_t gva, end;
        const char *name;
    } * table;
    size_t count, room;
    char **files;  // the contents, which the names are in
    size_t file_count;
};

// Adds the code symbols of a file: a 64-bit ELF program, or lines "ADDRESS TYPE NAME" as nm, a
// kernel's System.map and /proc/kallsyms have them. 0, -ENOEXEC (it is neither, or has none),
// -ENOMEM, or what reading it failed with. Unchanged on failure.
BASE_NODISCARD int jit_symbols_add(struct jit_symbols *symbols, int fd);
void jit_symbols_fini(struct jit_symbols *symbols);
// The function that `gva` lies in, or NULL.
const char *jit_symbols_find(const struct jit_symbols *symbols, uint64_t gva);

#endif
