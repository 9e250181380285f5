// SPDX-License-Identifier: BSD-2-Clause
// A hart's life: creation and reset, the run loop, sleeping and waking, the timer, remote fences.
//
// Attention. Whoever wants a hart to look up sets bits in `attention`; engines return when it is
// not zero, and attend() takes the bits and looks at what they stand for. Bits are set after what
// they announce (an interrupt line, a fence request, a new compare value) was stored, and taken
// before it is read, both by sequentially consistent operations: so what attend() reads is at least
// as new as the notices it took, and what comes later sets a bit again.
//
// Sleep (wfi, parked) loses no wake-up, because `attention` itself is the futex word: a sleeper
// takes the bits, looks for a reason not to sleep, and has the kernel put it to sleep only if
// `attention` is still zero, which the kernel checks under the lock that wakers take. `sleeping`
// only spares wakers the system call: the sleeper sets it before the kernel looks at `attention`,
// the waker sets `attention` before it looks at `sleeping`; with sequential consistency one of them
// sees the other.
//
// Parking. HART_PARKING: this hart asked for it and is on its way out of the guest's code;
// HART_PARKED: its thread touches no architectural state, so hart_start, having claimed the hart by
// HART_STARTING, may write it from another thread; HART_STARTED releases what it wrote.
#include <errno.h>
#include <immintrin.h>
#include <linux/futex.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "hart/internal.h"

#ifndef sigev_notify_thread_id
#define sigev_notify_thread_id _sigev_un._tid
#endif

#define NEVER UINT64_MAX
#define NS_PER_SECOND 1000000000u
#define NS_PER_TICK (NS_PER_SECOND / HART_TIME_HZ)
#define NO_BREAKPOINT 1ull  // no instruction has an odd address
#define FENCE_SPINS 64      // a running hart mostly answers within a block

enum park { HART_STARTED, HART_PARKING, HART_PARKED, HART_STARTING };

// ---- Futexes

static void futex_wait(atomic_uint *word, unsigned expected, uint64_t timeout_ns)
{
    struct timespec timeout = {.tv_sec = (time_t)(timeout_ns / NS_PER_SECOND),
                               .tv_nsec = (long)(timeout_ns % NS_PER_SECOND)};

    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, expected, timeout_ns == NEVER ? NULL : &timeout,
            NULL, 0);
}

static void futex_wake_all(atomic_uint *word)
{
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT32_MAX, NULL, NULL, 0);
}

// ---- Attention

void hart_notice(struct hart *hart, unsigned attention)
{
    atomic_fetch_or(&hart->attention, attention);
}

static void notify(struct hart *hart, unsigned attention)
{
    hart_notice(hart, attention);
    if (atomic_load(&hart->sleeping))
        futex_wake_all(&hart->attention);
}

// Takes all notices but HART_ATTENTION_STOP, which stays for hart_run.
static unsigned take_notices(struct hart *hart)
{
    unsigned taken = atomic_fetch_and(&hart->attention, HART_ATTENTION_STOP);

    if (taken & HART_ATTENTION_TIMER)
        hart->timer_armed_ns = NEVER;
    return taken;
}

void hart_poke(struct hart *hart)
{
    hart_notice(hart, HART_ATTENTION_POKE);
}

void hart_stop(struct hart *hart)
{
    notify(hart, HART_ATTENTION_STOP);
}

void hart_set_lines(struct hart *hart, uint64_t bits, bool level)
{
    if (!level)
        atomic_fetch_and(&hart->mip_lines, ~bits);
    else if (bits & ~atomic_fetch_or(&hart->mip_lines, bits))
        notify(hart, HART_ATTENTION_IRQ);
}

void hart_raise_software(struct hart *hart, uint64_t bits)
{
    if (bits & ~atomic_fetch_or(&hart->mip_software, bits))
        notify(hart, HART_ATTENTION_IRQ);
}

void hart_set_mtimecmp(struct hart *hart, uint64_t ticks)
{
    atomic_store(&hart->mtimecmp, ticks);
    notify(hart, HART_ATTENTION_IRQ);
}

