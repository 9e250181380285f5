// SPDX-License-Identifier: BSD-2-Clause
// A partition's threads: one a hart, one for the I/O loop.
//
// Threading invariant: `lock` guards everything in struct partition that changes after creation,
// but for `stop` and `wake`, which partition_stop reaches from signal handlers. `control` is held
// by whoever pauses, resumes, steps or resets, for the whole of it; it is taken before `lock`, and
// never by a hart's thread or the loop's, so that waiting for those under it cannot deadlock.
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "partition/partition.h"

// A request and its answer from a hart take about as long (docs/virtio-net.md).
#define IO_POLL_MAX_NS 25000u

struct partition_hart {
    struct partition *partition;
    struct hart *hart;
    unsigned id;
    pthread_t thread;
    bool started;
    bool running;                          // inside hart_run
    bool held;                             // stopped for the debugger: waits until the last resume
    bool stepping;                         // to run although paused, for one instruction
    _Atomic uint64_t entered_ns, left_ns;  // hart_run
};

struct partition {
    char *name;
    struct partition_config config;
    struct machine *machine;
    struct loop *loop;
    pthread_t io_thread;
    bool io_started;
    sem_t io_go;  // the loop is to run; before that it belongs to the controlling thread

    pthread_mutex_t control;
    pthread_mutex_t lock;
    pthread_cond_t changed;  // any of the fields below
    unsigned pauses;         // starts at 1: created paused
    bool quit;
    bool event_set;
    bool broken;  // a hart's engine could not go on
    bool ended;   // partition_wait has said how
    enum machine_event event;
    unsigned event_code;

    atomic_bool stop;
    sem_t wake;  // posted for `event_set`, `broken` and `stop`

    void (*debug_stopped)(void *opaque, unsigned hart, enum hart_exit why);
    void *debug_opaque;

    unsigned hart_count;
    struct partition_hart harts[HART_MAX];
};

// ---- Harts --------------------------------------------------------------------------------------

static bool hart_may_run(const struct partition_hart *ph)
{
    return ph->stepping || (ph->partition->pauses == 0 && !ph->held);
}

// Takes what hart_run returned with. With the lock held.
static void hart_left(struct partition_hart *ph, enum hart_exit why)
{
    struct partition *partition = ph->partition;
    ph->running = false;
    if (why == HART_EXIT_FAILED) {
        ph->held = partition->broken = true;
        sem_post(&partition->wake);
    } else if (ph->stepping) {
        // A stop from before, still asked for, is no step.
        ph->stepping = why == HART_EXIT_STOPPED;
    } else if (why != HART_EXIT_STOPPED && partition->debug_stopped) {
        ph->held = true;
        pthread_mutex_unlock(&partition->lock);
        partition->debug_stopped(partition->debug_opaque, ph->id, why);
        pthread_mutex_lock(&partition->lock);
    }
    pthread_cond_broadcast(&partition->changed);
}

static void *hart_thread(void *opaque)
{
    struct partition_hart *ph = opaque;
    struct partition *partition = ph->partition;
    pthread_mutex_lock(&partition->lock);
    while (!partition->quit) {
        if (!hart_may_run(ph)) {
            thread_set_turn(THREAD_SHORT_TURN_NS);  // the guest stands: to go on at once
            pthread_cond_wait(&partition->changed, &partition->lock);
            continue;
        }
        ph->running = true;
        pthread_mutex_unlock(&partition->lock);
        thread_set_turn(0);
        hart_settle(ph->hart);
        atomic_store(&ph->entered_ns, clock_monotonic_ns());
        enum hart_exit why = hart_run(ph->hart);
        atomic_store(&ph->left_ns, clock_monotonic_ns());
        pthread_mutex_lock(&partition->lock);
        hart_left(ph, why);
    }
    pthread_mutex_unlock(&partition->lock);
    return NULL;
}

static void await(sem_t *posted)
{
    while (sem_wait(posted) < 0 && errno == EINTR)
        ;
}

static void *io_thread(void *opaque)
{
    struct partition *partition = opaque;
    thread_set_turn(THREAD_SHORT_TURN_NS);
    await(&partition->io_go);
    loop_run(partition->loop);
    return NULL;
}

// Asks all harts to leave hart_run. A hart that is not in it leaves at once the next time.
static void stop_harts(struct partition *partition)
{
    for (unsigned i = 0; i < partition->hart_count; i++)
        hart_stop(partition->harts[i].hart);
}

static void wait_for_harts(struct partition *partition)
{
    for (unsigned i = 0; i < partition->hart_count; i++)
        while (partition->harts[i].running)
            pthread_cond_wait(&partition->changed, &partition->lock);
}

