// SPDX-License-Identifier: BSD-2-Clause
// The decoder: every row with random operands, immediates against the layouts as the specification
// draws them, compressed encodings against what they stand for, reserved encodings and hints; names
// and numbers of CSRs.
#include "isa/tables.h"
#include "unit.h"

#include <stdio.h>

static uint32_t next_random(uint64_t *seed)
{
    *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*seed >> 32);
}

static struct isa_insn decode(uint32_t raw)
{
    struct isa_insn insn;

    isa_decode(raw, &insn);
    return insn;
}

// ---- Rows

static bool matches(unsigned form, uint32_t raw)
{
    bool same_length = (isa_forms[form].length == 4) == ((raw & 3) == 3);

    if (isa_forms[form].length == 2)
        raw &= 0xffff;
    return same_length && (raw & isa_forms[form].mask) == isa_forms[form].match;
}

static bool is_reserved(unsigned form, uint32_t raw)
{
    const struct isa_form_info *info = &isa_forms[form];
    unsigned rounding = raw >> 12 & 7;

    if (isa_op_flags(info->op) & ISA_ROUNDS && (rounding == 5 || rounding == 6))
        return true;
    if (info->most && isa_immediate(info->immediate, raw) > info->most)
        return true;
    return info->nonzero && !(raw & info->nonzero);
}

// The slow way: of all rows that match, the one with most fixed bits.
static unsigned find_by_scan(uint32_t raw)
{
    unsigned found = ISA_FORM_ILLEGAL;

    for (unsigned form = 1; form < ISA_FORM_COUNT; form++)
        if (matches(form, raw) &&
            __builtin_popcount(isa_forms[form].mask) > __builtin_popcount(isa_forms[found].mask))
            found = form;
    return is_reserved(found, raw) ? ISA_FORM_ILLEGAL : found;
}

static void check_registers(const struct isa_insn *insn)
{
    unsigned flags = isa_op_flags(insn->op);

    if (insn->length == 2)
        return;
    assert_int_equal(insn->rd, flags & (ISA_RD | ISA_FRD) ? insn->raw >> 7 & 31 : 0);
    if (flags & (ISA_RS1 | ISA_FRS1))
        assert_int_equal(insn->rs1, insn->raw >> 15 & 31);
    assert_int_equal(insn->rs2, flags & (ISA_RS2 | ISA_FRS2) ? insn->raw >> 20 & 31 : 0);
    assert_int_equal(insn->rs3, flags & ISA_FRS3 ? insn->raw >> 27 : 0);
    if (flags & ISA_ROUNDS)
        assert_int_equal(insn->rm, insn->raw >> 12 & 7);
}

static void test_every_row(void **state)
{
    (void)state;
    uint64_t seed = 1;
    unsigned hits = 0;

    for (unsigned form = 1; form < ISA_FORM_COUNT; form++) {
        const struct isa_form_info *info = &isa_forms[form];
        unsigned own = 0;

        for (int i = 0; i < 200; i++) {
            uint32_t raw = info->match | (next_random(&seed) & ~info->mask);
            struct isa_insn insn = decode(raw);

            if (info->length == 2)
                raw &= 0xffff;
            assert_int_equal(insn.form, find_by_scan(raw));
            assert_int_equal(insn.op, isa_forms[insn.form].op);
            assert_int_equal(insn.length, info->length);
            assert_int_equal(insn.raw, raw);
            if (insn.form == form) {
                own++;
                check_registers(&insn);
            }
        }
        assert_true(own > 50);
        hits += own;
    }
    print_message("%d rows, %u encodings of them decode to their own row\n", ISA_FORM_COUNT - 1,
                  hits);
}

static void test_random_words(void **state)
{
    (void)state;
    uint64_t seed = 2;
    unsigned legal = 0;

    for (int i = 0; i < 200000; i++) {
        uint32_t raw = next_random(&seed) | (i & 1 ? 3 : 0);
        struct isa_insn insn = decode(raw);

        assert_int_equal(insn.form, find_by_scan(raw));
        assert_int_equal(insn.length, (raw & 3) == 3 ? 4 : 2);
        assert_true(insn.rd < 32 && insn.rs1 < 32 && insn.rs2 < 32 && insn.rs3 < 32);
        legal += insn.op != ISA_ILLEGAL;
    }
    print_message("200000 random words, %u legal, each as a scan of the table finds it\n", legal);
}

// ---- Immediates

