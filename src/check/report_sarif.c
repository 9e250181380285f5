// SPDX-License-Identifier: BSD-2-Clause
// Findings as one document of SARIF 2.1.0 (OASIS), which editors and code hosts show: a run of a
// tool (3.14) with rules (3.19.23) and results (3.27), one a finding, the stacks in 3.27.18.
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check/internal.h"

struct check_sarif {
    json_t *program;  // its URI
    json_t *results;
};

// 3.4.3: a valid URI; what is not unreserved (RFC 3986, 2.3) is percent-encoded. Paths that are not
// absolute are relative references.
static json_t *uri_of(const char *path)
{
    static const char plain[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~/";
    char *text = NULL;
    size_t bytes;
    FILE *out = open_memstream(&text, &bytes);

    if (!out)
        return NULL;
    if (path[0] == '/')
        fputs("file://", out);
    for (; *path; path++)
        fprintf(out, strchr(plain, *path) ? "%c" : "%%%02X", (unsigned char)*path);
    json_t *uri = fclose(out) == 0 ? json_string(text) : NULL;
    free(text);
    return uri;
}

static json_t *region_of(const struct check_frame *frame)
{
    if (!frame->file || !frame->line)
        return NULL;
    return json_pack("{s:i, s:o*}", "startLine", (int)frame->line, "startColumn",
                     frame->column ? json_integer(frame->column) : NULL);
}

// 3.28. A frame of a file that is not known is one of the module.
static json_t *location_of(const struct check_sarif *sarif, const struct check_frame *frame)
{
    const char *path = frame->file ? frame->file : frame->module;
    json_t *uri = path ? uri_of(path) : json_incref(sarif->program);
    json_t *functions = NULL;

    if (frame->function)
        functions =
            json_pack("[{s:s, s:s}]", "fullyQualifiedName", frame->function, "kind", "function");
    return json_pack("{s:{s:{s:o}, s:o*}, s:o*}", "physicalLocation", "artifactLocation", "uri",
                     uri, "region", region_of(frame), "logicalLocations", functions);
}

// 3.44 and 3.45.
static json_t *stack_of(const struct check_sarif *sarif, const struct check_frames *stack,
                        const char *message)
{
    json_t *frames = json_array();

    for (size_t i = 0; i < stack->count; i++) {
        const struct check_frame *frame = &stack->frames[i];
        json_array_append_new(frames,
                              json_pack("{s:o, s:i, s:o*}", "location", location_of(sarif, frame),
                                        "threadId", (int)stack->thread, "module",
                                        frame->module ? json_string(frame->module) : NULL));
    }
    return json_pack("{s:{s:s}, s:o}", "message", "text", message, "frames", frames);
}

static json_t *stacks_of(const struct check_sarif *sarif, const struct check_described *described)
{
    json_t *stacks = json_array();

    if (described->stack.count)
        json_array_append_new(stacks, stack_of(sarif, &described->stack, "The access."));
    if (described->allocated.count)
        json_array_append_new(stacks, stack_of(sarif, &described->allocated, "The allocation."));
    if (described->freed_by.count)
        json_array_append_new(stacks, stack_of(sarif, &described->freed_by, "The free."));
    return stacks;
}

static json_t *result_of(const struct check_sarif *sarif, const struct check_described *described)
{
    const struct check_finding *finding = described->finding;
    const struct check_frame *frame = check_described_frame(described);
    const char *detail = finding->detail;
    char sentence[256];

    check_described_sentence(described, sentence, sizeof(sentence));
    json_t *message = json_sprintf("%s%s%s", sentence, detail ? ". " : "", detail ? detail : "");
    json_t *locations = frame ? json_pack("[o]", location_of(sarif, frame)) : json_array();
    return json_pack("{s:s, s:i, s:s, s:{s:o}, s:o, s:o}", "ruleId", check_kind_name(finding->kind),
                     "ruleIndex", (int)finding->kind, "level",
                     check_kind_is_leak(finding->kind) ? "warning" : "error", "message", "text",
                     message, "locations", locations, "stacks", stacks_of(sarif, described));
}

int check_sarif_create(struct check_sarif **out, const char *program)
{
    struct check_sarif *sarif = calloc(1, sizeof(*sarif));

    if (!sarif)
        return -ENOMEM;
    sarif->program = uri_of(program);
    sarif->results = json_array();
    if (!sarif->program || !sarif->results) {
        check_sarif_destroy(sarif);
        return -ENOMEM;
    }
    *out = sarif;
    return 0;
}

int check_sarif_add(struct check_sarif *sarif, const struct check_described *described)
{
    return json_array_append_new(sarif->results, result_of(sarif, described)) < 0 ? -ENOMEM : 0;
}

void check_sarif_forget(struct check_sarif *sarif)
{
    json_array_clear(sarif->results);
}

char *check_sarif_text(const struct check_sarif *sarif)
{
    json_t *rules = json_array();

    for (int kind = 0; kind < CHECK_KIND_COUNT; kind++)
        json_array_append_new(rules,
                              json_pack("{s:s, s:{s:s}}", "id",
                                        check_kind_name((enum check_kind)kind), "shortDescription",
                                        "text", check_kind_description((enum check_kind)kind)));
    json_t *root = json_pack("{s:s, s:s, s:[{s:{s:{s:s, s:s, s:o}}, s:[{s:o}], s:O}]}", "$schema",
                             "https://json.schemastore.org/sarif-2.1.0.json", "version", "2.1.0",
                             "runs", "tool", "driver", "name", "strake check", "version",
                             STRAKE_VERSION, "rules", rules, "artifacts", "location",
                             json_pack("{s:O}", "uri", sarif->program), "results", sarif->results);
    char *text = root ? json_dumps(root, JSON_INDENT(2)) : NULL;
    char *document = NULL;

    if (text && asprintf(&document, "%s\n", text) < 0)
        document = NULL;
    free(text);
    json_decref(root);
    return document;
}

void check_sarif_destroy(struct check_sarif *sarif)
{
    if (!sarif)
        return;
    json_decref(sarif->program);
    json_decref(sarif->results);
    free(sarif);
}
