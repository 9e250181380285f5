// SPDX-License-Identifier: BSD-2-Clause
// Checked harts: which accesses are made, which the hook is asked for and what it gets to see;
// calls, returns and what is taken. Of the interpreter, unless GUEST_ENGINE names another engine.
#include <pthread.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "hart/hart.h"

struct asked {
    uint64_t pointer, bytes, pc, x5, instret;
    enum hart_access kind;
};

#define PROGRAM_MEMBERS                                                                            \
    struct hart_check check;                                                                       \
    struct memory_identifiers identifiers;                                                         \
    bool reserved; /* all of the table */                                                          \
    bool refuses;  /* accesses and returns that the hooks are asked for */                         \
    unsigned asked_count;                                                                          \
    struct asked asked;     /* last */                                                             \
    _Atomic uint64_t takes; /* this pc, and 16 bytes behind it */                                  \
    unsigned taken, returns;                                                                       \
    uint64_t expected;                                                                             \
    uint64_t places[HART_CALLS];                                                                   \
    unsigned place_count; /* when it was taken */                                                  \
    unsigned numbered;    /* calls */                                                              \
    bool stops;           /* what is taken */                                                      \
    unsigned tried, done; /* at once */                                                            \
    const void *what;
#include "flat_program.h"

#define STACKS (160ull << 30)
#define HEAP (192ull << 30)

#define FUNCTIONS 0x20000ull           // of functions that tests call
#define PLAIN 0x200000ull              // what tests map, without identifiers
#define STACK (STACKS + (1ull << 20))  // a stack's middle
#define OBJECT (HEAP + 0x10000)        // of OBJECT_BYTES, which end within a granule
#define OBJECT_BYTES 72ull
#define NEXT_OBJECT (OBJECT + 80)
#define ID 0x1235u
#define NEXT_ID 0x1236u
#define P(gva, id) memory_pointer_make(gva, id)

enum { CALL_FORK = 2 };  // in x17

static void call(struct program *program, struct hart *hart)
{
    if (hart->x[A7] != CALL_FORK) {
        hart_stop(hart);
        return;
    }
    hart->pc += 4;
    program->child = fork();
    assert_true(program->child >= 0);
    if (program->child == 0)
        assert_int_equal(hart_forked(hart), 0);
}

static void on_poke(void *opaque, struct hart *hart)
{
    (void)opaque, (void)hart;
}

static bool on_access(void *opaque, struct hart *hart, uint64_t pointer, uint64_t bytes,
                      enum hart_access kind)
{
    struct program *program = opaque;

    program->asked_count++;
    program->asked = (struct asked){.pointer = pointer,
                                    .bytes = bytes,
                                    .pc = hart->pc,
                                    .x5 = hart->x[5],
                                    .instret = hart->instret,
                                    .kind = kind};
    if (!program->refuses)
        return true;
    note(program,
         pointer ^ bytes << 20 ^ hart->pc << 32 ^ (uint64_t)kind << 50 ^ hart->instret << 52);
    for (unsigned reg = 1; reg < 32; reg++)
        note(program, hart->x[reg]);
    hart->pc += 4;
    return false;
}

static bool takes(void *opaque, uint64_t pc)
{
    struct program *program = opaque;
    uint64_t first = atomic_load(&program->takes);

    return pc == first || pc == first + 16;
}

static uint32_t within(uint32_t outer, uint64_t place)
{
    return (outer ^ (uint32_t)place) * 2654435761u + 1;
}

static uint32_t asks_within(void *opaque, uint32_t outer, uint64_t place)
{
    struct program *program = opaque;

    program->numbered++;
    return within(outer, place);
}

// The number that the calls have which the hart says to be within.
static void check_context(struct hart *hart, const struct program *program)
{
    const uint32_t outermost = 17;
    uint32_t expected = outermost;

    for (unsigned i = program->place_count; i-- > 0;)
        expected = within(expected, program->places[i]);
    assert_int_equal(hart_context(hart, outermost, asks_within, (void *)program), expected);
}

static void taken(void *opaque, struct hart *hart)
{
    struct program *program = opaque;

    program->taken++;
    program->place_count = hart_callers(hart, program->places, HART_CALLS);
    check_context(hart, program);
    program->pc = hart->pc;
    hart->x[A0] += 100;
    hart->pc = hart->x[RA];
    if (program->stops)
        hart_stop(hart);
}

// Does every other one. The registers that are exact are as in test_at_once.
static bool perform(struct hart *hart, const void *what, uint64_t pc)
{
    struct program *program = hart->check->opaque;
    const uint64_t *x = hart->x;

    assert_ptr_equal(what, program->what);
    assert_int_equal(pc, FUNCTIONS);
    assert_true(x[2] == STACK - 32 && x[11] == 11 && x[12] == 12 && x[13] == 13);
    if (program->tried++ % 2)
        return false;
    program->done++;
    hart->x[A0] += 100;
    return true;
}

static struct hart_at_once at_once(void *opaque, uint64_t pc)
{
    struct program *program = opaque;

    return takes(opaque, pc) && program->what
               ? (struct hart_at_once){.perform = perform, .what = program->what}
               : (struct hart_at_once){0};
}

static bool on_return(void *opaque, struct hart *hart, uint64_t expected)
{
    struct program *program = opaque;

    program->returns++;
    program->expected = expected;
    program->pc = hart->pc;
    if (program->refuses)
        hart->pc = expected;
    return !program->refuses;
}

static void fill(struct program *program, uint64_t gva, uint64_t bytes, uint16_t identifier)
{
    memory_identifiers_set(&program->identifiers, gva, bytes, identifier);
}

// As the heap does: an object whose last granule says where it ends.
static void make_object(struct program *program)
{
    fill(program, OBJECT, 64, ID);
    fill(program, OBJECT + 64, 16, ID | MEMORY_IDENTIFIER_PARTIAL);
    program->flat.hva[OBJECT + 79] = OBJECT_BYTES - 64;
    fill(program, NEXT_OBJECT, 64, NEXT_ID);
}

