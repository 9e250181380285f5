// SPDX-License-Identifier: BSD-2-Clause
// net_guest: one module's guest: is it configured, is it healthy.
//
// One request after the other, as long as the partition is up: is it there, configure, then health
// again and again. Whatever goes wrong with a guest that works makes it one that does not, and it
// is configured from the start. After a process of this interceptor that has died, a guest that
// says it is healthy is left as it is.
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "leverage/net.h"

#define HEALTH_PERIOD_MS 1000u  // at most: half of the time limit, when that is less
#define AGAIN_MS 200u           // after what was refused, or could not be reached
#define CONFIGURE_MS 60000u     // an engine may take long to start
#define RESOLVERS_MAX 3
#define ADDRESSES_MAX 32

static void ask(struct net_module *module);

// ---- What a guest is told -----------------------------------------------------------------------

static void add_mac(struct guest_request *request, const char *key, const uint8_t mac[6])
{
    char text[MAC_TEXT_BYTES];

    format_mac(text, mac);
    guest_request_add(request, key, "%s", text);
}

static void add_address(struct guest_request *request, const char *key,
                        const struct netlink_address *address, bool prefix)
{
    char text[INET6_ADDRSTRLEN];

    inet_ntop(address->family, address->bytes, text, sizeof(text));
    if (prefix)
        guest_request_add(request, key, "%s/%u", text, address->prefix_bits);
    else
        guest_request_add(request, key, "%s", text);
}

static bool is_link_local(const struct netlink_address *address)
{
    return address->family == AF_INET6 && address->bytes[0] == 0xfe &&
           (address->bytes[1] & 0xc0) == 0x80;
}

// Name servers that the host uses, but for those on itself. systemd-resolved's are in a file of its
// own.
static void add_resolvers(struct guest_request *request)
{
    static const char *const files[] = {"/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"};
    unsigned found = 0;

    for (size_t i = 0; i < BASE_COUNT_OF(files) && !found; i++) {
        char line[256], server[64];
        uint8_t bytes[16];
        FILE *file = fopen(files[i], "re");
        while (file && found < RESOLVERS_MAX && fgets(line, sizeof(line), file)) {
            if (sscanf(line, " nameserver %63s", server) != 1)
                continue;
            bool v4 = inet_pton(AF_INET, server, bytes) == 1 && bytes[0] != 127;
            bool v6 = inet_pton(AF_INET6, server, bytes) == 1 && strcmp(server, "::1") != 0;
            if (v4 || v6) {
                guest_request_add(request, "dns", "%s", server);
                found++;
            }
        }
        if (file)
            fclose(file);
    }
}

static void add_forwards(struct guest_request *request,
                         const struct interceptor_definition *definition)
{
    for (size_t i = 0; i < definition->forward_count; i++) {
        const struct interceptor_forward *forward = &definition->forwards[i];
        char address[INET_ADDRSTRLEN];
        inet_ntop(AF_INET, forward->address, address, sizeof(address));
        guest_request_add(request, "forward", "%s:%u:%s:%u", forward->udp ? "udp" : "tcp",
                          forward->port, address, forward->to_port);
    }
}

static int add_nat(struct guest_request *request, struct net *net,
                   const struct netlink_link *device, struct error *err)
{
    struct netlink_address list[ADDRESSES_MAX], own[2], gateways[2];
    int failure = net_host_inside(net, own, gateways, err);

    if (failure)
        return failure;
    add_mac(request, "outer-mac", device->mac);
    guest_request_add(request, "mtu", "%u", device->mtu_bytes);
    int count = netlink_addresses(net->netlink, device->index, list, ADDRESSES_MAX, err);
    for (int i = 0; i < count; i++)
        if (!is_link_local(&list[i]))
            add_address(request, "address", &list[i], true);
    if (count >= 0)
        count = netlink_gateways(net->netlink, device->index, list, ADDRESSES_MAX, err);
    for (int i = 0; i < count; i++)
        add_address(request, "gateway", &list[i], false);
    add_address(request, "inside", &gateways[0], true);
    add_address(request, "inside6", &gateways[1], true);
    add_address(request, "host", &own[0], false);
    add_address(request, "host6", &own[1], false);
    guest_request_add(request, "dhcp", "10.83.%d.100,10.83.%d.250", net->inside, net->inside);
    add_forwards(request, net->definition);
    add_resolvers(request);
    return count < 0 ? count : 0;
}

