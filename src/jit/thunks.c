// SPDX-License-Identifier: BSD-2-Clause
// The pinned registers, and the code around translated blocks: in, out, and to C and back.
#include <string.h>

#include "jit/internal.h"

// Guest registers chosen by how often compiled code and the kernel name them. Some of the host's
// would survive no call, but all of them are stored before one anyway: helpers see the whole hart.
const struct jit_map jit_map_standard = {{15, 10, 14, 2, 8, 11, 12, 13, 9, 1}};
const uint8_t jit_pins[JIT_PINS] = {X64_RBX, X64_R14, X64_R15, X64_R12, X64_R13,
                                    X64_RSI, X64_RDI, X64_R8,  X64_R9,  X64_R10};

static const uint8_t callee_saved[] = {X64_RBX, X64_RBP, X64_R12, X64_R13, X64_R14, X64_R15};

// Translated code runs with rsp 8 below a multiple of 16, so that it is aligned where a thunk that
// was called calls C: psABI 3.2.2.
static_assert((8 + 8 * BASE_COUNT_OF(callee_saved)) % 16 == 8, "the stack is aligned for calls");
static_assert(HART_X(0) >= INT8_MIN && HART_X(31) <= INT8_MAX, "x[] is within reach of rbp");

// The same for f[], by the order in which compilers take them, and those that they keep in loops
// with calls. Mostly they are stored by who wrote them (late.c), and here by calls out of line.
static const struct {
    uint8_t guest, xmm;
} pins_f[] = {
    {15, 3}, {14, 4},  {13, 5},  {12, 6},  {11, 7}, {10, 8}, {8, 9},
    {9, 10}, {18, 11}, {19, 12}, {20, 13}, {0, 14}, {1, 15},
};

int jit_pinned_f(unsigned reg)
{
    for (size_t i = 0; i < BASE_COUNT_OF(pins_f); i++)
        if (pins_f[i].guest == reg)
            return pins_f[i].xmm;
    return -1;
}

static void load_pins(struct x64 *x64)
{
    for (unsigned i = 0; i < JIT_PINS; i++)
        x64_rm(x64, X64_MOV | X64_W, jit_pins[i], X64_RBP, HART_X(jit_map_standard.guest[i]));
    x64_rm(x64, X64_MOV | X64_W, JIT_INSTRET, X64_RBP, HART_FIELD(instret));
}

static void load_pins_f(const struct jit *jit, struct x64 *x64)
{
    uint8_t *not_ready;

    if (!(jit->cpu & JIT_CPU_FMA))
        return;
    x64_rip_cmp8_imm(x64, &jit->fp_ready, true);
    not_ready = x64_jcc_forward(x64, X64_C_NE);
    for (size_t i = 0; i < BASE_COUNT_OF(pins_f); i++)
        x64_vex_rm(x64, X64_VMOV_LOAD | X64_SD, pins_f[i].xmm, 0, X64_RBP, HART_F(pins_f[i].guest));
    x64_bind(x64, not_ready);
}

static void store_pins_f(const struct jit *jit, struct x64 *x64)
{
    uint8_t *not_ready;

    x64_rip_cmp8_imm(x64, &jit->fp_ready, true);
    not_ready = x64_jcc_forward(x64, X64_C_NE);
    for (size_t i = 0; i < BASE_COUNT_OF(pins_f); i++)
        x64_vex_rm(x64, X64_VMOV_STORE | X64_SD, pins_f[i].xmm, 0, X64_RBP,
                   HART_F(pins_f[i].guest));
    x64_bind(x64, not_ready);
}

static void store_pins(struct x64 *x64)
{
    for (unsigned i = 0; i < JIT_PINS; i++)
        x64_rm(x64, X64_STORE_64, jit_pins[i], X64_RBP, HART_X(jit_map_standard.guest[i]));
    x64_rm(x64, X64_STORE_64, JIT_INSTRET, X64_RBP, HART_FIELD(instret));
}

static void emit_enter(const struct jit *jit, struct x64 *x64)
{
    for (size_t i = 0; i < BASE_COUNT_OF(callee_saved); i++)
        x64_push(x64, callee_saved[i]);
    x64_rm(x64, X64_LEA | X64_W, X64_RBP, X64_RDI, HART_BIAS);
    x64_rr(x64, X64_MOV | X64_W, X64_RAX, X64_RSI);
    load_pins(x64);
    load_pins_f(jit, x64);
    x64_jmp_reg(x64, X64_RAX);
}

static void emit_return(struct x64 *x64)
{
    for (size_t i = BASE_COUNT_OF(callee_saved); i-- > 0;)
        x64_pop(x64, callee_saved[i]);
    x64_ret(x64);
}

// Behind a call that was left: hart->x is complete already.
static void emit_left_by_call(struct x64 *x64)
{
    x64_alu_imm(x64, X64_I_ADD, X64_W, X64_RSP, 8);
    x64_mov_imm(x64, X64_RAX, 0);
    emit_return(x64);
}

