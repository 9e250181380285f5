// SPDX-License-Identifier: BSD-2-Clause
// Functions of libc on memory, on texts (char), and on wide texts (wchar_t): which ranges each
// reads and writes, as C and POSIX say. libc's own read whole words, and would be taken to read
// beyond the end of what they are given.
//
// What is written, and what is read of a known length, is checked as a whole before it is done. A
// text is looked at as far as its memory may be read, and what is behind that is asked for only
// when it has not ended there.
#include <errno.h>

#include "check/libc.h"

// ---- Access -------------------------------------------------------------------------------------

// The program takes a fault for what it may not access in [pointer, pointer + bytes).
static bool fault(struct takeover_call *call, uint64_t pointer, uint64_t bytes,
                  enum hart_access access)
{
    const _Atomic uint8_t *pages = call->hart->flat->pages;
    uint8_t needed =
        access == HART_STORE ? HART_PAGE_WRITE : HART_PAGE_READ | HART_PAGE_WRITE | HART_PAGE_EXEC;
    uint64_t gva = memory_pointer_gva(pointer), page = gva - gva % MEMORY_PAGE_BYTES;

    while (page < HART_FLAT_BYTES && (pages[page / MEMORY_PAGE_BYTES] & needed) &&
           page + MEMORY_PAGE_BYTES - gva < bytes)
        page += MEMORY_PAGE_BYTES;
    checker_fault(call->thread, call->hart, page > gva ? pointer + (page - gva) : pointer, access);
    return false;
}

static bool may(struct takeover_call *call, uint64_t pointer, uint64_t bytes,
                enum hart_access access)
{
    return bytes == 0 || checker_range(call->thread, call->hart, pointer, bytes, access);
}

// It writes `units` behind the first `before` from `to` on. A fortified function ends the program
// where that is too many: which is what it does itself, once the range is found to be no error of
// another kind.
static bool may_write(struct takeover_call *call, uint64_t to, uint64_t before, uint64_t units)
{
    return may(call, at(call, to, before), bytes_of(call, units), HART_STORE) &&
           (is_within_limit(call, before, units) || !takeover_original(call, call->hart->pc));
}

// Bytes from `pointer` on that may be read without another question, of `bytes`.
static uint64_t known_bytes(const struct takeover_call *call, uint64_t pointer, uint64_t bytes)
{
    uint64_t gva = memory_pointer_gva(pointer), end = CHECKER_STACKS;
    uint16_t identifier = memory_pointer_identifier(pointer);
    struct heap_object object;
    uint64_t glanced = checker_glance(call->checker, pointer, bytes);

    if (glanced > 0)
        return glanced;
    if (call->waived) {
        end = HART_FLAT_BYTES;
    } else if (identifier != MEMORY_IDENTIFIER_NONE) {
        if (!heap_find(checker_heap(call->checker), gva, &object) || !object.live ||
            object.identifier != identifier)
            return 0;
        end = object.gva + object.bytes;
    } else if (gva >= CHECKER_STACKS && gva >= memory_pointer_gva(call->hart->x[2])) {
        end = CHECKER_HEAP;
    }
    uint64_t known = gva < end ? end - gva : 0;
    return known < bytes ? known : bytes;
}

// Units from `pointer` on that may be read, of `units`, at least one. False: not even that one.
static bool readable(struct takeover_call *call, uint64_t pointer, uint64_t units, uint64_t *some)
{
    unsigned unit_bytes = call->function->unit_bytes;
    uint64_t bytes = bytes_of(call, units);

    *some = known_bytes(call, pointer, bytes) / unit_bytes;
    if (*some > 0)
        return true;
    if (!may(call, pointer, unit_bytes, HART_LOAD))
        return false;
    // It is of another stack, or wrong and told.
    call->waived = true;
    *some = known_bytes(call, pointer, bytes) / unit_bytes;
    return *some > 0 || fault(call, pointer, unit_bytes, HART_LOAD);
}

// After a fault: whether it was another range's.
static bool can_read(const struct takeover_call *call, uint64_t pointer, uint64_t bytes)
{
    uint8_t ignored;

    for (uint64_t done = 0; done < bytes;
         done += MEMORY_PAGE_BYTES - (pointer + done) % MEMORY_PAGE_BYTES)
        if (checker_copy_in(call->checker, &ignored, pointer + done, sizeof(ignored)) < 0)
            return false;
    return true;
}

