// SPDX-License-Identifier: BSD-2-Clause
// The built-in supervisor execution environment. Source: RISC-V SBI 2.0; chapter numbers are its.
//
// Everything is called on the calling hart's thread, and holds no lock: a hart's own calls are the
// only ones it makes, and what reaches other harts goes through the hart room's functions for any
// thread. All addresses and masks are the guest's and are checked here.
#include <errno.h>
#include <stdlib.h>
#include <strake/guest.h>
#include <string.h>
#ifdef STRAKE_SYSCALL_HOOK
#include <unistd.h>
#endif

#include "machine/board.h"

#define SBI_SPEC_VERSION (2u << 24 | 0u)
// Chapter 4.9 lists the registered implementation identifiers, small numbers; ours is not one of
// them: "STRK".
#define SBI_IMPLEMENTATION_ID 0x5354524bu

enum sbi_error {  // chapter 3
    SBI_SUCCESS = 0,
    SBI_ERR_NOT_SUPPORTED = -2,
    SBI_ERR_INVALID_PARAM = -3,
    SBI_ERR_INVALID_ADDRESS = -5,
    SBI_ERR_ALREADY_AVAILABLE = -6,
    SBI_NO_ANSWER = 1,  // ours: the call does not return to its caller
};

enum sbi_hart_state { SBI_HART_STARTED = 0, SBI_HART_STOPPED = 1, SBI_HART_SUSPENDED = 4 };

#define SBI_SUSPEND_RETENTIVE 0u
#define SBI_SUSPEND_NON_RETENTIVE 0x80000000u
#define SBI_CONSOLE_MAX_BYTES 1024u  // moved in one call; the caller goes on with the rest

enum { SBI_A0 = 10, SBI_A1 = 11, SBI_A6 = 16, SBI_A7 = 17 };  // registers

struct sbi_request {
    struct machine *machine;
    struct hart *hart;
    uint64_t args[6];
    uint64_t value;  // of the answer, when there is no error
};

struct sbi_function {
    uint32_t extension, function;
    int64_t (*call)(struct sbi_request *request);
};

// Harts named by a mask and its base (section 3.1).
struct sbi_harts {
    struct hart *harts[HART_MAX];
    size_t count;
};

static int64_t mask_decode(const struct sbi_request *request, uint64_t mask, uint64_t base,
                           struct sbi_harts *set)
{
    const struct machine *machine = request->machine;

    set->count = 0;
    if (base == UINT64_MAX) {
        mask = (1u << machine->hart_count) - 1;
        base = 0;
    }
    if (base >= machine->hart_count)
        return SBI_ERR_INVALID_PARAM;
    for (; mask; mask &= mask - 1) {
        uint64_t bit = (uint64_t)__builtin_ctzll(mask);
        if (bit >= machine->hart_count - base)
            return SBI_ERR_INVALID_PARAM;
        set->harts[set->count++] = machine->harts[base + bit];
    }
    return SBI_SUCCESS;
}

// ---- Base, chapter 4 ----------------------------------------------------------------------------

uint64_t sbi_version_pack(const char *version)
{
    uint64_t packed = 0;
    char *end = (char *)version;

    for (int i = 0; i < 3; i++) {
        packed = packed << 8 | (strtoul(end, &end, 10) & 0xff);
        end += *end == '.';
    }
    return packed;
}

static int64_t base_spec_version(struct sbi_request *request)
{
    request->value = SBI_SPEC_VERSION;
    return SBI_SUCCESS;
}

static int64_t base_implementation_id(struct sbi_request *request)
{
    request->value = SBI_IMPLEMENTATION_ID;
    return SBI_SUCCESS;
}

static int64_t base_implementation_version(struct sbi_request *request)
{
    request->value = sbi_version_pack(request->machine->config.version);
    return SBI_SUCCESS;
}

static int64_t base_csr(struct sbi_request *request, unsigned number)
{
    return hart_csr_peek(request->hart, number, &request->value) == 0 ? SBI_SUCCESS
                                                                      : SBI_ERR_NOT_SUPPORTED;
}

static int64_t base_mvendorid(struct sbi_request *request)
{
    return base_csr(request, ISA_CSR_MVENDORID);
}

