// SPDX-License-Identifier: BSD-2-Clause
// Reports: each place once, unless it is suppressed; in which words is report_FORMAT.c's business.
// A finding is written by one write(2), so that processes that share a descriptor do not mix
// theirs.
#include <errno.h>
#include <inttypes.h>
#include <search.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "check/internal.h"

// Findings of a kind whose innermost places are the same, up to this many, are one.
#define PLACE_DEPTH 4

struct place {
    uint64_t kind;
    uint64_t places[PLACE_DEPTH];
};

struct check_report {
    struct check_report_options options;
    struct check_symbols *symbols;
    struct check_sarif *sarif;
    void *reported;  // a tree of struct place
    uint64_t counts[CHECK_SUPPRESSED + 1];
    bool begun;   // a page of HTML
    int failure;  // of writing, the first
};

// ---- Describing ---------------------------------------------------------------------------------

static int frames_resolve(struct check_symbols *symbols, const struct check_stack *stack,
                          struct check_frames *out)
{
    enum { PLACE_FRAMES = 16 };
    size_t count = stack->count < CHECK_STACK_MAX ? stack->count : CHECK_STACK_MAX;

    *out = (struct check_frames){.thread = stack->thread};
    if (count == 0)
        return 0;
    out->frames = calloc(count * PLACE_FRAMES, sizeof(*out->frames));
    if (!out->frames)
        return -ENOMEM;
    for (size_t i = 0; i < count; i++)
        out->count += check_symbols_resolve(symbols, stack->places[i], out->frames + out->count,
                                            PLACE_FRAMES);
    return 0;
}

static void described_fini(struct check_described *described)
{
    free(described->stack.frames);
    free(described->allocated.frames);
    free(described->freed_by.frames);
}

static int described_init(struct check_described *described, struct check_symbols *symbols,
                          const struct check_finding *finding)
{
    const struct check_object *object = finding->object;

    *described = (struct check_described){.finding = finding};
    int rc = frames_resolve(symbols, &finding->stack, &described->stack);
    if (rc == 0 && object)
        rc = frames_resolve(symbols, &object->allocated, &described->allocated);
    if (rc == 0 && object)
        rc = frames_resolve(symbols, &object->freed_by, &described->freed_by);
    if (rc < 0)
        described_fini(described);
    return rc;
}

const struct check_frames *check_described_place(const struct check_described *described)
{
    return check_kind_is_leak(described->finding->kind) ? &described->allocated : &described->stack;
}

const struct check_frame *check_described_frame(const struct check_described *described)
{
    const struct check_frames *place = check_described_place(described);

    for (size_t i = 0; i < place->count; i++)
        if (place->frames[i].file)
            return &place->frames[i];
    return place->count ? &place->frames[0] : NULL;
}

void check_object_distance(const struct check_finding *finding, char *text, size_t capacity)
{
    const struct check_object *object = finding->object;
    uint64_t offset = finding->gva - object->gva;

    if (finding->gva < object->gva)
        snprintf(text, capacity, "%" PRIu64 " bytes before", object->gva - finding->gva);
    else if (offset >= object->bytes)
        snprintf(text, capacity, "%" PRIu64 " bytes after", offset - object->bytes);
    else
        snprintf(text, capacity, "%" PRIu64 " bytes inside", offset);
}

void check_described_sentence(const struct check_described *described, char *text, size_t capacity)
{
    const struct check_finding *finding = described->finding;
    const struct check_object *object = finding->object;
    char distance[64];

    if (check_kind_is_leak(finding->kind)) {
        snprintf(text, capacity, "%s: %" PRIu64 " bytes in %" PRIu64 " allocations of one place",
                 check_kind_name(finding->kind), finding->bytes, finding->objects);
        return;
    }
    char bytes[32] = "";  // what is freed has none of its own
    if (finding->bytes)
        snprintf(bytes, sizeof(bytes), " of %" PRIu64 " bytes", finding->bytes);
    int used = snprintf(text, capacity, "%s: %s%s at 0x%" PRIx64, check_kind_name(finding->kind),
                        check_access_name(finding->access), bytes, finding->gva);
    if (!object || used < 0 || (size_t)used >= capacity)
        return;
    check_object_distance(finding, distance, sizeof(distance));
    snprintf(text + used, capacity - (size_t)used, ", %s an object of %" PRIu64 " bytes%s",
             distance, object->bytes, object->freed ? " that has been freed" : "");
}

// ---- Places -------------------------------------------------------------------------------------

static int place_compare(const void *a, const void *b)
{
    return memcmp(a, b, sizeof(struct place));
}

