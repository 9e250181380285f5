// SPDX-License-Identifier: BSD-2-Clause
// Unwinding. Compilers for RISC-V address a frame from sp or s0, and save what the caller had
// there; so sp, s0 and the return address are all that is followed, and a row of call frame
// information is small enough to be kept for each address: most frames cost a look into the cache
// and two reads of guest memory.
//
// Everything here may be wrong or hostile: registers, memory, call frame information. So each frame
// has to lie above the one before, a signal's excepted, and there are at most `max`.
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "check/internal.h"

#define ROWS 4096u  // a power of two

enum { RA = 1, SP = 2, FP = 8 };

struct cached_row {
    uint64_t place;
    struct check_row row;
};

struct check_unwinder {
    struct check_symbols *symbols;
    unsigned generation;
    struct cached_row *rows;
};

int check_unwinder_create(struct check_unwinder **out, struct check_symbols *symbols)
{
    struct check_unwinder *unwinder = calloc(1, sizeof(*unwinder));

    if (!unwinder)
        return -ENOMEM;
    unwinder->symbols = symbols;
    unwinder->rows = calloc(ROWS, sizeof(*unwinder->rows));
    if (!unwinder->rows) {
        free(unwinder);
        return -ENOMEM;
    }
    unwinder->generation = check_symbols_generation(symbols);
    *out = unwinder;
    return 0;
}

void check_unwinder_destroy(struct check_unwinder *unwinder)
{
    if (!unwinder)
        return;
    free(unwinder->rows);
    free(unwinder);
}

// Address 0 is no program's, so that an empty entry is none of a place.
static struct check_row row_find(struct check_unwinder *unwinder, uint64_t place)
{
    unsigned generation = check_symbols_generation(unwinder->symbols);
    struct cached_row *cached = &unwinder->rows[(place * 0x9e3779b97f4a7c15u) >> 32 & (ROWS - 1)];
    uint64_t address;

    if (generation != unwinder->generation)
        memset(unwinder->rows, 0, ROWS * sizeof(*unwinder->rows));
    unwinder->generation = generation;
    if (cached->place != place) {
        check_symbols_lock(unwinder->symbols);
        struct check_module *module = check_symbols_find(unwinder->symbols, place, &address);
        cached->row = module ? check_module_row(module, address) : (struct check_row){0};
        check_symbols_unlock(unwinder->symbols);
        cached->place = place;
    }
    return cached->row;
}

struct cursor {
    struct check_unwinder *unwinder;
    const struct check_memory *memory;
    uint64_t place;
    uint64_t x[32];  // of what the caller had, only ra, sp and s0 are known
    bool innermost;  // or interrupted by a signal: all registers are known
    bool at_signal_return;
};

static bool read_word(const struct cursor *cursor, uint64_t gva, uint64_t *value)
{
    return gva % 8 == 0 &&
           cursor->memory->read(cursor->memory->opaque, gva, value, sizeof(*value)) == 0;
}

// A handler returns to "li a7, 139; ecall" (rt_sigreturn), where no code that is called lies
// before.
static bool is_signal_return(const struct cursor *cursor, uint64_t pc)
{
    static const uint32_t expected[] = {0x08b00893, 0x00000073};
    uint32_t code[2];

    return pc % 4 == 0 &&
           row_find(cursor->unwinder, check_place_of_return(pc)).state == CHECK_ROW_NONE &&
           cursor->memory->read(cursor->memory->opaque, pc, code, sizeof(code)) == 0 &&
           memcmp(code, expected, sizeof(code)) == 0;
}

// Goes to the caller. Returning to an odd address or to 0 is how stacks end that have no better way
// to say so.
static bool go_to_caller(struct cursor *cursor, uint64_t ra, uint64_t sp)
{
    if (ra == 0 || ra % 2)
        return false;
    cursor->at_signal_return = is_signal_return(cursor, ra);
    cursor->place = cursor->at_signal_return ? ra : check_place_of_return(ra);
    cursor->x[SP] = sp;
    cursor->innermost = false;
    return true;
}

