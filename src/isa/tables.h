// SPDX-License-Identifier: BSD-2-Clause
// The interface between isa.c, disassemble.c and the C file that tools/isa-gen.py generates.
// Private to the room and its tests.
#ifndef STRAKE_ISA_TABLES_H
#define STRAKE_ISA_TABLES_H

#include "isa/isa.h"

// Where a field is in the encoding: (raw >> shift & mask) + base. A constant has mask 0; the
// three-bit registers of compressed encodings have base 8.
struct isa_field {
    uint8_t shift, mask, base;
};

// One row of instructions.tbl.
struct isa_form_info {
    const char *operands;  // format for the disassembler
    uint32_t match, mask;  // the encoding's fixed bits
    uint32_t nonzero;      // unless 0: the encoding is reserved when all these bits are clear
    uint16_t op;           // enum isa_op
    uint8_t most;          // unless 0: the encoding is reserved when its immediate is above
    uint8_t length;        // bytes
    uint8_t immediate;     // its layout, for isa_immediate
    struct isa_field rd, rs1, rs2, rs3, rm;
};

extern const struct isa_form_info isa_forms[ISA_FORM_COUNT];

// The row that `raw` belongs to, most specific first; ISA_FORM_ILLEGAL for reserved encodings.
enum isa_form isa_form_find(uint32_t raw);

// The immediate of `raw` in one of the layouts of instructions.tbl.
int32_t isa_immediate(unsigned layout, uint32_t raw);

#endif
