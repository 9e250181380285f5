// SPDX-License-Identifier: BSD-2-Clause
// isa: one table of RV64 instructions (instructions.tbl), one of CSRs (csrs.tbl). What is below is
// generated from them at build time by tools/isa-gen.py or driven by the generated tables.
//
// Source: RISC-V Unprivileged ISA 20240411, Privileged ISA 20240411, and the ratified extension
// documents named in the tables. Everything here is constant and may be used from any thread.
#ifndef STRAKE_ISA_H
#define STRAKE_ISA_H

#include "base/base.h"
// Generated: ISA_OP_LIST(X), ISA_FORM_LIST(X), ISA_CSR_LIST(X), see tools/isa-gen.py.
#include "isa-generated.h"

// Operations: what an instruction does. Compressed and other encodings that do the same share one
// (c.addi is ISA_ADDI), so an engine implements each of these once. ISA_ILLEGAL is 0.
enum isa_op {
    ISA_ILLEGAL,
#define ISA_X(id, ...) ISA_##id,
    ISA_OP_LIST(ISA_X)
#undef ISA_X
        ISA_OP_COUNT
};

// Forms: one a row of instructions.tbl, that is, one an encoding (c.addi and addi are two).
enum isa_form {
    ISA_FORM_ILLEGAL,
#define ISA_X(id, ...) ISA_FORM_##id,
    ISA_FORM_LIST(ISA_X)
#undef ISA_X
        ISA_FORM_COUNT
};

// What an operation may do, for engines: a set of these.
enum isa_flags {
    ISA_BRANCH = 1 << 0,  // conditional, pc-relative
    ISA_JUMP = 1 << 1,    // jal, jalr
    ISA_LOAD = 1 << 2,    // reads memory (AMOs have LOAD and STORE)
    ISA_STORE = 1 << 3,   // writes memory
    ISA_SYSTEM = 1 << 4,  // may change privilege, translation, interrupts or counters: ends a block
    ISA_FP = 1 << 5,      // needs mstatus.FS != Off
    ISA_ROUNDS = 1 << 6,  // has a rounding-mode field
    ISA_RD = 1 << 7,      // writes integer register rd
    ISA_RS1 = 1 << 8,     // reads integer register rs1
    ISA_RS2 = 1 << 9,     // reads integer register rs2
    ISA_FRD = 1 << 10,    // writes FP register rd
    ISA_FRS1 = 1 << 11,   // reads FP register rs1
    ISA_FRS2 = 1 << 12,
    ISA_FRS3 = 1 << 13,
    ISA_ATOMIC = 1 << 14,  // LR, SC, AMOs
};

struct isa_insn {
    uint16_t op;    // enum isa_op
    uint16_t form;  // enum isa_form
    uint8_t rd, rs1, rs2, rs3;
    uint8_t rm;      // rounding mode field; for AMO, LR and SC: bit 1 aq, bit 0 rl; for fence: fm
    uint8_t length;  // bytes: 2 or 4 (of an illegal instruction: by its low two bits)
    int32_t imm;     // sign-extended; CSR number; shift amount; fence pred<<4|succ. For csrr?i the
                     // 5-bit immediate is in rs1.
    uint32_t raw;    // the encoding; 16 bits of it when length is 2
};

// Decodes the instruction whose first 16 bits are the low bits of `raw` (the upper 16 are ignored
// for a compressed one). Anything that is not in the table, reserved encodings included, decodes to
// ISA_ILLEGAL. Hints decode to what they are encoded as.
void isa_decode(uint32_t raw, struct isa_insn *insn);

// Static facts of an operation or a form.
unsigned isa_op_flags(enum isa_op op);
unsigned isa_op_access_bytes(enum isa_op op);        // of a load, store or atomic: 1, 2, 4 or 8
const char *isa_op_name(enum isa_op op);             // "addi", "amoadd.w", "illegal"
const char *isa_form_mnemonic(enum isa_form form);   // "c.addi"
const char *isa_form_extension(enum isa_form form);  // "I", "Zba", ...

// Writes the assembly text of `insn` at address `pc` (for the targets of jumps), in the syntax of
// binutils' objdump -d -M no-aliases: mnemonic, a tab, operands without blanks, ABI register names.
// Targets are absolute and start with 0x; an illegal instruction is ".4byte\t0x..." or ".2byte".
// Cut at `text_bytes` and always terminated. Returns `text`.
char *isa_disassemble(const struct isa_insn *insn, uint64_t pc, char *text, size_t text_bytes);

// ---- CSRs -------------------------------------------------------------------------------------

enum isa_csr {
#define ISA_X(id, number, name, ...) ISA_CSR_##id = (number),
    ISA_CSR_LIST(ISA_X)
#undef ISA_X
};

// The CSR's name, or NULL when the number is not in the table.
const char *isa_csr_name(unsigned number);
// The number of the CSR called `name`, or -ENOENT.
int isa_csr_number(const char *name);

#endif
