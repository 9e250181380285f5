// SPDX-License-Identifier: BSD-2-Clause
// monitor: the process of one partition, and what it shares with its supervisor: messages, the
// console's ring, the status page, the partition's definition.
//
// Trust: a guest may have taken its monitor over. Whatever the supervisor gets from one (messages,
// ring, status page) is checked like a guest's; the monitor trusts its supervisor.
#ifndef STRAKE_MONITOR_H
#define STRAKE_MONITOR_H

#include <jansson.h>

#include "jit/jit.h"
#include "partition/partition.h"
#include "usernet/usernet.h"

// The role: what `strake monitor` does, with its control connection at MONITOR_CONTROL_FD. Returns
// the exit status. Never from a command line: a supervisor starts it.
#define MONITOR_CONTROL_FD 3
int monitor_main(void);

// Another role, `strake monitor --self-test`: confines the process as a monitor's is, and finds out
// whether this program runs guests right on this host, on each engine, and loads the states that it
// saves. 0, or a negative errno with *err saying what does not. Afterwards the process is fit only
// to end.
BASE_NODISCARD int monitor_self_test(struct error *err);

// ---- Descriptors by name ------------------------------------------------------------------------
//
// Names are those of docs/partition.md: "kernel", "disk0", "console", ... Plain data, no locks.

#define DESCRIPTORS_MAX 128u
#define DESCRIPTOR_NAME_BYTES 64u

struct descriptors {
    size_t count;
    struct descriptor {
        char name[DESCRIPTOR_NAME_BYTES];
        int fd;
    } list[DESCRIPTORS_MAX];
};

// Takes `fd` over, also on failure, when it is closed: -EEXIST, -ENOSPC, -ENAMETOOLONG, and a
// negative `fd`, which is returned as it is.
int descriptors_add(struct descriptors *set, const char *name, int fd);
// As descriptors_add, and closes what had the name before.
int descriptors_replace(struct descriptors *set, const char *name, int fd);
int descriptors_find(const struct descriptors *set, const char *name);  // -1: there is none
int descriptors_take(struct descriptors *set, const char *name);  // the caller's from now; -1: none
void descriptors_close(struct descriptors *set);                  // all; empty afterwards
// Of a network device's queue: "net0", and "net0-1", "net0-2", ... where there are several.
void descriptors_name_net(char name[DESCRIPTOR_NAME_BYTES], size_t number, unsigned queue);

// ---- Link: messages with descriptors ------------------------------------------------------------
//
// One end of a SOCK_SEQPACKET connection. A message is one JSON object of at most LINK_BYTES_MAX,
// with the names of its descriptors in the order they come: {"op": "stats", "id": 7},
// {"op": ..., "id": 8, "fds": ["peer"], ...}; answered by {"id": 7, ...} or
// {"id": 8, "error": "one sentence", "code": -22}; {"event": "ended", ...} is not answered.
// Either side may send requests and events.
//
// What the peer must not do (no object, too large, a wrong number of descriptors, an answer nobody
// waits for, not reading LINK_QUEUE_MAX messages) ends the connection, and nothing else.
//
// Threads: all of it belongs to the loop's thread (struct loop).

#define LINK_BYTES_MAX 65536u
#define LINK_QUEUE_MAX 256u  // messages that wait for the peer to read

struct link;

struct link_events {
    // A request. `message` is borrowed, "op" is a string in it; `fds` may be taken from (those left
    // are closed). Answered, now or later, once, by link_reply or link_fail with `id`.
    void (*request)(void *opaque, uint64_t id, const char *op, json_t *message,
                    struct descriptors *fds);
    void (*event)(void *opaque, const char *event, json_t *message, struct descriptors *fds);
    // The peer is gone, or has done what it must not (err->code -EPROTO). Called once; the link
    // sends and calls nothing afterwards, and is still to be destroyed (here, too).
    void (*closed)(void *opaque, const struct error *why);
    void *opaque;
};

