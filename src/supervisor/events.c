// SPDX-License-Identifier: BSD-2-Clause
// Server-sent events (WHATWG HTML, 9.2).
//
// The most recent events are kept as the text that is sent; a follower has a position in them. One
// that is too slow for that misses events, and is told so by an event "lost".
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "supervisor/events.h"

#define KEPT 256u

struct events {
    uint64_t next;  // number of the next event
    uint64_t first;
    char *texts[KEPT];
    struct list followers;
};

struct follower {
    struct list link;
    struct events *events;
    struct http_request *request;
    uint64_t next;
    char *text;  // what is being sent
    size_t sent;
};

int events_create(struct events **out, unsigned epoch)
{
    struct events *events = calloc(1, sizeof(*events));
    if (!events)
        return -ENOMEM;
    events->first = events->next = ((uint64_t)epoch << 32) + 1;
    list_init(&events->followers);
    *out = events;
    return 0;
}

void events_destroy(struct events *events)
{
    if (!events)
        return;
    for (size_t i = 0; i < KEPT; i++)
        free(events->texts[i]);
    free(events);
}

json_t *events_time(uint64_t realtime_ns)
{
    time_t seconds = (time_t)(realtime_ns / 1000000000u);
    struct tm utc;
    char text[48];
    gmtime_r(&seconds, &utc);
    size_t used = strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &utc);
    snprintf(text + used, sizeof(text) - used, ".%03uZ",
             (unsigned)(realtime_ns % 1000000000u / 1000000u));
    return json_string(text);
}

static char *event_text(uint64_t number, const char *event, json_t *details)
{
    char *text = NULL;
    json_object_set_new(details, "event", json_string(event));
    json_object_set_new(details, "time", events_time(clock_realtime_ns()));
    char *data = json_dumps(details, JSON_COMPACT);
    if (!data || asprintf(&text, "id: %llu\nevent: %s\ndata: %s\n\n", (unsigned long long)number,
                          event, data) < 0)
        text = NULL;
    free(data);
    return text;
}

void events_emit(struct events *events, const char *event, json_t *details)
{
    char **slot = &events->texts[events->next % KEPT];
    free(*slot);
    *slot = event_text(events->next, event, details);  // NULL is passed over
    json_decref(details);
    events->next++;
    if (events->next - events->first > KEPT)
        events->first = events->next - KEPT;
    LIST_FOR_EACH(&events->followers, node)
    http_stream_wake(BASE_CONTAINER_OF(node, struct follower, link)->request);
}

// Puts the follower's next event into `text`. False when there is none.
static bool next_text(struct follower *follower)
{
    const struct events *events = follower->events;
    if (follower->next < events->first) {
        if (asprintf(&follower->text,
                     "event: lost\ndata: {\"event\": \"lost\", \"count\": %llu}\n\n",
                     (unsigned long long)(events->first - follower->next)) < 0)
            follower->text = NULL;
        follower->next = events->first;
    }
    while (!follower->text && follower->next < events->next) {
        const char *text = events->texts[follower->next++ % KEPT];
        follower->text = text ? strdup(text) : NULL;
    }
    return follower->text != NULL;
}

static int follower_read(void *opaque, char *bytes, size_t space)
{
    struct follower *follower = opaque;
    if (!follower->text && !next_text(follower))
        return 0;
    size_t left = strlen(follower->text + follower->sent);
    size_t n = left < space ? left : space;
    memcpy(bytes, follower->text + follower->sent, n);
    follower->sent += n;
    if (n == left) {
        free(follower->text);
        follower->text = NULL;
        follower->sent = 0;
    }
    return (int)n;
}

static void follower_closed(void *opaque)
{
    struct follower *follower = opaque;
    list_remove(&follower->link);
    free(follower->text);
    free(follower);
}

void events_follow(struct events *events, struct http_request *request, uint64_t last)
{
    static const struct http_stream stream = {.read = follower_read, .closed = follower_closed};
    struct follower *follower = calloc(1, sizeof(*follower));
    if (!follower) {
        http_reply_json(request, 0, NULL);
        return;
    }
    follower->events = events;
    follower->request = request;
    follower->next = last == 0 || last >= events->next ? events->next : last + 1;
    // Makes the reply start at once, before the first event.
    follower->text = strdup(": strake\n\n");
    list_append(&events->followers, &follower->link);
    http_reply_stream(request, "text/event-stream", &stream, follower);
}