// Without `reserved` nothing is known of what is behind the table of identifiers, and what is there
// looks as if it were more of it.
static void put_entries_outside(struct program *program)
{
    const uint64_t first = OUTSIDE / MEMORY_GRANULE_BYTES, count = PAGE / MEMORY_GRANULE_BYTES;
    uint8_t *page = (uint8_t *)(program->identifiers.entries + (first & ~(PAGE / 2 - 1)));

    assert_int_equal(mprotect(page, 2 * PAGE, PROT_READ | PROT_WRITE), 0);
    for (uint64_t i = first; i < first + count; i++)
        atomic_store(&program->identifiers.entries[i], ID);
}

static struct program *start_with(const struct hart_engine *engine, bool reserved)
{
    struct program *program = program_create();

    assert_int_equal(memory_identifiers_init(&program->identifiers, HART_FLAT_BYTES, NULL), 0);
    program->reserved = program->identifiers.reserved;
    program->identifiers.reserved &= reserved;
    if (program->reserved && !reserved)
        put_entries_outside(program);
    program->check = (struct hart_check){.identifiers = &program->identifiers,
                                         .stacks = STACKS,
                                         .heap = HEAP,
                                         .access = on_access,
                                         .takes = takes,
                                         .taken = taken,
                                         .at_once = at_once,
                                         .returns = on_return,
                                         .opaque = program};
    program->flat.check = &program->check;
    program->flat.poked = on_poke;
    atomic_store(&program->takes, 1);
    program_begin(program, engine);
    map(program, PLAIN, 4 * PAGE, RW);
    map(program, STACK - 4 * PAGE, 8 * PAGE, RW);
    map(program, OBJECT, 4 * PAGE, RW);
    fill(program, STACK - 4 * PAGE, 8 * PAGE, MEMORY_IDENTIFIER_LOOK);
    fill(program, OBJECT, 4 * PAGE, MEMORY_IDENTIFIER_LOOK);
    make_object(program);
    program->hart->x[SP] = STACK;
    return program;
}

static struct program *start(void)
{
    return start_with(&GUEST_ENGINE, true);
}

static void finish(struct program *program)
{
    struct memory_identifiers identifiers = program->identifiers;

    identifiers.reserved = program->reserved;
    program_destroy(program);
    memory_identifiers_fini(&identifiers);
}

static void run(struct program *program)
{
    program->asked_count = 0;
    run_from(program, TEXT);
}

// ---- Accesses

// Third in a block that has computed the base, or, with `loaded`, that starts with the base.
static void run_access(struct program *program, uint32_t insn, uint64_t base, bool computed)
{
    program->here = TEXT;
    emit(program, addi(5, 0, 77));
    emit(program, computed ? add(6, 28, 29) : addi(0, 0, 0));
    emit(program, insn);
    emit_exit(program);
    fence(program);
    program->hart->x[6] = computed ? 0 : base;
    program->hart->x[28] = base - 4096;
    program->hart->x[29] = 4096;
    run(program);
}

static void expect_fine_of(struct program *program, uint32_t insn, uint64_t base)
{
    for (unsigned turn = 0; turn < 2; turn++) {
        run_access(program, insn, base, turn);
        assert_int_equal(program->asked_count, 0);
        assert_int_equal(program->cause, HART_CAUSE_ECALL_U);
    }
}

static void expect_asked(struct program *program, uint32_t insn, uint64_t base, uint64_t pointer,
                         uint64_t bytes, enum hart_access kind)
{
    for (unsigned turn = 0; turn < 4; turn++) {
        uint64_t instret = program->hart->instret;
        program->refuses = turn / 2;
        run_access(program, insn, base, turn & 1);
        assert_int_equal(program->asked_count, 1);
        assert_int_equal(program->asked.pointer, pointer);
        assert_int_equal(program->asked.bytes, bytes);
        assert_int_equal(program->asked.kind, kind);
        assert_int_equal(program->asked.pc, TEXT + 8);
        assert_int_equal(program->asked.x5, 77);
        assert_int_equal(program->asked.instret, instret + 2);
        assert_int_equal(program->hart->instret, instret + (program->refuses ? 3 : 4));
        assert_int_equal(program->cause, HART_CAUSE_ECALL_U);
        assert_true(!program->refuses || program->hart->x[5] == 77);
    }
    program->refuses = false;
}

#define flw(rd, rs1, imm) i_type(0x07, 2, rd, rs1, imm)
#define fld(rd, rs1, imm) i_type(0x07, 3, rd, rs1, imm)
#define fsw(rs2, rs1, imm) s_type(0x27, 2, rs1, rs2, imm)
#define fsd(rs2, rs1, imm) s_type(0x27, 3, rs1, rs2, imm)

static void test_sorts(void **state)
{
    const struct {
        uint32_t insn;
        unsigned bytes;
        enum hart_access kind;
    } sorts[] = {
        {i_type(0x03, 0, 5, 6, 8), 1, HART_LOAD},
        {i_type(0x03, 1, 5, 6, 8), 2, HART_LOAD},
        {i_type(0x03, 2, 5, 6, 8), 4, HART_LOAD},
        {i_type(0x03, 3, 5, 6, 8), 8, HART_LOAD},
        {i_type(0x03, 4, 5, 6, 8), 1, HART_LOAD},
        {i_type(0x03, 5, 5, 6, 8), 2, HART_LOAD},
        {i_type(0x03, 6, 5, 6, 8), 4, HART_LOAD},
        {i_type(0x03, 3, 0, 6, 8), 8, HART_LOAD},
        {s_type(0x23, 0, 6, 5, 8), 1, HART_STORE},
        {s_type(0x23, 1, 6, 5, 8), 2, HART_STORE},
        {s_type(0x23, 2, 6, 5, 8), 4, HART_STORE},
        {s_type(0x23, 3, 6, 5, 8), 8, HART_STORE},
        {flw(1, 6, 8), 4, HART_LOAD},
        {fld(1, 6, 8), 8, HART_LOAD},
        {fsw(1, 6, 8), 4, HART_STORE},
        {fsd(1, 6, 8), 8, HART_STORE},
    };
    struct program *program = start();

    (void)state;
    printf("each sort of load and store: fine, with another identifier, without one\n");
    for (size_t i = 0; i < BASE_COUNT_OF(sorts); i++) {
        uint32_t insn = sorts[i].insn;
        unsigned bytes = sorts[i].bytes;
        expect_fine_of(program, insn, P(OBJECT, ID));
        expect_fine_of(program, insn, P(OBJECT + 48, ID));
        expect_fine_of(program, insn, PLAIN);
        expect_fine_of(program, insn, PLAIN + PAGE - 9);
        expect_fine_of(program, insn, STACK);
        expect_asked(program, insn, P(OBJECT + 72, ID), P(NEXT_OBJECT, ID), bytes, sorts[i].kind);
        expect_asked(program, insn, P(OBJECT, NEXT_ID), P(OBJECT + 8, NEXT_ID), bytes,
                     sorts[i].kind);
        expect_asked(program, insn, OBJECT, OBJECT + 8, bytes, sorts[i].kind);
        expect_asked(program, insn, P(PLAIN, ID), P(PLAIN + 8, ID), bytes, sorts[i].kind);
        expect_asked(program, insn, STACK - 64, STACK - 56, bytes, sorts[i].kind);
    }
    finish(program);
}

