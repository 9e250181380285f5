// SPDX-License-Identifier: BSD-2-Clause
// A small guest for the engines' tests (the interpreter's, unless GUEST_ENGINE names another):
// memory, harts in M-mode, a register that stops the hart that stores to it, and an assembler of
// one-line functions.
//
// Code is put down with put(); a run starts at an address and ends in STOP_CODE, where a program
// jumps to and where traps lead. The engine is called directly, so nothing but it touches a hart.
#ifndef STRAKE_TESTS_INTERP_GUEST_H
#define STRAKE_TESTS_INTERP_GUEST_H

#include <pthread.h>
#include <unistd.h>

#include "hart/interp_block.h"
#include "unit.h"

#ifndef GUEST_ENGINE
#define GUEST_ENGINE hart_engine_interp
#endif

#define RAM_GPA 0x80000000u
#define RAM_BYTES (4u << 20)
#define STOP_GPA 0x00100000u  // a store here stops the hart
#define STOP_CODE RAM_GPA     // stores to STOP_GPA, then loops on the spot
#define STOP_LOOP (STOP_CODE + 8)
#define STOP_INSNS 3  // retired there
#define CODE (RAM_GPA + 0x1000u)
#define DATA (RAM_GPA + 0x200000u)

#define GUEST_HARTS 2

struct guest {
    struct memory *memory;
    struct hart *harts[GUEST_HARTS];
    struct hart *hart;  // the first
    struct interp *interp;
    uint64_t here;  // where put() goes on
};

// ---- Encodings

static inline uint32_t i_type(uint32_t opcode, unsigned f3, unsigned rd, unsigned rs1, int imm)
{
    return opcode | rd << 7 | f3 << 12 | rs1 << 15 | (uint32_t)imm << 20;
}

static inline uint32_t r_type(uint32_t opcode, unsigned f3, unsigned f7, unsigned rd, unsigned rs1,
                              unsigned rs2)
{
    return opcode | rd << 7 | f3 << 12 | rs1 << 15 | rs2 << 20 | f7 << 25;
}

static inline uint32_t s_type(uint32_t opcode, unsigned f3, unsigned rs1, unsigned rs2, int imm)
{
    uint32_t bits = (uint32_t)imm;

    return opcode | (bits & 31) << 7 | f3 << 12 | rs1 << 15 | rs2 << 20 | (bits >> 5) << 25;
}

static inline uint32_t branch(unsigned f3, unsigned rs1, unsigned rs2, int offset)
{
    uint32_t bits = (uint32_t)offset;

    return 0x63 | (bits >> 11 & 1) << 7 | (bits >> 1 & 15) << 8 | f3 << 12 | rs1 << 15 | rs2 << 20 |
           (bits >> 5 & 63) << 25 | (bits >> 12 & 1) << 31;
}

static inline uint32_t jal(unsigned rd, int offset)
{
    uint32_t bits = (uint32_t)offset;

    return 0x6f | rd << 7 | (bits >> 12 & 255) << 12 | (bits >> 11 & 1) << 20 |
           (bits >> 1 & 1023) << 21 | (bits >> 20 & 1) << 31;
}

static inline uint32_t lui(unsigned rd, uint32_t value)
{
    return 0x37 | rd << 7 | (value & 0xfffff000);
}

