// SPDX-License-Identifier: BSD-2-Clause
// Names for reports. They come out of files that the program brings along, and go to terminals and
// into JSON: so they are valid UTF-8 without control characters.
#include <jansson.h>
#include <search.h>
#include <stdlib.h>
#include <string.h>

#include "check/module.h"

static int compare(const void *a, const void *b)
{
    return strcmp(a, b);
}

const char *check_strings_keep(struct check_strings *strings, const char *text)
{
    char *const *found = tfind(text, &strings->tree, compare);
    char *copy = found ? NULL : strdup(text);

    if (copy) {
        found = tsearch(copy, &strings->tree, compare);
        if (!found)
            free(copy);
    }
    return found ? *found : NULL;
}

void check_strings_fini(struct check_strings *strings)
{
    tdestroy(strings->tree, free);
}

static bool is_utf8(const char *text)
{
    json_t *string = json_string(text);

    json_decref(string);
    return string;
}

// U+0080 to U+009F are control characters, too.
void check_text_clean(char *text)
{
    bool utf8 = is_utf8(text);

    for (unsigned char *at = (unsigned char *)text; *at; at++)
        if (*at < 0x20 || *at == 0x7f || (*at >= 0x80 && !utf8))
            *at = '?';
        else if (at[0] == 0xc2 && at[1] < 0xa0)
            at[0] = at[1] = '?';
}

const char *check_strings_clean(struct check_strings *strings, const char *text)
{
    char *copy = text ? strdup(text) : NULL;

    if (!copy)
        return NULL;
    check_text_clean(copy);
    const char *kept = check_strings_keep(strings, copy);
    free(copy);
    return kept;
}
