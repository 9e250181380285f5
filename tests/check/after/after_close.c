// SPDX-License-Identifier: BSD-2-Clause
// An own stream structure is used after its close function.
// kind: heap-use-after-free
// access: read 8
// object: 40 bytes
#include "twin.h"
#include <stdio.h>
#include <stdlib.h>

struct stream {
    int (*next)(struct stream *stream);
    size_t at, bytes;
    char *data;
    int error;
};

static int stream_next(struct stream *stream)
{
    return stream->at < stream->bytes ? stream->data[stream->at++] : -1;
}

static void stream_close(struct stream *stream)
{
    free(stream->data);
    free(stream);  // @freed
}

int main(void)
{
    struct stream *stream = calloc(1, sizeof(*stream));  // @allocated
    stream->next = stream_next;
    stream->data = calloc(1, stream->bytes = 4);
    if (TWIN(1, 0))
        stream_close(HIDE(stream));
    int byte = HIDE(stream)->next(HIDE(stream));  // @access
    USE(byte);
    if (TWIN(0, 1))
        stream_close(stream);
    return 0;
}
