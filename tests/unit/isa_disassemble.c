// SPDX-License-Identifier: BSD-2-Clause
// Decoder and disassembler against binutils: what the cross objdump says of each compressed
// encoding there is, of random encodings of each row, of encodings one bit off a row, and of random
// words must be what we say.
#include "isa/tables.h"
#include "unit.h"

#include <ctype.h>
#include <stdio.h>
#include <unistd.h>

#define ARCH                                                                                       \
    "rv64imafdc_zicsr_zifencei_zihintpause_zba_zbb_zbc_zbkb_zbkx_zbs_zknd_zkne_zknh_zicbom_"       \
    "zicbop_zicboz_zawrs_svinval"
#define TEXT_BYTES 128

static uint32_t next_random(uint64_t *seed)
{
    *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*seed >> 32);
}

// ---- The words to compare

static void emit(FILE *file, uint32_t raw)
{
    bool compressed = (raw & 3) != 3;
    bool longer = (raw & 31) == 31;  // belongs to an instruction of more than four bytes

    if (!longer)
        fprintf(file, ".insn %d, 0x%x\n", compressed ? 2 : 4, compressed ? raw & 0xffff : raw);
}

static void emit_all_compressed(FILE *file)
{
    for (uint32_t raw = 0; raw < 0x10000; raw++)
        if ((raw & 3) != 3)
            emit(file, raw);
}

static void emit_each_form(FILE *file)
{
    uint64_t seed = 1;

    for (unsigned form = 1; form < ISA_FORM_COUNT; form++)
        for (int i = 0; i < 100; i++)
            emit(file, isa_forms[form].match | (next_random(&seed) & ~isa_forms[form].mask));
}

static void emit_one_bit_off(FILE *file)
{
    uint64_t seed = 2;

    for (unsigned form = 1; form < ISA_FORM_COUNT; form++)
        for (int bit = 2; bit < 32; bit++)
            for (int i = 0; i < 4 && isa_forms[form].mask >> bit & 1; i++)
                emit(file, (isa_forms[form].match | (next_random(&seed) & ~isa_forms[form].mask)) ^
                               1u << bit);
}

static void emit_random_words(FILE *file)
{
    uint64_t seed = 3;

    for (int i = 0; i < 50000; i++)
        emit(file, next_random(&seed) | 3);
}

// ---- Where binutils 2.40 and we differ on purpose

struct exception {
    unsigned form;       // what we decode
    const char *theirs;  // a part of what objdump prints
};

static const struct exception exceptions[] = {
    // Rounding modes 5 and 6 are reserved, so is c.addi16sp of zero, and the all-zero halfword is
    // defined to be illegal.
    {ISA_FORM_ILLEGAL, ",unknown"},
    {ISA_FORM_ILLEGAL, "c.addi16sp\tsp,0"},
    {ISA_FORM_ILLEGAL, "c.unimp"},
    // Withdrawn, or renamed, before ratification.
    {ISA_FORM_ILLEGAL, "uret"},
    {ISA_FORM_ILLEGAL, "hret"},
    {ISA_FORM_ILLEGAL, "sfence.vm"},
    // Rounds above 10 are reserved.
    {ISA_FORM_ILLEGAL, "aes64ks1i"},
    // Shifts by zero are hints, for which binutils uses names from RV128.
    {ISA_FORM_C_SLLI, "c.slli64"},
    {ISA_FORM_C_SRLI, "c.srli64"},
    {ISA_FORM_C_SRAI, "c.srai64"},
    // Fields of fences that have no meaning yet are to be ignored.
    {ISA_FORM_FENCE, ".4byte"},
    {ISA_FORM_FENCE_TSO, ".4byte"},
    {ISA_FORM_FENCE_I, ".4byte"},
    // Conversions that never round may have any rounding mode.
    {ISA_FORM_FCVT_D_S, ".4byte"},
    {ISA_FORM_FCVT_D_W, ".4byte"},
    {ISA_FORM_FCVT_D_WU, ".4byte"},
};

static bool is_exception(const struct isa_insn *insn, const char *theirs)
{
    bool csr = insn->op >= ISA_CSRRW && insn->op <= ISA_CSRRCI;

    if (csr && !isa_csr_name(insn->imm))
        return true;  // binutils knows the CSRs of more extensions
    for (size_t i = 0; i < BASE_COUNT_OF(exceptions); i++)
        if (exceptions[i].form == insn->form && strstr(theirs, exceptions[i].theirs))
            return true;
    return false;
}

