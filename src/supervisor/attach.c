// SPDX-License-Identifier: BSD-2-Clause
// Consoles for clients of the API: a stream of what the guest writes, and what is typed.
//
// Output is read from the ring in which it is anyway, so a client that attaches late, twice, or
// again after the supervisor was away sees all of it. One that reads slower than the guest writes
// for as long as the ring lasts loses its place: its stream ends, and when it asks again, the reply
// says from where.
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "supervisor/attach.h"
#include "supervisor/registry.h"

#define CHUNK_BYTES 4096u

struct follower {
    struct list link;
    struct entry *entry;  // NULL: it is gone
    struct http_request *request;
    unsigned run;
    uint64_t position, stop;
    bool follow;
};

// Where the last lines begin.
static uint64_t find_lines(struct console_ring *console, uint64_t lines)
{
    char bytes[CHUNK_BYTES];
    const uint64_t start = console_ring_start(console), end = console_ring_end(console);
    for (uint64_t at = end; at > start;) {
        uint64_t chunk = at - start < sizeof(bytes) ? at - start : sizeof(bytes);
        uint64_t position = at - chunk;
        size_t count = console_ring_read(console, &position, bytes, chunk);
        at -= chunk;
        for (size_t i = count; i > 0; i--)
            // The newline at the very end does not begin a line.
            if (bytes[i - 1] == '\n' && at + i < end && lines-- <= 1)
                return at + i;
    }
    return start;
}

static uint64_t first_position(const struct entry *entry, const struct attach_from *from)
{
    uint64_t start = console_ring_start(entry->console), end = console_ring_end(entry->console);
    uint64_t position = 0;
    if (from->run == entry->runs)
        position = from->position < end ? from->position : end;
    else if (from->run == 0 && from->lines == 0)
        position = end;
    else if (from->run == 0 && from->lines < UINT64_MAX)
        position = find_lines(entry->console, from->lines);
    return position > start ? position : start;
}

static int follower_read(void *opaque, char *bytes, size_t space)
{
    struct follower *follower = opaque;
    struct entry *entry = follower->entry;
    if (!entry || !entry->console || entry->runs != follower->run)
        return -1;
    if (follower->position < console_ring_start(entry->console))
        return -1;  // overwritten
    if (!follower->follow && space > follower->stop - follower->position)
        space = (size_t)(follower->stop - follower->position);
    uint64_t position = follower->position;
    size_t count = space ? console_ring_read(entry->console, &follower->position, bytes, space) : 0;
    if (follower->position != position + count)
        return -1;  // overwritten meanwhile
    if (count > 0)
        return (int)count;
    return follower->follow && entry->process ? 0 : -1;
}

static void follower_closed(void *opaque)
{
    struct follower *follower = opaque;
    list_remove(&follower->link);
    free(follower);
}

void attach_output(struct entry *entry, struct http_request *request,
                   const struct attach_from *from)
{
    static const struct http_stream stream = {.read = follower_read, .closed = follower_closed};
    char run[16], position[24];
    struct error err;
    struct follower *follower = calloc(1, sizeof(*follower));
    if (!entry->console || !follower) {
        error_set(&err, follower ? -EALREADY : -ENOMEM, "partition \"%s\" has no console yet",
                  entry->name);
        free(follower);
        http_reply_error(request, &err);
        return;
    }
    *follower = (struct follower){.entry = entry,
                                  .request = request,
                                  .run = entry->runs,
                                  .position = first_position(entry, from),
                                  .stop = console_ring_end(entry->console),
                                  .follow = from->follow};
    if (follower->stop < follower->position)
        follower->stop = follower->position;
    list_append(&entry->followers, &follower->link);
    snprintf(run, sizeof(run), "%u", entry->runs);
    snprintf(position, sizeof(position), "%" PRIu64, follower->position);
    http_reply_header(request, "Strake-Run", run);
    http_reply_header(request, "Strake-Position", position);
    http_reply_stream(request, HTTP_BYTES, &stream, follower);
}

void attach_wake(struct entry *entry)
{
    LIST_FOR_EACH(&entry->followers, node)
    http_stream_wake(BASE_CONTAINER_OF(node, struct follower, link)->request);
}

void attach_end(struct entry *entry)
{
    LIST_FOR_EACH(&entry->followers, node)
    {
        struct follower *follower = BASE_CONTAINER_OF(node, struct follower, link);
        list_remove(&follower->link);
        follower->entry = NULL;
        http_stream_wake(follower->request);
    }
}

int64_t attach_input(struct entry *entry, const void *bytes, size_t count, struct error *err)
{
    int fd = entry->process ? process_console_input(entry->process) : -1;
    if (fd < 0)
        return error_set(err, -EALREADY, "cannot type into partition \"%s\": it is %s", entry->name,
                         entry_state_name(entry->state));
    ssize_t n = count ? send(fd, bytes, count, MSG_DONTWAIT | MSG_NOSIGNAL) : 0;
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        n = 0;
    return n < 0 ? error_set_errno(err, -errno, "cannot type into partition \"%s\"", entry->name)
                 : n;
}