// What became of a request: `result` and `fds` (may be taken from) are NULL when it failed, and
// then `err` says why; else `err` is NULL. -ECONNRESET: the link was closed first.
typedef void link_done(void *opaque, json_t *result, struct descriptors *fds,
                       const struct error *err);

// Takes `fd` over on success. Members of `events` may be NULL: such messages are refused (requests)
// or ignored.
BASE_NODISCARD int link_create(struct link **out, struct loop *loop, int fd,
                               const struct link_events *events, struct error *err);
// Calls `done` of requests still out, with -ECONNRESET. NULL is ignored. Also from its callbacks.
void link_destroy(struct link *link);

// Sends {"op": op, ...arguments}. `arguments` (NULL: none) is taken over; `fds` (NULL: none) stay
// the caller's, who may close them at once. `done` (NULL: of no interest) is called exactly once,
// never before this returns but from link_destroy.
void link_request(struct link *link, const char *op, json_t *arguments,
                  const struct descriptors *fds, link_done *done, void *opaque);
void link_event(struct link *link, const char *event, json_t *arguments,
                const struct descriptors *fds);
// `result` (NULL: empty) is taken over; it has no member "op", "event", "id", "fds" or "error".
void link_reply(struct link *link, uint64_t id, json_t *result, const struct descriptors *fds);
void link_fail(struct link *link, uint64_t id, const struct error *err);
// Whether the peer is still there.
bool link_is_open(const struct link *link);
// The process that sent the last message, as the kernel says; 0 before there was one.
pid_t link_peer_pid(const struct link *link);

// ---- Console ring -------------------------------------------------------------------------------
//
// What the guest wrote to its console, in memory that monitor and supervisor share; so it outlives
// both, several readers can read from any position, and the monitor never waits for one, unless it
// was told to (throttle). A position is a count of bytes since the partition was created.
//
// Threads: writing from any thread of the monitor; reading from one thread of the supervisor.

struct console_ring;

// Makes an empty ring in `fd`, an empty memfd or file, which stays the caller's. `capacity_bytes`
// is a power of two of pages.
BASE_NODISCARD int console_ring_create(int fd, uint64_t capacity_bytes, struct error *err);
// Takes one that was made, for writing or for reading. `fd` stays the caller's. -EINVAL: this is
// none. What is not sealed (F_SEAL_SHRINK) is not mapped for reading, and readers of it cannot
// throttle.
BASE_NODISCARD int console_ring_open(struct console_ring **out, int fd, bool writer,
                                     struct error *err);
void console_ring_close(struct console_ring *ring);  // NULL is ignored

// Writing. `event_fd`, an eventfd or -1, is signalled when a reader waits (console_ring_await); it
// is the caller's and may be changed at any time.
void console_ring_set_event(struct console_ring *ring, int event_fd);
void console_ring_write(struct console_ring *ring, const void *bytes, size_t count);
// No writer waits any more for a reader, from now on. Async-signal-safe.
void console_ring_abandon(struct console_ring *ring);

// Reading: the oldest position that can still be read, and the end.
uint64_t console_ring_start(const struct console_ring *ring);
uint64_t console_ring_end(const struct console_ring *ring);
// Copies what there is from *position, which is moved behind it; when what was there has been
// overwritten, from the oldest there is. Returns the bytes copied, 0: there are no more.
size_t console_ring_read(const struct console_ring *ring, uint64_t *position, void *bytes,
                         size_t capacity);
// Asks for the event at the next write. False when there is more behind `position` already.
bool console_ring_await(struct console_ring *ring, uint64_t position);
// With throttle on, writers wait rather than overwrite what lies behind the position last given to
// console_ring_consumed.
void console_ring_throttle(struct console_ring *ring, bool on);
void console_ring_consumed(struct console_ring *ring, uint64_t position);

// ---- Status page --------------------------------------------------------------------------------
//
// A page that a partition's monitors and its supervisor share: who owns the partition, and how it
// ended, which must be known also when its monitor crashed while no supervisor was there.

