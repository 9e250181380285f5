// SPDX-License-Identifier: BSD-2-Clause
// Translation of one block: guest instructions in, x86-64 code out. What translated code may rely
// on, and must keep, is told in internal.h.
#include <string.h>

#include "jit/translator.h"

#define INSN_CODE_MAX 512u  // of one instruction with its stubs, generously
#define THUNKS_CODE_MAX 4096u
#define REPEATED_INSNS 32u  // of a loop's turns in a row, at most
#define TURNS_MIN 3u        // fewer are not worth it
#define TURNS_MAX 4u
#define BLOCK_CODE_MAX (INSN_CODE_MAX * (JIT_BLOCK_INSNS + 1))
#define COPY_BYTES_MAX (4 * JIT_BLOCK_INSNS)
#define BLOCK_ARENA_MAX                                                                            \
    (sizeof(struct jit_block) + (4 * JIT_BLOCK_INSNS + 1) * sizeof(struct jit_site) +              \
     (JIT_BLOCK_INSNS + 1) * sizeof(struct jit_link) + COPY_BYTES_MAX + sizeof(struct jit_map) +   \
     3 * 16)  // what aligning the last three takes

static_assert(BLOCK_CODE_MAX + THUNKS_CODE_MAX <= JIT_PART_BYTES_MIN &&
                  BLOCK_ARENA_MAX <= JIT_PART_BYTES_MIN,
              "the smallest part of code memory holds a block and the thunks");
static_assert(sizeof(((struct hart *)0)->attention) == 4, "compared as 32 bits at a block's entry");

// ---- Helpers and stubs

void *jit_arena_take(struct jit_translator *t, size_t bytes)
{
    uint8_t *taken = t->arena_end;

    t->arena_end += (bytes + 7) & ~(size_t)7;
    return taken;
}

struct jit_site *jit_site_add(struct jit_translator *t, jit_helper *helper)
{
    struct jit_site *site = jit_arena_take(t, sizeof(*site));

    *site = (struct jit_site){.helper = helper,
                              .insn = t->insn,
                              .offset = (uint16_t)t->offset,
                              .retired = (uint16_t)(t->insns - 1 - t->counted),
                              .map = t->map,
                              .block = t->block};
    return site;
}

void jit_call_site(struct jit_translator *t, const struct jit_site *site,
                   const struct jit_late *late)
{
    const struct jit_thunks *thunks = &t->jit->thunks;

    jit_late_emit_checks(t, late);
    x64_rip(&t->x64, X64_LEA | W, X64_RCX, site);
    if (late->stores)
        x64_call(&t->x64, t->map ? thunks->call_mapped_late : thunks->call_late);
    else
        x64_call(&t->x64, t->map ? thunks->call_mapped : thunks->call);
}

void jit_call_helper(struct jit_translator *t, jit_helper *helper)
{
    jit_shifts_settle(t, UINT32_MAX);
    jit_call_site(t, jit_site_add(t, helper), &t->late);
    t->late = (struct jit_late){0};
}

struct jit_stub *jit_stub_add(struct jit_translator *t, enum jit_stub_kind kind, uint8_t *place)
{
    struct jit_stub *stub = &t->stubs[t->stub_count];

    // What a block may need is bounded (JIT_STUBS_MAX); should that ever be wrong, it is not used.
    if (t->stub_count == JIT_STUBS_MAX - 1)
        t->x64.full = true;
    else
        t->stub_count++;
    *stub = (struct jit_stub){
        .kind = kind, .place = place, .offset = t->offset, .shifts = t->shifts, .late = t->late};
    return stub;
}

void jit_stub_call(struct jit_translator *t, const struct jit_site *site, uint8_t *place)
{
    struct jit_stub *stub = jit_stub_add(t, JIT_STUB_CALL, place);

    stub->site = site;
    stub->resume = x64_here(&t->x64);
}

static void emit_stub(struct jit_translator *t, const struct jit_stub *stub)
{
    jit_listing_mark(t->jit, JIT_LISTING_STUB, NULL, stub->offset, x64_here(&t->x64));
    if (stub->kind == JIT_STUB_CHECK) {
        jit_check_stub(t, stub);
        return;
    }
    x64_bind(&t->x64, stub->place);
    x64_bind(&t->x64, stub->also);
    x64_bind(&t->x64, stub->absent);
    x64_bind(&t->x64, stub->outside);
    if (stub->kind == JIT_STUB_EXIT) {
        jit_exit_stub(t, stub);
    } else if (stub->kind == JIT_STUB_XMM) {
        x64_mov_imm(&t->x64, X64_RAX, stub->value);
        x64_rr(&t->x64, X64_MOVQ_TO_XMM, stub->xmm, X64_RAX);
        x64_jmp(&t->x64, stub->resume);
    } else {
        if (stub->access)
            stub->access->slow = (uint32_t)(t->x64.out - t->jit->code);
        jit_shifts_emit(t, &stub->shifts);
        jit_call_site(t, stub->site, &stub->late);
        x64_jmp(&t->x64, stub->resume);
    }
}

