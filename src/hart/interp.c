// SPDX-License-Identifier: BSD-2-Clause
// The interpreter: executes pre-decoded blocks (interp_block.h) with threaded dispatch: each
// operation holds the address of its handler, and each handler ends with the jump to the next one,
// so that the host's branch predictor sees one indirect jump a handler.
//
// It is the reference for other engines, so where the specification leaves a choice, this is ours:
// - SC succeeds when memory holds the value that LR read (hart.h), so a store of the same value in
//   between is not noticed, and width is not compared. Traps and xRET leave a reservation alone;
//   any SC takes it away.
// - A failing SC raises the exceptions of a store, misaligned or page fault.
// - FS becomes Dirty with every write of an FP register, and with FP exception flags raised.
// - An instruction that traps does not retire; ECALL and EBREAK trap (an ECALL that the built-in
//   SBI serves retires).
//
// Memory order. Guest loads and stores are single host accesses, made in program order. x86 keeps
// all their orders but that of a store before a load, so of RVWMO's fences only those that ask for
// this one cost anything (fence_orders_store_load); AMOs and SC are locked instructions, which are
// full barriers, and of aq and rl on LR only rl is not given for nothing.
//
// Speed: 700 to 780 million instructions a second on a CoreMark-like mix, 450 over a Debian boot
// with forks and gzip (AMD EPYC, gcc 12 -O3; clang 14 is 10 to 15% slower). Measured and dropped:
// - ending blocks at conditional branches: 4% slower on the mix;
// - fused pairs: in a boot no pair is more frequent than ld+ld with 4.9%, and of those that pass a
//   result on (slli+srli, srli+add, slli+add, sltu+add) none makes 1%;
// - a cache of blocks by virtual pc in front of the buckets, and trying an exit's old target first
//   after a flush: each less than 1% of a boot; what finding costs is cold blocks, not steps.
#include <errno.h>
#include <stdlib.h>

#include "hart/interp_block.h"

// ---- Integer operations that take more than an expression

static uint64_t divide(int64_t a, int64_t b)
{
    return b == 0 ? UINT64_MAX : b == -1 ? -(uint64_t)a : (uint64_t)(a / b);
}

static uint64_t remainder_of(int64_t a, int64_t b)
{
    return b == 0 ? (uint64_t)a : b == -1 ? 0 : (uint64_t)(a % b);
}

static uint64_t divide_unsigned(uint64_t a, uint64_t b)
{
    return b == 0 ? UINT64_MAX : a / b;
}

static uint64_t remainder_unsigned(uint64_t a, uint64_t b)
{
    return b == 0 ? a : a % b;
}

static uint64_t multiply_high(int64_t a, int64_t b)
{
    return (uint64_t)(((__int128)a * b) >> 64);
}

static uint64_t multiply_high_signed_unsigned(int64_t a, uint64_t b)
{
    return (uint64_t)(((__int128)a * (__int128)b) >> 64);
}

static uint64_t multiply_high_unsigned(uint64_t a, uint64_t b)
{
    return (uint64_t)(((unsigned __int128)a * b) >> 64);
}

static uint64_t rotate_right(uint64_t value, unsigned amount)
{
    return value >> (amount & 63) | value << (-amount & 63);
}

static uint32_t rotate_right_word(uint32_t value, unsigned amount)
{
    return value >> (amount & 31) | value << (-amount & 31);
}

static int64_t word(uint64_t value)
{
    return (int32_t)value;
}

// ---- Memory

// Guest memory as the host may access it: in one access however it is aligned, and never elided or
// repeated by the compiler, since other harts store to it.
typedef volatile uint8_t guest_u8;
typedef volatile int8_t guest_s8;
typedef volatile uint16_t guest_u16 __attribute__((aligned(1)));
typedef volatile int16_t guest_s16 __attribute__((aligned(1)));
typedef volatile uint32_t guest_u32 __attribute__((aligned(1)));
typedef volatile int32_t guest_s32 __attribute__((aligned(1)));
typedef volatile uint64_t guest_u64 __attribute__((aligned(1)));

static inline const struct hart_tlb_entry *tlb_entry(const struct hart *hart, uint64_t gva)
{
    return &hart->tlb[hart_tlb_index(gva)];
}

// The page of an access's last byte, to be compared with a tag: an access that crosses the page's
// end never hits, because the next page's tag lies at another index.
static inline uint64_t last_page(uint64_t gva, unsigned width_bytes)
{
    return (gva + width_bytes - 1) & ~(uint64_t)(MEMORY_PAGE_BYTES - 1);
}

static inline void *amo_hva(struct hart *hart, uint64_t gva, unsigned width_bytes)
{
    const struct hart_tlb_entry *entry = tlb_entry(hart, gva);

    if (BASE_LIKELY(entry->store == last_page(gva, width_bytes) && gva % width_bytes == 0))
        return hart_tlb_hva(entry, gva);
    return hart_atomic_hva(hart, gva, width_bytes, HART_STORE, NULL);
}

