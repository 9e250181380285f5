// SPDX-License-Identifier: BSD-2-Clause
// gdb: the GDB Remote Serial Protocol, all-stop, for whatever runs harts: a machine, a program of
// Linux. What is debugged is a struct gdb_target; who debugs is at the other end of a session.
// Source: Debugging with GDB, appendices E (the protocol) and G (target descriptions).
//
// A session and its target are one thread's at a time: the caller's, which waits for the descriptor
// to be readable and for the program to stop by itself.
#ifndef STRAKE_GDB_H
#define STRAKE_GDB_H

#include "hart/hart.h"

struct gdb_session;

// How a thread goes on: `signal`, one of Linux or 0, is delivered to it first.
struct gdb_action {
    uint64_t thread;  // 0: all that no action before names
    bool step;
    unsigned signal;
};

// What is debugged. Constant; called within the functions below, with the program stopped but for
// stop(). Threads have numbers from 1.
struct gdb_target {
    bool machine;  // registers of all privileges, and no operating system

    // The thread with the lowest number above `after`, 0: there is none.
    uint64_t (*next_thread)(void *opaque, uint64_t after);
    void (*describe_thread)(void *opaque, uint64_t thread, char *text, size_t capacity);
    // NULL: there is no such thread.
    struct hart *(*hart)(void *opaque, uint64_t thread);
    // Whether its registers are not to be changed now. NULL: they may always be.
    bool (*is_busy)(void *opaque, uint64_t thread);

    // Memory as the thread sees it: how many bytes from `gva` on could be read, or written.
    size_t (*read)(void *opaque, uint64_t thread, uint64_t gva, void *bytes, size_t count);
    size_t (*write)(void *opaque, uint64_t thread, uint64_t gva, const void *bytes, size_t count);
    // All threads stop before the instruction there; no memory changes. 0 (also when there is one
    // already, or none) or a negative errno.
    int (*breakpoint)(void *opaque, uint64_t gva, bool add);

    // Returns when all threads have stopped.
    void (*stop)(void *opaque);
    // What has stopped by itself is reported by gdb_session_stopped; false: nothing has.
    bool (*report)(void *opaque);
    // Threads go on as the first action says that names them, or not at all. Or something is
    // reported, now or as soon as it stops.
    void (*resume)(void *opaque, const struct gdb_action *actions, size_t count);
    // The debugger has gone: no breakpoints, nothing to be reported, and all threads go on.
    void (*let_go)(void *opaque);
    void (*kill)(void *opaque);

    // The rest may be NULL. These signals (bit n - 1: Linux' n) are not reported.
    void (*pass)(void *opaque, uint64_t signals);
    // What GDB calls "auxv", "exec-file" or "siginfo" (of the thread): *bytes is valid until the
    // next call. 0, or -ENOENT.
    int (*object)(void *opaque, uint64_t thread, const char *name, const void **bytes,
                  size_t *count);
};

struct gdb_stop {
    uint64_t thread;
    unsigned signal;   // Linux'
    const char *said;  // shown to the user before, whole lines, or NULL
};

// Nobody is connected, and the target is stopped. 0 or -ENOMEM.
BASE_NODISCARD int gdb_session_create(struct gdb_session **out, const struct gdb_target *target,
                                      void *opaque);
void gdb_session_destroy(struct gdb_session *session);  // closes; NULL is ignored

// A debugger has connected at `fd`, which the session closes. Stops the target.
void gdb_session_open(struct gdb_session *session, int fd);
// Does what it wants, as far as there is something to read. False: it has gone, and the target was
// let go.
bool gdb_session_receive(struct gdb_session *session);
// The descriptor; -1: nobody is connected.
int gdb_session_fd(const struct gdb_session *session);
// Whether the program runs, as far as a debugger knows that is connected.
bool gdb_session_is_waiting(const struct gdb_session *session);

// The target has stopped. While the session waits, or in resume().
void gdb_session_stopped(struct gdb_session *session, const struct gdb_stop *stop);
// The program has ended, by itself or a signal of Linux. While the session waits.
void gdb_session_ended(struct gdb_session *session, bool by_signal, unsigned status);

// For another process, which gets the descriptor, too.
struct gdb_session_state {
    bool stopped, acks;
    uint64_t thread, last_thread;
    unsigned last_signal;
    char *in;  // what has come of a packet
    size_t in_bytes;
};
#define GDB_PACKET_BYTES 16384u  // at most
void gdb_session_save(struct gdb_session *session, struct gdb_session_state *state);
// Into one that was just created. `fd` -1: nobody was connected.
void gdb_session_load(struct gdb_session *session, const struct gdb_session_state *state, int fd);

// A listening socket at "ADDR:PORT" (ADDR may be empty: this host), or at a path, which has a '/'.
// The descriptor, or a negative errno with *err set.
BASE_NODISCARD int gdb_listen(const char *address, struct error *err);

#endif
