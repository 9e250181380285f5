// SPDX-License-Identifier: BSD-2-Clause
// Flat address spaces: what a program may reach and what becomes of the rest, calls of the hooks,
// code that changes, pokes, fork. Of the interpreter, unless GUEST_ENGINE names another engine.
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#define PROGRAM_MEMBERS                                                                            \
    unsigned calls; /* ecalls with CALL_COUNT */                                                   \
    bool late;      /* the child waits for the parent, which goes on meanwhile */                  \
    atomic_uint pokes;                                                                             \
    unsigned pokes_wanted; /* and then it stops */                                                 \
    int ready[2];          /* a pipe to wait at */
#include "flat_program.h"

#define HEAP 0x200000ull  // what tests map

#define MANY_HARTS 520u
#define RACE_TURNS 3000u

enum { CALL_COUNT = 1, CALL_FORK = 2, CALL_OTHER = 3 };  // in x17

static void call_fork(struct program *program, struct hart *hart)
{
    program->child = fork();
    assert_true(program->child >= 0);
    if (program->child == 0 && program->late)
        assert_int_equal(read(program->ready[0], &(char){0}, 1), 1);
    if (program->child == 0)
        assert_int_equal(hart_forked(hart), 0);
    hart->x[A0] = program->child != 0;
}

// Another hart runs on the same thread, from where the first one goes on too.
static void call_other(struct program *program, const struct hart *hart)
{
    struct hart *other;

    assert_int_equal(hart_create_flat(&other, 1, &program->flat, hart->engine, NULL), 0);
    other->pc = hart->pc;
    memcpy(other->x, hart->x, sizeof(other->x));
    assert_int_equal(hart_run(other), HART_EXIT_STOPPED);
    hart_destroy(other);
}

static void call(struct program *program, struct hart *hart)
{
    hart->pc += 4;
    switch (hart->x[A7]) {
    case CALL_COUNT:
        program->calls++;
        hart->x[A0]++;
        break;
    case CALL_FORK:
        call_fork(program, hart);
        break;
    case CALL_OTHER:
        call_other(program, hart);
        break;
    default:
        hart_stop(hart);
    }
}

static void on_poke(void *opaque, struct hart *hart)
{
    struct program *program = opaque;

    if (atomic_fetch_add(&program->pokes, 1) + 1 >= program->pokes_wanted)
        hart_stop(hart);
}

static void unmap(struct program *program, uint64_t gva, uint64_t bytes)
{
    tell(program, gva, bytes, 0);
    assert_int_equal(mprotect(program->flat.hva + gva, bytes, PROT_NONE), 0);
}

static struct program *start_with(const struct hart_engine *engine)
{
    struct program *program = program_create();

    program->flat.poked = on_poke;
    program_begin(program, engine);
    map(program, HEAP, 4 * PAGE, RW);
    return program;
}

static struct program *start(void)
{
    return start_with(&GUEST_ENGINE);
}

static void expect(const struct program *program, uint64_t cause, uint64_t tval, uint64_t pc)
{
    assert_int_equal(program->cause, cause);
    assert_int_equal(program->tval, tval);
    assert_int_equal(program->pc, pc);
    assert_int_equal(program->hart->pc, pc);
}

// ---- Hooks

static void test_calls(void **state)
{
    struct program *program = start();
    struct hart *hart = program->hart;

    (void)state;
    emit(program, addi(A7, 0, CALL_COUNT));
    emit(program, addi(8, 0, 100));
    emit(program, ECALL);
    emit(program, addi(8, 8, -1));
    emit(program, bne(8, 0, -8));
    emit_exit(program);
    hart->x[A0] = 5;
    run_from(program, TEXT);
    assert_int_equal(program->calls, 100);
    assert_int_equal(hart->x[A0], 105);
    assert_int_equal(program->pc, TEXT + 6 * 4);
    assert_int_equal(hart->pc, TEXT + 7 * 4);
    // What traps does not retire: 2, then 100 times 2, then 1.
    assert_int_equal(hart->instret, 203);
    program_destroy(program);
}

static void test_other_hart(void **state)
{
    struct program *program = start();

    (void)state;
    emit(program, addi(A7, 0, CALL_OTHER));
    emit(program, ECALL);
    emit(program, ld(5, 6, 0));
    emit_exit(program);
    run_from(program, TEXT);
    expect(program, HART_CAUSE_LOAD_PAGE, 0, TEXT + 8);
    assert_int_equal(atomic_load(&program->traps), 2);
    program_destroy(program);
}