// ---- Time
//
// Deadlines are kept by one POSIX timer, whose signal does no more than set HART_ATTENTION_TIMER.
// It is set to an earlier time when an earlier deadline comes up; a later one lets it fire in vain,
// which costs less than setting it each time. A sleeping hart does not arm it, its sleep has a
// time-out. The clock that deadlines are compared with is the host's;
// the timer is set to differences, so that any clock will do in tests.

static uint64_t clock_ns(const struct hart *hart)
{
    return hart->host.clock_ns(hart->host.opaque);
}

uint64_t hart_time(const struct hart *hart)
{
    return clock_ns(hart) / NS_PER_TICK - hart->time_offset;
}

// When, on the host's clock, `ticks` of guest time from now will have passed.
static uint64_t deadline_ns(uint64_t now_ns, uint64_t ticks)
{
    uint64_t tick = now_ns / NS_PER_TICK;

    return ticks >= NEVER / NS_PER_TICK - tick ? NEVER : (tick + ticks) * NS_PER_TICK;
}

static void compare(struct hart *hart, enum hart_irq irq, uint64_t now, uint64_t at,
                    uint64_t *next_ticks)
{
    if (now >= at)
        hart->timer_pending |= irq;
    else if ((hart->mie & irq) && at - now < *next_ticks)
        *next_ticks = at - now;
}

// Compares the timers with the clock at `now_ns`. Returns the next deadline of those enabled, or
// NEVER.
static uint64_t compare_timers(struct hart *hart, uint64_t now_ns)
{
    uint64_t now = now_ns / NS_PER_TICK - hart->time_offset;
    uint64_t next_ticks = NEVER;

    hart->timer_pending = 0;
    compare(hart, HART_IRQ_MTIP, now, atomic_load(&hart->mtimecmp), &next_ticks);
    if (hart->menvcfg & HART_ENVCFG_STCE)
        compare(hart, HART_IRQ_STIP, now, hart->stimecmp, &next_ticks);
    return deadline_ns(now_ns, next_ticks);
}

static void on_timer_signal(int signal, siginfo_t *info, void *context)
{
    struct hart *hart = info->si_value.sival_ptr;

    (void)signal;
    (void)context;
    hart_notice(hart, HART_ATTENTION_TIMER);
}

// A timer for the thread that is in hart_run, for as long as it is. Without one (the host is out of
// signal resources) deadlines are noticed only when something else has the hart look.
static void create_timer(struct hart *hart)
{
    struct sigaction action = {.sa_sigaction = on_timer_signal,
                               .sa_flags = SA_SIGINFO | SA_RESTART};
    struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID,
                             .sigev_signo = HART_TIMER_SIGNAL,
                             .sigev_value.sival_ptr = hart};
    sigset_t set;

    event.sigev_notify_thread_id = gettid();
    sigemptyset(&action.sa_mask);
    sigemptyset(&set);
    sigaddset(&set, HART_TIMER_SIGNAL);
    hart->timer_ready = sigaction(HART_TIMER_SIGNAL, &action, NULL) == 0 &&
                        pthread_sigmask(SIG_UNBLOCK, &set, NULL) == 0 &&
                        timer_create(CLOCK_MONOTONIC, &event, &hart->timer) == 0;
    if (!hart->timer_ready)
        log_line(LOG_WARN, "hart %u: no host timer (%s): its timer interrupts will be late",
                 hart->id, strerror(errno));
}

// After this no signal comes: one that was sent is delivered before timer_delete returns.
static void delete_timer(struct hart *hart)
{
    if (hart->timer_ready)
        timer_delete(hart->timer);
    hart->timer_ready = false;
    hart->timer_armed_ns = NEVER;
}

static void set_timer(struct hart *hart, uint64_t delay_ns)
{
    struct itimerspec when = {.it_value.tv_sec = (time_t)(delay_ns / NS_PER_SECOND),
                              .it_value.tv_nsec = (long)(delay_ns % NS_PER_SECOND)};

    timer_settime(hart->timer, 0, &when, NULL);
}

