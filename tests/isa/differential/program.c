// SPDX-License-Identifier: BSD-2-Clause
// The generator: random programs out of the instruction table. A unit is an instruction with what
// it needs around it (an address in a register, a place to jump to); units make up loops, calls and
// skipped stretches; a chunk is a list of units, and a program a list of chunks.
//
// Reserved registers are read by random instructions but not written: the anchor, the link of
// checkpoints, counters of the loops around, and what a unit needs until its end.
#include "differential.h"

#include <assert.h>
#include <elf.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

struct generator {
    struct program *program;
    struct coverage *coverage;
    uint64_t random;
    uint32_t reserved;  // set of integer registers
    unsigned anchor, link;
    unsigned turns_max;
    enum isa_form usable[ISA_FORM_COUNT];
    unsigned usable_count;
};

// ---- Which forms --------------------------------------------------------------------------------

enum use { UNKNOWN, PLAIN, MEMORY, RESERVATION, CSR, BRANCH, JUMP, JUMP_REGISTER };

static const struct {
    enum isa_op op;
    const char *why;
} exclusions[] = {
    {ISA_ECALL, "reports to the test"},
    {ISA_EBREAK, "ends a user program with a signal"},
    {ISA_MRET, "privileged"},
    {ISA_SRET, "privileged"},
    {ISA_WFI, "privileged"},
    {ISA_SFENCE_VMA, "privileged"},
    {ISA_SINVAL_VMA, "privileged"},
    {ISA_SFENCE_W_INVAL, "privileged"},
    {ISA_SFENCE_INVAL_IR, "privileged"},
    {ISA_WRS_NTO, "unknown to qemu 7.2"},
    {ISA_WRS_STO, "unknown to qemu 7.2"},
    {ISA_CBO_INVAL, "unknown to qemu 7.2"},
    {ISA_CBO_CLEAN, "unknown to qemu 7.2"},
    {ISA_CBO_FLUSH, "unknown to qemu 7.2"},
    {ISA_CBO_ZERO, "unknown to qemu 7.2"},
};

const char *program_exclusion(enum isa_form form)
{
    for (size_t i = 0; i < BASE_COUNT_OF(exclusions); i++)
        if (exclusions[i].op == isa_forms[form].op)
            return exclusions[i].why;
    return NULL;
}

static enum use use_of(enum isa_form form)
{
    const enum isa_op op = isa_forms[form].op;
    const unsigned flags = isa_op_flags(op);

    switch (op) {
    case ISA_JAL:
        return JUMP;
    case ISA_JALR:
        return JUMP_REGISTER;
    case ISA_LR_W:
    case ISA_LR_D:
    case ISA_SC_W:
    case ISA_SC_D:
        return RESERVATION;
    case ISA_CSRRW:
    case ISA_CSRRS:
    case ISA_CSRRC:
    case ISA_CSRRWI:
    case ISA_CSRRSI:
    case ISA_CSRRCI:
        return CSR;
    case ISA_FENCE_I:
        return PLAIN;
    default:
        if (flags & ISA_BRANCH)
            return BRANCH;
        if (flags & (ISA_LOAD | ISA_STORE))
            return MEMORY;
        return flags & (ISA_SYSTEM | ISA_JUMP) ? UNKNOWN : PLAIN;
    }
}

bool program_can_use(enum isa_form form)
{
    return use_of(form) != UNKNOWN;
}

// ---- Chance -------------------------------------------------------------------------------------

static uint64_t next(struct generator *g)
{
    uint64_t z = g->random += 0x9e3779b97f4a7c15;  // splitmix64

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}

// From `low` to `high`, both included.
static int between(struct generator *g, int low, int high)
{
    return low + (int)(next(g) % (unsigned)(high - low + 1));
}

static bool chance(struct generator *g, unsigned one_in)
{
    return next(g) % one_in == 0;
}

// A register that may be written. Not x1 and x2, which some forms must be able to write.
static unsigned free_register(struct generator *g)
{
    unsigned reg;

    do
        reg = between(g, 3, 31);
    while (g->reserved >> reg & 1);
    return reg;
}

// ---- Encoding -----------------------------------------------------------------------------------

static uint32_t put_field(uint32_t raw, struct isa_field field, unsigned value)
{
    raw &= ~((uint32_t)field.mask << field.shift);
    return raw | ((value - field.base) & field.mask) << field.shift;
}

