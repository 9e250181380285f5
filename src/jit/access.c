// SPDX-License-Identifier: BSD-2-Clause
// Translation of loads and stores.
#include "jit/translator.h"

static_assert(sizeof(struct hart_tlb_entry) == 1 << 5 && HART_TLB_BITS + 5 < 32 &&
                  offsetof(struct hart, tlbs) < INT32_MAX,
              "index_tlb() computes the place of an entry");

// rcx = the distance of the entry for the address in `gva` from the context's first one.
static void index_tlb(struct jit_translator *t, unsigned gva)
{
    const unsigned shift = 12 - 5;

    if (t->jit->cpu & JIT_CPU_BMI2) {
        x64_rorx(&t->x64, 0, X64_RCX, gva, shift);
    } else {
        x64_rr(&t->x64, X64_MOV, X64_RCX, gva);
        x64_shift_imm(&t->x64, X64_SHR, 0, X64_RCX, shift);
    }
    x64_alu_imm(&t->x64, X64_I_AND, 0, X64_RCX, (int)(HART_TLB_ENTRIES - 1) << 5);
}

// A field of the entry at rcx, relative to rbp + rcx.
static int tlb_field(const struct jit_translator *t, size_t field)
{
    size_t context_bytes = sizeof(((struct hart *)0)->tlbs[0]);

    return (int)(offsetof(struct hart, tlbs) + (t->block->variant & ~JIT_WINDOW) * context_bytes +
                 field) -
           HART_BIAS;
}

unsigned jit_access_address(struct jit_translator *t)
{
    unsigned base = source(t, t->insn.rs1, X64_RAX);

    if (t->insn.imm) {
        x64_rm(&t->x64, X64_LEA | W, X64_RAX, base, t->insn.imm);
        return X64_RAX;
    }
    return base;
}

// An access that crosses the page's end never hits: its last byte's page has another tag than the
// entry that its first byte chooses.
static void probe(struct jit_translator *t, struct jit_access *access, unsigned width_bytes)
{
    size_t tag = access->kind == HART_LOAD ? offsetof(struct hart_tlb_entry, load)
                                           : offsetof(struct hart_tlb_entry, store);
    struct x64 *x64 = &t->x64;

    access->base = jit_access_address(t);
    if (t->jit->check) {
        jit_check_lookup(t, access, access->base, width_bytes);
        x64_rr(x64, X64_MOV | W, X64_RAX, X64_RCX);
        access->base = X64_RAX;
    }
    index_tlb(t, access->base);
    if (width_bytes == 1)
        x64_rr(x64, X64_MOV | W, X64_RDX, access->base);
    else
        x64_rm(x64, X64_LEA | W, X64_RDX, access->base, (int)width_bytes - 1);
    x64_alu_imm(x64, X64_I_AND, W, X64_RDX, -(int)MEMORY_PAGE_BYTES);
    x64_rm_index(x64, X64_CMP | W, X64_RDX, X64_RBP, X64_RCX, tlb_field(t, tag));
    access->absent = x64_jcc_forward(x64, X64_C_NE);
    x64_rm_index(x64, X64_MOV | W, X64_RCX, X64_RBP, X64_RCX,
                 tlb_field(t, offsetof(struct hart_tlb_entry, addend)));
}

// A base beyond the window's addresses must not be used. What imm adds stays within the guards.
static void check_window(struct jit_translator *t, struct jit_access *access)
{
    enum hart_tlb_context context = t->block->variant & ~JIT_WINDOW;

    access->base = source(t, t->insn.rs1, X64_RAX);
    access->displacement = t->insn.imm;
    if (t->jit->flat && jit_facts_sort(t, t->insn.rs1, t->insn.imm) == JIT_KNOWN)
        return;
    x64_rip(&t->x64, X64_CMP | W, access->base, &t->jit->window_limits[context]);
    access->miss = x64_jcc_forward(&t->x64, context == HART_TLB_U ? X64_C_AE : X64_C_B);
    if (t->jit->flat)
        jit_facts_below(t, t->insn.rs1);
}

struct jit_access jit_access_begin(struct jit_translator *t, unsigned width_bytes,
                                   enum hart_access kind)
{
    struct jit_access access = {.kind = kind, .width_bytes = width_bytes};

    if (t->jit->flat && t->jit->check)
        jit_check_begin(t, &access);
    else if (t->block->variant & JIT_WINDOW)
        check_window(t, &access);
    else
        probe(t, &access, width_bytes);
    return access;
}

void jit_access_do(struct jit_translator *t, struct jit_access *access, unsigned opcode,
                   unsigned reg)
{
    if (t->block->variant & JIT_WINDOW) {
        access->at = t->x64.out;
        x64_gs_rm(&t->x64, opcode, reg, access->base, access->displacement, JIT_ACCESS_BYTES_MIN);
    } else {
        x64_rm_index(&t->x64, opcode, reg, access->base, X64_RCX, 0);
    }
}