static void test_atomics(void **state)
{
    const unsigned operations[] = {0, 1, 2, 3, 4, 8, 12, 16, 20, 24, 28};
    const uint32_t cbo_zero = 0x0040200f | 6 << 15;
    struct program *program = start();

    (void)state;
    printf("atomics and cbo.zero\n");
    for (size_t i = 0; i < BASE_COUNT_OF(operations); i++)
        for (unsigned width = 2; width <= 3; width++) {
            unsigned f5 = operations[i];
            enum hart_access kind = f5 == 2 ? HART_LOAD : HART_STORE;
            uint32_t insn = amo(f5, width, 5, 6, f5 == 2 ? 0 : 7);
            expect_fine_of(program, insn, P(OBJECT + 8, ID));
            expect_fine_of(program, insn, PLAIN);
            expect_fine_of(program, insn, STACK + 8);
            expect_asked(program, insn, P(NEXT_OBJECT, ID), P(NEXT_OBJECT, ID), 1u << width, kind);
            expect_asked(program, insn, STACK - 8, STACK - 8, 1u << width, kind);
        }
    // What is misaligned and crosses a granule is asked for before it is found to be misaligned.
    program->refuses = true;
    run_access(program, amo(0u, 3, 5, 6, 7), P(OBJECT + 12, ID), false);
    assert_int_equal(program->asked_count, 1);
    program->refuses = false;
    run_access(program, amo(0u, 3, 5, 6, 7), P(OBJECT + 4, ID), false);
    assert_int_equal(program->asked_count, 0);
    assert_int_equal(program->cause, HART_CAUSE_STORE_MISALIGNED);
    assert_int_equal(program->tval, OBJECT + 4);
    fill(program, OBJECT, 64, ID);
    set(program, OBJECT + 56, 1);
    expect_fine_of(program, cbo_zero, P(OBJECT + 5, ID));
    assert_int_equal(get(program, OBJECT + 56), 0);
    fill(program, OBJECT + 16, 16, NEXT_ID);
    expect_asked(program, cbo_zero, P(OBJECT + 5, ID), P(OBJECT, ID), 64, HART_STORE);
    finish(program);
}

static void test_granules(void **state)
{
    struct program *program = start();

    (void)state;
    printf("ends within granules, and what crosses them\n");
    for (unsigned width = 0; width < 4; width++)
        for (uint64_t offset = 0; offset <= OBJECT_BYTES + 8; offset++) {
            unsigned bytes = 1u << width;
            uint32_t insn = i_type(0x03, width, 5, 6, 0);
            uint64_t pointer = P(OBJECT + offset, ID);
            if (offset % 16 + bytes <= 16 && offset + bytes <= OBJECT_BYTES)
                expect_fine_of(program, insn, pointer);
            else
                expect_asked(program, insn, pointer, pointer, bytes, HART_LOAD);
        }
    // An entry that is LOOK or NONE is never taken for such an end.
    memset(program->flat.hva + OBJECT, 15, 16);
    memset(program->flat.hva + PLAIN, 15, 16);
    fill(program, OBJECT, 16, MEMORY_IDENTIFIER_LOOK);
    expect_asked(program, lb(5, 6, 0), P(OBJECT, 0x7fff), P(OBJECT, 0x7fff), 1, HART_LOAD);
    expect_asked(program, lb(5, 6, 0), P(PLAIN, 0x8000), P(PLAIN, 0x8000), 1, HART_LOAD);
    fill(program, OBJECT, 16, ID);
    expect_asked(program, lb(5, 6, 0), P(OBJECT, ID ^ 0x8000), P(OBJECT, ID ^ 0x8000), 1,
                 HART_LOAD);
    finish(program);
}

static void test_stacks(void **state)
{
    struct program *program = start();
    struct hart *hart = program->hart;

    (void)state;
    printf("stacks: by sp and by other registers, sp on others and elsewhere\n");
    expect_fine_of(program, ld(5, SP, 0), 0);
    expect_fine_of(program, ld(5, SP, 1024), 0);
    expect_asked(program, ld(5, SP, -8), 0, STACK - 8, 8, HART_LOAD);
    expect_fine_of(program, sd(5, 6, 3), STACK);
    hart->x[SP] = PLAIN + 64;
    expect_fine_of(program, ld(5, 6, 0), STACK - 64);
    expect_fine_of(program, ld(5, SP, -8), 0);
    expect_fine_of(program, ld(5, SP, 8), 0);
    hart->x[SP] = P(OBJECT, ID);
    expect_fine_of(program, ld(5, 6, 0), STACK - 64);
    expect_fine_of(program, ld(5, SP, 8), 0);
    expect_asked(program, ld(5, SP, 80), 0, P(NEXT_OBJECT, ID), 8, HART_LOAD);
    hart->x[SP] = STACK - 64;
    expect_fine_of(program, ld(5, 6, 0), STACK - 64);
    fill(program, STACK, 32, ID);
    expect_fine_of(program, ld(5, 6, 0), P(STACK + 16, ID));
    finish(program);
}