static void test_other_traps(void **state)
{
    const uint32_t mret = 0x30200073, wfi = 0x10500073, ebreak = 0x00100073;
    const struct {
        uint32_t insn;
        uint64_t cause, tval;
    } cases[] = {{0, HART_CAUSE_ILLEGAL, 0},
                 {mret, HART_CAUSE_ILLEGAL, mret},
                 {wfi, HART_CAUSE_ILLEGAL, wfi},
                 {SFENCE_VMA, HART_CAUSE_ILLEGAL, SFENCE_VMA},
                 {csrrs(5, ISA_CSR_SATP, 0), HART_CAUSE_ILLEGAL, csrrs(5, ISA_CSR_SATP, 0)},
                 {csrrs(5, ISA_CSR_MHARTID, 0), HART_CAUSE_ILLEGAL, csrrs(5, ISA_CSR_MHARTID, 0)},
                 {ebreak, HART_CAUSE_BREAKPOINT, TEXT + 4}};
    struct program *program = start();

    (void)state;
    for (size_t i = 0; i < BASE_COUNT_OF(cases); i++) {
        program->here = TEXT;
        emit(program, addi(5, 0, 1));
        emit(program, cases[i].insn);
        fence(program);
        run_from(program, TEXT);
        expect(program, cases[i].cause, cases[i].tval, TEXT + 4);
    }
    program_destroy(program);
}

static void test_counters(void **state)
{
    struct program *program = start();
    struct hart *hart = program->hart;

    (void)state;
    emit(program, csrrs(5, ISA_CSR_CYCLE, 0));
    emit(program, csrrs(6, ISA_CSR_TIME, 0));
    emit(program, csrrs(7, ISA_CSR_INSTRET, 0));
    emit(program, csrrs(8, ISA_CSR_FCSR, 0));
    emit_exit(program);
    hart->frm = 2;
    hart->fflags = 1;
    run_from(program, TEXT);
    assert_int_equal(atomic_load(&program->traps), 0);
    assert_int_equal(hart->x[7] - hart->x[5], 2);
    assert_true(hart->x[6] > 0);
    assert_int_equal(hart->x[8], 2 << 5 | 1);
    program_destroy(program);
}

// The hook sees the flags that the program raised, and rounding is the hook's own.
static void test_floating_point(void **state)
{
    const uint32_t fdiv_d = 0x1a007053 | 2 << 7 | 0 << 15 | 1 << 20;  // f2 = f0 / f1, dynamic
    struct program *program = start();
    struct hart *hart = program->hart;
    const double one = 1, three = 3;
    double third;

    (void)state;
    memcpy(&hart->f[0], &one, 8);
    memcpy(&hart->f[1], &three, 8);
    hart->frm = 3;  // up
    emit(program, fdiv_d);
    emit_exit(program);
    run_from(program, TEXT);
    memcpy(&third, &hart->f[2], 8);
    assert_int_equal(hart->fflags, 1);
    assert_true(third > *(const volatile double *)&one / *(const volatile double *)&three);
    program_destroy(program);
}

// ---- Accesses

// `insn` is the second of two.
static void run_access(struct program *program, uint32_t insn, uint64_t base)
{
    program->here = TEXT;
    emit(program, addi(5, 0, 77));
    emit(program, insn);
    emit_exit(program);
    fence(program);
    program->hart->x[6] = base;
    run_from(program, TEXT);
}

static void expect_done(const struct program *program)
{
    assert_int_equal(program->cause, HART_CAUSE_ECALL_U);
}

static void expect_fault(struct program *program, uint32_t insn, uint64_t base, uint64_t cause,
                         uint64_t tval)
{
    run_access(program, insn, base);
    expect(program, cause, tval, TEXT + 4);
    assert_int_equal(program->hart->x[5], 77);
}

static void test_page_faults(void **state)
{
    const uint64_t end = HEAP + 4 * PAGE;
    struct program *program = start();

    (void)state;
    map(program, HEAP + 2 * PAGE, PAGE, HART_PAGE_READ);
    expect_fault(program, lb(5, 6, 0), 0, HART_CAUSE_LOAD_PAGE, 0);
    expect_fault(program, sd(5, 6, 8), 0, HART_CAUSE_STORE_PAGE, 8);
    expect_fault(program, ld(5, 6, 0), end, HART_CAUSE_LOAD_PAGE, end);
    expect_fault(program, lb(5, 6, -1), HEAP, HART_CAUSE_LOAD_PAGE, HEAP - 1);
    expect_fault(program, sw(5, 6, 4), HEAP + 2 * PAGE, HART_CAUSE_STORE_PAGE, HEAP + 2 * PAGE + 4);
    expect_fault(program, sd(5, 6, 0), TEXT, HART_CAUSE_STORE_PAGE, TEXT);
    // Over a page's end the part that faults is told, and nothing of the other is stored.
    expect_fault(program, ld(5, 6, 0), end - 4, HART_CAUSE_LOAD_PAGE, end);
    expect_fault(program, sd(5, 6, 0), end - 7, HART_CAUSE_STORE_PAGE, end);
    expect_fault(program, sd(5, 6, 0), HEAP + 2 * PAGE - 4, HART_CAUSE_STORE_PAGE, HEAP + 2 * PAGE);
    expect_fault(program, ld(5, 6, 0), HEAP - 4, HART_CAUSE_LOAD_PAGE, HEAP - 4);
    expect_fault(program, sd(5, 6, 0), HEAP + 3 * PAGE - 4, HART_CAUSE_STORE_PAGE,
                 HEAP + 3 * PAGE - 4);
    assert_int_equal(get(program, end - 8), 0);
    assert_int_equal(get(program, HEAP + 2 * PAGE - 8), 0);
    assert_int_equal(get(program, HEAP + 3 * PAGE), 0);
    // What may be executed may be read.
    run_access(program, lw(5, 6, 0), TEXT);
    expect_done(program);
    assert_int_equal(program->hart->x[5], addi(5, 0, 77));
    program_destroy(program);
}

