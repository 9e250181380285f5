// SPDX-License-Identifier: BSD-2-Clause
// What is told of a partition, and of how it ended.
//
// Its monitor may have been taken over by its guest: what comes from it is text to be cleaned.
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "supervisor/registry.h"

#define TAIL_BYTES 4096u
#define TAIL_LINES 20u

// ---- The end ------------------------------------------------------------------------------------

// A line of the console in ASCII, without what a terminal would do with it.
static json_t *clean_line(const char *bytes, size_t count)
{
    char text[TAIL_BYTES + 1];
    size_t used = 0;
    for (size_t i = 0; i < count && used < TAIL_BYTES; i++)
        if (bytes[i] != '\r')
            text[used++] = bytes[i] >= ' ' && bytes[i] < 0x7f ? bytes[i] : '?';
    return json_stringn(text, used);
}

// The console's last lines.
static json_t *console_tail(struct console_ring *console)
{
    char bytes[TAIL_BYTES];
    json_t *lines = json_array();
    uint64_t end = console ? console_ring_end(console) : 0;
    uint64_t position = end > TAIL_BYTES ? end - TAIL_BYTES : 0;
    size_t count = console ? console_ring_read(console, &position, bytes, sizeof(bytes)) : 0;
    const char *first = end > TAIL_BYTES ? memchr(bytes, '\n', count) : NULL;
    if (count > 0 && bytes[count - 1] == '\n')
        count--;
    for (size_t start = first ? (size_t)(first - bytes) + 1 : 0; start < count;) {
        const char *newline = memchr(bytes + start, '\n', count - start);
        size_t stop = newline ? (size_t)(newline - bytes) : count;
        json_array_append_new(lines, clean_line(bytes + start, stop - start));
        start = stop + 1;
    }
    while (json_array_size(lines) > TAIL_LINES)
        json_array_remove(lines, 0);
    return lines;
}

// Where a core of the monitor's is to be found (core(5)).
static json_t *core_hint(bool dumped, pid_t pid)
{
    char pattern[128] = "", hint[320];
    int fd = open("/proc/sys/kernel/core_pattern", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? 0 : read(fd, pattern, sizeof(pattern) - 1);
    if (fd >= 0)
        close(fd);
    pattern[n > 0 ? n : 0] = 0;
    pattern[strcspn(pattern, "\n")] = 0;
    if (!dumped && *pattern == '|')
        snprintf(hint, sizeof(hint), "none was written (see core(5); the pattern is \"%s\")",
                 pattern);
    else if (!dumped)
        snprintf(hint, sizeof(hint),
                 "none was written: a confined monitor has no folder for the file of the pattern "
                 "\"%s\" (see core(5); a pattern that is a program's is of use)",
                 pattern);
    else if (*pattern == '|' && strstr(pattern, "systemd-coredump"))
        snprintf(hint, sizeof(hint), "coredumpctl info %d", (int)pid);
    else
        snprintf(hint, sizeof(hint), "written by the pattern \"%s\", process %d", pattern,
                 (int)pid);
    return json_string(hint);
}

json_t *report_end(const struct entry *entry, const struct process_end *end, pid_t pid)
{
    json_t *report =
        json_pack("{s:s,s:i,s:o,s:i}", "end", monitor_end_name(end->end), "code", (int)end->code,
                  "time", events_time(clock_realtime_ns()), "run", (int)entry->runs);
    if (*end->why)
        json_object_set_new(report, "why", json_string(end->why));
    if (end->end == MONITOR_CRASHED)
        json_object_set_new(report, "core", core_hint(end->core_dumped, pid));
    json_object_set_new(report, "console", console_tail(entry->console));
    return report;
}

// ---- The partition ------------------------------------------------------------------------------

json_t *entry_describe(const struct entry *entry, bool more)
{
    const struct definition *definition = &entry->definition;
    pid_t pid = entry->process ? process_pid(entry->process) : -1;
    json_t *object = json_pack(
        "{s:s,s:s,s:s,s:o,s:o,s:i,s:I,s:s,s:b,s:i,s:i,s:i,s:O?,s:O?}", "id", entry->id, "name",
        entry->name, "state", entry_state_name(entry->state), "since", events_time(entry->since_ns),
        "pid", pid > 0 ? json_integer(pid) : json_null(), "cpus", (int)definition->cpus,
        "memory_bytes", (json_int_t)definition->memory_bytes, "restart",
        definition_restart_name(definition->restart), "autostart", definition->autostart, "runs",
        (int)entry->runs, "restarts", (int)entry->restarts, "handovers", (int)entry->handovers,
        "last_end", entry->last_end, "last_handover", entry->last_handover);
    if (object && more)
        json_object_set_new(object, "definition", definition_to_json(definition));
    return object;
}
