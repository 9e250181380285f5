// SPDX-License-Identifier: BSD-2-Clause
// Translation of atomics: locked instructions of the host on what the soft TLB has, naturally
// aligned; helpers do the rest. Order is what the interpreter says it is: locked instructions are
// full barriers, a load is an acquire, and LR with rl is behind a barrier.
//
// A flat hart's are at gs: as its loads and stores, and may fault.
//
// A reservation is on a guest-physical address. Inline it is derived from the host's address, which
// works where that is in the RAM that the last LR of the helper was in; there mostly is one only.
#include "jit/helpers.h"
#include "jit/translator.h"

// ---- Helpers

static void *atomic_hva(struct hart *hart, uint64_t gva, unsigned width_bytes)
{
    const struct hart_tlb_entry *entry = &hart->tlb[hart_tlb_index(gva)];

    if (BASE_LIKELY(entry->store == (gva & ~(uint64_t)(MEMORY_PAGE_BYTES - 1)) &&
                    gva % width_bytes == 0))
        return hart_tlb_hva(entry, gva);
    return hart_atomic_hva(hart, gva, width_bytes, HART_STORE, NULL);
}

// From now on the inline code tells reservations in this RAM.
static void note_ram(struct hart *hart, uint64_t gpa, const void *hva)
{
    const struct memory_ram *ram = memory_find_ram(hart->memory, gpa);
    struct jit *jit = jit_of(hart);

    if (!ram || ram->hva + (gpa - ram->gpa) != hva)  // a tap shows a copy
        return;
    jit->ram_hva = ram->hva;
    jit->ram_gpa = ram->gpa;
    jit->ram_bytes = ram->length_bytes;
}

static bool load_reserved(struct hart *hart, const struct jit_site *site, unsigned width_bytes)
{
    const unsigned release = 1;
    uint64_t gpa;
    const void *place;

    if (site->insn.rm & release)
        __atomic_thread_fence(__ATOMIC_SEQ_CST);
    place = hart_atomic_hva(hart, hart->x[site->insn.rs1], width_bytes, HART_LOAD, &gpa);
    if (!place)
        return take_trap(hart, site);
    note_ram(hart, gpa, place);
    hart->reservation_gpa = gpa;
    hart->reservation_value =
        width_bytes == 4 ? (uint64_t)__atomic_load_n((const int32_t *)place, __ATOMIC_ACQUIRE)
                         : __atomic_load_n((const uint64_t *)place, __ATOMIC_ACQUIRE);
    write_x(hart, site, hart->reservation_value);
    return true;
}

static bool exchange_if(void *place, unsigned width_bytes, uint64_t expected, uint64_t value)
{
    uint32_t expected_word = (uint32_t)expected;

    if (width_bytes == 4)
        return __atomic_compare_exchange_n((uint32_t *)place, &expected_word, (uint32_t)value,
                                           false, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED);
    return __atomic_compare_exchange_n((uint64_t *)place, &expected, value, false, __ATOMIC_SEQ_CST,
                                       __ATOMIC_RELAXED);
}

static bool store_conditional(struct hart *hart, const struct jit_site *site, unsigned width_bytes)
{
    const struct isa_insn *insn = &site->insn;
    uint64_t gpa;
    void *place = hart_atomic_hva(hart, hart->x[insn->rs1], width_bytes, HART_STORE, &gpa);
    bool done;

    if (!place)
        return take_trap(hart, site);
    done = hart->reservation_gpa == gpa &&
           exchange_if(place, width_bytes, hart->reservation_value, hart->x[insn->rs2]);
    hart->reservation_gpa = HART_NO_RESERVATION;
    write_x(hart, site, !done);
    return true;
}

static uint64_t amo_word_result(enum isa_op op, uint32_t old, uint32_t operand)
{
    switch (op) {
    case ISA_AMOMIN_W:
        return (int32_t)operand < (int32_t)old ? operand : old;
    case ISA_AMOMAX_W:
        return (int32_t)operand > (int32_t)old ? operand : old;
    case ISA_AMOMINU_W:
        return operand < old ? operand : old;
    default:
        return operand > old ? operand : old;
    }
}