static bool copy(struct takeover_call *call, uint64_t to, uint64_t from, uint64_t units)
{
    uint64_t bytes = bytes_of(call, units);
    struct takeover_work work = {
        .to = checker_hva(call->checker, to, bytes),
        .from = checker_hva(call->checker, from, bytes),
        .units = bytes,
        .unit_bytes = 1,
    };

    if (bytes == 0)
        return true;
    if (!work.from)
        return fault(call, from, bytes, HART_LOAD);
    if (!work.to)
        return fault(call, to, bytes, HART_STORE);
    if (checker_attempt(call->checker, takeover_work_copy, &work) == 0)
        return true;
    return can_read(call, from, bytes) ? fault(call, to, bytes, HART_STORE)
                                       : fault(call, from, bytes, HART_LOAD);
}

static bool fill(struct takeover_call *call, uint64_t to, uint32_t unit, uint64_t units)
{
    struct takeover_work work = {
        .to = checker_hva(call->checker, to, bytes_of(call, units)),
        .units = units,
        .unit_bytes = call->function->unit_bytes,
        .a = unit,
    };

    return units == 0 ||
           (work.to && checker_attempt(call->checker, takeover_work_fill, &work) == 0) ||
           fault(call, to, bytes_of(call, units), HART_STORE);
}

// ---- Looking ------------------------------------------------------------------------------------

struct place {
    uint64_t units;  // before it
    bool found;
    uint32_t unit;  // what is there
};

// The first unit from `pointer` on, of `units`, that is a or b.
static bool scan(struct takeover_call *call, uint64_t pointer, uint64_t units, uint32_t a,
                 uint32_t b, struct place *place)
{
    unsigned unit_bytes = call->function->unit_bytes;
    uint64_t some;

    *place = (struct place){0};
    for (; !place->found && place->units < units; place->units += place->found ? 0 : some) {
        uint64_t at = pointer + place->units * unit_bytes;
        if (!readable(call, at, units - place->units, &some))
            return false;
        struct takeover_work work = {
            .from = checker_hva(call->checker, at, some * unit_bytes),
            .units = some,
            .unit_bytes = unit_bytes,
            .a = a,
            .b = b,
        };
        if (!work.from || checker_attempt(call->checker, takeover_work_scan, &work) < 0)
            return fault(call, at, some * unit_bytes, HART_LOAD);
        place->found = work.found < some;
        place->units += place->found ? work.found : 0;
        place->unit = work.at_from;
    }
    return true;
}

// The length of a text, up to `max`.
static bool measure(struct takeover_call *call, uint64_t pointer, uint64_t max, uint64_t *units)
{
    struct place place;

    if (!scan(call, pointer, max, 0, 0, &place))
        return false;
    *units = place.units;
    return true;
}

static bool do_length(struct takeover_call *call)
{
    uint64_t units;
    return measure(call, takeover_argument(call, 0), UNITS_MAX, &units) &&
           takeover_return(call, units);
}

static bool do_length_up_to(struct takeover_call *call)
{
    uint64_t units;
    return measure(call, takeover_argument(call, 0), takeover_argument(call, 1), &units) &&
           takeover_return(call, units);
}

static bool do_find(struct takeover_call *call)
{
    uint64_t pointer = takeover_argument(call, 0);
    uint32_t unit = sought(call, 1);
    uint64_t units = is(call, NO_LENGTH) ? UNITS_MAX : takeover_argument(call, 2);
    struct place place;

    return scan(call, pointer, units, unit, unit, &place) &&
           takeover_return(call, place.found ? at(call, pointer, place.units) : 0);
}

static bool do_find_in_text(struct takeover_call *call)
{
    uint64_t pointer = takeover_argument(call, 0);
    uint32_t unit = sought(call, 1);
    struct place place;

    if (!scan(call, pointer, UNITS_MAX, unit, 0, &place))
        return false;
    bool found = place.found && (place.unit == unit || is(call, FOUND_OR_END));
    return takeover_return(call, found ? at(call, pointer, place.units) : 0);
}