// Each bit of an instruction that belongs to the immediate stands for one bit of its value, and its
// sign bit for that and all above: the lowest says which.
static uint32_t put_immediate(uint32_t raw, unsigned layout, int32_t value)
{
    for (unsigned bit = 0; bit < 32; bit++) {
        const uint32_t part = (uint32_t)isa_immediate(layout, 1u << bit);

        if (part && (uint32_t)value & (part & -part))
            raw |= 1u << bit;
        else if (part)
            raw &= ~(1u << bit);
    }
    return raw;
}

static uint32_t encode(enum isa_form form, unsigned rd, unsigned rs1, unsigned rs2, int32_t imm)
{
    const struct isa_form_info *info = &isa_forms[form];
    uint32_t raw = info->match;

    raw = put_field(raw, info->rd, rd);
    raw = put_field(raw, info->rs1, rs1);
    raw = put_field(raw, info->rs2, rs2);
    return put_immediate(raw, info->immediate, imm);
}

// A random encoding of `form` that does not write a reserved register.
static uint32_t random_encoding(struct generator *g, enum isa_form form, struct isa_insn *insn)
{
    const struct isa_form_info *info = &isa_forms[form];
    bool harmless;

    do {
        isa_decode(((uint32_t)next(g) & ~info->mask) | info->match, insn);
        harmless = !(isa_op_flags(insn->op) & ISA_RD) || !(g->reserved >> insn->rd & 1);
    } while (insn->form != form || !harmless);
    return insn->raw;
}

static uint32_t here(const struct generator *g)
{
    return g->program->code_bytes;
}

static void place(struct program *program, uint32_t offset, uint32_t raw)
{
    memcpy(program->code + offset, &raw, (raw & 3) == 3 ? 4 : 2);
}

static void emit(struct generator *g, uint32_t raw)
{
    struct isa_insn insn;

    isa_decode(raw, &insn);
    assert(insn.form != ISA_FORM_ILLEGAL && here(g) + insn.length <= CODE_BYTES);
    g->coverage->forms[insn.form]++;
    place(g->program, here(g), raw);
    g->program->code_bytes += insn.length;
}

static void emit_i(struct generator *g, enum isa_form form, unsigned rd, unsigned rs1, int32_t imm)
{
    emit(g, encode(form, rd, rs1, 0, imm));
}

static void emit_s(struct generator *g, enum isa_form form, unsigned rs2, unsigned rs1, int32_t imm)
{
    emit(g, encode(form, 0, rs1, rs2, imm));
}

// Gives the jump or branch at `offset` its target.
static void aim(struct program *program, uint32_t offset, uint32_t target)
{
    const int32_t distance = (int32_t)(target - offset);
    struct isa_insn insn;
    uint32_t raw = 0;

    memcpy(&raw, program->code + offset, 4);
    isa_decode(raw, &insn);
    raw = put_immediate(insn.raw, isa_forms[insn.form].immediate, distance);
    isa_decode(raw, &insn);
    assert(insn.imm == distance);
    place(program, offset, raw);
}

// ---- Units without a change of control ----------------------------------------------------------

#define OFFSET(member)                                                                             \
    ((int)offsetof(struct data, member) - (int)offsetof(struct data, state.window))

// Loads an operand worth having into a register; often another one each time around a loop.
static void emit_operand(struct generator *g, enum isa_form load, unsigned reg, int base_offset,
                         unsigned align)
{
    const unsigned index = free_register(g);
    const int mask = 0x200 - (int)align;

    if (chance(g, 2)) {
        emit_i(g, load, reg, g->anchor, base_offset + (between(g, 0, 0x1ff) & mask));
        return;
    }
    emit_i(g, ISA_FORM_ANDI, index, between(g, 0, 31), mask);
    emit(g, encode(ISA_FORM_ADD, index, index, g->anchor, 0));
    emit_i(g, load, reg, index, base_offset);
}

static void emit_fp_operand(struct generator *g, enum isa_form form, unsigned reg)
{
    const char *mnemonic = isa_form_mnemonic(form);

    if (!chance(g, 3))
        return;
    if (mnemonic[strlen(mnemonic) - 1] == 's')
        emit_operand(g, ISA_FORM_FLW, reg, OFFSET(singles), 4);
    else
        emit_operand(g, ISA_FORM_FLD, reg, OFFSET(doubles), 8);
}

