// SPDX-License-Identifier: BSD-2-Clause
// base: error values, logging, lists, byte rings, the event loop. Small, no policy.
// Every room may include this header; it includes none.
#ifndef STRAKE_BASE_H
#define STRAKE_BASE_H

#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BASE_NODISCARD __attribute__((warn_unused_result))
#define BASE_PRINTF(fmt_index, first_arg) __attribute__((format(printf, fmt_index, first_arg)))
#define BASE_LIKELY(x) __builtin_expect(!!(x), 1)
#define BASE_UNLIKELY(x) __builtin_expect(!!(x), 0)
#define BASE_COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))
#define BASE_CONTAINER_OF(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))

// ---- Errors -----------------------------------------------------------------------------------
//
// Inside a room, failure is an int: 0, or a negative errno. At a user-facing boundary a function
// takes a `struct error *err` as its last parameter. It is filled once, where the failure happened,
// with one sentence: what was attempted, on what (quoted), why it failed. Callers on the way up may
// prefix it. A NULL `err` is allowed everywhere and drops the message.

#define ERROR_MESSAGE_BYTES 512

struct error {
    int code;                           // negative errno, 0 when nothing failed
    char message[ERROR_MESSAGE_BYTES];  // one sentence, no trailing newline; cut when longer
};

// Sets the message, replacing what was there. `code` is a negative errno. Returns `code`.
int error_set(struct error *err, int code, const char *fmt, ...) BASE_PRINTF(3, 4);

// As error_set, and appends ": " and the system's text for `code`. Returns `code`.
int error_set_errno(struct error *err, int code, const char *fmt, ...) BASE_PRINTF(3, 4);

// Puts "prefix: " before the message that is there. Returns err->code (0 when err is NULL).
int error_prefix(struct error *err, const char *fmt, ...) BASE_PRINTF(2, 3);

// ---- Logging ----------------------------------------------------------------------------------
//
// To stderr, one line a call: "strake: LEVEL: text". Any thread. The level and the name are the
// only process-wide state of the project: they are settings of the process, not of a partition.

enum log_level {
    LOG_ERROR,  // something asked for was not done
    LOG_WARN,   // done, but not as the user might think; a guest broke a rule
    LOG_INFO,   // what happened, in words for a person (default off: --log info)
    LOG_DEBUG,  // for people who work on strake
};

void log_set_level(enum log_level level);
// "error", "warn", "info", "debug". The parser returns 0, or -EINVAL with *err set.
const char *log_level_name(enum log_level level);
BASE_NODISCARD int log_parse_level(enum log_level *out, const char *name, struct error *err);
bool log_enabled(enum log_level level);
// Lines are "strake: NAME: LEVEL: text" from now on, where several processes share a log. Before
// other threads log.
void log_set_name(const char *name);
void log_line(enum log_level level, const char *fmt, ...) BASE_PRINTF(2, 3);
// Writes text of several lines, whatever the level, so that no other line comes in between.
void log_text(const char *text, size_t bytes);

// What a guest can trigger goes through a limit: at most `burst` lines a `window_ns`, the rest are
// counted and the count is logged with the next line that passes. Zero-initialise except for the
// two settings. Any thread.
struct log_limit {
    uint32_t burst;
    uint64_t window_ns;
    atomic_uint_fast64_t window_start_ns;
    atomic_uint_fast32_t used, dropped;
};
#define LOG_LIMIT_INIT                                                                             \
    {                                                                                              \
        .burst = 10, .window_ns = 5000000000u                                                      \
    }
void log_limited(struct log_limit *limit, enum log_level level, const char *fmt, ...)
    BASE_PRINTF(3, 4);

// ---- Time -------------------------------------------------------------------------------------

uint64_t clock_monotonic_ns(void);  // CLOCK_MONOTONIC
uint64_t clock_realtime_ns(void);   // CLOCK_REALTIME

// ---- Threads ----------------------------------------------------------------------------------

// How long the calling thread, and those that it starts later, has a processor at a time that
// others wait for, too; 0: as long as is usual. One with shorter turns gets the processor sooner
// when it wakes up, and no more of it in all. A hint, which Linux 6.12 and later follow (EEVDF's
// slices, sched_setattr(2)), between 100 us and 100 ms.
void thread_set_turn(uint64_t turn_ns);
#define THREAD_SHORT_TURN_NS 100000u  // for who works little, and is waited for
// Having the kernel put a thread to sleep and wake it again costs more than a short wait. So a
// thread whose waits are short looks for what it waits for itself, for a while. Returns for how
// long before the next wait, given for how long it was before one of `waited_ns`: at most
// `at_most_ns`, at least some microseconds, or 0: not at all, as after a few long waits.
uint64_t thread_adapt_polling(uint64_t poll_ns, uint64_t waited_ns, uint64_t at_most_ns);
// Makes the calling thread nicer than it is (nice(2)); there is no way back.
void thread_be_nicer(unsigned by);
// Makes all threads of the calling one's process group as nice as this one and `by` more.
void thread_group_be_nicer(unsigned by);

