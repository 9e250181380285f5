// SPDX-License-Identifier: BSD-2-Clause
// net: packets between a device of the host and the host go through guests (docs/leverage-net.md).
//
// Whatever happens (a guest, a tap, an address, a route, the device, the table came or went), it is
// looked at what there is, and packets are led where they belong: `settle`. That is also how a
// process goes on after one that has died.
#include <errno.h>
#include <linux/capability.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "leverage/net.h"

#define SETTLE_MS 10u   // changes come together
#define RETRY_MS 1000u  // of what the host refused
#define DRAIN_MS 200u   // for what guests still have at a removal

// ---- Tables -------------------------------------------------------------------------------------

static void add_counter(void *opaque, const char *name, uint64_t packets, uint64_t bytes)
{
    uint64_t *sums = opaque;

    (void)bytes;
    for (size_t i = 0; i < NET_COUNTERS; i++)
        if (strcmp(name, net_counter_names[i]) == 0)
            sums[i] += packets;
}

// What packets meet from now on.
static int lead(struct net *net, enum net_path path, struct error *err)
{
    char *commands = net_rules(net, path);

    if (!commands)
        return error_set_errno(err, -ENOMEM, "cannot set up the packet filter");
    if (net->table_made)
        (void)!nft_each_counter(net->nft, net->table, add_counter, net->counted, NULL);
    int failure = nft_run(net->nft, commands, err);
    free(commands);
    if (failure)
        return failure;
    net->table_made = path != NET_UNTOUCHED;
    net->path = path;
    return 0;
}

// The first partition's monitor holds the table, should this process die. The table that it held
// for a former process goes now.
static void hold(struct net *net)
{
    if (net->held || net->definition->fail == INTERCEPTOR_FAIL_CLOSED)
        return;
    int failure = interceptor_hold(net->it, net->modules[0].definition->partition,
                                   nft_lifeline(net->nft), NULL, NULL);
    if (failure)
        log_line(LOG_WARN, "partition \"%s\" cannot be given the table: %s",
                 net->modules[0].definition->partition, strerror(-failure));
    net->held = !failure;
}

struct sought {
    const char *table;
    bool found;
};

static void look_for(void *opaque, const char *name)
{
    struct sought *sought = opaque;

    sought->found |= strcmp(name, sought->table) == 0;
}

// Somebody may have removed our table (nft flush ruleset): then there is nothing any more.
static void look_at_table(struct net *net)
{
    struct sought sought = {.table = net->table};

    if (!net->table_made || nft_each_table(net->nft, look_for, &sought, NULL) || sought.found)
        return;
    log_line(LOG_WARN, "somebody has removed table \"%s\"", net->table);
    net->table_made = false;
    net->path = NET_UNTOUCHED;
}

struct former {
    struct net *net;
    bool found, taken;
};

// Of this interceptor: "strake-NAME", or "strake-NAME/PID".
static void former_table(void *opaque, const char *name)
{
    struct former *former = opaque;
    char ours[INTERCEPTOR_NAME_MAX + 32];
    int bytes = snprintf(ours, sizeof(ours), "strake-%s", former->net->definition->name);

    if (strncmp(name, ours, (size_t)bytes) != 0 || (name[bytes] && name[bytes] != '/'))
        return;
    former->found = true;
    former->taken |= strcmp(name, former->net->table) == 0;
    if (former->net->definition->fail != INTERCEPTOR_FAIL_CLOSED)
        (void)!nft_each_counter(former->net->nft, name, add_counter, former->net->counted, NULL);
}

// Whether there is one, from a former process. One with an owner is not ours: it goes when a
// monitor has another lifeline.
static int find_former(struct net *net, bool *found, struct error *err)
{
    const struct interceptor_definition *definition = net->definition;
    struct former former = {.net = net};

    for (int i = 0; i == 0 || former.taken; i++) {
        former.taken = false;
        memset(net->counted, 0, sizeof(net->counted));
        if (definition->fail == INTERCEPTOR_FAIL_CLOSED)
            snprintf(net->table, sizeof(net->table), "strake-%s", definition->name);
        else
            snprintf(net->table, sizeof(net->table), "strake-%s/%d", definition->name,
                     (int)getpid() + i);
        int failure = nft_each_table(net->nft, former_table, &former, err);
        if (failure)
            return failure;
        if (definition->fail == INTERCEPTOR_FAIL_CLOSED)
            break;
    }
    *found = former.found;
    net->table_made = former.taken;  // of `closed`: it goes on as ours
    return 0;
}