// Atomic minimum or maximum; returns the old value.
#define FETCH_SELECT(name, type, better)                                                           \
    static type name(type *place, type operand)                                                    \
    {                                                                                              \
        type old = __atomic_load_n(place, __ATOMIC_RELAXED);                                       \
                                                                                                   \
        while (!__atomic_compare_exchange_n(place, &old, operand better old ? operand : old,       \
                                            false, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED))            \
            ;                                                                                      \
        return old;                                                                                \
    }
FETCH_SELECT(fetch_min_w, int32_t, <)
FETCH_SELECT(fetch_max_w, int32_t, >)
FETCH_SELECT(fetch_minu_w, uint32_t, <)
FETCH_SELECT(fetch_maxu_w, uint32_t, >)
FETCH_SELECT(fetch_min_d, int64_t, <)
FETCH_SELECT(fetch_max_d, int64_t, >)
FETCH_SELECT(fetch_minu_d, uint64_t, <)
FETCH_SELECT(fetch_maxu_d, uint64_t, >)

// ---- Floating point

static inline bool fp_off(const struct hart *hart)
{
    return !(hart->mstatus & HART_MSTATUS_FS);
}

static inline void fp_set_dirty(struct hart *hart)
{
    hart->mstatus |= HART_MSTATUS_FS;
}

// False: illegal instruction (FS is Off, or a reserved rounding mode).
static inline bool fp_begin(const struct hart *hart, const struct interp_op *op, unsigned *rm)
{
    const unsigned dynamic = 7, max_magnitude = 4;

    *rm = FP_RM(op) == dynamic ? hart->frm : FP_RM(op);
    return !fp_off(hart) && *rm <= max_magnitude;
}

static inline uint64_t fp_compute(struct hart *hart, enum isa_op what, const struct interp_op *op,
                                  unsigned rm, uint64_t a)
{
    unsigned flags = 0;
    uint64_t result = hart_fpu(what, rm, a, hart->f[op->rs2], hart->f[FP_RS3(op)], &flags);

    if (flags) {
        hart->fflags |= flags;
        fp_set_dirty(hart);
    }
    return result;
}

// ---- SYSTEM

// hart->pc is at the instruction. False: exception recorded.
static bool execute_system(struct hart *hart, const struct interp_block *block,
                           const struct interp_op *op)
{
    struct isa_insn insn;

    isa_decode(interp_block_raw(block, op), &insn);
    return hart_system(hart, &insn);
}

static bool at_breakpoint(const struct hart *hart, uint64_t pc)
{
    for (unsigned i = 0; i < hart->breakpoint_count; i++)
        if (hart->breakpoints[i] == pc)
            return true;
    return false;
}

static inline bool wanted(const struct hart *hart)
{
    return atomic_load_explicit(&hart->attention, memory_order_relaxed) != 0;
}

// ---- Execution

#define RD hart->x[op->rd]
#define RS1 hart->x[op->rs1]
#define RS2 hart->x[op->rs2]
#define IMM ((uint64_t)(int64_t)op->imm)
#define SHAMT ((unsigned)op->imm)
#define FRD hart->f[op->rd]
#define FRS1 hart->f[op->rs1]
#define FRS2 hart->f[op->rs2]
#define WRITE_X(value) (RD = (value))
// Where x0 may be the destination: what decoding does not redirect, because it is rare.
#define WRITE_RD(value) (RD = (value), hart->x[0] = 0)
#define WRITE_FRD(value) (FRD = (value), fp_set_dirty(hart))
#define WRITE_BOXED(value) WRITE_FRD((value) | 0xffffffff00000000)  // a single, NaN-boxed: 22.2
#define SIGN_D (1ull << 63)

#define DISPATCH goto *(op->handler)
#define NEXT                                                                                       \
    do {                                                                                           \
        op++;                                                                                      \
        DISPATCH;                                                                                  \
    } while (0)
#define EXIT_OF(op) ((struct interp_exit *)((op) + 1))
#define ENTER(to)                                                                                  \
    do {                                                                                           \
        pc = target;                                                                               \
        block = (to);                                                                              \
        op = block->ops;                                                                           \
        DISPATCH;                                                                                  \
    } while (0)
// Leaves the block after `insns` instructions for op->imm from its start.
#define TAKE_EXIT(insns)                                                                           \
    do {                                                                                           \
        exit = EXIT_OF(op);                                                                        \
        target = pc + IMM;                                                                         \
        hart->instret += (insns);                                                                  \
        if (BASE_LIKELY(exit->near->epoch == interp->epoch && !wanted(hart)))                      \
            ENTER(exit->near);                                                                     \
        goto follow;                                                                               \
    } while (0)