// ---- Processes ----------------------------------------------------------------------------------

// A program to be started, and what its process has of ours: nothing else but the environment. No
// signal is blocked, ignored or handled in it.
struct spawn {
    char *const *arguments;  // with NULL behind the last
    int program_fd;          // what it executes; -1: this program
    bool apart;              // in a session of its own, out of reach of a terminal's signals
    const int *fds;          // what its descriptors 0, 1, ... are: ours, or one of the next two
    size_t fd_count;
};
enum { SPAWN_NULL = -1, SPAWN_SAME = -2 };  // /dev/null; what has this number here
// The process's id, or a negative errno.
BASE_NODISCARD int spawn_program(const struct spawn *spawn);

// ---- Faults -----------------------------------------------------------------------------------
//
// SIGSEGV and SIGBUS as a means of memory management. A handler is asked, in the thread that made
// the access and with async-signal-safe means only, whether the access at `hva` is its business;
// true: it may be tried again (or `context`, a ucontext_t, says where to go on). What is nobody's
// business goes to whoever handled the signal before, who may do with it as ever.
typedef bool fault_handler(const void *hva, void *context);
// Adds it, once; and puts itself in place again when somebody handles a signal by now who came
// later. Handlers stay for the life of the process. 0, -ENOSPC or what sigaction says. Any thread.
BASE_NODISCARD int fault_handler_add(fault_handler *handler);

// ---- Intrusive doubly linked list -------------------------------------------------------------

struct list {
    struct list *next, *prev;
};

static inline void list_init(struct list *head)
{
    head->next = head->prev = head;
}

static inline bool list_empty(const struct list *head)
{
    return head->next == head;
}

static inline void list_append(struct list *head, struct list *node)
{
    node->prev = head->prev;
    node->next = head;
    head->prev->next = node;
    head->prev = node;
}

// Leaves `node` an empty list, so that removing it again is harmless.
static inline void list_remove(struct list *node)
{
    node->prev->next = node->next;
    node->next->prev = node->prev;
    list_init(node);
}