static int64_t base_marchid(struct sbi_request *request)
{
    return base_csr(request, ISA_CSR_MARCHID);
}

static int64_t base_mimpid(struct sbi_request *request)
{
    return base_csr(request, ISA_CSR_MIMPID);
}

static int64_t base_probe(struct sbi_request *request);  // reads the table below

// ---- Timer, chapter 6 ---------------------------------------------------------------------------

static int64_t time_set_timer(struct sbi_request *request)
{
    hart_set_stimecmp(request->hart, request->args[0]);
    return SBI_SUCCESS;
}

// ---- Inter-processor interrupts and fences, chapters 7 and 8 ------------------------------------

static int64_t ipi_send(struct sbi_request *request)
{
    struct sbi_harts set;
    int64_t error = mask_decode(request, request->args[0], request->args[1], &set);

    for (size_t i = 0; i < set.count && !error; i++)
        hart_raise_software(set.harts[i], HART_IRQ_SSIP);
    return error;
}

static int64_t fence_on(struct sbi_request *request, unsigned fences)
{
    struct sbi_harts set;
    int64_t error = mask_decode(request, request->args[0], request->args[1], &set);

    if (!error && set.count)
        hart_fence_remote(request->hart, set.harts, set.count, fences);
    return error;
}

static int64_t rfence_instructions(struct sbi_request *request)
{
    return fence_on(request, HART_FENCE_I);
}

// With and without an ASID: a fence on everything is a fence on the range that was asked for.
static int64_t rfence_vma(struct sbi_request *request)
{
    return fence_on(request, HART_FENCE_VMA);
}

// ---- Hart state management, chapter 9 -----------------------------------------------------------

static int64_t hsm_start(struct sbi_request *request)
{
    struct machine *machine = request->machine;
    uint64_t id = request->args[0], start_gpa = request->args[1];

    if (id >= machine->hart_count)
        return SBI_ERR_INVALID_PARAM;
    if (start_gpa % 2 || !memory_ram_hva(machine->memory, start_gpa, 2))
        return SBI_ERR_INVALID_ADDRESS;
    return hart_start(machine->harts[id], start_gpa, id, request->args[2]) == 0
               ? SBI_SUCCESS
               : SBI_ERR_ALREADY_AVAILABLE;
}

static int64_t hsm_stop(struct sbi_request *request)
{
    hart_park(request->hart);
    return SBI_NO_ANSWER;
}

static int64_t hsm_status(struct sbi_request *request)
{
    const struct machine *machine = request->machine;
    uint64_t id = request->args[0];

    if (id >= machine->hart_count)
        return SBI_ERR_INVALID_PARAM;
    if (hart_is_parked(machine->harts[id]))
        request->value = SBI_HART_STOPPED;
    else if (atomic_load(&machine->suspended) >> id & 1)
        request->value = SBI_HART_SUSPENDED;
    else
        request->value = SBI_HART_STARTED;
    return SBI_SUCCESS;
}

// Sleeps as wfi does, and like it may end early: the supervisor looks at what woke it (table 9.2).
static void suspend(struct sbi_request *request)
{
    struct hart *hart = request->hart;
    const struct isa_insn wfi = {.op = ISA_WFI, .length = 4};
    uint64_t pc = hart->pc;

    atomic_fetch_or(&request->machine->suspended, 1u << hart->id);
    hart_system(hart, &wfi);
    atomic_fetch_and(&request->machine->suspended, ~(1u << hart->id));
    hart->pc = pc;
}

// The hart goes on at `pc` as hart_start would have started it.
static void resume_at(struct hart *hart, uint64_t pc, uint64_t opaque)
{
    hart->pc = pc;
    hart->satp = 0;
    hart->mstatus &= ~HART_MSTATUS_SIE;
    hart_mmu_flush(hart);
    hart_mmu_update(hart);
    hart->x[SBI_A0] = hart->id;
    hart->x[SBI_A1] = opaque;
}

