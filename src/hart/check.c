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

static uint64_t sp_of(const struct hart_call *call)
{
    return call->sp == HART_NO_CALL ? HART_NO_CALL : call->sp & ~HART_CALL_KNOWN;
}

// Returns the place that it returns to.
static uint64_t pop(struct hart *hart)
{
    struct hart_call *call = newest(hart);

    call->sp = HART_NO_CALL;
    hart->calls.newest = (hart->calls.newest - CALL_BYTES) % RING_BYTES;
    return call->place;
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

    while (sp_of(newest(hart)) < sp) {
        left_otherwise = true;
        pop(hart);
    }
    if (sp == HART_NO_CALL || sp_of(newest(hart)) != sp)
        return true;
    uint64_t place = pop(hart);
    return place == to || left_otherwise || !check->returns ||
           check->returns(check->opaque, hart, place);
}

void hart_check_unwound(struct hart *hart)
{
    uint64_t sp = hart->x[HART_SP];

    while (sp_of(newest(hart)) <= sp && newest(hart)->sp != HART_NO_CALL)
        pop(hart);
}

// The calls that the hart is within, newest first, as far as they are known.
struct walk {
    uint64_t at, least_sp;
    unsigned left;
};

static struct walk walk_begin(const struct hart *hart)
{
    return (struct walk){.at = hart->calls.newest / CALL_BYTES,
                         .least_sp = hart->x[HART_SP],
                         .left = hart->check ? HART_CALLS : 0};
}

// Where the next one is in the ring; -1: there is none.
static int walk_next(const struct hart *hart, struct walk *walk)
{
    while (walk->left-- > 0) {
        unsigned index = walk->at-- % HART_CALLS;
        uint64_t sp = sp_of(&hart->calls.ring[index]);
        if (sp == HART_NO_CALL)
            break;
        if (sp >= walk->least_sp) {
            walk->least_sp = sp + 1;
            return (int)index;
        }
    }
    return -1;
}

unsigned hart_callers(const struct hart *hart, uint64_t *places, unsigned max)
{
    struct walk walk = walk_begin(hart);
    unsigned count = 0;
    int index;

    while (count < max && (index = walk_next(hart, &walk)) >= 0)
        places[count++] = hart->calls.ring[index].place;
    return count;
}

// Calls are popped newest first: as long as one is there, so are those that it was made within.
uint32_t hart_context(struct hart *hart, uint32_t outermost,
                      uint32_t (*within)(void *opaque, uint32_t outer, uint64_t place),
                      void *opaque)
{
    struct hart_calls *calls = &hart->calls;
    struct walk walk = walk_begin(hart);
    uint16_t asked[HART_CALLS];
    unsigned count = 0;
    int index;

    while ((index = walk_next(hart, &walk)) >= 0 && !(calls->ring[index].sp & HART_CALL_KNOWN))
        asked[count++] = (uint16_t)index;
    uint32_t number = index < 0 ? outermost : calls->contexts[index];
    while (count > 0) {
        unsigned at = asked[--count];
        number = within(opaque, number, calls->ring[at].place);
        calls->contexts[at] = number;
        calls->ring[at].sp |= HART_CALL_KNOWN;
    }
    return number;
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
    if (sp_of(newest(hart)) == hart->x[HART_SP] && newest(hart)->place == hart->pc)
        pop(hart);
}
