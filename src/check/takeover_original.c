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

// Executes an instruction that only computes, loads or branches; goes on to the next. False: it is
// another one.
static bool execute(struct takeover_call *call, const struct isa_insn *insn, uint64_t *next,
                    uint64_t x[32])
{
    uint64_t pc = *next, a = x[insn->rs1], b = x[insn->rs2], result = 0;
    bool branches = false;

    switch (insn->op) {
    case ISA_BEQ:
        branches = a == b;
        break;
    case ISA_BNE:
        branches = a != b;
        break;
    case ISA_BLTU:
        branches = a < b;
        break;
    case ISA_BGEU:
        branches = a >= b;
        break;
    case ISA_LUI:
        result = (uint64_t)(int64_t)insn->imm;
        break;
    case ISA_AUIPC:
        result = pc + (uint64_t)(int64_t)insn->imm;
        break;
    case ISA_ADDI:
        result = x[insn->rs1] + (uint64_t)(int64_t)insn->imm;
        break;
    case ISA_ADD:
        result = x[insn->rs1] + x[insn->rs2];
        break;
    case ISA_LD:
        if (checker_copy_in(call->checker, &result, a + (uint64_t)(int64_t)insn->imm,
                            sizeof(result)) < 0)
            return false;
        break;
    default:
        return false;
    }
    // A branch has no destination, but may name one by the bits of its offset.
    if (insn->rd != 0 && (isa_op_flags(insn->op) & ISA_RD))
        x[insn->rd] = result;
    *next = branches ? pc + (uint64_t)(int64_t)insn->imm : pc + insn->length;
    return true;
}

bool takeover_can_resume(uint32_t raw)
{
    struct isa_insn insn;

    isa_decode(raw, &insn);
    return insn.op == ISA_LUI || insn.op == ISA_AUIPC || insn.op == ISA_ADDI ||
           insn.op == ISA_ADD || insn.op == ISA_SUB;
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