// Whether there was none before. Without memory there never was: rather twice than not at all.
static bool place_is_new(struct check_report *report, const struct check_finding *finding)
{
    static const struct check_stack none;
    const struct check_stack *stack = &finding->stack;
    struct place *place = calloc(1, sizeof(*place));

    if (!place)
        return true;
    if (check_kind_is_leak(finding->kind))
        stack = finding->object ? &finding->object->allocated : &none;
    place->kind = finding->kind;
    for (size_t i = 0; i < stack->count && i < PLACE_DEPTH; i++)
        place->places[i] = stack->places[i];
    struct place *const *found = tsearch(place, &report->reported, place_compare);
    if (found && *found == place)
        return true;
    free(place);
    return !found;
}

// ---- Writing ------------------------------------------------------------------------------------

static void write_text(struct check_report *report, char *text)
{
    int64_t rc = text ? fd_write_full(report->options.fd, text, strlen(text)) : -ENOMEM;

    if (rc < 0 && report->failure == 0)
        report->failure = (int)rc;
    free(text);
}

static void write_finding(struct check_report *report, const struct check_described *described)
{
    switch (report->options.format) {
    case CHECK_FORMAT_TEXT:
        write_text(report, check_text_finding(described, report->options.suggest));
        break;
    case CHECK_FORMAT_JSON:
        write_text(report, check_json_finding(described));
        break;
    case CHECK_FORMAT_HTML:
        write_text(report, check_html_finding(described, report->options.program, !report->begun));
        report->begun = true;
        break;
    case CHECK_FORMAT_SARIF:
        if (check_sarif_add(report->sarif, described) < 0 && report->failure == 0)
            report->failure = -ENOMEM;
        break;
    }
}

static enum check_verdict describe_and_write(struct check_report *report,
                                             const struct check_finding *finding)
{
    struct check_suppressions *suppressions = report->options.suppressions;
    enum check_verdict verdict = CHECK_REPORTED;
    struct check_described described;

    if (described_init(&described, report->symbols, finding) < 0) {
        write_text(report, NULL);
        return CHECK_REPORTED;
    }
    const struct check_frames *place = check_described_place(&described);
    if (suppressions &&
        check_suppressions_match(suppressions, finding->kind, place->frames, place->count))
        verdict = CHECK_SUPPRESSED;
    else
        write_finding(report, &described);
    described_fini(&described);
    return verdict;
}

enum check_verdict check_report_add(struct check_report *report,
                                    const struct check_finding *finding)
{
    enum check_verdict verdict = CHECK_REPEATED;

    if (place_is_new(report, finding))
        verdict = describe_and_write(report, finding);
    report->counts[verdict]++;
    return verdict;
}

char *check_report_text(struct check_report *report, const struct check_finding *finding)
{
    struct check_described described;

    if (described_init(&described, report->symbols, finding) < 0)
        return NULL;
    char *text = check_text_finding(&described, false);
    described_fini(&described);
    return text;
}

uint64_t check_report_count(const struct check_report *report, enum check_verdict verdict)
{
    return report->counts[verdict];
}

// ---- Life ---------------------------------------------------------------------------------------

int check_report_create(struct check_report **out, struct check_symbols *symbols,
                        const struct check_report_options *options)
{
    struct check_report *report = calloc(1, sizeof(*report));

    if (!report)
        return -ENOMEM;
    report->symbols = symbols;
    report->options = *options;
    if (options->format == CHECK_FORMAT_SARIF &&
        check_sarif_create(&report->sarif, options->program) < 0) {
        free(report);
        return -ENOMEM;
    }
    *out = report;
    return 0;
}

void check_report_set_fd(struct check_report *report, int fd)
{
    report->options.fd = fd;
}

void check_report_forked(struct check_report *report)
{
    if (report->sarif)
        check_sarif_forget(report->sarif);
    memset(report->counts, 0, sizeof(report->counts));
}

static void write_totals(struct check_report *report)
{
    const uint64_t *counts = report->counts;
    char *text = NULL;

    if (counts[CHECK_REPORTED] + counts[CHECK_REPEATED] + counts[CHECK_SUPPRESSED] == 0)
        return;
    if (asprintf(&text,
                 "==%d== Strake: %" PRIu64 " reported, %" PRIu64 " more at the same places, "
                 "%" PRIu64 " suppressed\n",
                 (int)getpid(), counts[CHECK_REPORTED], counts[CHECK_REPEATED],
                 counts[CHECK_SUPPRESSED]) < 0)
        text = NULL;
    write_text(report, text);
}

int check_report_close(struct check_report *report)
{
    if (report->options.format == CHECK_FORMAT_TEXT)
        write_totals(report);
    if (report->options.format == CHECK_FORMAT_SARIF)
        write_text(report, check_sarif_text(report->sarif));
    int failure = report->failure;
    check_sarif_destroy(report->sarif);
    tdestroy(report->reported, free);
    free(report);
    return failure;
}
