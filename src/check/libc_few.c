// SPDX-License-Identifier: BSD-2-Clause
// What functions of libc are mostly called for: a few bytes that are fine. Done in one go, by
// translated code that has not left for it (struct hart_at_once): identifiers are looked at on the
// way. What is wrong, or longer, or not seen to be fine, is left to libc.c, which begins anew; so
// nothing is written before all is known, nor where it could not be written once more.
#include "check/blocks.h"

#define FEW_BYTES 256u

struct few {
    const struct memory_identifiers *identifiers;
    uint8_t *hva;       // of address 0
    uint64_t sp;        // from there on a stack is in use
    bool partial;       // what partial granules say of themselves is true
    uint64_t to, from;  // pointers
    uint64_t bytes;     // at most FEW_BYTES; so many of a text: it may be longer
    uint64_t limit;     // of bytes of `to`, that a text may be written to
    uint8_t a, b;       // looked for, or what is there; filled with
    bool text;          // compared up to a 0
    bool append;        // behind the text that `to` is
    bool done;          // or it is not
    uint64_t found;     // index of a byte; of the end of `from`
    uint64_t before;    // what it is written behind
};

// ---- On the program's memory --------------------------------------------------------------------
//
// First what is looked for, then whether all that it took was accessible: identifiers are on their
// way from memory together with what they are for, and it is few of them then.

// Whether the bytes from `pointer` on, at most FEW_BYTES, lie within the program's addresses.
ALONE static bool is_within(const struct few *few, uint64_t pointer)
{
    return memory_pointer_gva(pointer) < few->identifiers->bytes - FEW_BYTES;
}

ALONE static bool is_known_without(const struct few *few, uint64_t gva, uint64_t bytes)
{
    bool stack = gva >= CHECKER_STACKS && gva >= few->sp;
    uint64_t end = stack ? CHECKER_HEAP : CHECKER_STACKS;

    return gva < end && bytes <= end - gva;
}

// Whether so many bytes, at most FEW_BYTES, are seen to be accessible: as checker_glance, and
// without an identifier where there is nothing to be compared.
ALONE static bool is_known(const struct few *few, uint64_t pointer, uint64_t bytes)
{
    const uint64_t granule = MEMORY_GRANULE_BYTES;
    uint64_t gva = memory_pointer_gva(pointer), at = gva - gva % granule;
    uint16_t identifier = memory_pointer_identifier(pointer), entry;

    if (bytes == 0)
        return true;
    if (identifier == MEMORY_IDENTIFIER_NONE)
        return is_known_without(few, gva, bytes);
    if (!memory_identifier_is_valid(identifier) || !is_within(few, pointer))
        return false;
    for (uint64_t last = gva + bytes - 1;; at += granule) {
        entry = memory_identifiers_get(few->identifiers, at);
        if (last - at < granule)
            // Which of both it is cannot be foreseen, so it is no branch.
            return (entry == identifier) |
                   (few->partial & memory_identifier_is_partial(entry, identifier) &
                    (few->hva[at + granule - 1] > last - at));
        if (entry != identifier)
            return false;
    }
}

ALONE static uint8_t *hva_of(const struct few *few, uint64_t pointer)
{
    return few->hva + memory_pointer_gva(pointer);
}

// The end of a text, or a byte before that. False: neither is seen to be among the first
// FEW_BYTES.
ALONE static bool scan_text(const struct few *few, uint64_t pointer, uint8_t byte, uint64_t *found)
{
    if (!is_within(few, pointer))
        return false;
    *found = block_scan(hva_of(few, pointer), FEW_BYTES, 1, byte, 0);
    return *found < FEW_BYTES && is_known(few, pointer, *found + 1);
}

ALONE static void scan(void *argument)
{
    struct few *few = argument;

    few->done = scan_text(few, few->from, few->a, &few->found);
    few->b = few->done ? hva_of(few, few->from)[few->found] : 0;
}

// The first byte of `to` and `from` that differs. Memory is to be there wherever that is.
ALONE static void compare(void *argument)
{
    struct few *few = argument;

    if (!is_within(few, few->to) || !is_within(few, few->from))
        return;
    const uint8_t *to = hva_of(few, few->to), *from = hva_of(few, few->from);
    uint64_t same = block_compare(to, from, few->bytes, 1, few->text);
    uint64_t read = few->text && same < few->bytes ? same + 1 : few->bytes;
    if (same < few->bytes) {
        few->a = to[same];
        few->b = from[same];
    }
    few->done = (same < few->bytes || !few->text || few->bytes < FEW_BYTES) &&
                is_known(few, few->to, read) && is_known(few, few->from, read);
}

