// SPDX-License-Identifier: BSD-2-Clause
// The memory of flat harts: what translated code does not do by itself, and all that the
// interpreter does.
//
// The guest's other threads map and unmap while we look, and anybody may cut off a file that is
// mapped; so whatever `pages` said, an access may fault. The few instructions of the host that make
// accesses are written in assembly, in one range of code: one that faults goes on at the range's
// end, where the function returns that it did. Each is a whole function that leaves stack and
// callee-saved registers alone (psABI 3.2), so that this is all there is to it.
#include <stdatomic.h>
#include <string.h>
#include <ucontext.h>

#include "hart/internal.h"

#define PAGE_BYTES ((uint64_t)MEMORY_PAGE_BYTES)
#define PAGE_SHIFT 12

// ---- Accesses that may fault

#define FUNCTION(name, code)                                                                       \
    ".hidden " name "\n.type " name ", @function\n" name ":\n" code "mov $1, %eax\nret\n"

// clang-format off
__asm__(".pushsection .text.hart_flat, \"ax\", @progbits\n"
        ".hidden hart_flat_first\nhart_flat_first:\n"
        FUNCTION("hart_flat_load_1", "movzbl (%rdi), %eax\nmov %rax, (%rsi)\n")
        FUNCTION("hart_flat_load_2", "movzwl (%rdi), %eax\nmov %rax, (%rsi)\n")
        FUNCTION("hart_flat_load_4", "mov (%rdi), %eax\nmov %rax, (%rsi)\n")
        FUNCTION("hart_flat_load_8", "mov (%rdi), %rax\nmov %rax, (%rsi)\n")
        FUNCTION("hart_flat_store_1", "mov %sil, (%rdi)\n")
        FUNCTION("hart_flat_store_2", "mov %si, (%rdi)\n")
        FUNCTION("hart_flat_store_4", "mov %esi, (%rdi)\n")
        FUNCTION("hart_flat_store_8", "mov %rsi, (%rdi)\n")
        FUNCTION("hart_flat_exchange_4", "mov (%rsi), %eax\nlock cmpxchg %edx, (%rdi)\nmov %rax, (%rsi)\n")
        FUNCTION("hart_flat_exchange_8", "mov (%rsi), %rax\nlock cmpxchg %rdx, (%rdi)\nmov %rax, (%rsi)\n")
        FUNCTION("hart_flat_copy", "mov %rdx, %rcx\nrep movsb\n")
        ".hidden hart_flat_failed\nhart_flat_failed:\nxor %eax, %eax\nret\n"
        ".popsection\n");
// clang-format on

extern const uint8_t hart_flat_first[], hart_flat_failed[];

// All of these return false when the access faulted; nothing was written then, but by copy.
typedef bool load_fn(const void *hva, uint64_t *value);
typedef bool store_fn(void *hva, uint64_t value);
// *expected becomes what was there, zero-extended.
typedef bool exchange_fn(void *hva, uint64_t *expected, uint64_t value);

extern load_fn hart_flat_load_1, hart_flat_load_2, hart_flat_load_4, hart_flat_load_8;
extern store_fn hart_flat_store_1, hart_flat_store_2, hart_flat_store_4, hart_flat_store_8;
extern exchange_fn hart_flat_exchange_4, hart_flat_exchange_8;
bool hart_flat_copy(void *to, const void *from, size_t bytes);

static load_fn *const loads[] = {
    [1] = hart_flat_load_1, [2] = hart_flat_load_2, [4] = hart_flat_load_4, [8] = hart_flat_load_8};
static store_fn *const stores[] = {[1] = hart_flat_store_1,
                                   [2] = hart_flat_store_2,
                                   [4] = hart_flat_store_4,
                                   [8] = hart_flat_store_8};