enum monitor_end {
    MONITOR_RUNNING,   // it has not ended
    MONITOR_POWEROFF,  // as enum partition_end
    MONITOR_REBOOT,
    MONITOR_FAILED,
    MONITOR_BROKEN,
    MONITOR_STOPPED,
    MONITOR_ERROR,    // it could not be started (again): `why`
    MONITOR_CRASHED,  // the monitor was killed by signal `code`, which may be a fault at `address`
    MONITOR_ENDS
};

// "running", "poweroff", "reboot", "failed", "broken", "stopped", "error", "crashed".
const char *monitor_end_name(enum monitor_end end);

// Who takes the partition at a handover's end: by changing `owner` from the value e that it had
// when the handover began. Whoever does so first has won, and the others see that they have not.
// The word only grows, so that no late loser ever finds e again.
enum owner_move {
    OWNER_TAKE = 1,    // the successor: it runs the guest from now on
    OWNER_KEEP = 2,    // the old monitor: it goes on, the handover has failed
    OWNER_REVOKE = 3,  // the supervisor: neither may run, the partition has crashed
};

// What happens when in a handover, O the old monitor, N the new one.
enum handover_mark {
    HANDOVER_BEGUN,     // O greets N
    HANDOVER_BUILT,     // O: N has its machine
    HANDOVER_HOT,       // O knows what N is to have ready
    HANDOVER_WARMED,    // O: N has it ready; from here on the guest is being stopped
    HANDOVER_FROZEN,    // O: harts and devices stopped, state saved
    HANDOVER_SENT,      // O: state written, N about to be told
    HANDOVER_RECEIVED,  // N: told
    HANDOVER_LOADED,    // N: state read, loaded, and saved again
    HANDOVER_COMPARED,  // N: it is the same
    HANDOVER_OWNED,     // N owns the guest
    HANDOVER_RUNNING,   // N: harts released
    HANDOVER_RETIRED,   // O: nothing is under way any more
    HANDOVER_MARKS,
};
const char *handover_mark_name(enum handover_mark mark);

// Times of the last handover, CLOCK_MONOTONIC; 0: has not happened.
struct handover_times {
    _Atomic uint64_t mark_ns[HANDOVER_MARKS];
    // When each hart's thread left the guest's code in O, and entered it in N; 0: it was not in it.
    _Atomic uint64_t left_ns[HART_MAX], entered_ns[HART_MAX];
};

#define STATUS_BYTES 4096u
#define STATUS_WHY_BYTES 512u

struct status_page {
    uint64_t magic;
    _Atomic uint32_t owner;    // see enum owner_move: exactly one monitor ever runs
    _Atomic uint32_t end;      // enum monitor_end, stored after what follows
    _Atomic uint32_t code;     // the guest's failure code, or the signal
    _Atomic uint64_t address;  // MONITOR_CRASHED by a fault: what was accessed
    struct handover_times handover;
    char why[STATUS_WHY_BYTES];  // text
};
_Static_assert(sizeof(struct status_page) <= STATUS_BYTES, "one page");

// Makes a page in `fd`, an empty memfd or file; maps one that was made, in a monitor. `fd` stays
// the caller's.
BASE_NODISCARD int status_page_create(int fd, struct error *err);
BASE_NODISCARD int status_page_open(struct status_page **out, int fd, struct error *err);
void status_page_close(struct status_page *page);  // NULL is ignored
// Returns whether the caller has won.
BASE_NODISCARD bool status_page_move_owner(struct status_page *page, uint32_t from,
                                           enum owner_move move);
// How long the guest stood at the last handover: from when the last hart left its code in the old
// monitor to when the first entered it in the new one, and the longest of any one hart. Zeros when
// none did.
struct handover_blackout {
    uint64_t blackout_ns, longest_ns;
};
struct handover_blackout status_page_blackout(const struct status_page *page);
// A copy, for the supervisor: `why` ends in the array and has no control characters. -EINVAL: this
// is none.
BASE_NODISCARD int status_page_read(struct status_page *copy, int fd);
// The partition ends, if it has not: the first end counts. Async-signal-safe; `why` may be NULL.
void status_page_end(struct status_page *page, enum monitor_end end, unsigned code,
                     const char *why);

