// SPDX-License-Identifier: BSD-2-Clause
// interceptor: what a kind of interceptor (net, files, mount) is to the process around it, and the
// other way round. Private to this room.
//
// Threads: the process has one event loop, run by its main thread. All operations of a kind are
// called on it, and all services are to be called on it, but for counters and logging, which any
// thread may use. A kind may have threads and processes of its own: a thread comes back to the loop
// with loop_wake_signal or loop_call; a process is started by spawn_program or posix_spawn and
// waited for by a pidfd in the loop (SIGCHLD has its default action). When `destroy` returns none
// of the kind's threads are left; processes are left only where that is the kind's purpose.
#ifndef STRAKE_LEVERAGE_INTERCEPTOR_H
#define STRAKE_LEVERAGE_INTERCEPTOR_H

#include "leverage/leverage.h"

// ---- Counters -----------------------------------------------------------------------------------
//
// Any thread. What counts a unit (a packet, a file) is the kind's to say.

#define LATENCY_BUCKETS 640u

struct interceptor_counters {
    _Atomic uint64_t seen;       // that came to the interceptor
    _Atomic uint64_t returned;   // to the host, as it was
    _Atomic uint64_t changed;    // returned to the host, changed
    _Atomic uint64_t dropped;    // refused, by verdict or because the guest was down (closed)
    _Atomic uint64_t timed_out;  // of the others, those that the guest did not answer in time
    _Atomic uint64_t bypassed;   // of those returned, those that no module had seen (open)
    struct latency {
        _Atomic uint64_t max_ns;
        _Atomic uint64_t buckets[LATENCY_BUCKETS];
    } latency;
};

static inline void counter_add(_Atomic uint64_t *counter, uint64_t n)
{
    atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
}
// How long one unit took through the modules.
void counters_latency(struct interceptor_counters *counters, uint64_t ns);
// {"seen": n, ..., "latency": {"unit": "ns", "count", "p50", "p90", "p99", "max", "buckets":
// [[upper bound, count]...]}}. Percentiles are at most 1/16 above the true ones. NULL: no memory.
json_t *counters_to_json(const struct interceptor_counters *counters);

// ---- A kind -------------------------------------------------------------------------------------

struct interceptor;

// What `remove` came to; `err` is NULL when the host is as it was before.
typedef void interceptor_done(void *opaque, const struct error *err);

struct interceptor_ops {
    const char *kind;  // as interceptor_kind_name
    // Capabilities that the kind needs, a set of bits 1 << CAP_...: the process of root gives up
    // all others, for itself and what it starts, before `create`.
    uint64_t capabilities;
    // It starts programs that get further rights when executed (fusermount3); else neither the
    // process nor what it starts can ever get any.
    bool gains_rights;
    // Makes one: the definition is it->definition, descriptors that a former process of the same
    // interceptor left are in it->kept. Nothing is done to the host; that begins with `partition`.
    int (*create)(void **out, struct interceptor *it, struct error *err);
    // One of the partitions that its modules are in came, went, or changed: its monitor started or
    // ended, its guest was replaced by a snapshot's; not at handovers, which nobody need notice.
    // Called for each partition also after `create`, and when it is not known to be there it is
    // down. A view stays valid until the next one of the same partition. It may be told again what
    // it knows.
    void (*partition)(void *kind, const struct partition_view *view);
    // Configurations of modules are to be read and pushed again. NULL: it has none.
    void (*reload)(void *kind);
    // Undoes everything on the host, also what a former process of the same interceptor left there,
    // perhaps before it has done anything itself; then calls `done` once (here, or later) within
    // INTERCEPTOR_REMOVE_MS. Only `partition` and `destroy` are called afterwards; with an error
    // also `remove`, again.
    void (*remove)(void *kind, interceptor_done *done, void *opaque);
    // The kind's own counters, a new object, which go over the common ones. NULL: it has none.
    json_t *(*stats)(void *kind);
    // Frees it. On the host everything stays as it is but for what goes with the process: this is
    // called after `remove`, or when the process ends for another reason.
    void (*destroy)(void *kind);
};

#define INTERCEPTOR_REMOVE_MS 10000u

// What the process is to its kind. Members are not to be changed, but for `counters`, and that
// descriptors may be taken from `kept`.
struct interceptor {
    struct loop *loop;
    const struct interceptor_definition *definition;
    struct descriptors kept;
    struct interceptor_counters counters;
};

// ---- Services -----------------------------------------------------------------------------------

// Where it stands from now on; `why` (a format, NULL: nothing to be said) becomes one sentence. The
// supervisor and the log are told of what is new.
void interceptor_set_state(struct interceptor *it, enum interceptor_state state, const char *why,
                           ...) BASE_PRINTF(3, 4);
enum interceptor_state interceptor_get_state(const struct interceptor *it);
// Something for the stream of events, as `interceptor-NAME`; `details` (NULL: none) is taken over.
// What happens too often is dropped and counted in the log.
void interceptor_event(struct interceptor *it, const char *name, json_t *details);
// The last view of a partition that a module is in; NULL: there is no module in it.
const struct partition_view *interceptor_partition(const struct interceptor *it, const char *name);