static bool find_last(struct takeover_call *call, uint64_t pointer, uint64_t units)
{
    uint64_t bytes = bytes_of(call, units);
    struct takeover_work work = {
        .from = checker_hva(call->checker, pointer, bytes),
        .units = units,
        .unit_bytes = call->function->unit_bytes,
        .a = sought(call, 1),
    };

    if (units == 0)
        return takeover_return(call, 0);
    if (!work.from || checker_attempt(call->checker, takeover_work_scan_back, &work) < 0)
        return fault(call, pointer, bytes, HART_LOAD);
    return takeover_return(call, work.found < units ? at(call, pointer, work.found) : 0);
}

static bool do_find_last(struct takeover_call *call)
{
    uint64_t pointer = takeover_argument(call, 0), units = takeover_argument(call, 2);
    return may(call, pointer, bytes_of(call, units), HART_LOAD) && find_last(call, pointer, units);
}

static bool do_find_last_in_text(struct takeover_call *call)
{
    uint64_t pointer = takeover_argument(call, 0), units;
    return measure(call, pointer, UNITS_MAX, &units) && find_last(call, pointer, units + 1);
}

// ---- Sets of characters -------------------------------------------------------------------------

// What of a text may be read is copied, a piece of a page at a time: its length, at least 1.
static bool copy_piece(struct takeover_call *call, uint64_t pointer, uint8_t *piece,
                       uint64_t *bytes)
{
    uint64_t page = MEMORY_PAGE_BYTES - pointer % MEMORY_PAGE_BYTES;

    if (!readable(call, pointer, *bytes < page ? *bytes : page, bytes))
        return false;
    return checker_copy_in(call->checker, piece, pointer, *bytes) == 0 ||
           fault(call, pointer, *bytes, HART_LOAD);
}

// How long the text at `pointer` is of characters that are not to stop it.
static bool span(struct takeover_call *call, uint64_t pointer, const bool stops[UINT8_MAX + 1],
                 uint64_t *units, uint8_t *at_end)
{
    uint8_t piece[64];
    uint64_t bytes;

    for (*units = 0;; *units += bytes) {
        bytes = sizeof(piece);
        if (!copy_piece(call, pointer + *units, piece, &bytes))
            return false;
        for (uint64_t i = 0; i < bytes; i++)
            if (stops[piece[i]]) {
                *units += i;
                *at_end = piece[i];
                return true;
            }
    }
}

static bool read_set(struct takeover_call *call, uint64_t pointer, bool set[UINT8_MAX + 1])
{
    uint8_t piece[64];
    uint64_t bytes;

    for (;; pointer += bytes) {
        bytes = sizeof(piece);
        if (!copy_piece(call, pointer, piece, &bytes))
            return false;
        for (uint64_t i = 0; i < bytes; i++) {
            if (piece[i] == 0)
                return true;
            set[piece[i]] = true;
        }
    }
}

static bool do_span(struct takeover_call *call)
{
    uint64_t pointer = takeover_argument(call, 0), units;
    bool stops[UINT8_MAX + 1] = {0};
    uint8_t end;

    if (!read_set(call, takeover_argument(call, 1), stops))
        return false;
    for (unsigned i = 0; i <= UINT8_MAX; i++)
        stops[i] = stops[i] == is(call, REJECT);
    stops[0] = true;
    if (!span(call, pointer, stops, &units, &end))
        return false;
    if (is(call, RETURNS_PLACE))
        return takeover_return(call, end ? at(call, pointer, units) : 0);
    return takeover_return(call, units);
}

// ---- Comparing ----------------------------------------------------------------------------------

// Bytes compare as unsigned ones do, wide characters as they are.
static uint64_t order(const struct takeover_work *work)
{
    if (work->unit_bytes == 1)
        return (uint64_t)((int64_t)work->at_from - (int64_t)work->at_other);
    int32_t a = (int32_t)work->at_from, b = (int32_t)work->at_other;
    return a == b ? 0 : a < b ? UINT64_MAX : 1;
}

// Compares as many units as may be read of both. False: a fault.
static bool compare_some(struct takeover_call *call, uint64_t a, uint64_t b,
                         struct takeover_work *work)
{
    uint64_t bytes = bytes_of(call, work->units);

    work->unit_bytes = call->function->unit_bytes;
    work->from = checker_hva(call->checker, a, bytes);
    work->other = checker_hva(call->checker, b, bytes);
    if (work->from && work->other &&
        checker_attempt(call->checker, takeover_work_compare, work) == 0)
        return true;
    return fault(call, can_read(call, a, 1) ? b : a, bytes, HART_LOAD);
}

