// SPDX-License-Identifier: BSD-2-Clause
// A finding as text, in the manner of AddressSanitizer, whose lines for frames and objects people
// and their tools can read.
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "check/internal.h"

static void put_position(FILE *out, const struct check_frame *frame)
{
    if (frame->file && frame->line && frame->column)
        fprintf(out, " %s:%u:%u", frame->file, frame->line, frame->column);
    else if (frame->file && frame->line)
        fprintf(out, " %s:%u", frame->file, frame->line);
    else if (frame->file)
        fprintf(out, " %s", frame->file);
    else if (frame->module)
        fprintf(out, " (%s+0x%" PRIx64 ")", frame->module, frame->module_offset);
    else
        fprintf(out, " (<unknown module>)");
}

static void put_stack(FILE *out, const struct check_frames *stack)
{
    for (size_t i = 0; i < stack->count; i++) {
        const struct check_frame *frame = &stack->frames[i];
        fprintf(out, "    #%zu 0x%012" PRIx64, i, frame->pc);
        if (frame->function)
            fprintf(out, " in %s", frame->function);
        put_position(out, frame);
        fputc('\n', out);
    }
    fputc('\n', out);
}

static void put_access(FILE *out, const struct check_finding *finding)
{
    static const char *const words[CHECK_ACCESS_COUNT] = {
        [CHECK_ACCESS_READ] = "READ",
        [CHECK_ACCESS_WRITE] = "WRITE",
        [CHECK_ACCESS_EXECUTE] = "EXECUTE",
    };
    const char *word = words[finding->access];

    if (word)
        fprintf(out, "%s of size %" PRIu64 " at 0x%012" PRIx64 " thread T%u", word, finding->bytes,
                finding->gva, finding->stack.thread);
    else
        fprintf(out, "%s of 0x%012" PRIx64 " by thread T%u", check_access_name(finding->access),
                finding->gva, finding->stack.thread);
    if (finding->pointer_id || finding->memory_id)
        fprintf(out, " (identifier of the pointer 0x%04x, of the memory 0x%04x)",
                finding->pointer_id, finding->memory_id);
    fputc('\n', out);
}

static void put_object(FILE *out, const struct check_described *described)
{
    const struct check_finding *finding = described->finding;
    const struct check_object *object = finding->object;
    char distance[64];

    check_object_distance(finding, distance, sizeof(distance));
    fprintf(out,
            "0x%012" PRIx64 " is located %s %" PRIu64 "-byte region [0x%012" PRIx64 ",0x%012" PRIx64
            ")\n",
            finding->gva, distance, object->bytes, object->gva, object->gva + object->bytes);
    if (described->freed_by.count) {
        fprintf(out, "freed by thread T%u here:\n", described->freed_by.thread);
        put_stack(out, &described->freed_by);
    }
    if (described->allocated.count) {
        fprintf(out, "%sallocated by thread T%u here:\n", object->freed ? "previously " : "",
                described->allocated.thread);
        put_stack(out, &described->allocated);
    }
}

static void put_leak(FILE *out, const struct check_described *described)
{
    const struct check_finding *finding = described->finding;

    fprintf(out, "%" PRIu64 " bytes in %" PRIu64 " object%s, one of them at 0x%012" PRIx64,
            finding->bytes, finding->objects, finding->objects == 1 ? "" : "s", finding->gva);
    fprintf(out, ", allocated by thread T%u here:\n", described->allocated.thread);
    put_stack(out, &described->allocated);
}

static void put_summary(FILE *out, const struct check_described *described)
{
    const struct check_frame *frame = check_described_frame(described);

    fprintf(out, "SUMMARY: Strake: %s", check_kind_name(described->finding->kind));
    if (frame) {
        put_position(out, frame);
        if (frame->function)
            fprintf(out, " in %s", frame->function);
    }
    fputc('\n', out);
}

// What in a suppression file would take this finding; frames without a name take any.
static void put_suggestion(FILE *out, const struct check_described *described)
{
    const struct check_frames *place = check_described_place(described);

    fprintf(out, "\nsuppress NAME\n    kind %s\n", check_kind_name(described->finding->kind));
    for (size_t i = 0; i < place->count; i++) {
        const struct check_frame *frame = &place->frames[i];
        fprintf(out, "    frame %s", frame->function ? frame->function : "*");
        if (frame->module)
            fprintf(out, " in %s", frame->module);
        fputc('\n', out);
    }
}

char *check_text_finding(const struct check_described *described, bool suggest)
{
    const struct check_finding *finding = described->finding;
    bool leak = check_kind_is_leak(finding->kind);
    char *text = NULL;
    size_t bytes;
    FILE *out = open_memstream(&text, &bytes);

    if (!out)
        return NULL;
    fprintf(out,
            "=================================================================\n"
            "==%d==ERROR: Strake: %s",
            (int)getpid(), check_kind_name(finding->kind));
    if (!leak)
        fprintf(out, " on address 0x%012" PRIx64, finding->gva);
    fputc('\n', out);
    if (finding->detail)
        fprintf(out, "%s\n", finding->detail);
    if (leak) {
        put_leak(out, described);
    } else {
        put_access(out, finding);
        put_stack(out, &described->stack);
    }
    if (!leak && finding->object)
        put_object(out, described);
    put_summary(out, described);
    if (suggest)
        put_suggestion(out, described);
    if (fclose(out) != 0) {
        free(text);
        return NULL;
    }
    return text;
}