static int64_t hsm_suspend(struct sbi_request *request)
{
    uint64_t resume_gpa = request->args[1];

    switch ((uint32_t)request->args[0]) {
    case SBI_SUSPEND_RETENTIVE:
        suspend(request);
        return SBI_SUCCESS;
    case SBI_SUSPEND_NON_RETENTIVE:
        if (resume_gpa % 2 || !memory_ram_hva(request->machine->memory, resume_gpa, 2))
            return SBI_ERR_INVALID_ADDRESS;
        suspend(request);
        resume_at(request->hart, resume_gpa, request->args[2]);
        return SBI_NO_ANSWER;
    default:
        // Table 9.3: the platform's own types start here; those below are reserved.
        return (request->args[0] & 0x7fffffffu) >= 0x10000000u ? SBI_ERR_NOT_SUPPORTED
                                                               : SBI_ERR_INVALID_PARAM;
    }
}

// ---- System reset, chapter 10 -------------------------------------------------------------------

static int64_t reset_system(struct sbi_request *request)
{
    static const enum machine_event events[] = {
        MACHINE_POWEROFF,  // shutdown
        MACHINE_REBOOT,    // cold
        MACHINE_REBOOT,    // warm
    };
    const struct machine_host *host = &request->machine->host;
    uint32_t type = (uint32_t)request->args[0], reason = (uint32_t)request->args[1];

    if (type >= 0xf0000000u)  // table 10.1: a vendor's; we have none
        return SBI_ERR_NOT_SUPPORTED;
    if (type >= BASE_COUNT_OF(events) || (reason > 1 && reason < 0xe0000000u))
        return SBI_ERR_INVALID_PARAM;
    hart_park(request->hart);
    host->event(host->opaque, events[type], 0);
    return SBI_NO_ANSWER;
}

// ---- Debug console, chapter 12 ------------------------------------------------------------------

// The memory that a call names, cut to what one call moves; NULL when it is not all RAM.
static void *console_memory(const struct sbi_request *request, size_t *count)
{
    uint64_t length_bytes = request->args[0];

    if (request->args[2] != 0)  // the address's upper 64 bits
        return NULL;
    *count = length_bytes < SBI_CONSOLE_MAX_BYTES ? length_bytes : SBI_CONSOLE_MAX_BYTES;
    return memory_ram_hva(request->machine->memory, request->args[1], length_bytes);
}

static int64_t console_write(struct sbi_request *request)
{
    uint8_t bytes[SBI_CONSOLE_MAX_BYTES];
    size_t count;

    if (request->args[0] == 0)
        return SBI_SUCCESS;
    const void *memory = console_memory(request, &count);
    if (!memory)
        return SBI_ERR_INVALID_PARAM;
    memcpy(bytes, memory, count);
    console_switch_output(&request->machine->console, CONSOLE_SBI, bytes, count);
    request->value = count;
    return SBI_SUCCESS;
}

static int64_t console_read(struct sbi_request *request)
{
    struct console_switch *console = &request->machine->console;
    size_t count;

    if (request->args[0] == 0)
        return SBI_SUCCESS;
    void *memory = console_memory(request, &count);
    if (!memory)
        return SBI_ERR_INVALID_PARAM;
    request->value = console_switch_take(console, CONSOLE_SBI, memory, count);
    console_switch_tell_room(console);
    return SBI_SUCCESS;
}

static int64_t console_write_byte(struct sbi_request *request)
{
    uint8_t byte = (uint8_t)request->args[0];

    console_switch_output(&request->machine->console, CONSOLE_SBI, &byte, 1);
    return SBI_SUCCESS;
}

// ---- What there is ------------------------------------------------------------------------------

enum sbi_extension {
    SBI_BASE = 0x10,
    SBI_TIME = 0x54494d45,
    SBI_IPI = 0x735049,
    SBI_RFENCE = 0x52464e43,
    SBI_HSM = 0x48534d,
    SBI_SRST = 0x53525354,
    SBI_DBCN = 0x4442434e,
};

// The fences for a hypervisor's guests (RFENCE 3 to 6) are not here: the harts have no H extension.
// ---- A hook for one test ------------------------------------------------------------------------

#ifdef STRAKE_SYSCALL_HOOK
// Makes a guest what it would be if it had taken its monitor over: any function of this extension
// is the system call of that number, on the hart's thread, with guest-physical addresses in
// arguments replaced by the host's. Never in a build that anybody uses: tests/system/meson.build.
#define SBI_HOOK 0x09535953u