// ---- What there is ------------------------------------------------------------------------------

static bool is_plain(const char *name)
{
    return *name && !strpbrk(name, "\"\\ \t\n");
}

static const char *tap_of(const struct net_module *module, unsigned side)
{
    size_t index = 2 * (size_t)module->definition->pair + side;

    if (!module->view || index >= module->view->net_count ||
        !is_plain(module->view->nets[index].tap))
        return NULL;
    return module->view->nets[index].tap;
}

// Which taps are there. 0, or the reason why not all are that should be.
static int find_taps(struct net *net, int indexes[NET_TAPS_MAX], struct error *err)
{
    struct netlink_link link = {0};
    int result = 0;

    memset(indexes, 0, NET_TAPS_MAX * sizeof(*indexes));
    for (size_t i = 0; i < 2 * net->module_count; i++) {
        const struct net_module *module = &net->modules[i / 2];
        const char *tap = i % 2 ? module->inner : module->outer;
        int failure = 0;
        if (!tap)
            failure = error_set(err, -ENODEV, "partition \"%s\" has no two taps for pair %u",
                                module->definition->partition, module->definition->pair);
        else if (strcmp(tap, net->definition->device) == 0)
            failure = error_set(err, -EINVAL, "\"%s\" is a tap of partition \"%s\"", tap,
                                module->definition->partition);
        else
            failure = netlink_link_find(net->netlink, tap, &link, err);
        if (failure)
            result = failure;
        else
            indexes[i] = link.index;
    }
    const char *lan = net_lan_tap(net);
    if (lan && netlink_link_find(net->netlink, lan, &link, NULL) == 0)
        indexes[2 * net->module_count] = link.index;
    return result;
}

// Whether packets can go through the guests; else *err says why not. `unknown`: it may turn out
// that they can.
static int ready(struct net *net, bool *unknown, struct error *err)
{
    *unknown = false;
    for (size_t i = 0; i < net->module_count; i++) {
        struct net_module *module = &net->modules[i];
        if (!module->view || module->view->state != PARTITION_UP)
            return error_set(err, -EHOSTDOWN, "partition \"%s\" does not run",
                             module->definition->partition);
        if (module->guest == GUEST_DOWN && *module->why)
            return error_set(err, -EHOSTDOWN, "partition \"%s\": %s", module->definition->partition,
                             module->why);
    }
    for (size_t i = 0; i < net->module_count; i++)
        if (net->modules[i].guest != GUEST_HEALTHY) {
            *unknown = true;
            return error_set(err, -EAGAIN, "partition \"%s\" has yet to answer",
                             net->modules[i].definition->partition);
        }
    return 0;
}

// ---- Where packets go ---------------------------------------------------------------------------

// The device and the taps at this moment.
struct links {
    struct netlink_link device;
    int taps[NET_TAPS_MAX];
};

static bool same_links(const struct net *net, const struct links *links)
{
    return net->device.index == links->device.index &&
           net->device.mtu_bytes == links->device.mtu_bytes &&
           memcmp(net->device.mac, links->device.mac, sizeof(links->device.mac)) == 0 &&
           memcmp(net->tap_index, links->taps, sizeof(links->taps)) == 0;
}

static void take_links(struct net *net, const struct links *links)
{
    net->device = links->device;
    memcpy(net->tap_index, links->taps, sizeof(links->taps));
}

// In this order nothing is lost: the host can receive before packets go in, and they go in before
// routes lead to the guests.
static int engage(struct net *net, struct error *err)
{
    bool routes = net->path == NET_ENGAGED || net->path == NET_INHERITED;
    int failure = net_host_prepare(net, err);

    if (!failure)
        failure = net_host_overlay(net, routes, err);
    if (!failure)
        failure = lead(net, NET_ENGAGED, err);
    if (!failure)
        hold(net);
    if (!failure)
        failure = net_host_overlay(net, true, err);
    if (failure)
        return failure;
    net_sampler_destroy(net->sampler);
    net->sampler = net_observes(net)
                       ? NULL
                       : net_sampler_create(net->it, net->modules[0].outer, net_last(net)->inner);
    return 0;
}