// ---- The comparison

struct line {
    uint64_t pc;
    uint32_t raw;
    char text[TEXT_BYTES];  // objdump's, without its remarks
};

// Parses "  1a:\tc1ffe0ef          \tjal\tra,fffffffffffffc38 <.text-0x3c8>".
static bool parse_line(const char *from, struct line *line)
{
    char *next;

    line->pc = strtoull(from, &next, 16);
    if (*next != ':' || next == from)
        return false;
    line->raw = strtoul(next + 1, &next, 16);
    snprintf(line->text, sizeof(line->text), "%s", next + strspn(next, " \t"));
    line->text[strcspn(line->text, "#<\n")] = 0;
    for (size_t end = strlen(line->text); end && isspace((unsigned char)line->text[end - 1]);)
        line->text[--end] = 0;
    return true;
}

// Objdump writes the targets of branches and jumps without 0x when it adds a symbol to them.
static void strip_target_prefix(const struct isa_insn *insn, char *text)
{
    char *prefix = strstr(text, "0x");

    if (isa_op_flags(insn->op) & (ISA_BRANCH | ISA_JUMP) && prefix)
        memmove(prefix, prefix + 2, strlen(prefix + 2) + 1);
}

enum outcome { SAME, EXCEPTION, DIFFERENT, OUTCOMES };

static enum outcome compare_line(const struct line *line)
{
    struct isa_insn insn;
    char ours[TEXT_BYTES];

    isa_decode(line->raw, &insn);
    isa_disassemble(&insn, line->pc, ours, sizeof(ours));
    strip_target_prefix(&insn, ours);
    if (!strcmp(ours, line->text))
        return SAME;
    if (is_exception(&insn, line->text))
        return EXCEPTION;
    print_error("%08x: objdump \"%s\", we \"%s\"\n", line->raw, line->text, ours);
    return DIFFERENT;
}

static void assemble(const char *directory, void (*emit_words)(FILE *file))
{
    char text[256];

    snprintf(text, sizeof(text), "%s/words.s", directory);
    FILE *file = fopen(text, "w");
    assert_non_null(file);
    fprintf(file, ".attribute arch, \"" ARCH "\"\n");
    emit_words(file);
    assert_int_equal(fclose(file), 0);
    snprintf(text, sizeof(text), "riscv64-linux-gnu-as -o %s/words.o %s/words.s", directory,
             directory);
    assert_int_equal(system(text), 0);
}

static void compare_with_objdump(void (*emit_words)(FILE *file))
{
    char directory[] = "/tmp/strake-isa-XXXXXX";
    char text[256];
    struct line line;
    unsigned count[OUTCOMES] = {0};

    assert_non_null(mkdtemp(directory));
    assemble(directory, emit_words);
    snprintf(text, sizeof(text), "riscv64-linux-gnu-objdump -dz -M no-aliases %s/words.o",
             directory);
    FILE *objdump = popen(text, "r");
    assert_non_null(objdump);
    while (fgets(text, sizeof(text), objdump))
        if (parse_line(text, &line))
            count[compare_line(&line)]++;
    assert_int_equal(pclose(objdump), 0);
    snprintf(text, sizeof(text), "rm -r %s", directory);
    assert_int_equal(system(text), 0);
    print_message("%u encodings the same, %u known exceptions, %u different\n", count[SAME],
                  count[EXCEPTION], count[DIFFERENT]);
    assert_true(count[SAME] > 10000);
    assert_int_equal(count[DIFFERENT], 0);
}

static void test_all_compressed(void **state)
{
    (void)state;
    compare_with_objdump(emit_all_compressed);
}

static void test_each_form(void **state)
{
    (void)state;
    compare_with_objdump(emit_each_form);
}

static void test_one_bit_off(void **state)
{
    (void)state;
    compare_with_objdump(emit_one_bit_off);
}

static void test_random_words(void **state)
{
    (void)state;
    compare_with_objdump(emit_random_words);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_compressed),
        cmocka_unit_test(test_each_form),
        cmocka_unit_test(test_one_bit_off),
        cmocka_unit_test(test_random_words),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