static bool do_compare(struct takeover_call *call)
{
    uint64_t a = takeover_argument(call, 0), b = takeover_argument(call, 1);
    uint64_t units = takeover_argument(call, 2);
    struct takeover_work work = {.units = units};

    // All of it is to be there, wherever the difference is (C17 7.24.4.1).
    if (units == 0)
        return takeover_return(call, 0);
    if (!may(call, a, bytes_of(call, units), HART_LOAD) ||
        !may(call, b, bytes_of(call, units), HART_LOAD) || !compare_some(call, a, b, &work))
        return false;
    return takeover_return(call, work.found < units ? order(&work) : 0);
}

static bool compare_texts(struct takeover_call *call, uint64_t max)
{
    uint64_t a = takeover_argument(call, 0), b = takeover_argument(call, 1), of_a, of_b;

    for (uint64_t done = 0; done < max;) {
        if (!readable(call, at(call, a, done), max - done, &of_a) ||
            !readable(call, at(call, b, done), max - done, &of_b))
            return false;
        struct takeover_work work = {.units = of_a < of_b ? of_a : of_b, .text = true};
        if (!compare_some(call, at(call, a, done), at(call, b, done), &work))
            return false;
        if (work.found < work.units)
            return takeover_return(call, order(&work));
        done += work.units;
    }
    return takeover_return(call, 0);
}

static bool do_compare_texts(struct takeover_call *call)
{
    return compare_texts(call, UNITS_MAX);
}

static bool do_compare_texts_up_to(struct takeover_call *call)
{
    return compare_texts(call, takeover_argument(call, 2));
}

// ---- Copying and filling ------------------------------------------------------------------------

// What is copied may not overlap with where it goes (memmove excepted). The same place is no
// overlap: compilers copy structures to themselves.
static bool apart(struct takeover_call *call, uint64_t to, uint64_t to_units, uint64_t from,
                  uint64_t from_units)
{
    uint64_t a = memory_pointer_gva(to), b = memory_pointer_gva(from);
    uint64_t a_bytes = bytes_of(call, to_units), b_bytes = bytes_of(call, from_units);

    if (a == b || a_bytes == 0 || b_bytes == 0 || (a < b ? b - a >= a_bytes : a - b >= b_bytes))
        return true;
    return checker_found(call->thread, call->hart, CHECK_OVERLAPPING_COPY, CHECK_ACCESS_WRITE, to,
                         a_bytes, NULL);
}

static bool do_copy(struct takeover_call *call)
{
    bool swapped = is(call, SOURCE_FIRST);
    uint64_t to = takeover_argument(call, swapped), from = takeover_argument(call, !swapped);
    uint64_t units = takeover_argument(call, 2), bytes = bytes_of(call, units);

    // Where both are too short, what is written counts.
    if (!may_write(call, to, 0, units) || !may(call, from, bytes, HART_LOAD) ||
        (!is(call, MAY_OVERLAP) && !apart(call, to, units, from, units)) ||
        !copy(call, to, from, units))
        return false;
    return takeover_return(call, is(call, RETURNS_END) ? at(call, to, units) : to);
}

static bool do_copy_up_to(struct takeover_call *call)
{
    uint64_t to = takeover_argument(call, 0), from = takeover_argument(call, 1);
    uint64_t units = takeover_argument(call, 3);
    uint32_t unit = sought(call, 2);
    struct place place;

    if (!scan(call, from, units, unit, unit, &place))
        return false;
    units = place.units + place.found;
    if (!may_write(call, to, 0, units) || !apart(call, to, units, from, units) ||
        !copy(call, to, from, units))
        return false;
    return takeover_return(call, place.found ? at(call, to, units) : 0);
}

static bool do_fill(struct takeover_call *call)
{
    uint64_t to = takeover_argument(call, 0);
    uint32_t unit = is(call, ZERO) ? 0 : sought(call, 1);
    uint64_t units = takeover_argument(call, is(call, ZERO) ? 1 : 2);

    return may_write(call, to, 0, units) && fill(call, to, unit, units) &&
           takeover_return(call, to);
}

