// SPDX-License-Identifier: BSD-2-Clause
// A partition as what GDB debugs (gdb/gdb.h), over TCP: one GDB thread a hart (thread n is hart
// n-1).
//
// While GDB looks at the partition it is paused. A step runs one hart alone. Memory is
// guest-virtual as the selected hart sees it, RAM only: reading device registers has side effects
// that a debugger's user does not expect.
//
// Threading invariant: everything belongs to the server's thread but `hits` and `quit`, which harts
// and gdb_server_destroy set before they signal `event_fd`.
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "gdb/gdb.h"
#include "monitor/internal.h"

struct gdb_server {
    struct partition *partition;
    unsigned cpus;
    pthread_t thread;
    struct gdb_session *session;
    int listen_fd, event_fd;
    atomic_uint hits;  // a bit a hart that stopped by itself and was not reported yet
    atomic_bool quit;
    bool serving;  // the thread is there
    bool leaving;  // to another process: the debugger is not to know
};

// ---- The target ---------------------------------------------------------------------------------

static struct hart *hart_at(const struct gdb_server *server, unsigned id)
{
    return machine_hart(partition_machine(server->partition), id);
}

static uint64_t next_thread(void *opaque, uint64_t after)
{
    const struct gdb_server *server = opaque;
    return after < server->cpus ? after + 1 : 0;
}

static struct hart *hart_of(void *opaque, uint64_t thread)
{
    const struct gdb_server *server = opaque;
    return thread >= 1 && thread <= server->cpus ? hart_at(server, (unsigned)thread - 1) : NULL;
}

static void describe_thread(void *opaque, uint64_t thread, char *text, size_t capacity)
{
    snprintf(text, capacity, "hart %u%s", (unsigned)thread - 1,
             hart_is_parked(hart_of(opaque, thread)) ? " (not started)" : "");
}

// The host address of guest-virtual `gva`, and how many bytes of its page follow.
static uint8_t *memory_at(const struct gdb_server *server, uint64_t thread, uint64_t gva,
                          size_t *left)
{
    uint64_t gpa;
    *left = MEMORY_PAGE_BYTES - gva % MEMORY_PAGE_BYTES;
    if (hart_debug_translate(hart_at(server, (unsigned)thread - 1), gva, &gpa) < 0)
        return NULL;
    return memory_ram_hva(machine_memory(partition_machine(server->partition)), gpa, *left);
}

static size_t read_memory(void *opaque, uint64_t thread, uint64_t gva, void *bytes, size_t count)
{
    size_t done = 0, left;
    for (const uint8_t *from; done < count && (from = memory_at(opaque, thread, gva + done, &left));
         done += left) {
        left = left < count - done ? left : count - done;
        memcpy((uint8_t *)bytes + done, from, left);
    }
    return done;
}

static size_t write_memory(void *opaque, uint64_t thread, uint64_t gva, const void *bytes,
                           size_t count)
{
    struct gdb_server *server = opaque;
    size_t done = 0, left;
    for (uint8_t *to; done < count && (to = memory_at(server, thread, gva + done, &left));
         done += left) {
        left = left < count - done ? left : count - done;
        memcpy(to, (const uint8_t *)bytes + done, left);
    }
    // What was written may be code.
    for (unsigned i = 0; i < server->cpus; i++) {
        struct hart *hart = hart_at(server, i);
        hart_fence_remote(NULL, &hart, 1, HART_FENCE_I);
    }
    return done;
}

static int change_breakpoint(void *opaque, uint64_t gva, bool add)
{
    struct gdb_server *server = opaque;
    int rc = 0;
    for (unsigned i = 0; i < server->cpus && rc == 0; i++) {
        struct hart *hart = hart_at(server, i);
        rc = add ? hart_breakpoint_add(hart, gva) : hart_breakpoint_remove(hart, gva);
        if (rc == -EEXIST || rc == -ENOENT)
            rc = 0;  // GDB may repeat itself
    }
    return rc;
}

static void stop(void *opaque)
{
    struct gdb_server *server = opaque;
    partition_pause(server->partition);
}

// A hart that stopped by itself.
static bool report(void *opaque)
{
    struct gdb_server *server = opaque;
    unsigned hits = atomic_load(&server->hits);
    if (!hits)
        return false;
    unsigned hart = (unsigned)__builtin_ctz(hits);
    atomic_fetch_and(&server->hits, ~(1u << hart));
    gdb_session_stopped(server->session, &(struct gdb_stop){.thread = hart + 1, .signal = SIGTRAP});
    return true;
}

static void step(struct gdb_server *server, uint64_t thread)
{
    // A hart that was not started yet has no instruction to execute.
    if (!hart_is_parked(hart_of(server, thread)))
        partition_step(server->partition, (unsigned)thread - 1);
    gdb_session_stopped(server->session, &(struct gdb_stop){.thread = thread, .signal = SIGTRAP});
}

