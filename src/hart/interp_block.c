// SPDX-License-Identifier: BSD-2-Clause
// The interpreter's cache of pre-decoded blocks: finding, checking and decoding them. What a block
// is and how it is kept coherent with the guest's memory is told in interp_block.h.
#include "hart/interp_block.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define PAGE_OFFSET(gva) ((gva) & (MEMORY_PAGE_BYTES - 1))
#define CODE_BYTES_MAX (4 * INTERP_BLOCK_INSNS)
// Every instruction with a breakpoint, an exit, and an operation each before and behind it for what
// is checked; one more operation with an exit at the end.
#define BLOCK_BYTES_MAX                                                                            \
    (sizeof(struct interp_block) + (6 * INTERP_BLOCK_INSNS + 3) * sizeof(struct interp_op) +       \
     CODE_BYTES_MAX)

// Counts and halfword offsets are bytes in struct interp_op.
static_assert(INTERP_BLOCK_INSNS <= UINT8_MAX && CODE_BYTES_MAX / 2 <= UINT8_MAX,
              "a block's offsets fit their fields");

// Where the bytes of a block come from. `tail` is where the last two of four bytes are when they do
// not just follow the first two, else NULL.
struct source {
    uint64_t gpa, tail_gpa;
    const uint8_t *hva, *tail_hva;
    unsigned bytes;  // that may be decoded, at most CODE_BYTES_MAX
    bool cacheable;
};

// ---- Life of the cache

int interp_cache_init(struct interp *interp, const void *const *handlers)
{
    interp->arena = malloc(INTERP_ARENA_BYTES);
    if (!interp->arena)
        return -ENOMEM;
    interp->handlers = handlers;
    interp->epoch = INTERP_NEVER + 1;
    interp->generation = 1;
    interp->nowhere = (struct interp_block *)interp->arena;
    *interp->nowhere = (struct interp_block){.epoch = 0};
    interp->arena_used = sizeof(*interp->nowhere);
    memset(interp->fetch, 0xff, sizeof(interp->fetch));
    return 0;
}

void interp_cache_fini(struct interp *interp)
{
    free(interp->arena);
}

void interp_cache_drop(struct interp *interp)
{
    memset(interp->buckets, 0, sizeof(interp->buckets));
    interp->arena_used = sizeof(*interp->nowhere);
    interp->drops++;
}

void interp_cache_fence_i(struct hart *hart, struct interp *interp)
{
    interp->epoch++;
    interp->generation++;
    interp_cache_restamp(hart, interp);
}

void interp_cache_flush_translations(struct hart *hart, struct interp *interp)
{
    memset(interp->fetch, 0xff, sizeof(interp->fetch));
    interp->generation++;
    interp_cache_restamp(hart, interp);
}

// ---- The guest's code

static bool is_long(uint16_t halfword)
{
    return (halfword & 3) == 3;
}

static uint16_t read_halfword(const uint8_t *bytes)
{
    uint16_t halfword;

    memcpy(&halfword, bytes, sizeof(halfword));
    return halfword;
}

static unsigned insn_bytes(const uint8_t *code)
{
    return is_long(read_halfword(code)) ? 4 : 2;
}

static uint32_t read_insn(const uint8_t *code)
{
    uint32_t raw = read_halfword(code);

    return is_long((uint16_t)raw) ? raw | (uint32_t)read_halfword(code + 2) << 16 : raw;
}

static void copy_bytes(void *to, const uint8_t *from, size_t bytes)
{
    memcpy(to, from, bytes);
}

typedef void copy_fn(void *to, const uint8_t *from, size_t bytes);

static copy_fn *copier(const struct hart *hart)
{
    return hart->flat ? hart_flat_copy_code : copy_bytes;
}