// The address of the guest's device behind one of our taps.
static const uint8_t *mac_of(const struct net_module *module, const char *tap)
{
    static const uint8_t none[6];

    for (size_t i = 0; i < module->view->net_count; i++)
        if (strcmp(module->view->nets[i].tap, tap) == 0)
            return module->view->nets[i].mac;
    return none;
}

// What of a guest a request is about.
static void add_what(struct guest_request *request, const struct interceptor_module *definition)
{
    guest_request_add(request, "run", "%s", definition->run);
    guest_request_add(request, "pair", "%u", definition->pair);
}

// The last module is the one that translates addresses; those before it see what the outside sees.
static int describe(struct net_module *module, struct guest_request *request, struct error *err)
{
    struct net *net = module->net;
    bool nat = net->definition->nat && module == net_last(net);
    const char *lan = nat ? net_lan_tap(net) : NULL;
    struct netlink_link device;
    int failure = netlink_link_find(net->netlink, net->definition->device, &device, err);

    if (failure)
        return failure;
    if (!module->outer || !module->inner)
        return error_set(err, -ENODEV, "it has no two taps for pair %u", module->definition->pair);
    guest_request_init(request, "configure");
    add_what(request, module->definition);
    guest_request_add(request, "mode", "%s", nat ? "nat" : "inline");
    add_mac(request, "outer", mac_of(module, module->outer));
    add_mac(request, "inner", mac_of(module, module->inner));
    if (lan)
        add_mac(request, "lan", mac_of(module, lan));
    return nat ? add_nat(request, net, &device, err) : 0;
}

// ---- What becomes of it -------------------------------------------------------------------------

static void later(struct net_module *module, unsigned delay_ms)
{
    loop_timer_start(module->timer, delay_ms);
}

static void down(struct net_module *module, const char *why)
{
    snprintf(module->why, sizeof(module->why), "%s", why);
    module->guest = GUEST_DOWN;
    module->configured = module->answered = false;
    later(module, AGAIN_MS);
    net_changed(module->net);
}

// A guest that worked has a time limit to be reached again: connections are cut when a guest goes
// to another monitor, or starts again.
static bool may_come_back(struct net_module *module, const struct error *err)
{
    uint64_t now_ns = clock_monotonic_ns();

    if (module->guest == GUEST_DOWN || err->code == -EREMOTEIO || err->code == -ETIMEDOUT)
        return false;
    if (!module->asked_again)
        module->unreachable_since_ns = now_ns;
    module->asked_again = true;
    return now_ns - module->unreachable_since_ns <
           module->net->definition->time_limit_ms * UINT64_C(1000000);
}

// A guest that a former process has left working; else one is configured before it counts.
static bool is_inherited(const struct net_module *module)
{
    return module->guest == GUEST_UNKNOWN && module->net->path == NET_INHERITED;
}

static void healthy(void *opaque, struct guest_answer *answer, const struct error *err)
{
    struct net_module *module = opaque;
    struct net *net = module->net;
    unsigned half_ms = net->definition->time_limit_ms / 2;

    (void)answer;
    module->call = NULL;
    if (err && may_come_back(module, err)) {
        later(module, AGAIN_MS);
        return;
    }
    module->asked_again = false;
    module->answered = !err || err->code == -EREMOTEIO;
    if (err && err->code == -ETIMEDOUT)
        counter_add(&net->it->counters.timed_out, 1);
    if (module->answered && !module->configured && (err || !is_inherited(module))) {
        if (is_inherited(module))
            module->guest = GUEST_DOWN;  // without a reason: it may turn out to work
        later(module, 0);
        return;
    }
    if (err) {
        down(module, err->message);
        return;
    }
    module->configured = true;
    if (module->guest != GUEST_HEALTHY) {
        module->guest = GUEST_HEALTHY;
        *module->why = 0;
        net_changed(net);
    }
    later(module, half_ms < HEALTH_PERIOD_MS ? half_ms : HEALTH_PERIOD_MS);
}