// The first step decides; with it, other harts wait (a step that others can not disturb); else
// everything continues, and signals are nothing a hart can take. Two harts can hit breakpoints at
// once: the second is reported when GDB wants to go on from the first.
static void resume(void *opaque, const struct gdb_action *actions, size_t count)
{
    struct gdb_server *server = opaque;
    for (size_t i = 0; i < count; i++)
        if (actions[i].step) {
            step(server, actions[i].thread ? actions[i].thread : 1);
            return;
        }
    if (!report(server))
        partition_resume(server->partition);
}

static void let_go(void *opaque)
{
    struct gdb_server *server = opaque;
    for (unsigned i = 0; i < server->cpus; i++) {
        struct hart *hart = hart_at(server, i);
        while (hart->breakpoint_count > 0)
            if (hart_breakpoint_remove(hart, hart->breakpoints[0]) < 0)
                break;
    }
    atomic_store(&server->hits, 0);
    partition_resume(server->partition);
}

static void kill_partition(void *opaque)
{
    struct gdb_server *server = opaque;
    partition_stop(server->partition);
}

static const struct gdb_target target = {
    .machine = true,
    .next_thread = next_thread,
    .describe_thread = describe_thread,
    .hart = hart_of,
    .read = read_memory,
    .write = write_memory,
    .breakpoint = change_breakpoint,
    .stop = stop,
    .report = report,
    .resume = resume,
    .let_go = let_go,
    .kill = kill_partition,
};

// ---- The server ---------------------------------------------------------------------------------

static void report_hit(struct gdb_server *server)
{
    if (!gdb_session_is_waiting(server->session) || !atomic_load(&server->hits))
        return;
    partition_pause(server->partition);
    report(server);
}

static void take_client(struct gdb_server *server)
{
    int fd = accept4(server->listen_fd, NULL, NULL, SOCK_CLOEXEC);
    if (fd >= 0)
        gdb_session_open(server->session, fd);
}

static void *serve(void *opaque)
{
    struct gdb_server *server = opaque;
    while (!atomic_load(&server->quit)) {
        int client_fd = gdb_session_fd(server->session);
        struct pollfd fds[] = {
            {.fd = server->event_fd, .events = POLLIN},
            {.fd = client_fd < 0 ? server->listen_fd : client_fd, .events = POLLIN},
        };
        if (poll(fds, BASE_COUNT_OF(fds), -1) < 0)
            continue;
        if (fds[0].revents) {
            uint64_t count;
            (void)!read(server->event_fd, &count, sizeof(count));
            report_hit(server);
        }
        if (fds[1].revents && client_fd < 0)
            take_client(server);
        else if (fds[1].revents)
            gdb_session_receive(server->session);
    }
    if (gdb_session_is_waiting(server->session) && !server->leaving)
        gdb_session_ended(server->session, false, 0);
    return NULL;
}

static void notify(struct gdb_server *server)
{
    uint64_t one = 1;
    (void)!write(server->event_fd, &one, sizeof(one));
}

// On the hart's thread.
static void on_hart_stopped(void *opaque, unsigned hart, enum hart_exit why)
{
    struct gdb_server *server = opaque;
    (void)why;
    atomic_fetch_or(&server->hits, 1u << hart);
    notify(server);
}

static void server_free(struct gdb_server *server)
{
    gdb_session_destroy(server->session);
    if (server->event_fd >= 0)
        close(server->event_fd);
    free(server);
}

// One that does not serve yet.
static int server_create(struct gdb_server **out, int listen_fd, struct partition *partition,
                         struct error *err)
{
    struct gdb_server *server = calloc(1, sizeof(*server));
    if (!server)
        return error_set_errno(err, -ENOMEM, "cannot start the GDB server");
    *server = (struct gdb_server){.partition = partition,
                                  .cpus = machine_cpus(partition_machine(partition)),
                                  .listen_fd = listen_fd,
                                  .event_fd = eventfd(0, EFD_CLOEXEC)};
    int rc = server->event_fd < 0 ? -errno : gdb_session_create(&server->session, &target, server);
    if (rc < 0) {
        server_free(server);
        return error_set_errno(err, rc, "cannot start the GDB server");
    }
    partition_set_debug(partition, on_hart_stopped, server);
    *out = server;
    return 0;
}

int gdb_server_run(struct gdb_server *server, struct error *err)
{
    server->leaving = false;
    atomic_store(&server->quit, false);
    // A breakpoint that was hit just before the process changed.
    if (gdb_session_is_waiting(server->session))
        atomic_fetch_or(&server->hits, partition_held(server->partition));
    notify(server);
    int rc = -pthread_create(&server->thread, NULL, serve, server);
    if (rc < 0)
        return error_set_errno(err, rc, "cannot start the GDB server");
    pthread_setname_np(server->thread, "gdb");
    server->serving = true;
    return 0;
}

