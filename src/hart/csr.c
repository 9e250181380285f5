// SPDX-License-Identifier: BSD-2-Clause
// Control and status registers. The table at the end says of each one in csrs.tbl how it reads and
// what a write changes; one without a row there reads as zero and ignores writes.
#include <errno.h>

#include "hart/internal.h"

#define MASK_ALL UINT64_MAX
#define MASK_TVEC (~2ull)  // modes 2 and 3 are reserved
#define MASK_EPC (~1ull)
#define MASK_COUNTINHIBIT 5ull   // cycle, instret
#define COUNTER_CYCLE (1u << 0)  // bits of mcountinhibit
#define COUNTER_INSTRET (1u << 2)
#define FFLAGS_MASK 0x1fu
#define FRM_MASK 7u
#define FRM_SHIFT 5

#define MSTATUS_MASK                                                                               \
    (HART_SSTATUS_MASK | HART_MSTATUS_MIE | HART_MSTATUS_MPIE | HART_MSTATUS_MPP |                 \
     HART_MSTATUS_MPRV | HART_MSTATUS_TVM | HART_MSTATUS_TW | HART_MSTATUS_TSR)
#define SENVCFG_MASK (HART_ENVCFG_FIOM | HART_ENVCFG_CBIE | HART_ENVCFG_CBCFE | HART_ENVCFG_CBZE)
#define MENVCFG_MASK (SENVCFG_MASK | HART_ENVCFG_ADUE | HART_ENVCFG_PBMTE | HART_ENVCFG_STCE)
#define MIE_MASK (HART_MIDELEG_MASK | (uint64_t)(HART_IRQ_MSIP | HART_IRQ_MTIP | HART_IRQ_MEIP))

#define MISA_LETTER(letter) (1ull << ((letter) - 'A'))
#define MISA                                                                                       \
    (2ull << 62 | MISA_LETTER('I') | MISA_LETTER('M') | MISA_LETTER('A') | MISA_LETTER('F') |      \
     MISA_LETTER('D') | MISA_LETTER('C') | MISA_LETTER('S') | MISA_LETTER('U'))

struct csr {
    // The register is the uint64_t at this offset in struct hart, and a write changes the bits of
    // `mask`; unless there are functions for it. Offset 0, where no CSR is: reads as zero. `old` is
    // what was read before the write.
    uint16_t offset;
    uint64_t mask;
    uint64_t (*read)(const struct hart *hart, unsigned number);
    void (*write)(struct hart *hart, unsigned number, uint64_t old, uint64_t value);
    // Whether the hart may access it, beyond what the number says; NULL: yes.
    bool (*allowed)(const struct hart *hart, unsigned number);
};

static uint64_t merge(uint64_t old, uint64_t value, uint64_t mask)
{
    return (old & ~mask) | (value & mask);
}

// ---- Floating point, Unprivileged ISA 20.2

static bool fp_on(const struct hart *hart, unsigned number)
{
    (void)number;
    return hart->mstatus & HART_MSTATUS_FS;
}

static uint64_t read_fflags(const struct hart *hart, unsigned number)
{
    (void)number;
    return hart->fflags;
}

static uint64_t read_frm(const struct hart *hart, unsigned number)
{
    (void)number;
    return hart->frm;
}

static uint64_t read_fcsr(const struct hart *hart, unsigned number)
{
    (void)number;
    return (uint64_t)hart->frm << FRM_SHIFT | hart->fflags;
}

static void write_fcsr(struct hart *hart, unsigned number, uint64_t old, uint64_t value)
{
    (void)old;
    if (number != ISA_CSR_FRM)
        hart->fflags = value & FFLAGS_MASK;
    if (number != ISA_CSR_FFLAGS)
        hart->frm = (number == ISA_CSR_FRM ? value : value >> FRM_SHIFT) & FRM_MASK;
    hart->mstatus |= HART_MSTATUS_FS;
}

// ---- Counters, Privileged ISA 3.1.10 to 3.1.12

