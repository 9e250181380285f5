// SPDX-License-Identifier: BSD-2-Clause
// Disassembly of host code with Zydis.
#include "jit/disasm.h"

#include <Zydis/Zydis.h>
#include <inttypes.h>
#include <string.h>

#define BYTES_SHOWN 10  // of an instruction; longer ones are rare and shown cut

// Zydis allocates nothing and has no state of its own, so both are made anew for each instruction:
// nobody waits for a disassembly.
static void prepare(ZydisDecoder *decoder, ZydisFormatter *formatter)
{
    ZydisDecoderInit(decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    ZydisFormatterInit(formatter, ZYDIS_FORMATTER_STYLE_INTEL);
    ZydisFormatterSetProperty(formatter, ZYDIS_FORMATTER_PROP_HEX_UPPERCASE, ZYAN_FALSE);
    ZydisFormatterSetProperty(formatter, ZYDIS_FORMATTER_PROP_ADDR_PADDING_ABSOLUTE,
                              ZYDIS_PADDING_DISABLED);
}

size_t jit_disasm_insn(const uint8_t *code, size_t bytes, uint64_t address, char *text,
                       size_t text_bytes)
{
    ZydisDecoder decoder;
    ZydisFormatter formatter;
    ZydisDecodedInstruction insn;
    ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
    char whole[JIT_DISASM_TEXT_BYTES];

    if (!bytes)
        return 0;
    prepare(&decoder, &formatter);
    if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoder, code, bytes, &insn, operands)) ||
        !ZYAN_SUCCESS(ZydisFormatterFormatInstruction(&formatter, &insn, operands,
                                                      insn.operand_count_visible, whole,
                                                      sizeof(whole), address, NULL))) {
        snprintf(text, text_bytes, "(bad)");
        return 1;
    }
    snprintf(text, text_bytes, "%s", whole);
    return insn.length;
}

void jit_disasm_host(FILE *out, const uint8_t *code, size_t bytes, uint64_t address)
{
    char text[JIT_DISASM_TEXT_BYTES];

    for (size_t at = 0, length; at < bytes; at += length) {
        length = jit_disasm_insn(code + at, bytes - at, address + at, text, sizeof(text));
        fprintf(out, "%12" PRIx64 ":  ", address + at);
        for (size_t i = 0; i < BYTES_SHOWN; i++)
            if (i < length)
                fprintf(out, "%02x%s", code[at + i],
                        i + 1 == BYTES_SHOWN && i + 1 < length ? "+" : " ");
            else
                fprintf(out, "   ");
        fprintf(out, " %s\n", text);
    }
}
