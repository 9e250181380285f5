// SPDX-License-Identifier: BSD-2-Clause
// The generator accepts the room's own tables and refuses broken ones with file, line and reason,
// leaving nothing behind.
#include "unit.h"

#include <stdbool.h>
#include <stdio.h>
#include <unistd.h>

#define GENERATOR STRAKE_SOURCE_DIR "/tools/isa-gen.py"

// The two tables, and what is wrong with them.
static const struct {
    const char *instructions, *csrs, *complaint;
} broken[] = {
    {"add  I  0000000 ttttt sssss 000 ddddd 0110011  -  rd,rs1,rs2\n", "",
     "instructions.tbl:1: expected 6 columns, found 5"},
    {"# a comment\n\nadd  I  000000 ttttt sssss 000 ddddd 0110011  -  rd,rs1,rs2  -\n", "",
     "instructions.tbl:3: encoding is not 16 or 32"},
    {"add  I  0000000 ttttt sssss 000 ddddd 0110001  -  rd,rs1,rs2  -\n", "",
     "instructions.tbl:1: the low two bits do not agree with the length"},
    {"add  I  00000000 tttt sssss 000 ddddd 0110011  -  rd,rs1,rs2  -\n", "",
     "instructions.tbl:1: register \"t\" has 4 bits"},
    {"add  I  t000000 0tttt sssss 000 ddddd 0110011  -  rd,rs1,rs2  -\n", "",
     "instructions.tbl:1: the bits of \"t\" are not contiguous"},
    {"add  I  0000000 ttttt sssss 000 ddddd 0110011  -  rd,rs1  -\n", "",
     "instructions.tbl:1: operands show"},
    {"add  I  0000000 ttttt sssss 000 ddddd 0110011  -  rd,rs1,rs2  quick\n", "",
     "instructions.tbl:1: unknown note \"quick\""},
    {"add  I  0000000 ttttt sssss 000 ddddd 0110011  x  rd,rs1,rs2  -\n", "",
     "instructions.tbl:1: unknown immediate layout \"x\""},
    {"addi  I  iiiiiiiiiiii sssss 000 ddddd 0010011  -  rd,rs1,imm  -\n", "",
     "instructions.tbl:1: the encoding has an immediate"},
    {"immediate i  signed  31:21\naddi  I  iiiiiiiiiiii sssss 000 ddddd 0010011  i  rd,rs1,imm  "
     "-\n",
     "", "instructions.tbl:2: \"i\" does not lie where the encoding has its i bits"},
    {"immediate i  signed  31:20 25\n", "", "instructions.tbl:1: bits 25:25 are out of order"},
    {"immediate i  maybe  31:20\n", "", "instructions.tbl:1: expected \"immediate NAME"},
    {"immediate i  signed  31:20\n", "", "immediate layouts that no row uses"},
    {"add  I  0000000 ttttt sssss 000 ddddd 0110011  -  rd,rs1,rs2  -\n"
     "odd  X  0000000 00001 sssss 000 ddddd 0110011  -  rd,rs1  -\n",
     "", "instructions.tbl:2: \"odd\" overlaps \"add\""},
    {"add  I  0000000 ttttt sssss 000 ddddd 0110011  -  rd,rs1,rs2  -\n"
     "odd  X  0000001 00001 sssss 000 ddddd 0110011  -  rd,rs1  over add\n",
     "", "instructions.tbl:2: is not a special case of \"add\""},
    {"add  I  0000000 ttttt sssss 000 ddddd 0110011  -  rd,rs1,rs2  -\n"
     "add  X  0000001 ttttt sssss 000 ddddd 0110011  -  rd,rs1,rs2  -\n",
     "", "instructions.tbl:2: \"add\" is also"},
    {"c.mv  C  100 0 ddddd ttttt 10  -  rd,rs2  is add rd,x0,rs2\n", "",
     "instructions.tbl:1: no operation \"add\""},
    {"add  I  0000000 ttttt sssss 000 ddddd 0110011  -  rd,rs1,rs2  -\n"
     "c.mv  C  100 0 ddddd ttttt 10  -  rd,rs2  is add rd,rs2\n",
     "", "instructions.tbl:2: \"rd,rs2\" does not fit \"rd,rs1,rs2\""},
    {"", "0x300  mstatus  Sm\n", "csrs.tbl:1: expected \"0xNNN  NAME"},
    {"", "0x300  mstatus  Sm  one\n0x300  other  Sm  two\n", "csrs.tbl:2: number or name"},
    {"", "0x300  reg{0..3}  Sm  four\n0x302  other  Sm  two\n", "csrs.tbl:2: number or name"},
    {"", "0x300  mstatus  Sm  one\n0x301  mstatus  Sm  two\n", "csrs.tbl:2: number or name"},
};

static void write_file(const char *directory, const char *name, const char *text)
{
    char path[128];

    snprintf(path, sizeof(path), "%s/%s", directory, name);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    assert_int_equal(fclose(file), 0);
}

// Runs the generator on tables in `from` with output in `to`; fills `output` with what it says.
static int run_generator(const char *from, const char *to, char *output, size_t output_bytes)
{
    char command[1024];

    snprintf(command, sizeof(command),
             "python3 %s %s/instructions.tbl %s/csrs.tbl %s/isa.h %s/isa.c 2>&1", GENERATOR, from,
             from, to, to);
    FILE *generator = popen(command, "r");
    assert_non_null(generator);
    output[fread(output, 1, output_bytes - 1, generator)] = 0;
    return pclose(generator);
}

static bool has_output(const char *directory)
{
    char path[128];

    snprintf(path, sizeof(path), "%s/isa.h", directory);
    return access(path, F_OK) == 0;
}

static void make_directory(char *template)
{
    assert_non_null(mkdtemp(template));
}

static void remove_directory(const char *directory)
{
    char command[128];

    snprintf(command, sizeof(command), "rm -r %s", directory);
    assert_int_equal(system(command), 0);
}

static void test_own_tables(void **state)
{
    (void)state;
    char directory[] = "/tmp/strake-isa-XXXXXX", output[1024];

    make_directory(directory);
    int status = run_generator(STRAKE_SOURCE_DIR "/src/isa", directory, output, sizeof(output));
    assert_string_equal(output, "");
    assert_int_equal(status, 0);
    assert_true(has_output(directory));
    remove_directory(directory);
}

static void test_broken_tables(void **state)
{
    (void)state;
    char directory[] = "/tmp/strake-isa-XXXXXX", output[1024];

    make_directory(directory);
    for (size_t i = 0; i < sizeof(broken) / sizeof(broken[0]); i++) {
        write_file(directory, "instructions.tbl", broken[i].instructions);
        write_file(directory, "csrs.tbl", broken[i].csrs);
        int status = run_generator(directory, directory, output, sizeof(output));
        if (!strstr(output, broken[i].complaint))
            fail_msg("expected \"%s\", got \"%s\"", broken[i].complaint, output);
        assert_int_not_equal(status, 0);
        assert_false(has_output(directory));
    }
    remove_directory(directory);
    print_message("%zu broken tables refused\n", sizeof(broken) / sizeof(broken[0]));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_own_tables),
        cmocka_unit_test(test_broken_tables),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