static void stop_serving(struct gdb_server *server)
{
    if (!server->serving)
        return;
    atomic_store(&server->quit, true);
    notify(server);
    pthread_join(server->thread, NULL);
    server->serving = false;
}

int gdb_server_create(struct gdb_server **out, int listen_fd, struct partition *partition,
                      struct error *err)
{
    int rc = server_create(out, listen_fd, partition, err);
    if (rc < 0)
        return rc;
    rc = gdb_server_run(*out, err);
    if (rc < 0) {
        partition_set_debug(partition, NULL, NULL);
        server_free(*out);
        *out = NULL;
    }
    return rc;
}

void gdb_server_destroy(struct gdb_server *server)
{
    if (!server)
        return;
    stop_serving(server);
    server_free(server);
}

// ---- Handover -----------------------------------------------------------------------------------

struct gdb_state {
    int client_fd;
    bool stopped, acks;
    uint32_t hart, last_signal, last_hart, hits;
    struct state_blob in;  // what has come of a packet
};

static const struct state_field gdb_fields[] = {
    STATE_FIELD(struct gdb_state, client_fd, STATE_FD, 1, 0),
    STATE_FIELD(struct gdb_state, stopped, STATE_BOOL, 1, 0),
    STATE_FIELD(struct gdb_state, acks, STATE_BOOL, 1, 0),
    STATE_FIELD(struct gdb_state, hart, STATE_U32, 1, HART_MAX - 1),
    STATE_FIELD(struct gdb_state, last_signal, STATE_U32, 1, 255),
    STATE_FIELD(struct gdb_state, last_hart, STATE_U32, 1, HART_MAX - 1),
    STATE_FIELD(struct gdb_state, hits, STATE_U32, 1, (1u << HART_MAX) - 1),
    STATE_FIELD(struct gdb_state, in, STATE_BLOB, 1, GDB_PACKET_BYTES),
    {0},
};

static const struct state_schema gdb_schema = {
    .name = "gdb", .version = 1, .struct_bytes = sizeof(struct gdb_state), .fields = gdb_fields};

// 0 for both the first one and none.
static uint32_t hart_number(uint64_t thread)
{
    return thread ? (uint32_t)thread - 1 : 0;
}

void gdb_server_save(struct gdb_server *server, struct state_writer *writer)
{
    struct gdb_session_state session;
    server->leaving = true;
    stop_serving(server);
    gdb_session_save(server->session, &session);
    const struct gdb_state state = {
        .client_fd = gdb_session_fd(server->session),
        .stopped = session.stopped,
        .acks = session.acks,
        .hart = hart_number(session.thread),
        .last_signal = session.last_signal,
        .last_hart = hart_number(session.last_thread),
        .hits = atomic_load(&server->hits),
        .in = {.bytes = session.in, .length_bytes = session.in_bytes},
    };
    state_write(writer, &gdb_schema, 0, &state);
}

static int take_state(struct gdb_server *server, const struct gdb_state *state, struct error *err)
{
    unsigned cpus = server->cpus;
    if (state->hart >= cpus || state->last_hart >= cpus || state->hits >> cpus)
        return error_set(err, -EINVAL, "section \"gdb\" names a hart that there is not");
    const struct gdb_session_state session = {
        .stopped = state->stopped,
        .acks = state->acks,
        .thread = state->hart + 1,
        .last_thread = state->last_hart + 1,
        .last_signal = state->last_signal,
        .in = state->in.bytes,
        .in_bytes = state->in.length_bytes,
    };
    int fd = state->client_fd < 0 ? -1 : fcntl(state->client_fd, F_DUPFD_CLOEXEC, 0);
    if (state->client_fd >= 0 && fd < 0)
        return error_set_errno(err, -errno, "cannot keep the debugger");
    atomic_store(&server->hits, state->hits);
    gdb_session_load(server->session, &session, fd);
    return 0;
}

int gdb_server_load(struct gdb_server **out, int listen_fd, struct partition *partition,
                    struct state_reader *reader, struct error *err)
{
    struct gdb_state state = {.client_fd = -1};
    int rc = server_create(out, listen_fd, partition, err);
    if (rc < 0)
        return rc;
    rc = state_read(reader, &gdb_schema, 0, &state, err);
    if (rc == 0)
        rc = take_state(*out, &state, err);
    if (rc < 0) {
        partition_set_debug(partition, NULL, NULL);
        server_free(*out);
        *out = NULL;
    }
    return rc;
}