// ---- The machine's host -------------------------------------------------------------------------

static uint64_t host_clock_ns(void *opaque)
{
    (void)opaque;
    return clock_monotonic_ns();
}

static uint64_t host_wall_clock_ns(void *opaque)
{
    (void)opaque;
    return clock_realtime_ns();
}

// The first event since the last reset counts. The harts leave guest code: the one that asked is
// not to go on, and the others have nothing left to do.
static void host_event(void *opaque, enum machine_event event, unsigned code)
{
    struct partition *partition = opaque;
    pthread_mutex_lock(&partition->lock);
    if (!partition->event_set) {
        partition->event_set = true;
        partition->event = event;
        partition->event_code = code;
        for (unsigned i = 0; i < partition->hart_count; i++)
            partition->harts[i].held = true;
        sem_post(&partition->wake);
    }
    pthread_mutex_unlock(&partition->lock);
    stop_harts(partition);
}

static void host_console_output(void *opaque, const void *bytes, size_t count)
{
    struct partition *partition = opaque;
    if (partition->config.console_output)
        partition->config.console_output(partition->config.opaque, bytes, count);
}

static void host_console_room(void *opaque)
{
    struct partition *partition = opaque;
    if (partition->config.console_room)
        partition->config.console_room(partition->config.opaque);
}

// ---- Creation -----------------------------------------------------------------------------------

// Threads of a partition take no signals of the process but the harts' own timer's (a real-time
// one), so that SIGINT and its like go to the thread that knows what to do; and those that tell of
// a fault of their own, which may be one of guest RAM that is shared with other partitions until it
// is written (memory_add_ram_shared).
static int thread_start(pthread_t *thread, const char *name, void *(*fn)(void *), void *opaque)
{
    static const int faults[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGTRAP, SIGSYS};
    sigset_t blocked, before;
    sigfillset(&blocked);
    for (size_t i = 0; i < BASE_COUNT_OF(faults); i++)
        sigdelset(&blocked, faults[i]);
    for (int signal = SIGRTMIN; signal <= SIGRTMAX; signal++)
        sigdelset(&blocked, signal);
    pthread_sigmask(SIG_BLOCK, &blocked, &before);
    int rc = -pthread_create(thread, NULL, fn, opaque);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (rc == 0)
        pthread_setname_np(*thread, name);
    return rc;
}

static int start_threads(struct partition *partition, struct error *err)
{
    int rc = thread_start(&partition->io_thread, "io", io_thread, partition);
    if (rc < 0)
        return error_set_errno(err, rc, "cannot start the I/O thread");
    partition->io_started = true;
    for (unsigned i = 0; i < partition->hart_count; i++) {
        struct partition_hart *ph = &partition->harts[i];
        char name[16];
        snprintf(name, sizeof(name), "hart%u", i);
        rc = thread_start(&ph->thread, name, hart_thread, ph);
        if (rc < 0)
            return error_set_errno(err, rc, "cannot start the thread of hart %u", i);
        ph->started = true;
    }
    return 0;
}

int partition_create(struct partition **out, const struct partition_config *config,
                     struct error *err)
{
    struct partition *partition = calloc(1, sizeof(*partition));
    if (!partition)
        return error_set_errno(err, -ENOMEM, "cannot create partition \"%s\"", config->name);
    partition->config = *config;
    partition->name = strdup(config->name);
    partition->pauses = 1;
    pthread_mutex_init(&partition->control, NULL);
    pthread_mutex_init(&partition->lock, NULL);
    pthread_cond_init(&partition->changed, NULL);
    sem_init(&partition->wake, 0, 0);
    sem_init(&partition->io_go, 0, 0);

    const struct machine_host host = {
        .clock_ns = host_clock_ns,
        .wall_clock_ns = host_wall_clock_ns,
        .event = host_event,
        .console_output = host_console_output,
        .console_room = host_console_room,
        .opaque = partition,
    };
    int rc = partition->name ? 0 : error_set_errno(err, -ENOMEM, "cannot create a partition");
    if (rc == 0)
        rc = loop_create(&partition->loop, err);
    if (rc == 0)
        rc = machine_create(&partition->machine, &config->machine, partition->loop, &host, err);
    if (rc < 0)
        goto fail;
    loop_set_polling(partition->loop, IO_POLL_MAX_NS);
    partition->hart_count = machine_cpus(partition->machine);
    for (unsigned i = 0; i < partition->hart_count; i++)
        partition->harts[i] = (struct partition_hart){
            .partition = partition, .id = i, .hart = machine_hart(partition->machine, i)};
    machine_pause_devices(partition->machine);
    rc = start_threads(partition, err);
    if (rc < 0)
        goto fail;
    *out = partition;
    return 0;

fail:
    partition_destroy(partition);
    return rc;
}

