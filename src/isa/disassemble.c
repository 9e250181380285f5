// SPDX-License-Identifier: BSD-2-Clause
// Disassembly: the operand templates of instructions.tbl, as tools/isa-gen.py abbreviates them, are
// formats whose %-letters write_operand expands. The text is what binutils' objdump prints with
// -M no-aliases, without its " # address" and "<symbol>" remarks; mnemonic and operands are
// separated by one tab.
#include "isa/tables.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

// Appends to a text of fixed size; what does not fit is cut.
struct writer {
    char *text;
    size_t used, size;
};

__attribute__((format(printf, 2, 3))) static void put(struct writer *out, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    int length = vsnprintf(out->text + out->used, out->size - out->used, format, arguments);
    va_end(arguments);
    if (length > 0)
        out->used = (size_t)length < out->size - out->used ? out->used + length : out->size - 1;
}

static const char *const integer_registers[32] = {
    "zero", "ra", "sp", "gp", "tp",  "t0",  "t1", "t2", "s0", "s1", "a0",
    "a1",   "a2", "a3", "a4", "a5",  "a6",  "a7", "s2", "s3", "s4", "s5",
    "s6",   "s7", "s8", "s9", "s10", "s11", "t3", "t4", "t5", "t6",
};

static const char *const fp_registers[32] = {
    "ft0", "ft1", "ft2", "ft3", "ft4",  "ft5",  "ft6", "ft7", "fs0",  "fs1",  "fa0",
    "fa1", "fa2", "fa3", "fa4", "fa5",  "fa6",  "fa7", "fs2", "fs3",  "fs4",  "fs5",
    "fs6", "fs7", "fs8", "fs9", "fs10", "fs11", "ft8", "ft9", "ft10", "ft11",
};

static const char *const rounding_modes[8] = {
    "rne", "rtz", "rdn", "rup", "rmm", "unknown", "unknown", "dyn",
};

static const char *const orderings[4] = {"", ".rl", ".aq", ".aqrl"};

enum { RM_RNE = 0, RM_DYN = 7 };

static void put_csr(struct writer *out, unsigned number)
{
    const char *name = isa_csr_name(number);

    if (name)
        put(out, "%s", name);
    else
        put(out, "0x%x", number);
}

// A set of device input, output, memory reads and writes (fence).
static void put_accesses(struct writer *out, unsigned set)
{
    if (!set)
        put(out, "unknown");
    for (int bit = 3; bit >= 0; bit--)
        if (set >> bit & 1)
            put(out, "%c", "wroi"[bit]);
}

static void write_operand(struct writer *out, char kind, const struct isa_insn *insn, uint64_t pc)
{
    switch (kind) {
    case 'd':
        put(out, "%s", integer_registers[insn->rd]);
        break;
    case 's':
        put(out, "%s", integer_registers[insn->rs1]);
        break;
    case 't':
        put(out, "%s", integer_registers[insn->rs2]);
        break;
    case 'D':
        put(out, "%s", fp_registers[insn->rd]);
        break;
    case 'S':
        put(out, "%s", fp_registers[insn->rs1]);
        break;
    case 'T':
        put(out, "%s", fp_registers[insn->rs2]);
        break;
    case 'R':
        put(out, "%s", fp_registers[insn->rs3]);
        break;
    case 'i':
        put(out, "%d", insn->imm);
        break;
    case 'x':
        put(out, "0x%x", insn->imm);
        break;
    case 'u':
        put(out, "0x%x", (uint32_t)insn->imm >> 12);
        break;
    case 'p':
        put(out, "0x%" PRIx64, pc + insn->imm);
        break;
    case 'z':
        put(out, "%u", insn->rs1);
        break;
    case 'c':
        put_csr(out, insn->imm);
        break;
    case 'P':
        put_accesses(out, insn->imm >> 4);
        break;
    case 'Q':
        put_accesses(out, insn->imm & 15);
        break;
    case 'm':
        if (insn->rm != RM_DYN)
            put(out, ",%s", rounding_modes[insn->rm]);
        break;
    case 'M':
        if (insn->rm != RM_RNE)
            put(out, ",%s", rounding_modes[insn->rm]);
        break;
    }
}

char *isa_disassemble(const struct isa_insn *insn, uint64_t pc, char *text, size_t text_bytes)
{
    struct writer out = {.text = text, .size = text_bytes};

    if (!text_bytes)
        return text;
    if (insn->op == ISA_ILLEGAL) {
        put(&out, ".%ubyte\t0x%x", insn->length, insn->raw);
        return text;
    }
    const char *format = isa_forms[insn->form].operands;

    put(&out, "%s", isa_form_mnemonic(insn->form));
    if (!strncmp(format, "%a", 2)) {
        put(&out, "%s", orderings[insn->rm]);
        format += 2;
    }
    if (*format)
        put(&out, "\t");
    for (; *format; format++) {
        if (*format == '%')
            write_operand(&out, *++format, insn, pc);
        else
            put(&out, "%c", *format);
    }
    return text;
}