#define ALU(id, value)                                                                             \
    op_##id : RD = (uint64_t)(value);                                                              \
    NEXT;
#define BITS(id) ALU(id, hart_bits(ISA_##id, RS1, RS2, SHAMT))
#define BRANCH(id, condition)                                                                      \
    op_##id : if (condition) TAKE_EXIT(op->rd);                                                    \
    op += 2; /* over the exit */                                                                   \
    NEXT;
#define LOAD(id, allowed, type, assign)                                                            \
    op_##id:                                                                                       \
    {                                                                                              \
        uint64_t gva = RS1 + IMM, value;                                                           \
        const struct hart_tlb_entry *entry = tlb_entry(hart, gva);                                 \
                                                                                                   \
        if (!(allowed))                                                                            \
            goto op_ILLEGAL;                                                                       \
        if (BASE_LIKELY(entry->load == last_page(gva, sizeof(type))))                              \
            value = *(const type *)hart_tlb_hva(entry, gva);                                       \
        else if (hart_load(hart, gva, sizeof(type), &value))                                       \
            value = (type)value;                                                                   \
        else                                                                                       \
            goto trap;                                                                             \
        assign(value);                                                                             \
    }                                                                                              \
    NEXT;
#define STORE(id, allowed, type, source)                                                           \
    op_##id:                                                                                       \
    {                                                                                              \
        uint64_t gva = RS1 + IMM;                                                                  \
        const struct hart_tlb_entry *entry = tlb_entry(hart, gva);                                 \
                                                                                                   \
        if (!(allowed))                                                                            \
            goto op_ILLEGAL;                                                                       \
        if (BASE_LIKELY(entry->store == last_page(gva, sizeof(type))))                             \
            *(type *)hart_tlb_hva(entry, gva) = (type)(source);                                    \
        else if (!hart_store(hart, gva, sizeof(type), source))                                     \
            goto trap;                                                                             \
    }                                                                                              \
    NEXT;
#define LR(id, type)                                                                               \
    op_##id:                                                                                       \
    {                                                                                              \
        uint64_t gpa;                                                                              \
        const type *place;                                                                         \
                                                                                                   \
        if (op->imm & 1)                                                                           \
            __atomic_thread_fence(__ATOMIC_SEQ_CST);                                               \
        place = hart_atomic_hva(hart, RS1, sizeof(type), HART_LOAD, &gpa);                         \
        if (!place)                                                                                \
            goto trap;                                                                             \
        hart->reservation_gpa = gpa;                                                               \
        hart->reservation_value = (uint64_t)__atomic_load_n(place, __ATOMIC_ACQUIRE);              \
        WRITE_RD(hart->reservation_value);                                                         \
    }                                                                                              \
    NEXT;
#define SC(id, type)                                                                               \
    op_##id:                                                                                       \
    {                                                                                              \
        uint64_t gpa;                                                                              \
        type *place = hart_atomic_hva(hart, RS1, sizeof(type), HART_STORE, &gpa);                  \
        type expected = (type)hart->reservation_value;                                             \
        bool done;                                                                                 \
                                                                                                   \
        if (!place)                                                                                \
            goto trap;                                                                             \
        done = hart->reservation_gpa == gpa &&                                                     \
               __atomic_compare_exchange_n(place, &expected, (type)RS2, false, __ATOMIC_SEQ_CST,   \
                                           __ATOMIC_RELAXED);                                      \
        hart->reservation_gpa = HART_NO_RESERVATION;                                               \
        WRITE_RD(!done);                                                                           \
    }                                                                                              \
    NEXT;