// Safe against removal of `node` in the body.
#define LIST_FOR_EACH(head, node)                                                                  \
    for (struct list * (node) = (head)->next, *node##_next = (node)->next; (node) != (head);       \
         (node) = node##_next, node##_next = (node)->next)

// ---- Byte ring: a bounded queue of bytes, for one thread or under the caller's lock ------------

struct ring {
    uint8_t *bytes;
    size_t capacity;  // a power of two
    size_t head;      // total bytes ever put in; only differences matter
    size_t tail;      // total bytes ever taken out
};

// `capacity` is rounded up to a power of two. Returns 0 or -ENOMEM.
BASE_NODISCARD int ring_init(struct ring *ring, size_t capacity);
void ring_fini(struct ring *ring);
size_t ring_used(const struct ring *ring);
size_t ring_space(const struct ring *ring);
// Put and take as much as fits; return the number of bytes moved.
size_t ring_put(struct ring *ring, const void *bytes, size_t count);
size_t ring_take(struct ring *ring, void *bytes, size_t count);
// The longest contiguous run that can be taken now; consume with ring_drop.
size_t ring_peek(const struct ring *ring, const uint8_t **bytes);
void ring_drop(struct ring *ring, size_t count);
void ring_clear(struct ring *ring);

// ---- Files ------------------------------------------------------------------------------------

// read(2)/write(2)/pread(2) until `count` bytes, end of file or an error other than EINTR. Return
// the bytes moved, or a negative errno. write_full fails with -EPIPE instead of raising SIGPIPE
// only where the process ignores it; strake's processes do.
BASE_NODISCARD int64_t fd_read_full(int fd, void *bytes, size_t count);
BASE_NODISCARD int64_t fd_pread_full(int fd, void *bytes, size_t count, uint64_t offset);
BASE_NODISCARD int64_t fd_write_full(int fd, const void *bytes, size_t count);

// A memfd for a program that is to be executed, also where memfds are not unless they say so
// (vm.memfd_noexec is 1). It may be sealed. Returns the descriptor, or a negative errno (also in
// errno).
BASE_NODISCARD int fd_program_create(void);

// A listening, non-blocking Unix stream socket bound to `path`. A socket file that nobody listens
// at any more is replaced; one in use is refused. Returns the descriptor, or a negative errno with
// *err set.
BASE_NODISCARD int unix_listen(const char *path, struct error *err);
// A connection to whoever listens there, non-blocking; `type` is SOCK_STREAM or SOCK_SEQPACKET.
// Returns the descriptor, or a negative errno: -EAGAIN when it has too many to accept.
BASE_NODISCARD int unix_connect(const char *path, int type);
// Listens at `path` instead of whoever did, for SOCK_SEQPACKET; non-blocking. Returns the
// descriptor, or a negative errno.
BASE_NODISCARD int unix_listen_packets(const char *path, int backlog);

// Parses "ADDR:PORT", ADDR a dotted IPv4 address or empty: then `addr` is left as it is. Port in
// host order. Returns 0 or -EINVAL with *err set.
BASE_NODISCARD int inet_parse_endpoint(const char *text, uint8_t addr[4], uint16_t *port,
                                       struct error *err);

// ---- Numbers as users write them ----------------------------------------------------------------
//
// 0, -EINVAL or -ERANGE with *err saying what is wrong with the text.

BASE_NODISCARD int parse_unsigned(unsigned *out, const char *text, struct error *err);
// "512M", "2G", "65536K"; a plain number is MiB. UINT64_MAX stands for all that is larger: the
// range is checked, and named, where the value is used.
BASE_NODISCARD int parse_bytes(uint64_t *out, const char *text, struct error *err);
// The other way: whole KiB in the largest unit that has no fraction.
void format_bytes(char *text, size_t capacity, uint64_t bytes);
// "02:00:00:a1:b2:c3".
#define MAC_TEXT_BYTES 18u
BASE_NODISCARD int parse_mac(uint8_t mac[6], const char *text, struct error *err);
void format_mac(char text[MAC_TEXT_BYTES], const uint8_t mac[6]);

// ---- Event loop (a thin layer over libuv, see docs/architecture.md for why) ---------------------
//
// Threading: a loop belongs to the thread that calls loop_run. All calls are made on that thread,
// or before it runs or after it has stopped, except loop_wake_signal, loop_stop and loop_call,
// which any thread may make. Callbacks run on the loop's thread and may create and close watches,
// wakes and timers, their own included. Closing is immediate for the caller: no callback comes
// after.

struct loop;
struct loop_watch;
struct loop_wake;
struct loop_timer;

BASE_NODISCARD int loop_create(struct loop **out, struct error *err);
// Closes what is still open in it. Not from a callback.
void loop_destroy(struct loop *loop);
// Runs until loop_stop. May be called again afterwards.
void loop_run(struct loop *loop);
void loop_stop(struct loop *loop);
// Has the loop look for events itself for up to `at_most_ns` before it sleeps, when the last ones
// came as soon (thread_adapt_polling). 0, as at first: it sleeps at once.
void loop_set_polling(struct loop *loop, uint64_t at_most_ns);
// Runs `fn(opaque)` once on the loop's thread and waits until it has returned; when called on that
// thread, or when no thread runs the loop, runs it at once.
void loop_call(struct loop *loop, void (*fn)(void *opaque), void *opaque);

enum { LOOP_READABLE = 1, LOOP_WRITABLE = 2 };

// Level-triggered readiness of a descriptor, which stays the caller's (closed after the watch is).
// `events` handed to `fn` is a set of the above; an error or hang-up shows as both.
// Returns 0, -ENOMEM, or what epoll says of the descriptor (-EPERM for a regular file).
BASE_NODISCARD int loop_watch_create(struct loop *loop, int fd, unsigned events,
                                     void (*fn)(void *opaque, unsigned events), void *opaque,
                                     struct loop_watch **out);
// Changes what is waited for; 0 pauses the watch.
void loop_watch_set(struct loop_watch *watch, unsigned events);
void loop_watch_close(struct loop_watch *watch);  // NULL is ignored

// A wake-up from any thread; many signals before the loop gets to it are one callback.
BASE_NODISCARD int loop_wake_create(struct loop *loop, void (*fn)(void *opaque), void *opaque,
                                    struct loop_wake **out);
void loop_wake_signal(struct loop_wake *wake);
void loop_wake_close(struct loop_wake *wake);  // NULL is ignored

// One-shot timer, millisecond resolution, monotonic.
BASE_NODISCARD int loop_timer_create(struct loop *loop, void (*fn)(void *opaque), void *opaque,
                                     struct loop_timer **out);
void loop_timer_start(struct loop_timer *timer, uint64_t delay_ms);  // restarts when running
void loop_timer_stop(struct loop_timer *timer);
void loop_timer_close(struct loop_timer *timer);  // NULL is ignored

#endif
