// SPDX-License-Identifier: BSD-2-Clause
// What the files of this room share.
#ifndef STRAKE_CHECK_INTERNAL_H
#define STRAKE_CHECK_INTERNAL_H

#include "check/module.h"

// The module that shows at `gva`, and the address in it; NULL: none. Under the lock.
struct check_module *check_symbols_find(struct check_symbols *symbols, uint64_t gva,
                                        uint64_t *address);
// Changes whenever what is mapped does. Any thread.
unsigned check_symbols_generation(const struct check_symbols *symbols);

// ---- Reports ------------------------------------------------------------------------------------

struct check_frames {
    struct check_frame *frames;
    size_t count;
    unsigned thread;
};

// A finding, and its stacks in words.
struct check_described {
    const struct check_finding *finding;
    struct check_frames stack, allocated, freed_by;
};

// The stack that tells findings apart, and that suppressions are about: where memory was accessed,
// or, of a leak, allocated.
const struct check_frames *check_described_place(const struct check_described *described);
// The first frame of it in a file that is known, else the first, or NULL when it is empty.
const struct check_frame *check_described_frame(const struct check_described *described);
// A sentence: what was done to which object.
void check_described_sentence(const struct check_described *described, char *text, size_t capacity);
// How far the access is from the object, as "4 bytes after", for "is located ...".
void check_object_distance(const struct check_finding *finding, char *text, size_t capacity);

// The finding in a format; to be freed. NULL: no memory.
char *check_text_finding(const struct check_described *described, bool suggest);
char *check_json_finding(const struct check_described *described);
// `first`: with what begins the page.
char *check_html_finding(const struct check_described *described, const char *program, bool first);

struct check_sarif;

int check_sarif_create(struct check_sarif **out, const char *program);
int check_sarif_add(struct check_sarif *sarif, const struct check_described *described);
void check_sarif_forget(struct check_sarif *sarif);
// The document of all that was added; to be freed. NULL: no memory.
char *check_sarif_text(const struct check_sarif *sarif);
void check_sarif_destroy(struct check_sarif *sarif);  // NULL is ignored

#endif