void hart_timer_refresh(struct hart *hart)
{
    uint64_t now_ns = clock_ns(hart);
    uint64_t at_ns = compare_timers(hart, now_ns);

    if (!hart->timer_ready || at_ns >= hart->timer_armed_ns)
        return;
    set_timer(hart, at_ns - now_ns);
    hart->timer_armed_ns = at_ns;
}

void hart_set_stimecmp(struct hart *hart, uint64_t ticks)
{
    hart->stimecmp = ticks;
    hart_timer_refresh(hart);
    hart_interrupt_recheck(hart);
}

// ---- Fences
//
// A fence on another hart has to be over, when hart_fence_remote returns, only as far as that
// hart's guest code can tell: a hart that does not execute (asleep, parked, stopped, waiting for a
// fence itself) performs it before it executes again, and nobody waits for it. So two harts that
// fence each other do not wait for each other.
//
// The requester stores its request and then reads `executing`; the target stores `executing` and
// then reads requests; all sequentially consistent: either the requester sees a hart that does not
// execute, or the target sees the request, when it enters or leaves or by its notice.

// The count is read before the bits, which requesters set before they count: so every request that
// is declared done here has been, though one may be done here and declared so the next time.
static void perform_fences(struct hart *hart)
{
    unsigned asked = atomic_load(&hart->fences_asked), bits;

    if (BASE_LIKELY(asked == atomic_load(&hart->fences_done)))
        return;
    bits = atomic_exchange(&hart->fence_bits, 0);
    if (bits & HART_FENCE_VMA)
        hart_mmu_flush(hart);
    if (bits & HART_FENCE_I)
        hart->engine->fence_i(hart, hart->engine_state);
    atomic_store(&hart->fences_done, asked);
    if (atomic_load(&hart->fence_waiters))
        futex_wake_all(&hart->fences_done);
}

bool hart_stop_executing(struct hart *hart)
{
    bool executing = atomic_exchange(&hart->executing, false);

    perform_fences(hart);
    return executing;
}

void hart_resume_executing(struct hart *hart, bool executing)
{
    atomic_store(&hart->executing, executing);
    perform_fences(hart);
}

static void ask_fences(struct hart *hart, unsigned fences)
{
    atomic_fetch_or(&hart->fence_bits, fences);
    atomic_fetch_add(&hart->fences_asked, 1);
    if (atomic_load(&hart->executing))
        hart_notice(hart, HART_ATTENTION_FENCE);
}

// Waits until all that was asked of `hart` so far is done, or has no need to be yet.
static void await_fences(struct hart *hart)
{
    unsigned asked = atomic_load(&hart->fences_asked), done;

    if (!atomic_load(&hart->executing))
        return;
    atomic_fetch_add(&hart->fence_waiters, 1);
    for (unsigned spins = 0; done = atomic_load(&hart->fences_done), (int)(done - asked) < 0;)
        if (spins++ < FENCE_SPINS)
            _mm_pause();
        else
            futex_wait(&hart->fences_done, done, NEVER);
    atomic_fetch_sub(&hart->fence_waiters, 1);
}

void hart_fence_remote(struct hart *self, struct hart *const *harts, size_t count, unsigned fences)
{
    bool executing = self && hart_stop_executing(self);

    for (size_t i = 0; i < count; i++)
        ask_fences(harts[i], fences);
    for (size_t i = 0; i < count; i++)
        if (harts[i] != self)
            await_fences(harts[i]);
    if (self)
        hart_resume_executing(self, executing);
}

// ---- Questions
//
// Who asks stores the question and then reads `inside`; the hart's thread stores `inside` and then
// looks for a question; all sequentially consistent. So either the asker sees a hart that is not
// inside, or the thread sees the question, when it enters, leaves or by its notice. Whoever takes
// the question answers it; a thread that enters meanwhile waits.

enum ask { ASK_NONE, ASK_POSTED, ASK_TAKEN };

static bool take_ask(struct hart *hart)
{
    unsigned posted = ASK_POSTED;

    return atomic_compare_exchange_strong(&hart->ask, &posted, ASK_TAKEN);
}