static void test_unaligned(void **state)
{
    struct program *program = start();

    (void)state;
    for (unsigned at = 0; at < 16; at++) {
        uint64_t gva = HEAP + PAGE - 8 + at;
        program->hart->x[7] = 0x1122334455667788 + at;
        run_access(program, sd(7, 6, 0), gva);
        expect_done(program);
        assert_int_equal(get(program, gva), program->hart->x[7]);
        run_access(program, ld(5, 6, -1), gva + 1);
        assert_int_equal(program->hart->x[5], program->hart->x[7]);
    }
    program_destroy(program);
}

static void test_bounds(void **state)
{
    const uint64_t end = HART_FLAT_BYTES, last = end - 8;
    const uint64_t beyond[] = {end,     end + 8,    end + PAGE,    end + (64 << 10),
                               2 * end, 1ull << 47, 1ull << 62,    1ull << 63,
                               -PAGE,   -end,       UINT64_MAX - 7};
    struct program *program = start();

    (void)state;
    map(program, end - PAGE, PAGE, RW);
    map(program, 0, PAGE, RW);
    set(program, last, 1234);
    set(program, 8, 4321);
    for (size_t i = 0; i < BASE_COUNT_OF(beyond); i++) {
        expect_fault(program, ld(5, 6, 0), beyond[i], HART_CAUSE_LOAD_PAGE, beyond[i]);
        expect_fault(program, sd(5, 6, 0), beyond[i], HART_CAUSE_STORE_PAGE, beyond[i]);
        expect_fault(program, amo(0u, 3, 5, 6, 5), beyond[i], HART_CAUSE_STORE_PAGE, beyond[i]);
        expect_fault(program, lr_d(5, 6), beyond[i], HART_CAUSE_LOAD_PAGE, beyond[i]);
    }
    expect_fault(program, ld(5, 6, 2047), last, HART_CAUSE_LOAD_PAGE, last + 2047);
    expect_fault(program, ld(5, 6, 0), end - 4, HART_CAUSE_LOAD_PAGE, end);
    expect_fault(program, sd(5, 6, -16), 8, HART_CAUSE_STORE_PAGE, (uint64_t)-8);
    expect_fault(program, lb(5, 6, -2048), 0, HART_CAUSE_LOAD_PAGE, (uint64_t)-2048);
    expect_fault(program, ld(5, 6, 0), (uint64_t)-4, HART_CAUSE_LOAD_PAGE, (uint64_t)-4);
    // The address counts, not the base.
    run_access(program, ld(5, 6, -16), end + 8);
    expect_done(program);
    assert_int_equal(program->hart->x[5], 1234);
    run_access(program, ld(5, 6, 16), (uint64_t)-8);
    expect_done(program);
    assert_int_equal(program->hart->x[5], 4321);
    program_destroy(program);
}

// A base that was found to be within bounds is another's after each instruction that writes it:
// here one that leads to memory that is there, and not the program's.
static void test_new_bases(void **state)
{
    const uint64_t wild = OUTSIDE + 64;
    const uint32_t writers[] = {ld(6, 7, 0),         lr_d(6, 7),    amo(1u, 3, 6, 7, 9),
                                amo(0u, 3, 6, 7, 0), addi(6, 8, 0),
                                0xe2008353,   // fmv.x.d x6, f1
                                0x02940333};  // mul x6, x8, x9
    struct program *program = start();

    (void)state;
    printf("a known base is not known any more once it is written\n");
    for (size_t i = 0; i < BASE_COUNT_OF(writers); i++) {
        set(program, HEAP, wild);
        program->hart->x[6] = program->hart->x[7] = HEAP;
        program->hart->x[8] = program->hart->f[1] = wild;
        program->hart->x[9] = 1;
        program->here = TEXT;
        emit(program, ld(5, 6, 0));
        emit(program, writers[i]);
        emit(program, ld(5, 6, 0));
        emit_exit(program);
        fence(program);
        run_from(program, TEXT);
        expect(program, HART_CAUSE_LOAD_PAGE, wild, TEXT + 8);
        assert_int_equal(program->hart->x[6], wild);
    }
    program_destroy(program);
}