// The process id of the supervisor; 0: there is none, or it has not said anything yet.
pid_t interceptor_supervisor(const struct interceptor *it);

// The path of the socket at which supervisors find the process, in a folder of this user's alone.
// -ENOENT: there is none.
BASE_NODISCARD int interceptor_socket(const struct interceptor *it, char *path, size_t capacity);

// What became of an interceptor_hold or interceptor_keep; NULL: done. -ECANCELED: another took its
// place (called from there). Called once, but never when the process ends first.
typedef void interceptor_held(void *opaque, const struct error *err);
// Gives `fd` (stays the caller's, who may close it at once) to the monitor of the partition, which
// holds it for as long as it lives, its successors by handover too: a lifeline. There is one a
// partition and interceptor; a new one takes the place of the former; -1: of none. Without a
// supervisor it waits for the next one; a partition that starts again is given it again, until
// there is another. `done` may be NULL. -ENOENT: no module is in that partition, -EMFILE: then
// `done` is not called.
BASE_NODISCARD int interceptor_hold(struct interceptor *it, const char *partition, int fd,
                                    interceptor_held *done, void *opaque);
// Descriptors (stay the caller's; NULL: none) that the supervisor keeps for the process that comes
// when this one has died: in its it->kept, by their names. They replace those given before, and are
// let go of when the interceptor is removed. None is called "control-listen". Each new supervisor
// is given them. `done` as above; -EMFILE.
BASE_NODISCARD int interceptor_keep(struct interceptor *it, const struct descriptors *fds,
                                    interceptor_held *done, void *opaque);
// The interceptor is over by itself (mount: somebody has unmounted it): the supervisor removes it,
// and the partition of its own.
void interceptor_ended(struct interceptor *it, const char *why);

// ---- Guests -------------------------------------------------------------------------------------
//
// guest.c. What comes from a guest is hostile: lines are bounded, and in them what is not printable
// ASCII has become '?'. Threads: everything belongs to the loop's thread; a thread of a kind may
// use these with a loop of its own.

struct guest_call;

// Ends with a connection to the guest's port (`fd`, non-blocking, the callee's from now on; `err`
// is NULL), or with an error (`fd` is -1): -ETIMEDOUT, -ECONNREFUSED (the guest does not listen),
// what connect(2) says of the path.
typedef void guest_connected(void *opaque, int fd, const struct error *err);
// Never calls `done` before it returns. NULL: no memory, and nothing is called.
BASE_NODISCARD struct guest_call *guest_connect(struct loop *loop, const char *vsock_path,
                                                uint32_t port, unsigned timeout_ms,
                                                guest_connected *done, void *opaque);
// `done` is not called any more. Not for a call that has ended; NULL is ignored.
void guest_cancel(struct guest_call *call);

// A request's line to the agent, and what follows it. Zero-initialised by guest_request_init; too
// much of it is found when it is sent.
#define GUEST_LINE_MAX 16384u
#define GUEST_PAYLOAD_MAX (1u << 20)
#define GUEST_ANSWER_MAX 65536u  // bytes of all lines of an answer

struct guest_request {
    char line[GUEST_LINE_MAX];
    size_t line_bytes;
    const void *payload;  // borrowed until guest_ask returns
    size_t payload_bytes;
};
void guest_request_init(struct guest_request *request, const char *verb);
// Adds KEY=VALUE, the value percent-encoded.
void guest_request_add(struct guest_request *request, const char *key, const char *format, ...)
    BASE_PRINTF(3, 4);
// `payload` (borrowed) follows the line; adds "length".
void guest_request_payload(struct guest_request *request, const void *payload, size_t bytes);

// The agent's answer: lines that began with "- ", without that. With "error TEXT" `err` says so,
// with -EREMOTEIO; with all other errors there are no lines. `fd` is the connection, or -1; who
// does not take it (sets it to -1) has it closed.
struct guest_answer {
    char **lines;
    size_t line_count;
    int fd;
};
typedef void guest_answered(void *opaque, struct guest_answer *answer, const struct error *err);
// Asks the agent, on a connection of its own; as guest_connect. -EMSGSIZE: it is too large, or the
// answer is.
BASE_NODISCARD struct guest_call *guest_ask(struct loop *loop, const char *vsock_path,
                                            const struct guest_request *request,
                                            unsigned timeout_ms, guest_answered *done,
                                            void *opaque);
// The value of KEY in a line of words KEY=VALUE, decoded; false: there is none, or it is too long.
BASE_NODISCARD bool guest_line_value(const char *line, const char *key, char *value,
                                     size_t capacity);

// A file that is to be a payload: a user's configuration, a passphrase. `*bytes` is to be freed.
BASE_NODISCARD int guest_payload_read(const char *path, char **bytes, size_t *count,
                                      struct error *err);

// ---- Kinds --------------------------------------------------------------------------------------

extern const struct interceptor_ops net_ops, files_ops, mount_ops;

#endif