static void emit_call(const struct jit *jit, struct x64 *x64)
{
    uint8_t *failed;

    store_pins(x64);
    x64_rm(x64, X64_LEA | X64_W, X64_RDI, X64_RBP, -HART_BIAS);
    x64_rr(x64, X64_MOV | X64_W, X64_RSI, X64_RCX);
    if (jit->counting)
        x64_call_far(x64, (const void *)jit_count_call);
    else
        x64_call_mem(x64, X64_RCX, offsetof(struct jit_site, helper));
    x64_rr(x64, X64_MOVZX_8, X64_RAX, X64_RAX);
    x64_rr(x64, X64_TEST, X64_RAX, X64_RAX);
    failed = x64_jcc_forward(x64, X64_C_E);
    load_pins(x64);
    load_pins_f(jit, x64);
    x64_ret(x64);
    x64_bind(x64, failed);
    emit_left_by_call(x64);
}

// The same for a block with a map of its own: the pinned registers are passed in `held`, and
// jit_map_call knows whose they are.
static void emit_call_mapped(struct jit *jit, struct x64 *x64)
{
    uint8_t *failed;

    for (unsigned i = 0; i < JIT_PINS; i++)
        x64_rip(x64, X64_STORE_64, jit_pins[i], &jit->held[i]);
    x64_rm(x64, X64_STORE_64, JIT_INSTRET, X64_RBP, HART_FIELD(instret));
    x64_rm(x64, X64_LEA | X64_W, X64_RDI, X64_RBP, -HART_BIAS);
    x64_rr(x64, X64_MOV | X64_W, X64_RSI, X64_RCX);
    x64_call_far(x64, (const void *)jit_map_call);
    x64_rr(x64, X64_MOVZX_8, X64_RAX, X64_RAX);
    x64_rr(x64, X64_TEST, X64_RAX, X64_RAX);
    failed = x64_jcc_forward(x64, X64_C_E);
    for (unsigned i = 0; i < JIT_PINS; i++)
        x64_rip(x64, X64_MOV | X64_W, jit_pins[i], &jit->held[i]);
    x64_rm(x64, X64_MOV | X64_W, JIT_INSTRET, X64_RBP, HART_FIELD(instret));
    load_pins_f(jit, x64);
    x64_ret(x64);
    x64_bind(x64, failed);
    emit_left_by_call(x64);
}

// What struct hart_at_once says is exact, and what calls do not keep.
static bool is_stored_at_once(unsigned i)
{
    unsigned guest = jit_map_standard.guest[i];

    return guest == HART_SP || (guest >= 10 && guest <= 13) ||
           !memchr(callee_saved, jit_pins[i], sizeof(callee_saved));
}

static void emit_call_at_once(const struct jit *jit, struct x64 *x64)
{
    for (unsigned i = 0; i < JIT_PINS; i++)
        if (is_stored_at_once(i))
            x64_rm(x64, X64_STORE_64, jit_pins[i], X64_RBP, HART_X(jit_map_standard.guest[i]));
    x64_rm(x64, X64_STORE_64, JIT_INSTRET, X64_RBP, HART_FIELD(instret));
    x64_rm(x64, X64_LEA | X64_W, X64_RDI, X64_RBP, -HART_BIAS);
    // The third argument, pc, is in rdx.
    x64_rm(x64, X64_MOV | X64_W, X64_RSI, X64_RCX, offsetof(struct hart_at_once, what));
    x64_call_mem(x64, X64_RCX, offsetof(struct hart_at_once, perform));
    x64_rr(x64, X64_MOVZX_8, X64_RAX, X64_RAX);
    for (unsigned i = 0; i < JIT_PINS; i++)
        if (is_stored_at_once(i))
            x64_rm(x64, X64_MOV | X64_W, jit_pins[i], X64_RBP, HART_X(jit_map_standard.guest[i]));
    x64_rm(x64, X64_MOV | X64_W, JIT_INSTRET, X64_RBP, HART_FIELD(instret));
    load_pins_f(jit, x64);
    x64_ret(x64);
}

// Code memory holds at least JIT_CODE_BYTES_MIN, which these never fill.
void jit_thunks_emit(struct jit *jit)
{
    struct x64 x64 = jit_memory_emitter(jit);
    struct jit_thunks *thunks = &jit->thunks;
    const uint8_t *enter = x64_here(&x64);

    emit_enter(jit, &x64);
    thunks->leave_to = x64_here(&x64);
    x64_alu_imm(&x64, X64_I_AND, X64_W, X64_RAX, -2);
    x64_rm(&x64, X64_STORE_64, X64_RAX, X64_RBP, HART_FIELD(pc));
    thunks->leave_nothing = x64_here(&x64);
    x64_mov_imm(&x64, X64_RAX, 0);
    thunks->leave = x64_here(&x64);
    store_pins(&x64);
    emit_return(&x64);
    thunks->call_late = x64_here(&x64);
    store_pins_f(jit, &x64);
    thunks->call = x64_here(&x64);
    emit_call(jit, &x64);
    thunks->call_mapped_late = x64_here(&x64);
    store_pins_f(jit, &x64);
    thunks->call_mapped = x64_here(&x64);
    emit_call_mapped(jit, &x64);
    thunks->call_at_once = x64_here(&x64);
    emit_call_at_once(jit, &x64);
    memcpy(&thunks->enter, &enter, sizeof(enter));
    jit->thunks_bytes = (size_t)(x64.out - jit->code);
    jit->part->code_first = jit->part->code_used = jit->thunks_bytes;
}