static uint64_t amo_double_result(enum isa_op op, uint64_t old, uint64_t operand)
{
    switch (op) {
    case ISA_AMOMIN_D:
        return (int64_t)operand < (int64_t)old ? operand : old;
    case ISA_AMOMAX_D:
        return (int64_t)operand > (int64_t)old ? operand : old;
    case ISA_AMOMINU_D:
        return operand < old ? operand : old;
    default:
        return operand > old ? operand : old;
    }
}

// Performs the operation and returns the old value.
static uint32_t amo_word(enum isa_op op, uint32_t *place, uint32_t operand)
{
    uint32_t old;

    switch (op) {
    case ISA_AMOSWAP_W:
        return __atomic_exchange_n(place, operand, __ATOMIC_SEQ_CST);
    case ISA_AMOADD_W:
        return __atomic_fetch_add(place, operand, __ATOMIC_SEQ_CST);
    case ISA_AMOXOR_W:
        return __atomic_fetch_xor(place, operand, __ATOMIC_SEQ_CST);
    case ISA_AMOAND_W:
        return __atomic_fetch_and(place, operand, __ATOMIC_SEQ_CST);
    case ISA_AMOOR_W:
        return __atomic_fetch_or(place, operand, __ATOMIC_SEQ_CST);
    default:
        old = __atomic_load_n(place, __ATOMIC_RELAXED);
        while (!__atomic_compare_exchange_n(place, &old,
                                            (uint32_t)amo_word_result(op, old, operand), false,
                                            __ATOMIC_SEQ_CST, __ATOMIC_RELAXED))
            ;
        return old;
    }
}

static uint64_t amo_double(enum isa_op op, uint64_t *place, uint64_t operand)
{
    uint64_t old;

    switch (op) {
    case ISA_AMOSWAP_D:
        return __atomic_exchange_n(place, operand, __ATOMIC_SEQ_CST);
    case ISA_AMOADD_D:
        return __atomic_fetch_add(place, operand, __ATOMIC_SEQ_CST);
    case ISA_AMOXOR_D:
        return __atomic_fetch_xor(place, operand, __ATOMIC_SEQ_CST);
    case ISA_AMOAND_D:
        return __atomic_fetch_and(place, operand, __ATOMIC_SEQ_CST);
    case ISA_AMOOR_D:
        return __atomic_fetch_or(place, operand, __ATOMIC_SEQ_CST);
    default:
        old = __atomic_load_n(place, __ATOMIC_RELAXED);
        while (!__atomic_compare_exchange_n(place, &old, amo_double_result(op, old, operand), false,
                                            __ATOMIC_SEQ_CST, __ATOMIC_RELAXED))
            ;
        return old;
    }
}

bool jit_help_atomic(struct hart *hart, const struct jit_site *site)
{
    const struct isa_insn *insn = &site->insn;
    unsigned width_bytes = isa_op_access_bytes(insn->op);
    uint64_t operand = hart->x[insn->rs2], old;
    bool lr = insn->op == ISA_LR_W || insn->op == ISA_LR_D;
    void *place;

    if (!jit_help_allowed(hart, site, width_bytes, lr ? HART_LOAD : HART_STORE))
        return false;
    if (hart->flat)
        return hart_flat_atomic(hart, insn) || take_trap(hart, site);
    if (lr)
        return load_reserved(hart, site, width_bytes);
    if (insn->op == ISA_SC_W || insn->op == ISA_SC_D)
        return store_conditional(hart, site, width_bytes);
    place = atomic_hva(hart, hart->x[insn->rs1], width_bytes);
    if (!place)
        return take_trap(hart, site);
    if (width_bytes == 4)
        old = (uint64_t)(int32_t)amo_word(insn->op, place, (uint32_t)operand);
    else
        old = amo_double(insn->op, place, operand);
    write_x(hart, site, old);
    return true;
}

