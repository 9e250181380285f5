// SPDX-License-Identifier: BSD-2-Clause
// Checked harts: which accesses are fine by themselves, what is taken, and which calls the hart is
// within.
//
// A return is wrong only if the newest call with just its sp was from elsewhere. That says nothing
// where functions were left otherwise, by a jump out of several to a place that has called again
// since with the same sp. Such a jump either loads sp (longjmp, switches between stacks), which
// throws away the calls of what was left, or leaves calls with a smaller sp behind (the unwinder of
// exceptions, which adds to sp): what is found below those is believed to have been left too.
#include "hart/internal.h"

#define CALL_BYTES sizeof(struct hart_call)
#define RING_BYTES (HART_CALLS * CALL_BYTES)

// ---- Accesses

static bool peek(const struct hart *hart, uint64_t gva, uint8_t *byte)
{
    uint64_t gpa;

    if (hart->flat)
        return hart_flat_peek(hart, gva, byte, 1);
    return hart_debug_translate((struct hart *)hart, gva, &gpa) == 0 &&
           memory_read(hart->memory, gpa, byte, 1) == 0;
}

// [gva, gva+bytes) lies in one granule.
static bool is_of(const struct hart *hart, uint64_t gva, uint64_t bytes, uint16_t identifier)
{
    const struct memory_identifiers *table = hart->check->identifiers;
    const uint64_t last = MEMORY_GRANULE_BYTES - 1;
    uint16_t entry;
    uint8_t end;

    if (gva >= table->bytes)
        return false;
    entry = memory_identifiers_get(table, gva);
    if (entry == identifier)
        return true;
    return memory_identifier_is_partial(entry, identifier) && peek(hart, gva | last, &end) &&
           (gva & last) + bytes <= end;
}

static bool is_of_all(const struct hart *hart, uint64_t gva, uint64_t bytes, uint16_t identifier)
{
    for (uint64_t at = 0; at < bytes; at += MEMORY_GRANULE_BYTES)
        if (!is_of(hart, gva + at, MEMORY_GRANULE_BYTES, identifier))
            return false;
    return true;
}

// A pointer without identifier, below the heap.
static bool is_plain(const struct hart *hart, uint64_t gva)
{
    const struct hart_check *check = hart->check;
    uint64_t sp = hart->x[HART_SP];

    return gva < check->stacks || gva >= sp || sp < check->stacks || sp >= check->heap;
}

bool hart_check_is_fine(const struct hart *hart, uint64_t pointer, uint64_t bytes)
{
    uint64_t gva = memory_pointer_gva(pointer), offset = gva % MEMORY_GRANULE_BYTES;
    uint16_t identifier = memory_pointer_identifier(pointer);

    if (pointer < hart->check->heap)
        return is_plain(hart, pointer);
    if (bytes == HART_CACHE_BLOCK_BYTES)
        return is_of_all(hart, gva - gva % bytes, bytes, identifier);
    return offset + bytes <= MEMORY_GRANULE_BYTES && is_of(hart, gva, bytes, identifier);
}

bool hart_check_access(struct hart *hart, uint64_t pointer, uint64_t bytes, enum hart_access kind)
{
    if (hart_check_is_fine(hart, pointer, bytes))
        return true;
    if (bytes == HART_CACHE_BLOCK_BYTES)
        pointer -= pointer % bytes;
    return hart->check->access(hart->check->opaque, hart, pointer, bytes, kind);
}

// ---- Calls

static struct hart_call *call_at(struct hart *hart, uint64_t distance_bytes)
{
    return &hart->calls.ring[distance_bytes % RING_BYTES / CALL_BYTES];
}

static struct hart_call *newest(struct hart *hart)
{
    return call_at(hart, hart->calls.newest);
}

static struct hart_call pop(struct hart *hart)
{
    struct hart_call *call = newest(hart), popped = *call;

    call->sp = HART_NO_CALL;
    hart->calls.newest = (hart->calls.newest - CALL_BYTES) % RING_BYTES;
    return popped;
}

void hart_check_init(struct hart *hart)
{
    hart->calls.newest = 0;
    for (unsigned i = 0; i < HART_CALLS; i++)
        hart->calls.ring[i].sp = HART_NO_CALL;
}

void hart_check_call(struct hart *hart, uint64_t place)
{
    hart->calls.newest = (hart->calls.newest + CALL_BYTES) % RING_BYTES;
    *newest(hart) = (struct hart_call){.place = place, .sp = hart->x[HART_SP]};
}

bool hart_check_return(struct hart *hart)
{
    const struct hart_check *check = hart->check;
    uint64_t sp = hart->x[HART_SP], to = hart->x[HART_LINK] & ~(uint64_t)1;
    bool left_otherwise = false;

    while (newest(hart)->sp < sp) {
        left_otherwise = true;
        pop(hart);
    }
    if (sp == HART_NO_CALL || newest(hart)->sp != sp)
        return true;
    struct hart_call call = pop(hart);
    return call.place == to || left_otherwise || !check->returns ||
           check->returns(check->opaque, hart, call.place);
}

void hart_check_unwound(struct hart *hart)
{
    uint64_t sp = hart->x[HART_SP];

    while (newest(hart)->sp <= sp && newest(hart)->sp != HART_NO_CALL)
        pop(hart);
}

// Whether the place is among the last `folded` of them. Most often it is the last one.
static bool is_among_last(const uint64_t *places, unsigned count, unsigned folded, uint64_t place)
{
    unsigned end = count < folded ? 0 : count - folded;

    while (count > end)
        if (places[--count] == place)
            return true;
    return false;
}

unsigned hart_callers(const struct hart *hart, uint64_t *places, unsigned max, unsigned folded)
{
    uint64_t at = hart->calls.newest / CALL_BYTES, least = hart->x[HART_SP];
    unsigned count = 0, seen = 0, known = hart->check ? HART_CALLS : 0;

    for (unsigned i = 0; i < known && seen < max; i++, at--) {
        const struct hart_call *call = &hart->calls.ring[at % HART_CALLS];
        if (call->sp == HART_NO_CALL)
            break;
        if (call->sp < least)
            continue;
        least = call->sp + 1;
        seen++;
        if (!is_among_last(places, count, folded, call->place))
            places[count++] = call->place;
    }
    return count;
}

// ---- What is taken

unsigned hart_check_first_taken(const struct hart *hart, uint64_t pc, const uint8_t *code,
                                unsigned bytes)
{
    unsigned at = 0;

    if (!hart->check || !hart->check->takes)
        return bytes;
    while (at < bytes && !hart_check_takes(hart, pc + at))
        at += (code[at] & 3) == 3 ? 4 : 2;
    return at < bytes ? at : bytes;
}

struct hart_at_once hart_check_at_once(const struct hart *hart, uint64_t pc)
{
    const struct hart_check *check = hart->check;

    return check && check->at_once ? check->at_once(check->opaque, pc) : (struct hart_at_once){0};
}

void hart_check_taken(struct hart *hart)
{
    hart->check->taken(hart->check->opaque, hart);
    if (newest(hart)->sp == hart->x[HART_SP] && newest(hart)->place == hart->pc)
        pop(hart);
}