// Where the specification puts an immediate's bits: "30=10:5" says that immediate bits 10 to 5 are
// in the instruction from bit 30 down.
struct layout {
    unsigned form;
    int sign_bit;  // of the immediate; -1 when unsigned
    const char *places;
};

static const struct layout layouts[] = {
    {ISA_FORM_LB, 11, "31=11:0"},
    {ISA_FORM_SB, 11, "31=11:5 11=4:0"},
    {ISA_FORM_BEQ, 12, "31=12:12 30=10:5 11=4:1 7=11:11"},
    {ISA_FORM_LUI, 31, "31=31:12"},
    {ISA_FORM_JAL, 20, "31=20:20 30=10:1 20=11:11 19=19:12"},
    {ISA_FORM_SLLI, -1, "25=5:0"},
    {ISA_FORM_SLLIW, -1, "24=4:0"},
    {ISA_FORM_CSRRW, -1, "31=11:0"},
    {ISA_FORM_AES64KS1I, -1, "23=3:0"},
    {ISA_FORM_FENCE, -1, "27=7:0"},
    {ISA_FORM_PREFETCH_R, 11, "31=11:5"},
    {ISA_FORM_C_ADDI4SPN, -1, "12=5:4 10=9:6 6=2:2 5=3:3"},
    {ISA_FORM_C_LW, -1, "12=5:3 6=2:2 5=6:6"},
    {ISA_FORM_C_LD, -1, "12=5:3 6=7:6"},
    {ISA_FORM_C_ADDI, 5, "12=5:5 6=4:0"},
    {ISA_FORM_C_LUI, 17, "12=17:17 6=16:12"},
    {ISA_FORM_C_ADDI16SP, 9, "12=9:9 6=4:4 5=6:6 4=8:7 2=5:5"},
    {ISA_FORM_C_SLLI, -1, "12=5:5 6=4:0"},
    {ISA_FORM_C_LWSP, -1, "12=5:5 6=4:2 3=7:6"},
    {ISA_FORM_C_LDSP, -1, "12=5:5 6=4:3 4=8:6"},
    {ISA_FORM_C_SWSP, -1, "12=5:2 8=7:6"},
    {ISA_FORM_C_SDSP, -1, "12=5:3 9=8:6"},
    {ISA_FORM_C_BEQZ, 8, "12=8:8 11=4:3 6=7:6 4=2:1 2=5:5"},
    {ISA_FORM_C_J, 11, "12=11:11 11=4:4 10=9:8 8=10:10 7=6:6 6=7:7 5=3:1 2=5:5"},
};

// Fills `place` with the immediate bit at each instruction bit, or -1; returns a mask of them.
static uint32_t parse_places(const char *places, int place[32])
{
    uint32_t mask = 0;
    char *next = (char *)places;

    memset(place, -1, 32 * sizeof(*place));
    while (*next) {
        long at = strtol(next, &next, 10);
        long high = strtol(next + 1, &next, 10);
        long low = strtol(next + 1, &next, 10);

        for (long bit = high; bit >= low; bit--, at--) {
            place[at] = (int)bit;
            mask |= 1u << at;
        }
    }
    return mask;
}

static void test_immediates(void **state)
{
    (void)state;
    bool seen[256] = {[0] = true};
    uint64_t seed = 3;

    for (size_t i = 0; i < BASE_COUNT_OF(layouts); i++) {
        const struct isa_form_info *info = &isa_forms[layouts[i].form];
        int place[32];
        uint32_t mask = parse_places(layouts[i].places, place);
        uint32_t others = info->match | (~info->mask & ~mask);

        seen[info->immediate] = true;
        for (int round = 0; round < 1000; round++) {
            uint32_t bits = round < 32 ? mask & 1u << round : mask & next_random(&seed);
            int64_t expected = 0;

            for (int at = 0; at < 32; at++)
                if (bits >> at & 1)
                    expected += place[at] == layouts[i].sign_bit ? -(INT64_C(1) << place[at])
                                                                 : INT64_C(1) << place[at];
            if (bits && !is_reserved(layouts[i].form, others | bits))
                assert_int_equal(decode(others | bits).imm, expected);
        }
    }
    for (unsigned form = 1; form < ISA_FORM_COUNT; form++)
        assert_true(seen[isa_forms[form].immediate]);
    print_message("%zu immediate layouts, all that there are\n", BASE_COUNT_OF(layouts));
}

// ---- Compressed encodings and what they stand for, both as the GNU assembler encodes them