void partition_destroy(struct partition *partition)
{
    if (!partition)
        return;
    pthread_mutex_lock(&partition->lock);
    partition->quit = true;
    pthread_cond_broadcast(&partition->changed);
    pthread_mutex_unlock(&partition->lock);
    stop_harts(partition);
    for (unsigned i = 0; i < partition->hart_count; i++)
        if (partition->harts[i].started)
            pthread_join(partition->harts[i].thread, NULL);
    if (partition->io_started) {
        loop_stop(partition->loop);
        sem_post(&partition->io_go);
        pthread_join(partition->io_thread, NULL);
    }
    machine_destroy(partition->machine);
    loop_destroy(partition->loop);
    sem_destroy(&partition->wake);
    sem_destroy(&partition->io_go);
    pthread_cond_destroy(&partition->changed);
    pthread_mutex_destroy(&partition->lock);
    pthread_mutex_destroy(&partition->control);
    free(partition->name);
    free(partition);
}

struct loop *partition_loop(struct partition *partition)
{
    return partition->loop;
}

struct machine *partition_machine(struct partition *partition)
{
    return partition->machine;
}

uint64_t partition_hart_cpu_ns(const struct partition *partition, unsigned hart)
{
    struct timespec used;
    clockid_t clock;
    if (pthread_getcpuclockid(partition->harts[hart].thread, &clock) != 0 ||
        clock_gettime(clock, &used) != 0)
        return 0;
    return (uint64_t)used.tv_sec * 1000000000u + (uint64_t)used.tv_nsec;
}

// ---- Pausing ------------------------------------------------------------------------------------

static void pause_devices(void *opaque)
{
    machine_pause_devices(opaque);
}

static void resume_devices(void *opaque)
{
    machine_resume_devices(opaque);
}

// Stops the harts. Returns whether the devices are the caller's to stop, too: there was no pause
// yet. With `control` held.
static bool stop_running(struct partition *partition)
{
    pthread_mutex_lock(&partition->lock);
    bool first = partition->pauses++ == 0;
    pthread_mutex_unlock(&partition->lock);
    if (!first)
        return false;
    stop_harts(partition);
    pthread_mutex_lock(&partition->lock);
    wait_for_harts(partition);
    pthread_mutex_unlock(&partition->lock);
    return true;
}

// Takes one pause back. Returns whether it was the last: then the harts run, and the devices are
// the caller's to start. The harts come first because they are what the guest waits for; a device
// that is still stopped takes note of what they ask of it. With `control` held.
static bool let_run(struct partition *partition)
{
    pthread_mutex_lock(&partition->lock);
    bool last = --partition->pauses == 0;
    // After the guest asked for power-off or reset only partition_wait lets the harts go.
    for (unsigned i = 0; last && !partition->event_set && i < partition->hart_count; i++)
        partition->harts[i].held = false;
    pthread_mutex_unlock(&partition->lock);
    pthread_cond_broadcast(&partition->changed);
    sem_post(&partition->io_go);
    return last;
}

// Both with `control` held.
static void pause_locked(struct partition *partition)
{
    if (stop_running(partition))
        loop_call(partition->loop, pause_devices, partition->machine);
}

static void resume_locked(struct partition *partition)
{
    if (let_run(partition))
        loop_call(partition->loop, resume_devices, partition->machine);
}

void partition_pause(struct partition *partition)
{
    pthread_mutex_lock(&partition->control);
    pause_locked(partition);
    pthread_mutex_unlock(&partition->control);
}

void partition_resume(struct partition *partition)
{
    pthread_mutex_lock(&partition->control);
    resume_locked(partition);
    pthread_mutex_unlock(&partition->control);
}

void partition_set_debug(struct partition *partition,
                         void (*stopped)(void *opaque, unsigned hart, enum hart_exit why),
                         void *opaque)
{
    partition->debug_stopped = stopped;
    partition->debug_opaque = opaque;
}

unsigned partition_held(struct partition *partition)
{
    unsigned held = 0;
    pthread_mutex_lock(&partition->lock);
    for (unsigned i = 0; i < partition->hart_count; i++)
        held |= (unsigned)partition->harts[i].held << i;
    pthread_mutex_unlock(&partition->lock);
    return held;
}