static bool counter_allowed(const struct hart *hart, unsigned number)
{
    unsigned bit = number & 31;

    return hart->privilege == HART_M ||
           ((hart->mcounteren >> bit & 1) &&
            (hart->privilege == HART_S || (hart->scounteren >> bit & 1)));
}

static unsigned counter_bit(unsigned number)
{
    return 1u << (number & 31);
}

static uint64_t read_counter(const struct hart *hart, unsigned number)
{
    uint64_t offset =
        counter_bit(number) == COUNTER_CYCLE ? hart->mcycle_offset : hart->minstret_offset;

    return hart->mcountinhibit & counter_bit(number) ? offset : hart->instret + offset;
}

static void write_counter(struct hart *hart, unsigned number, uint64_t old, uint64_t value)
{
    uint64_t *offset =
        counter_bit(number) == COUNTER_CYCLE ? &hart->mcycle_offset : &hart->minstret_offset;

    (void)old;
    *offset = hart->mcountinhibit & counter_bit(number) ? value : value - hart->instret;
}

static void write_mcountinhibit(struct hart *hart, unsigned number, uint64_t old, uint64_t value)
{
    (void)number;
    value &= MASK_COUNTINHIBIT;
    uint64_t stopped = value & ~old, started = old & ~value;

    if (stopped & COUNTER_CYCLE)
        hart->mcycle_offset += hart->instret;
    if (stopped & COUNTER_INSTRET)
        hart->minstret_offset += hart->instret;
    if (started & COUNTER_CYCLE)
        hart->mcycle_offset -= hart->instret;
    if (started & COUNTER_INSTRET)
        hart->minstret_offset -= hart->instret;
    hart->mcountinhibit = value;
}

static uint64_t read_time(const struct hart *hart, unsigned number)
{
    (void)number;
    return hart_time(hart);
}

// Sstc 1.0 chapter 2: for S-mode, stimecmp is there only when both M-mode registers agree.
static bool stimecmp_allowed(const struct hart *hart, unsigned number)
{
    (void)number;
    return hart->privilege == HART_M ||
           ((hart->menvcfg & HART_ENVCFG_STCE) && counter_allowed(hart, ISA_CSR_TIME));
}

static void write_stimecmp(struct hart *hart, unsigned number, uint64_t old, uint64_t value)
{
    (void)number;
    (void)old;
    hart_set_stimecmp(hart, value);
}

// ---- Status, Privileged ISA 3.1.6, 4.1.1

static uint64_t read_mstatus(const struct hart *hart, unsigned number)
{
    bool dirty = (hart->mstatus & HART_MSTATUS_FS) == HART_MSTATUS_FS;

    (void)number;
    return hart->mstatus | (dirty ? HART_MSTATUS_SD : 0);
}

static uint64_t read_sstatus(const struct hart *hart, unsigned number)
{
    return read_mstatus(hart, number) & (HART_SSTATUS_MASK | HART_MSTATUS_UXL | HART_MSTATUS_SD);
}

// MPP holds U, S or M: a write of the fourth value leaves it.
static uint64_t legal_mpp(uint64_t old, uint64_t value)
{
    const uint64_t reserved = HART_MSTATUS_MPP & (HART_MSTATUS_MPP << 1);

    return (value & HART_MSTATUS_MPP) == reserved ? merge(value, old, HART_MSTATUS_MPP) : value;
}

static void write_mstatus(struct hart *hart, unsigned number, uint64_t old, uint64_t value)
{
    uint64_t mask = number == ISA_CSR_SSTATUS ? HART_SSTATUS_MASK : MSTATUS_MASK;

    hart->mstatus = merge(hart->mstatus, legal_mpp(old, value), mask);
    if ((hart->mstatus ^ old) & HART_MSTATUS_MXR)
        hart_mmu_flush(hart);
    hart_mmu_update(hart);
    hart_interrupt_recheck(hart);
}

static uint64_t read_misa(const struct hart *hart, unsigned number)
{
    (void)hart;
    (void)number;
    return MISA;
}

static uint64_t read_mhartid(const struct hart *hart, unsigned number)
{
    (void)number;
    return hart->id;
}

// ---- Interrupts, Privileged ISA 3.1.8, 3.1.9, 4.1.3

