// SPDX-License-Identifier: BSD-2-Clause
// Findings as a page of HTML, which needs nothing else: no scripts, no fonts, no other files. End
// tags that HTML lets one leave out are left out, so the page is whole after each finding, whatever
// becomes of the process; and processes that write to one file make one page.
//
// All words in it but ours are the program's, and are escaped. Its sources are looked for where its
// debug information says; what is there may be anything.
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check/internal.h"

#define LINES_AROUND 3u
#define LINE_BYTES_MAX 240u
#define SOURCE_BYTES_MAX (16u << 20)
#define TAB_COLUMNS 8u

static const char head[] =
    "<!DOCTYPE html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n"
    "<meta http-equiv=\"Content-Security-Policy\" "
    "content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
    "<meta name=\"viewport\" content=\"width=device-width\">\n"
    "<style>\n"
    ":root { color-scheme: light dark; --paper: #fff; --ink: #1d1f23; --faint: #666c75;\n"
    "  --line: #d8dbe0; --code: #f5f6f8; --hit: #ffe3e0; --mark: #b3261e }\n"
    "@media (prefers-color-scheme: dark) { :root { --paper: #16181c; --ink: #e4e6ea;\n"
    "  --faint: #989ea8; --line: #383c44; --code: #1f2227; --hit: #4a2320; --mark: #ff8a80 } }\n"
    "body { background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif;\n"
    "  max-width: 64rem; margin: 2rem auto; padding: 0 1rem }\n"
    "article { border-top: 1px solid var(--line); margin-top: 2rem }\n"
    "h2 { color: var(--mark); margin-bottom: 0 } h3 { font-size: 1rem; margin: 1.5rem 0 .5rem }\n"
    "code, pre { font: 14px/1.45 ui-monospace, monospace; overflow-wrap: anywhere }\n"
    "ol { list-style: none; margin: 0; padding: 0 } summary { cursor: pointer }\n"
    ".plain { padding-left: 1rem }\n"
    ".faint { color: var(--faint) }\n"
    "pre { background: var(--code); border: 1px solid var(--line); border-radius: 4px;\n"
    "  margin: .25rem 0 .75rem; padding: .5rem 0; overflow-x: auto }\n"
    "pre span { display: block; padding: 0 .75rem; width: max-content; min-width: 100%;\n"
    "  box-sizing: border-box }\n"
    "pre span.hit { background: var(--hit); font-weight: bold }\n"
    "pre i { color: var(--faint); font-style: normal; user-select: none }\n"
    "</style>\n";

static void put_escaped(FILE *out, const char *text)
{
    for (; *text; text++)
        switch (*text) {
        case '&':
            fputs("&amp;", out);
            break;
        case '<':
            fputs("&lt;", out);
            break;
        case '>':
            fputs("&gt;", out);
            break;
        case '"':
            fputs("&quot;", out);
            break;
        case '\'':
            fputs("&#39;", out);
            break;
        default:
            fputc(*text, out);
        }
}

// ---- Sources ------------------------------------------------------------------------------------

// Only what is a file, of a size that sources have. NULL: there is none.
static FILE *source_open(const char *path)
{
    struct stat st;
    int fd = path[0] == '/' ? open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY) : -1;
    FILE *file = NULL;

    if (fd < 0)
        return NULL;
    if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size <= SOURCE_BYTES_MAX)
        file = fdopen(fd, "r");
    if (!file)
        close(fd);
    return file;
}

// Without what does not fit, and with blanks for tabs.
static void put_source_line(FILE *out, const char *line)
{
    char text[LINE_BYTES_MAX + TAB_COLUMNS + 1];
    size_t used = 0;

    for (; *line && *line != '\n' && *line != '\r' && used < LINE_BYTES_MAX; line++)
        if (*line == '\t')
            do
                text[used++] = ' ';
            while (used % TAB_COLUMNS);
        else
            text[used++] = *line;
    if ((*line & 0xc0) == 0x80)  // no part of a character
        while (used > 0 && (text[--used] & 0xc0) == 0x80)
            continue;
    text[used] = 0;
    check_text_clean(text);
    put_escaped(out, text);
}

static void put_numbered(FILE *out, unsigned number, const char *line, bool hit)
{
    fprintf(out, "<span%s><i>%5u </i>", hit ? " class=\"hit\"" : "", number);
    put_source_line(out, line);
    fputs("</span>", out);
}

// The lines around that of a frame; to be freed, NULL: there are none, or no memory.
static char *excerpt_of(const struct check_frame *frame)
{
    FILE *file = frame->file && frame->line ? source_open(frame->file) : NULL;
    char *line = NULL, *text = NULL;
    size_t line_bytes = 0, text_bytes;
    bool found = false;

    if (!file)
        return NULL;
    FILE *out = open_memstream(&text, &text_bytes);
    for (unsigned at = 1; out && at <= frame->line + LINES_AROUND; at++) {
        if (getline(&line, &line_bytes, file) < 0)
            break;
        found |= at == frame->line;
        if (at + LINES_AROUND >= frame->line)
            put_numbered(out, at, line, at == frame->line);
    }
    free(line);
    fclose(file);
    if (out && fclose(out) == 0 && found)
        return text;
    free(text);
    return NULL;
}