// The page that holds `pc`, or NULL: exception recorded. Its tag is invalid when the answer is good
// for two bytes only and must not be kept (see hart_fetch_page).
static const struct fetch_page *fetch_page(struct hart *hart, struct interp *interp, uint64_t pc)
{
    struct fetch_page *page = &interp->fetch[pc / MEMORY_PAGE_BYTES % INTERP_FETCH_PAGES];
    uint64_t tag = (pc - PAGE_OFFSET(pc)) | hart->privilege;

    if (BASE_LIKELY(page->tag == tag))
        return page;
    page->tag = INTERP_FETCH_INVALID;
    page->hva = hart_fetch_page(hart, pc, &page->gpa);
    if (!page->hva)
        return NULL;
    if (!hart->fetch_halfword)
        page->tag = tag;
    return page;
}

static bool starts_long(const struct hart *hart, const uint8_t *hva)
{
    uint8_t code[2];

    copier(hart)(code, hva, sizeof(code));
    return is_long(read_halfword(code));
}

// Finds out where the block at `pc` lies. False: an exception was recorded.
static bool find_source(struct hart *hart, struct interp *interp, uint64_t pc,
                        struct source *source)
{
    unsigned offset = PAGE_OFFSET(pc), left = MEMORY_PAGE_BYTES - offset;
    const struct fetch_page *page;

    // Instructions are aligned to two bytes; only a debugger or an SBI call can bring another pc.
    if (pc & 1) {
        hart_raise(hart, HART_CAUSE_FETCH_MISALIGNED, pc);
        return false;
    }
    page = fetch_page(hart, interp, pc);
    if (!page)
        return false;
    *source = (struct source){.gpa = page->gpa + offset,
                              .hva = page->hva + offset,
                              .bytes = left < CODE_BYTES_MAX ? left : CODE_BYTES_MAX,
                              .cacheable = page->tag != INTERP_FETCH_INVALID};
    if (!source->cacheable)
        source->bytes = 2;
    if (source->bytes > 2 || !starts_long(hart, source->hva))
        return true;

    page = fetch_page(hart, interp, pc + 2);
    if (!page)
        return false;
    source->gpa |= INTERP_STRADDLES;
    source->bytes = 4;
    source->tail_gpa = page->gpa + PAGE_OFFSET(pc + 2);
    source->tail_hva = page->hva + PAGE_OFFSET(pc + 2);
    source->cacheable = source->cacheable && page->tag != INTERP_FETCH_INVALID;
    return true;
}

static bool same_bytes(const uint8_t *a, const uint8_t *b, size_t bytes)
{
    return memcmp(a, b, bytes) == 0;
}

// Copies once, then decodes the copy: other harts may be writing.
static void copy_code(const struct hart *hart, const struct source *source, uint8_t *code)
{
    copy_fn *copy = copier(hart);
    unsigned first = source->tail_hva ? 2 : source->bytes;

    copy(code, source->hva, first);
    if (source->tail_hva)
        copy(code + first, source->tail_hva, source->bytes - first);
}

static bool same_code(const struct hart *hart, const struct interp_block *block, uint64_t pc)
{
    bool (*same)(const uint8_t *copy, const uint8_t *hva, size_t bytes) =
        hart->flat ? hart_flat_same_code : same_bytes;
    unsigned first = block->tail_hva ? 2 : block->length_bytes;

    return same(block->code, block->hva, first) &&
           (!block->tail_hva || same(block->code + first, block->tail_hva, 2)) &&
           hart_check_first_taken(hart, pc, block->code, block->length_bytes) == block->taken_at;
}

unsigned interp_block_retired(const struct interp_block *block, const struct interp_op *op)
{
    unsigned count = 0;

    for (unsigned offset = 0; offset < op->pc * 2u; offset += insn_bytes(block->code + offset))
        count++;
    return count;
}

uint32_t interp_block_raw(const struct interp_block *block, const struct interp_op *op)
{
    return read_insn(block->code + op->pc * 2);
}

// ---- Decoding

// A block being made in the free part of the arena.
struct builder {
    struct interp *interp;
    struct interp_block *block;
    struct interp_op *end;  // of the operations so far
    unsigned offset;        // of the instruction being decoded
    unsigned insns;         // so far, this one included
    uint64_t pc;            // of the block's start
    const struct hart *hart;
};