// ---- Atomics

static void test_amo(void **state)
{
    const struct {
        unsigned f5;
        uint64_t old, operand, now;
    } cases[] = {{1, 5, 7, 7},
                 {0, 5, 7, 12},
                 {4, 5, 7, 2},
                 {12, 5, 7, 5},
                 {8, 5, 7, 7},
                 {16, 5, (uint64_t)-7, (uint64_t)-7},
                 {20, 5, (uint64_t)-7, 5},
                 {24, 5, (uint64_t)-7, 5},
                 {28, 5, (uint64_t)-7, (uint64_t)-7}};
    struct program *program = start();

    (void)state;
    for (size_t i = 0; i < BASE_COUNT_OF(cases); i++) {
        set(program, HEAP, cases[i].old);
        program->hart->x[7] = cases[i].operand;
        run_access(program, amo(cases[i].f5, 3, 5, 6, 7), HEAP);
        expect_done(program);
        assert_int_equal(program->hart->x[5], cases[i].old);
        assert_int_equal(get(program, HEAP), cases[i].now);
        // The word beside it stays.
        set(program, HEAP, cases[i].old | 0x8765432100000000);
        run_access(program, amo(cases[i].f5, 2, 5, 6, 7), HEAP);
        assert_int_equal(program->hart->x[5], cases[i].old);
        assert_int_equal(get(program, HEAP), (uint32_t)cases[i].now | 0x8765432100000000);
    }
    expect_fault(program, amo(0u, 3, 5, 6, 7), HEAP + 4, HART_CAUSE_STORE_MISALIGNED, HEAP + 4);
    expect_fault(program, amo(0u, 2, 5, 6, 7), TEXT, HART_CAUSE_STORE_PAGE, TEXT);
    expect_fault(program, lr_w(5, 6), HEAP + 2, HART_CAUSE_LOAD_MISALIGNED, HEAP + 2);
    expect_fault(program, lr_w(5, 6), 16, HART_CAUSE_LOAD_PAGE, 16);
    expect_fault(program, sc_w(5, 7, 6), TEXT, HART_CAUSE_STORE_PAGE, TEXT);
    program_destroy(program);
}

static void test_reservation(void **state)
{
    struct program *program = start();
    struct hart *hart = program->hart;

    (void)state;
    set(program, HEAP, 0xfffffffe);
    emit(program, lr_w(5, 6));
    emit(program, addi(7, 5, 1));
    emit(program, sc_w(8, 7, 6));
    emit(program, sc_w(12, 0, 6));
    emit(program, lr_d(5, 6));
    emit(program, addi(7, 6, 8));
    emit(program, sc_d(13, 0, 7));
    emit(program, lr_d(5, 6));
    emit(program, sd(0, 6, 0));
    emit(program, sc_d(14, 5, 6));
    emit_exit(program);
    hart->x[6] = HEAP;
    run_from(program, TEXT);
    assert_int_equal(atomic_load(&program->traps), 0);
    assert_int_equal(hart->x[8], 0);
    assert_int_equal(hart->x[12], 1);
    assert_int_equal(hart->x[5], 0xffffffff);
    assert_int_equal(hart->x[13], 1);
    assert_int_equal(hart->x[14], 1);
    assert_int_equal(get(program, HEAP), 0);
    program_destroy(program);
}

// ---- All of it, against the interpreter

#define SEQUENCES 1000
#define LENGTH 40

// Where the guest may read and write, mostly; or about where it may only read, may do nothing, and
// where there is nothing.
static uint64_t random_base(void)
{
    const uint64_t places[] = {
        HEAP, HEAP + PAGE, HEAP + 2 * PAGE, HEAP + 4 * PAGE, OUTSIDE, HART_FLAT_BYTES, 0};

    if (random_below(4))
        return HEAP + 64 + 8 * random_below(8);
    uint64_t place = places[random_below(BASE_COUNT_OF(places))], offset = 8 * random_below(4) - 8;
    return place + offset + (random_below(4) ? 0 : random_below(8));
}

// Registers 5 to 8 are for values, 12 to 15 for addresses.
static unsigned random_base_register(void)
{
    return 12 + (unsigned)random_below(4);
}

// An address from memory, from another register, or one nearby.
static uint32_t random_new_base(void)
{
    unsigned to = random_base_register(), from = random_base_register();

    switch (random_below(4)) {
    case 0:
        return ld(to, from, 8 * (int)random_below(8));
    case 1:
        return amo(1u, 3, to, from, random_base_register());
    case 2:
        return amo(3u, 3, to, from, random_base_register());
    default:
        return addi(to, from, (int)random_below(64) - 32);
    }
}