static void answer(struct hart *hart)
{
    if (!take_ask(hart))
        return;
    hart->ask_fn(hart, hart->ask_opaque);
    atomic_store(&hart->ask, ASK_NONE);
    futex_wake_all(&hart->ask);
}

static void enter_inside(struct hart *hart)
{
    atomic_store(&hart->inside, true);
    answer(hart);
    while (atomic_load(&hart->ask) == ASK_TAKEN)
        futex_wait(&hart->ask, ASK_TAKEN, NEVER);
}

static void leave_inside(struct hart *hart)
{
    atomic_store(&hart->inside, false);
    answer(hart);
}

// Waits while the question is in `state`; false when that took too long.
static bool await_ask(struct hart *hart, enum ask state, uint64_t timeout_ns)
{
    uint64_t end_ns = clock_monotonic_ns() + timeout_ns;

    while (atomic_load(&hart->ask) == state) {
        uint64_t now_ns = clock_monotonic_ns();
        if (now_ns >= end_ns)
            return false;
        futex_wait(&hart->ask, state, end_ns - now_ns);
    }
    return true;
}

bool hart_ask(struct hart *hart, void (*fn)(struct hart *hart, void *opaque), void *opaque,
              uint64_t timeout_ns)
{
    unsigned posted = ASK_POSTED;

    hart->ask_fn = fn;
    hart->ask_opaque = opaque;
    atomic_store(&hart->ask, ASK_POSTED);
    if (atomic_load(&hart->inside))
        notify(hart, HART_ATTENTION_ASK);
    else
        answer(hart);
    if (!await_ask(hart, ASK_POSTED, timeout_ns) &&
        atomic_compare_exchange_strong(&hart->ask, &posted, ASK_NONE))
        return false;
    while (atomic_load(&hart->ask) == ASK_TAKEN)
        futex_wait(&hart->ask, ASK_TAKEN, NEVER);
    return true;
}

// ---- Sleep

static bool started(const struct hart *hart)
{
    return atomic_load(&hart->parked) == HART_STARTED;
}

#define POLL_MAX_NS 50000u  // with more, idle harts take too much (docs/virtio-net.md)

// Looks for a notice itself (see thread_adapt_polling), so that wakers need no system call.
static void poll_notices(const struct hart *hart, uint64_t at_most_ns)
{
    uint64_t ns = hart->poll_ns < at_most_ns ? hart->poll_ns : at_most_ns;

    for (uint64_t end_ns = clock_monotonic_ns() + ns;
         !atomic_load(&hart->attention) && clock_monotonic_ns() < end_ns;)
        _mm_pause();
}

static void await_notice(struct hart *hart, uint64_t at_most_ns)
{
    if (hart->poll_ns)
        poll_notices(hart, at_most_ns);
    atomic_store(&hart->sleeping, true);
    futex_wait(&hart->attention, 0, at_most_ns);
    atomic_store(&hart->sleeping, false);
}

// Sleeps until `wanted`. Returns early, with the notice left, when the hart is to stop.
static void sleep_until(struct hart *hart, bool (*wanted)(const struct hart *hart))
{
    bool executing = hart_stop_executing(hart);
    uint64_t start_ns = clock_ns(hart), polls_from_ns = clock_monotonic_ns();

    while (!(take_notices(hart) & HART_ATTENTION_STOP)) {
        uint64_t now_ns = clock_ns(hart), at_ns = compare_timers(hart, now_ns);

        answer(hart);
        if (wanted(hart))
            break;
        await_notice(hart, at_ns == NEVER ? NEVER : at_ns - now_ns);
    }
    hart->poll_ns =
        thread_adapt_polling(hart->poll_ns, clock_monotonic_ns() - polls_from_ns, POLL_MAX_NS);
    hart->stats.sleeps++;
    hart->stats.slept_ns += clock_ns(hart) - start_ns;
    hart_notice(hart, HART_ATTENTION_IRQ);  // notices were taken without taking interrupts
    hart_resume_executing(hart, executing);
}

static bool interrupted(const struct hart *hart)
{
    return hart_interrupt_pending(hart) != 0;
}

void hart_wait(struct hart *hart)
{
    if (!hart->debug_step)
        sleep_until(hart, interrupted);
}

