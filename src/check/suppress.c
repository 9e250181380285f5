// SPDX-License-Identifier: BSD-2-Clause
// Suppressions: what is written in docs/check-reports.md. The lines of a file are kept, cut into
// strings; patterns point into them.
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check/check.h"

struct frame_pattern {
    bool any_number;  // "...": of frames that may be anything; none of the rest counts
    const char *function, *module, *file;  // NULL: any
    unsigned line;                         // 0: any
};

struct suppression {
    const char *name;
    const char *kinds[CHECK_KIND_COUNT];  // none: all
    size_t kind_count;
    struct frame_pattern *frames;
    size_t frame_count;
    uint64_t used;
};

struct file_text {
    struct list list;
    char bytes[];
};

struct check_suppressions {
    struct suppression *all;
    size_t count;
    struct list texts;
};

int check_suppressions_create(struct check_suppressions **out)
{
    *out = calloc(1, sizeof(**out));
    if (!*out)
        return -ENOMEM;
    list_init(&(*out)->texts);
    return 0;
}

static void forget_from(struct check_suppressions *suppressions, size_t count)
{
    while (suppressions->count > count)
        free(suppressions->all[--suppressions->count].frames);
}

void check_suppressions_destroy(struct check_suppressions *suppressions)
{
    if (!suppressions)
        return;
    forget_from(suppressions, 0);
    LIST_FOR_EACH(&suppressions->texts, list)
    {
        free(BASE_CONTAINER_OF(list, struct file_text, list));
    }
    free(suppressions->all);
    free(suppressions);
}

// ---- Patterns -----------------------------------------------------------------------------------

// "*" is any number of characters, "?" one; nothing else is special, as names in C++ are full of
// brackets. When the rest does not fit, only the last "*" has to take one more.
static bool text_matches(const char *pattern, const char *text)
{
    const char *star = NULL, *taken = NULL;

    while (*text) {
        if (*pattern == '*') {
            star = pattern++;
            taken = text;
        } else if (*pattern == '?' || *pattern == *text) {
            pattern++;
            text++;
        } else if (star) {
            pattern = star + 1;
            text = ++taken;
        } else {
            return false;
        }
    }
    return pattern[strspn(pattern, "*")] == '\0';
}

// Of a path, or of its last part where the pattern has no folder in it.
static bool path_matches(const char *pattern, const char *path)
{
    const char *slash = path ? strrchr(path, '/') : NULL;

    if (!path)
        return text_matches(pattern, "");
    return text_matches(pattern, slash && !strchr(pattern, '/') ? slash + 1 : path);
}

static bool frame_matches(const struct frame_pattern *pattern, const struct check_frame *frame)
{
    return (!pattern->function ||
            text_matches(pattern->function, frame->function ? frame->function : "")) &&
           (!pattern->module || path_matches(pattern->module, frame->module)) &&
           (!pattern->file || path_matches(pattern->file, frame->file)) &&
           (!pattern->line || pattern->line == frame->line);
}

// As text_matches, but that a stack may go on behind the last pattern.
static bool stack_matches(const struct suppression *suppression, const struct check_frame *frames,
                          size_t count)
{
    const struct frame_pattern *patterns = suppression->frames;
    size_t pattern = 0, frame = 0, any = SIZE_MAX, taken = 0;

    while (pattern < suppression->frame_count) {
        if (patterns[pattern].any_number) {
            any = pattern++;
            taken = frame;
        } else if (frame < count && frame_matches(&patterns[pattern], &frames[frame])) {
            pattern++;
            frame++;
        } else if (any != SIZE_MAX && taken < count) {
            pattern = any + 1;
            frame = ++taken;
        } else {
            return false;
        }
    }
    return true;
}

static bool kind_matches(const struct suppression *suppression, enum check_kind kind)
{
    for (size_t i = 0; i < suppression->kind_count; i++)
        if (text_matches(suppression->kinds[i], check_kind_name(kind)))
            return true;
    return suppression->kind_count == 0;
}

bool check_suppressions_match(struct check_suppressions *suppressions, enum check_kind kind,
                              const struct check_frame *frames, size_t count)
{
    for (size_t i = 0; i < suppressions->count; i++) {
        struct suppression *suppression = &suppressions->all[i];
        if (kind_matches(suppression, kind) && stack_matches(suppression, frames, count)) {
            suppression->used++;
            return true;
        }
    }
    return false;
}

bool check_suppressions_get(const struct check_suppressions *suppressions, size_t index,
                            const char **name, uint64_t *used)
{
    if (index >= suppressions->count)
        return false;
    *name = suppressions->all[index].name;
    *used = suppressions->all[index].used;
    return true;
}

// ---- Files --------------------------------------------------------------------------------------

struct parser {
    struct check_suppressions *suppressions;
    struct suppression *current;  // NULL: before the first
    const char *name;
    unsigned line;
    struct error *err;
};

static int __attribute__((format(printf, 2, 3))) refuse(struct parser *parser, const char *fmt, ...)
{
    char reason[ERROR_MESSAGE_BYTES / 2];
    va_list arguments;

    va_start(arguments, fmt);
    vsnprintf(reason, sizeof(reason), fmt, arguments);
    va_end(arguments);
    return error_set(parser->err, -EINVAL, "cannot read suppressions from \"%s\": line %u: %s",
                     parser->name, parser->line, reason);
}

static int out_of_memory(struct parser *parser)
{
    return error_set_errno(parser->err, -ENOMEM, "cannot read suppressions from \"%s\"",
                           parser->name);
}

// Cuts blanks off both ends.
static char *trim(char *text)
{
    text += strspn(text, " \t\r");
    for (size_t length = strlen(text); length > 0 && isspace((unsigned char)text[length - 1]);)
        text[--length] = '\0';
    return text;
}

