// SPDX-License-Identifier: BSD-2-Clause
// The new monitor's side of a handover.
//
// What the old one (O) says is a guest's word: lengths and numbers are bounded here, the
// definition, the state and what is hot are checked by those who read them, from copies that O
// cannot change.
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "monitor/handover_peer.h"

// What O may take, on a loaded machine.
#define HELLO_MS 10000u
#define WARM_MS 10000u   // to find out what is hot
#define STATE_MS 10000u  // to stop and save
#define SEND_MS 1000u
#define SETTLE_MS 10000u  // to see disk I/O through that a device waits for
#define ENTER_NS 500000000u
#define WARM_NS 10000000000u  // for making ready what is hot, and RAM
#define REST_NS 100000        // between pieces of that work, for the guest that still runs in O
#define WARM_NICER 2          // and of what threads compete for, it gets the smaller part
#define STATE_READY_BYTES (1u << 20)

// ---- O, once it has handed over -----------------------------------------------------------------
//
// Everything on the partition's loop's thread.

struct handover_former {
    struct partition *partition;
    int peer, process;  // process: pidfd, or -1
    struct loop_watch *watch;
    bool closed;  // the peer is: O has died, or is about to
    bool gone;    // O has retired, or ended as a process
    struct peer_message message;
};

static void former_gone(struct handover_former *former)
{
    former->gone = true;
    loop_watch_close(former->watch);
    former->watch = NULL;
}

// Its requests may still be under way after the peer was closed, until the process is no more.
static void process_ended(void *opaque, unsigned events)
{
    struct handover_former *former = opaque;
    (void)events;
    former_gone(former);
    machine_requests_forsaken(partition_machine(former->partition));
}

static void peer_closed(struct handover_former *former)
{
    former->closed = true;
    loop_watch_close(former->watch);
    former->watch = NULL;
    if (former->process < 0 ||
        loop_watch_create(partition_loop(former->partition), former->process, LOOP_READABLE,
                          process_ended, former, &former->watch) < 0)
        process_ended(former, 0);
}

static void take_ended(struct handover_former *former)
{
    const struct peer_message *message = &former->message;
    struct machine *machine = partition_machine(former->partition);
    for (size_t at = 0; message->length_bytes - at >= sizeof(struct peer_ended);
         at += sizeof(struct peer_ended)) {
        struct peer_ended ended;
        memcpy(&ended, message->payload + at, sizeof(ended));
        if (ended.head <= UINT16_MAX)
            machine_request_ended(machine, ended.slot, (uint16_t)ended.head, ended.written_bytes);
    }
}

// Takes one message, waiting for it as long as `timeout_ms`. 0 or what peer_receive returns.
static int former_hear(struct handover_former *former, unsigned timeout_ms)
{
    int rc = peer_receive(former->peer, &former->message, timeout_ms);
    if (rc < 0)
        return rc;
    peer_message_close_fds(&former->message);
    if (former->message.type == PEER_ENDED)
        take_ended(former);
    else if (former->message.type == PEER_RETIRED)
        former_gone(former);
    return 0;
}

static void former_readable(void *opaque, unsigned events)
{
    struct handover_former *former = opaque;
    (void)events;
    int rc = former_hear(former, 0);
    if (rc == -EPIPE || rc == -EPROTO)
        peer_closed(former);
}

// A device must wait for what O has under way.
static bool former_settle(void *opaque)
{
    struct handover_former *former = opaque;
    uint64_t deadline_ns = clock_monotonic_ns() + SETTLE_MS * 1000000ull;
    while (!former->gone && !former->closed && clock_monotonic_ns() < deadline_ns) {
        int rc = former_hear(former, SETTLE_MS);
        if (rc < 0 && rc != -ETIME)
            former->closed = true;
    }
    if (!former->gone && former->closed && former->process >= 0) {
        struct pollfd pollfd = {.fd = former->process, .events = POLLIN};
        former->gone = poll(&pollfd, 1, SETTLE_MS) == 1;
    }
    return former->gone || (former->closed && former->process < 0);
}

static void former_watch(void *opaque)
{
    struct handover_former *former = opaque;
    machine_set_former(partition_machine(former->partition), former_settle, former);
    if (loop_watch_create(partition_loop(former->partition), former->peer, LOOP_READABLE,
                          former_readable, former, &former->watch) < 0)
        log_line(LOG_ERROR, "cannot hear the old monitor: its disk requests may never end");
}

// ---- Taking over --------------------------------------------------------------------------------