// A reload came to nothing; the guest has what it had.
static void not_reloaded(struct net_module *module, const char *why)
{
    const char *partition = module->definition->partition;

    log_line(LOG_WARN, "partition \"%s\" keeps its configuration: %s", partition, why);
    interceptor_event(module->net->it, "not-reloaded",
                      json_pack("{s:s, s:s}", "partition", partition, "why", why));
    snprintf(module->why, sizeof(module->why), "%s", why);
    net_changed(module->net);
}

static void taken(struct net_module *module)
{
    module->configured = true;
    if (module->guest != GUEST_HEALTHY || !*module->why)
        return;
    *module->why = 0;
    net_changed(module->net);
}

static void configured(void *opaque, struct guest_answer *answer, const struct error *err)
{
    struct net_module *module = opaque;

    (void)answer;
    module->call = NULL;
    if (!err)
        taken(module);
    else if (module->guest == GUEST_HEALTHY)
        not_reloaded(module, err->message);
    else {
        down(module, err->message);
        return;
    }
    later(module, 0);
}

static int configure(struct net_module *module, struct error *err)
{
    struct guest_request *request = calloc(1, sizeof(*request));
    char *config = NULL;
    size_t bytes = 0;
    int failure = request ? describe(module, request, err) : -ENOMEM;

    if (!failure && module->definition->config)
        failure = guest_payload_read(module->definition->config, &config, &bytes, err);
    if (!failure) {
        free(module->pushed);
        module->pushed = strndup(request->line, request->line_bytes);
        if (config)
            guest_request_payload(request, config, bytes);
        module->call = guest_ask(module->net->it->loop, module->view->vsock_path, request,
                                 CONFIGURE_MS, configured, module);
        failure = module->call ? 0 : error_set_errno(err, -ENOMEM, "cannot ask the guest");
    }
    free(config);
    free(request);
    return failure;
}

static int check_health(struct net_module *module, struct error *err)
{
    struct guest_request *request = calloc(1, sizeof(*request));

    if (request) {
        guest_request_init(request, "health");
        add_what(request, module->definition);
        module->call = guest_ask(module->net->it->loop, module->view->vsock_path, request,
                                 module->net->definition->time_limit_ms, healthy, module);
        free(request);
    }
    return module->call ? 0 : error_set_errno(err, -ENOMEM, "cannot ask the guest");
}

static void ask(struct net_module *module)
{
    struct error err = {0};
    bool to_configure = module->reload || (!module->configured && module->answered);

    if (module->call)
        return;
    module->reload = false;
    if (!module->view->vsock_path)
        error_set(&err, -ENOTCONN,
                  "it has no vsock device, which it gets when it is started again");
    else if (to_configure)
        (void)!configure(module, &err);
    else
        (void)!check_health(module, &err);
    if (!err.code)
        return;
    if (module->guest == GUEST_HEALTHY) {
        not_reloaded(module, err.message);
        later(module, HEALTH_PERIOD_MS);
    } else
        down(module, err.message);
}

static void timer(void *opaque)
{
    ask(opaque);
}

// ---- From outside -------------------------------------------------------------------------------

void net_guest_start(struct net_module *module)
{
    module->guest = GUEST_UNKNOWN;
    module->configured = module->answered = module->asked_again = false;
    *module->why = 0;
    ask(module);
}

void net_guest_stop(struct net_module *module)
{
    guest_cancel(module->call);
    module->call = NULL;
    loop_timer_stop(module->timer);
    module->guest = GUEST_DOWN;
    module->configured = module->answered = false;
}

static bool is_new(struct net_module *module)
{
    struct guest_request *request = calloc(1, sizeof(*request));
    bool other = request && describe(module, request, NULL) == 0 && module->pushed &&
                 (strlen(module->pushed) != request->line_bytes ||
                  memcmp(module->pushed, request->line, request->line_bytes) != 0);

    free(request);
    return other;
}

void net_guest_reload(struct net_module *module, bool always)
{
    if (!module->configured || !(always || is_new(module)))
        return;
    module->reload = true;
    if (!module->call)
        later(module, 0);
}

int net_guest_init(struct net_module *module)
{
    return loop_timer_create(module->net->it->loop, timer, module, &module->timer);
}

void net_guest_fini(struct net_module *module)
{
    guest_cancel(module->call);
    loop_timer_close(module->timer);
    free(module->pushed);
}