static int stay_engaged(struct net *net, struct error *err)
{
    if (net->definition->nat)
        net_guest_reload(net_last(net), false);
    return net_host_overlay(net, true, err);
}

static enum net_path otherwise(const struct net *net)
{
    return net->definition->fail == INTERCEPTOR_FAIL_CLOSED && !net_observes(net) ? NET_SHUT
                                                                                  : NET_OPEN;
}

// Packets go where they do without guests. Kernels before 6.16 have no chain for a device that is
// not there: then there is no table.
static int disengage(struct net *net, struct error *err)
{
    int failure = lead(net, otherwise(net), err);

    if (failure && net->device.index == 0)
        failure = lead(net, NET_UNTOUCHED, err);
    if (!failure)
        hold(net);
    net_sampler_destroy(net->sampler);
    net->sampler = NULL;
    net_host_clear(net, false);
    return failure;
}

// With what a healthy guest did not take when it was configured again.
static void tell_active(struct net *net)
{
    for (size_t i = 0; i < net->module_count; i++)
        if (*net->modules[i].why) {
            interceptor_set_state(net->it, INTERCEPTOR_ACTIVE,
                                  "partition \"%s\" keeps its configuration: %s",
                                  net->modules[i].definition->partition, net->modules[i].why);
            return;
        }
    interceptor_set_state(net->it, INTERCEPTOR_ACTIVE, NULL);
}

static void tell(struct net *net, const struct error *why)
{
    bool starting = interceptor_get_state(net->it) == INTERCEPTOR_STARTING;

    if (!why->code)
        tell_active(net);
    else if (why->code == -EAGAIN && starting)
        interceptor_set_state(net->it, INTERCEPTOR_STARTING, "%s", why->message);
    else
        interceptor_set_state(net->it,
                              otherwise(net) == NET_SHUT ? INTERCEPTOR_SHUT : INTERCEPTOR_BYPASSED,
                              "%s", why->message);
}

// Leads packets through the guests when that can be; else `why` says why not.
static int lead_through(struct net *net, const struct links *links, struct error *why)
{
    int failure;

    if (net->path == NET_ENGAGED && same_links(net, links))
        failure = stay_engaged(net, why);
    else {
        take_links(net, links);
        failure = engage(net, why);
    }
    if (failure)
        net->not_before_ns = clock_monotonic_ns() + RETRY_MS * UINT64_C(1000000);
    return failure;
}

static void settle(void *opaque)
{
    struct net *net = opaque;
    struct links links = {0};
    bool unknown = false;
    struct error why = {0}, err = {0};

    if (net->removed)
        return;
    look_at_table(net);
    int no_taps = find_taps(net, links.taps, &why);
    int failure = ready(net, &unknown, no_taps ? &err : &why);
    if (failure)
        why = no_taps && !unknown ? err : why;
    if (netlink_link_find(net->netlink, net->definition->device, &links.device, &err))
        why = err;
    if (unknown && !no_taps && links.device.index && net->path == NET_INHERITED)
        return;
    if (!why.code && net->path != NET_ENGAGED && clock_monotonic_ns() < net->not_before_ns) {
        loop_timer_start(net->settle, RETRY_MS);
        return;
    }
    if (!why.code)
        failure = lead_through(net, &links, &why);
    if (failure && net->not_before_ns)
        loop_timer_start(net->settle, RETRY_MS);
    if (why.code && (net->path != otherwise(net) || !same_links(net, &links))) {
        take_links(net, &links);
        if (disengage(net, &err)) {
            interceptor_set_state(net->it, INTERCEPTOR_FAILED, "%s", err.message);
            net->not_before_ns = clock_monotonic_ns() + RETRY_MS * UINT64_C(1000000);
            loop_timer_start(net->settle, RETRY_MS);
            return;
        }
    }
    tell(net, &why);
}

