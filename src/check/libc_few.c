// SPDX-License-Identifier: BSD-2-Clause
// What functions of libc are mostly called for: a few bytes that are fine. Done in one go, by
// translated code that has not left for it (struct hart_at_once): identifiers are looked at on the
// way. What is wrong, or longer, or not seen to be fine, is left to libc.c, which begins anew; so
// nothing is written before all is known, nor where it could not be written once more.
#include "check/libc.h"

#define FEW_BYTES 256u
#define PIECE_BYTES 32u  // of a text, most of which end in the first

struct few {
    const struct memory_identifiers *identifiers;
    uint8_t *hva;            // of address 0
    uint64_t sp;             // from there on a stack is in use
    bool partial;            // what partial granules say of themselves is true
    uint64_t to, from;       // pointers
    uint64_t bytes;          // at most FEW_BYTES; so many of a text: it may be longer
    uint8_t a, b;            // looked for; filled with
    bool text;               // compared up to a 0; copied with a 0 behind it
    bool done;               // or it is not
    uint64_t found;          // index of a byte; `bytes`: none
    uint8_t of_to, of_from;  // what is there
};

// ---- On the program's memory --------------------------------------------------------------------

// How many of the bytes from `pointer` on, at most so many, are seen to be accessible: as
// checker_glance, and without an identifier where there is nothing to be compared.
ALONE static uint64_t known(const struct few *few, uint64_t pointer, uint64_t bytes)
{
    const uint64_t granule = MEMORY_GRANULE_BYTES;
    uint64_t gva = memory_pointer_gva(pointer), at = gva - gva % granule;
    uint16_t identifier = memory_pointer_identifier(pointer);

    if (identifier == MEMORY_IDENTIFIER_NONE) {
        bool stack = gva >= CHECKER_STACKS && gva >= few->sp;
        uint64_t end = stack ? CHECKER_HEAP : CHECKER_STACKS;
        return gva < end && bytes <= end - gva ? bytes : 0;
    }
    if (!memory_identifier_is_valid(identifier) || gva >= few->identifiers->bytes - bytes)
        return 0;
    for (; at < gva + bytes; at += granule) {
        uint16_t entry = memory_identifiers_get(few->identifiers, at);
        if (entry == identifier)
            continue;
        if (few->partial && memory_identifier_is_partial(entry, identifier))
            at += few->hva[at + granule - 1];
        return at <= gva ? 0 : at - gva < bytes ? at - gva : bytes;
    }
    return bytes;
}

ALONE static const uint8_t *at_hva(const struct few *few, uint64_t pointer, uint64_t done)
{
    return few->hva + memory_pointer_gva(pointer) + done;
}

ALONE static uint64_t piece_behind(const struct few *few, uint64_t done)
{
    return few->bytes - done < PIECE_BYTES ? few->bytes - done : PIECE_BYTES;
}

ALONE static void find_none(struct few *few, bool text)
{
    few->found = few->bytes;
    few->done = !text || few->bytes < FEW_BYTES;
}

// The first byte of `from` that is a or b.
ALONE static void scan(void *argument)
{
    struct few *few = argument;
    uint64_t wanted;

    for (uint64_t done = 0; done < few->bytes; done += wanted) {
        wanted = piece_behind(few, done);
        struct takeover_work work = {
            .from = at_hva(few, few->from, done),
            .units = known(few, few->from + done, wanted),
            .unit_bytes = 1,
            .a = few->a,
            .b = few->b,
        };
        takeover_work_scan(&work);
        if (work.found < work.units) {
            few->found = done + work.found;
            few->of_from = (uint8_t)work.at_from;
            few->done = true;
            return;
        }
        if (work.units < wanted)
            return;
    }
    find_none(few, true);
}

// The first byte of `to` and `from` that differs. Memory is to be there wherever that is.
ALONE static void compare(void *argument)
{
    struct few *few = argument;
    uint64_t wanted;

    if (!few->text && (known(few, few->from, few->bytes) < few->bytes ||
                       known(few, few->to, few->bytes) < few->bytes))
        return;
    for (uint64_t done = 0; done < few->bytes; done += wanted) {
        wanted = piece_behind(few, done);
        uint64_t of_to = few->text ? known(few, few->to + done, wanted) : wanted;
        uint64_t of_from = few->text ? known(few, few->from + done, wanted) : wanted;
        struct takeover_work work = {
            .from = at_hva(few, few->to, done),
            .other = at_hva(few, few->from, done),
            .units = of_to < of_from ? of_to : of_from,
            .unit_bytes = 1,
            .text = few->text,
        };
        takeover_work_compare(&work);
        if (work.found < work.units) {
            few->found = done + work.found;
            few->of_to = (uint8_t)work.at_from;
            few->of_from = (uint8_t)work.at_other;
            few->done = true;
            return;
        }
        if (work.units < wanted)
            return;
    }
    find_none(few, few->text);
}

ALONE static void copy(void *argument)
{
    struct few *few = argument;
    uint64_t from = memory_pointer_gva(few->from), to = memory_pointer_gva(few->to);
    uint64_t all = few->bytes + few->text;
    struct takeover_work work = {
        .to = few->hva + to,
        .from = few->hva + from,
        .units = few->bytes,
        .unit_bytes = 1,
    };

    if (to - from < all || from - to < all || known(few, few->to, all) < all ||
        known(few, few->from, all) < all)
        return;
    takeover_work_copy(&work);
    if (few->text)
        work.to[few->bytes] = 0;
    few->done = true;
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

    if (known(few, few->to, few->bytes) < few->bytes)
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

static bool find(const struct takeover_call *call, uint64_t pointer, uint8_t byte, struct few *few)
{
    *few = (struct few){.from = pointer, .bytes = FEW_BYTES, .a = byte};
    return is_done(call, scan, few);
}

bool few_length(struct takeover_call *call)
{
    struct few few;
    return find(call, takeover_argument(call, 0), 0, &few) && takeover_return(call, few.found);
}

bool few_find_in_text(struct takeover_call *call)
{
    uint64_t pointer = takeover_argument(call, 0);
    uint8_t byte = (uint8_t)sought(call, 1);
    struct few few;

    if (!find(call, pointer, byte, &few))
        return false;
    bool found = few.of_from == byte || is(call, FOUND_OR_END);
    return takeover_return(call, found ? pointer + few.found : 0);
}

static bool compared(struct takeover_call *call, uint64_t bytes, bool text)
{
    struct few few = {.to = takeover_argument(call, 0),
                      .from = takeover_argument(call, 1),
                      .bytes = bytes,
                      .text = text};

    return is_done(call, compare, &few) &&
           takeover_return(call, (uint64_t)((int64_t)few.of_to - few.of_from));
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

static bool copied(struct takeover_call *call, uint64_t before)
{
    struct few few = {.to = takeover_argument(call, 0) + before, .text = true};
    struct few text;

    few.from = takeover_argument(call, 1);
    if (!find(call, few.from, 0, &text))
        return false;
    few.bytes = text.found;
    return is_within_limit(call, before, few.bytes + 1) && is_done(call, copy, &few) &&
           takeover_return(call, is(call, RETURNS_END) ? few.to + few.bytes : few.to - before);
}

bool few_copy_text(struct takeover_call *call)
{
    return copied(call, 0);
}

bool few_append(struct takeover_call *call)
{
    struct few text;
    return find(call, takeover_argument(call, 0), 0, &text) && copied(call, text.found);
}