static void emit_integer_operand(struct generator *g, unsigned reg)
{
    if (reg && !(g->reserved >> reg & 1) && chance(g, 6))
        emit_operand(g, ISA_FORM_LD, reg, OFFSET(doubles), 8);
}

// qemu 7.2 counts on into the upper half when the lower half of ctzw's operand is zero: it is not.
static void emit_ctzw_operand(struct generator *g, unsigned reg)
{
    emit_i(g, ISA_FORM_BSETI, reg, reg, between(g, 0, 31));
}

static void emit_plain(struct generator *g, enum isa_form form)
{
    struct isa_insn insn;
    uint32_t raw = random_encoding(g, form, &insn);
    while (insn.op == ISA_CTZW && (insn.rs1 == 0 || g->reserved >> insn.rs1 & 1))
        raw = random_encoding(g, form, &insn);
    const unsigned flags = isa_op_flags(insn.op);

    if (flags & ISA_FRS1)
        emit_fp_operand(g, form, insn.rs1);
    if (flags & ISA_FRS2)
        emit_fp_operand(g, form, insn.rs2);
    if (flags & ISA_FRS3)
        emit_fp_operand(g, form, insn.rs3);
    if (flags & ISA_RS1)
        emit_integer_operand(g, insn.rs1);
    if (flags & ISA_RS2)
        emit_integer_operand(g, insn.rs2);
    if (insn.op == ISA_CTZW)
        emit_ctzw_operand(g, insn.rs1);
    emit(g, raw);
}

// Atomics are naturally aligned: misaligned ones trap. Others may have any address.
static unsigned alignment(enum isa_form form)
{
    return strcmp(isa_form_extension(form), "A") == 0 ? 8 : 1;
}

// Puts an address into `base` that is in the window with `imm` added to it: a fixed one, or one
// that depends on a register.
static void emit_address(struct generator *g, unsigned base, int imm, unsigned align)
{
    const uint64_t random = next(g);
    const int spread = (int)(random & random >> 32 & 0x7ff & -(uint64_t)align);

    if (imm >= 0 && chance(g, 2)) {
        emit_i(g, ISA_FORM_ANDI, base, between(g, 0, 31), spread);
        emit(g, encode(ISA_FORM_ADD, base, base, g->anchor, 0));
        return;
    }
    const int offset = between(g, imm < 0 ? -imm : 0, 2047) & -(int)align;
    emit_i(g, ISA_FORM_ADDI, base, g->anchor, offset);
}

static void emit_memory(struct generator *g, enum isa_form form)
{
    struct isa_insn insn;
    uint32_t raw;
    bool reachable;

    do {
        raw = random_encoding(g, form, &insn);
        reachable = insn.rs1 == g->anchor
                        ? insn.imm >= 0
                        : insn.rs1 && !(g->reserved >> insn.rs1 & 1) && insn.imm > -2048;
    } while (!reachable);
    if (insn.rs1 != g->anchor)
        emit_address(g, insn.rs1, insn.imm, alignment(form));
    emit(g, raw);
}

static enum isa_form random_form(struct generator *g)
{
    return g->usable[next(g) % g->usable_count];
}

static void emit_reserving(struct generator *g, enum isa_form form, unsigned base)
{
    struct isa_insn insn;

    emit(g, put_field(random_encoding(g, form, &insn), isa_forms[form].rs1, base));
}

// A pair of LR and SC on one word with little in between; then at times an SC to the next word or
// to the same again, neither of which has a reservation.
static void emit_reservation(struct generator *g, enum isa_form form)
{
    const enum isa_op op = isa_forms[form].op;
    const bool word = op == ISA_LR_W || op == ISA_SC_W;
    const enum isa_form lr = word ? ISA_FORM_LR_W : ISA_FORM_LR_D;
    const enum isa_form sc = word ? ISA_FORM_SC_W : ISA_FORM_SC_D;
    const unsigned base = free_register(g);
    const uint32_t outer = g->reserved;

    emit_address(g, base, 0, 8);
    g->reserved |= 1u << base;
    emit_reserving(g, lr, base);
    for (int i = between(g, 0, 3); i > 0; i--) {
        enum isa_form other;
        do
            other = random_form(g);
        while (use_of(other) != PLAIN);
        emit_plain(g, other);
    }
    if (chance(g, 8))
        emit_i(g, ISA_FORM_ADDI, base, base, 8);
    emit_reserving(g, sc, base);
    if (chance(g, 8))
        emit_reserving(g, sc, base);
    g->reserved = outer;
}