// ---- Translation

struct atomic {
    unsigned width;      // 0 or W
    unsigned base;       // host register: the host's address, or of a flat hart the guest's
    uint8_t *misses[4];  // jumps to the helper, or NULL
    unsigned miss_count;
    const uint8_t *accesses[4];  // of a flat hart: where they are, at most one a miss
    unsigned access_count;
};

static void jump_to_helper(struct jit_translator *t, struct atomic *atomic,
                           enum x64_condition condition)
{
    atomic->misses[atomic->miss_count++] = x64_jcc_forward(&t->x64, condition);
}

// Plain pointers are looked up as others are: their entries are those of no object. What has no
// entry and is fine all the same, on a stack, is the helper's.
static void begin_checked(struct jit_translator *t, struct atomic *atomic, unsigned base,
                          enum hart_access kind)
{
    struct jit_access access = {.kind = kind};

    jit_check_lookup(t, &access, base, 1);
    atomic->misses[atomic->miss_count++] = access.miss;
    if (access.outside)
        atomic->misses[atomic->miss_count++] = access.outside;
    atomic->accesses[atomic->access_count++] = access.lookup;
    x64_rr(&t->x64, X64_MOV | W, X64_RDX, X64_RCX);
    atomic->base = X64_RDX;
}

// Until the access, rdx must be kept in code of a flat hart, else rax.
static struct atomic begin(struct jit_translator *t, enum hart_access kind)
{
    const unsigned bytes = isa_op_access_bytes(t->insn.op);
    struct atomic atomic = {.width = bytes == 4 ? 0 : W};
    unsigned base = source(t, t->insn.rs1, t->jit->flat ? X64_RDX : X64_RAX);

    x64_test_imm(&t->x64, base, (int32_t)bytes - 1);
    jump_to_helper(t, &atomic, X64_C_NE);
    if (t->jit->flat && t->jit->check) {
        begin_checked(t, &atomic, base, kind);
    } else if (t->jit->flat) {
        atomic.base = base;
        x64_rip(&t->x64, X64_CMP | W, base, &t->jit->window_limits[HART_TLB_U]);
        jump_to_helper(t, &atomic, X64_C_AE);
    } else {
        atomic.base = X64_RAX;
        atomic.misses[atomic.miss_count++] = jit_access_probe(t, bytes, kind);
    }
    return atomic;
}

// opcode reg, memory; behind a lock prefix if it `locks`. A flat hart's may fault: then the helper
// does the whole instruction, so that nothing may be changed before.
static void access(struct jit_translator *t, struct atomic *atomic, bool locks, unsigned opcode,
                   unsigned reg)
{
    if (t->jit->flat)
        atomic->accesses[atomic->access_count++] = t->x64.out;
    if (locks)
        x64_lock(&t->x64);
    if (t->jit->flat)
        x64_gs_rm(&t->x64, opcode, reg, atomic->base, 0, 0);
    else
        x64_rm(&t->x64, opcode, reg, atomic->base, 0);
}

// x[rd] = host, a word sign-extended.
static void finish_old(struct jit_translator *t, const struct atomic *atomic, unsigned host)
{
    if (!atomic->width && t->insn.rd)
        x64_rr(&t->x64, X64_MOVSXD, host, host);
    finish(t, host);
}

static void end(struct jit_translator *t, const struct atomic *atomic)
{
    struct jit_site *site = jit_site_add(t, jit_help_atomic);

    for (unsigned i = 0; i < BASE_COUNT_OF(atomic->misses); i++)
        if (i < atomic->access_count)
            jit_access_miss(t, atomic->misses[i], jit_help_atomic, atomic->accesses[i]);
        else if (atomic->misses[i])
            jit_stub_call(t, site, atomic->misses[i]);
}

