// SPDX-License-Identifier: BSD-2-Clause
// The stream of events: what happens to partitions, as server-sent events for whoever listens.
// Private to this room; the loop's thread.
#ifndef STRAKE_SUPERVISOR_EVENTS_H
#define STRAKE_SUPERVISOR_EVENTS_H

#include "supervisor/http.h"

struct events;

// Events are numbered from epoch << 32, so that a number is not used twice.
BASE_NODISCARD int events_create(struct events **out, unsigned epoch);
void events_destroy(struct events *events);  // after all streams have ended; NULL is ignored

// Tells everybody: `details`, an object, is taken, and gets the event's name and time added.
void events_emit(struct events *events, const char *event, json_t *details);

// Replies with all events after number `last`, of which the most recent ones are kept, or with
// those to come when `last` is 0.
void events_follow(struct events *events, struct http_request *request, uint64_t last);

// "2026-01-31T12:00:00.000Z", a new string.
json_t *events_time(uint64_t realtime_ns);

#endif