static struct interp_op *add_op(struct builder *builder, unsigned handler)
{
    struct interp_op *op = builder->end++;

    *op = (struct interp_op){.handler = builder->interp->handlers[handler],
                             .pc = (uint8_t)(builder->offset / 2)};
    return op;
}

static void add_exit(struct builder *builder)
{
    struct interp_exit *exit = (struct interp_exit *)builder->end;

    *exit = (struct interp_exit){.near = builder->interp->nowhere};
    builder->end += sizeof(*exit) / sizeof(struct interp_op);
}

static void add_next(struct builder *builder)
{
    struct interp_op *op = add_op(builder, INTERP_NEXT);

    op->imm = (int32_t)builder->offset;
    op->rs2 = (uint8_t)builder->insns;
    add_exit(builder);
}

// Of the store-before-load orderings that a fence may ask for, x86 gives none and gives all others
// for free (Unprivileged ISA 2.7 and appendix A.5). fence.tso does not ask for it.
static bool fence_orders_store_load(const struct isa_insn *insn)
{
    const unsigned input = 8, output = 4, read = 2, write = 1, tso = 8;
    unsigned before = (unsigned)insn->imm >> 4, after = (unsigned)insn->imm & 15;

    return insn->rm != tso && (before & (output | write)) && (after & (input | read));
}

// Whether all that the instruction does is to write x0, or nothing that the host does not do
// anyway.
static bool does_nothing(const struct isa_insn *insn)
{
    const unsigned effects =
        ISA_BRANCH | ISA_JUMP | ISA_LOAD | ISA_STORE | ISA_SYSTEM | ISA_FP | ISA_FRD;

    switch (insn->op) {
    case ISA_FENCE:
        return !fence_orders_store_load(insn);
    case ISA_PAUSE:
    case ISA_PREFETCH_I:
    case ISA_PREFETCH_R:
    case ISA_PREFETCH_W:
        return true;
    default:
        return (isa_op_flags(insn->op) & (effects | ISA_RD)) == ISA_RD && insn->rd == 0;
    }
}

static unsigned choose_handler(const struct isa_insn *insn, bool flat)
{
    if (flat && isa_op_flags(insn->op) & ISA_ATOMIC)
        return INTERP_FLAT_ATOMIC;
    switch (insn->op) {
    case ISA_ADDI:
        return insn->rs1 == 0 ? ISA_LUI : insn->imm == 0 ? INTERP_MV : ISA_ADDI;
    case ISA_BEQ:
        return insn->rs2 == 0 ? INTERP_BEQZ : ISA_BEQ;
    case ISA_BNE:
        return insn->rs2 == 0 ? INTERP_BNEZ : ISA_BNE;
    case ISA_JAL:
        return insn->rd == 0 ? INTERP_J : ISA_JAL;
    case ISA_JALR:
        return insn->rd == 0 ? INTERP_JR : ISA_JALR;
    case ISA_LB:
    case ISA_LH:
    case ISA_LW:
    case ISA_LD:
    case ISA_LBU:
    case ISA_LHU:
    case ISA_LWU:
        return insn->rd == 0 ? INTERP_LOAD_X0 : insn->op;
    default:
        return insn->op;
    }
}

// What a checked hart does before the instruction.
static void add_checks_before(struct builder *builder, const struct isa_insn *insn)
{
    unsigned flags = isa_op_flags(insn->op);
    struct interp_op *op;

    if (flags & (ISA_LOAD | ISA_STORE)) {
        op = add_op(builder, INTERP_CHECK);
        op->rs1 = insn->rs1;
        op->imm = insn->imm;
        op->rd = (uint8_t)(insn->op == ISA_CBO_ZERO ? HART_CACHE_BLOCK_BYTES
                                                    : isa_op_access_bytes(insn->op));
        op->rs2 = flags & ISA_STORE ? HART_STORE : HART_LOAD;
    } else if (hart_check_is_call(insn)) {
        add_op(builder, INTERP_CALL);
    } else if (hart_check_is_return(insn)) {
        op = add_op(builder, INTERP_RETURN);
        op->rs2 = (uint8_t)(builder->insns - 1);
    }
}

