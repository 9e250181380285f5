// SPDX-License-Identifier: BSD-2-Clause
// What CSRs hold: fields that are read-only, legal values, views of one another.
// Privileged ISA sections 3.1 and 10.1.
#include "firmware.h"

#define MSTATUS_UBE (1ull << 6)
#define MSTATUS_VS (3ull << 9)
#define MSTATUS_XS (3ull << 15)
#define MSTATUS_UXL (3ull << 32)
#define MSTATUS_SXL (3ull << 34)
#define MSTATUS_SBE_MBE (3ull << 36)
#define SSTATUS_SEEN                                                                               \
    (MSTATUS_SIE | MSTATUS_SPIE | MSTATUS_SPP | MSTATUS_FS | MSTATUS_SUM | MSTATUS_MXR |           \
     MSTATUS_UXL | MSTATUS_SD)
#define MISA(letter) BIT((letter) - 'A')

STUB(read_mscratch, "csrr a0, mscratch");
STUB(write_scause, "csrw scause, a0\ncsrr a1, scause");

static void test_machine_information(void)
{
    uint64_t misa = csr_read(misa), wanted = MISA('I') | MISA('M') | MISA('A') | MISA('F') |
                                             MISA('D') | MISA('C') | MISA('S') | MISA('U');

    group("misa, mhartid");
    check("MXL", misa >> 62, 2);
    check("extensions", misa & wanted, wanted);
    check("E", misa & MISA('E'), 0);
    csr_write(misa, misa & ~wanted);
    csr_write(misa, misa);
    check("misa again", csr_read(misa), misa);
    check("mhartid", csr_read(mhartid), 0);
    // Readable, whatever they are.
    (void)csr_read(mvendorid);
    (void)csr_read(marchid);
    (void)csr_read(mimpid);
    (void)csr_read(mconfigptr);
}

static void test_mstatus(void)
{
    uint64_t before = csr_read(mstatus), value;

    group("mstatus");
    for (unsigned mode = 0; mode < 4; mode++) {
        csr_write(mstatus, (before & ~MSTATUS_MPP) | (uint64_t)mode << 11);
        value = (csr_read(mstatus) & MSTATUS_MPP) >> 11;
        check("MPP", mode == 2 ? value != 2 : value == mode, true);
    }
    csr_write(mstatus, before | MSTATUS_UXL | MSTATUS_SXL | MSTATUS_SBE_MBE | MSTATUS_UBE |
                           MSTATUS_XS | MSTATUS_VS);
    value = csr_read(mstatus);
    check("UXL, SXL", value & (MSTATUS_UXL | MSTATUS_SXL), 2ull << 32 | 2ull << 34);
    check("little-endian only", value & (MSTATUS_UBE | MSTATUS_SBE_MBE), 0);
    check("no vectors, no other state", value & (MSTATUS_VS | MSTATUS_XS), 0);
    // Bits that can be set and cleared one by one.
    static const uint64_t bits[] = {MSTATUS_SIE, MSTATUS_SPIE, MSTATUS_MPIE,
                                    MSTATUS_SPP, MSTATUS_SUM,  MSTATUS_MXR,
                                    MSTATUS_TVM, MSTATUS_TW,   MSTATUS_TSR};
    for (size_t i = 0; i < COUNT_OF(bits); i++) {
        csr_clear(mstatus, bits[i]);
        check("cleared", csr_read(mstatus) & bits[i], 0);
        csr_set(mstatus, bits[i]);
        check("set", csr_read(mstatus) & bits[i], bits[i]);
        csr_clear(mstatus, bits[i]);
    }
    csr_clear(mstatus, MSTATUS_FS);
    check("FS Off: SD", csr_read(mstatus) & MSTATUS_SD, 0);
    csr_set(mstatus, MSTATUS_FS);
    check("FS Dirty: SD", csr_read(mstatus) & MSTATUS_SD, MSTATUS_SD);
    csr_write(mstatus, before);
}

// sstatus is mstatus with less of it.
static void test_sstatus(void)
{
    uint64_t before = csr_read(mstatus);

    group("sstatus");
    csr_set(mstatus, MSTATUS_TVM | MSTATUS_TW | MSTATUS_TSR | MSTATUS_MPIE | MSTATUS_MPP);
    check("hidden", csr_read(sstatus) & ~SSTATUS_SEEN, 0);
    csr_write(sstatus, 0);
    check("M's part stays",
          csr_read(mstatus) & (MSTATUS_TVM | MSTATUS_TW | MSTATUS_TSR | MSTATUS_MPIE | MSTATUS_MPP),
          MSTATUS_TVM | MSTATUS_TW | MSTATUS_TSR | MSTATUS_MPIE | MSTATUS_MPP);
    csr_clear(mstatus, MSTATUS_TVM | MSTATUS_TW | MSTATUS_TSR | MSTATUS_MPIE | MSTATUS_MPP);
    csr_write(sstatus, -1ull);
    check("seen", csr_read(sstatus) & SSTATUS_SEEN, (SSTATUS_SEEN & ~MSTATUS_UXL) | 2ull << 32);
    check("same in mstatus", csr_read(mstatus) & SSTATUS_SEEN, csr_read(sstatus) & SSTATUS_SEEN);
    check("nothing of M's",
          csr_read(mstatus) & (MSTATUS_MIE | MSTATUS_MPIE | MSTATUS_MPP | MSTATUS_MPRV |
                               MSTATUS_TVM | MSTATUS_TW | MSTATUS_TSR),
          0);
    csr_write(mstatus, before);
}