static bool on_fault(const void *hva, void *context)
{
    greg_t *rip = &((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP];

    (void)hva;
    if ((uintptr_t)*rip - (uintptr_t)hart_flat_first >=
        (uintptr_t)(hart_flat_failed - hart_flat_first))
        return false;
    *rip = (greg_t)(uintptr_t)hart_flat_failed;
    return true;
}

int hart_flat_init(void)
{
    return fault_handler_add(on_fault);
}

// ---- What the guest may do

static bool allows(const struct hart *hart, uint64_t gva, enum hart_access access)
{
    static const uint8_t needs[] = {[HART_LOAD] = HART_PAGE_READ | HART_PAGE_WRITE | HART_PAGE_EXEC,
                                    [HART_STORE] = HART_PAGE_WRITE,
                                    [HART_EXEC] = HART_PAGE_EXEC};

    return gva < HART_FLAT_BYTES &&
           (atomic_load_explicit(&hart->flat->pages[gva >> PAGE_SHIFT], memory_order_relaxed) &
            needs[access]);
}

static uint64_t last_page(uint64_t gva, unsigned width_bytes)
{
    return (gva + width_bytes - 1) & ~(PAGE_BYTES - 1);
}

// The host's address of [gva, gva+width_bytes), which crosses one page's end at most. NULL: page
// fault recorded, with the faulting part's address.
static uint8_t *find(struct hart *hart, uint64_t gva, unsigned width_bytes, enum hart_access access)
{
    static const uint8_t causes[] = {[HART_LOAD] = HART_CAUSE_LOAD_PAGE,
                                     [HART_STORE] = HART_CAUSE_STORE_PAGE,
                                     [HART_EXEC] = HART_CAUSE_FETCH_PAGE};
    uint64_t last = last_page(gva, width_bytes);

    if (!allows(hart, gva, access))
        hart_raise(hart, causes[access], gva);
    else if (!allows(hart, last, access))
        hart_raise(hart, causes[access], last);
    else
        return hart->flat->hva + gva;
    return NULL;
}

// The access that find() found faulted: there is nothing behind one of its pages.
static bool raise_access_fault(struct hart *hart, uint64_t gva, unsigned width_bytes,
                               enum hart_access access)
{
    static const uint8_t causes[] = {[HART_LOAD] = HART_CAUSE_LOAD_ACCESS,
                                     [HART_STORE] = HART_CAUSE_STORE_ACCESS,
                                     [HART_EXEC] = HART_CAUSE_FETCH_ACCESS};
    uint64_t last = last_page(gva, width_bytes), value;
    bool first_is_there = hart_flat_load_1(hart->flat->hva + gva, &value);

    return hart_raise(hart, causes[access], first_is_there && last > gva ? last : gva);
}

// ---- Loads, stores, code

bool hart_flat_load(struct hart *hart, uint64_t gva, unsigned width_bytes, uint64_t *value)
{
    const uint8_t *hva = find(hart, gva, width_bytes, HART_LOAD);

    if (!hva)
        return false;
    return loads[width_bytes](hva, value) || raise_access_fault(hart, gva, width_bytes, HART_LOAD);
}

bool hart_flat_store(struct hart *hart, uint64_t gva, unsigned width_bytes, uint64_t value)
{
    uint8_t *hva = find(hart, gva, width_bytes, HART_STORE);

    if (!hva)
        return false;
    return stores[width_bytes](hva, value) ||
           raise_access_fault(hart, gva, width_bytes, HART_STORE);
}

bool hart_flat_zero_block(struct hart *hart, uint64_t block_gva)
{
    for (unsigned at = 0; at < HART_CACHE_BLOCK_BYTES; at += sizeof(uint64_t))
        if (!hart_flat_store(hart, block_gva + at, sizeof(uint64_t), 0))
            return false;
    return true;
}

bool hart_flat_peek(const struct hart *hart, uint64_t gva, void *to, size_t bytes)
{
    return allows(hart, gva, HART_LOAD) &&
           allows(hart, last_page(gva, (unsigned)bytes), HART_LOAD) &&
           hart_flat_copy(to, hart->flat->hva + gva, bytes);
}

const uint8_t *hart_flat_fetch_page(struct hart *hart, uint64_t gva, uint64_t *page_gpa)
{
    const uint8_t *hva = find(hart, gva, 2, HART_EXEC);
    uint64_t value;

    if (!hva)
        return NULL;
    if (!hart_flat_load_2(hva, &value)) {
        raise_access_fault(hart, gva, 2, HART_EXEC);
        return NULL;
    }
    hart->fetch_halfword = false;
    hart->fetch_global = false;
    hart->fetch_leaf_bytes = PAGE_BYTES;
    *page_gpa = gva & ~(PAGE_BYTES - 1);
    return hart->flat->hva + *page_gpa;
}

void hart_flat_copy_code(void *to, const uint8_t *from_hva, size_t bytes)
{
    memset(to, 0, bytes);
    (void)hart_flat_copy(to, from_hva, bytes);
}

bool hart_flat_same_code(const uint8_t *copy, const uint8_t *hva, size_t bytes)
{
    uint64_t now;

    for (size_t at = 0; at < bytes; at += 2)
        if (!hart_flat_load_2(hva + at, &now) || memcmp(&now, copy + at, 2) != 0)
            return false;
    return true;
}

// ---- Atomics
//
// All by compare and swap, which is a full barrier as each of them may be; the interpreter's
// comments say what LR and SC mean.

static uint64_t extend(uint64_t value, unsigned width_bytes)
{
    return width_bytes == 4 ? (uint64_t)(int64_t)(int32_t)value : value;
}

// Of words, both are sign-extended, which keeps the order of unsigned ones too.
static uint64_t combine(enum isa_op op, uint64_t old, uint64_t operand)
{
    switch (op) {
    case ISA_AMOADD_W:
    case ISA_AMOADD_D:
        return old + operand;
    case ISA_AMOXOR_W:
    case ISA_AMOXOR_D:
        return old ^ operand;
    case ISA_AMOAND_W:
    case ISA_AMOAND_D:
        return old & operand;
    case ISA_AMOOR_W:
    case ISA_AMOOR_D:
        return old | operand;
    case ISA_AMOMIN_W:
    case ISA_AMOMIN_D:
        return (int64_t)operand < (int64_t)old ? operand : old;
    case ISA_AMOMAX_W:
    case ISA_AMOMAX_D:
        return (int64_t)operand > (int64_t)old ? operand : old;
    case ISA_AMOMINU_W:
    case ISA_AMOMINU_D:
        return operand < old ? operand : old;
    case ISA_AMOMAXU_W:
    case ISA_AMOMAXU_D:
        return operand > old ? operand : old;
    default:
        return operand;
    }
}

static void write_rd(struct hart *hart, const struct isa_insn *insn, uint64_t value)
{
    if (insn->rd != 0)
        hart->x[insn->rd] = value;
}

static bool load_reserved(struct hart *hart, const struct isa_insn *insn, uint64_t gva,
                          unsigned width_bytes)
{
    const unsigned release = 1;
    uint64_t value;

    if (insn->rm & release)
        atomic_thread_fence(memory_order_seq_cst);
    if (!hart_flat_load(hart, gva, width_bytes, &value))
        return false;
    hart->reservation_gpa = gva;
    hart->reservation_value = extend(value, width_bytes);
    write_rd(hart, insn, hart->reservation_value);
    return true;
}

// An SC that fails needs memory that may be stored to as well.
static bool store_conditional(struct hart *hart, const struct isa_insn *insn, uint64_t gva,
                              unsigned width_bytes, exchange_fn *exchange)
{
    uint8_t *hva = find(hart, gva, width_bytes, HART_STORE);
    uint64_t expected = extend(hart->reservation_value, width_bytes), found = expected;
    bool reserved = hart->reservation_gpa == gva;

    if (!hva)
        return false;
    if (reserved && !exchange(hva, &found, hart->x[insn->rs2]))
        return raise_access_fault(hart, gva, width_bytes, HART_STORE);
    hart->reservation_gpa = HART_NO_RESERVATION;
    write_rd(hart, insn, !reserved || extend(found, width_bytes) != expected);
    return true;
}

static bool modify(struct hart *hart, const struct isa_insn *insn, uint64_t gva,
                   unsigned width_bytes, exchange_fn *exchange)
{
    uint8_t *hva = find(hart, gva, width_bytes, HART_STORE);
    uint64_t operand = extend(hart->x[insn->rs2], width_bytes), old, found;

    if (!hva)
        return false;
    if (!loads[width_bytes](hva, &found))
        return raise_access_fault(hart, gva, width_bytes, HART_STORE);
    do {
        old = found;
        if (!exchange(hva, &found, combine(insn->op, extend(old, width_bytes), operand)))
            return raise_access_fault(hart, gva, width_bytes, HART_STORE);
    } while (found != old);
    write_rd(hart, insn, extend(old, width_bytes));
    return true;
}

bool hart_flat_atomic(struct hart *hart, const struct isa_insn *insn)
{
    unsigned width_bytes = isa_op_access_bytes(insn->op);
    exchange_fn *exchange = width_bytes == 4 ? hart_flat_exchange_4 : hart_flat_exchange_8;
    bool lr = insn->op == ISA_LR_W || insn->op == ISA_LR_D;
    uint64_t gva = hart_check_gva(hart, hart->x[insn->rs1]);

    if (gva % width_bytes)
        return hart_raise(hart, lr ? HART_CAUSE_LOAD_MISALIGNED : HART_CAUSE_STORE_MISALIGNED, gva);
    if (lr)
        return load_reserved(hart, insn, gva, width_bytes);
    if (insn->op == ISA_SC_W || insn->op == ISA_SC_D)
        return store_conditional(hart, insn, gva, width_bytes, exchange);
    return modify(hart, insn, gva, width_bytes, exchange);
}
