// SPDX-License-Identifier: BSD-2-Clause
// supervisor: the trusted side that opens what belongs to the host, hands it to partitions as
// descriptors, and looks after their monitors.
#ifndef STRAKE_SUPERVISOR_H
#define STRAKE_SUPERVISOR_H

#include "monitor/monitor.h"

// ---- Host resources -----------------------------------------------------------------------------
//
// All return a descriptor (close-on-exec), or a negative errno with *err naming the object.

// A file to be read from the start: `what` is its role in messages ("kernel", "initrd"). Folders
// and empty files are refused.
BASE_NODISCARD int supervisor_open_image(const char *path, const char *what, struct error *err);

// A disk: a regular file or a block device, locked against any other use (open-file-description
// lock: shared when read-only, else exclusive; the lock lives as long as the descriptor and its
// copies).
BASE_NODISCARD int supervisor_open_disk(const char *path, bool read_only, struct error *err);

// The tap interface `name`, with vnet headers; `several`: a queue of one that has several. It is
// created when the caller may do that and it does not exist.
BASE_NODISCARD int supervisor_open_tap(const char *name, bool several, struct error *err);

// The file in which Linux' perf looks for names of a process's generated code, /tmp/perf-PID.map:
// empty, to be read and written. What an earlier process left is replaced.
BASE_NODISCARD int supervisor_open_perf_map(pid_t pid, struct error *err);
// Removes it again, where nothing came of the process.
void supervisor_discard_perf_map(pid_t pid);

// Opens everything that a definition names, into `fds` by the names of docs/partition.md: kernel,
// initrd, firmware, disk0..., net0..., vsock-listen, gdb-listen, symbols0.... On failure nothing
// stays open or created.
BASE_NODISCARD int supervisor_open_resources(const struct definition *definition,
                                             struct descriptors *fds, struct error *err);
// Closes them again, where nothing came of it; and waits for processes that were started for them.
void supervisor_close_resources(struct descriptors *fds);
// Takes from `fds` what is not for the monitor: pidfds of those processes ("net-process0", ...).
// They end when nobody holds the other descriptors any more; then they are to be waited for.
void supervisor_take_helpers(struct descriptors *fds, struct descriptors *helpers);
void supervisor_reap_helpers(struct descriptors *helpers);
// Removes what opening has left in the file system (the vsock socket), once the partition is gone.
void supervisor_discard_resources(const struct definition *definition);

// ---- A partition's monitor, seen from its supervisor --------------------------------------------
//
// Threads: everything belongs to the loop's thread, callbacks are made on it.

struct process;

struct process_end {
    enum monitor_end end;
    unsigned code;               // the guest's failure code; MONITOR_CRASHED: the signal
    bool core_dumped;            // MONITOR_CRASHED, where known
    char why[STATUS_WHY_BYTES];  // MONITOR_ERROR, MONITOR_CRASHED, MONITOR_BROKEN; else empty
    json_t *details;             // of the event, borrowed, may be NULL: "unused" virtio devices
};

struct process_events {
    // There may be more in the console's ring. After each call the ring is awaited again.
    void (*console)(void *opaque);
    // The partition has ended, or its monitor has: once. The monitor, if there is one still,
    // answers "stats" until process_destroy.
    void (*ended)(void *opaque, const struct process_end *end);
    // Any other event of the monitor's. May be NULL.
    void (*event)(void *opaque, const char *event, json_t *message);
    // The guest wants to connect to UPDATE_PORT of the host: a socket for the monitor, or a
    // negative errno. NULL: the port is one like others.
    int (*update)(void *opaque);
    // The monitor has handed over to its successor (its pid, its link are others now). May be NULL.
    void (*replaced)(void *opaque);
    void *opaque;
};

struct process_config {
    struct loop *loop;
    struct process_events events;
    // Where status page, console ring and control socket are kept, so that a later supervisor finds
    // them ("status", "console", "monitor.sock" in this folder, which exists), and the monitor
    // outlives this one. NULL: they are nameless, and the monitor ends with its supervisor.
    const char *run_dir;
    uint64_t console_bytes;  // of the ring, a power of two of pages; 0: the usual
    bool throttle;           // the guest waits for console_ring_consumed
    int binary_fd;           // what to execute; -1: this program
};

// Starts a monitor and sends it `start` with the definition and `fds` (which it takes over, also on
// failure). `started` (as link_done, exactly once) is called when the monitor has built the
// partition, or could not. `paused`: it does not run before "resume".
BASE_NODISCARD int process_launch(struct process **out, const struct process_config *config,
                                  const struct definition *definition, struct descriptors *fds,
                                  bool paused, link_done *started, void *opaque, struct error *err);
// Finds a partition that runs, or has ended, without a supervisor: its monitor at
// run_dir/monitor.sock, else what its status page tells. `hello` gets the monitor's answer
// ({"partition": definition, "state": "running|paused|ended", ...}), or why there is none: then
// `ended` follows. -ENOENT: nothing is there to be found.
BASE_NODISCARD int process_adopt(struct process **out, const struct process_config *config,
                                 link_done *hello, void *opaque, struct error *err);
// Lets go. `kill`: the monitor is killed if it has not ended by itself, and what it left in run_dir
// is removed; else it goes on without a supervisor. `ended` is not called any more.
void process_destroy(struct process *process, bool kill);

// A request to the monitor: link_request. Fails through `done` when there is none any more.
void process_request(struct process *process, const char *op, json_t *arguments,
                     const struct descriptors *fds, link_done *done, void *opaque);