// ---- Stacks -------------------------------------------------------------------------------------

static void put_frame_line(FILE *out, const struct check_frame *frame, size_t number)
{
    fprintf(out, "<code>#%zu ", number);
    put_escaped(out, frame->function ? frame->function : "?");
    fputs("</code> <code class=\"faint\">", out);
    if (frame->file) {
        put_escaped(out, frame->file);
        if (frame->line)
            fprintf(out, ":%u", frame->line);
        if (frame->line && frame->column)
            fprintf(out, ":%u", frame->column);
    } else if (frame->module) {
        put_escaped(out, frame->module);
        fprintf(out, "+0x%" PRIx64, frame->module_offset);
    } else {
        fprintf(out, "0x%012" PRIx64, frame->pc);
    }
    fputs(frame->inlined ? " (inlined)</code>" : "</code>", out);
}

// The innermost frame that has a source is shown with it at once.
static void put_stack(FILE *out, const struct check_frames *stack)
{
    bool opened = false;

    fputs("<ol>\n", out);
    for (size_t i = 0; i < stack->count; i++) {
        char *excerpt = excerpt_of(&stack->frames[i]);
        fprintf(out, "<li title=\"0x%012" PRIx64 "\"%s>", stack->frames[i].pc,
                excerpt ? "" : " class=\"plain\"");
        if (excerpt)
            fprintf(out, "<details%s><summary>", opened ? "" : " open");
        put_frame_line(out, &stack->frames[i], i);
        if (excerpt)
            fprintf(out, "</summary>\n<pre>%s</pre></details>", excerpt);
        fputc('\n', out);
        opened |= excerpt != NULL;
        free(excerpt);
    }
    fputs("</ol>\n", out);
}

static void put_thread_stack(FILE *out, const char *what, const struct check_frames *stack)
{
    if (!stack->count)
        return;
    fprintf(out, "<h3>%s by thread T%u</h3>\n", what, stack->thread);
    put_stack(out, stack);
}

// ---- Findings -----------------------------------------------------------------------------------

static void put_object(FILE *out, const struct check_finding *finding)
{
    const struct check_object *object = finding->object;
    char distance[64];

    check_object_distance(finding, distance, sizeof(distance));
    fprintf(out,
            "<p><code>0x%012" PRIx64 "</code> is located %s %" PRIu64
            "-byte region <code>[0x%012" PRIx64 ",0x%012" PRIx64 ")</code>%s.\n",
            finding->gva, distance, object->bytes, object->gva, object->gva + object->bytes,
            object->freed ? ", which has been freed" : "");
}

static void put_about(FILE *out, const struct check_described *described)
{
    const struct check_finding *finding = described->finding;
    char sentence[256];

    check_described_sentence(described, sentence, sizeof(sentence));
    fprintf(out, "<h2>%s</h2>\n<p class=\"faint\">%s Process %d.\n<p>",
            check_kind_name(finding->kind), check_kind_description(finding->kind), (int)getpid());
    put_escaped(out, sentence);
    fputs(".\n", out);
    if (finding->detail) {
        fputs("<p>", out);
        put_escaped(out, finding->detail);
        fputs(".\n", out);
    }
    if (finding->pointer_id || finding->memory_id)
        fprintf(out,
                "<p>Identifier of the pointer <code>0x%04x</code>, of the memory "
                "<code>0x%04x</code>.\n",
                finding->pointer_id, finding->memory_id);
}

static void put_beginning(FILE *out, const char *program)
{
    fprintf(out, "%s<title>Memory errors of ", head);
    put_escaped(out, program);
    fputs("</title>\n<h1>Memory errors of <code>", out);
    put_escaped(out, program);
    fputs("</code></h1>\n", out);
}

char *check_html_finding(const struct check_described *described, const char *program, bool first)
{
    static const char *const words[CHECK_ACCESS_COUNT] = {
        [CHECK_ACCESS_NONE] = "Found",           [CHECK_ACCESS_READ] = "Read",
        [CHECK_ACCESS_WRITE] = "Written",        [CHECK_ACCESS_EXECUTE] = "Executed",
        [CHECK_ACCESS_FREE] = "Freed",           [CHECK_ACCESS_REALLOCATE] = "Reallocated",
        [CHECK_ACCESS_RETURN] = "Returned from",
    };
    const struct check_finding *finding = described->finding;
    char *text = NULL;
    size_t bytes;
    FILE *out = open_memstream(&text, &bytes);

    if (!out)
        return NULL;
    if (first)
        put_beginning(out, program);
    fputs("<article>\n", out);
    put_about(out, described);
    put_thread_stack(out, words[finding->access], &described->stack);
    if (!check_kind_is_leak(finding->kind) && finding->object)
        put_object(out, finding);
    put_thread_stack(out, "Freed before", &described->freed_by);
    put_thread_stack(out, "Allocated", &described->allocated);
    fputs("</article>\n", out);
    if (fclose(out) != 0) {
        free(text);
        return NULL;
    }
    return text;
}