// Copies `units` and an end behind the first `before`.
static bool copy_text(struct takeover_call *call, uint64_t to, uint64_t before, uint64_t from,
                      uint64_t units)
{
    return may_write(call, to, before, units + 1) &&
           copy(call, at(call, to, before), from, units) &&
           fill(call, at(call, to, before + units), 0, 1);
}

static bool do_copy_text(struct takeover_call *call)
{
    uint64_t to = takeover_argument(call, 0), from = takeover_argument(call, 1), units;

    if (!measure(call, from, UNITS_MAX, &units) || !apart(call, to, units + 1, from, units + 1) ||
        !copy_text(call, to, 0, from, units))
        return false;
    return takeover_return(call, is(call, RETURNS_END) ? at(call, to, units) : to);
}

// Exactly so many units: what the text leaves is filled with ends.
static bool do_copy_padded(struct takeover_call *call)
{
    uint64_t to = takeover_argument(call, 0), from = takeover_argument(call, 1);
    uint64_t all = takeover_argument(call, 2), units;

    if (!measure(call, from, all, &units))
        return false;
    uint64_t read = units < all ? units + 1 : units;
    if (!may_write(call, to, 0, all) || !apart(call, to, read, from, read) ||
        !copy(call, to, from, units) || !fill(call, at(call, to, units), 0, all - units))
        return false;
    return takeover_return(call, is(call, RETURNS_END) ? at(call, to, units) : to);
}

static bool append(struct takeover_call *call, uint64_t max)
{
    uint64_t to = takeover_argument(call, 0), from = takeover_argument(call, 1), before, units;

    return measure(call, to, UNITS_MAX, &before) && measure(call, from, max, &units) &&
           apart(call, to, before + units + 1, from, units < max ? units + 1 : units) &&
           copy_text(call, to, before, from, units) && takeover_return(call, to);
}

static bool do_append(struct takeover_call *call)
{
    return append(call, UNITS_MAX);
}

static bool do_append_up_to(struct takeover_call *call)
{
    return append(call, takeover_argument(call, 2));
}

// What fits into so many units, with an end; returns how many it would have been without.
static bool do_copy_fitting(struct takeover_call *call)
{
    uint64_t to = takeover_argument(call, 0), from = takeover_argument(call, 1);
    uint64_t room = takeover_argument(call, 2), units;

    if (!measure(call, from, UNITS_MAX, &units))
        return false;
    uint64_t fitting = units < room ? units : room - 1;
    if (room > 0 &&
        (!apart(call, to, fitting + 1, from, units + 1) || !copy_text(call, to, 0, from, fitting)))
        return false;
    return takeover_return(call, units);
}

static bool do_append_fitting(struct takeover_call *call)
{
    uint64_t to = takeover_argument(call, 0), from = takeover_argument(call, 1);
    uint64_t room = takeover_argument(call, 2), before, units;

    if (!measure(call, to, room, &before) || !measure(call, from, UNITS_MAX, &units))
        return false;
    if (before < room) {
        uint64_t left = room - before - 1, fitting = units < left ? units : left;
        if (!apart(call, to, before + fitting + 1, from, units + 1) ||
            !copy_text(call, to, before, from, fitting))
            return false;
    }
    return takeover_return(call, before + units);
}

// ---- The end ------------------------------------------------------------------------------------

// It is libc's own that ends the program.
static bool do_exit(struct takeover_call *call)
{
    checker_exits(call->thread, call->hart);
    return !takeover_original(call, call->hart->pc);
}

// ---- The table ----------------------------------------------------------------------------------

// Of texts, of wide texts, and of both alike.
#define TEXT(text, unit, does, at_first, how)                                                      \
    .name = text, .kind = TAKEOVER_LIBC, .perform = does, .few = at_first, .unit_bytes = unit,     \
    .variant = how, .at_once = true
#define NARROW(text, does, at_first, how)                                                          \
    {                                                                                              \
        TEXT(text, 1, does, at_first, how)                                                         \
    }
#define WIDE(text, does, how)                                                                      \
    {                                                                                              \
        TEXT(text, 4, does, NULL, how)                                                             \
    }
#define BOTH(narrow, wide, does, at_first, how)                                                    \
    NARROW(narrow, does, at_first, how), WIDE(wide, does, how)