static void write_mideleg(struct hart *hart, unsigned number, uint64_t old, uint64_t value)
{
    (void)number;
    (void)old;
    hart->mideleg = value & HART_MIDELEG_MASK;
    hart_interrupt_recheck(hart);
}

static uint64_t read_sie(const struct hart *hart, unsigned number)
{
    (void)number;
    return hart->mie & hart->mideleg;
}

static void write_mie(struct hart *hart, unsigned number, uint64_t old, uint64_t value)
{
    (void)old;
    hart->mie = merge(hart->mie, value, number == ISA_CSR_SIE ? hart->mideleg : MIE_MASK);
    hart_timer_refresh(hart);
    hart_interrupt_recheck(hart);
}

static uint64_t read_mip(const struct hart *hart, unsigned number)
{
    (void)number;
    return hart_mip(hart);
}

static uint64_t read_sip(const struct hart *hart, unsigned number)
{
    (void)number;
    return hart_mip(hart) & hart->mideleg;
}

// Only bits that the write changes are touched: other harts set SSIP meanwhile.
static void write_mip(struct hart *hart, unsigned number, uint64_t old, uint64_t value)
{
    uint64_t mask = HART_IRQ_SSIP & hart->mideleg;

    if (number == ISA_CSR_MIP)
        mask =
            HART_IRQ_SSIP | HART_IRQ_SEIP | (hart->menvcfg & HART_ENVCFG_STCE ? 0 : HART_IRQ_STIP);
    atomic_fetch_and(&hart->mip_software, ~(old & ~value & mask));
    atomic_fetch_or(&hart->mip_software, value & ~old & mask);
    hart_interrupt_recheck(hart);
}

// ---- Environment, Privileged ISA 3.1.18, 4.1.10

// CBIE's value 2 is reserved: a write of it leaves the field.
static uint64_t legal_envcfg(uint64_t old, uint64_t value, uint64_t mask)
{
    const uint64_t reserved = HART_ENVCFG_CBIE & (HART_ENVCFG_CBIE << 1);

    if ((value & HART_ENVCFG_CBIE) == reserved)
        mask &= ~HART_ENVCFG_CBIE;
    return merge(old, value, mask);
}

static void write_senvcfg(struct hart *hart, unsigned number, uint64_t old, uint64_t value)
{
    (void)number;
    hart->senvcfg = legal_envcfg(old, value, SENVCFG_MASK);
}

static void write_menvcfg(struct hart *hart, unsigned number, uint64_t old, uint64_t value)
{
    (void)number;
    hart->menvcfg = legal_envcfg(old, value, MENVCFG_MASK);
    if ((hart->menvcfg ^ old) & (HART_ENVCFG_ADUE | HART_ENVCFG_PBMTE))
        hart_mmu_flush(hart);
    hart_timer_refresh(hart);
    hart_interrupt_recheck(hart);
}

// ---- Translation and protection, Privileged ISA 3.7, 4.1.11

static bool satp_allowed(const struct hart *hart, unsigned number)
{
    (void)number;
    return hart->privilege == HART_M || !(hart->mstatus & HART_MSTATUS_TVM);
}

// A write with an unsupported MODE has no effect at all.
static void write_satp(struct hart *hart, unsigned number, uint64_t old, uint64_t value)
{
    uint64_t mode = value >> HART_SATP_MODE_SHIFT;

    (void)number;
    if (mode != HART_BARE && (mode < HART_SV39 || mode > HART_SV39 + hart->mmu_levels - 3u))
        return;
    hart->satp = value;
    hart_mmu_satp_changed(hart, old);
}

static unsigned pmpcfg_entry(unsigned number)
{
    return (number - ISA_CSR_PMPCFG0) * 4;
}

static uint64_t read_pmpcfg(const struct hart *hart, unsigned number)
{
    uint64_t value = 0;

    for (unsigned i = 0; i < 8; i++)
        value |= (uint64_t)hart->pmpcfg[pmpcfg_entry(number) + i] << (8 * i);
    return value;
}