// With a 0 behind it, if it is a text.
ALONE static bool copy_to(const struct few *few, uint64_t to_pointer, uint64_t bytes)
{
    uint64_t from = memory_pointer_gva(few->from), to = memory_pointer_gva(to_pointer);
    uint64_t all = bytes + few->text;
    struct takeover_work work = {
        .to = few->hva + to,
        .from = few->hva + from,
        .units = bytes,
        .unit_bytes = 1,
    };

    if (to - from < all || from - to < all || !is_known(few, to_pointer, all))
        return false;
    takeover_work_copy(&work);
    if (few->text)
        work.to[bytes] = 0;
    return true;
}

ALONE static void copy(void *argument)
{
    struct few *few = argument;
    few->done = is_known(few, few->from, few->bytes) && copy_to(few, few->to, few->bytes);
}

ALONE static void copy_text(void *argument)
{
    struct few *few = argument;

    few->done = (!few->append || scan_text(few, few->to, 0, &few->before)) &&
                scan_text(few, few->from, 0, &few->found) && few->before <= few->limit &&
                few->found < few->limit - few->before &&
                copy_to(few, few->to + few->before, few->found);
}

ALONE static void fill(void *argument)
{
    struct few *few = argument;
    struct takeover_work work = {
        .to = few->hva + memory_pointer_gva(few->to),
        .units = few->bytes,
        .unit_bytes = 1,
        .a = few->a,
    };

    if (!is_known(few, few->to, few->bytes))
        return;
    takeover_work_fill(&work);
    few->done = true;
}

// ---- Functions ----------------------------------------------------------------------------------

static bool is_done(const struct takeover_call *call, void (*work)(void *few), struct few *few)
{
    if (few->bytes > FEW_BYTES)
        return false;
    few->identifiers = checker_identifiers(call->checker, &few->partial);
    few->hva = call->hart->flat->hva;
    few->sp = memory_pointer_gva(call->hart->x[HART_SP]);
    return checker_attempt(call->checker, work, few) == 0 && few->done;
}

static bool find(const struct takeover_call *call, uint8_t byte, struct few *few)
{
    *few = (struct few){.from = takeover_argument(call, 0), .a = byte};
    return is_done(call, scan, few);
}

bool few_length(struct takeover_call *call)
{
    struct few few;
    return find(call, 0, &few) && takeover_return(call, few.found);
}

bool few_find_in_text(struct takeover_call *call)
{
    struct few few;

    if (!find(call, (uint8_t)sought(call, 1), &few))
        return false;
    bool found = few.b == few.a || is(call, FOUND_OR_END);
    return takeover_return(call, found ? few.from + few.found : 0);
}

static bool compared(struct takeover_call *call, uint64_t bytes, bool text)
{
    struct few few = {.to = takeover_argument(call, 0),
                      .from = takeover_argument(call, 1),
                      .bytes = bytes,
                      .text = text};

    return is_done(call, compare, &few) &&
           takeover_return(call, (uint64_t)((int64_t)few.a - few.b));
}

bool few_compare(struct takeover_call *call)
{
    return compared(call, takeover_argument(call, 2), false);
}

bool few_compare_texts(struct takeover_call *call)
{
    return compared(call, FEW_BYTES, true);
}

bool few_compare_texts_up_to(struct takeover_call *call)
{
    uint64_t max = takeover_argument(call, 2);
    return compared(call, max < FEW_BYTES ? max : FEW_BYTES, true);
}

bool few_copy(struct takeover_call *call)
{
    struct few few = {.to = takeover_argument(call, is(call, SOURCE_FIRST)),
                      .from = takeover_argument(call, !is(call, SOURCE_FIRST)),
                      .bytes = takeover_argument(call, 2)};

    return is_within_limit(call, 0, few.bytes) && is_done(call, copy, &few) &&
           takeover_return(call, is(call, RETURNS_END) ? few.to + few.bytes : few.to);
}

bool few_fill(struct takeover_call *call)
{
    bool zero = is(call, ZERO);
    struct few few = {.to = takeover_argument(call, 0),
                      .bytes = takeover_argument(call, zero ? 1 : 2),
                      .a = zero ? 0 : (uint8_t)sought(call, 1)};

    return is_within_limit(call, 0, few.bytes) && is_done(call, fill, &few) &&
           takeover_return(call, few.to);
}

static bool copied(struct takeover_call *call, bool append)
{
    struct few few = {.to = takeover_argument(call, 0),
                      .from = takeover_argument(call, 1),
                      .limit = limit_of(call),
                      .text = true,
                      .append = append};

    return is_done(call, copy_text, &few) &&
           takeover_return(call, is(call, RETURNS_END) ? few.to + few.found : few.to);
}

bool few_copy_text(struct takeover_call *call)
{
    return copied(call, false);
}

bool few_append(struct takeover_call *call)
{
    return copied(call, true);
}