static int parse_suppress(struct parser *parser, char *rest)
{
    struct check_suppressions *suppressions = parser->suppressions;
    struct suppression *all =
        reallocarray(suppressions->all, suppressions->count + 1, sizeof(*suppressions->all));

    if (!all)
        return out_of_memory(parser);
    suppressions->all = all;
    parser->current = &all[suppressions->count++];
    *parser->current = (struct suppression){.name = rest};
    return *rest ? 0 : refuse(parser, "a suppression needs a name");
}

static bool is_some_kind(const char *pattern)
{
    for (int kind = 0; kind < CHECK_KIND_COUNT; kind++)
        if (text_matches(pattern, check_kind_name((enum check_kind)kind)))
            return true;
    return false;
}

static int parse_kind(struct parser *parser, char *rest)
{
    struct suppression *current = parser->current;

    if (!*rest)
        return refuse(parser, "which kind?");
    for (char *save, *word = strtok_r(rest, " \t", &save); word;
         word = strtok_r(NULL, " \t", &save)) {
        if (!is_some_kind(word))
            return refuse(parser, "there is no kind \"%s\"", word);
        if (current->kind_count == BASE_COUNT_OF(current->kinds))
            return refuse(parser, "more kinds than there are");
        current->kinds[current->kind_count++] = word;
    }
    return 0;
}

// Cuts what follows the last " WORD " off, and returns it; NULL: there is none.
static char *cut_clause(char *text, const char *word)
{
    char *found = NULL;

    for (char *at = text; (at = strstr(at, word)); at++)
        found = at;
    if (!found)
        return NULL;
    *found = '\0';
    return trim(found + strlen(word));
}

static int parse_line_number(struct parser *parser, char *file, unsigned *line)
{
    char *colon = strrchr(file, ':');

    if (!colon)
        return 0;
    *colon = '\0';
    if (parse_unsigned(line, colon + 1, NULL) < 0 || *line == 0)
        return refuse(parser, "\"%s\" is not the number of a line", colon + 1);
    return 0;
}

static int add_frame(struct parser *parser, const struct frame_pattern *pattern)
{
    struct suppression *current = parser->current;
    struct frame_pattern *frames =
        reallocarray(current->frames, current->frame_count + 1, sizeof(*frames));

    if (!frames)
        return out_of_memory(parser);
    current->frames = frames;
    frames[current->frame_count++] = *pattern;
    return 0;
}

// "FUNCTION [in MODULE] [at FILE[:LINE]]"
static int parse_frame(struct parser *parser, char *rest)
{
    struct frame_pattern pattern = {0};
    char *file = cut_clause(rest, " at ");
    char *module = cut_clause(rest, " in ");
    int rc = file ? parse_line_number(parser, file, &pattern.line) : 0;

    rest = trim(rest);
    if (rc < 0)
        return rc;
    if (!*rest || strncmp(rest, "in ", 3) == 0 || strncmp(rest, "at ", 3) == 0 ||
        (file && !*file) || (module && !*module))
        return refuse(parser, "a frame is \"FUNCTION [in MODULE] [at FILE[:LINE]]\"");
    pattern.function = rest;
    pattern.module = module;
    pattern.file = file;
    return add_frame(parser, &pattern);
}

static int parse_any_number(struct parser *parser, char *rest)
{
    return *rest ? refuse(parser, "\"...\" stands alone")
                 : add_frame(parser, &(struct frame_pattern){.any_number = true});
}

static int parse_line(struct parser *parser, char *line)
{
    static const struct {
        const char *word;
        int (*parse)(struct parser *parser, char *rest);
    } words[] = {
        {"suppress", parse_suppress},
        {"kind", parse_kind},
        {"frame", parse_frame},
        {"...", parse_any_number},
    };

    line = trim(line);
    if (!*line || *line == '#')
        return 0;
    char *rest = line + strcspn(line, " \t");
    if (*rest)
        *rest++ = '\0';
    for (size_t i = 0; i < BASE_COUNT_OF(words); i++) {
        if (strcmp(line, words[i].word) != 0)
            continue;
        if (i > 0 && !parser->current)
            return refuse(parser, "\"suppress NAME\" comes first");
        return words[i].parse(parser, trim(rest));
    }
    return refuse(parser, "\"%s\" is none of \"suppress\", \"kind\", \"frame\" and \"...\"", line);
}

// One that says nothing would take all findings.
static int check_ends_meet(struct parser *parser, size_t first)
{
    for (size_t i = first; i < parser->suppressions->count; i++) {
        const struct suppression *suppression = &parser->suppressions->all[i];
        if (suppression->kind_count == 0 && suppression->frame_count == 0)
            return error_set(parser->err, -EINVAL,
                             "cannot read suppressions from \"%s\": \"%s\" has neither a kind nor "
                             "a frame",
                             parser->name, suppression->name);
    }
    return 0;
}

int check_suppressions_add(struct check_suppressions *suppressions, const char *name,
                           const char *text, struct error *err)
{
    struct parser parser = {.suppressions = suppressions, .name = name, .err = err};
    size_t bytes = strlen(text) + 1, first = suppressions->count;
    struct file_text *kept = malloc(sizeof(*kept) + bytes);
    int rc = 0;

    if (!kept)
        return out_of_memory(&parser);
    memcpy(kept->bytes, text, bytes);
    for (char *next = kept->bytes, *line; rc == 0 && (line = strsep(&next, "\n"));) {
        parser.line++;
        rc = parse_line(&parser, line);
    }
    if (rc == 0)
        rc = check_ends_meet(&parser, first);
    if (rc == 0) {
        list_append(&suppressions->texts, &kept->list);
        return 0;
    }
    forget_from(suppressions, first);
    free(kept);
    return rc;
}
