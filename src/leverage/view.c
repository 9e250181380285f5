// SPDX-License-Identifier: BSD-2-Clause
// What supervisor and interceptors tell each other with: names of states, views of partitions.
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "leverage/leverage.h"

static const char *const state_names[INTERCEPTOR_STATES] = {
    [INTERCEPTOR_STARTING] = "starting", [INTERCEPTOR_ACTIVE] = "active",
    [INTERCEPTOR_BYPASSED] = "bypassed", [INTERCEPTOR_SHUT] = "shut",
    [INTERCEPTOR_FAILED] = "failed",     [INTERCEPTOR_REMOVING] = "removing",
};

const char *interceptor_state_name(enum interceptor_state state)
{
    return state_names[state];
}

enum interceptor_state interceptor_state_from_name(const char *name)
{
    unsigned state = 0;
    while (state < INTERCEPTOR_STATES && (!name || strcmp(state_names[state], name) != 0))
        state++;
    return (enum interceptor_state)state;
}

// ---- Views --------------------------------------------------------------------------------------

static json_t *net_to_json(const struct partition_view_net *net)
{
    char mac[MAC_TEXT_BYTES];
    format_mac(mac, net->mac);
    return json_pack("{s:s*,s:s}", "tap", *net->tap ? net->tap : NULL, "mac", mac);
}

json_t *partition_view_to_json(const struct partition_view *view)
{
    json_t *nets = json_array();
    for (size_t i = 0; i < view->net_count; i++)
        if (json_array_append_new(nets, net_to_json(&view->nets[i])) < 0) {
            json_decref(nets);
            return NULL;
        }
    return json_pack("{s:s,s:s,s:s*,s:o}", "name", view->name, "state",
                     view->state == PARTITION_UP ? "up" : "down", "vsock", view->vsock_path, "nets",
                     nets);
}

static int net_from_json(struct partition_view_net *net, const json_t *object)
{
    const char *tap = json_string_value(json_object_get(object, "tap"));
    const char *mac = json_string_value(json_object_get(object, "mac"));
    if (tap && strlen(tap) >= sizeof(net->tap))
        return -EINVAL;
    snprintf(net->tap, sizeof(net->tap), "%s", tap ? tap : "");
    return mac ? parse_mac(net->mac, mac, NULL) : -EINVAL;
}

int partition_view_from_json(struct partition_view *view, const json_t *object)
{
    const json_t *nets = json_object_get(object, "nets");
    const char *state = json_string_value(json_object_get(object, "state"));
    *view = (struct partition_view){
        .name = json_string_value(json_object_get(object, "name")),
        .vsock_path = json_string_value(json_object_get(object, "vsock")),
        .net_count = json_array_size(nets),
    };
    if (!view->name || !state || view->net_count > PARTITION_VIEW_NETS)
        return -EINVAL;
    bool up = strcmp(state, "up") == 0;
    view->state = up ? PARTITION_UP : PARTITION_DOWN;
    int rc = up || strcmp(state, "down") == 0 ? 0 : -EINVAL;
    for (size_t i = 0; i < view->net_count && rc == 0; i++)
        rc = net_from_json(&view->nets[i], json_array_get(nets, i));
    return rc;
}