// ---- Parking

bool hart_is_parked(const struct hart *hart)
{
    return atomic_load(&hart->parked) == HART_PARKED;
}

void hart_park(struct hart *hart)
{
    atomic_store(&hart->parked, HART_PARKING);
    hart_notice(hart, HART_ATTENTION_IRQ);
}

void hart_put_parked(struct hart *hart, bool parked)
{
    atomic_store(&hart->parked, parked ? HART_PARKED : HART_STARTED);
}

// The hart has left the guest's code.
static void settle_parking(struct hart *hart)
{
    if (atomic_load(&hart->parked) == HART_PARKING)
        atomic_store(&hart->parked, HART_PARKED);
}

int hart_start(struct hart *hart, uint64_t pc, uint64_t a0, uint64_t a1)
{
    int parked = HART_PARKED;

    if (!atomic_compare_exchange_strong(&hart->parked, &parked, HART_STARTING))
        return -EALREADY;
    hart->pc = pc;
    hart->x[10] = a0;
    hart->x[11] = a1;
    hart->privilege = hart->supervisor_only ? HART_S : HART_M;
    hart->mstatus &= ~(HART_MSTATUS_SIE | HART_MSTATUS_MIE | HART_MSTATUS_MPRV);
    hart->satp = 0;
    hart->reservation_gpa = HART_NO_RESERVATION;
    hart_mmu_update(hart);
    ask_fences(hart, HART_FENCE_VMA | HART_FENCE_I);
    atomic_store(&hart->parked, HART_STARTED);
    notify(hart, HART_ATTENTION_IRQ);
    return 0;
}

// ---- Flat harts

void hart_flat_trap(struct hart *hart)
{
    bool executing = hart_stop_executing(hart);

    hart->flat->trap(hart->flat->opaque, hart, hart->trap_cause, hart->trap_tval);
    hart_resume_executing(hart, executing);
}

static void poked(struct hart *hart)
{
    bool executing = hart_stop_executing(hart);

    hart->flat->poked(hart->flat->opaque, hart);
    hart_resume_executing(hart, executing);
}

// The threads that asked for something are not in this process.
int hart_forked(struct hart *hart)
{
    int status = hart->engine->forked(hart, hart->engine_state);

    atomic_store(&hart->fence_waiters, 0);
    atomic_store(&hart->ask, ASK_NONE);
    atomic_fetch_and(&hart->attention, ~(unsigned)HART_ATTENTION_ASK);
    perform_fences(hart);
    return status;
}

// ---- The run loop

// Engines reach memory by accesses that may fault: see fault_handler_add.
static void unblock_faults(void)
{
    sigset_t faults;

    sigemptyset(&faults);
    sigaddset(&faults, SIGSEGV);
    sigaddset(&faults, SIGBUS);
    pthread_sigmask(SIG_UNBLOCK, &faults, NULL);
}

static bool at_breakpoint(const struct hart *hart)
{
    for (unsigned i = 0; i < hart->breakpoint_count; i++)
        if (hart->breakpoints[i] == hart->pc)
            return true;
    return false;
}

// Looks at everything there may be notices for, until guest code can run (returns true) or hart_run
// is to return with *why.
static bool attend(struct hart *hart, enum hart_exit *why)
{
    for (;;) {
        unsigned seen = take_notices(hart);
        perform_fences(hart);
        settle_parking(hart);
        answer(hart);
        if (seen & HART_ATTENTION_STOP) {
            hart_notice(hart, seen & HART_ATTENTION_POKE);
            *why = HART_EXIT_STOPPED;
            return false;
        }
        if (seen & HART_ATTENTION_FAIL) {
            *why = HART_EXIT_FAILED;
            return false;
        }
        if (!started(hart)) {
            sleep_until(hart, started);
            continue;
        }
        if ((seen & HART_ATTENTION_DEBUG) && at_breakpoint(hart)) {
            hart->breakpoint_pc = hart->pc;
            *why = HART_EXIT_BREAKPOINT;
            return false;
        }
        if (hart->flat) {
            if (seen & HART_ATTENTION_POKE)
                poked(hart);
            return true;
        }
        hart_timer_refresh(hart);
        hart_interrupt_take(hart);
        return true;
    }
}

