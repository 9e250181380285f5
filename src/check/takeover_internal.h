// SPDX-License-Identifier: BSD-2-Clause
// What the parts of the takeover share: the functions that there are, and a call of one.
#ifndef STRAKE_CHECK_TAKEOVER_INTERNAL_H
#define STRAKE_CHECK_TAKEOVER_INTERNAL_H

#include "check/checker.h"
#include "check/takeover.h"

// In which files a function is taken over, see takeover.h; and what else symbols tell of a file.
enum takeover_kind {
    TAKEOVER_LIBC,       // memory and texts
    TAKEOVER_ALLOCATOR,  // malloc and its family
    TAKEOVER_OPERATOR,   // new and delete
    TAKEOVER_NAMED,      // by the command line
    TAKEOVER_VARIABLES,  // what compiled code says of its variables
    // Not taken over:
    TAKEOVER_ERRNO,    // __errno_location
    TAKEOVER_START,    // of libc's own, in a static program
    TAKEOVER_RUNTIME,  // what C++'s own operator new calls
    TAKEOVER_NEXT,     // imported by who hands on to another allocator
    TAKEOVER_PAGES,    // imported by who has memory of its own
};

struct takeover_call;

struct takeover_function {
    const char *name;
    // Does it. True: it returns, with its result in a0; false: execution goes on at hart->pc.
    bool (*perform)(struct takeover_call *call);
    enum takeover_kind kind;
    enum heap_family family;  // of objects
    unsigned variant;         // which of several functions that do alike
    bool at_once;             // it takes no locks, so that fences may wait for it
    // Does what it is most often called for, as `perform`, if no more is to be known than struct
    // hart_at_once has. False: it is not done, and nothing has changed. NULL: there is nothing.
    bool (*few)(struct takeover_call *call);
    bool resumes;        // it always goes on with the function itself, see takeover_original
    uint8_t unit_bytes;  // of a text: 1 or 4
    uint8_t argument;    // which one it begins with, from 0
    uint8_t limit;       // the one with the length of what is written to; 0: there is none
    bool found;          // it is, or was, in a file that is mapped
};

struct takeover_call {
    struct takeover *takeover;
    const struct takeover_function *function;
    struct checker_thread *thread;
    struct checker *checker;
    struct hart *hart;
    uint64_t pc;  // of the function
    bool waived;  // what it reads on the way was found wrong, and is read nevertheless
};

static inline uint64_t takeover_argument(const struct takeover_call *call, unsigned number)
{
    return call->hart->x[10 + call->function->argument + number];
}

static inline bool takeover_return(struct takeover_call *call, uint64_t value)
{
    call->hart->x[10] = value;
    return true;
}

extern const struct takeover_function takeover_allocators[], takeover_texts[], takeover_fortified[],
    takeover_variables[];
extern const size_t takeover_allocators_count, takeover_texts_count, takeover_fortified_count,
    takeover_variables_count;

// An option "alloc=NAME,free=NAME": its functions, whose names go to *text, to be freed with free.
// At most `max`. 0, -ENOMEM, or -EINVAL with *err set.
#define TAKEOVER_OPTION_FUNCTIONS 4u
int takeover_option_parse(const char *option, struct takeover_function *functions, size_t *count,
                          char **text, struct error *err);

// The function of this name, NULL: it is none.
const struct takeover_function *takeover_function_find(const struct takeover *takeover,
                                                       const char *name);
// Where a function of this name is, whatever is taken over; 0: nowhere.
uint64_t takeover_function_pc(const struct takeover *takeover, const char *name);
// Whether what one allocator made, and another frees, is to be told. It is not once operators new
// may have had their memory from malloc.
bool takeover_families(const struct takeover *takeover);
void takeover_families_end(struct takeover *takeover);

// ---- Files (takeover_file.c) --------------------------------------------------------------------

struct takeover_symbol {
    const struct takeover_function *function;
    uint64_t pc;
    bool resolver;  // of an indirect function
};

// What is found in a file, of which [gva, gva+bytes) shows the part from `offset` on.
struct takeover_file {
    struct takeover_symbol *symbols;  // in that part, to be taken over; and __errno_location
    size_t count;
    bool own_operators;  // new or delete that are not those of C++'s runtime library
    bool nameless;       // a static program without symbols
};
// 0 or -ENOMEM.
int takeover_file_read(const struct takeover *takeover, struct takeover_file *file, uint64_t gva,
                       uint64_t bytes, int fd, uint64_t offset);
void takeover_file_fini(struct takeover_file *file);

// ---- The function itself (takeover_original.c) --------------------------------------------------

// Goes on with the program's own function at `pc`, whose first instruction is executed here, since
// that is where it is taken over. False: it is not there, or begins with another kind of
// instruction than functions do.
bool takeover_original(struct takeover_call *call, uint64_t pc);
// Whether it can be done for a function that begins with this instruction.
bool takeover_can_resume(uint32_t raw);
// Sets the program's errno, if it has one.
void takeover_set_errno(struct takeover_call *call, int value);

// ---- Work on the program's memory (libc_host.c) -------------------------------------------------
//
// For checker_attempt, which may give each up at any instruction: nothing here calls, has locks or
// is looked at by sanitizers.

struct takeover_work {
    uint8_t *to;
    const uint8_t *from, *other;
    uint64_t units;  // to be worked on
    unsigned unit_bytes;
    uint32_t a, b;               // looked for; filled with
    bool text;                   // compare: up to a 0
    uint64_t found;              // index of a unit; `units`: none
    uint32_t at_from, at_other;  // what is there
};
void takeover_work_copy(void *work);       // as memmove
void takeover_work_fill(void *work);       // `to` with a
void takeover_work_scan(void *work);       // the first of `from` that is a or b
void takeover_work_scan_back(void *work);  // the last that is a
void takeover_work_compare(void *work);    // the first of `from` and `other` that differs

#endif