// amoswap, amoadd: one instruction that leaves the old value in its register operand.
static void exchange(struct jit_translator *t, unsigned opcode)
{
    struct atomic atomic = begin(t, HART_STORE);

    load_x(t, X64_RCX, t->insn.rs2);
    access(t, &atomic, true, opcode | atomic.width, X64_RCX);
    finish_old(t, &atomic, X64_RCX);
    end(t, &atomic);
}

// Around the computation of rcx from rax, the old value.
static const uint8_t *loop_begin(struct jit_translator *t, struct atomic *atomic)
{
    if (atomic->base == X64_RAX) {
        x64_rr(&t->x64, X64_MOV | W, X64_RDX, X64_RAX);
        atomic->base = X64_RDX;
    }
    access(t, atomic, false, X64_MOV | atomic->width, X64_RAX);
    return x64_here(&t->x64);
}

static void loop_end(struct jit_translator *t, struct atomic *atomic, const uint8_t *loop)
{
    access(t, atomic, true, X64_CMPXCHG | atomic->width, X64_RCX);
    x64_jcc(&t->x64, X64_C_NE, loop);
    finish_old(t, atomic, X64_RAX);
    end(t, atomic);
}

// amoand, amoor, amoxor; `to_memory` is the form that needs no loop, when nobody wants the old
// value.
static void combine(struct jit_translator *t, unsigned opcode, unsigned to_memory)
{
    struct atomic atomic = begin(t, HART_STORE);
    const uint8_t *loop;

    if (t->insn.rd == 0) {
        load_x(t, X64_RCX, t->insn.rs2);
        access(t, &atomic, true, to_memory | atomic.width, X64_RCX);
        end(t, &atomic);
        return;
    }
    loop = loop_begin(t, &atomic);
    load_x(t, X64_RCX, t->insn.rs2);
    x64_rr(&t->x64, opcode | atomic.width, X64_RCX, X64_RAX);
    loop_end(t, &atomic, loop);
}

// The old value stays where `keeps` is what the operand compares to it as.
static void select_one(struct jit_translator *t, enum x64_condition keeps)
{
    struct atomic atomic = begin(t, HART_STORE);
    const uint8_t *loop = loop_begin(t, &atomic);

    load_x(t, X64_RCX, t->insn.rs2);
    x64_rr(&t->x64, X64_CMP | atomic.width, X64_RCX, X64_RAX);
    x64_rr(&t->x64, X64_CMOV(keeps) | atomic.width, X64_RCX, X64_RAX);
    loop_end(t, &atomic, loop);
}

// rcx = the guest-physical address for the host's in rax.
static void find_gpa(struct jit_translator *t, struct atomic *atomic)
{
    x64_rr(&t->x64, X64_MOV | W, X64_RCX, X64_RAX);
    x64_rip(&t->x64, X64_SUB | W, X64_RCX, &t->jit->ram_hva);
    x64_rip(&t->x64, X64_CMP | W, X64_RCX, &t->jit->ram_bytes);
    jump_to_helper(t, atomic, X64_C_AE);
    x64_rip(&t->x64, X64_ADD | W, X64_RCX, &t->jit->ram_gpa);
}

static void reserve(struct jit_translator *t)
{
    const unsigned release = 1;
    struct atomic atomic;
    unsigned gpa = X64_RCX;

    if (t->insn.rm & release)
        x64_full_fence(&t->x64);
    atomic = begin(t, HART_LOAD);
    if (t->jit->flat)
        gpa = atomic.base;
    else
        find_gpa(t, &atomic);
    access(t, &atomic, false, atomic.width ? X64_MOV | W : X64_MOVSXD, X64_RAX);
    x64_rm(&t->x64, X64_STORE_64, gpa, X64_RBP, HART_FIELD(reservation_gpa));
    x64_rm(&t->x64, X64_STORE_64, X64_RAX, X64_RBP, HART_FIELD(reservation_value));
    finish(t, X64_RAX);
    end(t, &atomic);
}