static const struct {
    uint16_t compressed;
    uint32_t full;
    const char *text;
} expansions[] = {
    {0x1fe4, 0x3fc10493, "c.addi4spn s1,sp,1020"},
    {0x005c, 0x00410793, "c.addi4spn a5,sp,4"},
    {0x3fe0, 0x0f87b407, "c.fld fs0,248(a5)"},
    {0x5fe0, 0x07c7a403, "c.lw s0,124(a5)"},
    {0x641c, 0x00843783, "c.ld a5,8(s0)"},
    {0xbc7c, 0x0ef43c27, "c.fsd fa5,248(s0)"},
    {0xc324, 0x04972023, "c.sw s1,64(a4)"},
    {0xe1e8, 0x0ca5b023, "c.sd a0,192(a1)"},
    {0x0001, 0x00000013, "c.addi zero,0"},
    {0x1f81, 0xfe0f8f93, "c.addi t6,-32"},
    {0x257d, 0x01f5051b, "c.addiw a0,31"},
    {0x52fd, 0xfff00293, "c.li t0,-1"},
    {0x7101, 0xe0010113, "c.addi16sp sp,-512"},
    {0x617d, 0x1f010113, "c.addi16sp sp,496"},
    {0x7d81, 0xfffe0db7, "c.lui s11,0xfffe0"},
    {0x60fd, 0x0001f0b7, "c.lui ra,0x1f"},
    {0x93fd, 0x03f7d793, "c.srli a5,0x3f"},
    {0x9401, 0x42045413, "c.srai s0,0x20"},
    {0x98e5, 0xff94f493, "c.andi s1,-7"},
    {0x8c1d, 0x40f40433, "c.sub s0,a5"},
    {0x8d2d, 0x00b54533, "c.xor a0,a1"},
    {0x8e55, 0x00d66633, "c.or a2,a3"},
    {0x8f65, 0x00977733, "c.and a4,s1"},
    {0x9c05, 0x4094043b, "c.subw s0,s1"},
    {0x9fb9, 0x00e787bb, "c.addw a5,a4"},
    {0xb001, 0x801ff06f, "c.j 0x80000000"},
    {0xaffd, 0x7fe0006f, "c.j 0x80000ffe"},
    {0xd381, 0xf00780e3, "c.beqz a5,0x80000700"},
    {0xec7d, 0x0e041f63, "c.bnez s0,0x800008fe"},
    {0x1f86, 0x021f9f93, "c.slli t6,0x21"},
    {0x3ffe, 0x1f813f87, "c.fldsp ft11,504(sp)"},
    {0x50fe, 0x0fc12083, "c.lwsp ra,252(sp)"},
    {0x6fb2, 0x10813f83, "c.ldsp t6,264(sp)"},
    {0x8f82, 0x000f8067, "c.jr t6"},
    {0x8f86, 0x00100fb3, "c.mv t6,ra"},
    {0x9002, 0x00100073, "c.ebreak"},
    {0x9282, 0x000280e7, "c.jalr t0"},
    {0x9dfe, 0x01fd8db3, "c.add s11,t6"},
    {0xbffe, 0x1ff13c27, "c.fsdsp ft11,504(sp)"},
    {0xc37e, 0x09f12223, "c.swsp t6,132(sp)"},
    {0xe406, 0x00113423, "c.sdsp ra,8(sp)"},
};

static void test_compressed_expansions(void **state)
{
    (void)state;
    bool seen[ISA_FORM_COUNT] = {false};
    char text[64];

    for (size_t i = 0; i < BASE_COUNT_OF(expansions); i++) {
        // The upper half belongs to the next instruction.
        struct isa_insn insn = decode(expansions[i].compressed | 0xabcd0000);
        struct isa_insn full = decode(expansions[i].full);

        isa_disassemble(&insn, 0x80000800, text, sizeof(text));
        if (strchr(text, '\t'))
            *strchr(text, '\t') = ' ';
        assert_string_equal(text, expansions[i].text);
        seen[insn.form] = true;
        assert_int_equal(insn.length, 2);
        assert_int_equal(insn.raw, expansions[i].compressed);
        assert_string_equal(isa_op_name(insn.op), isa_op_name(full.op));
        assert_int_equal(insn.rd, full.rd);
        assert_int_equal(insn.rs1, full.rs1);
        assert_int_equal(insn.rs2, full.rs2);
        assert_int_equal(insn.imm, full.imm);
    }
    for (unsigned form = 1; form < ISA_FORM_COUNT; form++)
        if (isa_forms[form].length == 2 && !seen[form])
            fail_msg("no expansion of %s", isa_form_mnemonic(form));
    print_message("%zu compressed instructions equal to their expansions\n",
                  BASE_COUNT_OF(expansions));
}