struct take {
    struct handover_new *new;
    enum handover_step step;
    uint32_t owner;  // before
    struct partition *partition;
    struct status_page *status;
    struct peer_message *message;  // the last received
    int state_fd;
    uint8_t *bytes;  // the states, as they come
    size_t capacity_bytes;
    int *fds;
    size_t fd_count;
    struct state_writer *check;
};

static int hear(struct take *take, unsigned timeout_ms, struct error *err)
{
    int rc = peer_receive(take->new->peer, take->message,
                          handover_wait_ms(take->new->patience_ms, timeout_ms));
    if (rc == -EPIPE)
        return error_set(err, rc, "the old monitor has ended");
    if (rc == -ETIME)
        return error_set(err, rc, "the old monitor does not go on");
    return rc < 0 ? error_set_errno(err, rc, "no message of the old monitor") : 0;
}

static int expect(struct take *take, enum peer_type type, unsigned timeout_ms, unsigned fd_count,
                  size_t length_bytes, struct error *err)
{
    int rc = hear(take, timeout_ms, err);
    if (rc == 0 && (take->message->type != type || take->message->fd_count != fd_count ||
                    take->message->length_bytes != length_bytes)) {
        peer_message_close_fds(take->message);
        rc = error_set(err, -EPROTO, "the old monitor does not keep to the protocol");
    }
    return rc;
}

static int tell(struct take *take, enum peer_type type, const void *payload, size_t length_bytes,
                struct error *err)
{
    int rc = peer_send(take->new->peer, type, payload, length_bytes, NULL, 0, SEND_MS);
    return rc < 0 ? error_set_errno(err, rc, "the old monitor cannot be told") : 0;
}

// ---- Hello --------------------------------------------------------------------------------------

// Moves the message's descriptors into a set, by the names that it gives them.
static int name_fds(struct peer_message *message, const json_t *names, struct descriptors *set,
                    struct error *err)
{
    int rc = json_array_size(names) == message->fd_count ? 0 : -EPROTO;
    for (unsigned i = 0; i < message->fd_count && rc == 0; i++) {
        const char *name = json_string_value(json_array_get(names, i));
        int fd = message->fds[i];
        if (!name) {
            rc = -EPROTO;
        } else {
            message->fds[i] = -1;
            rc = descriptors_add(set, name, fd);
        }
    }
    peer_message_close_fds(message);
    return rc < 0 ? error_set_errno(err, rc, "the old monitor's descriptors are not as it says")
                  : 0;
}

static int build(struct take *take, const json_t *hello, struct error *err)
{
    struct handover_new *new = take->new;
    struct descriptors fds = {0};
    json_int_t protocol = -1, owner = 0;
    json_t *definition = NULL, *names = NULL;
    const char *version = "";
    if (json_unpack((json_t *)hello, "{sI}", "protocol", &protocol) < 0 ||
        protocol != PEER_PROTOCOL)
        return error_set(err, -EPROTONOSUPPORT,
                         "the old monitor speaks version %lld of the protocol, this one version %d",
                         (long long)protocol, PEER_PROTOCOL);
    if (json_unpack((json_t *)hello, "{ss sI so so}", "version", &version, "owner", &owner,
                    "partition", &definition, "fds", &names) < 0)
        return error_set(err, -EPROTO, "the old monitor's greeting lacks something");
    log_line(LOG_DEBUG, "taking over from a monitor of version %s", version);
    take->owner = (uint32_t)owner;
    int rc = name_fds(take->message, names, &fds, err);
    if (rc == 0)
        rc = new->build(new->opaque, definition, &fds, &take->partition, &take->status, err);
    descriptors_close(&fds);
    return rc;
}

static int greeted(struct take *take, struct error *err)
{
    struct handover_new *new = take->new;
    int rc = hear(take, HELLO_MS, err);
    if (rc == 0 && take->message->type != PEER_HELLO)
        rc = error_set(err, -EPROTO, "the old monitor does not greet");
    if (rc == 0 && new->confine)
        rc = new->confine(new->opaque, err);
    if (rc == 0)
        rc = handover_fault_at(&new->fault, take->step, err);
    if (rc == 0) {
        json_error_t where;
        json_t *hello = json_loads((char *)take->message->payload, 0, &where);
        rc = hello ? build(take, hello, err)
                   : error_set(err, -EPROTO, "the old monitor's greeting is no JSON");
        json_decref(hello);
    }
    peer_message_close_fds(take->message);
    if (rc < 0)
        return rc;
    char ready[128];
    bool other = handover_fault_is(&new->fault, take->step, HANDOVER_FAULT_VERSION);
    int length = snprintf(ready, sizeof(ready), "{\"protocol\":%d,\"version\":\"%s\"}",
                          PEER_PROTOCOL + other, STRAKE_VERSION);
    return tell(take, PEER_READY, ready, (size_t)length, err);
}