static void add_taken(struct builder *builder)
{
    add_op(builder, INTERP_TAKEN)->rs2 = (uint8_t)builder->insns;
}

static void add_insn(struct builder *builder, const struct isa_insn *insn)
{
    unsigned handler = choose_handler(insn, builder->hart->flat), flags = isa_op_flags(insn->op);
    struct interp_op *op = add_op(builder, handler);

    op->imm = insn->imm;
    op->rd = insn->rd;
    op->rs1 = insn->rs1;
    op->rs2 = insn->rs2;
    // c.mv is an add to x0.
    if (insn->op == ISA_ADD && insn->rs1 == 0) {
        op->handler = builder->interp->handlers[INTERP_MV];
        op->rs1 = insn->rs2;
    }
    if (handler == INTERP_LOAD_X0)
        op->rd = (uint8_t)isa_op_access_bytes(insn->op);
    else if (flags & ISA_FP && !(flags & (ISA_LOAD | ISA_STORE)))
        op->imm = FP_OPERANDS(insn->rm, insn->rs3);
    else if (insn->op == ISA_LR_W || insn->op == ISA_LR_D)
        op->imm = insn->rm;

    if (flags & ISA_BRANCH)
        op->rd = (uint8_t)builder->insns;
    else if (flags & (ISA_JUMP | ISA_SYSTEM))
        op->rs2 = (uint8_t)builder->insns;
    if (flags & ISA_BRANCH || insn->op == ISA_JAL)
        op->imm += (int32_t)builder->offset;
    if (flags & (ISA_BRANCH | ISA_JUMP | ISA_SYSTEM))
        add_exit(builder);
}

// Compares page offsets only: the block may be executed at other virtual addresses as well, so the
// handler looks at the whole address.
static bool near_breakpoint(const struct hart *hart, uint64_t gpa)
{
    for (unsigned i = 0; i < hart->breakpoint_count; i++)
        if (PAGE_OFFSET(hart->breakpoints[i]) == PAGE_OFFSET(gpa))
            return true;
    return false;
}

// Decodes up to `max_insns` instructions of `code`. Always decodes at least one.
static void decode_insns(struct builder *builder, const struct hart *hart, const uint8_t *code,
                         unsigned code_bytes, unsigned max_insns, bool breakpoints)
{
    uint64_t gpa = builder->block->gpa & ~(uint64_t)INTERP_STRADDLES;
    struct isa_insn insn;
    bool ended = false;

    while (!ended && builder->insns < max_insns && builder->offset + 2 <= code_bytes &&
           builder->offset + insn_bytes(code + builder->offset) <= code_bytes) {
        isa_decode(read_insn(code + builder->offset), &insn);
        if (breakpoints && near_breakpoint(hart, gpa + builder->offset))
            add_op(builder, INTERP_BREAK);
        if (hart_check_takes(hart, builder->pc + builder->offset)) {
            add_taken(builder);
            builder->block->taken_at = builder->offset;
            builder->offset += insn.length;
            return;
        }
        builder->insns++;
        if (hart->check)
            add_checks_before(builder, &insn);
        if (!does_nothing(&insn))
            add_insn(builder, &insn);
        if (hart->check && hart_check_is_unwinding(&insn))
            add_op(builder, INTERP_UNWOUND);
        ended = insn.op == ISA_ILLEGAL || isa_op_flags(insn.op) & (ISA_JUMP | ISA_SYSTEM);
        builder->offset += insn.length;
    }
    if (!ended)
        add_next(builder);
    builder->block->taken_at = builder->offset;
}