// And the fortified one, with an argument that says how many units there are from the destination
// on.
#define FORTIFIED(text, does, at_first, how, which)                                                \
    NARROW(text, does, at_first, how),                                                             \
    {                                                                                              \
        TEXT("__" text "_chk", 1, does, at_first, how), .limit = which                             \
    }
#define BOTH_FORTIFIED(narrow, wide, does, at_first, how, which)                                   \
    FORTIFIED(narrow, does, at_first, how, which), WIDE(wide, does, how),                          \
    {                                                                                              \
        TEXT("__" wide "_chk", 4, does, NULL, how), .limit = which                                 \
    }

const struct takeover_function takeover_texts[] = {
    BOTH_FORTIFIED("memcpy", "wmemcpy", do_copy, few_copy, 0, 3),
    BOTH_FORTIFIED("mempcpy", "wmempcpy", do_copy, few_copy, RETURNS_END, 3),
    NARROW("__mempcpy", do_copy, few_copy, RETURNS_END),
    BOTH_FORTIFIED("memmove", "wmemmove", do_copy, few_copy, MAY_OVERLAP, 3),
    NARROW("bcopy", do_copy, few_copy, MAY_OVERLAP | SOURCE_FIRST),
    NARROW("memccpy", do_copy_up_to, NULL, 0),
    BOTH_FORTIFIED("memset", "wmemset", do_fill, few_fill, 0, 3),
    FORTIFIED("explicit_bzero", do_fill, few_fill, ZERO, 2),
    NARROW("bzero", do_fill, few_fill, ZERO),
    BOTH("memchr", "wmemchr", do_find, NULL, 0),
    NARROW("rawmemchr", do_find, NULL, NO_LENGTH),
    NARROW("__rawmemchr", do_find, NULL, NO_LENGTH),
    NARROW("memrchr", do_find_last, NULL, 0),
    BOTH("memcmp", "wmemcmp", do_compare, few_compare, 0),
    NARROW("bcmp", do_compare, few_compare, 0),

    BOTH("strlen", "wcslen", do_length, few_length, 0),
    BOTH("strnlen", "wcsnlen", do_length_up_to, NULL, 0),
    BOTH("strchr", "wcschr", do_find_in_text, few_find_in_text, 0),
    NARROW("index", do_find_in_text, few_find_in_text, 0),
    BOTH("strchrnul", "wcschrnul", do_find_in_text, few_find_in_text, FOUND_OR_END),
    NARROW("__strchrnul", do_find_in_text, few_find_in_text, FOUND_OR_END),
    BOTH("strrchr", "wcsrchr", do_find_last_in_text, NULL, 0),
    NARROW("rindex", do_find_last_in_text, NULL, 0),
    NARROW("strspn", do_span, NULL, 0),
    NARROW("strcspn", do_span, NULL, REJECT),
    NARROW("strpbrk", do_span, NULL, REJECT | RETURNS_PLACE),
    BOTH("strcmp", "wcscmp", do_compare_texts, few_compare_texts, 0),
    BOTH("strncmp", "wcsncmp", do_compare_texts_up_to, few_compare_texts_up_to, 0),
    BOTH_FORTIFIED("strcpy", "wcscpy", do_copy_text, few_copy_text, 0, 2),
    BOTH_FORTIFIED("stpcpy", "wcpcpy", do_copy_text, few_copy_text, RETURNS_END, 2),
    NARROW("__stpcpy", do_copy_text, few_copy_text, RETURNS_END),
    BOTH_FORTIFIED("strncpy", "wcsncpy", do_copy_padded, NULL, 0, 3),
    BOTH_FORTIFIED("stpncpy", "wcpncpy", do_copy_padded, NULL, RETURNS_END, 3),
    NARROW("__stpncpy", do_copy_padded, NULL, RETURNS_END),
    BOTH_FORTIFIED("strcat", "wcscat", do_append, few_append, 0, 2),
    BOTH_FORTIFIED("strncat", "wcsncat", do_append_up_to, NULL, 0, 3),
    BOTH("strlcpy", "wcslcpy", do_copy_fitting, NULL, 0),
    BOTH("strlcat", "wcslcat", do_append_fitting, NULL, 0),

    {.name = "exit", .kind = TAKEOVER_LIBC, .perform = do_exit, .resumes = true},
};
const size_t takeover_texts_count = BASE_COUNT_OF(takeover_texts);