// Any write to a floating-point CSR; then a rounding mode that exists, or the next instruction that
// rounds dynamically would trap.
static void emit_csr(struct generator *g, enum isa_form form)
{
    static const unsigned numbers[] = {ISA_CSR_FFLAGS, ISA_CSR_FRM, ISA_CSR_FCSR};
    const unsigned number = numbers[next(g) % BASE_COUNT_OF(numbers)];
    struct isa_insn insn;
    const uint32_t raw = random_encoding(g, form, &insn);

    emit(g, put_immediate(raw, isa_forms[form].immediate, (int32_t)number));
    if (number == ISA_CSR_FFLAGS)
        return;
    if (chance(g, 2))
        emit_i(g, ISA_FORM_CSRRS, free_register(g), 0, ISA_CSR_FCSR);
    emit_i(g, ISA_FORM_CSRRWI, 0, between(g, 0, 4), ISA_CSR_FRM);
}

// ---- Units with one -----------------------------------------------------------------------------

// Some units without a change of control: fewer than 256 bytes, which every branch reaches.
static void emit_stretch(struct generator *g)
{
    const uint32_t end = here(g) + between(g, 1, 48);

    while (here(g) < end) {
        const enum isa_form form = random_form(g);

        switch (use_of(form)) {
        case PLAIN:
            emit_plain(g, form);
            break;
        case MEMORY:
            emit_memory(g, form);
            break;
        case CSR:
            emit_csr(g, form);
            break;
        default:
            break;
        }
    }
}

static void emit_skip(struct generator *g, enum isa_form form)
{
    const uint32_t at = here(g);
    struct isa_insn insn;

    emit(g, random_encoding(g, form, &insn));
    emit_stretch(g);
    aim(g->program, at, here(g));
}

// The target address is computed with the displacement of the jump taken off it, and at times an
// odd bit that jalr must ignore.
static void emit_skip_by_register(struct generator *g, enum isa_form form)
{
    const uint32_t at = here(g);
    struct isa_insn insn;
    uint32_t raw;
    unsigned base;

    do {
        raw = random_encoding(g, form, &insn);
        base = insn.rs1;
    } while (base == 0 || g->reserved >> base & 1 || insn.imm < -1024 || insn.imm > 1024);
    emit_i(g, ISA_FORM_AUIPC, base, 0, 0);
    emit_i(g, ISA_FORM_ADDI, base, base, 0);
    emit(g, raw);
    emit_stretch(g);
    const int32_t displacement = (int32_t)(here(g) - at) - insn.imm;
    const int32_t odd = chance(g, 2);
    place(g->program, at + 4, encode(ISA_FORM_ADDI, base, base, 0, displacement + odd));
}

// A function, jumped over, and a call of it.
static void emit_call(struct generator *g)
{
    const unsigned link = chance(g, 2) ? 1 : free_register(g);
    const uint32_t outer = g->reserved;
    const uint32_t skip_at = here(g);

    emit_i(g, ISA_FORM_JAL, 0, 0, 0);
    const uint32_t function_at = here(g);
    g->reserved |= 1u << link;
    emit_stretch(g);
    emit_i(g, chance(g, 2) ? ISA_FORM_C_JR : ISA_FORM_JALR, 0, link, 0);
    g->reserved = outer;
    aim(g->program, skip_at, here(g));
    const uint32_t call_at = here(g);
    emit_i(g, ISA_FORM_JAL, link, 0, 0);
    aim(g->program, call_at, function_at);
}

static void emit_unit(struct generator *g, unsigned depth);

// NOLINTBEGIN(misc-no-recursion): units hold loops and loops hold units, two deep at most.
static void emit_loop(struct generator *g, unsigned depth, unsigned body_bytes, unsigned turns)
{
    const unsigned counter = free_register(g);
    const uint32_t outer = g->reserved;

    emit_i(g, ISA_FORM_ADDI, counter, 0, (int32_t)turns);
    g->reserved |= 1u << counter;
    const uint32_t head = here(g);
    while (here(g) < head + body_bytes)
        emit_unit(g, depth + 1);
    emit_i(g, ISA_FORM_ADDI, counter, counter, -1);
    const uint32_t at = here(g);
    const bool near = at - head <= 256 && counter >= 8 && counter < 16;
    emit(g, encode(near ? ISA_FORM_C_BNEZ : ISA_FORM_BNE, 0, counter, 0, 0));
    aim(g->program, at, head);
    g->reserved = outer;
}

