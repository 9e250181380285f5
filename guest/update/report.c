// SPDX-License-Identifier: BSD-2-Clause
// What the user sees: lines, bars on a terminal, or a JSON object a line with --json.
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "update.h"

#define BAR 30u

int fault_set(struct fault *fault, enum outcome outcome, const char *format, ...)
{
    va_list arguments;

    fault->outcome = outcome;
    fault->refusal = 0;
    va_start(arguments, format);
    vsnprintf(fault->message, sizeof(fault->message), format, arguments);
    va_end(arguments);
    return -1;
}

int fault_system(struct fault *fault, enum outcome outcome, const char *format, ...)
{
    char what[400];
    int error = errno;
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(what, sizeof(what), format, arguments);
    va_end(arguments);
    return fault_set(fault, outcome, "%s: %s", what, strerror(error));
}

void report_init(struct report *report, bool json)
{
    *report = (struct report){.json = json, .terminal = !json && isatty(STDOUT_FILENO)};
}

static void end_bar(struct report *report)
{
    if (report->bar)
        fputc('\n', stdout);
    report->bar = false;
}

void report_line(struct report *report, const char *format, ...)
{
    char text[1024];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    end_bar(report);
    if (report->json) {
        fputs("{\"event\":\"note\",\"text\":", stdout);
        json_print(stdout, text);
        fputs("}\n", stdout);
    } else {
        printf("%s\n", text);
    }
    fflush(stdout);
}

static void show_bar(const char *doing, uint64_t done, unsigned per_cent, bool known)
{
    char bar[BAR + 1];
    unsigned filled = per_cent * BAR / 100;

    memset(bar, ' ', BAR);
    memset(bar, '#', filled);
    bar[BAR] = 0;
    if (known)
        printf("\r%-12s [%s] %3u%%  %.1f MiB", doing, bar, per_cent, (double)done / (1 << 20));
    else
        printf("\r%-12s %.1f MiB", doing, (double)done / (1 << 20));
}

void report_progress(struct report *report, const char *doing, uint64_t done, uint64_t total)
{
    // Whole MiB where the end is not known.
    unsigned step = (unsigned)(total ? done * 100 / total : done >> 20);

    bool ended = total && done == total;

    if (done != 0 && !ended && step == report->per_cent)
        return;
    report->per_cent = step;
    if (report->terminal) {
        show_bar(doing, done, step < 100 || !total ? step : 100, total > 0);
        report->bar = true;
        if (ended)
            end_bar(report);
    } else if (report->json) {
        fputs("{\"event\":\"progress\",\"doing\":", stdout);
        json_print(stdout, doing);
        printf(",\"done\":%llu,\"total\":%llu}\n", (unsigned long long)done,
               (unsigned long long)total);
    } else if (ended) {
        printf("%s: %llu bytes\n", doing, (unsigned long long)done);
    }
    fflush(stdout);
}

void report_fault(struct report *report, const struct fault *fault)
{
    end_bar(report);
    if (report->json) {
        printf("{\"event\":\"failed\",\"status\":%u,\"refusal\":%u,\"text\":", fault->outcome,
               fault->refusal);
        json_print(stdout, fault->message);
        fputs("}\n", stdout);
    }
    fprintf(stderr, "strake-update: %s\n", fault->message);
    fflush(stdout);
}