void partition_step(struct partition *partition, unsigned hart)
{
    struct partition_hart *ph = &partition->harts[hart];
    pthread_mutex_lock(&partition->control);
    pthread_mutex_lock(&partition->lock);
    ph->hart->debug_step = true;
    ph->stepping = true;
    pthread_cond_broadcast(&partition->changed);
    while (ph->stepping)
        pthread_cond_wait(&partition->changed, &partition->lock);
    ph->hart->debug_step = false;
    pthread_mutex_unlock(&partition->lock);
    pthread_mutex_unlock(&partition->control);
}

static bool is_broken(struct partition *partition)
{
    pthread_mutex_lock(&partition->lock);
    bool broken = partition->broken;
    pthread_mutex_unlock(&partition->lock);
    return broken;
}

// ---- State --------------------------------------------------------------------------------------

// What a partition has besides its machine. The pause of whoever saves does not count.
struct partition_state {
    uint32_t pauses;
    uint32_t held;  // harts, a bit each
    bool event_set;
    uint8_t event;
    uint32_t event_code;
};

static const struct state_field partition_fields[] = {
    STATE_FIELD(struct partition_state, pauses, STATE_U32, 1, UINT16_MAX),
    STATE_FIELD(struct partition_state, held, STATE_U32, 1, (1u << HART_MAX) - 1),
    STATE_FIELD(struct partition_state, event_set, STATE_BOOL, 1, 0),
    STATE_FIELD(struct partition_state, event, STATE_U8, 1, MACHINE_FAIL),
    STATE_FIELD(struct partition_state, event_code, STATE_U32, 1, 0),
    {0},
};
static const struct state_schema partition_schema = {
    .name = "partition",
    .version = 1,
    .struct_bytes = sizeof(struct partition_state),
    .fields = partition_fields,
};

// The loop's thread must not be at anything else: on it, or while it does not run.
static void save_on_loop(struct partition *partition, struct state_writer *writer)
{
    pthread_mutex_lock(&partition->lock);
    struct partition_state state = {
        .pauses = partition->pauses - 1,
        .event_set = partition->event_set,
        .event = (uint8_t)partition->event,
        .event_code = partition->event_code,
    };
    for (unsigned i = 0; i < partition->hart_count; i++)
        state.held |= (uint32_t)partition->harts[i].held << i;
    pthread_mutex_unlock(&partition->lock);
    state_write(writer, &partition_schema, 0, &state);
    machine_save(partition->machine, writer);
}

static void take_state(struct partition *partition, const struct partition_state *state)
{
    pthread_mutex_lock(&partition->lock);
    partition->pauses = state->pauses + 1;
    partition->event_set = state->event_set;
    partition->event = state->event;
    partition->event_code = state->event_code;
    for (unsigned i = 0; i < partition->hart_count; i++)
        partition->harts[i].held = state->held >> i & 1;
    if (state->event_set)
        sem_post(&partition->wake);
    pthread_mutex_unlock(&partition->lock);
}

struct freeze_call {
    struct partition *partition;
    bool devices;  // are to be frozen: they are not paused already
    struct state_writer *writer;
    partition_ended_fn *ended;
    void *opaque;
    unsigned in_flight;
};

static void freeze_on_loop(void *opaque)
{
    struct freeze_call *call = opaque;
    if (call->devices)
        call->in_flight =
            machine_freeze_devices(call->partition->machine, call->ended, call->opaque);
    save_on_loop(call->partition, call->writer);
}

int partition_freeze(struct partition *partition, struct state_writer *writer,
                     partition_ended_fn *ended, void *opaque, unsigned *in_flight,
                     struct error *err)
{
    struct freeze_call call = {
        .partition = partition, .writer = writer, .ended = ended, .opaque = opaque};
    pthread_mutex_lock(&partition->control);
    if (partition->ended || is_broken(partition)) {
        pthread_mutex_unlock(&partition->control);
        return error_set(err, -ESRCH, "partition \"%s\" has ended", partition->name);
    }
    call.devices = stop_running(partition);
    loop_call(partition->loop, freeze_on_loop, &call);
    *in_flight = call.in_flight;
    return 0;
}

static void thaw_devices(void *opaque)
{
    machine_thaw_devices(opaque);
}

void partition_thaw(struct partition *partition)
{
    if (let_run(partition))
        loop_call(partition->loop, thaw_devices, partition->machine);
    pthread_mutex_unlock(&partition->control);
}

static void save_paused(void *opaque)
{
    const struct freeze_call *call = opaque;
    save_on_loop(call->partition, call->writer);
}

void partition_save(struct partition *partition, struct state_writer *writer)
{
    struct freeze_call call = {.partition = partition, .writer = writer};
    pthread_mutex_lock(&partition->control);
    loop_call(partition->loop, save_paused, &call);
    pthread_mutex_unlock(&partition->control);
}

