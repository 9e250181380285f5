// SPDX-License-Identifier: BSD-2-Clause
// Translations for people to read: guest code on the left, the host code for it on the right.
//
// While a block is translated its code is cut into pieces, and each is noted with the instruction
// that it is for; afterwards both sides are disassembled. Only with jit_options.log.
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "jit/disasm.h"
#include "jit/internal.h"

#define PIECES_MAX (8 * JIT_BLOCK_INSNS)
#define GUEST_COLUMNS 60

struct jit_listing {
    unsigned count;
    struct piece {
        enum jit_listing_kind kind;
        int offset;
        const uint8_t *code;
        struct isa_insn insn;
    } pieces[PIECES_MAX];
};

struct jit_listing *jit_listing_create(void)
{
    return calloc(1, sizeof(struct jit_listing));
}

void jit_listing_mark(struct jit *jit, enum jit_listing_kind kind, const struct isa_insn *insn,
                      int offset, const uint8_t *code)
{
    struct jit_listing *listing = jit->listing;

    if (BASE_LIKELY(!listing))
        return;
    if (kind == JIT_LISTING_ENTRY)
        listing->count = 0;
    if (listing->count == PIECES_MAX)
        return;
    listing->pieces[listing->count++] = (struct piece){
        .kind = kind, .offset = offset, .code = code, .insn = insn ? *insn : (struct isa_insn){0}};
}

static void describe(const struct piece *piece, uint64_t page_gva, char *text, size_t text_bytes)
{
    uint64_t gva = page_gva + (uint64_t)(int64_t)piece->offset;
    char insn[64];
    char *tab;

    switch (piece->kind) {
    case JIT_LISTING_ENTRY:
        snprintf(text, text_bytes, "(entry)");
        break;
    case JIT_LISTING_STUB:
        snprintf(text, text_bytes, "(out of line, for %" PRIx64 ")", gva);
        break;
    case JIT_LISTING_LEAVE:
        snprintf(text, text_bytes, "(leave at the entry)");
        break;
    case JIT_LISTING_INSN:
        isa_disassemble(&piece->insn, gva, insn, sizeof(insn));
        tab = strchr(insn, '\t');
        if (tab)
            *tab = 0;
        snprintf(text, text_bytes, "%16" PRIx64 "  %0*x%*s  %-10s %s", gva, 2 * piece->insn.length,
                 piece->insn.raw, 8 - 2 * piece->insn.length, "", insn, tab ? tab + 1 : "");
    }
}

// A line a host instruction, the first with what they are for. A piece may be empty.
static void print_piece(FILE *out, const char *left, const uint8_t *code, const uint8_t *end)
{
    char text[JIT_DISASM_TEXT_BYTES];

    if (code == end)
        fprintf(out, "%s\n", left);
    while (code < end) {
        size_t length =
            jit_disasm_insn(code, (size_t)(end - code), (uintptr_t)code, text, sizeof(text));

        fprintf(out, "%-*s  %12" PRIxPTR "  %s\n", GUEST_COLUMNS, left, (uintptr_t)code, text);
        left = "";
        code += length;
    }
}

static void print_block(FILE *out, const struct hart *hart, const struct jit_listing *listing,
                        const struct jit_block *block)
{
    const uint8_t *end = block->entry + block->code_bytes;
    uint64_t page_gva = hart->pc - JIT_PAGE_OFFSET(hart->pc);
    char left[128];

    fprintf(out,
            "jit: hart %u: block at %c:%" PRIx64 " (gpa %" PRIx64 "), %u bytes, to %u of code\n",
            hart->id, "US?M"[hart->privilege], hart -> pc, block -> gpa & ~(uint64_t)JIT_STRADDLES,
            block -> length_bytes, block -> code_bytes);
    for (unsigned i = 0; i < listing->count; i++) {
        const struct piece *piece = &listing->pieces[i];

        describe(piece, page_gva, left, sizeof(left));
        print_piece(out, left, piece->code, i + 1 < listing->count ? piece[1].code : end);
    }
}

void jit_listing_log(const struct hart *hart, const struct jit *jit, const struct jit_block *block)
{
    char *text = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);

    if (!out)
        return;
    print_block(out, hart, jit->listing, block);
    fclose(out);
    if (text)
        log_text(text, bytes);
    free(text);
}