// ---- Counters -----------------------------------------------------------------------------------

// Of one hart, as the answer to "stats" has them, an object in its array "harts". All of it is
// uint64_t.
struct monitor_counters {
    struct hart_stats hart;
    struct jit_stats jit;  // zeros with other engines
    uint64_t cpu_ns;       // of the host, that the hart's thread has used
    uint64_t wall_ns;      // since it was started
};
json_t *monitor_counters_to_json(const struct monitor_counters *counters);
void monitor_counters_from_json(struct monitor_counters *counters, const json_t *object);

// ---- Tables of keys -----------------------------------------------------------------------------
//
// What an object is made of (a partition's definition, an interceptor's), in one table for options
// of commands, JSON that people write, and messages.

enum key_type {
    KEY_TEXT,          // in JSON a string, or a number
    KEY_FLAG,          // a boolean
    KEY_LIST,          // an array of strings, or one alone
    KEY_LIST_OR_FLAG,  // either
    KEY_OBJECT,        // an object, whose text is the value
};

struct key {
    const char *name;
    size_t offset;  // in the object, of what the functions get: a member, or all of it (0)
    // -EINVAL, -ERANGE, -ENOSPC, -ENOMEM: *err says what is wrong with the value. Keys of lists add
    // to them; a flag's value is of no interest.
    int (*set)(void *member, const char *value, struct error *err);
    // The value, or the element of a list; NULL: it is the default, or there are no more.
    json_t *(*get)(const void *member, size_t index);
    enum key_type type;
    unsigned kinds;  // of objects that have it, where there are several: its owner's to look at
};

struct key_table {
    const struct key *keys;
    size_t count;
    const char *what;  // "a partition's definition"
    size_t bytes_max;  // of its JSON text
};

// Members that are set and shown as they are, for rows of tables: char *, NULL if not given; bool;
// unsigned, 0 if not given.
#define KEY_MEMBER(object, member, is)                                                             \
    _Generic(((object *)0)->member, is : offsetof(object, member))
#define KEY_STRING(object, member)                                                                 \
    KEY_MEMBER(object, member, char *), key_set_string, key_get_string, KEY_TEXT
#define KEY_BOOL(object, member)                                                                   \
    KEY_MEMBER(object, member, bool), key_set_flag, key_get_flag, KEY_FLAG
#define KEY_NUMBER(object, member)                                                                 \
    KEY_MEMBER(object, member, unsigned), key_set_number, key_get_number, KEY_TEXT
BASE_NODISCARD int key_set_string(void *member, const char *value, struct error *err);
json_t *key_get_string(const void *member, size_t index);
BASE_NODISCARD int key_set_flag(void *member, const char *value, struct error *err);
json_t *key_get_flag(const void *member, size_t index);
BASE_NODISCARD int key_set_number(void *member, const char *value, struct error *err);
json_t *key_get_number(const void *member, size_t index);
// For others: the number of `value` among `words`, which end with NULL, or -EINVAL with *err set;
// a size as parse_bytes takes it.
BASE_NODISCARD int key_find_word(const char *const *words, const char *value, struct error *err);
json_t *key_size_to_json(uint64_t bytes);

// The value of one key as JSON has it; NULL: it is the default.
json_t *key_get(const struct key *key, const void *object);
// Sets the key `name`; as `set`, and -ENOENT: there is no such key, -EINVAL: it is not UTF-8.
BASE_NODISCARD int key_table_set(const struct key_table *table, void *object, const char *name,
                                 const char *value, struct error *err);
// Sets what is in a JSON object. -EINVAL: an unknown key or a wrong value, which *err names; some
// may have been set.
BASE_NODISCARD int key_table_from_json(const struct key_table *table, void *object,
                                       const json_t *json, struct error *err);
// A new JSON object with the keys that differ from the defaults. NULL: no memory.
json_t *key_table_to_json(const struct key_table *table, const void *object);
// -ERANGE: its JSON is larger than bytes_max; -ENOMEM.
BASE_NODISCARD int key_table_check_size(const struct key_table *table, const void *object,
                                        struct error *err);