struct load_call {
    struct partition *partition;
    struct state_reader *reader;
    struct state_writer *check;
    struct error *err;
    int rc;
};

static void load_on_loop(void *opaque)
{
    struct load_call *call = opaque;
    struct partition *partition = call->partition;
    struct partition_state state = {0};
    call->rc = state_read(call->reader, &partition_schema, 0, &state, call->err);
    if (call->rc == 0)
        call->rc = machine_load(partition->machine, call->reader, call->err);
    if (call->rc < 0)
        return;
    take_state(partition, &state);
    if (!call->check)
        return;
    state_writer_follow(call->check, call->reader);
    save_on_loop(partition, call->check);
}

int partition_load(struct partition *partition, struct state_reader *reader,
                   struct state_writer *check, struct error *err)
{
    struct load_call call = {.partition = partition, .reader = reader, .check = check, .err = err};
    pthread_mutex_lock(&partition->control);
    loop_call(partition->loop, load_on_loop, &call);
    pthread_mutex_unlock(&partition->control);
    return call.rc;
}

struct partition_span partition_hart_span(const struct partition *partition, unsigned hart)
{
    const struct partition_hart *ph = &partition->harts[hart];
    return (struct partition_span){.entered_ns = atomic_load(&ph->entered_ns),
                                   .left_ns = atomic_load(&ph->left_ns)};
}

// ---- Running ------------------------------------------------------------------------------------

struct reset_call {
    struct machine *machine;
    struct error *err;
    int rc;
};

static void reset_on_loop(void *opaque)
{
    struct reset_call *call = opaque;
    call->rc = machine_reset(call->machine, call->err);
}

// Power-on, while paused, with `control` held.
static int reset_locked(struct partition *partition, struct error *err)
{
    struct reset_call call = {.machine = partition->machine, .err = err};
    loop_call(partition->loop, reset_on_loop, &call);
    pthread_mutex_lock(&partition->lock);
    partition->event_set = false;
    pthread_mutex_unlock(&partition->lock);
    sem_post(&partition->io_go);
    return call.rc;
}

int partition_start(struct partition *partition, bool paused, struct error *err)
{
    pthread_mutex_lock(&partition->control);
    int rc = reset_locked(partition, err);
    if (rc == 0 && !paused)
        resume_locked(partition);
    pthread_mutex_unlock(&partition->control);
    return rc;
}

static bool take_event(struct partition *partition, enum machine_event *event, unsigned *code)
{
    pthread_mutex_lock(&partition->lock);
    bool set = partition->event_set;
    *event = partition->event;
    if (code)
        *code = partition->event_code;
    pthread_mutex_unlock(&partition->lock);
    return set;
}

static int reboot(struct partition *partition, struct error *err)
{
    pthread_mutex_lock(&partition->control);
    pause_locked(partition);
    int rc = reset_locked(partition, err);
    if (rc == 0)
        resume_locked(partition);
    pthread_mutex_unlock(&partition->control);
    return rc;
}

int partition_wait(struct partition *partition, enum partition_end *end, unsigned *code,
                   struct error *err)
{
    static const enum partition_end ends[] = {
        [MACHINE_POWEROFF] = PARTITION_POWEROFF,
        [MACHINE_REBOOT] = PARTITION_REBOOT,
        [MACHINE_FAIL] = PARTITION_FAILED,
    };
    for (;;) {
        await(&partition->wake);
        enum machine_event event;
        if (atomic_load(&partition->stop)) {
            *end = PARTITION_STOPPED;
            break;
        }
        if (is_broken(partition)) {
            *end = PARTITION_BROKEN;
            break;
        }
        if (!take_event(partition, &event, code))
            continue;
        if (event == MACHINE_REBOOT && !partition->config.no_reboot) {
            int rc = reboot(partition, err);
            if (rc < 0)
                return error_prefix(err, "cannot restart partition \"%s\"", partition->name);
            continue;
        }
        *end = ends[event];
        break;
    }
    pthread_mutex_lock(&partition->control);
    pause_locked(partition);
    partition->ended = true;
    pthread_mutex_unlock(&partition->control);
    return 0;
}

void partition_stop(struct partition *partition)
{
    atomic_store(&partition->stop, true);
    if (partition->config.console_abandon)
        partition->config.console_abandon(partition->config.opaque);
    sem_post(&partition->wake);
}

size_t partition_console_input(struct partition *partition, const void *bytes, size_t count)
{
    return machine_console_input(partition->machine, bytes, count);
}
