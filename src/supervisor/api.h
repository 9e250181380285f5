// SPDX-License-Identifier: BSD-2-Clause
// The supervisor's API, as docs/api.yaml describes it. Private to this room; the loop's thread.
#ifndef STRAKE_SUPERVISOR_API_H
#define STRAKE_SUPERVISOR_API_H

#include "supervisor/registry.h"

struct api;

struct api_config {
    struct registry *registry;
    int listen_fd;  // the API's from here, also on failure
    // Has the supervisor go on as this program, which is sealed and stays the caller's, when all
    // that is under way has been answered. When that comes to nothing, api_reexec_failed tells why.
    void (*reexec)(void *opaque, int program_fd);
    void *opaque;
};

BASE_NODISCARD int api_create(struct api **out, const struct api_config *config, struct error *err);
bool api_is_quiet(const struct api *api);  // as http_server_is_quiet
void api_reexec_failed(struct api *api, const struct error *err);
void api_destroy(struct api *api);  // once the registry was released; NULL is ignored

// metrics.c: replies with all metrics, once running partitions have told theirs.
void metrics_reply(struct registry *registry, const struct http_server *server,
                   const struct http_route *routes, size_t route_count,
                   struct http_request *request);

#endif
