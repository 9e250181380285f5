// SPDX-License-Identifier: BSD-2-Clause
// Handovers as the supervisor asks for them: `handover` in the old monitor, `adopt` in the new one;
// and what of a monitor goes over besides its partition.
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "monitor/handover.h"
#include "monitor/internal.h"

#define RETIRED_NICER 5

// ---- What goes over -----------------------------------------------------------------------------

struct monitor_state {
    uint64_t started_ns;
    bool paused;
};

static const struct state_field monitor_fields[] = {
    STATE_FIELD(struct monitor_state, started_ns, STATE_U64, 1, 0),
    STATE_FIELD(struct monitor_state, paused, STATE_BOOL, 1, 0),
    {0},
};

static const struct state_schema monitor_schema = {.name = "monitor",
                                                   .version = 1,
                                                   .struct_bytes = sizeof(struct monitor_state),
                                                   .fields = monitor_fields};

static void leave(void *opaque, struct state_writer *writer)
{
    struct monitor *monitor = opaque;
    const struct monitor_state state = {.started_ns = monitor->started_ns,
                                        .paused = monitor->paused};
    console_input_hold(monitor->input, true);
    state_write(writer, &monitor_schema, 0, &state);
    if (monitor->gdb)
        gdb_server_save(monitor->gdb, writer);
}

static void stay(void *opaque)
{
    struct monitor *monitor = opaque;
    struct error err;
    console_input_hold(monitor->input, false);
    if (monitor->gdb && gdb_server_run(monitor->gdb, &err) < 0)
        log_line(LOG_ERROR, "the debugger is lost: %s", err.message);
}

static int load(void *opaque, struct state_reader *reader, struct error *err)
{
    struct monitor *monitor = opaque;
    int gdb_fd = descriptors_find(&monitor->fds, "gdb-listen");
    struct monitor_state state = {0};
    int rc = state_read(reader, &monitor_schema, 0, &state, err);
    monitor->started_ns = state.started_ns;
    monitor->paused = state.paused;
    if (rc == 0 && gdb_fd >= 0)
        rc = gdb_server_load(&monitor->gdb, gdb_fd, monitor->partition, reader, err);
    return rc;
}

// ---- The old monitor ----------------------------------------------------------------------------

// Of a request's member "fault", which tests have.
static int take_fault(struct handover_fault *fault, const json_t *message, struct error *err)
{
    const char *text = json_string_value(json_object_get(message, "fault"));
    return text ? handover_fault_parse(fault, text, err) : 0;
}

void monitor_handover(struct monitor *monitor, struct monitor_call call, json_t *message,
                      struct descriptors *fds)
{
    struct error err;
    struct handover_old old = {.peer = descriptors_take(fds, "peer"),
                               .status = monitor->status,
                               .partition = monitor->partition,
                               .definition = monitor->definition_json,
                               .fds = &monitor->fds,
                               .leave = leave,
                               .stay = stay,
                               .opaque = monitor};
    int rc = take_fault(&old.fault, message, &err);
    if (rc == 0)
        rc = handover_give(&old, &err);
    if (rc < 0) {
        monitor_fail(monitor, call, &err);
        close(old.peer);
        return;
    }
    monitor_disown();
    monitor_reply(monitor, call, NULL, NULL);
    handover_retire(&old);
    // What is left here of devices and connections is the new monitor's: nothing is to be undone.
    // Any of the threads may be the one that the host has unmap RAM, which takes it milliseconds:
    // they all leave most of it to the guest's, but not so much that they would still be at it when
    // the partition is handed over again.
    thread_group_be_nicer(RETIRED_NICER);
    fflush(NULL);
    _exit(0);
}

// ---- The new monitor ----------------------------------------------------------------------------

static int confine(void *opaque, struct error *err)
{
    return monitor_leave_host(opaque, err);
}

static int build(void *opaque, json_t *definition, struct descriptors *fds,
                 struct partition **partition, struct status_page **status, struct error *err)
{
    struct monitor *monitor = opaque;
    int rc = monitor_build(monitor, definition, fds, err);
    if (rc == 0)
        rc = monitor_surround(monitor, err);
    *partition = monitor->partition;
    *status = monitor->status;
    return rc;
}

static json_t *report(const struct monitor *monitor)
{
    const struct handover_times *times = &monitor->status->handover;
    struct handover_blackout blackout = status_page_blackout(monitor->status);
    json_t *marks = json_object();
    for (unsigned i = 0; i <= HANDOVER_RUNNING; i++) {
        uint64_t mark_ns = atomic_load(&times->mark_ns[i]);
        json_object_set_new(marks, handover_mark_name(i), json_integer((json_int_t)mark_ns));
        if (i > 0)
            log_line(LOG_DEBUG, "handover: %-8s after %8.3f ms", handover_mark_name(i),
                     (double)(int64_t)(mark_ns - atomic_load(&times->mark_ns[i - 1])) / 1e6);
    }
    return json_pack("{s:I,s:I,s:s,s:o}", "blackout_ns", (json_int_t)blackout.blackout_ns,
                     "longest_ns", (json_int_t)blackout.longest_ns, "version", STRAKE_VERSION,
                     "marks_ns", marks);
}

static int adopt(struct monitor *monitor, json_t *message, struct descriptors *fds,
                 struct error *err)
{
    struct handover_new *successor = &monitor->successor;
    *successor = (struct handover_new){.peer = descriptors_take(fds, "peer"),
                                       .former = descriptors_take(fds, "former"),
                                       .confine = confine,
                                       .build = build,
                                       .load = load,
                                       .opaque = monitor};
    int rc = take_fault(&successor->fault, message, err);
    if (rc == 0)
        rc = handover_take(successor, err);
    if (rc == 0 && monitor->gdb && gdb_server_run(monitor->gdb, err) < 0)
        log_line(LOG_ERROR, "the debugger is lost: %s", err->message);
    return rc;
}

void monitor_adopt(struct monitor *monitor, struct monitor_call call, json_t *message,
                   struct descriptors *fds)
{
    struct error err;
    if (monitor->definition_json) {
        error_set(&err, -EBUSY, "this monitor has a partition already");
        monitor_fail(monitor, call, &err);
    } else if (adopt(monitor, message, fds, &err) < 0) {
        monitor_fail(monitor, call, &err);
        // What it may have loaded is the old monitor's: connections must not be closed as if they
        // had ended, nor the console let go of.
        fflush(NULL);
        _exit(1);
    } else {
        monitor_reply(monitor, call, report(monitor), NULL);
    }
}
