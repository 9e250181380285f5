// SPDX-License-Identifier: BSD-2-Clause
// A builder of strings; a view of its text is kept across an append.
// kind: use-after-realloc
// access: read 1
// only: O0
#include "twin.h"
#include <stdlib.h>
#include <string.h>

struct builder {
    char *text;
    size_t used, room;
};

static void append(struct builder *builder, const char *more)
{
    size_t bytes = strlen(more);
    if (builder->used + bytes + 1 > builder->room) {
        builder->room = (builder->used + bytes + 1) * 8;
        builder->text = realloc(builder->text, builder->room);  // @allocated @freed
    }
    memcpy(builder->text + builder->used, more, bytes + 1);
    builder->used += bytes;
}

int main(void)
{
    struct builder builder = {0};
    append(&builder, "a");
    const char *view = HIDE(builder.text);
    for (int i = 0; i < 2000; i++)
        append(&builder, HIDE("bcdefgh"));
    if (TWIN(0, 1))
        view = builder.text;
    int wrong = HIDE(view)[0] != 'a';  // @access
    free(builder.text);
    return TWIN(0, wrong);
}