struct jit_site *jit_access_note(struct jit_translator *t, const uint8_t *at, struct jit_site *site)
{
    struct jit_part *part = t->jit->part;

    site->at = (uint32_t)(at - t->jit->code);
    if (part->access_used == part->access_end)
        t->x64.full = true;
    else
        t->jit->accesses[part->access_used++] = site;
    return site;
}

uint8_t *jit_access_probe(struct jit_translator *t, unsigned width_bytes, enum hart_access kind)
{
    struct jit_access access = {.kind = kind};

    probe(t, &access, width_bytes);
    x64_lea_scaled(&t->x64, X64_RAX, access.base, X64_RCX, 1);
    return access.absent;
}

void jit_access_miss(struct jit_translator *t, uint8_t *miss, jit_helper *helper, const uint8_t *at)
{
    struct jit_site *site = jit_site_add(t, helper);
    struct jit_stub *stub = jit_stub_add(t, JIT_STUB_CALL, miss);

    stub->site = site;
    stub->resume = x64_here(&t->x64);
    if (at)
        stub->access = jit_access_note(t, at, site);
}

void jit_access_end(struct jit_translator *t, const struct jit_access *access)
{
    if (t->jit->flat && t->jit->check) {
        jit_check_end(t, access);
        return;
    }
    jit_access_miss(t, access->miss, access->kind == HART_LOAD ? jit_help_load : jit_help_store,
                    access->at);
    t->stubs[t->stub_count - 1].also = access->also;
    t->stubs[t->stub_count - 1].absent = access->absent;
    t->stubs[t->stub_count - 1].outside = access->outside;
}

static void load(struct jit_translator *t, unsigned width_bytes, unsigned opcode)
{
    struct jit_access access = jit_access_begin(t, width_bytes, HART_LOAD);
    unsigned host = target(t);

    jit_access_do(t, &access, opcode, host);
    finish(t, host);
    jit_access_end(t, &access);
}

static void store(struct jit_translator *t, unsigned width_bytes, unsigned opcode)
{
    struct jit_access access = jit_access_begin(t, width_bytes, HART_STORE);

    jit_access_do(t, &access, opcode, source(t, t->insn.rs2, X64_RDX));
    jit_access_end(t, &access);
}

// cbo.zero where the TLB has the page and S-mode may (CMO 1.0.1); else, and in U-mode, by the
// helper.
static void zero_block(struct jit_translator *t)
{
    enum hart_tlb_context context = t->block->variant & ~JIT_WINDOW;
    struct x64 *x64 = &t->x64;
    uint8_t *refused = NULL;

    if (context == HART_TLB_U || t->jit->check) {
        jit_call_helper(t, jit_help_cache_block);
        return;
    }
    if (context != HART_TLB_M) {
        x64_test_mem_imm(x64, X64_RBP, HART_FIELD(menvcfg), (int32_t)HART_ENVCFG_CBZE);
        refused = x64_jcc_forward(x64, X64_C_E);
    }
    uint8_t *miss = jit_access_probe(t, 1, HART_STORE);
    x64_alu_imm(x64, X64_I_AND, W, X64_RAX, -(int)HART_CACHE_BLOCK_BYTES);
    for (int at = 0; at < (int)HART_CACHE_BLOCK_BYTES; at += (int)sizeof(uint64_t))
        x64_store_imm(x64, X64_RAX, at, 0);
    jit_access_miss(t, miss, jit_help_cache_block, NULL);
    if (refused)
        jit_access_miss(t, refused, jit_help_cache_block, NULL);
}

// clang-format off
bool jit_translate_access(struct jit_translator *t)
{
    switch (t->insn.op) {
    case ISA_LB: load(t, 1, X64_MOVSX_8); break;
    case ISA_LH: load(t, 2, X64_MOVSX_16); break;
    case ISA_LW: load(t, 4, X64_MOVSXD); break;
    case ISA_LD: load(t, 8, X64_MOV | W); break;
    case ISA_LBU: load(t, 1, X64_MOVZX_8); break;
    case ISA_LHU: load(t, 2, X64_MOVZX_16); break;
    case ISA_LWU: load(t, 4, X64_MOV); break;
    case ISA_SB: store(t, 1, X64_STORE_8); break;
    case ISA_SH: store(t, 2, X64_STORE_16); break;
    case ISA_SW: store(t, 4, X64_STORE_32); break;
    case ISA_SD: store(t, 8, X64_STORE_64); break;
    case ISA_CBO_ZERO: zero_block(t); break;
    case ISA_CBO_INVAL: case ISA_CBO_CLEAN: case ISA_CBO_FLUSH:
        jit_call_helper(t, jit_help_cache_block); break;
    default: return false;
    }
    return true;
}
// clang-format on
