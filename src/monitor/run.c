// SPDX-License-Identifier: BSD-2-Clause
// A partition's run in its monitor, and its end.
#include <stdio.h>
#include <string.h>

#include "monitor/internal.h"

// ---- The end ------------------------------------------------------------------------------------

static enum monitor_end end_of(enum partition_end end)
{
    static const enum monitor_end ends[] = {
        [PARTITION_POWEROFF] = MONITOR_POWEROFF, [PARTITION_REBOOT] = MONITOR_REBOOT,
        [PARTITION_FAILED] = MONITOR_FAILED,     [PARTITION_BROKEN] = MONITOR_BROKEN,
        [PARTITION_STOPPED] = MONITOR_STOPPED,
    };
    return ends[end];
}

// Devices that the user asked for, and that no driver took.
static void add_unused(void *opaque, const char *kind, unsigned slot, bool driver_ok)
{
    static const char *const always_there[] = {"rng", "console", "input"};
    for (size_t i = 0; i < BASE_COUNT_OF(always_there); i++)
        driver_ok |= strcmp(kind, always_there[i]) == 0;
    if (!driver_ok)
        json_array_append_new(opaque, json_pack("{s:s,s:i}", "device", kind, "slot", (int)slot));
}

static void tell_end(struct monitor *monitor, enum monitor_end end, const char *why)
{
    json_t *unused = json_array();
    machine_for_each_virtio(partition_machine(monitor->partition), add_unused, unused);
    link_event(monitor->link, "ended",
               json_pack("{s:s,s:i,s:s*,s:o}", "end", monitor_end_name(end), "code",
                         (int)monitor->end_code, "why", why, "unused", unused),
               NULL);
}

static void on_ended(void *opaque)
{
    struct monitor *monitor = opaque;
    char text[STATUS_WHY_BYTES];
    const char *why = NULL;
    if (monitor->retired)
        return;
    pthread_join(monitor->waiter, NULL);
    monitor->waiting = false;
    monitor->ended_ns = clock_monotonic_ns();
    enum monitor_end end = end_of(monitor->end);
    if (monitor->end_error.code) {
        end = MONITOR_ERROR;
        why = monitor->end_error.message;
    } else if (end == MONITOR_BROKEN) {
        snprintf(text, sizeof(text), "engine \"%s\" found a difference", monitor->engine.name);
        why = text;
    }
    status_page_end(monitor->status, end, monitor->end_code, why);
    if (monitor->link)
        tell_end(monitor, end, why);
    else
        loop_stop(monitor->loop);
}

static void *wait_for_end(void *opaque)
{
    struct monitor *monitor = opaque;
    monitor->end = PARTITION_STOPPED;
    (void)!partition_wait(monitor->partition, &monitor->end, &monitor->end_code,
                          &monitor->end_error);
    loop_wake_signal(monitor->ended);
    return NULL;
}

// ---- The run ------------------------------------------------------------------------------------

int monitor_surround(struct monitor *monitor, struct error *err)
{
    int rc = loop_wake_create(monitor->loop, on_ended, monitor, &monitor->ended);
    if (rc == 0)
        rc = monitor_listen(monitor);
    if (rc == 0)
        rc = console_input_attach(monitor->input, descriptors_find(&monitor->fds, "console-input"));
    if (rc == 0)
        rc = -pthread_create(&monitor->waiter, NULL, wait_for_end, monitor);
    if (rc < 0)
        return error_set_errno(err, rc, "cannot run the partition");
    pthread_setname_np(monitor->waiter, "wait");
    monitor->waiting = true;
    return 0;
}

int monitor_run(struct monitor *monitor, bool paused, struct error *err)
{
    int gdb_fd = descriptors_find(&monitor->fds, "gdb-listen");
    int rc = 0;
    // The pause that the partition was created with is the debugger's, if there is one.
    if (gdb_fd >= 0) {
        rc = gdb_server_create(&monitor->gdb, gdb_fd, monitor->partition, err);
        if (rc == 0 && paused)
            partition_pause(monitor->partition);
    }
    monitor->paused = paused;
    monitor->started_ns = clock_monotonic_ns();
    if (rc == 0)
        rc = monitor_surround(monitor, err);
    if (rc == 0 && gdb_fd < 0 && !paused)
        partition_resume(monitor->partition);
    return rc;
}
