// SPDX-License-Identifier: BSD-2-Clause
// The old monitor's side of a handover.
//
// Until the new monitor (N) has moved the status page's `owner` the partition is this process' own:
// whatever goes wrong, it goes on here. Before it does so after N has been sent the state, `owner`
// is moved by this side, so that N cannot any more; if that fails N has been faster, and the
// handover has succeeded whatever else was heard of it.
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "monitor/handover_peer.h"

// What N may take, on a loaded machine: to build a machine; to warm it; to load a state and run.
#define READY_MS 10000u
#define WARMED_MS 60000u
#define RUN_MS 2000u
#define SEND_MS 1000u
#define HOT_NS 4000000000u            // for asking all harts what is hot: within N's WARM_MS
#define FORMER_NS 5000000000u         // for disk I/O of the monitor before this one
#define RETIRE_MS 60000u              // for disk I/O to end
#define STATE_READY_BYTES (1u << 20)  // of the state's memory, had before the guest stops

// ---- Disk I/O under way -------------------------------------------------------------------------

// What has ended since the state was saved, for N to be told.
struct handover_requests {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    unsigned under_way;
    struct peer_ended *ended;
    size_t count, capacity;
    bool lost;  // one could not be noted, for want of memory
};

static void request_ended(void *opaque, unsigned slot, uint16_t head, uint32_t written_bytes)
{
    struct handover_requests *requests = opaque;
    pthread_mutex_lock(&requests->lock);
    if (requests->count == requests->capacity) {
        size_t capacity = requests->capacity ? 2 * requests->capacity : 64;
        void *grown = reallocarray(requests->ended, capacity, sizeof(*requests->ended));
        if (grown) {
            requests->ended = grown;
            requests->capacity = capacity;
        }
    }
    if (requests->count < requests->capacity)
        requests->ended[requests->count++] = (struct peer_ended){slot, head, written_bytes};
    else
        requests->lost = true;
    pthread_cond_signal(&requests->changed);
    pthread_mutex_unlock(&requests->lock);
}

static struct handover_requests *requests_create(void)
{
    struct handover_requests *requests = calloc(1, sizeof(*requests));
    pthread_condattr_t attr;
    if (!requests)
        return NULL;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&requests->changed, &attr);
    pthread_condattr_destroy(&attr);
    pthread_mutex_init(&requests->lock, NULL);
    return requests;
}

static void requests_destroy(struct handover_requests *requests)
{
    pthread_cond_destroy(&requests->changed);
    pthread_mutex_destroy(&requests->lock);
    free(requests->ended);
    free(requests);
}

// ---- Before the guest stops ---------------------------------------------------------------------

struct give {
    struct handover_old *old;
    enum handover_step step;
    uint32_t owner;  // before
    struct machine *machine;
    struct peer_message *message;  // the last received
    struct state_writer *writers[PEER_STATES];
    int state_fd;
};

// The next message, which is to be of `type`.
static int expect(struct give *give, enum peer_type type, unsigned timeout_ms, struct error *err)
{
    struct peer_message *message = give->message;
    int rc = peer_receive(give->old->peer, message,
                          handover_wait_ms(give->old->patience_ms, timeout_ms));
    if (rc == -EPIPE)
        return error_set(err, rc, "the new monitor has ended");
    if (rc == -ETIME)
        return error_set(err, rc, "the new monitor does not answer");
    if (rc < 0)
        return error_set_errno(err, rc, "no answer of the new monitor");
    peer_message_close_fds(message);
    if (message->type == PEER_REFUSED)
        return error_set(err, -ECANCELED, "the new monitor refuses: %s", (char *)message->payload);
    if (message->type != type)
        return error_set(err, -EPROTO, "the new monitor does not keep to the protocol");
    return 0;
}

static int tell(struct give *give, enum peer_type type, const void *payload, size_t length_bytes,
                const int *fds, unsigned fd_count, struct error *err)
{
    int rc = peer_send(give->old->peer, type, payload, length_bytes, fds, fd_count, SEND_MS);
    if (rc == -EPIPE)
        return expect(give, 0, 0, err);  // what it said last, or that it has ended
    return rc < 0 ? error_set_errno(err, rc, "the new monitor cannot be told") : 0;
}