static int64_t hook_call(struct sbi_request *request)
{
    long args[6];

    for (size_t i = 0; i < BASE_COUNT_OF(args); i++) {
        void *hva = memory_ram_hva(request->machine->memory, request->args[i], 1);
        args[i] = hva ? (long)(uintptr_t)hva : (long)request->args[i];
    }
    long result = syscall((long)request->hart->x[SBI_A6], args[0], args[1], args[2], args[3],
                          args[4], args[5]);
    request->value = (uint64_t)(result < 0 ? -errno : result);
    return SBI_SUCCESS;
}
#endif

static const struct sbi_function functions[] = {
    {SBI_BASE, 0, base_spec_version},
    {SBI_BASE, 1, base_implementation_id},
    {SBI_BASE, 2, base_implementation_version},
    {SBI_BASE, 3, base_probe},
    {SBI_BASE, 4, base_mvendorid},
    {SBI_BASE, 5, base_marchid},
    {SBI_BASE, 6, base_mimpid},
    {SBI_TIME, 0, time_set_timer},
    {SBI_IPI, 0, ipi_send},
    {SBI_RFENCE, 0, rfence_instructions},
    {SBI_RFENCE, 1, rfence_vma},
    {SBI_RFENCE, 2, rfence_vma},
    {SBI_HSM, 0, hsm_start},
    {SBI_HSM, 1, hsm_stop},
    {SBI_HSM, 2, hsm_status},
    {SBI_HSM, 3, hsm_suspend},
    {SBI_SRST, 0, reset_system},
    {SBI_DBCN, 0, console_write},
    {SBI_DBCN, 1, console_read},
    {SBI_DBCN, 2, console_write_byte},
};

static const struct sbi_function *function_find(uint32_t extension, uint32_t function)
{
    for (size_t i = 0; i < BASE_COUNT_OF(functions); i++) {
        if (functions[i].extension == extension && functions[i].function == function)
            return &functions[i];
    }
    return NULL;
}

static int64_t base_probe(struct sbi_request *request)
{
    request->value = function_find((uint32_t)request->args[0], 0) != NULL;
    return SBI_SUCCESS;
}

void sbi_call(void *opaque, struct hart *hart)
{
    struct sbi_request request = {.machine = opaque, .hart = hart};
    const struct sbi_function *function =
        function_find((uint32_t)hart->x[SBI_A7], (uint32_t)hart->x[SBI_A6]);

#ifdef STRAKE_SYSCALL_HOOK
    static const struct sbi_function hook = {SBI_HOOK, 0, hook_call};
    if (hart->x[SBI_A7] == SBI_HOOK)
        function = &hook;
#endif

    memcpy(request.args, &hart->x[SBI_A0], sizeof(request.args));
    int64_t error = function ? function->call(&request) : SBI_ERR_NOT_SUPPORTED;
    if (error == SBI_NO_ANSWER)
        return;
    hart->x[SBI_A0] = (uint64_t)error;
    hart->x[SBI_A1] = error ? 0 : request.value;
}

// ---- Checked programs: docs/firmware.md ---------------------------------------------------------

// Also firmware that has an SBI of its own need not know of the extension: whoever is asked for it,
// the answer is ours.
static bool probes_guest(const struct hart *hart)
{
    return hart->x[SBI_A7] == SBI_BASE && hart->x[SBI_A6] == 3 &&
           hart->x[SBI_A0] == STRAKE_GUEST_EXTENSION;
}

bool sbi_guest_call(void *opaque, struct hart *hart)
{
    const struct machine *machine = opaque;
    const struct machine_guest *guest = &machine->config.guest;
    const uint64_t arguments[] = {hart->x[SBI_A0], hart->x[SBI_A1]};
    uint64_t value = 0;
    int64_t error = SBI_SUCCESS;

    if (probes_guest(hart))
        value = 1;
    else if (hart->x[SBI_A7] == STRAKE_GUEST_EXTENSION)
        error = guest->call(guest->opaque, hart, hart->x[SBI_A6], arguments, &value);
    else
        return false;
    hart->x[SBI_A0] = (uint64_t)error;
    hart->x[SBI_A1] = error ? 0 : value;
    return true;
}