// ---- Warm ---------------------------------------------------------------------------------------

// Leaves the processor to the guest now and then, and stops when it has been long enough.
static bool go_on(void *opaque)
{
    const uint64_t *deadline_ns = opaque;
    nanosleep(&(struct timespec){.tv_nsec = REST_NS}, NULL);
    return clock_monotonic_ns() < *deadline_ns;
}

struct warming {
    struct take *take;
    struct peer_warm warm;
    int hot_fd;
    uint64_t deadline_ns;
};

// Each hart gets its share of the time that is left.
static void warm_harts(struct take *take, int hot_fd, const struct peer_warm *warm,
                       uint64_t deadline_ns)
{
    struct machine *machine = partition_machine(take->partition);
    uint64_t at = 0, hart_ns;
    const struct hart_pace pace = {.go_on = go_on, .opaque = &hart_ns};
    for (unsigned i = 0, harts = machine_cpus(machine); i < harts; i++) {
        uint64_t length_bytes = warm->hot_bytes[i], now_ns = clock_monotonic_ns();
        hart_ns = now_ns + (deadline_ns > now_ns ? deadline_ns - now_ns : 0) / (harts - i);
        if (length_bytes == 0)
            continue;
        if (length_bytes > PEER_HOT_BYTES_MAX - at)
            return;
        void *bytes = malloc(length_bytes);
        if (bytes && fd_pread_full(hot_fd, bytes, length_bytes, at) == (int64_t)length_bytes)
            hart_warm(machine_hart(machine, i), bytes, length_bytes, &pace);
        free(bytes);
        at += length_bytes;
    }
}

// In a thread of its own, since what has become nice cannot become less so again.
static void *warm_thread(void *opaque)
{
    struct warming *warming = opaque;
    struct take *take = warming->take;
    thread_be_nicer(WARM_NICER);
    memory_populate(machine_memory(partition_machine(take->partition)), go_on,
                    &warming->deadline_ns);
    warm_harts(take, warming->hot_fd, &warming->warm, warming->deadline_ns);
    return NULL;
}

// Has memory for the states, and touches as much of it as they mostly take.
static int prepare_states(struct take *take, struct error *err)
{
    take->capacity_bytes = STATE_READY_BYTES;
    take->bytes = malloc(take->capacity_bytes);
    take->fds = malloc(PEER_STATE_FDS_MAX * sizeof(*take->fds));
    if (!take->bytes || !take->fds || state_writer_create(&take->check, true) < 0)
        return error_set_errno(err, -ENOMEM, "cannot load the state");
    memset(take->bytes, 0, take->capacity_bytes);
    return 0;
}

static int load_partition(struct take *take, const void *bytes, size_t length_bytes, const int *fds,
                          size_t fd_count, struct state_writer *check, struct error *err)
{
    struct state_reader *reader;
    int rc = state_reader_create(&reader, bytes, length_bytes, fds, fd_count, err);
    if (rc < 0)
        return rc;
    rc = partition_load(take->partition, reader, check, err);
    if (rc == 0)
        rc = state_reader_finish(reader, err);
    state_reader_destroy(reader);
    return rc;
}

// Saves and loads what the machine is after its creation, so that the code for it and memory are
// there when it counts: the first time takes about three times as long as the second.
static int rehearse(struct take *take, struct error *err)
{
    struct state_writer *first, *second;
    const void *bytes;
    const int *fds;
    size_t length_bytes, fd_count;
    int rc = state_writer_create(&first, true);
    if (rc < 0)
        return error_set_errno(err, rc, "cannot load a state");
    partition_save(take->partition, first);
    rc = state_writer_finish(first, &bytes, &length_bytes, &fds, &fd_count);
    if (rc == 0)
        rc = state_writer_create(&second, true);
    if (rc == 0) {
        rc = load_partition(take, bytes, length_bytes, fds, fd_count, second, err);
        state_writer_destroy(second);
    }
    state_writer_destroy(first);
    return rc;
}

static int warm(struct take *take, struct error *err)
{
    struct warming warming = {.take = take, .deadline_ns = clock_monotonic_ns() + WARM_NS};
    pthread_t thread;
    int rc = expect(take, PEER_WARM, WARM_MS, 2, sizeof(warming.warm), err);
    if (rc == 0)
        rc = handover_fault_at(&take->new->fault, take->step, err);
    if (rc < 0)
        return rc;
    memcpy(&warming.warm, take->message->payload, sizeof(warming.warm));
    take->state_fd = take->message->fds[0];
    warming.hot_fd = take->message->fds[1];
    rc = -pthread_create(&thread, NULL, warm_thread, &warming);
    if (rc == 0)
        rc = -pthread_join(thread, NULL);
    close(warming.hot_fd);
    if (rc < 0)
        return error_set_errno(err, rc, "cannot make ready what is hot");
    rc = prepare_states(take, err);
    if (rc == 0)
        rc = rehearse(take, err);
    if (rc == 0)
        rc = tell(take, PEER_WARMED, NULL, 0, err);
    return rc;
}