#define auipc(rd, value) (0x17u | (rd) << 7 | ((uint32_t)(value)&0xfffff000))
#define addi(rd, rs1, imm) i_type(0x13, 0, rd, rs1, imm)
#define jalr(rd, rs1, imm) i_type(0x67, 0, rd, rs1, imm)
#define add(rd, rs1, rs2) r_type(0x33, 0, 0, rd, rs1, rs2)
#define lb(rd, rs1, imm) i_type(0x03, 0, rd, rs1, imm)
#define lw(rd, rs1, imm) i_type(0x03, 2, rd, rs1, imm)
#define ld(rd, rs1, imm) i_type(0x03, 3, rd, rs1, imm)
#define sw(rs2, rs1, imm) s_type(0x23, 2, rs1, rs2, imm)
#define sd(rs2, rs1, imm) s_type(0x23, 3, rs1, rs2, imm)
#define beq(rs1, rs2, offset) branch(0, rs1, rs2, offset)
#define bne(rs1, rs2, offset) branch(1, rs1, rs2, offset)
#define csrrw(rd, csr, rs1) i_type(0x73, 1, rd, rs1, csr)
#define csrrs(rd, csr, rs1) i_type(0x73, 2, rd, rs1, csr)
// `f5` is the operation: see the functions below; width 2 is .w, 3 is .d.
#define amo(f5, width, rd, rs1, rs2) r_type(0x2f, width, (f5) << 2, rd, rs1, rs2)
#define lr_w(rd, rs1) amo(2u, 2, rd, rs1, 0)
#define lr_d(rd, rs1) amo(2u, 3, rd, rs1, 0)
#define sc_w(rd, rs2, rs1) amo(3u, 2, rd, rs1, rs2)
#define sc_d(rd, rs2, rs1) amo(3u, 3, rd, rs1, rs2)
#define FENCE_I 0x0000100fu
#define FENCE_RW_RW 0x0330000fu
#define ECALL 0x00000073u
#define SFENCE_VMA 0x12000073u
#define C_NOP 0x0001u
#define C_ADDI_X5_1 0x0285u

// ---- The guest

static inline void put16(struct guest *guest, uint16_t insn)
{
    assert_int_equal(memory_write(guest->memory, guest->here, &insn, sizeof(insn)), 0);
    guest->here += sizeof(insn);
}

static inline void put(struct guest *guest, uint32_t insn)
{
    put16(guest, (uint16_t)insn);
    put16(guest, (uint16_t)(insn >> 16));
}

static inline void put_at(struct guest *guest, uint64_t gpa, uint32_t insn)
{
    guest->here = gpa;
    put(guest, insn);
}

// A jump to the end of the program; STOP_INSNS come after it.
static inline void put_stop(struct guest *guest)
{
    put(guest, jalr(0, 9, 0));
}

static inline uint64_t read_u64(struct guest *guest, uint64_t gpa)
{
    uint64_t value;

    assert_int_equal(memory_read(guest->memory, gpa, &value, sizeof(value)), 0);
    return value;
}

static inline void write_u64(struct guest *guest, uint64_t gpa, uint64_t value)
{
    assert_int_equal(memory_write(guest->memory, gpa, &value, sizeof(value)), 0);
}

static inline uint64_t stop_read(void *device, uint64_t offset, unsigned width_bytes)
{
    (void)device, (void)offset, (void)width_bytes;
    return 0;
}

// Stores the number of the hart to be stopped.
static inline void stop_write(void *device, uint64_t offset, unsigned width_bytes, uint64_t value)
{
    struct guest *guest = device;

    (void)offset, (void)width_bytes;
    if (value < GUEST_HARTS)
        atomic_fetch_or(&guest->harts[value]->attention, HART_ATTENTION_STOP);
}

static inline uint64_t guest_clock_ns(void *opaque)
{
    (void)opaque;
    return 0;
}

// M-mode, traps lead to STOP_CODE. Registers: x3 the hart's number, x9 STOP_CODE, x10 CODE, x11
// DATA; x4 is spoilt at the end.
static inline void guest_reset_hart(struct hart *hart)
{
    hart_reset(hart);
    hart->mtvec = STOP_CODE;
    hart->x[3] = hart->id;
    hart->x[9] = STOP_CODE;
    hart->x[10] = CODE;
    hart->x[11] = DATA;
}

// Runs from `pc` until something asks for attention; returns what did.
static inline unsigned guest_run_hart(struct hart *hart, uint64_t pc)
{
    hart->pc = pc;
    atomic_store(&hart->attention, 0);
    hart->engine->run(hart, hart->engine_state);
    assert_int_equal(hart->x[0], 0);
    return atomic_load(&hart->attention);
}