// `fetch` is a function or macro of the place and the operand that returns the old value. Words are
// sign-extended whether compared as signed or not.
#define AMO_FETCH(id, type, sign_extend, fetch, ...)                                               \
    op_##id:                                                                                       \
    {                                                                                              \
        type *place = amo_hva(hart, RS1, sizeof(type));                                            \
                                                                                                   \
        if (!place)                                                                                \
            goto trap;                                                                             \
        WRITE_RD((uint64_t)(sign_extend)fetch(place, (type)RS2, ##__VA_ARGS__));                   \
    }                                                                                              \
    NEXT;
#define AMO_W(id, type, fetch, ...) AMO_FETCH(id, type, int32_t, fetch, ##__VA_ARGS__)
#define AMO_D(id, type, fetch, ...) AMO_FETCH(id, type, int64_t, fetch, ##__VA_ARGS__)
#define CACHE_BLOCK(id)                                                                            \
    op_##id : if (!hart_cache_block(hart, ISA_##id, interp_block_raw(block, op), RS1)) goto trap;  \
    NEXT;
#define FP_ON BASE_LIKELY(!fp_off(hart))
#define FP_COMPUTE(id, from, assign)                                                               \
    op_##id:                                                                                       \
    {                                                                                              \
        unsigned rm;                                                                               \
                                                                                                   \
        if (BASE_UNLIKELY(!fp_begin(hart, op, &rm)))                                               \
            goto op_ILLEGAL;                                                                       \
        assign(fp_compute(hart, ISA_##id, op, rm, from));                                          \
    }                                                                                              \
    NEXT;
#define FP(id) FP_COMPUTE(id, FRS1, WRITE_FRD)
#define FP_TO_X(id) FP_COMPUTE(id, FRS1, WRITE_RD)
#define FP_FROM_X(id) FP_COMPUTE(id, RS1, WRITE_FRD)
#define FP_MOVE(id, assign, value)                                                                 \
    op_##id : if (!FP_ON) goto op_ILLEGAL;                                                         \
    assign(value);                                                                                 \
    NEXT;
// The near link is good after a write as well, unless that changed translation.
#define CSR(id, kind, operand, reads, writes)                                                      \
    op_##id:                                                                                       \
    {                                                                                              \
        uint64_t old, stamp = interp->stamp;                                                       \
                                                                                                   \
        hart->instret += op->rs2 - 1u;                                                             \
        hart->pc = pc + op->pc * 2u;                                                               \
        if (!hart_csr(hart, ISA_##kind, (unsigned)op->imm, reads, writes, operand,                 \
                      interp_block_raw(block, op), &old))                                          \
            goto trap_taken;                                                                       \
        if (reads)                                                                                 \
            WRITE_RD(old);                                                                         \
        hart->instret++;                                                                           \
        exit = EXIT_OF(op);                                                                        \
        target = pc + block->length_bytes;                                                         \
        if (BASE_UNLIKELY(interp->stamp != stamp)) {                                               \
            hart->pc = target;                                                                     \
            goto resume;                                                                           \
        }                                                                                          \
        if (BASE_LIKELY(exit->near->epoch == interp->epoch && !wanted(hart)))                      \
            ENTER(exit->near);                                                                     \
        goto follow;                                                                               \
    }

// Executes from `first`, or from hart->pc when that is NULL, until attention is asked for; when
// `first` is given, only that one block. Without a hart, returns the table of handlers instead,
// which is where the labels can be seen.
//
// `pc` is the address of the block's start, hart->pc is behind until the block is left for good.
// hart->instret counts up to the block's start.
static const void *const *execute(struct hart *hart, struct interp *interp,
                                  struct interp_block *first)
{
    // Every operation of the instruction table needs a label here, or this does not compile.
    // clang-format off
    static const void *const handlers[INTERP_HANDLER_COUNT] = {
        [ISA_ILLEGAL] = &&op_ILLEGAL,
#define ISA_X(id, ...) [ISA_##id] = &&op_##id,
        ISA_OP_LIST(ISA_X)
#undef ISA_X
#define INTERP_X(id) [INTERP_##id] = &&op_##id,
        INTERP_HANDLER_LIST(INTERP_X)
#undef INTERP_X
    };
    // clang-format on
    struct interp_block *block = first;
    const struct interp_op *op;
    struct interp_exit *exit;
    uint64_t pc, target;

    if (!hart)
        return handlers;
    if (!first)
        goto resume;
    target = hart->pc;
    ENTER(first);

    // The hart is at hart->pc, perhaps in another privilege or address space than before.
resume:
    interp_cache_restamp(hart, interp);
    if (first || wanted(hart))
        return NULL;
    target = hart->pc;
    block = interp_block_find(hart, interp, target);
    if (!block)
        goto trap_taken;
    ENTER(block);

    // `exit` was taken to `target`, and its near link is not known to be good.
follow:
    hart->pc = target;
    if (first || wanted(hart))
        return NULL;
    if (BASE_LIKELY(exit->far_pc == target && exit->far_stamp == interp->stamp))
        ENTER(exit->far);
    block = interp_block_follow(hart, interp, block, exit, pc, target);
    if (!block)
        goto trap_taken;
    ENTER(block);

    // The instruction at `op` has raised an exception.
trap:
    hart->pc = pc + op->pc * 2u;
    hart->instret += interp_block_retired(block, op);
trap_taken:
    hart_trap_pending(hart);
    goto resume;

op_ILLEGAL:
    hart_raise(hart, HART_CAUSE_ILLEGAL, interp_block_raw(block, op));
    goto trap;

    // clang-format off

    // ---- RV64I
    ALU(MV, RS1)
    ALU(LUI, IMM)
    ALU(AUIPC, pc + op->pc * 2u + IMM)
    ALU(ADDI, RS1 + IMM)
    ALU(SLTI, (int64_t)RS1 < (int64_t)IMM)
    ALU(SLTIU, RS1 < IMM)
    ALU(XORI, RS1 ^ IMM)
    ALU(ORI, RS1 | IMM)
    ALU(ANDI, RS1 & IMM)
    ALU(SLLI, RS1 << SHAMT)
    ALU(SRLI, RS1 >> SHAMT)
    ALU(SRAI, (int64_t)RS1 >> SHAMT)
    ALU(ADD, RS1 + RS2)
    ALU(SUB, RS1 - RS2)
    ALU(SLL, RS1 << (RS2 & 63))
    ALU(SLT, (int64_t)RS1 < (int64_t)RS2)
    ALU(SLTU, RS1 < RS2)
    ALU(XOR, RS1 ^ RS2)
    ALU(SRL, RS1 >> (RS2 & 63))
    ALU(SRA, (int64_t)RS1 >> (RS2 & 63))
    ALU(OR, RS1 | RS2)
    ALU(AND, RS1 & RS2)
    ALU(ADDIW, word(RS1 + IMM))
    ALU(SLLIW, word(RS1 << SHAMT))
    ALU(SRLIW, word((uint32_t)RS1 >> SHAMT))
    ALU(SRAIW, (int32_t)RS1 >> SHAMT)
    ALU(ADDW, word(RS1 + RS2))
    ALU(SUBW, word(RS1 - RS2))
    ALU(SLLW, word(RS1 << (RS2 & 31)))
    ALU(SRLW, word((uint32_t)RS1 >> (RS2 & 31)))
    ALU(SRAW, (int32_t)RS1 >> (RS2 & 31))

    BRANCH(BEQ, RS1 == RS2)
    BRANCH(BNE, RS1 != RS2)
    BRANCH(BLT, (int64_t)RS1 < (int64_t)RS2)
    BRANCH(BGE, (int64_t)RS1 >= (int64_t)RS2)
    BRANCH(BLTU, RS1 < RS2)
    BRANCH(BGEU, RS1 >= RS2)
    BRANCH(BEQZ, RS1 == 0)
    BRANCH(BNEZ, RS1 != 0)

op_JAL:
    RD = pc + block->length_bytes;
op_J:
    TAKE_EXIT(op->rs2);
op_JALR:
    target = (RS1 + IMM) & ~(uint64_t)1;
    RD = pc + block->length_bytes;
    goto indirect;
op_JR:
    target = (RS1 + IMM) & ~(uint64_t)1;
indirect:
    exit = EXIT_OF(op);
    hart->instret += op->rs2;
    if (BASE_LIKELY(exit->far_pc == target && exit->far_stamp == interp->stamp && !wanted(hart)))
        ENTER(exit->far);
    goto follow;
op_NEXT:
    TAKE_EXIT(op->rs2);

    LOAD(LB, true, guest_s8, WRITE_X)
    LOAD(LH, true, guest_s16, WRITE_X)
    LOAD(LW, true, guest_s32, WRITE_X)
    LOAD(LD, true, guest_u64, WRITE_X)
    LOAD(LBU, true, guest_u8, WRITE_X)
    LOAD(LHU, true, guest_u16, WRITE_X)
    LOAD(LWU, true, guest_u32, WRITE_X)
op_LOAD_X0: {
    uint64_t ignored;

    if (!hart_load(hart, RS1 + IMM, op->rd, &ignored))
        goto trap;
    NEXT;
}
    STORE(SB, true, guest_u8, RS2)
    STORE(SH, true, guest_u16, RS2)
    STORE(SW, true, guest_u32, RS2)
    STORE(SD, true, guest_u64, RS2)

    // ---- Of checked harts; hart->pc is told before a hook is called
op_CHECK: {
    uint64_t retired;

    if (BASE_LIKELY(hart_check_is_fine(hart, RS1 + IMM, op->rd)))
        NEXT;
    retired = interp_block_retired(block, op);
    hart->pc = pc + op->pc * 2u;
    hart->instret += retired;
    if (!hart_check_access(hart, RS1 + IMM, op->rd, (enum hart_access)op->rs2))
        goto resume;
    hart->instret -= retired;
    NEXT;
}
op_CALL:
    hart_check_call(hart, pc + block->length_bytes);
    NEXT;
op_RETURN:
    hart->pc = pc + op->pc * 2u;
    hart->instret += op->rs2;
    if (!hart_check_return(hart))
        goto resume;
    hart->instret -= op->rs2;
    NEXT;
op_UNWOUND:
    hart_check_unwound(hart);
    NEXT;
op_TAKEN:
    hart->pc = pc + op->pc * 2u;
    hart->instret += op->rs2;
    hart_check_taken(hart);
    goto resume;

    // Decoding leaves out all fences, hints and prefetches but the fence that is needed.
op_FENCE:
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
op_PAUSE:
op_PREFETCH_I:
op_PREFETCH_R:
op_PREFETCH_W:
    NEXT;

    // ---- SYSTEM, Zicsr, Zicbom, Zicboz, Zawrs, Svinval
op_ECALL:
op_EBREAK:
op_FENCE_I:
op_WRS_NTO:
op_WRS_STO:
op_MRET:
op_WFI:
op_SRET:
op_SFENCE_VMA:
op_SINVAL_VMA:
op_SFENCE_W_INVAL:
op_SFENCE_INVAL_IR:
    hart->instret += op->rs2 - 1u;
    hart->pc = pc + op->pc * 2u;
    if (!execute_system(hart, block, op))
        goto trap_taken;
    hart->instret++;
    goto resume;
    CSR(CSRRW, CSRRW, RS1, op->rd != 0, true)
    CSR(CSRRS, CSRRS, RS1, true, op->rs1 != 0)
    CSR(CSRRC, CSRRC, RS1, true, op->rs1 != 0)
    CSR(CSRRWI, CSRRW, op->rs1, op->rd != 0, true)
    CSR(CSRRSI, CSRRS, op->rs1, true, op->rs1 != 0)
    CSR(CSRRCI, CSRRC, op->rs1, true, op->rs1 != 0)
    CACHE_BLOCK(CBO_INVAL)
    CACHE_BLOCK(CBO_CLEAN)
    CACHE_BLOCK(CBO_FLUSH)
    CACHE_BLOCK(CBO_ZERO)

op_BREAK:
    target = pc + op->pc * 2u;
    if (!at_breakpoint(hart, target))
        NEXT;
    hart->pc = target;
    hart->instret += interp_block_retired(block, op);
    atomic_fetch_or(&hart->attention, HART_ATTENTION_DEBUG);
    return NULL;

    // ---- M
    ALU(MUL, RS1 * RS2)
    ALU(MULH, multiply_high((int64_t)RS1, (int64_t)RS2))
    ALU(MULHSU, multiply_high_signed_unsigned((int64_t)RS1, RS2))
    ALU(MULHU, multiply_high_unsigned(RS1, RS2))
    ALU(DIV, divide((int64_t)RS1, (int64_t)RS2))
    ALU(DIVU, divide_unsigned(RS1, RS2))
    ALU(REM, remainder_of((int64_t)RS1, (int64_t)RS2))
    ALU(REMU, remainder_unsigned(RS1, RS2))
    ALU(MULW, word(RS1 * RS2))
    ALU(DIVW, word(divide(word(RS1), word(RS2))))
    ALU(DIVUW, word(divide_unsigned((uint32_t)RS1, (uint32_t)RS2)))
    ALU(REMW, word(remainder_of(word(RS1), word(RS2))))
    ALU(REMUW, word(remainder_unsigned((uint32_t)RS1, (uint32_t)RS2)))

    // ---- A
    LR(LR_W, int32_t)
    LR(LR_D, int64_t)
    SC(SC_W, int32_t)
    SC(SC_D, int64_t)
op_FLAT_ATOMIC: {
    struct isa_insn insn;

    isa_decode(interp_block_raw(block, op), &insn);
    if (!hart_flat_atomic(hart, &insn))
        goto trap;
    NEXT;
}
    AMO_W(AMOSWAP_W, int32_t, __atomic_exchange_n, __ATOMIC_SEQ_CST)
    AMO_W(AMOADD_W, int32_t, __atomic_fetch_add, __ATOMIC_SEQ_CST)
    AMO_W(AMOXOR_W, int32_t, __atomic_fetch_xor, __ATOMIC_SEQ_CST)
    AMO_W(AMOAND_W, int32_t, __atomic_fetch_and, __ATOMIC_SEQ_CST)
    AMO_W(AMOOR_W, int32_t, __atomic_fetch_or, __ATOMIC_SEQ_CST)
    AMO_W(AMOMIN_W, int32_t, fetch_min_w)
    AMO_W(AMOMAX_W, int32_t, fetch_max_w)
    AMO_W(AMOMINU_W, uint32_t, fetch_minu_w)
    AMO_W(AMOMAXU_W, uint32_t, fetch_maxu_w)
    AMO_D(AMOSWAP_D, int64_t, __atomic_exchange_n, __ATOMIC_SEQ_CST)
    AMO_D(AMOADD_D, int64_t, __atomic_fetch_add, __ATOMIC_SEQ_CST)
    AMO_D(AMOXOR_D, int64_t, __atomic_fetch_xor, __ATOMIC_SEQ_CST)
    AMO_D(AMOAND_D, int64_t, __atomic_fetch_and, __ATOMIC_SEQ_CST)
    AMO_D(AMOOR_D, int64_t, __atomic_fetch_or, __ATOMIC_SEQ_CST)
    AMO_D(AMOMIN_D, int64_t, fetch_min_d)
    AMO_D(AMOMAX_D, int64_t, fetch_max_d)
    AMO_D(AMOMINU_D, uint64_t, fetch_minu_d)
    AMO_D(AMOMAXU_D, uint64_t, fetch_maxu_d)

    // ---- F and D
    LOAD(FLW, FP_ON, guest_u32, WRITE_BOXED)
    LOAD(FLD, FP_ON, guest_u64, WRITE_FRD)
    STORE(FSW, FP_ON, guest_u32, FRS2)
    STORE(FSD, FP_ON, guest_u64, FRS2)
    FP_MOVE(FMV_X_W, WRITE_RD, word(FRS1))
    FP_MOVE(FMV_X_D, WRITE_RD, FRS1)
    FP_MOVE(FMV_W_X, WRITE_BOXED, (uint32_t)RS1)
    FP_MOVE(FMV_D_X, WRITE_FRD, RS1)
    FP_MOVE(FSGNJ_D, WRITE_FRD, (FRS1 & ~SIGN_D) | (FRS2 & SIGN_D))
    FP_MOVE(FSGNJN_D, WRITE_FRD, (FRS1 & ~SIGN_D) | (~FRS2 & SIGN_D))
    FP_MOVE(FSGNJX_D, WRITE_FRD, FRS1 ^ (FRS2 & SIGN_D))
    FP(FMADD_S)
    FP(FMSUB_S)
    FP(FNMSUB_S)
    FP(FNMADD_S)
    FP(FADD_S)
    FP(FSUB_S)
    FP(FMUL_S)
    FP(FDIV_S)
    FP(FSQRT_S)
    FP(FSGNJ_S)
    FP(FSGNJN_S)
    FP(FSGNJX_S)
    FP(FMIN_S)
    FP(FMAX_S)
    FP_TO_X(FCVT_W_S)
    FP_TO_X(FCVT_WU_S)
    FP_TO_X(FCVT_L_S)
    FP_TO_X(FCVT_LU_S)
    FP_TO_X(FCLASS_S)
    FP_TO_X(FEQ_S)
    FP_TO_X(FLT_S)
    FP_TO_X(FLE_S)
    FP_FROM_X(FCVT_S_W)
    FP_FROM_X(FCVT_S_WU)
    FP_FROM_X(FCVT_S_L)
    FP_FROM_X(FCVT_S_LU)
    FP(FMADD_D)
    FP(FMSUB_D)
    FP(FNMSUB_D)
    FP(FNMADD_D)
    FP(FADD_D)
    FP(FSUB_D)
    FP(FMUL_D)
    FP(FDIV_D)
    FP(FSQRT_D)
    FP(FMIN_D)
    FP(FMAX_D)
    FP(FCVT_S_D)
    FP(FCVT_D_S)
    FP_TO_X(FEQ_D)
    FP_TO_X(FLT_D)
    FP_TO_X(FLE_D)
    FP_TO_X(FCLASS_D)
    FP_TO_X(FCVT_W_D)
    FP_TO_X(FCVT_WU_D)
    FP_TO_X(FCVT_L_D)
    FP_TO_X(FCVT_LU_D)
    FP_FROM_X(FCVT_D_W)
    FP_FROM_X(FCVT_D_WU)
    FP_FROM_X(FCVT_D_L)
    FP_FROM_X(FCVT_D_LU)

    // ---- Zba, Zbb, Zbs
    ALU(ADD_UW, (uint32_t)RS1 + RS2)
    ALU(SH1ADD, (RS1 << 1) + RS2)
    ALU(SH2ADD, (RS1 << 2) + RS2)
    ALU(SH3ADD, (RS1 << 3) + RS2)
    ALU(SH1ADD_UW, ((uint64_t)(uint32_t)RS1 << 1) + RS2)
    ALU(SH2ADD_UW, ((uint64_t)(uint32_t)RS1 << 2) + RS2)
    ALU(SH3ADD_UW, ((uint64_t)(uint32_t)RS1 << 3) + RS2)
    ALU(SLLI_UW, (uint64_t)(uint32_t)RS1 << SHAMT)
    ALU(ANDN, RS1 & ~RS2)
    ALU(ORN, RS1 | ~RS2)
    ALU(XNOR, ~(RS1 ^ RS2))
    ALU(CLZ, RS1 ? __builtin_clzll(RS1) : 64)
    ALU(CTZ, RS1 ? __builtin_ctzll(RS1) : 64)
    ALU(CPOP, __builtin_popcountll(RS1))
    ALU(CLZW, (uint32_t)RS1 ? __builtin_clz((uint32_t)RS1) : 32)
    ALU(CTZW, (uint32_t)RS1 ? __builtin_ctz((uint32_t)RS1) : 32)
    ALU(CPOPW, __builtin_popcount((uint32_t)RS1))
    ALU(SEXT_B, (int8_t)RS1)
    ALU(SEXT_H, (int16_t)RS1)
    ALU(ZEXT_H, (uint16_t)RS1)
    ALU(MIN, (int64_t)RS1 < (int64_t)RS2 ? RS1 : RS2)
    ALU(MINU, RS1 < RS2 ? RS1 : RS2)
    ALU(MAX, (int64_t)RS1 > (int64_t)RS2 ? RS1 : RS2)
    ALU(MAXU, RS1 > RS2 ? RS1 : RS2)
    ALU(ROL, rotate_right(RS1, -(unsigned)RS2))
    ALU(ROLW, word(rotate_right_word((uint32_t)RS1, -(unsigned)RS2)))
    ALU(ROR, rotate_right(RS1, (unsigned)RS2))
    ALU(RORW, word(rotate_right_word((uint32_t)RS1, (unsigned)RS2)))
    ALU(RORI, rotate_right(RS1, SHAMT))
    ALU(RORIW, word(rotate_right_word((uint32_t)RS1, SHAMT)))
    BITS(ORC_B)
    ALU(REV8, __builtin_bswap64(RS1))
    ALU(BCLR, RS1 & ~(1ull << (RS2 & 63)))
    ALU(BEXT, RS1 >> (RS2 & 63) & 1)
    ALU(BINV, RS1 ^ 1ull << (RS2 & 63))
    ALU(BSET, RS1 | 1ull << (RS2 & 63))
    ALU(BCLRI, RS1 & ~(1ull << SHAMT))
    ALU(BEXTI, RS1 >> SHAMT & 1)
    ALU(BINVI, RS1 ^ 1ull << SHAMT)
    ALU(BSETI, RS1 | 1ull << SHAMT)

    // ---- Zbc, Zbkb, Zbkx, Zkne, Zknd, Zknh
    BITS(CLMUL)
    BITS(CLMULH)
    BITS(CLMULR)
    BITS(PACK)
    BITS(PACKH)
    BITS(PACKW)
    BITS(BREV8)
    BITS(XPERM4)
    BITS(XPERM8)
    BITS(AES64ES)
    BITS(AES64ESM)
    BITS(AES64KS1I)
    BITS(AES64KS2)
    BITS(AES64DS)
    BITS(AES64DSM)
    BITS(AES64IM)
    BITS(SHA256SUM0)
    BITS(SHA256SUM1)
    BITS(SHA256SIG0)
    BITS(SHA256SIG1)
    BITS(SHA512SUM0)
    BITS(SHA512SUM1)
    BITS(SHA512SIG0)
    BITS(SHA512SIG1)

    // clang-format on
}

// ---- The engine

static int create(struct hart *hart, void **state)
{
    struct interp *interp = calloc(1, sizeof(*interp));
    int status;

    (void)hart;
    if (!interp)
        return -ENOMEM;
    status = interp_cache_init(interp, execute(NULL, NULL, NULL));
    if (status) {
        free(interp);
        return status;
    }
    *state = interp;
    return 0;
}

static void destroy(struct hart *hart, void *state)
{
    (void)hart;
    interp_cache_fini(state);
    free(state);
}

static void run(struct hart *hart, void *state)
{
    execute(hart, state, NULL);
}

static void execute_first(struct hart *hart, struct interp *interp, struct interp_block *block)
{
    if (block)
        execute(hart, interp, block);
    else
        hart_trap_pending(hart);
}

static void step(struct hart *hart, void *state)
{
    execute_first(hart, state, interp_block_single(hart, state, hart->pc));
}

// Exits of a block that are linked are followed unless something wants attention.
void hart_interp_block(struct hart *hart, void *state)
{
    atomic_fetch_or(&hart->attention, HART_ATTENTION_BLOCK);
    execute_first(hart, state, interp_block_find(hart, state, hart->pc));
    atomic_fetch_and(&hart->attention, ~(unsigned)HART_ATTENTION_BLOCK);
}

static void fence_i(struct hart *hart, void *state)
{
    interp_cache_fence_i(hart, state);
}

static void flush_translations(struct hart *hart, void *state, const struct hart_flush *flush)
{
    (void)flush;
    interp_cache_flush_translations(hart, state);
}

static void breakpoints_changed(struct hart *hart, void *state)
{
    (void)hart;
    interp_cache_drop(state);
}

static int forked(struct hart *hart, void *state)
{
    (void)hart, (void)state;
    return 0;
}

const struct hart_engine hart_engine_interp = {
    .name = "interp",
    .create = create,
    .destroy = destroy,
    .run = run,
    .step = step,
    .fence_i = fence_i,
    .flush_translations = flush_translations,
    .breakpoints_changed = breakpoints_changed,
    .forked = forked,
};