// What was looked up on a stack, by a pointer that nothing is guessed of, is looked up again when
// sp has moved above it.
static void test_moved_stack(void **state)
{
    struct program *program = start();
    struct hart *hart = program->hart;

    (void)state;
    printf("a frame that dies within a block\n");
    program->here = TEXT;
    emit(program, r_type(0x33, 4, 0, 6, 7, 0));  // xor
    emit(program, lb(5, 6, 0));
    emit(program, lb(5, 6, 0));
    emit(program, addi(SP, SP, 16));
    emit(program, lb(5, 6, 0));
    emit_exit(program);
    fence(program);
    hart->x[7] = STACK;
    hart->x[SP] = STACK;
    run(program);
    assert_int_equal(program->asked_count, 1);
    assert_int_equal(program->asked.pointer, STACK);
    assert_int_equal(program->asked.pc, TEXT + 16);
    finish(program);
}

static void expect_nowhere(struct program *program)
{
    const uint64_t pointers[] = {P(HART_FLAT_BYTES, 0),
                                 P(HART_FLAT_BYTES, ID),
                                 P(HART_FLAT_BYTES - 8, ID),
                                 P(OUTSIDE + 64, ID),
                                 P(MEMORY_POINTER_BYTES - 64, ID),
                                 P(1ull << 40, 0),
                                 UINT64_MAX - 63,
                                 1ull << 63};

    for (size_t i = 0; i < BASE_COUNT_OF(pointers); i++)
        for (unsigned computed = 0; computed < 2; computed++) {
            run_access(program, ld(5, 6, 0), pointers[i], computed);
            assert_int_equal(program->asked_count, 1);
            assert_int_equal(program->asked.pointer, pointers[i]);
            assert_int_equal(program->cause, HART_CAUSE_LOAD_PAGE);
            assert_int_equal(program->tval, memory_pointer_gva(pointers[i]));
            assert_int_equal(program->pc, TEXT + 8);
        }
    for (size_t i = 0; i < BASE_COUNT_OF(pointers); i++) {
        run_access(program, amo(0u, 3, 5, 6, 7), pointers[i], false);
        assert_int_equal(program->asked_count, 1);
        assert_int_equal(program->asked.pointer, pointers[i]);
        assert_int_equal(program->cause, HART_CAUSE_STORE_PAGE);
    }
    // What is fine may fault all the same.
    fill(program, HEAP + (1 << 30), 64, ID);
    run_access(program, sd(5, 6, 0), P(HEAP + (1 << 30), ID), false);
    assert_int_equal(program->asked_count, 0);
    assert_int_equal(program->cause, HART_CAUSE_STORE_PAGE);
    assert_int_equal(program->tval, HEAP + (1 << 30));
    run_access(program, sd(5, 6, 0), 0, false);
    assert_int_equal(program->asked_count, 0);
    assert_int_equal(program->cause, HART_CAUSE_STORE_PAGE);
    run_access(program, sd(5, 6, -8), 0, false);
    assert_int_equal(program->asked_count, 1);
    assert_int_equal(program->asked.pointer, UINT64_MAX - 7);
    finish(program);
}

static void test_nowhere(void **state)
{
    (void)state;
    printf("pointers to where no table, or no memory, is\n");
    expect_nowhere(start());
    expect_nowhere(start_with(&GUEST_ENGINE, false));
}

// The same base over and over, changed in between, in code that was made for another sort.
static void test_bases_change(void **state)
{
    const uint64_t bases[] = {PLAIN, P(OBJECT, ID), STACK, P(NEXT_OBJECT, NEXT_ID), PLAIN + 64};
    struct program *program = start();
    struct hart *hart = program->hart;

    (void)state;
    printf("one block for pointers of all sorts, in all orders\n");
    emit(program, ld(5, 6, 0));
    emit(program, sd(5, 6, 8));
    emit(program, addi(6, 6, 16));
    emit(program, ld(7, 6, 0));
    emit(program, addi(7, 7, 1));
    emit(program, sd(7, 6, 0));
    emit(program, ld(28, 6, -16));
    emit_exit(program);
    for (size_t first = 0; first < BASE_COUNT_OF(bases); first++)
        for (size_t second = 0; second < BASE_COUNT_OF(bases); second++) {
            fence(program);
            for (unsigned turn = 0; turn < 4; turn++) {
                uint64_t base = bases[turn & 1 ? second : first], gva = memory_pointer_gva(base);
                set(program, gva, 55);
                set(program, gva + 16, 1);
                hart->x[6] = base;
                run(program);
                assert_int_equal(program->asked_count, 0);
                assert_int_equal(program->cause, HART_CAUSE_ECALL_U);
                assert_int_equal(hart->x[28], 55);
                assert_int_equal(get(program, gva + 8), 55);
                assert_int_equal(get(program, gva + 16), 2);
            }
        }
    finish(program);
}

// What was found of a base must not be believed of another.
static void test_knowledge(void **state)
{
    struct program *program = start();
    struct hart *hart = program->hart;

    (void)state;
    printf("what a block knows of a base ends with the base\n");
    emit(program, ld(5, 6, 0));
    emit(program, add(6, 6, 7));
    emit(program, ld(5, 6, 0));
    emit_exit(program);
    for (unsigned turn = 0; turn < 3; turn++) {
        hart->x[6] = P(OBJECT, ID);
        hart->x[7] = 80;
        run(program);
        assert_int_equal(program->asked_count, 1);
        assert_int_equal(program->asked.pointer, P(NEXT_OBJECT, ID));
        hart->x[6] = PLAIN;
        hart->x[7] = OBJECT - PLAIN;
        run(program);
        assert_int_equal(program->asked_count, 1);
        assert_int_equal(program->asked.pointer, OBJECT);
        hart->x[6] = STACK;
        hart->x[7] = -8ull;
        run(program);
        assert_int_equal(program->asked_count, 1);
        assert_int_equal(program->asked.pointer, STACK - 8);
    }
    program->here = TEXT;
    emit(program, ld(5, SP, 8));
    emit(program, addi(SP, SP, 32));
    emit(program, ld(5, 6, 0));
    emit_exit(program);
    fence(program);
    hart->x[6] = STACK;
    run(program);
    assert_int_equal(program->asked_count, 1);
    assert_int_equal(program->asked.pointer, STACK);
    finish(program);
}

// ---- Calls

static void emit_return(struct program *program)
{
    emit(program, jalr(0, RA, 0));
}

