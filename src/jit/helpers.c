// SPDX-License-Identifier: BSD-2-Clause
// What translated code calls to have done. The results are to be those of the interpreter to the
// bit: where its comments say what it chose (SC, FS, what retires), the same holds here.
#include "jit/helpers.h"

bool jit_help_illegal(struct hart *hart, const struct jit_site *site)
{
    return take_illegal(hart, site);
}

// Leaves one instruction to the interpreter, and the block with it.
bool jit_help_step(struct hart *hart, const struct jit_site *site)
{
    hart->pc += site->offset;
    hart->instret += site->retired;
    jit_fp_leave(hart, jit_of(hart));
    hart_engine_interp.step(hart, jit_of(hart)->interp);
    return false;
}

// ---- Loads and stores that the soft TLB did not have

static void write_loaded(struct hart *hart, const struct jit_site *site, uint64_t value)
{
    switch (site->insn.op) {
    case ISA_LB:
        write_x(hart, site, (uint64_t)(int8_t)value);
        break;
    case ISA_LH:
        write_x(hart, site, (uint64_t)(int16_t)value);
        break;
    case ISA_LW:
        write_x(hart, site, (uint64_t)(int32_t)value);
        break;
    case ISA_FLW:
        write_f(hart, site, value | 0xffffffff00000000);
        break;
    case ISA_FLD:
        write_f(hart, site, value);
        break;
    default:
        write_x(hart, site, value);
    }
}

static uint64_t address_of(const struct hart *hart, const struct jit_site *site)
{
    return hart->x[site->insn.rs1] + (uint64_t)(int64_t)site->insn.imm;
}

// Before a hook of a checked hart that may have the instruction be done. Returns what end_hook is
// to know.
static bool begin_hook(struct hart *hart, const struct jit_site *site)
{
    struct jit *jit = jit_of(hart);
    bool fp_ready = jit->fp_ready;

    hart->pc += site->offset;
    hart->instret += site->retired;
    jit_fp_leave(hart, jit);
    return fp_ready;
}

// Not `done`: the hook has said where to go on. Returns `done`.
static bool end_hook(struct hart *hart, const struct jit_site *site, bool fp_ready, bool done)
{
    struct jit *jit = jit_of(hart);

    if (jit->flat)
        jit_flat_enter(jit);
    if (!done)
        return false;
    if (fp_ready)
        (void)jit_fp_enter(hart, jit, true);
    hart->pc -= site->offset;
    hart->instret -= site->retired;
    return true;
}

// Of a checked hart: false when the access is not made, and the hook has said where to go on.
static bool allowed(struct hart *hart, const struct jit_site *site, uint64_t pointer,
                    uint64_t bytes, enum hart_access kind)
{
    bool fp_ready;

    if (!hart->check || hart_check_is_fine(hart, pointer, bytes))
        return true;
    fp_ready = begin_hook(hart, site);
    return end_hook(hart, site, fp_ready, hart_check_access(hart, pointer, bytes, kind));
}

// A block was made for pointers of another sort: the next will be made for all sorts.
static void note_strike(struct hart *hart, const struct jit_site *site)
{
    const unsigned strikes_max = 4;
    struct jit_site *mine = (struct jit_site *)site;

    if (++mine->strikes != strikes_max)
        return;
    jit_set_mixed(jit_of(hart), hart->pc + site->offset);
    jit_cache_retire(jit_of(hart), site->block);
}

// Whether code behind the access relies on what its pointer was not.
static bool must_leave(struct hart *hart, const struct jit_site *site, uint64_t pointer)
{
    const struct jit *jit = jit_of(hart);

    if (!jit->check || !jit->flat)
        return false;
    if (site->leaves && site->helper != jit_help_fp_load)
        note_strike(hart, site);
    return site->leaves || pointer % isa_op_access_bytes(site->insn.op);
}

// After the access: true to go on behind it.
static bool accessed(struct hart *hart, const struct jit_site *site, uint64_t gva, bool store)
{
    struct jit *jit = jit_of(hart);

    if (must_leave(hart, site, gva)) {
        if (hart_check_is_unwinding(&site->insn))
            hart_check_unwound(hart);
        hart->pc += site->offset + site->insn.length;
        hart->instret += site->retired + 1;
        return false;
    }

    if (!jit->windows || !(jit_variant(hart, jit) & JIT_WINDOW) ||
        jit_windows_missed(hart, jit, site, gva, isa_op_access_bytes(site->insn.op), store))
        return true;
    hart->pc += site->offset + site->insn.length;
    hart->instret += site->retired + 1;
    return false;
}

bool jit_help_load(struct hart *hart, const struct jit_site *site)
{
    uint64_t gva = address_of(hart, site), value;

    if (!allowed(hart, site, gva, isa_op_access_bytes(site->insn.op), HART_LOAD))
        return false;
    if (!hart_load(hart, gva, isa_op_access_bytes(site->insn.op), &value))
        return take_trap(hart, site);
    write_loaded(hart, site, value);
    return accessed(hart, site, gva, false);
}

