// SPDX-License-Identifier: BSD-2-Clause
// What the files of this room share with each other and nobody else.
#ifndef STRAKE_HART_INTERNAL_H
#define STRAKE_HART_INTERNAL_H

#include "hart/hart.h"

#define HART_MTVEC_VECTORED 1ull

#define HART_SATP_MODE_SHIFT 60
#define HART_SATP_ASID_SHIFT 44
#define HART_SATP_ASID_MASK 0xffffull
#define HART_SATP_PPN_MASK ((1ull << 44) - 1)
enum hart_satp_mode { HART_BARE = 0, HART_SV39 = 8, HART_SV48 = 9, HART_SV57 = 10 };

// What may be done with memory; in the bit order that PMP entries and, one up, PTEs have.
enum hart_permission { HART_MAY_R = 1, HART_MAY_W = 2, HART_MAY_X = 4, HART_MAY_RWX = 7 };

// The rest of a PMP configuration byte, Privileged ISA 3.7.1.
enum hart_pmp_cfg {
    HART_PMP_A = 3 << 3,
    HART_PMP_TOR = 1 << 3,
    HART_PMP_NA4 = 2 << 3,
    HART_PMP_NAPOT = 3 << 3,
    HART_PMP_L = 1 << 7,
};

// Delegated by hart_set_supervisor_only, and all that M-mode software can delegate: every exception
// but the ecall from M-mode, every supervisor interrupt.
#define HART_MEDELEG_MASK 0xb3ffull
#define HART_MIDELEG_MASK ((uint64_t)(HART_IRQ_SSIP | HART_IRQ_STIP | HART_IRQ_SEIP))

#define HART_COUNTEREN_MASK 7ull  // cycle, time, instret: the counters there are

// ---- hart.c

// Notes something for the hart's own engine to leave the guest's code for. Own thread.
void hart_notice(struct hart *hart, unsigned attention);
// Sleeps as wfi does: until an enabled interrupt is pending, whatever else says. May return early.
void hart_wait(struct hart *hart);
// Compares the timers with the clock, and has the host's timer armed when guest code runs.
void hart_timer_refresh(struct hart *hart);

// Calls hart_flat.trap with the exception recorded.
void hart_flat_trap(struct hart *hart);

// Parks or starts a stopped hart where it is.
void hart_put_parked(struct hart *hart, bool parked);

// ---- trap.c

// Interrupts pending and enabled in mie, timers as last compared.
uint64_t hart_interrupt_pending(const struct hart *hart);
// Notices HART_ATTENTION_IRQ when an interrupt would be taken. After whatever may enable one.
void hart_interrupt_recheck(struct hart *hart);
// Takes the interrupt of the highest priority that can be taken now, if any.
void hart_interrupt_take(struct hart *hart);
// mret (from HART_M) and sret (from HART_S).
void hart_trap_return(struct hart *hart, enum hart_privilege from);

// ---- mmu.c

// Nothing is in the TLB.
void hart_mmu_init(struct hart *hart);
// Privilege of loads and stores: the hart's, or mstatus.MPP under mstatus.MPRV.
enum hart_privilege hart_mmu_privilege(const struct hart *hart);
// After satp was written: drops what another address space has no right to.
void hart_mmu_satp_changed(struct hart *hart, uint64_t old);
// Drops the translations of an address space that are not global.
void hart_mmu_flush_asid(struct hart *hart, uint64_t asid);
// The ASID of the current address space.
uint64_t hart_mmu_asid(const struct hart *hart);

// ---- flat.c: what the functions without `flat` in their names do for a flat hart

// 0, or what taking over SIGSEGV and SIGBUS failed with.
int hart_flat_init(void);
bool hart_flat_load(struct hart *hart, uint64_t gva, unsigned width_bytes, uint64_t *value);
bool hart_flat_store(struct hart *hart, uint64_t gva, unsigned width_bytes, uint64_t value);
const uint8_t *hart_flat_fetch_page(struct hart *hart, uint64_t gva, uint64_t *page_gpa);
bool hart_flat_zero_block(struct hart *hart, uint64_t block_gva);

// ---- check.c

// Nothing is known of calls.
void hart_check_init(struct hart *hart);

// An access is made at the address without identifier.
static inline uint64_t hart_check_gva(const struct hart *hart, uint64_t pointer)
{
    return hart->check ? memory_pointer_gva(pointer) : pointer;
}

// ---- pmp.c

// After pmpcfg or pmpaddr changed.
void hart_pmp_update(struct hart *hart);
// What `privilege` may do (a set of HART_MAY_*) with all of [gpa, gpa+length_bytes). Nothing when
// an entry matches only a part of it.
unsigned hart_pmp_allowed(const struct hart *hart, enum hart_privilege privilege, uint64_t gpa,
                          uint64_t length_bytes);
// Whether an entry can hold these.
bool hart_pmp_is_legal(uint8_t cfg, uint64_t addr);
// The registers as CSR writes see them; locks are respected.
void hart_pmp_write_cfg(struct hart *hart, unsigned first_entry, uint64_t value);
void hart_pmp_write_addr(struct hart *hart, unsigned entry, uint64_t value);

#endif