static void step(struct hart *hart)
{
    hart->breakpoint_pc = NO_BREAKPOINT;
    hart->engine->step(hart, hart->engine_state);
}

// A parked hart has nothing to step.
static enum hart_exit run_step(struct hart *hart)
{
    if (atomic_load(&hart->attention) & HART_ATTENTION_STOP)
        return HART_EXIT_STOPPED;
    if (started(hart))
        step(hart);
    hart->debug_step = false;
    return HART_EXIT_STEPPED;
}

static enum hart_exit run(struct hart *hart)
{
    enum hart_exit why;

    if (!hart->flat)
        create_timer(hart);
    if (started(hart) && hart->pc == hart->breakpoint_pc)
        step(hart);
    while (attend(hart, &why))
        hart->engine->run(hart, hart->engine_state);
    delete_timer(hart);
    return why;
}

enum hart_exit hart_run(struct hart *hart)
{
    enum hart_exit why;

    unblock_faults();
    enter_inside(hart);
    hart_resume_executing(hart, true);
    why = hart->debug_step ? run_step(hart) : run(hart);
    hart_stop_executing(hart);
    settle_parking(hart);
    leave_inside(hart);
    if (why == HART_EXIT_STOPPED)
        atomic_fetch_and(&hart->attention, ~(unsigned)HART_ATTENTION_STOP);
    return why;
}

// ---- Breakpoints

int hart_breakpoint_add(struct hart *hart, uint64_t gva)
{
    for (unsigned i = 0; i < hart->breakpoint_count; i++)
        if (hart->breakpoints[i] == gva)
            return -EEXIST;
    if (hart->breakpoint_count == HART_BREAKPOINTS)
        return -ENOSPC;
    hart->breakpoints[hart->breakpoint_count++] = gva;
    hart->engine->breakpoints_changed(hart, hart->engine_state);
    return 0;
}

int hart_breakpoint_remove(struct hart *hart, uint64_t gva)
{
    for (unsigned i = 0; i < hart->breakpoint_count; i++) {
        if (hart->breakpoints[i] != gva)
            continue;
        hart->breakpoints[i] = hart->breakpoints[--hart->breakpoint_count];
        hart->engine->breakpoints_changed(hart, hart->engine_state);
        return 0;
    }
    return -ENOENT;
}

void hart_stats(const struct hart *hart, struct hart_stats *stats)
{
    *stats = hart->stats;
    stats->retired += hart->instret;
}

// ---- Creation and reset

void hart_reset(struct hart *hart)
{
    unsigned attention = atomic_load(&hart->attention);

    hart->stats.retired += hart->instret;
    // All registers and CSRs come before mip_lines.
    memset((void *)hart, 0, offsetof(struct hart, mip_lines));
    atomic_store(&hart->attention, attention);
    hart->privilege = HART_M;
    hart->mstatus =
        2 * (HART_MSTATUS_UXL & -HART_MSTATUS_UXL) + 2 * (HART_MSTATUS_SXL & -HART_MSTATUS_SXL);
    hart->stimecmp = NEVER;
    hart->reservation_gpa = HART_NO_RESERVATION;
    atomic_store(&hart->mip_lines, 0);
    atomic_store(&hart->mip_software, 0);
    atomic_store(&hart->mtimecmp, NEVER);
    atomic_store(&hart->parked, HART_PARKED);
    hart->time_offset = 0;
    hart->breakpoint_pc = NO_BREAKPOINT;
    hart->timer_pending = 0;
    hart_pmp_update(hart);
    hart_mmu_update(hart);
    hart->engine->fence_i(hart, hart->engine_state);
}

