// SPDX-License-Identifier: BSD-2-Clause
// A program in a flat address space for the tests of flat harts, checked or not: memory, a hart in
// U-mode, what becomes of its traps. Who includes this says in PROGRAM_MEMBERS what else its tests
// keep of a program, and gives call(), what an ecall does.
#ifndef STRAKE_TESTS_FLAT_PROGRAM_H
#define STRAKE_TESTS_FLAT_PROGRAM_H

#include <sys/mman.h>

#include "interp_guest.h"

#define PAGE ((uint64_t)MEMORY_PAGE_BYTES)
#define RW (HART_PAGE_READ | HART_PAGE_WRITE)
#define RX (HART_PAGE_READ | HART_PAGE_EXEC)
#define TEXT 0x10000ull  // where code is put
#define TEXT_BYTES 0x20000ull

#define REGION_BYTES (HART_FLAT_BYTES + 2 * HART_FLAT_GUARD_BYTES)
#define PAGES_BYTES (HART_FLAT_BYTES / MEMORY_PAGE_BYTES)
// Behind the region is a page that is there, and not the program's.
#define OUTSIDE (HART_FLAT_BYTES + HART_FLAT_GUARD_BYTES)
#define OUTSIDE_BYTE 0xa5

enum { CALL_EXIT = 93 };  // in x17
enum { RA = 1, SP = 2, A0 = 10, A7 = 17 };

struct program {
    struct hart_flat flat;
    uint8_t *region;
    struct hart *hart;
    uint64_t here;             // where emit() goes on
    uint64_t cause, tval, pc;  // of the last trap
    atomic_uint traps;         // that were no ecalls
    bool goes_on;              // behind what faults, instead of stopping
    uint64_t hash;             // of all that hooks were told
    pid_t child;
    PROGRAM_MEMBERS
};

static void call(struct program *program, struct hart *hart);

static void note(struct program *program, uint64_t what)
{
    program->hash = (program->hash ^ what) * 0x9e3779b97f4a7c15;
}

static void on_trap(void *opaque, struct hart *hart, uint64_t cause, uint64_t tval)
{
    struct program *program = opaque;

    program->pc = hart->pc;
    program->cause = cause;
    program->tval = tval;
    if (cause == HART_CAUSE_ECALL_U) {
        call(program, hart);
        return;
    }
    atomic_fetch_add(&program->traps, 1);
    note(program, cause ^ tval << 8 ^ hart->pc << 32);
    if (program->goes_on)
        hart->pc += 4;
    else
        hart_stop(hart);
}

// ---- Memory

static void *reserve(uint64_t bytes, int protection)
{
    void *memory =
        mmap(NULL, bytes, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    assert_ptr_not_equal(memory, MAP_FAILED);
    return memory;
}

static void tell(struct program *program, uint64_t gva, uint64_t bytes, unsigned may)
{
    for (uint64_t page = gva / PAGE; page < (gva + bytes) / PAGE; page++)
        atomic_store(&program->flat.pages[page], (uint8_t)may);
}

static int host_protection(unsigned may)
{
    return (may ? PROT_READ : PROT_NONE) | (may & HART_PAGE_WRITE ? PROT_WRITE : 0);
}

// As mmap of the guest's would.
static void map_file(struct program *program, uint64_t gva, uint64_t bytes, unsigned may, int fd)
{
    int flags = MAP_FIXED | (fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED);

    assert_ptr_not_equal(mmap(program->flat.hva + gva, bytes, host_protection(may), flags, fd, 0),
                         MAP_FAILED);
    tell(program, gva, bytes, may);
}

static void map(struct program *program, uint64_t gva, uint64_t bytes, unsigned may)
{
    map_file(program, gva, bytes, may, -1);
}

// Of one page, whatever the guest may do there.
static void set_bytes(struct program *program, uint64_t gva, const void *from, size_t bytes)
{
    uint8_t *page = program->flat.hva + (gva & ~(PAGE - 1));
    unsigned may = atomic_load(&program->flat.pages[gva / PAGE]);

    if (!(may & HART_PAGE_WRITE))
        assert_int_equal(mprotect(page, PAGE, PROT_READ | PROT_WRITE), 0);
    memcpy(program->flat.hva + gva, from, bytes);
    if (!(may & HART_PAGE_WRITE))
        assert_int_equal(mprotect(page, PAGE, host_protection(may)), 0);
}

static uint64_t get(const struct program *program, uint64_t gva)
{
    uint64_t value;

    memcpy(&value, program->flat.hva + gva, sizeof(value));
    return value;
}

static void set(struct program *program, uint64_t gva, uint64_t value)
{
    memcpy(program->flat.hva + gva, &value, sizeof(value));
}

// ---- Code

static void fence(struct program *program)
{
    hart_fence_remote(NULL, &program->hart, 1, HART_FENCE_I | HART_FENCE_VMA);
}

static void emit(struct program *program, uint32_t insn)
{
    set_bytes(program, program->here, &insn, sizeof(insn));
    program->here += sizeof(insn);
}

static void emit_exit(struct program *program)
{
    emit(program, addi(A7, 0, CALL_EXIT));
    emit(program, ECALL);
}

static void run_from(struct program *program, uint64_t pc)
{
    program->cause = UINT64_MAX;
    program->hart->pc = pc;
    assert_int_equal(hart_run(program->hart), HART_EXIT_STOPPED);
    assert_int_equal(program->hart->x[0], 0);
}

// ---- A program's life

// Nothing is mapped, and there is no hart.
static struct program *program_create(void)
{
    struct program *program = test_calloc(1, sizeof(*program));

    program->region = reserve(REGION_BYTES + PAGE, PROT_NONE);
    program->flat = (struct hart_flat){.hva = program->region + HART_FLAT_GUARD_BYTES,
                                       .pages = reserve(PAGES_BYTES, PROT_READ | PROT_WRITE),
                                       .trap = on_trap,
                                       .opaque = program};
    assert_int_equal(mprotect(program->flat.hva + OUTSIDE, PAGE, PROT_READ | PROT_WRITE), 0);
    memset(program->flat.hva + OUTSIDE, OUTSIDE_BYTE, PAGE);
    return program;
}

// With `flat` as it is now. Within each test: cmocka handles faults until then.
static void program_begin(struct program *program, const struct hart_engine *engine)
{
    assert_int_equal(hart_create_flat(&program->hart, 70000, &program->flat, engine, NULL), 0);
    map(program, TEXT, TEXT_BYTES, RX);
    program->here = TEXT;
}

static void program_destroy(struct program *program)
{
    hart_destroy(program->hart);
    for (uint64_t i = 0; i < PAGE; i++)
        assert_int_equal(program->flat.hva[OUTSIDE + i], OUTSIDE_BYTE);
    munmap(program->region, REGION_BYTES + PAGE);
    munmap((void *)program->flat.pages, PAGES_BYTES);
    test_free(program);
}

// ---- Chance

static uint64_t seed = 1;

static uint64_t random_below(uint64_t bound)
{
    seed = seed * 6364136223846793005 + 1442695040888963407;
    return (seed >> 29 ^ seed << 35) % bound;
}

#endif
