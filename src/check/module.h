// SPDX-License-Identifier: BSD-2-Clause
// A file that a program has mapped, and what its debug information says. Private to this room. One
// thread at a time: the lock of the symbols guards all modules.
//
// An address is here one that the file itself uses, as it was linked.
#ifndef STRAKE_CHECK_MODULE_H
#define STRAKE_CHECK_MODULE_H

#include "check/check.h"

// Strings that are kept for as long as anybody may hold one.
struct check_strings {
    void *tree;
};
// The kept copy, or NULL: no memory.
const char *check_strings_keep(struct check_strings *strings, const char *text);
// A kept copy that is fit for a report. NULL for NULL, and when there is no memory.
const char *check_strings_clean(struct check_strings *strings, const char *text);
// Has question marks for control characters, and for all that is not ASCII in what is not UTF-8.
void check_text_clean(char *text);
void check_strings_fini(struct check_strings *strings);

struct check_module;

// Notes which file `path` is now, and does not open it. `name` and `sysroot` stay the caller's.
int check_module_create(struct check_module **out, const char *name, const char *path,
                        const char *sysroot);
void check_module_destroy(struct check_module *module);
// Nothing of it is open any more until it is asked for again.
void check_module_close(struct check_module *module);
const char *check_module_name(const struct check_module *module);
// Whether it is the file that `path` is now.
bool check_module_is(const struct check_module *module, const char *name, const char *path);
// The address of what is at `offset` of the file. false: not a program's part, or not the file that
// it was when it was mapped.
bool check_module_address(struct check_module *module, uint64_t offset, uint64_t *address);

// As check_symbols_resolve, but for pc and module, and strings live until the module is closed. 0:
// nothing is known of this address.
size_t check_module_resolve(struct check_module *module, uint64_t address,
                            struct check_strings *strings, struct check_frame *frames, size_t max);
// Where the function at an address starts, and how many bytes it has, 0: not known; false: there is
// none.
bool check_module_function(struct check_module *module, uint64_t address, uint64_t *start,
                           uint64_t *bytes);

// How the frame of the code at an address is unwound: the canonical frame address (CFA) is a
// register and an offset, and what the caller had in ra and s0 is still there or in memory at an
// offset from the CFA.
struct check_row {
    enum { CHECK_ROW_NONE, CHECK_ROW_OK, CHECK_ROW_OUTERMOST } state;
    bool ra_saved, fp_saved;
    uint8_t cfa_register, ra_register;
    int32_t cfa_offset, ra_offset, fp_offset;
};
// CHECK_ROW_NONE: there is no call frame information, or it is of another kind.
struct check_row check_module_row(struct check_module *module, uint64_t address);

#endif