// ---- Definition: what a partition is, docs/partition.md -----------------------------------------

#define DEFINITION_FORWARDS_MAX 32u
#define DEFINITION_SYMBOLS_MAX 16u
#define DEFINITION_APPEND_MAX 16384u
#define DEFINITION_BYTES_MAX 49152u  // of its JSON text: it has to fit into a message

enum definition_restart { DEFINITION_NEVER, DEFINITION_ON_FAILURE, DEFINITION_ALWAYS };
const char *definition_restart_name(enum definition_restart restart);  // "never", "on-failure", ...

struct definition_disk {
    char *path;
    bool read_only;
    enum virtio_blk_aio aio;
};

struct definition_net {
    char *tap;        // NULL: user-mode networking
    unsigned queues;  // pairs of them, each with a descriptor; 1 to VIRTIO_NET_PAIRS_MAX
    uint8_t mac[6];
    bool mac_given;  // else it follows from the partition's name: definition_mac
    struct usernet_forward forwards[DEFINITION_FORWARDS_MAX];
    size_t forward_count;
};

// Strings belong to the definition. NULL, where not said otherwise: not given.
struct definition {
    char *name;  // never NULL once checked
    char *kernel, *initrd, *append, *firmware;
    uint64_t memory_bytes;
    unsigned cpus;
    struct definition_disk disks[MACHINE_VIRTIO_SLOTS];
    size_t disk_count;
    struct definition_net nets[MACHINE_VIRTIO_SLOTS];
    size_t net_count;
    uint64_t vsock_cid;  // 0: none
    char *vsock_path;
    const struct hart_engine *engine;
    uint64_t jit_cache_bytes;
    bool no_windows;
    unsigned mmu_levels;
    char *gdb;  // ADDR:PORT
    bool no_reboot;
    bool stats;     // count what costs time to count
    bool perf_map;  // write /tmp/perf-PID.map
    char *symbols[DEFINITION_SYMBOLS_MAX];
    size_t symbols_count;
    enum log_level log_level;
    bool log_jit;
    enum definition_restart restart;  // by the daemon
    bool autostart;                   // by the daemon, when it starts
    bool updates;                     // the guest may update the monitor, where there is a daemon
    const char *translator_option;    // the last key given that only the translator can follow
};

// The defaults.
void definition_init(struct definition *definition);
void definition_fini(struct definition *definition);
// Sets what `key` (an option of `strake run`, without dashes) stands for; keys of lists add to
// them. -ENOENT: there is no such key; -EINVAL, -ERANGE, -ENOSPC: the value, and *err says what is
// wrong with it; -ENOMEM.
BASE_NODISCARD int definition_set(struct definition *definition, const char *key, const char *value,
                                  struct error *err);
// What no key is wrong with alone: -EINVAL for what does not go together, -ERANGE for what is out
// of range.
BASE_NODISCARD int definition_check(const struct definition *definition, struct error *err);
// From a JSON object; `definition` is initialised here, and finished on failure. Unknown keys and
// wrong values are refused, with the key named. Also checks it.
BASE_NODISCARD int definition_from_json(struct definition *definition, const json_t *object,
                                        struct error *err);
// A new JSON object with the keys that differ from the defaults. NULL: no memory.
json_t *definition_to_json(const struct definition *definition);
// Calls `fn` for each path of the host's in it, with the key that gave it, until one returns an
// error, which is returned. `fn` may set another path in its place.
typedef int definition_path_fn(const char *key, char **path, struct error *err);
BASE_NODISCARD int definition_each_path(struct definition *definition, definition_path_fn *fn,
                                        struct error *err);
// The address of a network device: as given, or one made of the partition's name and the number.
void definition_mac(const struct definition *definition, size_t net, uint8_t mac[6]);

// ---- Snapshots: docs/snapshots.md ---------------------------------------------------------------

// The manifest of a snapshot, from the start of `fd`, which stays the caller's: a new object with
// whatever it holds. NULL: *err says why.
json_t *manifest_read(int fd, struct error *err);

#endif