// Makes a block in the free part of the arena, which it does not take possession of.
static struct interp_block *decode(struct hart *hart, struct interp *interp, uint64_t pc,
                                   const struct source *source, unsigned max_insns,
                                   bool breakpoints)
{
    uint8_t code[CODE_BYTES_MAX];
    struct interp_block *block;
    struct builder builder;

    if (INTERP_ARENA_BYTES - interp->arena_used < BLOCK_BYTES_MAX)
        interp_cache_drop(interp);
    block = (struct interp_block *)(interp->arena + interp->arena_used);
    builder = (struct builder){
        .interp = interp, .block = block, .end = block->ops, .pc = pc, .hart = hart};
    *block = (struct interp_block){.epoch = interp->epoch,
                                   .gpa = source->gpa,
                                   .hva = source->hva,
                                   .tail_gpa = source->tail_gpa,
                                   .tail_hva = source->tail_hva};
    copy_code(hart, source, code);
    decode_insns(&builder, hart, code, source->bytes, max_insns, breakpoints);
    block->length_bytes = builder.offset;
    block->code = memcpy(builder.end, code, block->length_bytes);
    return block;
}

// A block of one instruction that is not to be found again.
static struct interp_block *decode_once(struct hart *hart, struct interp *interp, uint64_t pc,
                                        const struct source *source, bool breakpoints)
{
    struct interp_block *block = decode(hart, interp, pc, source, 1, breakpoints);

    block->epoch = INTERP_NEVER;
    return block;
}

// ---- Finding

static struct interp_block **bucket_of(struct interp *interp, uint64_t gpa)
{
    return &interp->buckets[(gpa >> 1 ^ gpa >> 15) % INTERP_BUCKETS];
}

static void insert(struct interp *interp, struct interp_block *block)
{
    struct interp_block **bucket = bucket_of(interp, block->gpa);
    size_t bytes = (size_t)(block->code + block->length_bytes - (const uint8_t *)block);

    block->bucket_next = *bucket;
    *bucket = block;
    interp->arena_used += (bytes + 15) & ~(size_t)15;
}

// The block at `source` if its bytes are still those in memory. One that is out of date is taken
// out of the cache: its place in the arena is lost until the next drop, its epoch stays old.
static struct interp_block *find_current(const struct hart *hart, struct interp *interp,
                                         uint64_t pc, const struct source *source)
{
    struct interp_block **link = bucket_of(interp, source->gpa);
    struct interp_block *block;

    while ((block = *link) != NULL &&
           (block->gpa != source->gpa || block->tail_gpa != source->tail_gpa))
        link = &block->bucket_next;
    if (!block || block->epoch == interp->epoch)
        return block;
    if (!same_code(hart, block, pc)) {
        *link = block->bucket_next;
        return NULL;
    }
    block->epoch = interp->epoch;
    return block;
}

struct interp_block *interp_block_single(struct hart *hart, struct interp *interp, uint64_t pc)
{
    struct source source;

    if (!find_source(hart, interp, pc, &source))
        return NULL;
    return decode_once(hart, interp, pc, &source, false);
}

struct interp_block *interp_block_find(struct hart *hart, struct interp *interp, uint64_t pc)
{
    struct interp_block *block;
    struct source source;

    if (!find_source(hart, interp, pc, &source))
        return NULL;
    if (!source.cacheable)
        return decode_once(hart, interp, pc, &source, true);
    block = find_current(hart, interp, pc, &source);
    if (!block) {
        block = decode(hart, interp, pc, &source, INTERP_BLOCK_INSNS, true);
        insert(interp, block);
    }
    return block;
}

struct interp_block *interp_block_follow(struct hart *hart, struct interp *interp,
                                         const struct interp_block *from, struct interp_exit *exit,
                                         uint64_t pc, uint64_t target)
{
    uint64_t drops = interp->drops, from_epoch = from->epoch;
    struct interp_block *to = interp_block_find(hart, interp, target);

    // A drop, or decoding one instruction after the other in the same place, has overwritten
    // `exit`.
    if (!to || interp->drops != drops || from_epoch == INTERP_NEVER || to->epoch == INTERP_NEVER)
        return to;
    // A straddling block depends on its second page as well, so only `far` may lead there.
    if (pc / MEMORY_PAGE_BYTES == target / MEMORY_PAGE_BYTES && !(to->gpa & INTERP_STRADDLES))
        exit->near = to;
    exit->far = to;
    exit->far_pc = target;
    exit->far_stamp = interp->stamp;
    return to;
}