static uint32_t random_access(void)
{
    const unsigned operations[] = {0, 1, 2, 3, 4, 8, 12, 16, 20, 24, 28};
    unsigned value = 5 + (unsigned)random_below(4), base = random_base_register();
    unsigned f5 = operations[random_below(BASE_COUNT_OF(operations))];
    unsigned width = 2 + (unsigned)random_below(2), other = 5 + (unsigned)random_below(4);
    int imm = (int)random_below(32) - 16;

    switch (random_below(5)) {
    case 0:
        return i_type(0x03, (unsigned)random_below(7), value, base, imm);
    case 1:
        return s_type(0x23, (unsigned)random_below(4), base, value, imm);
    case 2:
        return amo(f5, width, value, base, f5 == 2 ? 0 : other);
    case 3:
        return random_new_base();
    default:
        return add(value, value, other);
    }
}

static void test_as_interpreter(void **state)
{
    struct program *programs[] = {start(), start_with(&hart_engine_interp)};
    unsigned traps = 0;

    (void)state;
    for (unsigned i = 0; i < SEQUENCES; i++) {
        uint64_t first = seed;
        for (unsigned p = 0; p < 2; p++) {
            struct program *program = programs[p];
            seed = first;
            program->goes_on = true;
            program->here = TEXT;
            map(program, HEAP + 2 * PAGE, PAGE, HART_PAGE_READ);
            tell(program, HEAP + 3 * PAGE, PAGE, 0);
            assert_int_equal(mprotect(program->flat.hva + HEAP + 3 * PAGE, PAGE, PROT_NONE), 0);
            for (unsigned j = 0; j < LENGTH; j++)
                emit(program, random_access());
            for (unsigned j = 0; j < 32; j++)
                set(program, HEAP + 8 * j, random_base());
            emit_exit(program);
            for (unsigned reg = 5; reg < 9; reg++)
                program->hart->x[reg] = random_below(3) * 0x8765432187654321;
            for (unsigned reg = 12; reg < 16; reg++)
                program->hart->x[reg] = random_base();
            fence(program);
            run_from(program, TEXT);
        }
        assert_memory_equal(programs[0]->hart->x, programs[1]->hart->x,
                            sizeof(programs[0]->hart->x));
        assert_int_equal(programs[0]->hart->instret, programs[1]->hart->instret);
        assert_int_equal(programs[0]->hash, programs[1]->hash);
        assert_memory_equal(programs[0]->flat.hva + HEAP, programs[1]->flat.hva + HEAP, 3 * PAGE);
    }
    traps = atomic_load(&programs[0]->traps);
    print_message("%u sequences of %u accesses, %u traps\n", SEQUENCES, LENGTH, traps);
    assert_true(traps > SEQUENCES);
    program_destroy(programs[0]);
    program_destroy(programs[1]);
}

// ---- Behind the end of a file

static void test_access_faults(void **state)
{
    struct program *program = start();
    int fd = memfd_create("short", MFD_CLOEXEC);

    (void)state;
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, PAGE), 0);
    map_file(program, HEAP, 2 * PAGE, RX | HART_PAGE_WRITE, fd);
    run_access(program, sd(6, 6, 0), HEAP + PAGE - 8);
    expect_done(program);
    expect_fault(program, ld(5, 6, 0), HEAP + PAGE, HART_CAUSE_LOAD_ACCESS, HEAP + PAGE);
    expect_fault(program, sd(5, 6, 0), HEAP + PAGE + 16, HART_CAUSE_STORE_ACCESS, HEAP + PAGE + 16);
    expect_fault(program, ld(5, 6, 0), HEAP + PAGE - 4, HART_CAUSE_LOAD_ACCESS, HEAP + PAGE);
    expect_fault(program, amo(0u, 3, 5, 6, 5), HEAP + PAGE, HART_CAUSE_STORE_ACCESS, HEAP + PAGE);
    expect_fault(program, lr_d(5, 6), HEAP + PAGE, HART_CAUSE_LOAD_ACCESS, HEAP + PAGE);
    run_from(program, HEAP + PAGE);
    expect(program, HART_CAUSE_FETCH_ACCESS, HEAP + PAGE, HEAP + PAGE);
    // Code that vanishes once it was executed.
    program->here = HEAP;
    emit_exit(program);
    run_from(program, HEAP);
    expect_done(program);
    assert_int_equal(ftruncate(fd, 0), 0);
    fence(program);
    run_from(program, HEAP);
    expect(program, HART_CAUSE_FETCH_ACCESS, HEAP, HEAP);
    close(fd);
    program_destroy(program);
}

// ---- Code