// Starts another monitor from `binary_fd` (-1: this program) and has the partition handed over to
// it. `done` is called once, with the new monitor's report ({"blackout_ns": ..., ...}) or with why
// the old one goes on. Bounded by `timeout_ms`. -EBUSY: one is under way.
BASE_NODISCARD int process_handover(struct process *process, int binary_fd, unsigned timeout_ms,
                                    link_done *done, void *opaque, struct error *err);

// Whether a handover of it is under way.
bool process_is_handed_over(const struct process *process);

// For tests: what goes wrong in the old and the new monitor at handovers from now on ("STEP:KIND",
// see monitor/handover.h). NULL: nothing. The strings stay the caller's.
void process_handover_faults(struct process *process, const char *old_fault, const char *new_fault);

pid_t process_pid(const struct process *process);  // of the monitor; -1: there is none
// The pidfds of processes that were started for it and have not been waited for, up to `most`; they
// stay its own. Returns how many.
size_t process_children(const struct process *process, int *pidfds, size_t most);
struct console_ring *process_console(struct process *process);
void process_status(const struct process *process, struct status_page *copy);
// Console input: a stream socket, non-blocking; what it does not take now must be offered again.
// Owned by the process; -1 when there is no monitor. Changes when `replaced` is called.
int process_console_input(const struct process *process);
void process_console_resize(struct process *process, unsigned columns, unsigned rows);

// ---- Snapshots: docs/snapshots.md ---------------------------------------------------------------
//
// A folder with the definition, the state and the RAM of a partition, and digests of its disks.
// Threads: everything belongs to the loop's thread, callbacks are made on it.

// Takes one of a partition that runs or is paused, into the new folder `path`, which appears when
// it is complete. The partition stands still meanwhile. `done` is called once, with the monitor's
// report ({"ram_packed_bytes": ...}) or why there is no snapshot.
BASE_NODISCARD int snapshot_take(struct process *process, const struct definition *definition,
                                 const char *path, link_done *done, void *opaque,
                                 struct error *err);

struct snapshots;  // what is open of them: unpacked RAM, shared by all who restore from it
struct snapshot;

BASE_NODISCARD int snapshots_create(struct snapshots **out, struct loop *loop);
void snapshots_destroy(struct snapshots *snapshots);  // once all are closed; NULL is ignored

// `err` NULL: it can be used.
typedef void snapshot_opened(void *opaque, struct snapshot *snapshot, const struct error *err);
// Reads the manifest and begins to unpack the RAM; `opened` is called once when that has come to an
// end, unless the snapshot is closed before. Open as long as a partition restored from it lives:
// that is how others share its RAM.
BASE_NODISCARD int snapshot_open(struct snapshot **out, struct snapshots *snapshots,
                                 const char *path, snapshot_opened *opened, void *opaque,
                                 struct error *err);
void snapshot_close(struct snapshot *snapshot);  // NULL is ignored; also from `opened`
const struct definition *snapshot_definition(const struct snapshot *snapshot);
// What a monitor needs beside the definition's resources, to go on from the snapshot instead of
// power-on: "state", "manifest", "ram-base", "ram-map". After `opened`.
BASE_NODISCARD int snapshot_add_descriptors(const struct snapshot *snapshot,
                                            struct descriptors *fds, struct error *err);

// Answers a monitor's "vsock-connect": a socket connected to PATH_PORT, non-blocking, or a negative
// errno.
int supervisor_connect_vsock(const char *path, uint32_t port);

// ---- The supervisor of many: `strake daemon` ----------------------------------------------------

struct supervisor_config {
    const char *state_dir;      // definitions and records, kept over reboots
    const char *run_dir;        // what running partitions share with it
    const char *socket;         // where the API is served, unless the service manager gave a socket
    unsigned restart_delay_ms;  // before a failed partition is started again, the first time
    bool stop_partitions;       // when it is ended by a signal; else they run on
    const char *trusted_dir;    // public keys of those whose updates are taken
    unsigned keep;              // versions besides the current and the previous one
    unsigned confirm_within_s;  // for a new version to prove itself
    bool allow_downgrade;
};
// Serves until a signal (SIGTERM, SIGINT, SIGHUP) ends it.
BASE_NODISCARD int supervisor_run(const struct supervisor_config *config, struct error *err);

// ---- Console end points of strake run -----------------------------------------------------------

enum console_kind { CONSOLE_STDIO, CONSOLE_PTY, CONSOLE_FILE, CONSOLE_UNIX };

struct console;

// Opens the end point. CONSOLE_STDIO: the terminal is put into raw mode when standard input is one,
// and restored by console_close on every way out (signals included: see console_restore_terminal);
// escape Ctrl-A, then: x ends the partition, h shows help, Ctrl-A sends one, others are shown in
// help. CONSOLE_PTY: the name of the terminal is printed. CONSOLE_FILE: output to `path` only.
// CONSOLE_UNIX: listens at `path`, one client at a time, output while none is connected is dropped.
// `quit` is called (loop thread) for the escape.
BASE_NODISCARD int console_open(struct console **out, enum console_kind kind, const char *path,
                                struct loop *loop, void (*quit)(void *opaque), void *opaque,
                                struct error *err);
// Whether the guest may be held up by this end point's reader: process_config.throttle.
bool console_throttles(const struct console *console);
// Connects it with a partition; console_pump is called for process_events.console.
BASE_NODISCARD int console_attach(struct console *console, struct process *process,
                                  struct error *err);
void console_pump(struct console *console);
// Writes what the ring still has, as far as the reader takes it soon, and closes.
void console_close(struct console *console);  // NULL is ignored
// Async-signal-safe: puts the terminal back as it was.
void console_restore_terminal(void);

#endif
