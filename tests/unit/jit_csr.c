// SPDX-License-Identifier: BSD-2-Clause
// CSR instructions, translated, against the interpreter: random sequences in each mode, among
// floating-point instructions that raise flags, with interrupts pending or not.
#include <stdio.h>

#include "jit/jit.h"

#define GUEST_ENGINE hart_engine_jit
#include "interp_guest.h"

#define SEQUENCES 20000
#define LENGTH 12

static uint64_t seed = 1;

static uint64_t random_next(void)
{
    seed = seed * 6364136223846793005 + 1442695040888963407;
    return seed >> 29 ^ seed << 35;
}

static uint64_t random_below(uint64_t bound)
{
    return random_next() % bound;
}

static bool sometimes(void)
{
    return random_below(4) == 0;
}

// Pinned registers and others, and x0. Not those that the guest's way to stop needs.
static unsigned random_register(void)
{
    static const uint8_t registers[] = {0, 1, 5, 8, 10, 14, 15, 18, 28, 31};

    return registers[random_below(BASE_COUNT_OF(registers))];
}

// FS is mostly on, so that there is floating point to test.
static uint64_t random_status(void)
{
    return (random_next() & (HART_SSTATUS_MASK | HART_MSTATUS_SD)) |
           (sometimes() && sometimes() ? 0 : HART_MSTATUS_FS);
}

static uint64_t random_value(void)
{
    static const uint64_t values[] = {0,
                                      1,
                                      HART_MSTATUS_SIE,
                                      HART_MSTATUS_FS,
                                      HART_MSTATUS_SUM,
                                      HART_MSTATUS_SPIE,
                                      0xe0,
                                      0x1f,
                                      UINT64_MAX,
                                      HART_MSTATUS_MXR,
                                      0x80,
                                      0x3ff0000000000000};

    switch (random_below(3)) {
    case 0:
        return random_next();
    case 1:
        return random_status();
    default:
        return values[random_below(BASE_COUNT_OF(values))];
    }
}

static uint32_t random_csr_insn(void)
{
    static const uint16_t numbers[] = {
        ISA_CSR_SSTATUS, ISA_CSR_SSTATUS, ISA_CSR_SSTATUS, ISA_CSR_SSCRATCH, ISA_CSR_SEPC,
        ISA_CSR_SCAUSE,  ISA_CSR_STVAL,   ISA_CSR_FFLAGS,  ISA_CSR_FFLAGS,   ISA_CSR_FRM,
        ISA_CSR_FCSR,    ISA_CSR_CYCLE,   ISA_CSR_INSTRET, ISA_CSR_MSCRATCH, ISA_CSR_SIE};
    unsigned number = numbers[random_below(BASE_COUNT_OF(numbers))];
    unsigned op = 1 + (unsigned)random_below(7), rs1 = random_register();

    if (op == 4)
        op = 2;
    if (op > 4)
        rs1 = random_below(2) ? 2 : (unsigned)random_below(32);
    if (sometimes() || (number >> 10 == 3 && !sometimes()))  // counters are read-only
        rs1 = 0;
    return i_type(0x73, op, random_register(), rs1, (int)number);
}

static uint32_t random_fp_insn(void)
{
    static const uint8_t f7[] = {0x01, 0x05, 0x09, 0x0d, 0x00, 0x0c};
    unsigned rd = (unsigned)random_below(4), rs1 = (unsigned)random_below(4);
    unsigned rs2 = (unsigned)random_below(4), rm = sometimes() ? 0 : 7;

    switch (random_below(4)) {
    case 0:  // flt, fle, feq
        return r_type(0x53, (unsigned)random_below(3), 0x51 - (unsigned)random_below(2),
                      random_register(), rs1, rs2);
    case 1:  // fcvt.l.d
        return r_type(0x53, rm, 0x61, random_register(), rs1, 2);
    default:
        return r_type(0x53, rm, f7[random_below(BASE_COUNT_OF(f7))], rd, rs1, rs2);
    }
}

// frflags, a comparison, fsflags.
static unsigned put_quiet(uint32_t *code)
{
    unsigned saved = random_register();

    code[0] = csrrs(saved, ISA_CSR_FFLAGS, 0);
    code[1] = r_type(0x53, (unsigned)random_below(2), 0x51 - (unsigned)random_below(2),
                     random_register(), (unsigned)random_below(4), (unsigned)random_below(4));
    code[2] = csrrw(0, ISA_CSR_FFLAGS, sometimes() ? random_register() : saved);
    return 3;
}

static unsigned fill(uint32_t *code)
{
    unsigned count = 0;

    while (count + 3 <= LENGTH) {
        unsigned kind = (unsigned)random_below(4);

        if (kind == 0)
            count += put_quiet(&code[count]);
        else
            code[count++] = kind == 1 ? random_fp_insn() : random_csr_insn();
    }
    return count;
}

// ---- Both engines

