// SPDX-License-Identifier: BSD-2-Clause
// A hart's state as a table of fields, for handover and snapshots.
//
// The table names fields of struct hart itself, those before mip_lines: they are loaded into a copy
// of them, are checked there, and then put into the hart as an engine does that runs others. Not
// saved is what a stopped hart has none of (an exception being raised, sleep, fences asked for:
// they are done before it runs again, and a new hart has nothing to forget), what is derived (TLBs,
// PMP ranges, the timer), and interrupt wires but MSIP, whose register is the wire: the PLIC drives
// its own.
//
// A CSR is legal when writing it to a hart gives it back, so there is no second list of masks.
#include <errno.h>
#include <string.h>

#include "hart/internal.h"

struct hart_image {
    struct hart_state registers;  // first: the table has offsets in struct hart
    bool msip;
    uint64_t mip_software, mtimecmp, time_offset;
    bool parked;
    struct hart_stats stats;
};

#define REGISTER(member, kind, max) STATE_FIELD(struct hart, member, kind, 1, max)
#define REGISTERS(member, kind, max) STATE_ARRAY(struct hart, member, kind, 1, max)
#define OTHER(member, kind, max) STATE_FIELD(struct hart_image, member, kind, 1, max)
#define COUNTER(member)                                                                            \
    {                                                                                              \
        .name = #member, .offset = offsetof(struct hart_image, stats.member), .count = 1,          \
        .type = STATE_U64, .since = 1                                                              \
    }
#define COUNTERS(member, n)                                                                        \
    {                                                                                              \
        .name = #member, .offset = offsetof(struct hart_image, stats.member), .count = n,          \
        .type = STATE_U64, .since = 1                                                              \
    }

static const struct state_field hart_fields[] = {
    REGISTERS(x, STATE_U64, 0),
    REGISTERS(f, STATE_U64, 0),
    REGISTER(pc, STATE_U64, 0),
    REGISTER(privilege, STATE_U8, HART_M),
    REGISTER(frm, STATE_U8, 7),
    REGISTER(fflags, STATE_U8, 0x1f),
    REGISTER(instret, STATE_U64, 0),
    REGISTER(traps, STATE_U64, 0),
    REGISTER(reservation_gpa, STATE_U64, 0),
    REGISTER(reservation_value, STATE_U64, 0),
    REGISTER(mstatus, STATE_U64, 0),
    REGISTER(mtvec, STATE_U64, 0),
    REGISTER(mscratch, STATE_U64, 0),
    REGISTER(mepc, STATE_U64, 0),
    REGISTER(mcause, STATE_U64, 0),
    REGISTER(mtval, STATE_U64, 0),
    REGISTER(medeleg, STATE_U64, 0),
    REGISTER(mideleg, STATE_U64, 0),
    REGISTER(mie, STATE_U64, 0),
    REGISTER(stvec, STATE_U64, 0),
    REGISTER(sscratch, STATE_U64, 0),
    REGISTER(sepc, STATE_U64, 0),
    REGISTER(scause, STATE_U64, 0),
    REGISTER(stval, STATE_U64, 0),
    REGISTER(satp, STATE_U64, 0),
    REGISTER(menvcfg, STATE_U64, 0),
    REGISTER(senvcfg, STATE_U64, 0),
    REGISTER(mcounteren, STATE_U64, 0),
    REGISTER(scounteren, STATE_U64, 0),
    REGISTER(mcountinhibit, STATE_U64, 0),
    REGISTER(mcycle_offset, STATE_U64, 0),
    REGISTER(minstret_offset, STATE_U64, 0),
    REGISTERS(pmpcfg, STATE_U8, 0),
    REGISTERS(pmpaddr, STATE_U64, 0),
    REGISTER(stimecmp, STATE_U64, 0),
    OTHER(msip, STATE_BOOL, 0),
    OTHER(mip_software, STATE_U64, 0),
    OTHER(mtimecmp, STATE_U64, 0),
    OTHER(time_offset, STATE_U64, 0),
    OTHER(parked, STATE_BOOL, 0),
    COUNTER(retired),
    COUNTERS(misses, 3),
    COUNTER(device_reads),
    COUNTER(device_writes),
    COUNTER(flushes),
    COUNTERS(exceptions, HART_CAUSES),
    COUNTERS(interrupts, HART_CAUSES),
    COUNTER(sbi_calls),
    COUNTER(sleeps),
    COUNTER(slept_ns),
    {.name = NULL},
};