static void test_fetch_faults(void **state)
{
    const uint64_t pcs[] = {0, HEAP, HART_FLAT_BYTES, HART_FLAT_BYTES + PAGE, 1ull << 63, -PAGE};
    struct program *program = start();

    (void)state;
    for (size_t i = 0; i < BASE_COUNT_OF(pcs); i++) {
        run_from(program, pcs[i]);
        expect(program, HART_CAUSE_FETCH_PAGE, pcs[i], pcs[i]);
        program->hart->x[6] = pcs[i];
        program->here = TEXT;
        emit(program, jalr(1, 6, 0));
        run_from(program, TEXT);
        expect(program, HART_CAUSE_FETCH_PAGE, pcs[i], pcs[i]);
        assert_int_equal(program->hart->x[1], TEXT + 4);
    }
    // An instruction of which the second half is in a page that may not be executed, or is nowhere.
    program->here = TEXT + TEXT_BYTES - 2;
    set_bytes(program, program->here, &(uint16_t){0x0013}, 2);
    run_from(program, TEXT + TEXT_BYTES - 2);
    expect(program, HART_CAUSE_FETCH_PAGE, TEXT + TEXT_BYTES, TEXT + TEXT_BYTES - 2);
    program_destroy(program);
}

static void emit_function(struct program *program, uint64_t gva, int value)
{
    program->here = gva;
    emit(program, addi(A0, 0, value));
    emit(program, jalr(0, 1, 0));
}

// Calls the function at HEAP three times.
static void run_caller(struct program *program)
{
    program->here = TEXT;
    emit(program, addi(8, 0, 3));
    emit(program, jalr(1, 6, 0));
    emit(program, addi(8, 8, -1));
    emit(program, bne(8, 0, -8));
    emit_exit(program);
    program->hart->x[6] = HEAP;
    run_from(program, TEXT);
}

static void test_code_changes(void **state)
{
    struct program *program = start();

    (void)state;
    for (int i = 1; i < 20; i++) {
        map(program, HEAP, PAGE, RX | HART_PAGE_WRITE);
        emit_function(program, HEAP, i);
        fence(program);
        run_caller(program);
        expect_done(program);
        assert_int_equal(program->hart->x[A0], i);
        // No longer executable, then gone.
        map(program, HEAP, PAGE, RW);
        fence(program);
        run_caller(program);
        expect(program, HART_CAUSE_FETCH_PAGE, HEAP, HEAP);
        unmap(program, HEAP, PAGE);
        fence(program);
        run_caller(program);
        expect(program, HART_CAUSE_FETCH_PAGE, HEAP, HEAP);
    }
    program_destroy(program);
}

// The program writes its own code and executes fence.i.
static void test_own_code(void **state)
{
    struct program *program = start();

    (void)state;
    map(program, HEAP, PAGE, RX | HART_PAGE_WRITE);
    emit_function(program, HEAP, 1);
    program->here = TEXT;
    emit(program, jalr(1, 6, 0));
    emit(program, add(12, A0, 0));
    emit(program, sw(13, 6, 0));
    emit(program, FENCE_I);
    emit(program, jalr(1, 6, 0));
    emit_exit(program);
    program->hart->x[6] = HEAP;
    program->hart->x[13] = addi(A0, 0, 2);
    run_from(program, TEXT);
    expect_done(program);
    assert_int_equal(program->hart->x[12], 1);
    assert_int_equal(program->hart->x[A0], 2);
    program_destroy(program);
}

// ---- Pokes

static void *poke(void *opaque)
{
    struct program *program = opaque;

    for (unsigned i = 0; i < program->pokes_wanted; i++) {
        hart_poke(program->hart);
        while (atomic_load(&program->pokes) <= i)
            sched_yield();
    }
    return NULL;
}

static void test_pokes(void **state)
{
    struct program *program = start();
    pthread_t thread;

    (void)state;
    program->pokes_wanted = 20;
    emit(program, addi(5, 5, 1));
    emit(program, jal(0, -4));
    assert_int_equal(pthread_create(&thread, NULL, poke, program), 0);
    run_from(program, TEXT);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(atomic_load(&program->pokes), 20);
    assert_true(program->hart->pc == TEXT || program->hart->pc == TEXT + 4);
    program_destroy(program);
}

static void test_poke_before(void **state)
{
    struct program *program = start();

    (void)state;
    program->pokes_wanted = 1;
    emit(program, addi(5, 0, 1));
    hart_poke(program->hart);
    hart_poke(program->hart);
    hart_stop(program->hart);
    run_from(program, TEXT);
    assert_int_equal(atomic_load(&program->pokes), 0);
    run_from(program, TEXT);
    assert_int_equal(atomic_load(&program->pokes), 1);
    assert_int_equal(program->hart->pc, TEXT);
    assert_int_equal(program->hart->x[5], 0);
    program_destroy(program);
}

// ---- Signals that are no faults of the guest's

static volatile sig_atomic_t signals;

static void count_signal(int signal, siginfo_t *info, void *context)
{
    (void)signal, (void)info, (void)context;
    signals = signals + 1;
}