static void open_pmp(struct hart *hart)
{
    assert_int_equal(hart_csr_poke(hart, ISA_CSR_PMPADDR0, UINT64_MAX), 0);
    assert_int_equal(hart_csr_poke(hart, ISA_CSR_PMPCFG0, 0x1f), 0);
}

// Random state of a random mode.
static void set_state(struct hart *hart)
{
    static const uint8_t modes[] = {HART_S, HART_S, HART_S, HART_S, HART_S, HART_U, HART_M};
    static const uint64_t f[] = {
        0x3ff0000000000000, 0x3fd5555555555555, 0x7ff0000000000001, 0x7ff8000000000000,
        0x7fefffffffffffff, 0xffffffff3f800001, 0xffffffff7fc00000, 0};

    guest_reset_hart(hart);
    open_pmp(hart);
    for (unsigned i = 1; i < 32; i++)
        if (i != 3 && i != 9)
            hart->x[i] = random_value();
    for (unsigned i = 0; i < 4; i++)
        hart->f[i] = f[random_below(BASE_COUNT_OF(f))];
    hart->privilege = modes[random_below(BASE_COUNT_OF(modes))];
    hart->mstatus |= random_status() & HART_SSTATUS_MASK & ~(uint64_t)HART_MSTATUS_MXR;
    hart->frm = sometimes() && sometimes() ? (uint8_t)random_below(8) : 0;
    hart->fflags = (uint8_t)random_below(32);
    hart->sscratch = random_next();
    hart->mcounteren = sometimes() ? 0 : 7;
    hart->scounteren = sometimes() ? 0 : 7;
    hart->mcountinhibit = sometimes() ? 5 : 0;
    hart->minstret_offset = random_next();
    hart->mcycle_offset = random_next();
    hart->mideleg = HART_IRQ_SSIP;
    hart->mie = random_below(2) ? HART_IRQ_SSIP : 0;
    atomic_store(&hart->mip_software, random_below(2) ? HART_IRQ_SSIP : 0);
    hart_mmu_update(hart);
}

// To the end, or until an interrupt is noticed.
static void interpret(struct hart *hart)
{
    hart->pc = CODE;
    atomic_store(&hart->attention, 0);
    while (!atomic_load(&hart->attention))
        hart->engine->step(hart, hart->engine_state);
    if (hart->pc == STOP_LOOP)  // a jump that the translator looks at attention behind
        hart->engine->step(hart, hart->engine_state);
}

static void compare(const struct hart *got, const struct hart *want, const uint32_t *code)
{
    struct isa_insn insn;
    char text[80];
    bool same =
        got->pc == want->pc && got->instret == want->instret && got->mstatus == want->mstatus &&
        got->fflags == want->fflags && got->frm == want->frm && got->sscratch == want->sscratch &&
        got->sepc == want->sepc && got->scause == want->scause && got->stval == want->stval &&
        got->mcause == want->mcause && got->mepc == want->mepc && got->mtval == want->mtval &&
        got->mie == want->mie && got->tlb == want->tlb &&
        !memcmp(got->x, want->x, sizeof(got->x)) && !memcmp(got->f, want->f, sizeof(got->f));

    if (same)
        return;
    for (unsigned i = 0; i < LENGTH; i++) {
        isa_decode(code[i], &insn);
        printf("%s\n", isa_disassemble(&insn, CODE + 4 * i, text, sizeof(text)));
    }
    for (unsigned i = 0; i < 32; i++)
        if (got->x[i] != want->x[i])
            printf("x%u %#lx, want %#lx\n", i, got->x[i], want->x[i]);
    fail_msg("pc %#lx mstatus %#lx fflags %#x instret %lu, want %#lx %#lx %#x %lu", got->pc,
             got->mstatus, got->fflags, got->instret, want->pc, want->mstatus, want->fflags,
             want->instret);
}

static void test_sequences(void **state)
{
    static struct hart want;
    struct guest *guest = *state;
    struct hart *hart = guest->hart;
    unsigned stopped = 0, trapped = 0;

    for (unsigned n = 0; n < SEQUENCES; n++) {
        uint32_t code[LENGTH] = {0};
        unsigned count = fill(code);
        uint64_t before;

        guest->here = CODE;
        for (unsigned i = 0; i < count; i++)
            put(guest, code[i]);
        put_stop(guest);
        hart->engine->fence_i(hart, hart->engine_state);

        before = seed;
        set_state(hart);
        interpret(hart);
        want = *hart;
        seed = before;
        set_state(hart);
        guest_run_hart(hart, CODE);
        compare(hart, &want, code);
        stopped += hart->pc != STOP_LOOP;
        trapped += hart->mcause != 0;
    }
    printf("%u sequences agree; %u interrupted, %u trapped\n", SEQUENCES, stopped, trapped);
    assert_true(stopped > SEQUENCES / 40 && trapped > SEQUENCES / 40);
    assert_true(stopped + trapped < SEQUENCES);
}

int main(void)
{
    const struct CMUnitTest tests[] = {guest_test(test_sequences)};

    return cmocka_run_group_tests_name("jit: CSRs", tests, NULL, NULL);
}