bool jit_help_store(struct hart *hart, const struct jit_site *site)
{
    bool fp = isa_op_flags(site->insn.op) & ISA_FRS2;
    uint64_t value = fp ? hart->f[site->insn.rs2] : hart->x[site->insn.rs2];
    uint64_t gva = address_of(hart, site);

    if (!allowed(hart, site, gva, isa_op_access_bytes(site->insn.op), HART_STORE))
        return false;
    if (!hart_store(hart, gva, isa_op_access_bytes(site->insn.op), value))
        return take_trap(hart, site);
    return accessed(hart, site, gva, true);
}

bool jit_help_cache_block(struct hart *hart, const struct jit_site *site)
{
    const struct isa_insn *insn = &site->insn;

    if (insn->op == ISA_CBO_ZERO &&
        !allowed(hart, site, hart->x[insn->rs1], HART_CACHE_BLOCK_BYTES, HART_STORE))
        return false;
    if (!hart_cache_block(hart, insn->op, insn->raw, hart->x[insn->rs1]))
        return take_trap(hart, site);
    return true;
}

bool jit_help_allowed(struct hart *hart, const struct jit_site *site, uint64_t bytes,
                      enum hart_access kind)
{
    return allowed(hart, site, hart->x[site->insn.rs1], bytes, kind);
}

// ---- Calls of checked harts

// The hook may fork, after which no translated code but the thunks is what it was.
bool jit_help_taken(struct hart *hart, const struct jit_site *site)
{
    struct jit *jit = jit_of(hart);
    uint64_t drops = jit->stats.drops;

    (void)begin_hook(hart, site);
    hart_check_taken(hart);
    if (jit->flat)
        jit_flat_enter(jit);
    return jit->stats.drops == drops;
}

bool jit_help_return(struct hart *hart, const struct jit_site *site)
{
    bool fp_ready = begin_hook(hart, site);

    return end_hook(hart, site, fp_ready, hart_check_return(hart));
}

bool jit_help_unwound(struct hart *hart, const struct jit_site *site)
{
    (void)site;
    hart_check_unwound(hart);
    return true;
}

// ---- SYSTEM

static inline bool wanted(const struct hart *hart)
{
    return atomic_load_explicit(&hart->attention, memory_order_relaxed) != 0;
}

// The operation on the CSR, and whether rs1 is the operand itself.
static enum isa_op csr_kind(enum isa_op op, bool *immediate)
{
    *immediate = op == ISA_CSRRWI || op == ISA_CSRRSI || op == ISA_CSRRCI;
    switch (op) {
    case ISA_CSRRW:
    case ISA_CSRRWI:
        return ISA_CSRRW;
    case ISA_CSRRS:
    case ISA_CSRRSI:
        return ISA_CSRRS;
    default:
        return ISA_CSRRC;
    }
}

// False: exception recorded.
static bool execute_csr(struct hart *hart, const struct isa_insn *insn)
{
    bool immediate;
    enum isa_op kind = csr_kind(insn->op, &immediate);
    bool reads = kind != ISA_CSRRW || insn->rd != 0, writes = kind == ISA_CSRRW || insn->rs1 != 0;
    uint64_t operand = immediate ? insn->rs1 : hart->x[insn->rs1], old;

    if (!hart_csr(hart, kind, (unsigned)insn->imm, reads, writes, operand, insn->raw, &old))
        return false;
    if (reads && insn->rd != 0)
        hart->x[insn->rd] = old;
    return true;
}

// The block goes on behind it unless translations, or how memory is reached, changed.
bool jit_help_csr(struct hart *hart, const struct jit_site *site)
{
    uint64_t page_gva = hart->pc, generation = jit_of(hart)->generation;
    unsigned variant = jit_variant(hart, jit_of(hart));

    hart->pc += site->offset;
    hart->instret += site->retired;
    if (site->insn.imm <= ISA_CSR_FCSR)
        jit_fp_leave(hart, jit_of(hart));
    if (!execute_csr(hart, &site->insn)) {
        take_pending(hart);
        return false;
    }
    hart->instret++;
    if ((hart->mstatus & HART_MSTATUS_FS) != HART_MSTATUS_FS)
        jit_of(hart)->fp_ready = false;
    if (jit_of(hart)->generation != generation || jit_variant(hart, jit_of(hart)) != variant ||
        wanted(hart)) {
        hart->pc += site->insn.length;
        return false;
    }
    hart->pc = page_gva;
    return true;
}

bool jit_help_system(struct hart *hart, const struct jit_site *site)
{
    hart->pc += site->offset;
    hart->instret += site->retired;
    if (hart_system(hart, &site->insn))
        hart->instret++;
    else
        take_pending(hart);
    return false;
}

// ---- Integer operations that are rare, or that not every processor has

bool jit_help_integer(struct hart *hart, const struct jit_site *site)
{
    const struct isa_insn *insn = &site->insn;

    write_x(hart, site,
            hart_bits(insn->op, hart->x[insn->rs1], hart->x[insn->rs2], (unsigned)insn->imm));
    return true;
}