static void emit_unit(struct generator *g, unsigned depth)
{
    const enum isa_form form = random_form(g);

    if (depth < 2 && chance(g, 48)) {
        emit_loop(g, depth, between(g, 16, 200), between(g, 1, 6));
        return;
    }
    if (chance(g, 64)) {
        emit_call(g);
        return;
    }
    switch (use_of(form)) {
    case PLAIN:
        emit_plain(g, form);
        break;
    case MEMORY:
        emit_memory(g, form);
        break;
    case RESERVATION:
        emit_reservation(g, form);
        break;
    case CSR:
        emit_csr(g, form);
        break;
    case BRANCH:
    case JUMP:
        emit_skip(g, form);
        break;
    case JUMP_REGISTER:
        emit_skip_by_register(g, form);
        break;
    case UNKNOWN:
        break;
    }
}
// NOLINTEND(misc-no-recursion)

// ---- The frame around the units -----------------------------------------------------------------

static void emit_system_call(struct generator *g, int number)
{
    emit_i(g, ISA_FORM_ADDI, 17, 0, number);
    emit(g, encode(ISA_FORM_ECALL, 0, 0, 0, 0));
}

// Loads every register from the initial state.
static void emit_entry(struct generator *g)
{
    const int32_t distance = (int32_t)(ANCHOR_GVA - CODE_GVA - here(g));
    const int32_t high = (distance + 0x800) & ~0xfff;

    emit_i(g, ISA_FORM_AUIPC, g->anchor, 0, high);
    emit_i(g, ISA_FORM_ADDI, g->anchor, g->anchor, distance - high);
    emit_i(g, ISA_FORM_LD, g->link, g->anchor, OFFSET(state.fcsr));
    emit_i(g, ISA_FORM_CSRRW, 0, g->link, ISA_CSR_FCSR);
    for (int i = 0; i < 32; i++)
        emit_i(g, ISA_FORM_FLD, i, g->anchor, OFFSET(state.f) + 8 * i);
    for (int i = 1; i < 32; i++)
        if ((unsigned)i != g->anchor)
            emit_i(g, ISA_FORM_LD, i, g->anchor, OFFSET(state.x) + 8 * i);
    g->program->entry_jump_at = here(g);
    emit_i(g, ISA_FORM_JAL, 0, 0, 0);
}

// Saves every register into the state and writes it out.
static void emit_checkpoint(struct generator *g)
{
    static const int used[] = {5, 10, 11, 12, 17};  // t0, a0, a1, a2, a7
    const int32_t bytes = sizeof(struct snapshot), high = (bytes + 0x800) & ~0xfff;

    for (int i = 1; i < 32; i++)
        emit_s(g, ISA_FORM_SD, i, g->anchor, OFFSET(state.x) + 8 * i);
    for (int i = 0; i < 32; i++)
        emit_s(g, ISA_FORM_FSD, i, g->anchor, OFFSET(state.f) + 8 * i);
    emit_i(g, ISA_FORM_CSRRS, 5, 0, ISA_CSR_FCSR);
    emit_s(g, ISA_FORM_SD, 5, g->anchor, OFFSET(state.fcsr));
    emit_i(g, ISA_FORM_ADDI, 10, 0, STDOUT_FILENO);
    emit_i(g, ISA_FORM_ADDI, 11, g->anchor, OFFSET(state));
    emit_i(g, ISA_FORM_LUI, 12, 0, high);
    emit_i(g, ISA_FORM_ADDI, 12, 12, bytes - high);
    emit_system_call(g, CALL_WRITE);
    for (size_t i = 0; i < BASE_COUNT_OF(used); i++)
        emit_i(g, ISA_FORM_LD, used[i], g->anchor, OFFSET(state.x) + 8 * used[i]);
    emit_i(g, ISA_FORM_JALR, 0, g->link, 0);
}

