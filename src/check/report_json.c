// SPDX-License-Identifier: BSD-2-Clause
// A finding as a line of JSON (docs/check-reports.md). Addresses are strings, as JSON's numbers
// have 53 bits with most readers; what is not known is left out.
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check/internal.h"

static json_t *hex(uint64_t value)
{
    return json_sprintf("0x%" PRIx64, value);
}

static json_t *string_or_null(const char *text)
{
    return text ? json_string(text) : NULL;
}

static json_t *positive_or_null(uint64_t value)
{
    return value ? json_integer((json_int_t)value) : NULL;
}

static json_t *frame_json(const struct check_frame *frame)
{
    // "*": left out when it is NULL.
    return json_pack("{s:o, s:o*, s:o*, s:o*, s:o*, s:o*, s:o*, s:o*}", "pc", hex(frame->pc),
                     "function", string_or_null(frame->function), "file",
                     string_or_null(frame->file), "line", positive_or_null(frame->line), "column",
                     positive_or_null(frame->column), "module", string_or_null(frame->module),
                     "offset", frame->module ? hex(frame->module_offset) : NULL, "inlined",
                     frame->inlined ? json_true() : NULL);
}

static json_t *frames_json(const struct check_frames *stack)
{
    json_t *array = json_array();

    for (size_t i = 0; i < stack->count; i++)
        json_array_append_new(array, frame_json(&stack->frames[i]));
    return array;
}

static json_t *object_json(const struct check_described *described)
{
    const struct check_finding *finding = described->finding;
    const struct check_object *object = finding->object;

    if (!object)
        return NULL;
    return json_pack("{s:o, s:I, s:I, s:s, s:i, s:o, s:o}", "start", hex(object->gva), "bytes",
                     (json_int_t)object->bytes, "offset", (json_int_t)(finding->gva - object->gva),
                     "state", object->freed ? "freed" : "live", "thread",
                     (int)object->allocated.thread, "allocated", frames_json(&described->allocated),
                     "freed", frames_json(&described->freed_by));
}

char *check_json_finding(const struct check_described *described)
{
    const struct check_finding *finding = described->finding;
    json_t *root =
        json_pack("{s:s, s:s, s:I, s:o, s:I, s:i, s:i, s:i, s:o*, s:o, s:o*}", "kind",
                  check_kind_name(finding->kind), "access", check_access_name(finding->access),
                  "bytes", (json_int_t)finding->bytes, "address", hex(finding->gva), "objects",
                  (json_int_t)finding->objects, "pointer_id", (int)finding->pointer_id, "memory_id",
                  (int)finding->memory_id, "thread", (int)finding->stack.thread, "detail",
                  string_or_null(finding->detail), "stack", frames_json(&described->stack),
                  "object", object_json(described));
    char *text = root ? json_dumps(root, JSON_COMPACT) : NULL;
    char *line = NULL;

    if (text && asprintf(&line, "%s\n", text) < 0)
        line = NULL;
    free(text);
    json_decref(root);
    return line;
}