// ---- One instruction

static bool only_writes_x0(const struct isa_insn *insn)
{
    const unsigned effects =
        ISA_BRANCH | ISA_JUMP | ISA_LOAD | ISA_STORE | ISA_SYSTEM | ISA_FP | ISA_FRD;

    return (isa_op_flags(insn->op) & (effects | ISA_RD)) == ISA_RD && insn->rd == 0;
}

// What no other file translates.
static void translate_other(struct jit_translator *t)
{
    bool system = isa_op_flags(t->insn.op) & ISA_SYSTEM && t->insn.op != ISA_ILLEGAL;

    jit_call_helper(t, system ? jit_help_system : jit_help_illegal);
}

static void translate_insn(struct jit_translator *t)
{
    if (!jit_translate_integer(t) && !jit_translate_access(t) && !jit_translate_control(t) &&
        !jit_translate_float(t) && !jit_translate_csr(t) && !jit_translate_atomic(t) &&
        !jit_translate_crypto(t))
        translate_other(t);
}

// ---- A block

static unsigned insn_bytes(const uint8_t *code)
{
    return (code[0] & 3) == 3 ? 4 : 2;
}

static uint32_t read_insn(const uint8_t *code)
{
    uint32_t raw = code[0] | (uint32_t)code[1] << 8;

    return insn_bytes(code) == 2 ? raw : raw | (uint32_t)code[2] << 16 | (uint32_t)code[3] << 24;
}

// Copies once, then translates the copy: other harts may be writing.
static unsigned copy_code(const struct jit *jit, const struct jit_source *source, uint8_t *copy)
{
    unsigned bytes = source->bytes < COPY_BYTES_MAX ? source->bytes : COPY_BYTES_MAX;
    unsigned first = source->tail_hva ? 2 : bytes;

    jit_copy_code(jit, copy, source->hva, first);
    if (source->tail_hva)
        jit_copy_code(jit, copy + first, source->tail_hva, bytes - first);
    return bytes;
}

// Enters the block's own map, and makes sure of what is late. A jump back to the start, which keeps
// both, looks at attention too.
static void translate_map(struct jit_translator *t)
{
    uint8_t *over;

    t->again = t->block->entry;
    if (!t->map && !t->carried)
        return;
    jit_map_enter(t);
    jit_late_enter(t);
    over = x64_jmp_forward(&t->x64);
    t->again = x64_here(&t->x64);
    x64_alu_mem_imm(&t->x64, X64_I_CMP, 0, X64_RBP, HART_FIELD(attention), 0);
    t->attention_place_again = x64_jcc_forward(&t->x64, X64_C_NE);
    x64_bind(&t->x64, over);
}

static void translate_entry(struct jit_translator *t)
{
    struct x64 *x64 = &t->x64;

    jit_listing_mark(t->jit, JIT_LISTING_ENTRY, NULL, t->start, x64_here(x64));
    x64_alu_mem_imm(x64, X64_I_CMP, 0, X64_RBP, HART_FIELD(attention), 0);
    t->attention_place = x64_jcc_forward(x64, X64_C_NE);
    t->block->body = x64_here(x64);
    translate_map(t);
}

static void translate_leave(struct jit_translator *t)
{
    jit_listing_mark(t->jit, JIT_LISTING_LEAVE, NULL, t->start, x64_here(&t->x64));
    if (t->attention_place_again) {
        x64_bind(&t->x64, t->attention_place_again);
        jit_late_leave(t);
        jit_map_leave(t);
    }
    x64_bind(&t->x64, t->attention_place);
    x64_mov_imm(&t->x64, X64_RAX, 0);
    jit_leave_at(t, t->start);
}

// CSR instructions are SYSTEM too, but mostly go on: their helper leaves when it must.
static bool ends_block(const struct isa_insn *insn)
{
    if (insn->op == ISA_ILLEGAL)
        return true;
    return !jit_is_csr(insn) && isa_op_flags(insn->op) & (ISA_JUMP | ISA_SYSTEM);
}

// Decodes instructions of `code`, up to one that is taken, into t->code. Returns their bytes.
static unsigned decode_insns(struct jit_translator *t, uint64_t pc, const uint8_t *code,
                             unsigned code_bytes)
{
    unsigned at = 0;
    bool ended = false;

    while (!ended && t->count < JIT_BLOCK_INSNS && at + 2 <= code_bytes &&
           at + insn_bytes(code + at) <= code_bytes && !hart_check_takes(t->hart, pc + at)) {
        struct isa_insn *insn = &t->code[t->count++];

        isa_decode(read_insn(code + at), insn);
        ended = ends_block(insn);
        at += insn->length;
    }
    return at;
}