void net_changed(struct net *net)
{
    loop_timer_start(net->settle, SETTLE_MS);
}

static void things_changed(void *opaque)
{
    net_changed(opaque);
}

// ---- Operations ---------------------------------------------------------------------------------

static int check(struct net *net, struct error *err)
{
    const struct interceptor_definition *definition = net->definition;
    struct netlink_link device;
    int failure = 0;

    if (!is_plain(definition->device) || strcmp(definition->device, "lo") == 0)
        return error_set(err, -EINVAL, "\"%s\" is no device that packets come in by",
                         definition->device);
    if (definition->nat && (definition->match || definition->match_out))
        return error_set(err, -EINVAL, "with mode \"nat\" all packets go through the guest");
    if (definition->nat && net_observes(net))
        return error_set(err, -EINVAL, "with mode \"nat\" the guest cannot just observe");
    if (definition->match)
        failure = nft_check_expression(net->nft, "match", definition->match, err);
    if (!failure && definition->match_out)
        failure = nft_check_expression(net->nft, "match-out", definition->match_out, err);
    if (!failure && netlink_link_find(net->netlink, definition->device, &device, NULL) == 0 &&
        !device.ethernet)
        failure = error_set(err, -EINVAL, "\"%s\" is no Ethernet device", definition->device);
    return failure;
}

static int make_modules(struct net *net)
{
    int failure = 0;

    for (size_t i = 0; i < net->definition->module_count && !failure; i++) {
        struct net_module *module = &net->modules[i];
        *module = (struct net_module){.net = net, .definition = &net->definition->modules[i]};
        failure = net_guest_init(module);
        net->module_count += !failure;
    }
    return failure;
}

static void destroy(void *opaque)
{
    struct net *net = opaque;

    for (size_t i = 0; i < net->module_count; i++)
        net_guest_fini(&net->modules[i]);
    net_sampler_destroy(net->sampler);
    loop_timer_close(net->settle);
    loop_timer_close(net->drain);
    netlink_destroy(net->netlink);
    nft_destroy(net->nft);
    if (net->membership_fd >= 0)
        close(net->membership_fd);
    if (net->taps_fd >= 0)
        close(net->taps_fd);
    free(net);
}

static void drained(void *opaque);

static int make(struct net *net, struct error *err)
{
    struct loop *loop = net->it->loop;
    bool found = false;
    int failure = nft_create(&net->nft, loop, things_changed, net, err);

    if (!failure)
        failure = netlink_create(&net->netlink, loop, things_changed, net, err);
    if (!failure)
        failure = check(net, err);
    if (!failure)
        failure = find_former(net, &found, err);
    if (failure)
        return failure;
    net_host_take(net);
    net->path = found ? NET_INHERITED : NET_UNTOUCHED;
    failure = loop_timer_create(loop, settle, net, &net->settle);
    if (!failure)
        failure = loop_timer_create(loop, drained, net, &net->drain);
    if (!failure)
        failure = make_modules(net);
    return failure ? error_set_errno(err, failure, "cannot look after packets") : 0;
}

static int create(void **out, struct interceptor *it, struct error *err)
{
    struct net *net = calloc(1, sizeof(*net));
    if (!net)
        return error_set_errno(err, -ENOMEM, "cannot look after packets");
    *net = (struct net){
        .it = it, .definition = it->definition, .inside = -1, .membership_fd = -1, .taps_fd = -1};
    int failure = make(net, err);
    if (failure) {
        destroy(net);
        return failure;
    }
    *out = net;
    return 0;
}

// A table of a former process counts only while packets go through it: its tap is up.
static void look_at_inherited(struct net *net)
{
    const char *inner = net_last(net)->inner;
    struct netlink_link link;

    if (net->path == NET_INHERITED && net_last(net)->view &&
        (!inner || netlink_link_find(net->netlink, inner, &link, NULL) || !link.up))
        net->path = NET_UNTOUCHED;
}

