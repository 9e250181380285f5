// SPDX-License-Identifier: BSD-2-Clause
// What the files of this room share: the monitor, as its main thread has it.
//
// Threads: the main thread runs `loop` and owns everything here; operations are called on it. A
// thread of its own waits for the partition's end. The partition has its threads (partition.h), the
// GDB server one.
#ifndef STRAKE_MONITOR_INTERNAL_H
#define STRAKE_MONITOR_INTERNAL_H

#include <pthread.h>

#include "jit/jit.h"
#include "monitor/handover.h"
#include "monitor/monitor.h"
#include "state/state.h"
#include "verify/verify.h"

// ---- GDB server: GDB Remote Serial Protocol, one thread a hart ----------------------------------

struct gdb_server;

// Serves debuggers that connect to `listen_fd`, which stays the caller's. The partition must be
// paused once on the server's behalf; it goes on when the debugger says so or goes away.
BASE_NODISCARD int gdb_server_create(struct gdb_server **out, int listen_fd,
                                     struct partition *partition, struct error *err);
void gdb_server_destroy(struct gdb_server *server);  // NULL is ignored

// Handover: stops serving without a word to the debugger, and writes section "gdb" with the
// connection's descriptor. Afterwards the process ends, or gdb_server_run goes on with it.
void gdb_server_save(struct gdb_server *server, struct state_writer *writer);
// What was saved, in the new process; it serves from gdb_server_run on. The partition's pauses and
// the harts' breakpoints are as they were.
BASE_NODISCARD int gdb_server_load(struct gdb_server **out, int listen_fd,
                                   struct partition *partition, struct state_reader *reader,
                                   struct error *err);
BASE_NODISCARD int gdb_server_run(struct gdb_server *server, struct error *err);

// ---- Console input ------------------------------------------------------------------------------
//
// Gives the guest what arrives at a stream socket. What the guest has no room for stays in the
// socket, so that there is nothing to save: a successor goes on reading where this one stopped.
//
// Threads: any but the partition's, once it was created.

struct console_input;

BASE_NODISCARD int console_input_create(struct console_input **out, struct partition *partition,
                                        struct error *err);
// Reads from `fd`, which stays the caller's until another one (or -1: none) takes its place.
BASE_NODISCARD int console_input_attach(struct console_input *input, int fd);
// While held nothing is read: from before the state is saved, until it is known who goes on.
void console_input_hold(struct console_input *input, bool hold);
void console_input_room(struct console_input *input);  // as machine_host.console_room; any thread
void console_input_destroy(struct console_input *input);  // NULL is ignored

// ---- Sockets for the guest's vsock (vsock.c) ----------------------------------------------------

struct monitor;

struct vsock_asks {
    pthread_mutex_t lock;
    struct list list;  // those that have not been sent, under lock
    unsigned sent;     // and not answered
    struct loop_wake *wake;
};

BASE_NODISCARD int vsock_asks_init(struct monitor *monitor, struct error *err);
// Once the partition is gone. Also when init was not called.
void vsock_asks_fini(struct monitor *monitor);
// As virtio_vsock_config.connect; `opaque` is the monitor.
void vsock_asks_connect(void *opaque, uint32_t port, uint64_t token);

// ---- The monitor --------------------------------------------------------------------------------

struct monitor {
    struct loop *loop;
    struct link *link;        // to the supervisor; NULL while there is none
    unsigned connection;      // which one, counted
    struct descriptors fds;   // all that came with start, or from the predecessor, by name
    json_t *definition_json;  // as it came
    struct definition definition;
    struct loop_watch *control_watch;  // of the descriptor "control-listen"
    bool left_host;

    struct status_page *status;
    struct console_ring *console;
    struct console_input *input;
    struct gdb_server *gdb;

    struct hart_engine engine;  // the definition's, with its options
    struct jit_options jit;
    struct machine_disk disks[MACHINE_VIRTIO_SLOTS];
    struct virtio_net_config nets[MACHINE_VIRTIO_SLOTS];
    struct virtio_vsock_config vsock;
    struct vsock_asks vsock_asks;
    struct memory_base ram_base;  // shared with others: "ram-base", "ram-map"
    struct machine_config machine;

    struct partition *partition;    // NULL before it was built
    bool paused;                    // by the supervisor
    uint64_t started_ns, ended_ns;  // CLOCK_MONOTONIC; 0: not yet

    // The thread that waits for the partition's end, and what it has found.
    pthread_t waiter;
    bool waiting;
    struct loop_wake *ended;
    enum partition_end end;
    unsigned end_code;
    struct error end_error;  // code 0: partition_wait did not fail
    bool retired;            // the partition lives on elsewhere

    struct handover_new successor;  // as which it got the partition
};

// A request that is answered later, when the connection it came from may be gone.
struct monitor_call {
    unsigned connection;
    uint64_t id;
};

// An operation: an entry of the table in main.c. It answers `call` once, now or later.
typedef void monitor_operation(struct monitor *monitor, struct monitor_call call, json_t *message,
                               struct descriptors *fds);
void monitor_reply(struct monitor *monitor, struct monitor_call call, json_t *result,
                   const struct descriptors *fds);
void monitor_fail(struct monitor *monitor, struct monitor_call call, const struct error *err);

monitor_operation monitor_adopt;     // "adopt": become the owner of what "peer" hands over
monitor_operation monitor_handover;  // "handover": hand over to "peer"

monitor_operation monitor_snapshot;  // "snapshot": state and RAM into files "state" and "ram"

// Gives up what of the host is needed no more: the first step of sandbox.h. Once; while the process
// has one thread.
BASE_NODISCARD int monitor_leave_host(struct monitor *monitor, struct error *err);
// Confines the process, takes the descriptors over and builds the partition that `definition`
// describes: created, nothing loaded, paused once (partition.h). On failure the process is of no
// use any more.
BASE_NODISCARD int monitor_build(struct monitor *monitor, json_t *definition,
                                 struct descriptors *fds, struct error *err);
// Undoes it, for the end of the process.
void monitor_demolish(struct monitor *monitor);
// Instead of power-on: goes on from the snapshot whose "state", "manifest", "ram-base" and
// "ram-map" came with the descriptors, as a copy that knows that it is one. -ESTALE: a disk has
// changed.
BASE_NODISCARD int monitor_restore(struct monitor *monitor, struct error *err);
// Once the machine has been reset or loaded: console input, debugger, further supervisors, the wait
// for the end, and without `paused` (and, at first, a debugger) the harts.
BASE_NODISCARD int monitor_run(struct monitor *monitor, bool paused, struct error *err);
// Takes further supervisors at the descriptor "control-listen", if it is there.
BASE_NODISCARD int monitor_listen(struct monitor *monitor);
// What a partition has around it: further supervisors, console input, the wait for the end. Once it
// is built; nothing comes of it before it runs.
BASE_NODISCARD int monitor_surround(struct monitor *monitor, struct error *err);
// What becomes of this process is nothing to the partition any more.
void monitor_disown(void);

// The answer to "stats". NULL: no memory.
json_t *monitor_stats(struct monitor *monitor);

#endif