// ---- Reserved encodings and hints

static void test_reserved(void **state)
{
    (void)state;
    static const uint32_t reserved[] = {
        0x0000,      // all zero
        0x0004,      // c.addi4spn s1,sp,0
        0x2001,      // c.addiw zero,0
        0x6081,      // c.lui ra,0
        0x6101,      // c.addi16sp sp,0
        0x4002,      // c.lwsp zero,0(sp)
        0x6002,      // c.ldsp zero,0(sp)
        0x8002,      // c.jr zero
        0x8000,      // quadrant 0, funct3 4
        0x9c41,      // quadrant 1, where c.subw's neighbours would be
        0x9c61,      // c.zext.b of Zcb
        0x0200101b,  // slliw with bit 5 of the shift amount
        0x0200501b,  // srliw
        0x4200501b,  // sraiw
        0x6200501b,  // roriw
        0x00005053,  // fadd.s with rounding mode 5
        0x00006053,  // fadd.s with rounding mode 6
        0x0000d043,  // fmadd.s with rounding mode 5
        0x58100053,  // fsqrt.s with rs2 = 1
        0x1010252f,  // lr.w with rs2 = 1
        0x0000052f,  // amoadd of bytes
        0x000000f3,  // ecall with rd = 1
        0x00004073,  // system, funct3 4
        0x30200073 ^ 1 << 20,
        0x0000001f,  // 48-bit encoding
        0xffffffff,
    };

    for (size_t i = 0; i < BASE_COUNT_OF(reserved); i++) {
        struct isa_insn insn = decode(reserved[i]);

        if (insn.op != ISA_ILLEGAL)
            fail_msg("%#x is %s", reserved[i], isa_form_mnemonic(insn.form));
        assert_int_equal(insn.form, ISA_FORM_ILLEGAL);
        assert_int_equal(insn.raw, reserved[i]);
    }
    print_message("%zu reserved encodings are illegal\n", BASE_COUNT_OF(reserved));
}

static void test_hints(void **state)
{
    (void)state;
    static const struct {
        uint32_t raw;
        unsigned op;
    } hints[] = {
        {0x0005, ISA_ADDI},            // c.addi zero,1
        {0x0501, ISA_ADDI},            // c.addi a0,0
        {0x4005, ISA_ADDI},            // c.li zero,1
        {0x6005, ISA_LUI},             // c.lui zero,1
        {0x8006, ISA_ADD},             // c.mv zero,ra
        {0x9006, ISA_ADD},             // c.add zero,ra
        {0x0006, ISA_SLLI},            // c.slli zero,1
        {0x8001, ISA_SRLI},            // c.srli s0,0
        {0x0100000f, ISA_PAUSE},       // fence w,none
        {0x0200000f, ISA_FENCE},       // fence r,none
        {0x8330000f, ISA_FENCE},       // fence.tso
        {0xf33f8f8f, ISA_FENCE},       // unknown fm, rd and rs1 not zero
        {0xffff9f8f, ISA_FENCE_I},     // its unused fields
        {0x00006013, ISA_PREFETCH_I},  // ori zero,zero,0
        {0xfe1fe013, ISA_PREFETCH_R},  // ori zero,t6,-31
        {0x0030e013, ISA_PREFETCH_W},  // ori zero,ra,3
        {0x00206013, ISA_ORI},         // ori zero,zero,2
        {0x00006093, ISA_ORI},         // ori ra,zero,0
    };

    for (size_t i = 0; i < BASE_COUNT_OF(hints); i++)
        assert_string_equal(isa_op_name(decode(hints[i].raw).op), isa_op_name(hints[i].op));
    assert_int_equal(decode(0x8330000f).rm, 8);
    assert_int_equal(decode(0x8330000f).imm, 0x33);
    assert_int_equal(decode(0xfe1fe013).imm, -32);
    print_message("%zu hints and ignored fields\n", BASE_COUNT_OF(hints));
}

// ---- Facts