// At FUNCTIONS + 0x100 * depth: calls the next one `depth` times deep, then what is at FUNCTIONS.
static void emit_chain(struct program *program, unsigned depth)
{
    for (unsigned i = depth; i > 0; i--) {
        program->here = FUNCTIONS + 0x100 * i;
        emit(program, addi(SP, SP, -32));
        emit(program, sd(RA, SP, 24));
        emit(program, jal(RA, -0x100 - 8));
        emit(program, ld(RA, SP, 24));
        emit(program, addi(SP, SP, 32));
        emit_return(program);
    }
    program->here = TEXT;
    emit(program, jal(RA, (int)(FUNCTIONS + 0x100 * depth - TEXT)));
    emit(program, addi(5, 0, 1));
    emit_exit(program);
}

static void test_returns(void **state)
{
    const unsigned depth = 20;
    struct program *program = start();
    struct hart *hart = program->hart;

    (void)state;
    printf("returns that belong to their calls, and one that does not\n");
    program->here = FUNCTIONS;
    emit(program, add(7, 7, 8));
    emit_return(program);
    emit_chain(program, depth);
    run(program);
    assert_int_equal(program->returns, 0);
    assert_int_equal(program->cause, HART_CAUSE_ECALL_U);
    assert_int_equal(hart->x[SP], STACK);

    program->here = FUNCTIONS;  // spoils the fifth caller's address
    emit(program, auipc(7, 0));
    emit(program, addi(7, 7, 0x40));
    emit(program, sd(7, SP, 24 + 4 * 32));
    emit_return(program);
    program->here = FUNCTIONS + 0x40;
    emit_exit(program);
    for (unsigned refuses = 0; refuses < 2; refuses++) {
        fence(program);
        program->refuses = refuses;
        program->returns = 0;
        hart->x[SP] = STACK;
        run(program);
        assert_int_equal(program->returns, 1);
        // The fifth function returns to the sixth.
        assert_int_equal(program->expected, FUNCTIONS + 0x600 + 12);
        assert_int_equal(hart->pc, refuses ? TEXT + 12 : FUNCTIONS + 0x44);
    }
    finish(program);
}

static void test_jumps_out(void **state)
{
    struct program *program = start();
    struct hart *hart = program->hart;

    (void)state;
    printf("jumps out of calls are no wrong returns\n");
    // Returns twice: x8 and x9 keep where to and sp.
    program->here = FUNCTIONS;
    emit(program, add(8, RA, 0));
    emit(program, sd(SP, 6, 0));
    emit_return(program);
    program->here = FUNCTIONS + 0x40;  // longjmp
    emit(program, add(RA, 8, 0));
    emit(program, ld(SP, 6, 0));
    emit_return(program);
    program->here = FUNCTIONS + 0x80;  // throws, as the unwinder ends: it adds to sp
    emit(program, addi(SP, SP, -64));
    emit(program, add(13, RA, 0));
    emit(program, jal(RA, 0x40 - 8));
    emit(program, 0);
    program->here = FUNCTIONS + 0xc0;
    emit(program, addi(14, 0, 64));
    emit(program, add(RA, 8, 0));
    emit(program, add(SP, SP, 14));
    emit_return(program);

    for (unsigned throws = 0; throws < 2; throws++) {
        program->here = TEXT;
        emit(program, addi(7, 0, 50));
        emit(program, jal(RA, (int)(FUNCTIONS - TEXT - 4)));
        emit(program, addi(7, 7, -1));
        emit(program, beq(7, 0, 8));
        emit(program, jal(RA, (int)(FUNCTIONS + (throws ? 0x80 : 0x40) - TEXT - 16)));
        emit_exit(program);
        fence(program);
        // Where sp is kept may be of another sort than when the code was made.
        for (unsigned turn = 0; turn < 3; turn++) {
            hart->x[6] = turn ? STACK + 256 : PLAIN;
            hart->x[SP] = STACK;
            run(program);
            assert_int_equal(program->cause, HART_CAUSE_ECALL_U);
            assert_int_equal(program->returns, 0);
            assert_int_equal(hart->x[7], 0);
        }
    }
    finish(program);
}

static void test_deep(void **state)
{
    const unsigned depth = 3 * HART_CALLS;
    struct program *program = start();
    struct hart *hart = program->hart;

    (void)state;
    printf("recursion deeper than the ring\n");
    map(program, STACK - (1 << 19), 1 << 19, RW);
    program->here = FUNCTIONS;
    emit(program, addi(SP, SP, -16));
    emit(program, sd(RA, SP, 8));
    emit(program, beq(7, 0, 12));
    emit(program, addi(7, 7, -1));
    emit(program, jal(RA, -16));
    emit(program, ld(RA, SP, 8));
    emit(program, addi(SP, SP, 16));
    emit(program, addi(5, 5, 1));
    emit_return(program);
    program->here = TEXT;
    emit(program, jal(RA, (int)(FUNCTIONS - TEXT)));
    emit_exit(program);
    for (unsigned turn = 0; turn < 2; turn++) {
        hart->x[5] = 0;
        hart->x[7] = depth;
        run(program);
        assert_int_equal(program->cause, HART_CAUSE_ECALL_U);
        assert_int_equal(program->returns, 0);
        assert_int_equal(hart->x[5], depth + 1);
    }
    finish(program);
}

// ---- What is taken

