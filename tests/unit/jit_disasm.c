// SPDX-License-Identifier: BSD-2-Clause
// Disassembly of host code.
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "jit/disasm.h"
#include "jit/x64.h"

static void test_instructions(void **state)
{
    static const uint8_t code[] = {0x48, 0x8b, 0x45, 0x10, 0xe9, 0xfb, 0x0f, 0, 0, 0x06, 0xc3};
    static const struct {
        size_t length;
        const char *text;
    } expected[] = {
        {4, "mov rax, [rbp+0x10]"},
        {5, "jmp 0x2004"},
        {1, "(bad)"},
        {1, "ret"},
    };
    char text[JIT_DISASM_TEXT_BYTES];
    size_t at = 0;

    (void)state;
    for (size_t i = 0; i < BASE_COUNT_OF(expected); i++) {
        size_t length =
            jit_disasm_insn(code + at, sizeof(code) - at, 0x1000 + at, text, sizeof(text));

        print_message("%s\n", text);
        assert_int_equal(length, expected[i].length);
        assert_string_equal(text, expected[i].text);
        at += length;
    }
    assert_int_equal(at, sizeof(code));
    assert_int_equal(jit_disasm_insn(code, 0, 0, text, sizeof(text)), 0);
}

// An instruction that the buffer cuts off is bad, byte by byte, and nothing behind it is read.
static void test_cut(void **state)
{
    static const uint8_t code[] = {0x48, 0x8b};
    char text[4];

    (void)state;
    assert_int_equal(jit_disasm_insn(code, sizeof(code), 0, text, sizeof(text)), 1);
    assert_string_equal(text, "(ba");
}

static void test_listing(void **state)
{
    uint8_t code[64];
    struct x64 x64 = {.out = code, .end = code + sizeof(code)};
    char *listing;
    size_t bytes;
    FILE *out = open_memstream(&listing, &bytes);

    (void)state;
    x64_mov_imm(&x64, X64_RAX, 0x123456789abcdef0);
    x64_rr(&x64, X64_ADD | X64_W, X64_RBX, X64_R14);
    x64_test_mem_imm(&x64, X64_RBP, 0x12345678, 0x01020304);
    jit_disasm_host(out, code, (size_t)(x64.out - code), 0x7f0012340000);
    fclose(out);
    print_message("%s", listing);
    assert_string_equal(
        listing, "7f0012340000:  48 b8 f0 de bc 9a 78 56 34 12  mov rax, 0x123456789abcdef0\n"
                 "7f001234000a:  49 03 de                       add rbx, r14\n"
                 "7f001234000d:  f7 85 78 56 34 12 04 03 02 01  test dword ptr [rbp+0x12345678], "
                 "0x1020304\n");
    free(listing);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_instructions),
        cmocka_unit_test(test_cut),
        cmocka_unit_test(test_listing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