static json_t *hello(const struct give *give, int *fds, unsigned *fd_count)
{
    const struct descriptors *set = give->old->fds;
    json_t *names = json_array();
    *fd_count = 0;
    for (size_t i = 0; i < set->count; i++) {
        fds[(*fd_count)++] = set->list[i].fd;
        json_array_append_new(names, json_string(set->list[i].name));
    }
    fds[(*fd_count)++] = memory_find_ram(machine_memory(give->machine), MACHINE_RAM_GPA)->fd;
    json_array_append_new(names, json_string("ram"));
    bool other = handover_fault_is(&give->old->fault, HANDOVER_STEP_HELLO, HANDOVER_FAULT_VERSION);
    return json_pack("{si ss si sO so}", "protocol", PEER_PROTOCOL + other, "version",
                     STRAKE_VERSION, "owner", (int)give->owner, "partition", give->old->definition,
                     "fds", names);
}

static int check_ready(const struct give *give, struct error *err)
{
    json_t *ready = json_loads((const char *)give->message->payload, 0, NULL);
    json_int_t protocol = 0;
    int rc = 0;
    if (!ready || json_unpack(ready, "{sI}", "protocol", &protocol) < 0)
        rc = error_set(err, -EPROTO, "the new monitor does not keep to the protocol");
    else if (protocol != PEER_PROTOCOL)
        rc = error_set(err, -EPROTONOSUPPORT,
                       "the new monitor speaks version %lld of the protocol, this one version %d",
                       (long long)protocol, PEER_PROTOCOL);
    json_decref(ready);
    return rc;
}

// Greets N, and waits until it has built its machine.
static int greet(struct give *give, struct error *err)
{
    int fds[DESCRIPTORS_MAX + 1];
    unsigned fd_count;
    handover_mark_now(give->old->status, HANDOVER_BEGUN);
    int rc = handover_fault_at(&give->old->fault, give->step, err);
    if (rc < 0)
        return rc;
    json_t *message = hello(give, fds, &fd_count);
    char *text = message ? json_dumps(message, JSON_COMPACT) : NULL;
    if (text)
        rc = tell(give, PEER_HELLO, text, strlen(text), fds, fd_count, err);
    else
        rc = error_set_errno(err, -ENOMEM, "no message");
    free(text);
    json_decref(message);
    if (rc == 0)
        rc = expect(give, PEER_READY, READY_MS, err);
    if (rc == 0)
        rc = check_ready(give, err);
    if (rc == 0)
        handover_mark_now(give->old->status, HANDOVER_BUILT);
    return rc;
}

static int memory_file(const char *name, uint64_t length_bytes, struct error *err)
{
    int fd = memfd_create(name, MFD_CLOEXEC);
    int rc = fd < 0 ? -errno : 0;
    if (rc == 0 && length_bytes && fallocate(fd, 0, 0, (off_t)length_bytes) < 0)
        rc = -errno;
    if (rc < 0 && fd >= 0)
        close(fd);
    return rc < 0 ? error_set_errno(err, rc, "cannot have %llu bytes of shared memory",
                                    (unsigned long long)length_bytes)
                  : fd;
}

// Writes what each hart's engine would like to find ready; each gets its share of the time that is
// left. Hints: what is missing costs time only.
static void write_hot(struct give *give, int fd, struct peer_warm *warm)
{
    uint64_t at = 0, end_ns = clock_monotonic_ns() + HOT_NS;
    for (unsigned i = 0, harts = machine_cpus(give->machine); i < harts; i++) {
        struct hart_hot hot = {0};
        uint64_t now_ns = clock_monotonic_ns(), left_ns = end_ns > now_ns ? end_ns - now_ns : 0;
        if (hart_hot(machine_hart(give->machine, i), &hot, left_ns / (harts - i)) == 0 &&
            hot.bytes && at + hot.length_bytes <= PEER_HOT_BYTES_MAX &&
            lseek(fd, (off_t)at, SEEK_SET) >= 0 &&
            fd_write_full(fd, hot.bytes, hot.length_bytes) == (int64_t)hot.length_bytes) {
            warm->hot_bytes[i] = hot.length_bytes;
            at += hot.length_bytes;
        }
        free(hot.bytes);
    }
}