static void test_flags(void **state)
{
    (void)state;
    assert_int_equal(isa_op_flags(ISA_ILLEGAL), 0);
    assert_int_equal(isa_op_flags(ISA_JALR), ISA_JUMP | ISA_RD | ISA_RS1);
    assert_int_equal(isa_op_flags(ISA_BEQ), ISA_BRANCH | ISA_RS1 | ISA_RS2);
    assert_int_equal(isa_op_flags(ISA_AMOADD_W),
                     ISA_LOAD | ISA_STORE | ISA_ATOMIC | ISA_RD | ISA_RS1 | ISA_RS2);
    assert_int_equal(isa_op_flags(ISA_LR_D), ISA_LOAD | ISA_ATOMIC | ISA_RD | ISA_RS1);
    assert_int_equal(isa_op_flags(ISA_FSW), ISA_STORE | ISA_FP | ISA_RS1 | ISA_FRS2);
    assert_int_equal(isa_op_flags(ISA_FMADD_D),
                     ISA_FP | ISA_ROUNDS | ISA_FRD | ISA_FRS1 | ISA_FRS2 | ISA_FRS3);
    assert_int_equal(isa_op_flags(ISA_FCVT_D_W), ISA_FP | ISA_ROUNDS | ISA_FRD | ISA_RS1);
    assert_int_equal(isa_op_flags(ISA_CSRRW), ISA_SYSTEM | ISA_RD | ISA_RS1);
    assert_int_equal(isa_op_flags(ISA_CSRRWI), ISA_SYSTEM | ISA_RD);
    assert_int_equal(isa_op_flags(ISA_SFENCE_VMA), ISA_SYSTEM | ISA_RS1 | ISA_RS2);
    assert_int_equal(isa_op_flags(ISA_CBO_ZERO), ISA_STORE | ISA_RS1);
    assert_int_equal(isa_op_flags(ISA_FENCE), 0);
}

static void test_widths(void **state)
{
    static const struct {
        enum isa_op op;
        unsigned bytes;
    } widths[] = {{ISA_LB, 1},   {ISA_LHU, 2},  {ISA_LWU, 4},       {ISA_LD, 8},       {ISA_SB, 1},
                  {ISA_SH, 2},   {ISA_SW, 4},   {ISA_SD, 8},        {ISA_FLW, 4},      {ISA_FSD, 8},
                  {ISA_LR_W, 4}, {ISA_SC_D, 8}, {ISA_AMOMAXU_W, 4}, {ISA_AMOSWAP_D, 8}};

    (void)state;
    for (size_t i = 0; i < sizeof(widths) / sizeof(widths[0]); i++)
        assert_int_equal(isa_op_access_bytes(widths[i].op), widths[i].bytes);
}

static void test_names(void **state)
{
    (void)state;
    char text[8];
    struct isa_insn insn = decode(0x0eafa52f);

    assert_string_equal(isa_op_name(insn.op), "amoswap.w");
    assert_string_equal(isa_form_mnemonic(insn.form), "amoswap.w");
    assert_string_equal(isa_form_extension(insn.form), "A");
    assert_string_equal(isa_op_name(decode(0x0501).op), "addi");
    assert_string_equal(isa_form_mnemonic(decode(0x0501).form), "c.addi");
    assert_string_equal(isa_op_name(ISA_ILLEGAL), "illegal");
    assert_string_equal(isa_op_name(ISA_OP_COUNT), "illegal");
    assert_string_equal(isa_disassemble(&insn, 0, text, sizeof(text)), "amoswap");
}

static void test_csrs(void **state)
{
    (void)state;
    unsigned count = 0;

    for (unsigned number = 0; number < 4096; number++) {
        const char *name = isa_csr_name(number);

        if (name) {
            count++;
            assert_int_equal(isa_csr_number(name), number);
        }
    }
    assert_string_equal(isa_csr_name(0x300), "mstatus");
    assert_string_equal(isa_csr_name(0xc1f), "hpmcounter31");
    assert_int_equal(ISA_CSR_PMPADDR15, 0x3bf);
    assert_int_equal(ISA_CSR_MHPMEVENT3, 0x323);
    assert_null(isa_csr_name(0x3a1));
    assert_null(isa_csr_name(4096));
    assert_int_equal(isa_csr_number("hstatus"), -ENOENT);
    print_message("%u CSRs\n", count);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_row),  cmocka_unit_test(test_random_words),
        cmocka_unit_test(test_immediates), cmocka_unit_test(test_compressed_expansions),
        cmocka_unit_test(test_reserved),   cmocka_unit_test(test_hints),
        cmocka_unit_test(test_flags),      cmocka_unit_test(test_widths),
        cmocka_unit_test(test_names),      cmocka_unit_test(test_csrs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