// The instructions of a turn, if the block is a loop, else 0.
static unsigned find_turn(const struct jit_translator *t)
{
    int offset = t->start;

    for (unsigned i = 0; i < t->count; i++) {
        const struct isa_insn *insn = &t->code[i];

        if (isa_op_flags(insn->op) & ISA_BRANCH && jit_goes_again(t, offset + insn->imm))
            return i + 1;
        offset += insn->length;
    }
    return 0;
}

// A short loop is translated several times in a row: attention is looked at once in so many turns,
// and what a turn has found of registers the next need not compare. What is behind it stays as far
// as there is room.
static void repeat_loop(struct jit_translator *t)
{
    unsigned turn = find_turn(t), turns = turn ? REPEATED_INSNS / turn : 0, repeated, rest;

    if (turns < TURNS_MIN)
        return;
    repeated = (turns < TURNS_MAX ? turns : TURNS_MAX) * turn;
    rest = t->count - turn;
    if (rest > JIT_BLOCK_INSNS - repeated)
        rest = JIT_BLOCK_INSNS - repeated;
    memmove(t->code + repeated, t->code + turn, rest * sizeof(*t->code));
    for (unsigned i = turn; i < repeated; i++)
        t->code[i] = t->code[i - turn];
    t->count = repeated + rest;
    t->turn = turn;
    t->repeated = repeated;
}

static void translate_insns(struct jit_translator *t)
{
    unsigned done = 0;

    t->offset = t->start;
    while (t->insns < t->count) {
        t->insn = t->code[t->insns++];
        jit_listing_mark(t->jit, JIT_LISTING_INSN, &t->insn, t->offset, x64_here(&t->x64));
        if (t->jit->counting)
            jit_count_access(t);
        if (!only_writes_x0(&t->insn)) {
            jit_shifts_look(t);
            translate_insn(t);
            jit_shifts_overwrite(t);
        }
        for (; t->jit->flat && done < t->insns; done++)
            jit_facts_step(t, &t->code[done]);
        if (t->jit->check && hart_check_is_unwinding(&t->insn))
            jit_call_helper(t, jit_help_unwound);
        t->offset = jit_repeats(t) ? t->start : t->offset + t->insn.length;
    }
    if (!ends_block(&t->insn)) {
        jit_shifts_settle(t, UINT32_MAX);
        jit_count_flush(t);
        jit_count_insns(t);
        jit_exit_to(t, t->offset);
    }
}

struct jit_block *jit_translate(const struct hart *hart, struct jit *jit,
                                const struct jit_source *source)
{
    struct jit_translator t = {.hart = hart, .jit = jit, .x64 = jit_memory_emitter(jit)};
    struct jit_part *part = jit->part;
    struct jit_block *block = (struct jit_block *)(jit->arena + part->arena_used);
    uint8_t code[COPY_BYTES_MAX];
    unsigned code_bytes = copy_code(jit, source, code);
    size_t access_used = part->access_used;

    if (part->arena_end - part->arena_used < BLOCK_ARENA_MAX)
        return NULL;
    *block = (struct jit_block){.epoch = jit->epoch,
                                .gpa = source->gpa,
                                .variant = source->variant,
                                .hva = source->hva,
                                .tail_gpa = source->tail_gpa,
                                .tail_hva = source->tail_hva,
                                .entry = x64_here(&t.x64)};
    t.block = block;
    t.arena_end = (uint8_t *)(block + 1);
    t.start = JIT_PAGE_OFFSET(source->gpa & ~(uint64_t)JIT_STRADDLES);
    block->length_bytes = block->taken_at = decode_insns(&t, source->pc, code, code_bytes);
    if (t.count == 0) {
        block->length_bytes = insn_bytes(code);
        block->at_once = hart_check_at_once(hart, source->pc);
    }
    jit_map_choose(&t);
    jit_late_choose(&t);
    repeat_loop(&t);
    translate_entry(&t);
    if (t.count == 0) {
        jit_check_taken(&t, source->pc);
    } else {
        jit_facts_begin(&t);
        translate_insns(&t);
    }
    for (unsigned i = 0; i < t.stub_count; i++)
        emit_stub(&t, &t.stubs[i]);
    translate_leave(&t);
    if (t.x64.full) {
        part->access_used = access_used;
        return NULL;
    }

    block->code_bytes = (uint32_t)(x64_here(&t.x64) - block->entry);
    block->copy = memcpy(jit_arena_take(&t, block->length_bytes), code, block->length_bytes);
    part->arena_used = ((size_t)(t.arena_end - jit->arena) + 15) & ~(size_t)15;
    part->code_used = (((size_t)(t.x64.out - jit->code)) + 15) & ~(size_t)15;
    return block;
}