static void test_addresses(void)
{
    static const uint64_t values[] = {0, 1, 2, 3, 0x80000002, -1ull, 0x123456789abcdef3};
    uint64_t mtvec = csr_read(mtvec), value;

    group("trap addresses");
    for (size_t i = 0; i < COUNT_OF(values); i++) {
        csr_write(mepc, values[i]);
        check("mepc", csr_read(mepc), values[i] & ~1ull);
        csr_write(sepc, values[i]);
        check("sepc", csr_read(sepc), values[i] & ~1ull);
        csr_write(mtval, values[i]);
        check("mtval", csr_read(mtval), values[i]);
        csr_write(stval, values[i]);
        check("stval", csr_read(stval), values[i]);
        csr_write(sscratch, values[i]);
        check("sscratch", csr_read(sscratch), values[i]);
        csr_write(stvec, values[i]);
        value = csr_read(stvec);
        check("stvec: mode", (value & 3) < 2, true);
        if ((values[i] & 3) < 2)
            check("stvec", value, values[i]);
        csr_write(mtvec, values[i]);
        value = csr_swap(mtvec, mtvec);
        check("mtvec: mode", (value & 3) < 2, true);
    }
    static const uint64_t causes[] = {0,
                                      CAUSE_ILLEGAL,
                                      CAUSE_STORE_PAGE,
                                      CAUSE_IRQ(IRQ_SSI),
                                      CAUSE_IRQ(IRQ_STI),
                                      CAUSE_IRQ(IRQ_SEI)};
    for (size_t i = 0; i < COUNT_OF(causes); i++) {
        check("scause", run(MODE_S, write_scause, causes[i], 0).a[1], causes[i]);
        csr_write(mcause, causes[i]);
        check("mcause", csr_read(mcause), causes[i]);
    }
    check_cause("mscratch in S", run(MODE_S, read_mscratch, 0, 0), CAUSE_ILLEGAL);
}

static void test_delegation(void)
{
    uint64_t may = BIT(CAUSE_FETCH_ACCESS) | BIT(CAUSE_ILLEGAL) | BIT(CAUSE_BREAKPOINT) |
                   BIT(CAUSE_LOAD_MISALIGNED) | BIT(CAUSE_LOAD_ACCESS) |
                   BIT(CAUSE_STORE_MISALIGNED) | BIT(CAUSE_STORE_ACCESS) | BIT(CAUSE_ECALL_U) |
                   BIT(CAUSE_ECALL_S) | BIT(CAUSE_FETCH_PAGE) | BIT(CAUSE_LOAD_PAGE) |
                   BIT(CAUSE_STORE_PAGE);

    group("medeleg, mideleg");
    csr_write(medeleg, -1ull);
    check("medeleg", csr_read(medeleg) & 0xffff & ~BIT(CAUSE_FETCH_MISALIGNED), may);
    csr_write(medeleg, 0);
    check("medeleg", csr_read(medeleg), 0);
    csr_write(mideleg, -1ull);
    check("mideleg", csr_read(mideleg) & 0xfff, BIT(IRQ_SSI) | BIT(IRQ_STI) | BIT(IRQ_SEI));
    csr_write(mideleg, 0);
    check("mideleg", csr_read(mideleg), 0);
}

// A satp with a mode that is not there changes nothing.
static void test_satp(void)
{
    group("satp");
    for (unsigned mode = 0; mode < 16; mode++) {
        uint64_t value = (uint64_t)mode << 60 | 0x80000;

        csr_write(satp, 0);
        if (mode)
            csr_write(satp, value);
        check("mode", csr_read(satp), mode == 8 || mode == 9 || mode == 10 ? value : 0);
    }
    csr_write(satp, 8ull << 60 | 0x80001);
    csr_write(satp, 15ull << 60 | 0x80002);
    check("the old one stays", csr_read(satp), 8ull << 60 | 0x80001);
    csr_write(satp, 0);
}

static void test_environment(void)
{
    uint64_t menvcfg;

    group("menvcfg, senvcfg");
    csr_write(menvcfg, -1ull);
    menvcfg = csr_read(menvcfg);
    check("FIOM, CBIE, CBCFE, CBZE, ADUE, PBMTE, STCE", menvcfg & (0xf1 | 7ull << 61),
          0xf1 | 7ull << 61);
    check("reserved", menvcfg & 0x0e, 0);
    csr_write(senvcfg, -1ull);
    check("senvcfg", csr_read(senvcfg), 0xf1);
    csr_write(menvcfg, 0);
    csr_write(senvcfg, 0);
    check("menvcfg", csr_read(menvcfg), 0);
    csr_write(mcounteren, -1ull);
    check("mcounteren is 32 bits", csr_read(mcounteren) >> 32, 0);
    csr_write(scounteren, -1ull);
    check("scounteren is 32 bits", csr_read(scounteren) >> 32, 0);
    csr_write(mcounteren, 0);
    csr_write(scounteren, 0);
}

void test_main(void)
{
    test_machine_information();
    test_mstatus();
    test_sstatus();
    test_addresses();
    test_delegation();
    test_satp();
    test_environment();
}
