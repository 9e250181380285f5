// SPDX-License-Identifier: BSD-2-Clause
// Decoding and the facts of operations, forms and CSRs, all read from the generated tables.
#include "isa/tables.h"

#include <errno.h>
#include <string.h>

struct op_info {
    const char *name;
    unsigned flags;
    enum isa_form form;
};

static const struct op_info ops[ISA_OP_COUNT] = {[ISA_ILLEGAL] = {"illegal", 0, ISA_FORM_ILLEGAL},
#define ISA_X(id, name, flags) [ISA_##id] = {name, flags, ISA_FORM_##id},
                                                 ISA_OP_LIST(ISA_X)
#undef ISA_X
};

struct form_name {
    const char *mnemonic;
    const char *extension;
};

static const struct form_name form_names[ISA_FORM_COUNT] = {[ISA_FORM_ILLEGAL] = {"illegal", ""},
#define ISA_X(id, mnemonic, extension, op) [ISA_FORM_##id] = {mnemonic, extension},
                                                            ISA_FORM_LIST(ISA_X)
#undef ISA_X
};

static const struct {
    unsigned number;
    const char *name;
} csrs[] = {
#define ISA_X(id, number, name, extension, meaning) {number, name},
    ISA_CSR_LIST(ISA_X)
#undef ISA_X
};

#define CSR_COUNT (sizeof(csrs) / sizeof(csrs[0]))

static inline uint8_t field(struct isa_field field, uint32_t raw)
{
    return (raw >> field.shift & field.mask) + field.base;
}

void isa_decode(uint32_t raw, struct isa_insn *insn)
{
    unsigned length = (raw & 3) == 3 ? 4 : 2;
    enum isa_form form = isa_form_find(raw);
    const struct isa_form_info *info = &isa_forms[form];

    if (length == 2)
        raw &= 0xffff;
    *insn = (struct isa_insn){
        .op = info->op,
        .form = form,
        .rd = field(info->rd, raw),
        .rs1 = field(info->rs1, raw),
        .rs2 = field(info->rs2, raw),
        .rs3 = field(info->rs3, raw),
        .rm = field(info->rm, raw),
        .length = length,
        .imm = isa_immediate(info->immediate, raw),
        .raw = raw,
    };
}

unsigned isa_op_flags(enum isa_op op)
{
    return op < ISA_OP_COUNT ? ops[op].flags : 0;
}

unsigned isa_op_access_bytes(enum isa_op op)
{
    return 1u << (isa_forms[ops[op].form].match >> 12 & 3);
}

const char *isa_op_name(enum isa_op op)
{
    return ops[op < ISA_OP_COUNT ? op : ISA_ILLEGAL].name;
}

const char *isa_form_mnemonic(enum isa_form form)
{
    return form_names[form < ISA_FORM_COUNT ? form : ISA_FORM_ILLEGAL].mnemonic;
}

const char *isa_form_extension(enum isa_form form)
{
    return form_names[form < ISA_FORM_COUNT ? form : ISA_FORM_ILLEGAL].extension;
}

// The list is ordered by number.
const char *isa_csr_name(unsigned number)
{
    size_t low = 0, high = CSR_COUNT;

    while (low < high) {
        size_t middle = (low + high) / 2;

        if (csrs[middle].number == number)
            return csrs[middle].name;
        if (csrs[middle].number < number)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

int isa_csr_number(const char *name)
{
    for (size_t i = 0; i < CSR_COUNT; i++)
        if (!strcmp(csrs[i].name, name))
            return csrs[i].number;
    return -ENOENT;
}