void hart_set_supervisor_only(struct hart *hart)
{
    hart->supervisor_only = true;
    hart->privilege = HART_S;
    hart->medeleg = HART_MEDELEG_MASK;
    hart->mideleg = HART_MIDELEG_MASK;
    hart->menvcfg = HART_ENVCFG_STCE | HART_ENVCFG_ADUE | HART_ENVCFG_PBMTE | HART_ENVCFG_CBIE |
                    HART_ENVCFG_CBCFE | HART_ENVCFG_CBZE;
    hart->mcounteren = hart->scounteren = HART_COUNTEREN_MASK;
    hart_pmp_write_addr(hart, 0, UINT64_MAX);
    hart_pmp_write_cfg(hart, 0, HART_PMP_NAPOT | HART_MAY_RWX);
    hart_mmu_update(hart);
}

// What stays as it is for a hart's life.
struct fixed {
    unsigned id;
    struct memory *memory;
    const struct hart_flat *flat;
    const struct hart_host *host;
    const struct hart_engine *engine;
};

static int create(struct hart **out, const struct fixed *fixed, struct error *err)
{
    struct hart *hart = calloc(1, sizeof(*hart));
    int code;

    if (!hart)
        return error_set_errno(err, -ENOMEM, "cannot create hart %u", fixed->id);
    hart->id = fixed->id;
    hart->memory = fixed->memory;
    hart->flat = fixed->flat;
    hart->check = fixed->flat ? fixed->flat->check : NULL;
    hart->host = *fixed->host;
    hart->engine = fixed->engine;
    hart->timer_armed_ns = NEVER;
    hart->mmu_levels = 5;
    hart_mmu_init(hart);
    if (hart->check)
        hart_check_init(hart);
    code = hart->engine->create(hart, &hart->engine_state);
    if (code != 0) {
        free(hart);
        return error_set_errno(err, code, "cannot create engine \"%s\" of hart %u",
                               fixed->engine->name, fixed->id);
    }
    hart_reset(hart);
    *out = hart;
    return 0;
}

int hart_create(struct hart **out, unsigned id, struct memory *memory, const struct hart_host *host,
                const struct hart_engine *engine, struct error *err)
{
    const struct fixed fixed = {.id = id, .memory = memory, .host = host, .engine = engine};

    if (id >= HART_MAX)
        return error_set(err, -EINVAL, "cannot create hart %u: there are at most %u", id, HART_MAX);
    return create(out, &fixed, err);
}

static uint64_t host_clock_ns(void *opaque)
{
    (void)opaque;
    return clock_monotonic_ns();
}

int hart_create_flat(struct hart **out, unsigned id, const struct hart_flat *flat,
                     const struct hart_engine *engine, struct error *err)
{
    static const struct hart_host host = {.clock_ns = host_clock_ns};
    const struct fixed fixed = {.id = id, .flat = flat, .host = &host, .engine = engine};
    int code;

    if (!engine->forked)
        return error_set(err, -EINVAL, "engine \"%s\" runs machines only", engine->name);
    code = hart_flat_init();
    if (code != 0)
        return error_set_errno(err, code, "cannot handle faults of hart %u", id);
    code = create(out, &fixed, err);
    if (code != 0)
        return code;
    (*out)->privilege = HART_U;
    (*out)->mstatus |= HART_MSTATUS_FS;
    (*out)->menvcfg = (*out)->senvcfg = HART_ENVCFG_CBZE;
    (*out)->mcounteren = (*out)->scounteren = HART_COUNTEREN_MASK;
    hart_put_parked(*out, false);
    hart_mmu_update(*out);
    return 0;
}

int hart_set_check(struct hart *hart, const struct hart_check *check)
{
    void *state;
    int status;

    if (hart->flat)
        return -EINVAL;
    if (!hart->engine->forked)
        return -ENOTSUP;
    hart->check = check;
    hart_check_init(hart);
    status = hart->engine->create(hart, &state);
    if (status != 0) {
        hart->check = NULL;
        return status;
    }
    hart->engine->destroy(hart, hart->engine_state);
    hart->engine_state = state;
    return 0;
}

void hart_limit_mmu(struct hart *hart, unsigned levels)
{
    hart->mmu_levels = (uint8_t)levels;
}

void hart_destroy(struct hart *hart)
{
    if (!hart)
        return;
    hart->engine->destroy(hart, hart->engine_state);
    free(hart);
}