static bool step_by_row(struct cursor *cursor, const struct check_row *row)
{
    uint64_t cfa = cursor->x[row->cfa_register] + (uint64_t)(int64_t)row->cfa_offset;
    uint64_t ra = cursor->x[row->ra_register];

    if (!cursor->innermost &&
        (!row->ra_saved || (row->cfa_register != SP && row->cfa_register != FP)))
        return false;
    if (cfa < cursor->x[SP] || (cfa == cursor->x[SP] && !cursor->innermost))
        return false;
    if (row->ra_saved && !read_word(cursor, cfa + (uint64_t)(int64_t)row->ra_offset, &ra))
        return false;
    if (row->fp_saved &&
        !read_word(cursor, cfa + (uint64_t)(int64_t)row->fp_offset, &cursor->x[FP]))
        return false;
    return go_to_caller(cursor, ra, cfa);
}

// ---- Frame pointers -----------------------------------------------------------------------------
//
// With -fno-omit-frame-pointer s0 is the CFA; below it are the return address and the caller's s0.

static bool is_code(const struct cursor *cursor, uint64_t place)
{
    uint64_t address;

    check_symbols_lock(cursor->unwinder->symbols);
    bool found = check_symbols_find(cursor->unwinder->symbols, place, &address);
    check_symbols_unlock(cursor->unwinder->symbols);
    return found;
}

static bool in_one_function(const struct cursor *cursor, uint64_t a, uint64_t b)
{
    struct check_symbols *symbols = cursor->unwinder->symbols;
    uint64_t address, start_a, start_b, bytes;

    check_symbols_lock(symbols);
    struct check_module *module = check_symbols_find(symbols, a, &address);
    bool same = module && check_module_function(module, address, &start_a, &bytes) &&
                check_symbols_find(symbols, b, &address) == module &&
                check_module_function(module, address, &start_b, &bytes) && start_a == start_b;
    check_symbols_unlock(symbols);
    return same;
}

static bool step_by_frame_pointer(struct cursor *cursor)
{
    uint64_t cfa = cursor->x[FP], sp = cursor->x[SP], register_ra = cursor->x[RA], ra, fp;
    bool readable = cfa % 16 == 0 && cfa > sp && read_word(cursor, cfa - 8, &ra) &&
                    read_word(cursor, cfa - 16, &fp);
    bool framed = readable && ra && (is_code(cursor, ra - 1) || is_signal_return(cursor, ra));

    // A function that calls none still has its return address in ra; where that is stale, it leads
    // into the function itself. Such a function has no frame, or one with s0 in the place of ra.
    if (cursor->innermost && register_ra && !(framed && ra == register_ra) &&
        is_code(cursor, register_ra - 1) &&
        !in_one_function(cursor, cursor->place, register_ra - 1)) {
        bool leaf = readable && !framed && ra > cfa;
        if (leaf)
            cursor->x[FP] = ra;
        return go_to_caller(cursor, register_ra, leaf ? cfa : sp);
    }
    if (!framed)
        return false;
    cursor->x[FP] = fp;
    return go_to_caller(cursor, ra, cfa);
}

// ---- Signals ------------------------------------------------------------------------------------

// The kernel's frame for a handler is at sp when it returns: siginfo, then ucontext with the
// registers, pc in the place of x0.
static bool step_over_signal(struct cursor *cursor)
{
    const uint64_t siginfo_bytes = 128, before_registers = 176;
    uint64_t registers[32];

    if (cursor->memory->read(cursor->memory->opaque,
                             cursor->x[SP] + siginfo_bytes + before_registers, registers,
                             sizeof(registers)) != 0)
        return false;
    memcpy(cursor->x, registers, sizeof(registers));
    cursor->place = registers[0] & ~1ull;
    cursor->x[0] = 0;
    cursor->innermost = true;
    cursor->at_signal_return = false;
    return cursor->place != 0;
}

static bool step(struct cursor *cursor)
{
    if (cursor->at_signal_return)
        return step_over_signal(cursor);
    struct check_row row = row_find(cursor->unwinder, cursor->place);
    switch (row.state) {
    case CHECK_ROW_OK:
        return step_by_row(cursor, &row);
    case CHECK_ROW_NONE:
        return step_by_frame_pointer(cursor);
    default:
        return false;
    }
}

size_t check_unwind(struct check_unwinder *unwinder, const struct check_registers *registers,
                    const struct check_memory *memory, uint64_t *places, size_t max)
{
    struct cursor cursor = {
        .unwinder = unwinder, .memory = memory, .place = registers->pc & ~1ull, .innermost = true};
    size_t count = 0;

    memcpy(cursor.x, registers->x, sizeof(cursor.x));
    cursor.x[0] = 0;
    do {
        if (count == max)
            break;
        places[count++] = cursor.place;
    } while (step(&cursor));
    return count;
}