// What is no CSR; those are for csrs_check, which needs a hart.
static int image_check(const void *object, const char **field, const char **why)
{
    const struct hart_image *image = object;
    const struct hart *view = hart_state_view(&image->registers);
    const uint64_t software = HART_IRQ_SSIP | HART_IRQ_STIP | HART_IRQ_SEIP;
    const struct {
        const char *field, *why;
        bool wrong;
    } rules[] = {
        {"x", "has x0 other than 0", view->x[0] != 0},
        {"pc", "is odd", view->pc & 1},
        {"privilege", "is none that a hart has", view->privilege == 2},
        {"reservation_gpa", "is not aligned",
         view->reservation_gpa != HART_NO_RESERVATION && view->reservation_gpa % 4},
        {"mip_software", "has a bit that software cannot set", image->mip_software & ~software},
    };

    for (size_t i = 0; i < BASE_COUNT_OF(rules); i++) {
        if (!rules[i].wrong)
            continue;
        *field = rules[i].field;
        *why = rules[i].why;
        return -EINVAL;
    }
    return 0;
}

static const struct state_schema hart_schema = {
    .name = "hart",
    .version = 1,
    .struct_bytes = sizeof(struct hart_image),
    .fields = hart_fields,
    .check = image_check,
};

// ---- Breakpoints: only where there are any ------------------------------------------------------

struct hart_debug {
    uint32_t count;
    uint64_t breakpoints[HART_BREAKPOINTS];
    uint64_t breakpoint_pc;
};

static const struct state_field debug_fields[] = {
    STATE_FIELD(struct hart_debug, count, STATE_U32, 1, HART_BREAKPOINTS),
    STATE_ARRAY(struct hart_debug, breakpoints, STATE_U64, 1, 0),
    STATE_FIELD(struct hart_debug, breakpoint_pc, STATE_U64, 1, 0),
    {.name = NULL},
};

static const struct state_schema debug_schema = {
    .name = "hart-debug",
    .version = 1,
    .struct_bytes = sizeof(struct hart_debug),
    .fields = debug_fields,
};

static void debug_save(const struct hart *hart, struct state_writer *writer)
{
    struct hart_debug debug = {.count = hart->breakpoint_count,
                               .breakpoint_pc = hart->breakpoint_pc};

    if (!debug.count)
        return;
    memcpy(debug.breakpoints, hart->breakpoints, debug.count * sizeof(*debug.breakpoints));
    state_write(writer, &debug_schema, hart->id, &debug);
}

static int debug_restore(struct hart *hart, struct state_reader *reader, struct error *err)
{
    struct hart_debug debug = {0};
    int rc = state_read(reader, &debug_schema, hart->id, &debug, err);

    hart->breakpoint_count = 0;
    if (rc == 0) {
        hart->breakpoint_count = debug.count;
        memcpy(hart->breakpoints, debug.breakpoints, sizeof(debug.breakpoints));
        hart->breakpoint_pc = debug.breakpoint_pc;
    }
    hart->engine->breakpoints_changed(hart, hart->engine_state);
    return rc == -ENOENT ? 0 : rc;
}

// ---- Saving and loading -------------------------------------------------------------------------

void hart_save(const struct hart *hart, struct state_writer *writer)
{
    struct hart_image image = {
        .msip = atomic_load(&hart->mip_lines) & HART_IRQ_MSIP,
        .mip_software = atomic_load(&hart->mip_software),
        .mtimecmp = atomic_load(&hart->mtimecmp),
        .time_offset = hart->time_offset,
        .parked = hart_is_parked(hart),
        .stats = hart->stats,
    };

    hart_state_save(hart, &image.registers);
    state_write(writer, &hart_schema, hart->id, &image);
    debug_save(hart, writer);
}