struct guest_asker {
    struct hart *hart;
    unsigned attention;
    atomic_bool left;
};

// Again and again: what is asked before the hart runs is forgotten when it starts.
static inline void *guest_ask(void *opaque)
{
    struct guest_asker *asker = opaque;

    do {
        usleep(10000);
        atomic_fetch_or(&asker->hart->attention, asker->attention);
    } while (!atomic_load(&asker->left));
    return NULL;
}

// Runs from `pc` until another thread asks for attention, which may be before the guest has come
// far.
static inline void guest_run_until_asked(struct hart *hart, uint64_t pc, unsigned attention)
{
    struct guest_asker asker = {.hart = hart, .attention = attention};
    pthread_t thread;

    assert_int_equal(pthread_create(&thread, NULL, guest_ask, &asker), 0);
    assert_int_equal(guest_run_hart(hart, pc), attention);
    atomic_store(&asker.left, true);
    pthread_join(thread, NULL);
}

// Runs an endless loop from `pc` until another thread asks for attention, and for so many
// instructions at least.
static inline void guest_run_long(struct hart *hart, uint64_t pc, uint64_t insns,
                                  unsigned attention)
{
    hart->instret = 0;
    hart->pc = pc;
    for (unsigned i = 0; i < 1000 && hart->instret < insns; i++)
        guest_run_until_asked(hart, hart->pc, attention);
    assert_true(hart->instret >= insns);
}

static inline void guest_run(struct guest *guest, uint64_t pc)
{
    assert_int_equal(guest_run_hart(guest->hart, pc), HART_ATTENTION_STOP);
    assert_int_equal(guest->hart->pc, STOP_LOOP);
}

static inline void guest_step(struct guest *guest)
{
    atomic_store(&guest->hart->attention, 0);
    guest->hart->engine->step(guest->hart, guest->hart->engine_state);
}

static inline void guest_put_stop_code(struct guest *guest)
{
    put_at(guest, STOP_CODE, lui(4, STOP_GPA));
    put(guest, sd(3, 4, 0));
    put(guest, jal(0, 0));
}

static inline void guest_add_stop(struct guest *guest)
{
    static const struct memory_device_ops ops = {.read = stop_read, .write = stop_write};
    const struct memory_device stop = {.name = "stop",
                                       .gpa = STOP_GPA,
                                       .length_bytes = MEMORY_PAGE_BYTES,
                                       .width_min = 8,
                                       .width_max = 8,
                                       .ops = &ops,
                                       .device = guest};

    assert_int_equal(memory_add_device(guest->memory, &stop, NULL), 0);
}

static inline int guest_setup(void **state)
{
    const struct hart_host host = {.clock_ns = guest_clock_ns};
    struct guest *guest = test_calloc(1, sizeof(*guest));

    assert_int_equal(memory_create(&guest->memory, NULL), 0);
    assert_int_equal(memory_add_ram(guest->memory, RAM_GPA, RAM_BYTES, -1, NULL), 0);
    guest_add_stop(guest);
    for (unsigned i = 0; i < GUEST_HARTS; i++) {
        assert_int_equal(
            hart_create(&guest->harts[i], i, guest->memory, &host, &GUEST_ENGINE, NULL), 0);
        guest_reset_hart(guest->harts[i]);
    }
    guest->hart = guest->harts[0];
    guest->interp = guest->hart->engine_state;
    guest_put_stop_code(guest);
    guest->here = CODE;
    *state = guest;
    return 0;
}

static inline int guest_teardown(void **state)
{
    struct guest *guest = *state;

    for (unsigned i = 0; i < GUEST_HARTS; i++)
        hart_destroy(guest->harts[i]);
    memory_destroy(guest->memory);
    test_free(guest);
    return 0;
}

#define guest_test(test) cmocka_unit_test_setup_teardown(test, guest_setup, guest_teardown)

#endif
