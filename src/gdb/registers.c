// SPDX-License-Identifier: BSD-2-Clause
// Registers by GDB's numbers, and the target description that tells it of them.
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "gdb/internal.h"

// x0..x31, pc, f0..f31, then CSRs by number (gdb/riscv-tdep.h).
enum {
    REG_PC = GDB_REGISTER_PC,
    REG_F0 = 33,
    REG_CSR0 = 65,
    REG_PRIV = 4161,
};
#define CSR_FCSR 3u  // fflags and frm are below it

static bool is_csr(uint64_t number, bool machine)
{
    return (number > REG_CSR0 && number <= REG_CSR0 + CSR_FCSR) ||
           (machine && number >= REG_CSR0 && number < REG_PRIV);
}

int gdb_register_read(struct hart *hart, bool machine, uint64_t number, uint64_t *value)
{
    if (number < REG_PC)
        *value = hart->x[number];
    else if (number == REG_PC)
        *value = hart->pc;
    else if (number < REG_CSR0)
        *value = hart->f[number - REG_F0];
    else if (is_csr(number, machine))
        return hart_csr_peek(hart, (unsigned)number - REG_CSR0, value);
    else if (number == REG_PRIV && machine)
        *value = hart->privilege;
    else
        return -ENOENT;
    return 0;
}

int gdb_register_write(struct hart *hart, bool machine, uint64_t number, uint64_t value)
{
    if (number == 0)
        return 0;
    if (number < REG_PC)
        hart->x[number] = value;
    else if (number == REG_PC)
        hart->pc = value & ~1ull;
    else if (number < REG_CSR0)
        hart->f[number - REG_F0] = value;
    else if (is_csr(number, machine))
        return hart_csr_poke(hart, (unsigned)number - REG_CSR0, value);
    else
        return -ENOENT;
    return 0;
}

// ---- The target description ---------------------------------------------------------------------

static void put_integers(FILE *xml)
{
    fputs("<feature name=\"org.gnu.gdb.riscv.cpu\">", xml);
    for (int i = 0; i < REG_PC; i++)
        fprintf(xml, "<reg name=\"x%d\" bitsize=\"64\" regnum=\"%d\" type=\"%s\"/>", i, i,
                i == 1             ? "code_ptr"
                : i >= 2 && i <= 4 ? "data_ptr"
                                   : "int");
    fprintf(xml, "<reg name=\"pc\" bitsize=\"64\" regnum=\"%d\" type=\"code_ptr\"/></feature>",
            REG_PC);
}

static void put_floats(FILE *xml)
{
    fputs("<feature name=\"org.gnu.gdb.riscv.fpu\">", xml);
    for (int i = 0; i < 32; i++)
        fprintf(xml, "<reg name=\"f%d\" bitsize=\"64\" regnum=\"%d\" type=\"ieee_double\"/>", i,
                REG_F0 + i);
    // GDB wants these three with the FPU.
    for (unsigned number = 1; number <= CSR_FCSR; number++)
        fprintf(xml, "<reg name=\"%s\" bitsize=\"64\" regnum=\"%u\" type=\"int\"/>",
                isa_csr_name(number), REG_CSR0 + number);
    fputs("</feature>", xml);
}

static void put_csrs(FILE *xml)
{
    fputs("<feature name=\"org.gnu.gdb.riscv.csr\">", xml);
    for (unsigned number = CSR_FCSR + 1; number < REG_PRIV - REG_CSR0; number++)
        if (isa_csr_name(number))
            fprintf(xml, "<reg name=\"%s\" bitsize=\"64\" regnum=\"%u\"/>", isa_csr_name(number),
                    REG_CSR0 + number);
    fprintf(xml,
            "</feature><feature name=\"org.gnu.gdb.riscv.virtual\">"
            "<reg name=\"priv\" bitsize=\"64\" regnum=\"%d\"/></feature>",
            REG_PRIV);
}

char *gdb_description(bool machine)
{
    char *text = NULL;
    size_t bytes;
    FILE *xml = open_memstream(&text, &bytes);

    if (!xml)
        return NULL;
    fprintf(xml,
            "<?xml version=\"1.0\"?><!DOCTYPE target SYSTEM \"gdb-target.dtd\">"
            "<target version=\"1.0\"><architecture>riscv:rv64</architecture>%s",
            machine ? "" : "<osabi>GNU/Linux</osabi>");
    put_integers(xml);
    put_floats(xml);
    if (machine)
        put_csrs(xml);
    fputs("</target>", xml);
    if (fclose(xml) == 0)
        return text;
    free(text);
    return NULL;
}