static void test_taken(void **state)
{
    const unsigned depth = 5;
    struct program *program = start();
    struct hart *hart = program->hart;

    (void)state;
    printf("functions that are taken, and who called them\n");
    atomic_store(&program->takes, FUNCTIONS);
    program->here = FUNCTIONS;
    emit(program, 0);  // never executed
    emit_chain(program, depth);
    run(program);
    assert_int_equal(program->cause, HART_CAUSE_ECALL_U);
    assert_int_equal(program->taken, 1);
    assert_int_equal(program->returns, 0);
    assert_int_equal(hart->x[A0], 100);
    assert_int_equal(program->place_count, depth + 1);
    for (unsigned i = 0; i < depth; i++)
        assert_int_equal(program->places[i], FUNCTIONS + 0x100 * (i + 1) + 12);
    assert_int_equal(program->places[depth], TEXT + 4);

    // Again, and again; then no more; then code that others fall through to.
    program->here = TEXT;
    emit(program, addi(7, 0, 100));
    emit(program, jal(RA, (int)(FUNCTIONS - TEXT - 4)));
    emit(program, addi(7, 7, -1));
    emit(program, bne(7, 0, -8));
    emit_exit(program);
    fence(program);
    hart->x[A0] = 0;
    run(program);
    assert_int_equal(program->taken, 101);
    assert_int_equal(hart->x[A0], 10000);
    program->here = FUNCTIONS;
    emit_return(program);
    atomic_store(&program->takes, 1);
    fence(program);
    run(program);
    assert_int_equal(program->taken, 101);
    program->here = FUNCTIONS;
    emit(program, addi(5, 0, 1));
    emit(program, addi(5, 5, 1));
    atomic_store(&program->takes, FUNCTIONS + 8 - 16);
    program->here = FUNCTIONS + 8;
    emit(program, 0);
    fence(program);
    run(program);
    assert_int_equal(program->taken, 201);
    assert_int_equal(program->pc, TEXT + 20);  // of the ecall
    assert_int_equal(hart->x[5], 2);

    program->stops = true;
    run(program);
    assert_int_equal(hart->pc, TEXT + 8);
    assert_int_equal(hart->x[7], 100);
    finish(program);
}

// A function that calls what is taken and is then left by a return to elsewhere.
static void test_taken_and_returned(void **state)
{
    struct program *program = start();

    (void)state;
    printf("a wrong return behind calls of what is taken is seen\n");
    atomic_store(&program->takes, FUNCTIONS + 0x100);
    program->here = FUNCTIONS;
    emit(program, addi(SP, SP, -16));
    emit(program, sd(RA, SP, 8));
    emit(program, jal(RA, 0x100 - 8));
    emit(program, ld(RA, SP, 8));
    emit(program, addi(RA, RA, 4));
    emit(program, addi(SP, SP, 16));
    emit_return(program);
    program->here = TEXT;
    emit(program, jal(RA, (int)(FUNCTIONS - TEXT)));
    emit(program, 0);
    emit_exit(program);
    run(program);
    assert_int_equal(program->taken, 1);
    assert_int_equal(program->returns, 1);
    assert_int_equal(program->expected, TEXT + 4);
    assert_int_equal(program->cause, HART_CAUSE_ECALL_U);
    finish(program);
}

// A function that calls itself, and on its way back what is taken.
static void test_context(void **state)
{
    const unsigned depth = 20;
    struct program *program = start();

    (void)state;
    printf("each call of a recursion is given its number once\n");
    atomic_store(&program->takes, FUNCTIONS);
    program->here = FUNCTIONS + 0x100;
    emit(program, addi(SP, SP, -16));
    emit(program, sd(RA, SP, 8));
    emit(program, beq(7, 0, 12));
    emit(program, addi(7, 7, -1));
    emit(program, jal(RA, -16));
    emit(program, jal(RA, -0x100 - 20));
    emit(program, ld(RA, SP, 8));
    emit(program, addi(SP, SP, 16));
    emit_return(program);
    program->here = TEXT;
    emit(program, jal(RA, (int)(FUNCTIONS + 0x100 - TEXT)));
    emit_exit(program);
    program->hart->x[7] = depth;
    run(program);
    assert_int_equal(program->cause, HART_CAUSE_ECALL_U);
    assert_int_equal(program->taken, depth + 1);
    // The first and those of the recursion, and those of what is taken.
    assert_int_equal(program->numbered, 1 + depth + depth + 1);
    finish(program);
}

// Half of the calls are done at once, if the engine tries: all registers but a0 are kept, and so
// are the calls that the hart is within.
static void test_at_once(void **state)
{
    struct program *program = start();
    struct hart *hart = program->hart;
    static const char one, other;

    (void)state;
    printf("functions that are done at once, or are not\n");
    atomic_store(&program->takes, FUNCTIONS);
    program->what = &one;
    program->here = TEXT;
    emit(program, jal(RA, 0x100));
    emit_exit(program);
    program->here = TEXT + 0x100;
    emit(program, addi(SP, SP, -32));
    emit(program, sd(RA, SP, 8));
    emit(program, addi(7, 0, 100));
    emit(program, jal(RA, (int)(FUNCTIONS - TEXT - 0x100 - 12)));
    emit(program, addi(7, 7, -1));
    emit(program, bne(7, 0, -8));
    emit(program, ld(RA, SP, 8));
    emit(program, addi(SP, SP, 32));
    emit_return(program);
    for (unsigned turn = 1; turn <= 2; turn++) {
        for (unsigned reg = 3; reg < 32; reg++)
            hart->x[reg] = reg;
        for (unsigned reg = 0; reg < 32; reg++)
            hart->f[reg] = 100 + reg;
        hart->x[A7] = 0;
        run(program);
        assert_int_equal(program->cause, HART_CAUSE_ECALL_U);
        assert_int_equal(program->taken + program->done, 100 * turn);
        assert_int_equal(program->done, program->tried / 2);
        assert_int_equal(program->returns, 0);
        assert_int_equal(program->place_count, 2);
        assert_int_equal(hart->x[A0], 10 + 10000);
        for (unsigned reg = 3; reg < 32; reg++)
            if (reg != A0 && reg != A7 && reg != 7)
                assert_int_equal(hart->x[reg], reg);
        for (unsigned reg = 0; reg < 32; reg++)
            assert_int_equal(hart->f[reg], 100 + reg);
        // Something else is to be done there.
        program->what = &other;
        fence(program);
    }
    program->what = NULL;
    fence(program);
    run(program);
    assert_int_equal(program->taken + program->done, 300);
    printf("%u of %u done at once\n", program->done, program->tried);
    finish(program);
}

#define TURNS 300u

static void *change(void *opaque)
{
    struct program *program = opaque;

    for (unsigned i = 0; i < TURNS; i++) {
        atomic_store(&program->takes, i & 1 ? FUNCTIONS : 1);
        fence(program);
        memory_identifiers_set(&program->identifiers, OBJECT, 64, i & 1 ? ID : NEXT_ID);
        usleep(50);
    }
    hart_stop(program->hart);
    return NULL;
}

