// SPDX-License-Identifier: BSD-2-Clause
// The supervisor's API, as docs/api.yaml describes it. Private to this room; the loop's thread.
#ifndef STRAKE_SUPERVISOR_API_H
#define STRAKE_SUPERVISOR_API_H

#include "supervisor/registry.h"

struct api;

// Serves at `listen_fd`, which is taken over.
BASE_NODISCARD int api_create(struct api **out, struct registry *registry, int listen_fd,
                              struct error *err);
void api_destroy(struct api *api);  // once the registry was released; NULL is ignored

// metrics.c: replies with all metrics, once running partitions have told theirs.
void metrics_reply(struct registry *registry, const struct http_server *server,
                   const struct http_route *routes, size_t route_count,
                   struct http_request *request);

#endif