// In an order in which none depends on, or changes, one that comes later.
static const struct written_csr {
    uint16_t number;
    uint16_t offset;
} written[] = {
    {ISA_CSR_MTVEC, offsetof(struct hart, mtvec)},
    {ISA_CSR_MEPC, offsetof(struct hart, mepc)},
    {ISA_CSR_MEDELEG, offsetof(struct hart, medeleg)},
    {ISA_CSR_MIDELEG, offsetof(struct hart, mideleg)},
    {ISA_CSR_MIE, offsetof(struct hart, mie)},
    {ISA_CSR_STVEC, offsetof(struct hart, stvec)},
    {ISA_CSR_SEPC, offsetof(struct hart, sepc)},
    {ISA_CSR_SATP, offsetof(struct hart, satp)},
    {ISA_CSR_MENVCFG, offsetof(struct hart, menvcfg)},
    {ISA_CSR_SENVCFG, offsetof(struct hart, senvcfg)},
    {ISA_CSR_MCOUNTEREN, offsetof(struct hart, mcounteren)},
    {ISA_CSR_SCOUNTEREN, offsetof(struct hart, scounteren)},
    {ISA_CSR_MCOUNTINHIBIT, offsetof(struct hart, mcountinhibit)},
    {ISA_CSR_MSTATUS, offsetof(struct hart, mstatus)},
};

// In struct hart, or in the part of one that was loaded.
static uint64_t value_at(const void *registers, const struct written_csr *csr)
{
    return *(const uint64_t *)((const char *)registers + csr->offset);
}

static int illegal(const struct hart *hart, unsigned number, uint64_t value, struct error *err)
{
    return error_set(err, -EINVAL,
                     "cannot load section \"hart\" %u of the state: field \"%s\" is 0x%llx, which "
                     "the register cannot hold",
                     hart->id, isa_csr_name(number), (unsigned long long)value);
}

static int pmp_check(const struct hart *hart, const uint8_t *cfg, const uint64_t *addr,
                     struct error *err)
{
    for (unsigned i = 0; i < HART_PMP_ENTRIES; i++) {
        if (!hart_pmp_is_legal(cfg[i], 0))
            return illegal(hart, ISA_CSR_PMPCFG0 + i / 8 * 2, cfg[i], err);
        if (!hart_pmp_is_legal(0, addr[i]))
            return illegal(hart, ISA_CSR_PMPADDR0 + i, addr[i], err);
    }
    return 0;
}

// Writes them to the hart and looks whether it takes them. Not those of PMP, each of which would
// have the hart forget all translations: they are taken at once.
static int csrs_check(struct hart *hart, const struct hart_image *image, struct error *err)
{
    const uint8_t *loaded = image->registers.bytes, *cfg = loaded + offsetof(struct hart, pmpcfg);
    const uint64_t *addr = (const uint64_t *)(loaded + offsetof(struct hart, pmpaddr));
    int rc = pmp_check(hart, cfg, addr, err);

    for (size_t i = 0; i < BASE_COUNT_OF(written) && rc == 0; i++) {
        uint64_t value = value_at(loaded, &written[i]);
        if (hart_csr_poke(hart, written[i].number, value) < 0 ||
            value_at(hart, &written[i]) != value)
            rc = illegal(hart, written[i].number, value, err);
    }
    memcpy(hart->pmpcfg, cfg, sizeof(hart->pmpcfg));
    memcpy(hart->pmpaddr, addr, sizeof(hart->pmpaddr));
    return rc;
}

int hart_restore(struct hart *hart, struct state_reader *reader, struct error *err)
{
    struct hart_image image = {.stats = hart->stats};

    hart_state_save(hart, &image.registers);
    int rc = state_read(reader, &hart_schema, hart->id, &image, err);
    if (rc == 0)
        rc = csrs_check(hart, &image, err);
    if (rc < 0)
        return rc;
    hart_state_restore(hart, &image.registers);
    hart->time_offset = image.time_offset;
    hart->stats = image.stats;
    hart_pmp_update(hart);  // which forgets all translations
    hart->stats.flushes = image.stats.flushes;
    hart->engine->fence_i(hart, hart->engine_state);
    atomic_store(&hart->mip_software, image.mip_software);
    hart_set_lines(hart, HART_IRQ_MSIP, image.msip);
    hart_put_parked(hart, image.parked);
    hart_set_mtimecmp(hart, image.mtimecmp);  // which has the hart look at everything
    return debug_restore(hart, reader, err);
}