// x[rd] = whether flags say that something was different.
static void finish_conditional(struct jit_translator *t, const struct atomic *atomic)
{
    x64_setcc(&t->x64, X64_C_NE, X64_RAX);
    x64_rr(&t->x64, X64_MOVZX_8, X64_RAX, X64_RAX);
    finish(t, X64_RAX);
    end(t, atomic);
}

// Memory is asked for the value that was reserved only if the place is the one that was: flags tell
// of both alike.
static void store_if_reserved(struct jit_translator *t)
{
    struct atomic atomic = begin(t, HART_STORE);
    struct x64 *x64 = &t->x64;
    uint8_t *elsewhere;

    find_gpa(t, &atomic);
    x64_rr(x64, X64_MOV | W, X64_RDX, X64_RAX);
    atomic.base = X64_RDX;
    x64_rm(x64, X64_MOV | W, X64_RAX, X64_RBP, HART_FIELD(reservation_value));
    x64_rm(x64, X64_CMP | W, X64_RCX, X64_RBP, HART_FIELD(reservation_gpa));
    x64_store_imm(x64, X64_RBP, HART_FIELD(reservation_gpa), (int32_t)HART_NO_RESERVATION);
    elsewhere = x64_jcc_forward(x64, X64_C_NE);
    load_x(t, X64_RCX, t->insn.rs2);
    access(t, &atomic, true, X64_CMPXCHG | atomic.width, X64_RCX);
    x64_bind(x64, elsewhere);
    finish_conditional(t, &atomic);
}

// The reservation is needed until the access has not faulted. Without one the helper finds out
// whether the place may be stored to.
static void store_if_reserved_flat(struct jit_translator *t)
{
    struct atomic atomic = begin(t, HART_STORE);
    struct x64 *x64 = &t->x64;

    x64_rm(x64, X64_CMP | W, atomic.base, X64_RBP, HART_FIELD(reservation_gpa));
    jump_to_helper(t, &atomic, X64_C_NE);
    x64_rm(x64, X64_MOV | W, X64_RAX, X64_RBP, HART_FIELD(reservation_value));
    load_x(t, X64_RCX, t->insn.rs2);
    access(t, &atomic, true, X64_CMPXCHG | atomic.width, X64_RCX);
    x64_store_imm(x64, X64_RBP, HART_FIELD(reservation_gpa), (int32_t)HART_NO_RESERVATION);
    finish_conditional(t, &atomic);
}

// clang-format off
bool jit_translate_atomic(struct jit_translator *t)
{
    if (t->jit->check && !t->jit->flat && isa_op_flags(t->insn.op) & ISA_ATOMIC) {
        jit_call_helper(t, jit_help_atomic);
        return true;
    }
    switch (t->insn.op) {
    case ISA_LR_W: case ISA_LR_D: reserve(t); break;
    case ISA_SC_W: case ISA_SC_D:
        if (t->jit->flat)
            store_if_reserved_flat(t);
        else
            store_if_reserved(t);
        break;
    case ISA_AMOSWAP_W: case ISA_AMOSWAP_D: exchange(t, X64_XCHG); break;
    case ISA_AMOADD_W: case ISA_AMOADD_D: exchange(t, X64_XADD); break;
    case ISA_AMOAND_W: case ISA_AMOAND_D: combine(t, X64_AND, X64_AND_TO); break;
    case ISA_AMOOR_W: case ISA_AMOOR_D: combine(t, X64_OR, X64_OR_TO); break;
    case ISA_AMOXOR_W: case ISA_AMOXOR_D: combine(t, X64_XOR, X64_XOR_TO); break;
    case ISA_AMOMIN_W: case ISA_AMOMIN_D: select_one(t, X64_C_GE); break;
    case ISA_AMOMAX_W: case ISA_AMOMAX_D: select_one(t, X64_C_LE); break;
    case ISA_AMOMINU_W: case ISA_AMOMINU_D: select_one(t, X64_C_AE); break;
    case ISA_AMOMAXU_W: case ISA_AMOMAXU_D: select_one(t, X64_C_BE); break;
    default: return false;
    }
    return true;
}
// clang-format on
