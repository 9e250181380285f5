// SPDX-License-Identifier: BSD-2-Clause
// Where the program's own code goes on after all, or is asked for something. The few instructions
// that this needs are executed here: those that functions begin with, and those that compute the
// address of errno.
#include <errno.h>

#include "check/takeover_internal.h"

#define ERRNO_INSTRUCTIONS_MAX 8u

static bool fetch(struct takeover_call *call, uint64_t pc, struct isa_insn *insn)
{
    uint16_t halves[2] = {0, 0};

    // The second half of a short one may lie on a page that is not there.
    if (checker_copy_in(call->checker, &halves[0], pc, sizeof(halves[0])) < 0)
        return false;
    if ((halves[0] & 3) == 3 &&
        checker_copy_in(call->checker, &halves[1], pc + 2, sizeof(halves[1])) < 0)
        return false;
    isa_decode(halves[0] | (uint32_t)halves[1] << 16, insn);
    return true;
}

// What an instruction makes of registers alone. False: it is another one.
static bool compute(const struct isa_insn *insn, uint64_t pc, const uint64_t x[32],
                    uint64_t *result)
{
    uint64_t immediate = (uint64_t)(int64_t)insn->imm;

    switch (insn->op) {
    case ISA_LUI:
        *result = immediate;
        return true;
    case ISA_AUIPC:
        *result = pc + immediate;
        return true;
    case ISA_ADDI:
        *result = x[insn->rs1] + immediate;
        return true;
    case ISA_ADD:
        *result = x[insn->rs1] + x[insn->rs2];
        return true;
    case ISA_SUB:
        *result = x[insn->rs1] - x[insn->rs2];
        return true;
    case ISA_SLT:
        *result = (int64_t)x[insn->rs1] < (int64_t)x[insn->rs2];
        return true;
    case ISA_SRLI:
        *result = x[insn->rs1] >> (insn->imm & 63);
        return true;
    default:
        return false;
    }
}

static bool branches(const struct isa_insn *insn, const uint64_t x[32], bool *taken)
{
    uint64_t a = x[insn->rs1], b = x[insn->rs2];

    switch (insn->op) {
    case ISA_BEQ:
        *taken = a == b;
        return true;
    case ISA_BNE:
        *taken = a != b;
        return true;
    case ISA_BLT:
        *taken = (int64_t)a < (int64_t)b;
        return true;
    case ISA_BGE:
        *taken = (int64_t)a >= (int64_t)b;
        return true;
    case ISA_BLTU:
        *taken = a < b;
        return true;
    case ISA_BGEU:
        *taken = a >= b;
        return true;
    default:
        return false;
    }
}

// Executes an instruction that only computes, loads or branches; goes on to the next. False: it is
// another one.
static bool execute(struct takeover_call *call, const struct isa_insn *insn, uint64_t *next,
                    uint64_t x[32])
{
    uint64_t pc = *next, immediate = (uint64_t)(int64_t)insn->imm, result;
    bool taken;

    if (branches(insn, x, &taken)) {
        *next = pc + (taken ? immediate : insn->length);
        return true;
    }
    if (insn->op == ISA_LD) {
        if (checker_copy_in(call->checker, &result, x[insn->rs1] + immediate, sizeof(result)) < 0)
            return false;
    } else if (!compute(insn, pc, x, &result)) {
        return false;
    }
    if (insn->rd != 0)
        x[insn->rd] = result;
    *next = pc + insn->length;
    return true;
}

bool takeover_can_resume(uint32_t raw)
{
    const uint64_t x[32] = {0};
    struct isa_insn insn;
    uint64_t ignored;
    bool either;

    isa_decode(raw, &insn);
    return compute(&insn, 0, x, &ignored) || branches(&insn, x, &either);
}

bool takeover_original(struct takeover_call *call, uint64_t pc)
{
    struct isa_insn insn;

    if (!pc || !fetch(call, pc, &insn) || !execute(call, &insn, &pc, call->hart->x))
        return false;
    call->hart->pc = pc;
    return true;
}

// The address is thread-local, so only code of the program knows it: that of __errno_location,
// which every libc has.
void takeover_set_errno(struct takeover_call *call, int value)
{
    uint64_t pc = takeover_function_pc(call->takeover, "__errno_location"), x[32];
    struct isa_insn insn;

    __builtin_memcpy(x, call->hart->x, sizeof(x));
    for (unsigned i = 0; pc && i < ERRNO_INSTRUCTIONS_MAX; i++) {
        if (!fetch(call, pc, &insn))
            return;
        if (insn.op == ISA_JALR && insn.rd == 0 && insn.rs1 == 1) {
            int rc = checker_copy_out(call->checker, x[10], &value, sizeof(value));
            (void)rc;  // the program's libc has its reasons
            return;
        }
        if (!execute(call, &insn, &pc, x))
            return;
    }
}