static void partition(void *opaque, const struct partition_view *view)
{
    struct net *net = opaque;

    for (size_t i = 0; i < net->module_count; i++) {
        struct net_module *module = &net->modules[i];
        if (strcmp(module->definition->partition, view->name) != 0)
            continue;
        bool was_up = module->up;
        module->view = view;
        module->up = view->state == PARTITION_UP;
        module->outer = tap_of(module, 0);
        module->inner = tap_of(module, 1);
        look_at_inherited(net);
        if (!module->up)
            net_guest_stop(module);
        else if (was_up)  // it may be another guest behind the same name
            net_guest_reload(module, true);
        else if (!net->removed)
            net_guest_start(module);
    }
    net_changed(net);
}

static void reload(void *opaque)
{
    struct net *net = opaque;

    for (size_t i = 0; i < net->module_count; i++)
        net_guest_reload(&net->modules[i], true);
}

// ---- The end ------------------------------------------------------------------------------------

static void drained(void *opaque)
{
    struct net *net = opaque;
    interceptor_done *done = net->removed;
    struct error err = {0};
    int failure = lead(net, NET_UNTOUCHED, &err);

    net_host_clear(net, true);
    for (size_t i = 0; i < net->module_count; i++)
        (void)!interceptor_hold(net->it, net->modules[i].definition->partition, -1, NULL, NULL);
    if (failure)
        net->removed = NULL;
    done(net->removed_opaque, failure ? &err : NULL);
}

static void remove_all(void *opaque, interceptor_done *done, void *done_opaque)
{
    struct net *net = opaque;
    struct error err;

    net->removed = done;
    net->removed_opaque = done_opaque;
    for (size_t i = 0; i < net->module_count; i++)
        net_guest_stop(&net->modules[i]);
    net_sampler_destroy(net->sampler);
    net->sampler = NULL;
    if (net->path == NET_ENGAGED) {
        // The host sends by the device again, and receives from there; what guests have comes out.
        if (net_host_overlay(net, false, &err) || lead(net, NET_DRAINING, &err))
            log_line(LOG_WARN, "%s", err.message);
        loop_timer_start(net->drain, DRAIN_MS);
    } else
        loop_timer_start(net->drain, 0);
}

static json_t *stats(void *opaque)
{
    struct net *net = opaque;
    uint64_t now[NET_COUNTERS];

    memcpy(now, net->counted, sizeof(now));
    if (net->table_made)
        (void)!nft_each_counter(net->nft, net->table, add_counter, now, NULL);
    uint64_t given = now[NET_SEEN_IN] + now[NET_SEEN_OUT];
    uint64_t back = now[NET_RETURNED_IN] + now[NET_RETURNED_OUT];
    uint64_t kept = given > back ? given - back : 0;
    if (net_observes(net)) {  // copies: all went on
        back = given;
        kept = 0;
    }
    uint64_t seen = given + now[NET_BYPASSED] + now[NET_DROPPED];
    back += now[NET_BYPASSED];
    kept += now[NET_DROPPED];
    json_t *object = json_pack(
        "{s:I, s:I, s:I, s:I, s:{s:I, s:I, s:I, s:I}}", "seen", (json_int_t)seen, "returned",
        (json_int_t)back, "dropped", (json_int_t)kept, "bypassed", (json_int_t)now[NET_BYPASSED],
        "packets", "seen_in", (json_int_t)now[NET_SEEN_IN], "seen_out",
        (json_int_t)now[NET_SEEN_OUT], "returned_in", (json_int_t)now[NET_RETURNED_IN],
        "returned_out", (json_int_t)now[NET_RETURNED_OUT]);
    json_object_set_new(object, "samples", net_sampler_stats(net->sampler));
    if (net->inside >= 0)
        json_object_set_new(object, "inside", json_sprintf("10.83.%d.0/24", net->inside));
    return object;
}

const struct interceptor_ops net_ops = {
    .kind = "net",
    .capabilities = UINT64_C(1) << CAP_NET_ADMIN | UINT64_C(1) << CAP_NET_RAW |
                    UINT64_C(1) << CAP_DAC_READ_SEARCH,  // for configurations that are users'
    .create = create,
    .partition = partition,
    .reload = reload,
    .remove = remove_all,
    .stats = stats,
    .destroy = destroy,
};