static void write_pmpcfg(struct hart *hart, unsigned number, uint64_t old, uint64_t value)
{
    (void)old;
    hart_pmp_write_cfg(hart, pmpcfg_entry(number), value);
}

static uint64_t read_pmpaddr(const struct hart *hart, unsigned number)
{
    return hart->pmpaddr[number - ISA_CSR_PMPADDR0];
}

static void write_pmpaddr(struct hart *hart, unsigned number, uint64_t old, uint64_t value)
{
    (void)old;
    hart_pmp_write_addr(hart, number - ISA_CSR_PMPADDR0, value);
}

// ---- The table

enum slot {
    SLOT_ABSENT,
#define ISA_X(id, ...) SLOT_##id,
    ISA_CSR_LIST(ISA_X)
#undef ISA_X
        SLOT_COUNT
};

static const uint8_t slots[4096] = {
#define ISA_X(id, number, ...) [number] = SLOT_##id,
    ISA_CSR_LIST(ISA_X)
#undef ISA_X
};
_Static_assert(SLOT_COUNT <= UINT8_MAX, "a slot number fits a byte");

#define PLAIN(field, mask_bits) .offset = offsetof(struct hart, field), .mask = (mask_bits)

static const struct csr csrs[SLOT_COUNT] = {
    [SLOT_FFLAGS] = {.read = read_fflags, .write = write_fcsr, .allowed = fp_on},
    [SLOT_FRM] = {.read = read_frm, .write = write_fcsr, .allowed = fp_on},
    [SLOT_FCSR] = {.read = read_fcsr, .write = write_fcsr, .allowed = fp_on},
    [SLOT_CYCLE] = {.read = read_counter, .allowed = counter_allowed},
    [SLOT_TIME] = {.read = read_time, .allowed = counter_allowed},
    [SLOT_INSTRET] = {.read = read_counter, .allowed = counter_allowed},
    [SLOT_HPMCOUNTER3... SLOT_HPMCOUNTER31] = {.allowed = counter_allowed},

    [SLOT_SSTATUS] = {.read = read_sstatus, .write = write_mstatus},
    [SLOT_SIE] = {.read = read_sie, .write = write_mie},
    [SLOT_STVEC] = {PLAIN(stvec, MASK_TVEC)},
    [SLOT_SCOUNTEREN] = {PLAIN(scounteren, HART_COUNTEREN_MASK)},
    [SLOT_SENVCFG] = {PLAIN(senvcfg, 0), .write = write_senvcfg},
    [SLOT_SSCRATCH] = {PLAIN(sscratch, MASK_ALL)},
    [SLOT_SEPC] = {PLAIN(sepc, MASK_EPC)},
    [SLOT_SCAUSE] = {PLAIN(scause, MASK_ALL)},
    [SLOT_STVAL] = {PLAIN(stval, MASK_ALL)},
    [SLOT_SIP] = {.read = read_sip, .write = write_mip},
    [SLOT_STIMECMP] = {PLAIN(stimecmp, 0), .write = write_stimecmp, .allowed = stimecmp_allowed},
    [SLOT_SATP] = {PLAIN(satp, 0), .write = write_satp, .allowed = satp_allowed},

    [SLOT_MSTATUS] = {.read = read_mstatus, .write = write_mstatus},
    [SLOT_MISA] = {.read = read_misa},
    [SLOT_MEDELEG] = {PLAIN(medeleg, HART_MEDELEG_MASK)},
    [SLOT_MIDELEG] = {PLAIN(mideleg, 0), .write = write_mideleg},
    [SLOT_MIE] = {PLAIN(mie, 0), .write = write_mie},
    [SLOT_MTVEC] = {PLAIN(mtvec, MASK_TVEC)},
    [SLOT_MCOUNTEREN] = {PLAIN(mcounteren, HART_COUNTEREN_MASK)},
    [SLOT_MENVCFG] = {PLAIN(menvcfg, 0), .write = write_menvcfg},
    [SLOT_MCOUNTINHIBIT] = {PLAIN(mcountinhibit, 0), .write = write_mcountinhibit},
    [SLOT_MSCRATCH] = {PLAIN(mscratch, MASK_ALL)},
    [SLOT_MEPC] = {PLAIN(mepc, MASK_EPC)},
    [SLOT_MCAUSE] = {PLAIN(mcause, MASK_ALL)},
    [SLOT_MTVAL] = {PLAIN(mtval, MASK_ALL)},
    [SLOT_MIP] = {.read = read_mip, .write = write_mip},
    [SLOT_PMPCFG0] = {.read = read_pmpcfg, .write = write_pmpcfg},
    [SLOT_PMPCFG2] = {.read = read_pmpcfg, .write = write_pmpcfg},
    [SLOT_PMPADDR0... SLOT_PMPADDR15] = {.read = read_pmpaddr, .write = write_pmpaddr},
    [SLOT_MCYCLE] = {.read = read_counter, .write = write_counter},
    [SLOT_MINSTRET] = {.read = read_counter, .write = write_counter},
    [SLOT_MARCHID] = {PLAIN(host.marchid, 0)},
    [SLOT_MHARTID] = {.read = read_mhartid},
};