// Has N make ready what it can before the guest stops. What the stop needs is had now.
static int warm(struct give *give, struct error *err)
{
    struct peer_warm warm = {0};
    int rc = handover_fault_at(&give->old->fault, give->step, err);
    for (unsigned i = 0; i < PEER_STATES && rc == 0; i++) {
        rc = state_writer_create(&give->writers[i], true);
        if (rc < 0)
            error_set_errno(err, rc, "cannot save the state");
    }
    if (rc == 0)
        rc = give->state_fd = memory_file("strake-state", STATE_READY_BYTES, err);
    if (rc < 0)
        return rc;
    int hot_fd = memory_file("strake-hot", 0, err);
    if (hot_fd < 0)
        return hot_fd;
    write_hot(give, hot_fd, &warm);
    handover_mark_now(give->old->status, HANDOVER_HOT);
    rc = tell(give, PEER_WARM, &warm, sizeof(warm), (int[]){give->state_fd, hot_fd}, 2, err);
    close(hot_fd);
    if (rc == 0)
        rc = expect(give, PEER_WARMED, WARMED_MS, err);
    if (rc == 0)
        handover_mark_now(give->old->status, HANDOVER_WARMED);
    return rc;
}

// ---- While it stands ----------------------------------------------------------------------------

// The hart's last instruction, where it was not stopped before.
static void note_left(struct give *give)
{
    struct handover_times *times = &give->old->status->handover;
    uint64_t since_ns = atomic_load(&times->mark_ns[HANDOVER_WARMED]);
    for (unsigned i = 0; i < HART_MAX; i++) {
        uint64_t left_ns = 0;
        if (i < machine_cpus(give->machine) && !hart_is_parked(machine_hart(give->machine, i)))
            left_ns = partition_hart_span(give->old->partition, i).left_ns;
        atomic_store(&times->left_ns[i], left_ns > since_ns ? left_ns : 0);
        atomic_store(&times->entered_ns[i], 0);
    }
}

// A section of which no other monitor has heard.
static void write_unheard_of(struct state_writer *writer)
{
    static const struct state_field fields[] = {{0}};
    static const struct state_schema schema = {.name = "later", .version = 1, .fields = fields};
    state_write(writer, &schema, 0, "");
}

struct former_call {
    struct machine *machine;
    unsigned outstanding;
};

static void former_requests(void *opaque)
{
    struct former_call *call = opaque;
    call->outstanding = machine_requests_outstanding(call->machine);
}