static unsigned instructions_between(const struct program *program, uint32_t offset, uint32_t end)
{
    unsigned count = 0;

    for (; offset < end; count++)
        offset += (program->code[offset] & 3) == 3 ? 4 : 2;
    return count;
}

// Biased exponents at which arithmetic does something: around one, at both ends.
static unsigned operand_exponent(struct generator *g, unsigned max, unsigned reach)
{
    switch (next(g) % 4) {
    case 0:
        return between(g, 0, 2);
    case 1:
        return max - between(g, 0, 2);
    default:
        return max / 2 + between(g, 0, 2 * reach) - reach;
    }
}

// Fractions that make sums and products exact, ties, or carries; and any.
static uint64_t operand_fraction(struct generator *g, unsigned bits)
{
    const uint64_t random = next(g), all = (1ull << bits) - 1, ends = (7ull << (bits - 3)) | 3;

    switch (next(g) % 4) {
    case 0:
        return random & all;
    case 1:
        return all & ~(random & 3);
    default:
        return random & ends;
    }
}

static uint64_t operand_double(struct generator *g)
{
    static const uint64_t special[] = {
        0,          1ull << 63, 0x3ff0000000000000, 0xbff0000000000000, 0x7ff0000000000000,
        UINT64_MAX, 1,          0xfff0000000000000, 0x7ff8000000000000, 0x7ff0000000000001,
        INT64_MAX,  INT32_MAX,  0x43e0000000000000, 0x41e0000000000000, 0x80000000,
        UINT32_MAX, 2,          0xffffffff3f800000, 0x8000000000000001, 0xffffffff80000000};

    if (chance(g, 4))
        return special[next(g) % BASE_COUNT_OF(special)];
    if (chance(g, 4))
        return next(g);
    return (next(g) & 1ull << 63) | (uint64_t)operand_exponent(g, 2047, 60) << 52 |
           operand_fraction(g, 52);
}

static uint32_t operand_single(struct generator *g)
{
    static const uint32_t special[] = {0,          1u << 31,   0x3f800000, 0xbf800000,
                                       0x7f800000, 0xff800000, 0x7fc00000, 0x7f800001,
                                       0x4f000000, 0x5f000000, 0x4f800000, 0x5f800000};

    if (chance(g, 4))
        return special[next(g) % BASE_COUNT_OF(special)];
    return ((uint32_t)next(g) & 1u << 31) | (uint32_t)operand_exponent(g, 255, 30) << 23 |
           (uint32_t)operand_fraction(g, 23);
}

static void fill_data(struct generator *g, struct data *data)
{
    for (size_t i = 0; i < BASE_COUNT_OF(data->doubles); i++)
        data->doubles[i] = operand_double(g);
    for (size_t i = 0; i < BASE_COUNT_OF(data->singles); i++)
        data->singles[i] = operand_single(g);
    for (int i = 1; i < 32; i++)
        data->state.x[i] = operand_double(g);
    for (int i = 0; i < 32; i++)
        data->state.f[i] = i % 2 ? operand_double(g) : 0xffffffff00000000 | operand_single(g);
    data->state.fcsr = (uint64_t)between(g, 0, 4) << 5;
    data->state.x[g->anchor] = ANCHOR_GVA;
    for (size_t i = 0; i + 8 <= sizeof(data->state.window); i += 8) {
        const uint64_t value = operand_double(g);
        memcpy(data->state.window + i, &value, 8);
    }
}

static void emit_chunk(struct generator *g)
{
    const unsigned turns = 1 + next(g) % g->turns_max;

    for (int i = between(g, 0, 4); i > 0; i--)
        emit_unit(g, 1);
    emit_loop(g, 0, between(g, 100, 1200), turns);
}

// Neither a register that compressed forms need (x8 to x15, the stack pointer, c.jalr's link) nor
// one that checkpoints use.
static unsigned frame_register(struct generator *g)
{
    unsigned reg;

    do
        reg = free_register(g);
    while (reg < 6 || (reg >= 8 && reg < 16) || reg == 17);
    g->reserved |= 1u << reg;
    return reg;
}

void program_generate(struct program *program, uint64_t seed, unsigned turns_max,
                      struct coverage *coverage)
{
    struct generator g = {.program = program,
                          .coverage = coverage,
                          .random = seed * 0x2545f4914f6cdd1d,
                          .turns_max = turns_max};