// ---- State --------------------------------------------------------------------------------------

static int take_descriptors(struct take *take, struct error *err)
{
    struct peer_message *message = take->message;
    if (message->fd_count > PEER_STATE_FDS_MAX - take->fd_count) {
        peer_message_close_fds(message);
        return error_set(err, -EMFILE, "the old monitor's state has too many descriptors");
    }
    memcpy(take->fds + take->fd_count, message->fds, message->fd_count * sizeof(int));
    take->fd_count += message->fd_count;
    return 0;
}

static int read_states(struct take *take, const struct peer_state *state, struct error *err)
{
    uint64_t bytes = state->length_bytes[0], fds = state->fd_count[0];
    if (bytes > PEER_STATE_BYTES_MAX || state->length_bytes[1] > PEER_STATE_BYTES_MAX ||
        fds > take->fd_count || state->fd_count[1] != take->fd_count - fds)
        return error_set(err, -EPROTO, "the old monitor's state is too large, or incomplete");
    bytes += state->length_bytes[1];
    if (bytes > take->capacity_bytes) {
        uint8_t *grown = realloc(take->bytes, bytes);
        if (!grown)
            return error_set_errno(err, -ENOMEM, "cannot load the state");
        take->bytes = grown;
        take->capacity_bytes = bytes;
    }
    int64_t got = fd_pread_full(take->state_fd, take->bytes, bytes, 0);
    if (got != (int64_t)bytes)
        return error_set_errno(err, got < 0 ? (int)got : -ENODATA, "cannot read the state");
    return 0;
}

// Waits for both states and has them in memory of its own.
static int receive_states(struct take *take, struct peer_state *state, struct error *err)
{
    int rc;
    do {
        rc = hear(take, STATE_MS, err);
        if (rc == 0 && take->message->type == PEER_DESCRIPTORS)
            rc = take_descriptors(take, err);
    } while (rc == 0 && take->message->type == PEER_DESCRIPTORS);
    if (rc < 0)
        return rc;
    handover_mark_now(take->status, HANDOVER_RECEIVED);
    peer_message_close_fds(take->message);
    if (take->message->type != PEER_STATE || take->message->length_bytes != sizeof(*state))
        return error_set(err, -EPROTO, "the old monitor does not send its state");
    memcpy(state, take->message->payload, sizeof(*state));
    return read_states(take, state, err);
}

static int load_monitor(struct take *take, const struct peer_state *state, struct error *err)
{
    struct handover_new *new = take->new;
    struct state_reader *reader;
    int rc =
        state_reader_create(&reader, take->bytes + state->length_bytes[0], state->length_bytes[1],
                            take->fds + state->fd_count[0], state->fd_count[1], err);
    if (rc < 0)
        return rc;
    if (new->load)
        rc = new->load(new->opaque, reader, err);
    if (rc == 0)
        rc = state_reader_finish(reader, err);
    state_reader_destroy(reader);
    return rc;
}

// What was loaded is saved again, and has to be what was loaded.
static int compare(struct take *take, const struct peer_state *state, struct error *err)
{
    const void *bytes;
    const int *fds;
    size_t length_bytes, fd_count;
    int rc = state_writer_finish(take->check, &bytes, &length_bytes, &fds, &fd_count);
    if (rc < 0)
        return error_set_errno(err, rc, "cannot save the state again");
    if (handover_fault_is(&take->new->fault, take->step, HANDOVER_FAULT_CORRUPT))
        take->bytes[state->length_bytes[0] / 2] ^= 1;
    rc = state_compare(take->bytes, state->length_bytes[0], bytes, length_bytes, err);
    return rc < 0 ? error_prefix(err, "the state is another after loading") : 0;
}

static int adopt(struct take *take, struct error *err)
{
    struct peer_state state = {0};
    int rc = handover_fault_at(&take->new->fault, HANDOVER_STEP_STATE, err);
    if (rc == 0)
        rc = receive_states(take, &state, err);
    if (rc < 0)
        return rc;
    take->step = HANDOVER_STEP_ADOPT;
    rc = handover_fault_at(&take->new->fault, take->step, err);
    if (rc == 0)
        rc = load_partition(take, take->bytes, state.length_bytes[0], take->fds, state.fd_count[0],
                            take->check, err);
    if (rc == 0)
        rc = load_monitor(take, &state, err);
    if (rc < 0)
        return rc;
    handover_mark_now(take->status, HANDOVER_LOADED);
    rc = compare(take, &state, err);
    handover_mark_now(take->status, HANDOVER_COMPARED);
    return rc;
}