// Another thread changes what is taken, and identifiers, under a program that runs.
static void test_changes(void **state)
{
    struct program *program = start();
    pthread_t thread;

    (void)state;
    printf("what is taken, and identifiers, change meanwhile\n");
    program->here = FUNCTIONS;
    emit(program, addi(12, 12, 1));
    emit_return(program);
    program->here = TEXT;
    emit(program, jal(RA, (int)(FUNCTIONS - TEXT)));
    emit(program, sd(7, 6, 0));
    emit(program, jal(0, -8));
    program->hart->x[6] = P(OBJECT, ID);
    // On a busy machine the changes may be over before the program has begun.
    for (unsigned i = 0;
         i < 100 && (!program->taken || !program->hart->x[12] || !program->asked_count); i++) {
        assert_int_equal(pthread_create(&thread, NULL, change, program), 0);
        run(program);
        assert_int_equal(pthread_join(thread, NULL), 0);
    }
    assert_true(program->taken > 0);
    assert_true(program->hart->x[12] > 0);
    assert_true(program->asked_count > 0);
    assert_int_equal(program->returns, 0);
    finish(program);
}

static void test_fork(void **state)
{
    struct program *program = start();
    int status;

    (void)state;
    printf("a child is checked, too\n");
    atomic_store(&program->takes, FUNCTIONS);
    program->here = FUNCTIONS + 0x100;
    emit(program, addi(SP, SP, -32));
    emit(program, sd(RA, SP, 24));
    emit(program, addi(A7, 0, CALL_FORK));
    emit(program, ECALL);
    emit(program, sd(7, 6, 0));
    emit(program, jal(RA, -0x100 - 20));
    emit(program, ld(RA, SP, 24));
    emit(program, addi(SP, SP, 32));
    emit_return(program);
    program->here = TEXT;
    emit(program, sd(7, 6, 0));
    emit(program, jal(RA, (int)(FUNCTIONS + 0x100 - TEXT - 4)));
    emit_exit(program);
    program->hart->x[6] = P(NEXT_OBJECT, ID);
    run(program);
    if (program->child == 0)
        _exit(program->asked_count == 2 && program->taken == 1 && program->returns == 0 &&
                      program->place_count == 2
                  ? 7
                  : 1);
    assert_int_equal(program->asked_count, 2);
    assert_int_equal(waitpid(program->child, &status, 0), program->child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 7);
    finish(program);
}

// ---- All of it, against the interpreter

#define SEQUENCES 600
#define LENGTH 40

static uint64_t random_base(void)
{
    const uint64_t places[] = {P(OBJECT, ID),
                               P(OBJECT + 48, ID),
                               P(OBJECT + 64, ID),
                               P(NEXT_OBJECT, NEXT_ID),
                               P(NEXT_OBJECT + 48, NEXT_ID),
                               P(OBJECT, NEXT_ID),
                               OBJECT,
                               PLAIN,
                               PLAIN + 64,
                               PLAIN + 4 * PAGE,
                               STACK,
                               STACK + 64,
                               STACK - 64,
                               P(HART_FLAT_BYTES, ID),
                               0};

    uint64_t place = places[random_below(BASE_COUNT_OF(places))], offset = 8 * random_below(3);
    return place + offset + (random_below(4) ? 0 : random_below(8));
}

// Of registers 5 to 8 for values, sp and 12 to 15 for addresses.
static uint32_t random_insn(void)
{
    const unsigned operations[] = {0, 1, 2, 3, 4, 8, 12, 16, 20, 24, 28};
    unsigned value = 5 + (unsigned)random_below(4), base = 12 + (unsigned)random_below(5);
    unsigned f5 = operations[random_below(BASE_COUNT_OF(operations))];
    unsigned width = 2 + (unsigned)random_below(2), other = 5 + (unsigned)random_below(4);
    int imm = 8 * ((int)random_below(6) - 2), step = 8 * ((int)random_below(5) - 2);

    // All that is drawn is, in this order, whatever the compiler's is.
    imm += random_below(4) ? 0 : (int)random_below(8);

    if (base == 16)
        base = SP;
    switch (random_below(12)) {
    case 0:
    case 1:
    case 2:
        return i_type(0x03, (unsigned)random_below(7), value, base, imm);
    case 3:
    case 4:
        return s_type(0x23, (unsigned)random_below(4), base, value, imm);
    case 5:
        return amo(f5, width, value, base, f5 == 2 ? 0 : other);
    case 6:
        return random_below(2) ? flw(1, base, imm) : fld(2, base, imm);
    case 7:
        return random_below(2) ? fsw(1, base, imm) : fsd(2, base, imm);
    case 8:
        return addi(base, base, step);
    case 9:
        return addi(12 + (unsigned)random_below(4), base, step);
    case 10:
        return add(12 + (unsigned)random_below(4), base, 9);
    default:
        return add(value, value, other);
    }
}

static void put_random(struct program *a, struct program *b)
{
    a->here = b->here = TEXT;
    for (unsigned i = 0; i < LENGTH; i++) {
        uint32_t insn = random_insn();
        emit(a, insn);
        emit(b, insn);
    }
    emit_exit(a);
    emit_exit(b);
    fence(a);
    fence(b);
}

static void run_random(struct program *program, const struct hart *from, const uint8_t *bytes)
{
    struct hart *hart = program->hart;

    memcpy(hart->x, from->x, sizeof(hart->x));
    memcpy(hart->f, from->f, sizeof(hart->f));
    memcpy(program->flat.hva + OBJECT, bytes, 256);
    memcpy(program->flat.hva + PLAIN, bytes, 256);
    memcpy(program->flat.hva + STACK - 128, bytes, 256);
    make_object(program);
    hart->reservation_gpa = HART_NO_RESERVATION;
    run(program);
}

static void compare(const struct program *a, const struct program *b)
{
    const uint64_t places[] = {OBJECT, PLAIN, STACK - 128};

    assert_memory_equal(a->hart->x, b->hart->x, sizeof(a->hart->x));
    assert_memory_equal(a->hart->f, b->hart->f, sizeof(a->hart->f));
    for (size_t i = 0; i < BASE_COUNT_OF(places); i++)
        assert_memory_equal(a->flat.hva + places[i], b->flat.hva + places[i], 256);
    assert_int_equal(a->hart->pc, b->hart->pc);
    assert_int_equal(a->hart->instret, b->hart->instret);
    assert_int_equal(a->traps, b->traps);
    assert_int_equal(a->hash, b->hash);
}