// Waits for disk requests that the monitor before this one still has under way, now that the guest
// runs: else devices would do so when they freeze.
static int await_former(struct give *give, struct error *err)
{
    const uint64_t deadline_ns = clock_monotonic_ns() + FORMER_NS;
    struct former_call call = {.machine = give->machine};

    for (;;) {
        loop_call(partition_loop(give->old->partition), former_requests, &call);
        if (call.outstanding == 0)
            return 0;
        if (clock_monotonic_ns() > deadline_ns)
            return error_set(err, -EBUSY,
                             "disk requests from before the last handover have not "
                             "ended");
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
}

static int freeze(struct give *give, struct error *err)
{
    struct handover_old *old = give->old;
    int rc = handover_fault_at(&old->fault, give->step, err);
    if (rc == 0)
        rc = await_former(give, err);
    if (rc < 0)
        return rc;
    if (old->leave)
        old->leave(old->opaque, give->writers[PEER_STATE_MONITOR]);
    rc = partition_freeze(old->partition, give->writers[PEER_STATE_PARTITION], request_ended,
                          old->requests, &old->requests->under_way, err);
    if (rc < 0) {
        if (old->stay)
            old->stay(old->opaque);
        return rc;
    }
    if (handover_fault_is(&old->fault, give->step, HANDOVER_FAULT_VERSION))
        write_unheard_of(give->writers[PEER_STATE_PARTITION]);
    handover_mark_now(old->status, HANDOVER_FROZEN);
    note_left(give);
    return 0;
}

static int send_descriptors(struct give *give, const int *fds, size_t count, struct error *err)
{
    int rc = 0;
    for (size_t at = 0; at < count && rc == 0; at += PEER_FDS) {
        unsigned some = count - at < PEER_FDS ? (unsigned)(count - at) : PEER_FDS;
        rc = tell(give, PEER_DESCRIPTORS, NULL, 0, fds + at, some, err);
    }
    return rc;
}

// Writes both states and tells N. From here on N may be the owner at any moment.
static int send_state(struct give *give, struct error *err)
{
    struct peer_state state = {0};
    int rc = handover_fault_at(&give->old->fault, give->step, err);
    for (unsigned i = 0; i < PEER_STATES && rc == 0; i++) {
        const void *bytes;
        const int *fds;
        rc = state_writer_finish(give->writers[i], &bytes, &state.length_bytes[i], &fds,
                                 &state.fd_count[i]);
        int64_t written = rc < 0 ? rc : fd_write_full(give->state_fd, bytes, state.length_bytes[i]);
        if (written < 0)
            rc = error_set_errno(err, (int)written, "cannot write the state");
        else
            rc = send_descriptors(give, fds, state.fd_count[i], err);
    }
    if (rc < 0)
        return rc;
    handover_mark_now(give->old->status, HANDOVER_SENT);
    return tell(give, PEER_STATE, &state, sizeof(state), NULL, 0, err);
}

static int hand_over(struct give *give, struct error *err)
{
    static int (*const steps[])(struct give * give, struct error * err) = {
        [HANDOVER_STEP_HELLO] = greet,
        [HANDOVER_STEP_WARM] = warm,
        [HANDOVER_STEP_FREEZE] = freeze,
        [HANDOVER_STEP_STATE] = send_state,
    };
    for (give->step = 0; give->step < BASE_COUNT_OF(steps); give->step++) {
        int rc = steps[give->step](give, err);
        if (rc < 0)
            return rc;
    }
    int rc = handover_fault_at(&give->old->fault, give->step, err);
    return rc < 0 ? rc : expect(give, PEER_RUN, RUN_MS, err);
}

// ---- The outcome --------------------------------------------------------------------------------

static void close_give(struct give *give)
{
    for (unsigned i = 0; i < PEER_STATES; i++)
        state_writer_destroy(give->writers[i]);
    if (give->state_fd >= 0)
        close(give->state_fd);
    free(give->message);
}

// Returns whether the guest goes on here.
static bool take_back(struct give *give)
{
    struct handover_old *old = give->old;
    if (!status_page_move_owner(old->status, give->owner, OWNER_KEEP))
        return false;
    if (give->step > HANDOVER_STEP_FREEZE) {
        partition_thaw(old->partition);
        if (old->stay)
            old->stay(old->opaque);
    }
    return true;
}

int handover_give(struct handover_old *old, struct error *err)
{
    struct give give = {.old = old,
                        .owner = atomic_load(&old->status->owner),
                        .machine = partition_machine(old->partition),
                        .message = malloc(sizeof(*give.message)),
                        .state_fd = -1};
    old->requests = requests_create();
    int rc = give.message && old->requests ? hand_over(&give, err)
                                           : error_set_errno(err, -ENOMEM, "no memory");
    if (rc < 0 && take_back(&give)) {
        error_prefix(err, "at step \"%s\"", handover_step_name(give.step));
        if (old->requests)
            requests_destroy(old->requests);
        old->requests = NULL;
    } else {
        rc = 0;
    }
    close_give(&give);
    return rc;
}

// ---- Retiring -----------------------------------------------------------------------------------

// Takes what has ended, waiting until `deadline_ns` if nothing has. Returns how many.
static size_t take_ended(struct handover_requests *requests, struct peer_ended *ended, size_t max,
                         uint64_t deadline_ns)
{
    struct timespec deadline = {.tv_sec = (time_t)(deadline_ns / 1000000000u),
                                .tv_nsec = (long)(deadline_ns % 1000000000u)};
    pthread_mutex_lock(&requests->lock);
    while (requests->count == 0)
        if (pthread_cond_timedwait(&requests->changed, &requests->lock, &deadline) == ETIMEDOUT)
            break;
    size_t count = requests->count < max ? requests->count : max;
    requests->count -= count;
    if (count > 0)
        memcpy(ended, requests->ended + requests->count, count * sizeof(*ended));
    pthread_mutex_unlock(&requests->lock);
    return count;
}

void handover_retire(struct handover_old *old)
{
    struct handover_requests *requests = old->requests;
    struct peer_ended ended[256];
    uint64_t deadline_ns = clock_monotonic_ns() + RETIRE_MS * 1000000ull;
    int rc = handover_fault_at(&old->fault, HANDOVER_STEP_RETIRE, NULL);
    while (rc == 0 && requests->under_way > 0 && !requests->lost) {
        size_t count = take_ended(requests, ended, BASE_COUNT_OF(ended), deadline_ns);
        if (count == 0)
            break;
        requests->under_way -= (unsigned)count;
        rc = peer_send(old->peer, PEER_ENDED, ended, count * sizeof(*ended), NULL, 0, RETIRE_MS);
    }
    // Else N finds this process gone without it, and begins anew what was not reported.
    if (rc == 0 && requests->under_way == 0)
        (void)!peer_send(old->peer, PEER_RETIRED, NULL, 0, NULL, 0, SEND_MS);
    handover_mark_now(old->status, HANDOVER_RETIRED);
    if (requests->under_way > 0)
        return;  // they may still end, and be noted
    requests_destroy(requests);
    old->requests = NULL;
}