// ---- Run ----------------------------------------------------------------------------------------

// Waits, a short while, until harts that were in the guest in O are in it here.
static void note_entered(struct take *take)
{
    struct handover_times *times = &take->status->handover;
    struct machine *machine = partition_machine(take->partition);
    uint64_t deadline_ns = clock_monotonic_ns() + ENTER_NS;
    for (unsigned i = 0; i < machine_cpus(machine); i++) {
        uint64_t entered_ns = 0;
        while (atomic_load(&times->left_ns[i]) && clock_monotonic_ns() < deadline_ns) {
            entered_ns = partition_hart_span(take->partition, i).entered_ns;
            if (entered_ns)
                break;
            nanosleep(&(struct timespec){.tv_nsec = REST_NS}, NULL);
        }
        atomic_store(&times->entered_ns[i], entered_ns);
    }
}

static int own(struct take *take, struct error *err)
{
    struct handover_new *new = take->new;
    struct handover_former *former = new->old;
    take->step = HANDOVER_STEP_RUN;
    loop_call(partition_loop(take->partition), former_watch, former);
    int rc = handover_fault_at(&new->fault, take->step, err);
    if (rc < 0)
        return rc;
    if (!status_page_move_owner(take->status, take->owner, OWNER_TAKE))
        return error_set(err, -EOWNERDEAD,
                         "the partition is not the old monitor's to give any more");
    handover_mark_now(take->status, HANDOVER_OWNED);
    partition_resume(take->partition);
    handover_mark_now(take->status, HANDOVER_RUNNING);
    return 0;
}

// ---- All of it ----------------------------------------------------------------------------------

static int take_over(struct take *take, struct error *err)
{
    struct handover_former *former = take->new->old;
    int rc = greeted(take, err);
    if (rc == 0) {
        take->step = HANDOVER_STEP_WARM;
        former->partition = take->partition;
        rc = warm(take, err);
    }
    if (rc == 0) {
        take->step = HANDOVER_STEP_STATE;
        rc = adopt(take, err);
    }
    return rc < 0 ? rc : own(take, err);
}

// Descriptors that loading has taken are duplicates, so what came is closed in any case.
static void close_take(struct take *take)
{
    for (size_t i = 0; i < take->fd_count; i++)
        close(take->fds[i]);
    state_writer_destroy(take->check);
    if (take->state_fd >= 0)
        close(take->state_fd);
    free(take->bytes);
    free(take->fds);
    free(take->message);
}

int handover_take(struct handover_new *new, struct error *err)
{
    struct error why = {0};
    struct take take = {.new = new, .message = malloc(sizeof(*take.message)), .state_fd = -1};
    new->old = calloc(1, sizeof(*new->old));
    int rc = -ENOMEM;
    if (!take.message || !new->old) {
        error_set_errno(&why, rc, "no memory");
    } else {
        *new->old = (struct handover_former){.peer = new->peer, .process = new->former};
        rc = take_over(&take, &why);
    }
    if (rc == 0) {
        // O goes by the status page if it does not hear this. What it does then, ending not least,
        // is to take no processor from harts that are about to go on.
        note_entered(&take);
        (void)tell(&take, PEER_RUN, NULL, 0, NULL);
        (void)handover_fault_at(&new->fault, HANDOVER_STEP_RETIRE, NULL);
    } else {
        (void)tell(&take, PEER_REFUSED, why.message, strlen(why.message), NULL);
        error_set(err, rc, "cannot take the partition over, at step \"%s\": %s",
                  handover_step_name(take.step), why.message);
        handover_fini(new);
    }
    close_take(&take);
    return rc;
}

static void former_forget(void *opaque)
{
    struct handover_former *former = opaque;
    machine_set_former(partition_machine(former->partition), NULL, NULL);
    loop_watch_close(former->watch);
    former->watch = NULL;
}

void handover_fini(struct handover_new *new)
{
    struct handover_former *former = new->old;
    if (!former)
        return;
    if (former->partition)
        loop_call(partition_loop(former->partition), former_forget, former);
    if (new->peer >= 0)
        close(new->peer);
    if (new->former >= 0)
        close(new->former);
    free(former);
    new->old = NULL;
    new->peer = new->former = -1;
}
