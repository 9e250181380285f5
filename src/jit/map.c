// SPDX-License-Identifier: BSD-2-Clause
// Which guest registers a block keeps in the pinned host registers. Between blocks it is always the
// standard choice (thunks.c). A block that uses others much more, because it is long or loops, has
// a choice of its own: it exchanges some behind its entry, and again wherever it is left.
#include <string.h>

#include "jit/translator.h"

#define LOOP_TURNS 16    // that a loop is taken to have that ends in one place
#define EXCHANGE_COST 6  // in uses: two stores and two loads, at the entry and an exit

static unsigned uses_of(const struct isa_insn *insn, unsigned reg)
{
    unsigned flags = isa_op_flags(insn->op);

    return (flags & ISA_RD && insn->rd == reg) + (flags & ISA_RS1 && insn->rs1 == reg) +
           (flags & ISA_RS2 && insn->rs2 == reg);
}

static bool is_branch_to_start(const struct isa_insn *insn, int from_start)
{
    return isa_op_flags(insn->op) & ISA_BRANCH && from_start + insn->imm == 0;
}

// The more branches lead out of a loop before its end, the sooner one of them is taken.
static unsigned turns_of(unsigned exits)
{
    return exits > 2 ? 1 : LOOP_TURNS >> 2 * exits;
}

// How often each register is named. What is behind the end of a loop counts once.
static void count_uses(const struct jit_translator *t, unsigned uses[32])
{
    int from_start = 0;
    unsigned exits = 0;

    memset(uses, 0, 32 * sizeof(*uses));
    for (unsigned i = 0; i < t->count; i++) {
        const struct isa_insn *insn = &t->code[i];

        for (unsigned reg = 1; reg < 32; reg++)
            uses[reg] += uses_of(insn, reg);
        for (unsigned reg = 1; is_branch_to_start(insn, from_start) && reg < 32; reg++)
            uses[reg] *= turns_of(exits);
        exits += (isa_op_flags(insn->op) & ISA_BRANCH) != 0;
        from_start += insn->length;
    }
}

// The register of the most uses that is in no host register, or 0.
static unsigned most_used_outside(const struct jit_translator *t, const unsigned uses[32])
{
    unsigned most = 0;

    for (unsigned reg = 1; reg < 32; reg++)
        if (t->pin_of[reg] < 0 && (!most || uses[reg] > uses[most]))
            most = reg;
    return most;
}

// The place in the map of the register of the least uses.
static unsigned least_used_inside(const struct jit_map *map, const unsigned uses[32])
{
    unsigned least = 0;

    for (unsigned i = 1; i < JIT_PINS; i++)
        if (uses[map->guest[i]] < uses[map->guest[least]])
            least = i;
    return least;
}

void jit_map_choose(struct jit_translator *t)
{
    struct jit_map map = jit_map_standard;
    unsigned uses[32];

    for (unsigned reg = 0; reg < 32; reg++)
        t->pin_of[reg] = -1;
    for (unsigned i = 0; i < JIT_PINS; i++)
        t->pin_of[map.guest[i]] = (int8_t)jit_pins[i];
    count_uses(t, uses);
    for (;;) {
        unsigned in = most_used_outside(t, uses), place = least_used_inside(&map, uses);
        unsigned out = map.guest[place];

        if (uses[in] < uses[out] + EXCHANGE_COST)
            break;
        map.guest[place] = (uint8_t)in;
        t->pin_of[out] = -1;
        t->pin_of[in] = (int8_t)jit_pins[place];
    }
    if (memcmp(&map, &jit_map_standard, sizeof(map)) != 0)
        t->map = memcpy(jit_arena_take(t, sizeof(map)), &map, sizeof(map));
}

// The pinned registers that hold `from` come to hold `to`.
static void exchange(struct jit_translator *t, const struct jit_map *from, const struct jit_map *to)
{
    for (unsigned i = 0; i < JIT_PINS; i++)
        if (from->guest[i] != to->guest[i])
            x64_rm(&t->x64, X64_STORE_64, jit_pins[i], X64_RBP, HART_X(from->guest[i]));
    for (unsigned i = 0; i < JIT_PINS; i++)
        if (from->guest[i] != to->guest[i])
            x64_rm(&t->x64, X64_MOV | W, jit_pins[i], X64_RBP, HART_X(to->guest[i]));
}

void jit_map_enter(struct jit_translator *t)
{
    if (t->map)
        exchange(t, &jit_map_standard, t->map);
}

void jit_map_leave(struct jit_translator *t)
{
    if (t->map)
        exchange(t, t->map, &jit_map_standard);
}

bool jit_map_call(struct hart *hart, const struct jit_site *site)
{
    struct jit *jit = hart->engine_state;
    bool goes_on;

    for (unsigned i = 0; i < JIT_PINS; i++)
        hart->x[site->map->guest[i]] = jit->held[i];
    goes_on = jit->counting ? jit_count_call(hart, site) : site->helper(hart, site);
    for (unsigned i = 0; i < JIT_PINS; i++)
        jit->held[i] = hart->x[site->map->guest[i]];
    return goes_on;
}