    *program = (struct program){.seed = seed};
    for (unsigned form = ISA_FORM_ILLEGAL + 1; form < ISA_FORM_COUNT; form++)
        if (!program_exclusion(form) && program_can_use(form))
            g.usable[g.usable_count++] = form;
    g.anchor = frame_register(&g);
    g.link = frame_register(&g);
    fill_data(&g, &program->data);

    emit_entry(&g);
    program->entry_instructions = instructions_between(program, 0, here(&g));
    const uint32_t checkpoint_at = here(&g);
    emit_checkpoint(&g);
    program->checkpoint_instructions = 1 + instructions_between(program, checkpoint_at, here(&g));
    program->trap_at = here(&g);
    emit_system_call(&g, CALL_TRAPPED);

    aim(program, program->entry_jump_at, here(&g));
    program->chunk_count = CHUNKS_MAX;
    for (unsigned i = 0; i < CHUNKS_MAX; i++) {
        program->chunk_at[i] = here(&g);
        emit_chunk(&g);
        const uint32_t call_at = here(&g);
        emit_i(&g, ISA_FORM_JAL, g.link, 0, 0);
        aim(program, call_at, checkpoint_at);
    }
    program->chunk_at[CHUNKS_MAX] = program->exit_at = here(&g);
    emit_i(&g, ISA_FORM_ADDI, 10, 0, 0);
    emit_system_call(&g, CALL_EXIT);
    program->exit_instructions = instructions_between(program, program->exit_at, here(&g));
}

void program_narrow(struct program *program, unsigned chunk, const struct snapshot *state)
{
    const uint32_t end = program->chunk_at[chunk + 1];

    program->data.state = *state;
    aim(program, program->entry_jump_at, program->chunk_at[chunk]);
    if (end != program->exit_at) {
        place(program, end, encode(ISA_FORM_JAL, 0, 0, 0, 0));
        aim(program, end, program->exit_at);
    }
}

void program_erase(struct program *program, uint32_t offset, uint32_t length_bytes)
{
    for (; length_bytes >= 4; offset += 4, length_bytes -= 4)
        place(program, offset, encode(ISA_FORM_ADDI, 0, 0, 0, 0));
    if (length_bytes)
        place(program, offset, encode(ISA_FORM_C_ADDI, 0, 0, 0, 0));
}

// ---- As a file ----------------------------------------------------------------------------------

int program_image(const struct program *program)
{
    enum { HEADERS_BYTES = 4096 };
    const struct {
        Elf64_Ehdr file;
        Elf64_Phdr segments[2];
    } headers = {
        .file = {.e_ident = {ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64, ELFDATA2LSB,
                             EV_CURRENT},
                 .e_type = ET_EXEC,
                 .e_machine = EM_RISCV,
                 .e_version = EV_CURRENT,
                 .e_entry = CODE_GVA,
                 .e_phoff = sizeof(Elf64_Ehdr),
                 .e_flags = EF_RISCV_RVC | EF_RISCV_FLOAT_ABI_DOUBLE,
                 .e_ehsize = sizeof(Elf64_Ehdr),
                 .e_phentsize = sizeof(Elf64_Phdr),
                 .e_phnum = 2},
        .segments = {{.p_type = PT_LOAD,
                      .p_flags = PF_R | PF_X,
                      .p_offset = HEADERS_BYTES,
                      .p_vaddr = CODE_GVA,
                      .p_filesz = CODE_BYTES,
                      .p_memsz = CODE_BYTES,
                      .p_align = 4096},
                     {.p_type = PT_LOAD,
                      .p_flags = PF_R | PF_W,
                      .p_offset = HEADERS_BYTES + CODE_BYTES,
                      .p_vaddr = DATA_GVA,
                      .p_filesz = sizeof(struct data),
                      .p_memsz = sizeof(struct data),
                      .p_align = 4096}},
    };
    const int fd = memfd_create("isa-differential-program", MFD_CLOEXEC);

    if (fd < 0)
        return -1;
    if (pwrite(fd, &headers, sizeof(headers), 0) != sizeof(headers) ||
        pwrite(fd, program->code, CODE_BYTES, HEADERS_BYTES) != CODE_BYTES ||
        pwrite(fd, &program->data, sizeof(program->data), HEADERS_BYTES + CODE_BYTES) !=
            sizeof(program->data)) {
        close(fd);
        return -1;
    }
    return fd;
}