// Whoever handled the signals before gets those that were sent, each time, and nothing is lost.
static void test_sent_signals(void **state)
{
    const struct sigaction action = {.sa_sigaction = count_signal, .sa_flags = SA_SIGINFO};
    struct sigaction before[2];
    struct program *program;

    (void)state;
    assert_int_equal(sigaction(SIGSEGV, &action, &before[0]), 0);
    assert_int_equal(sigaction(SIGBUS, &action, &before[1]), 0);
    program = start();
    for (int i = 1; i <= 3; i++) {
        assert_int_equal(raise(SIGSEGV), 0);
        assert_int_equal(raise(SIGBUS), 0);
        assert_int_equal(signals, 2 * i);
        expect_fault(program, ld(5, 6, 0), 0, HART_CAUSE_LOAD_PAGE, 0);
    }
    assert_int_equal(signals, 6);
    program_destroy(program);
    assert_int_equal(sigaction(SIGSEGV, &before[0], NULL), 0);
    assert_int_equal(sigaction(SIGBUS, &before[1], NULL), 0);
}

// ---- Others meanwhile

static void *flip(void *opaque)
{
    struct program *program = opaque;

    for (unsigned i = 0; i < RACE_TURNS || !atomic_load(&program->traps); i++) {
        unmap(program, HEAP, 2 * PAGE);
        sched_yield();
        map(program, HEAP, 2 * PAGE, RW);
    }
    hart_stop(program->hart);
    return NULL;
}

// Memory comes and goes under a program that accesses it in all ways: it faults or not.
static void test_race(void **state)
{
    struct program *program = start();
    pthread_t thread;

    (void)state;
    program->goes_on = true;
    emit(program, sd(6, 6, 0));
    emit(program, ld(5, 6, 0));
    emit(program, sd(6, 7, 0));
    emit(program, lr_w(5, 6));
    emit(program, sc_w(8, 5, 6));
    emit(program, amo(0u, 3, 5, 6, 6));
    emit(program, amo(16u, 3, 5, 6, 6));
    emit(program, jal(0, -7 * 4));
    program->hart->x[6] = HEAP;
    program->hart->x[7] = HEAP + PAGE - 4;
    assert_int_equal(pthread_create(&thread, NULL, flip, program), 0);
    run_from(program, TEXT);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_in_range(program->hart->pc, TEXT, TEXT + 7 * 4);
    program_destroy(program);
}

#define ADDERS 4
#define ADDITIONS 20000

static void *run_hart(void *opaque)
{
    return hart_run(opaque) == HART_EXIT_STOPPED ? opaque : NULL;
}

// Four threads add to the same words, by an AMO and by LR and SC.
static void test_threads(void **state)
{
    struct program *program = start();
    struct program adders[ADDERS];
    struct hart *harts[ADDERS];
    pthread_t threads[ADDERS];
    void *ran;

    (void)state;
    emit(program, addi(7, 0, 1));
    emit(program, amo(0u, 3, 0, 6, 7));
    emit(program, addi(12, 6, 8));
    emit(program, lr_w(13, 12));
    emit(program, addi(13, 13, 3));
    emit(program, sc_w(14, 13, 12));
    emit(program, bne(14, 0, -12));
    emit(program, addi(12, 6, 16));
    emit(program, amo(28u, 3, 13, 12, 8));
    emit(program, addi(8, 8, -1));
    emit(program, bne(8, 0, -36));
    emit_exit(program);
    for (unsigned i = 0; i < ADDERS; i++) {
        memset((void *)&adders[i], 0, sizeof(adders[i]));
        adders[i].flat = program->flat;
        adders[i].flat.opaque = &adders[i];
        assert_int_equal(hart_create_flat(&harts[i], i, &adders[i].flat, &GUEST_ENGINE, NULL), 0);
        harts[i]->pc = TEXT;
        harts[i]->x[6] = HEAP;
        harts[i]->x[8] = ADDITIONS;
        assert_int_equal(pthread_create(&threads[i], NULL, run_hart, harts[i]), 0);
    }
    for (unsigned i = 0; i < ADDERS; i++) {
        assert_int_equal(pthread_join(threads[i], &ran), 0);
        assert_ptr_equal(ran, harts[i]);
        assert_int_equal(atomic_load(&adders[i].traps), 0);
        hart_destroy(harts[i]);
    }
    assert_int_equal(get(program, HEAP), ADDERS * ADDITIONS);
    assert_int_equal(get(program, HEAP + 8), 3 * ADDERS * ADDITIONS);
    assert_int_equal(get(program, HEAP + 16), ADDITIONS);
    program_destroy(program);
}