// ---- Access

static const struct csr *find(unsigned number)
{
    unsigned slot = number < BASE_COUNT_OF(slots) ? slots[number] : SLOT_ABSENT;

    return slot == SLOT_ABSENT ? NULL : &csrs[slot];
}

static bool read_only(unsigned number)
{
    return number >> 10 == 3;
}

static uint64_t *field(struct hart *hart, const struct csr *csr)
{
    return (uint64_t *)((char *)hart + csr->offset);
}

static uint64_t get(struct hart *hart, const struct csr *csr, unsigned number)
{
    if (csr->read)
        return csr->read(hart, number);
    return csr->offset ? *field(hart, csr) : 0;
}

static void set(struct hart *hart, const struct csr *csr, unsigned number, uint64_t old,
                uint64_t value)
{
    if (csr->write)
        csr->write(hart, number, old, value);
    else if (csr->offset)
        *field(hart, csr) = merge(old, value, csr->mask);
}

// 3.1.9: SEIP reads as the software's bit or the PLIC's line, but set and clear start from the
// software's bit alone.
static uint64_t without_line(const struct hart *hart, uint64_t value)
{
    return merge(value, atomic_load(&hart->mip_software), HART_IRQ_SEIP);
}

bool hart_csr(struct hart *hart, enum isa_op kind, unsigned number, bool read, bool write,
              uint64_t operand, uint32_t raw, uint64_t *old)
{
    const struct csr *csr = find(number);

    if (hart->tap && hart->tap->csr)
        return hart->tap->csr(hart, kind, number, read, write, operand, raw, old);
    if (!csr || (number >> 8 & 3) > hart->privilege || (write && read_only(number)) ||
        (csr->allowed && !csr->allowed(hart, number)))
        return hart_raise(hart, HART_CAUSE_ILLEGAL, raw);
    uint64_t value = get(hart, csr, number);
    if (read)
        *old = value;
    if (!write)
        return true;
    if (number == ISA_CSR_MIP)
        value = without_line(hart, value);
    if (kind == ISA_CSRRS)
        operand = value | operand;
    else if (kind == ISA_CSRRC)
        operand = value & ~operand;
    // The instruction that writes a counter does not count in it (3.1.10), so that the next one
    // reads what was written: the write comes after the count.
    hart->instret++;
    set(hart, csr, number, value, operand);
    hart->instret--;
    return true;
}

int hart_csr_peek(struct hart *hart, unsigned number, uint64_t *value)
{
    const struct csr *csr = find(number);

    if (!csr)
        return -ENOENT;
    *value = get(hart, csr, number);
    return 0;
}

int hart_csr_poke(struct hart *hart, unsigned number, uint64_t value)
{
    const struct csr *csr = find(number);

    if (!csr)
        return -ENOENT;
    if (read_only(number))
        return -EACCES;
    uint64_t old = get(hart, csr, number);
    if (number == ISA_CSR_MIP)
        old = without_line(hart, old);
    set(hart, csr, number, old, value);
    return 0;
}
