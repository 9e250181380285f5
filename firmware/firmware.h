// SPDX-License-Identifier: BSD-2-Clause
// What a bare-metal test program has under it: output, checks, and code run in another mode.
#ifndef STRAKE_FIRMWARE_H
#define STRAKE_FIRMWARE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))

// ---- Given by the program ----
void test_main(void);      // on hart 0; the program ends when it returns
void hart_main(unsigned);  // on every other hart; optional

// ---- Output and the end ----
void print(const char *text);
void print_hex(uint64_t value);
void print_decimal(uint64_t value);
_Noreturn void finish(unsigned code);  // 0: pass

// ---- Checks ----
// Names what the following checks are about; its line is printed when the next group begins.
void group(const char *name);
void check(const char *what, uint64_t got, uint64_t want);
// Same, for the ROW-th line of a table.
void check_row(const char *what, uint64_t row, uint64_t got, uint64_t want);

// ---- Cases: one an instruction under test, gathered by the linker ----
struct test_case {
    const char *insn;
    const char *name;
    uint64_t ran;       // a program fails when a case never ran
    const char *entry;  // where run_at enters it; NULL for cases of assembly programs
};

// Defines `const char name[]`: code that is entered with arguments in a0..a3 and ends in an ecall.
// CODE is no case: a trap handler, the target of a return. STUB is one, its first instruction the
// one under test; STUB_AFTER has others before that.
#define STUB(name, text) STUB_AFTER(name, "", text)
#define STUB_AFTER(name, before, text)                                                             \
    extern const char name##_insn[];                                                               \
    CODE(name, before ".globl " #name "_insn\n" #name "_insn:\n" text);                            \
    __asm__(".pushsection .cases,\"aw\"\n.balign 8\n"                                              \
            ".dword " #name "_insn, 7777f, 0, " #name "\n"                                         \
            ".popsection\n.pushsection .rodata\n7777: .asciz \"" #name "\"\n.popsection")
#define CODE(name, text)                                                                           \
    extern const char name[];                                                                      \
    __asm__(".pushsection .text\n.option push\n.option arch, +f, +d, +c\n" EXTENSIONS              \
            ".balign 4\n.globl " #name "\n" #name ":\n" text "\necall\n.option pop\n.popsection")
#define EXTENSIONS                                                                                 \
    ".option arch, +zba, +zbb, +zbs, +zicbom, +zicbop, +zicboz, +zawrs, +svinval, +zihintpause\n"

// ---- Code in any mode ----
enum mode { MODE_U = 0, MODE_S = 1, MODE_M = 3 };
struct firmware_entry {
    uint64_t pc;
    uint64_t mstatus_bits;  // set before mret; MPP and MPIE are cleared first
    uint64_t a[4];
};
struct firmware_outcome {
    uint64_t cause, epc, tval;
    uint64_t mstatus;  // as the trap left it
    uint64_t a[4];     // a0..a3 at the trap
};
void firmware_enter(const struct firmware_entry *entry, struct firmware_outcome *outcome);

// Runs `stub` (at `stub` + `offset`, for an alias of the text in another address space) until a
// trap reaches M-mode.
struct firmware_outcome run_at(enum mode mode, const char *stub, uint64_t offset, uint64_t a0,
                               uint64_t a1, uint64_t a2);
static inline struct firmware_outcome run(enum mode mode, const char *stub, uint64_t a0,
                                          uint64_t a1)
{
    return run_at(mode, stub, 0, a0, a1, 0);
}
// Writes the instruction `raw` and an ecall after it into a buffer, and runs that.
struct firmware_outcome run_raw(enum mode mode, uint32_t raw);
// What `outcome` is for code that came to its ecall: true when it did.
bool completed(const struct firmware_outcome *outcome);
// Checks the cause: CAUSE_NONE stands for "came to its ecall".
void check_cause(const char *what, struct firmware_outcome outcome, uint64_t cause);
void check_trap(const char *what, struct firmware_outcome outcome, uint64_t cause, uint64_t tval);

enum cause {
    CAUSE_FETCH_MISALIGNED = 0,
    CAUSE_FETCH_ACCESS = 1,
    CAUSE_ILLEGAL = 2,
    CAUSE_BREAKPOINT = 3,
    CAUSE_LOAD_MISALIGNED = 4,
    CAUSE_LOAD_ACCESS = 5,
    CAUSE_STORE_MISALIGNED = 6,
    CAUSE_STORE_ACCESS = 7,
    CAUSE_ECALL_U = 8,
    CAUSE_ECALL_S = 9,
    CAUSE_ECALL_M = 11,
    CAUSE_FETCH_PAGE = 12,
    CAUSE_LOAD_PAGE = 13,
    CAUSE_STORE_PAGE = 15,
    CAUSE_NONE = 64,
};
#define CAUSE_IRQ(n) (1ull << 63 | (n))

// ---- CSRs ----
#define csr_read(csr)                                                                              \
    ({                                                                                             \
        uint64_t csr_value_;                                                                       \
        __asm__ volatile("csrr %0, " #csr : "=r"(csr_value_)::"memory");                           \
        csr_value_;                                                                                \
    })
#define csr_write(csr, value) __asm__ volatile("csrw " #csr ", %0" ::"rK"(value) : "memory")
#define csr_set(csr, value) __asm__ volatile("csrs " #csr ", %0" ::"rK"(value) : "memory")
#define csr_clear(csr, value) __asm__ volatile("csrc " #csr ", %0" ::"rK"(value) : "memory")
#define csr_swap(csr, value)                                                                       \
    ({                                                                                             \
        uint64_t csr_old_;                                                                         \
        __asm__ volatile("csrrw %0, " #csr ", %1" : "=r"(csr_old_) : "r"(value) : "memory");       \
        csr_old_;                                                                                  \
    })

#define MSTATUS_SIE (1ull << 1)
#define MSTATUS_MIE (1ull << 3)
#define MSTATUS_SPIE (1ull << 5)
#define MSTATUS_MPIE (1ull << 7)
#define MSTATUS_SPP (1ull << 8)
#define MSTATUS_MPP_S (1ull << 11)
#define MSTATUS_MPP (3ull << 11)
#define MSTATUS_FS (3ull << 13)
#define MSTATUS_MPRV (1ull << 17)
#define MSTATUS_SUM (1ull << 18)
#define MSTATUS_MXR (1ull << 19)
#define MSTATUS_TVM (1ull << 20)
#define MSTATUS_TW (1ull << 21)
#define MSTATUS_TSR (1ull << 22)
#define MSTATUS_SD (1ull << 63)

#define IRQ_SSI 1
#define IRQ_MSI 3
#define IRQ_STI 5
#define IRQ_MTI 7
#define IRQ_SEI 9
#define IRQ_MEI 11
#define BIT(n) (1ull << (n))

// ---- The board ----
#define ACLINT_MSIP(hart) ((volatile uint32_t *)(0x02000000ul + 4 * (hart)))
#define ACLINT_MTIMECMP(hart) ((volatile uint64_t *)(0x02004000ul + 8 * (hart)))
#define ACLINT_MTIME ((volatile uint64_t *)0x0200bff8ul)

#endif