static void test_many(void **state)
{
    struct program *program = start();
    struct hart **harts = test_calloc(MANY_HARTS, sizeof(struct hart *));
    const unsigned count = sanitized() ? MANY_HARTS / 8 : MANY_HARTS;

    (void)state;
    emit(program, addi(A0, A0, 1));
    emit_exit(program);
    for (unsigned i = 0; i < count; i++) {
        assert_int_equal(hart_create_flat(&harts[i], i, &program->flat, &GUEST_ENGINE, NULL), 0);
        harts[i]->pc = TEXT;
        harts[i]->x[A0] = i;
        assert_int_equal(hart_run(harts[i]), HART_EXIT_STOPPED);
        assert_int_equal(harts[i]->x[A0], i + 1);
    }
    hart_fence_remote(program->hart, harts, count, HART_FENCE_I | HART_FENCE_VMA);
    for (unsigned i = 0; i < count; i++)
        hart_destroy(harts[i]);
    test_free(harts);
    program_destroy(program);
}

// ---- fork

static int child_status(const struct program *program)
{
    int status;

    assert_int_equal(waitpid(program->child, &status, 0), program->child);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

// x10 after a fork, the function at HEAP, one more that only the child or the parent calls.
static void emit_forker(struct program *program)
{
    map(program, HEAP, PAGE, RX | HART_PAGE_WRITE);
    emit_function(program, HEAP, 3);
    program->here = HEAP + 64;  // what the child calls
    emit(program, addi(A0, A0, 40));
    emit(program, jalr(0, 1, 0));
    program->here = HEAP + 128;  // and the parent
    emit(program, addi(A0, A0, 50));
    emit(program, jalr(0, 1, 0));
    program->here = TEXT;
    emit(program, jalr(1, 6, 0));
    emit(program, addi(A7, 0, CALL_FORK));
    emit(program, ECALL);
    emit(program, add(8, A0, 0));
    emit(program, jalr(1, 6, 0));
    emit(program, sd(8, 7, 0));
    emit(program, bne(8, 0, 12));
    emit(program, jalr(1, 6, 64));
    emit(program, jal(0, 8));
    emit(program, jalr(1, 6, 128));
    emit_exit(program);
    program->hart->x[6] = HEAP;
    program->hart->x[7] = HEAP + PAGE;
}

// The child has the parent's code, or, when it is late, must not have it.
static void test_fork(void **state)
{
    struct program *program = start();

    (void)state;
    assert_int_equal(pipe(program->ready), 0);
    for (unsigned turn = 0; turn < 6; turn++) {
        program->late = turn & 1;
        emit_forker(program);
        set(program, HEAP + PAGE, 9);
        run_from(program, TEXT);
        if (program->child == 0)
            _exit(program->hart->x[A0] == 43 && get(program, HEAP + PAGE) == 0 ? 7 : 1);
        assert_int_equal(program->hart->x[A0], 53);
        assert_int_equal(get(program, HEAP + PAGE), 1);
        if (program->late)
            assert_int_equal(write(program->ready[1], "", 1), 1);
        assert_int_equal(child_status(program), 7);
    }
    close(program->ready[0]);
    close(program->ready[1]);
    program_destroy(program);
}

// A hart that is stopped meanwhile; and children of children.
static void test_fork_stopped(void **state)
{
    struct program *program = start();
    bool ok = true;

    (void)state;
    map(program, HEAP, PAGE, RX | HART_PAGE_WRITE);
    emit_function(program, HEAP, 3);
    run_caller(program);
    program->child = fork();
    if (program->child == 0) {
        for (int i = 0; i < 3 && program->child == 0; i++) {
            ok &= hart_forked(program->hart) == 0;
            run_caller(program);
            ok &= program->hart->x[A0] == 3;
            program->child = i < 2 ? fork() : 0;
        }
        if (program->child)
            ok &= child_status(program) == 7;
        _exit(ok ? 7 : 1);
    }
    run_caller(program);
    assert_int_equal(program->hart->x[A0], 3);
    assert_int_equal(child_status(program), 7);
    program_destroy(program);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_calls),          cmocka_unit_test(test_other_traps),
        cmocka_unit_test(test_other_hart),     cmocka_unit_test(test_counters),
        cmocka_unit_test(test_floating_point), cmocka_unit_test(test_page_faults),
        cmocka_unit_test(test_unaligned),      cmocka_unit_test(test_bounds),
        cmocka_unit_test(test_new_bases),      cmocka_unit_test(test_amo),
        cmocka_unit_test(test_reservation),    cmocka_unit_test(test_as_interpreter),
        cmocka_unit_test(test_access_faults),  cmocka_unit_test(test_fetch_faults),
        cmocka_unit_test(test_code_changes),   cmocka_unit_test(test_own_code),
        cmocka_unit_test(test_pokes),          cmocka_unit_test(test_poke_before),
        cmocka_unit_test(test_sent_signals),   cmocka_unit_test(test_race),
        cmocka_unit_test(test_threads),        cmocka_unit_test(test_many),
        cmocka_unit_test(test_fork),           cmocka_unit_test(test_fork_stopped),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
