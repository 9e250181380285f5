// SPDX-License-Identifier: BSD-2-Clause
// Logging to stderr. A line is one write(2), so that lines of several threads do not mix.
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/base.h"

static atomic_int log_level_now = LOG_WARN;
static char log_name[64];  // with ": " behind it, or empty

void log_set_level(enum log_level level)
{
    atomic_store_explicit(&log_level_now, (int)level, memory_order_relaxed);
}

void log_set_name(const char *name)
{
    snprintf(log_name, sizeof(log_name), "%.60s: ", name);
}

bool log_enabled(enum log_level level)
{
    return (int)level <= atomic_load_explicit(&log_level_now, memory_order_relaxed);
}

const char *log_level_name(enum log_level level)
{
    static const char *const names[] = {"error", "warn", "info", "debug"};
    return names[level];
}

int log_parse_level(enum log_level *out, const char *name, struct error *err)
{
    for (enum log_level level = LOG_ERROR; level <= LOG_DEBUG; level++) {
        if (strcmp(name, log_level_name(level)) == 0) {
            *out = level;
            return 0;
        }
    }
    return error_set(err, -EINVAL, "not one of error, warn, info, debug");
}

static void log_write(enum log_level level, const char *fmt, va_list args)
{
    static const char *const names[] = {"error", "warning", "info", "debug"};
    char line[1024];
    int used = snprintf(line, sizeof(line), "strake: %s%s: ", log_name, names[level]);
    int text = vsnprintf(line + used, sizeof(line) - (size_t)used - 2, fmt, args);
    size_t length = (size_t)used + (text > 0 ? (size_t)text : 0);
    if (length > sizeof(line) - 3)
        length = sizeof(line) - 3;
    // A terminal may be in raw mode, for the guest's console; the return does no harm in others.
    if (isatty(STDERR_FILENO))
        line[length++] = '\r';
    line[length++] = '\n';
    // Nothing sensible can be done when stderr does not take it.
    (void)!write(STDERR_FILENO, line, length);
}

void log_line(enum log_level level, const char *fmt, ...)
{
    if (!log_enabled(level))
        return;
    va_list args;
    va_start(args, fmt);
    log_write(level, fmt, args);
    va_end(args);
}

void log_text(const char *text, size_t bytes)
{
    // As for a line: the return is for terminals in raw mode.
    bool returns = isatty(STDERR_FILENO);

    while (returns && bytes) {
        const char *end = memchr(text, '\n', bytes);
        size_t length = end ? (size_t)(end - text) : bytes;
        (void)!fd_write_full(STDERR_FILENO, text, length);
        (void)!write(STDERR_FILENO, "\r\n", 2);
        bytes -= length + (end != NULL);
        text += length + 1;
    }
    (void)!fd_write_full(STDERR_FILENO, text, bytes);
}

// Counts this line into the current window. Two threads that find the window over at once may both
// open a new one: then a few more lines pass, which does no harm.
static bool log_limit_passes(struct log_limit *limit)
{
    uint64_t now_ns = clock_monotonic_ns();
    uint64_t start_ns = atomic_load_explicit(&limit->window_start_ns, memory_order_relaxed);
    if (start_ns == 0 || now_ns - start_ns >= limit->window_ns) {
        atomic_store_explicit(&limit->window_start_ns, now_ns, memory_order_relaxed);
        atomic_store_explicit(&limit->used, 0, memory_order_relaxed);
    }
    return atomic_fetch_add_explicit(&limit->used, 1, memory_order_relaxed) < limit->burst;
}

void log_limited(struct log_limit *limit, enum log_level level, const char *fmt, ...)
{
    if (!log_enabled(level))
        return;
    if (!log_limit_passes(limit)) {
        atomic_fetch_add_explicit(&limit->dropped, 1, memory_order_relaxed);
        return;
    }
    uint32_t dropped = (uint32_t)atomic_exchange_explicit(&limit->dropped, 0, memory_order_relaxed);
    if (dropped > 0)
        log_line(level, "%u more lines like the next one were left out", dropped);
    va_list args;
    va_start(args, fmt);
    log_write(level, fmt, args);
    va_end(args);
}
