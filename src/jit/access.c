// SPDX-License-Identifier: BSD-2-Clause
// Translation of loads and stores.
#include "jit/translator.h"

static_assert(sizeof(struct hart_tlb_entry) == 32 && HART_TLB_BITS == 9 &&
                  offsetof(struct hart_tlb_entry, addend) <= INT8_MAX,
              "jit_access_probe() computes the address of an entry");

// An access that crosses the page's end never hits: its last byte's page has
// another tag than the entry that its first byte chooses.
uint8_t *jit_access_probe(struct jit_translator *t, unsigned width_bytes, size_t tag)
{
    struct x64 *x64 = &t->x64;
    const int entry_bytes = sizeof(struct hart_tlb_entry);
    uint8_t *miss;

    x64_rm(x64, X64_LEA | W, X64_RAX, source(t, t->insn.rs1, X64_RAX), t->insn.imm);
    x64_rr(x64, X64_MOV, X64_RCX, X64_RAX);
    x64_shift_imm(x64, X64_SHR, 0, X64_RCX, 12 - 5);
    x64_alu_imm(x64, X64_I_AND, 0, X64_RCX, (int)(HART_TLB_ENTRIES - 1) * entry_bytes);
    x64_rm(x64, X64_ADD | W, X64_RCX, X64_RBP, HART_FIELD(tlb));
    x64_rm(x64, X64_LEA | W, X64_RDX, X64_RAX, (int)width_bytes - 1);
    x64_alu_imm(x64, X64_I_AND, W, X64_RDX, -(int)MEMORY_PAGE_BYTES);
    x64_rm(x64, X64_CMP | W, X64_RDX, X64_RCX, (int)tag);
    miss = x64_jcc_forward(x64, X64_C_NE);
    x64_rm(x64, X64_ADD | W, X64_RAX, X64_RCX, offsetof(struct hart_tlb_entry, addend));
    return miss;
}

void jit_access_miss(struct jit_translator *t, uint8_t *miss, jit_helper *helper)
{
    struct jit_stub *stub = jit_stub_add(t, JIT_STUB_CALL, miss);

    stub->site = jit_site_add(t, helper);
    stub->resume = x64_here(&t->x64);
}

static void load(struct jit_translator *t, unsigned width_bytes, unsigned opcode)
{
    uint8_t *miss = jit_access_probe(t, width_bytes, offsetof(struct hart_tlb_entry, load));
    unsigned host = target(t);

    x64_rm(&t->x64, opcode, host, X64_RAX, 0);
    finish(t, host);
    jit_access_miss(t, miss, jit_help_load);
}

static void store(struct jit_translator *t, unsigned width_bytes, unsigned opcode)
{
    uint8_t *miss = jit_access_probe(t, width_bytes, offsetof(struct hart_tlb_entry, store));

    x64_rm(&t->x64, opcode, source(t, t->insn.rs2, X64_RDX), X64_RAX, 0);
    jit_access_miss(t, miss, jit_help_store);
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
    case ISA_CBO_INVAL: case ISA_CBO_CLEAN: case ISA_CBO_FLUSH: case ISA_CBO_ZERO:
        jit_call_helper(t, jit_help_cache_block); break;
    default: return false;
    }
    return true;
}
// clang-format on
