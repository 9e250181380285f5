// SPDX-License-Identifier: BSD-2-Clause
// What the files about a partition's process share. Private to this room.
#ifndef STRAKE_SUPERVISOR_PROCESS_H
#define STRAKE_SUPERVISOR_PROCESS_H

#include "supervisor/child.h"

struct process {
    struct loop *loop;
    struct process_events events;
    char *run_dir, *name, *vsock_path;
    json_t *definition;
    struct child *child;  // the monitor that owns the partition; NULL: gone

    int status_fd, console_fd, event_fd, input_fd;
    struct console_ring *console;
    struct loop_watch *event_watch;
    struct descriptors helpers;  // pidfds of what runs beside the monitor
    pid_t perf_pid;              // whose map for perf was made; 0: none

    link_done *started;  // NULL: told
    void *started_opaque;
    link_done *hello;  // NULL: told
    void *hello_opaque;
    struct loop_timer *lost;

    struct handover *handover;          // under way, or NULL
    const char *old_fault, *new_fault;  // for tests: process_handover_faults
    struct list retired;  // of struct retired: monitors that have handed over, or were to take

    bool ended;     // and told
    unsigned busy;  // callbacks under way, that may destroy it
    bool destroyed;
};

void process_finish_start(struct process *process, json_t *result, const struct error *err);
struct child_events process_child_events(struct process *process);
// The partition's monitor is gone, with this status.
void process_tell_gone(struct process *process, int status, const struct error *why);

// handover.c. A monitor that is not the partition's is gone: one that was to take it over, or that
// has handed it over.
void process_other_gone(struct process *process, struct child *child);
// The partition's monitor is gone while it hands over: true when that is the handover's to tell.
bool process_handover_lost_old(struct process *process, int status);
// pidfds of monitors that are the partition's no more, or not yet.
size_t process_handover_children(const struct process *process, int *pidfds, size_t most);
// The process is destroyed.
void process_handover_drop(struct process *process, bool kill);

#endif