static void test_as_interpreter(void **state)
{
    struct program *a = start_with(&hart_engine_interp, true), *b = start();
    struct hart *from = test_calloc(1, sizeof(*from));
    uint8_t bytes[256];
    unsigned asked = 0;

    (void)state;
    a->goes_on = b->goes_on = true;
    for (unsigned i = 0; i < SEQUENCES; i++) {
        put_random(a, b);
        a->refuses = b->refuses = i % 4 != 0;
        // The same code with other pointers than it was made for.
        for (unsigned turn = 0; turn < 6; turn++) {
            for (unsigned reg = 5; reg < 10; reg++)
                from->x[reg] = random_below(4) ? random_below(64) * 8 : random_below(1ull << 40);
            for (unsigned reg = 12; reg < 16; reg++)
                from->x[reg] = random_base();
            from->x[SP] = random_below(8) ? STACK : random_base();
            for (size_t at = 0; at < sizeof(bytes); at++)
                bytes[at] = (uint8_t)random_below(16);
            from->x[A7] = 0;
            run_random(a, from, bytes);
            run_random(b, from, bytes);
            compare(a, b);
            asked += a->asked_count;
        }
    }
    printf("%u random programs as by the interpreter: the hooks were asked %u times\n",
           SEQUENCES * 6, asked);
    assert_true(asked > SEQUENCES);
    test_free(from);
    finish(a);
    finish(b);
}

// ---- Machines

struct machine {
    unsigned asked_count;
    uint64_t pointer, pc;
    bool refuses;
};

static bool on_machine_access(void *opaque, struct hart *hart, uint64_t pointer, uint64_t bytes,
                              enum hart_access kind)
{
    struct machine *machine = opaque;

    (void)bytes, (void)kind;
    machine->asked_count++;
    machine->pointer = pointer;
    machine->pc = hart->pc;
    if (machine->refuses)
        hart->pc += 4;
    return !machine->refuses;
}

static void run_machine(struct guest *guest, struct machine *machine, uint64_t base)
{
    machine->asked_count = 0;
    guest->hart->x[6] = base;
    guest_run(guest, CODE);
}

static void test_machine(void **state)
{
    struct guest *guest = *state;
    struct machine machine = {0};
    struct memory_identifiers identifiers;
    const struct hart_check check = {
        .identifiers = &identifiers, .access = on_machine_access, .opaque = &machine};

    printf("a machine's hart in M-mode: every access is looked up\n");
    assert_int_equal(memory_identifiers_init(&identifiers, 4ull << 30, NULL), 0);
    memory_identifiers_set(&identifiers, DATA, 64, ID);
    assert_int_equal(hart_set_check(guest->hart, &check), 0);
    put(guest, sd(10, 6, 0));
    put(guest, ld(5, 6, 0));
    put(guest, addi(7, 0, 1));
    put(guest, amo(0u, 3, 8, 6, 7));
    put_stop(guest);
    run_machine(guest, &machine, P(DATA + 8, ID));
    assert_int_equal(machine.asked_count, 0);
    assert_int_equal(guest->hart->x[5], CODE);
    assert_int_equal(guest->hart->x[8], CODE);
    assert_int_equal(read_u64(guest, DATA + 8), CODE + 1);
    run_machine(guest, &machine, DATA + 128);
    assert_int_equal(machine.asked_count, 0);
    assert_int_equal(read_u64(guest, DATA + 128), CODE + 1);
    machine.refuses = true;
    write_u64(guest, DATA + 64, 9);
    run_machine(guest, &machine, P(DATA + 64, ID));
    assert_int_equal(machine.asked_count, 3);
    assert_int_equal(machine.pointer, P(DATA + 64, ID));
    assert_int_equal(machine.pc, CODE + 12);
    assert_int_equal(read_u64(guest, DATA + 64), 9);
    run_machine(guest, &machine, DATA);
    assert_int_equal(machine.asked_count, 3);
    // Behind the table, and behind all that a table could have entries of.
    run_machine(guest, &machine, 4ull << 30);
    assert_int_equal(machine.asked_count, 3);
    run_machine(guest, &machine, P(MEMORY_POINTER_BYTES - 64, ID));
    assert_int_equal(machine.asked_count, 3);
    assert_int_equal(machine.pointer, P(MEMORY_POINTER_BYTES - 64, ID));
    machine.refuses = false;
    run_machine(guest, &machine, DATA);
    assert_int_equal(read_u64(guest, DATA), CODE + 1);
    memory_identifiers_fini(&identifiers);
}

static int fail_to_create(struct hart *hart, void **state)
{
    (void)hart, (void)state;
    return -ENOMEM;
}

// As it was, and to be destroyed.
static void test_machine_refused(void **state)
{
    struct guest *guest = *state;
    struct hart_engine engine = GUEST_ENGINE;
    const struct hart_check check = {.access = on_machine_access};

    printf("a machine's hart for which there is no memory stays unchecked\n");
    engine.create = fail_to_create;
    guest->hart->engine = &engine;
    assert_int_equal(hart_set_check(guest->hart, &check), -ENOMEM);
    guest->hart->engine = &GUEST_ENGINE;
    put(guest, ld(5, 10, 0));
    put_stop(guest);
    guest_run(guest, CODE);
    assert_int_equal((uint32_t)guest->hart->x[5], ld(5, 10, 0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sorts),
        cmocka_unit_test(test_atomics),
        cmocka_unit_test(test_granules),
        cmocka_unit_test(test_stacks),
        cmocka_unit_test(test_moved_stack),
        cmocka_unit_test(test_nowhere),
        cmocka_unit_test(test_bases_change),
        cmocka_unit_test(test_knowledge),
        cmocka_unit_test(test_returns),
        cmocka_unit_test(test_jumps_out),
        cmocka_unit_test(test_deep),
        cmocka_unit_test(test_taken),
        cmocka_unit_test(test_taken_and_returned),
        cmocka_unit_test(test_context),
        cmocka_unit_test(test_at_once),
        cmocka_unit_test(test_changes),
        cmocka_unit_test(test_fork),
        cmocka_unit_test(test_as_interpreter),
        guest_test(test_machine),
        guest_test(test_machine_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
