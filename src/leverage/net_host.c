// SPDX-License-Identifier: BSD-2-Clause
// net_host: what the host's own side of the taps is made into, and back. The host's device is only
// read: all that is added hangs on taps, which go with their monitor.
#include <errno.h>
#include <fcntl.h>
#include <linux/if_packet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "leverage/net.h"

// ---- Settings of a device, in /proc/sys ---------------------------------------------------------

static int setting_write(const char *family, const char *device, const char *name,
                         const char *value)
{
    char path[128];

    snprintf(path, sizeof(path), "/proc/sys/net/%s/conf/%s/%s", family, device, name);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    int64_t written = fd_write_full(fd, value, strlen(value));
    close(fd);
    return written < 0 ? (int)written : 0;
}

// As a new device would have it.
static void setting_restore(const char *family, const char *device, const char *name)
{
    char path[128], value[16] = "";

    snprintf(path, sizeof(path), "/proc/sys/net/%s/conf/default/%s", family, name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    if (fd_read_full(fd, value, sizeof(value) - 1) > 0)
        (void)!setting_write(family, device, name, value);
    close(fd);
}

// ---- Taps ---------------------------------------------------------------------------------------

const char *net_lan_tap(struct net *net)
{
    const struct net_module *last = net_last(net);
    size_t pairs = 0;

    if (!net->definition->lan || !last->view)
        return NULL;
    for (size_t i = 0; i < net->module_count; i++)
        if (net->modules[i].view == last->view && net->modules[i].definition->pair >= pairs)
            pairs = net->modules[i].definition->pair + 1;
    if (2 * pairs >= last->view->net_count || !*last->view->nets[2 * pairs].tap)
        return NULL;
    return last->view->nets[2 * pairs].tap;
}

static const struct net_tap *tap_known(const struct net *net, int index)
{
    for (size_t i = 0; i < NET_TAPS_MAX; i++)
        if (*net->taps[i].name && net->taps[i].link.index == index)
            return &net->taps[i];
    return NULL;
}

// The supervisor has the copy while there is no process. Without one, taps of a former process
// become what they were for that one: no harm, but not what they were before.
static void taps_keep(struct net *net)
{
    struct descriptors fds = {.count = 1, .list = {{.name = "taps"}}};
    bool first = net->taps_fd < 0;

    if (first)
        net->taps_fd = memfd_create("strake-taps", MFD_CLOEXEC);
    fds.list[0].fd = net->taps_fd;
    if (net->taps_fd < 0 ||
        pwrite(net->taps_fd, net->taps, sizeof(net->taps), 0) != (ssize_t)sizeof(net->taps) ||
        (first && interceptor_keep(net->it, &fds, NULL, NULL) < 0))
        log_line(LOG_WARN, "what taps were like is not kept: %s", strerror(errno));
}

void net_host_take(struct net *net)
{
    struct net_tap taps[NET_TAPS_MAX];
    int fd = descriptors_take(&net->it->kept, "taps");

    if (fd < 0)
        return;
    if (fd_pread_full(fd, taps, sizeof(taps), 0) == (int64_t)sizeof(taps)) {
        memcpy(net->taps, taps, sizeof(taps));
        taps_keep(net);
    }
    close(fd);
}

// Remembers what a tap was like, once. One of the same name that there was before is no more.
static void tap_remember(struct net *net, const char *name, const struct netlink_link *link)
{
    size_t i = 0;

    if (tap_known(net, link->index))
        return;
    while (i < NET_TAPS_MAX && *net->taps[i].name && strcmp(net->taps[i].name, name) != 0)
        i++;
    if (i == NET_TAPS_MAX)
        return;
    snprintf(net->taps[i].name, sizeof(net->taps[i].name), "%s", name);
    net->taps[i].link = *link;
    taps_keep(net);
}

// The host takes no part in what a tap carries from guest to guest.
static int tap_prepare(struct net *net, const char *name, int master, struct error *err)
{
    struct netlink_link link;
    int failure = netlink_link_find(net->netlink, name, &link, err);

    if (failure)
        return failure;
    tap_remember(net, name, &link);
    setting_write("ipv6", name, "disable_ipv6", "1");  // ENOENT: the host has no IPv6
    const struct netlink_change change = {.mtu_bytes = net->device.mtu_bytes,
                                          .master = master == link.master ? 0 : master,
                                          .no_own_address = true,
                                          .state = LINK_UP};
    return netlink_link_change(net->netlink, link.index, &change, err);
}

// What the last guest lets through that configures the device is led there, marked, by way of the
// tap: the packet filter cannot have a packet come in by another device. Without it the device
// loses what it has from routers when that expires.
static void hear(struct net *net, int inner)
{
    int failure = netlink_redirect(net->netlink, inner, net->device.index, NET_MARK);

    if (failure)
        log_line(LOG_WARN, "\"%s\" does not hear router advertisements and DHCP, as tc(8) says: %s",
                 net->definition->device, strerror(-failure));
    net->hears = !failure;
}

// The tap that the host has instead of the device.
static int inner_prepare(struct net *net, struct error *err)
{
    const char *name = net_last(net)->inner;
    bool observes = net_observes(net);
    struct netlink_link link;
    int failure = netlink_link_find(net->netlink, name, &link, err);

    if (failure)
        return failure;
    tap_remember(net, name, &link);
    if (observes)
        return tap_prepare(net, name, 0, err);
    setting_write("ipv6", name, "accept_ra", "0");
    if (net->definition->match)  // answers take another way than what they answer
        setting_write("ipv4", name, "rp_filter", "2");
    bool other_mac = memcmp(link.mac, net->device.mac, sizeof(link.mac)) != 0;
    const struct netlink_change change = {
        .mac = net->definition->nat || !other_mac ? NULL : net->device.mac,
        .mtu_bytes = net->device.mtu_bytes,
        .no_own_address = true,
        .state = LINK_UP};
    failure = netlink_link_change(net->netlink, link.index, &change, err);
    if (!failure && !net->definition->nat && !net->definition->match)
        hear(net, link.index);
    return failure;
}

// The device receives groups that it is not a member of itself, for the host's side of the tap or
// for the guest. This ends with the socket.
static void membership(struct net *net)
{
    struct packet_mreq request = {.mr_ifindex = net->device.index, .mr_type = PACKET_MR_ALLMULTI};

    if (net->membership_fd >= 0)
        close(net->membership_fd);
    net->membership_fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
    if (net->membership_fd >= 0 && setsockopt(net->membership_fd, SOL_PACKET, PACKET_ADD_MEMBERSHIP,
                                              &request, sizeof(request)) < 0)
        log_line(LOG_WARN, "\"%s\" may not receive all multicast: %s", net->definition->device,
                 strerror(errno));
}

static int lan_prepare(struct net *net, struct error *err)
{
    struct netlink_link bridge;
    const char *tap = net_lan_tap(net);

    if (!net->definition->lan)
        return 0;
    if (!tap)
        return error_set(err, -ENODEV, "partition \"%s\" has no tap left for \"%s\"",
                         net_last(net)->definition->partition, net->definition->lan);
    int failure = netlink_link_find(net->netlink, net->definition->lan, &bridge, err);
    if (failure)
        return failure;
    if (strcmp(bridge.kind, "bridge") != 0)
        return error_set(err, -EINVAL, "\"%s\" is no bridge", net->definition->lan);
    return tap_prepare(net, tap, bridge.index, err);
}

int net_host_prepare(struct net *net, struct error *err)
{
    int failure = 0;

    for (size_t i = 0; i < net->module_count && !failure; i++) {
        failure = tap_prepare(net, net->modules[i].outer, 0, err);
        if (!failure && i + 1 < net->module_count)
            failure = tap_prepare(net, net->modules[i].inner, 0, err);
    }
    if (!failure)
        failure = inner_prepare(net, err);
    if (!failure)
        failure = lan_prepare(net, err);
    if (!failure && !net_observes(net) && !net->definition->match)
        membership(net);
    return failure;
}

// ---- Addresses ----------------------------------------------------------------------------------

// 10.83.N.0/24, and a network of fd00::/8 (RFC 4193) for the same N.
static void inside_address(struct netlink_address *address, int family, int n, uint8_t host)
{
    static const uint8_t v6[] = {0xfd, 0x53, 0x74, 0x72, 0x61, 0x6b};  // chosen once: "Strak"

    *address = (struct netlink_address){.family = family};
    if (family == AF_INET) {
        const uint8_t v4[] = {10, 83, (uint8_t)n, host};
        memcpy(address->bytes, v4, sizeof(v4));
        address->prefix_bits = 24;
        return;
    }
    memcpy(address->bytes, v6, sizeof(v6));
    address->bytes[7] = (uint8_t)n;
    address->bytes[15] = host;
    address->prefix_bits = 64;
}

static bool is_free(const struct netlink_address *list, int count, int n)
{
    const uint8_t wanted[] = {10, 83, (uint8_t)n};

    for (int i = 0; i < count; i++)
        if (list[i].family == AF_INET && memcmp(list[i].bytes, wanted, sizeof(wanted)) == 0)
            return false;
    return true;
}

// The first network that nobody on this host has; the one that the tap has already, after a former
// process of this interceptor.
static int inside_choose(struct net *net, struct error *err)
{
    enum { MOST = 512 };
    struct netlink_address *list = calloc(MOST, sizeof(*list));
    struct netlink_link link;
    int count = list ? 0 : -ENOMEM;

    if (net_last(net)->inner && list &&
        netlink_link_find(net->netlink, net_last(net)->inner, &link, NULL) == 0)
        count = netlink_addresses(net->netlink, link.index, list, MOST, err);
    for (int i = 0; i < count && net->inside < 0; i++)
        if (list[i].family == AF_INET && list[i].bytes[0] == 10 && list[i].bytes[1] == 83)
            net->inside = list[i].bytes[2];
    if (count >= 0)
        count = netlink_addresses(net->netlink, 0, list, MOST, err);
    for (int n = 0; n < 256 && count >= 0 && net->inside < 0; n++)
        if (is_free(list, count, n))
            net->inside = n;
    free(list);
    if (count >= 0 && net->inside < 0)
        return error_set(err, -EADDRINUSE, "no network in 10.83.0.0/16 is free");
    return count < 0 ? count : 0;
}

int net_host_inside(struct net *net, struct netlink_address own[2],
                    struct netlink_address gateways[2], struct error *err)
{
    static const int families[] = {AF_INET, AF_INET6};
    int failure = net->inside < 0 ? inside_choose(net, err) : 0;

    for (size_t i = 0; i < 2 && !failure; i++) {
        inside_address(&gateways[i], families[i], net->inside, 1);
        inside_address(&own[i], families[i], net->inside, 2);
    }
    return failure;
}

int net_host_overlay(struct net *net, bool routes, struct error *err)
{
    struct netlink_address own[2], gateways[2];
    struct netlink_link inner;
    struct netlink_overlay overlay = {.from = net->device.index, .addresses = true};
    int failure = netlink_link_find(net->netlink, net_last(net)->inner, &inner, err);

    if (failure || net_observes(net))
        return failure;
    overlay.to = inner.index;
    overlay.routes = routes && !net->definition->match;
    if (net->definition->nat) {
        failure = net_host_inside(net, own, gateways, err);
        overlay.own = own;
        overlay.gateways = gateways;
        overlay.own_count = overlay.gateway_count = 2;
    }
    return failure ? failure : netlink_overlay(net->netlink, &overlay, err);
}

// ---- Back ---------------------------------------------------------------------------------------

static void tap_restore(struct net *net, const struct net_tap *tap, int index)
{
    struct netlink_change change = {.mac = tap->link.mac,
                                    .mtu_bytes = tap->link.mtu_bytes,
                                    .master = tap->link.master ? tap->link.master : -1};

    (void)!netlink_link_change(net->netlink, index, &change, NULL);
    // Without IPv6, as it would make an address for itself at once.
    setting_write("ipv6", tap->name, "disable_ipv6", "1");
    setting_restore("ipv6", tap->name, "addr_gen_mode");
    setting_restore("ipv6", tap->name, "disable_ipv6");
    setting_restore("ipv6", tap->name, "accept_ra");
    setting_restore("ipv4", tap->name, "rp_filter");
    if (tap->link.up) {
        change = (struct netlink_change){.state = LINK_UP};
        (void)!netlink_link_change(net->netlink, index, &change, NULL);
    }
}

static void tap_clear(struct net *net, const char *name, bool restore)
{
    const struct netlink_change down = {.state = LINK_DOWN};
    struct netlink_link link;

    if (!name || netlink_link_find(net->netlink, name, &link, NULL))
        return;
    const struct netlink_overlay nothing = {.from = net->device.index, .to = link.index};
    struct error err;
    if (netlink_overlay(net->netlink, &nothing, &err) ||
        netlink_link_change(net->netlink, link.index, &down, &err))
        log_line(LOG_WARN, "%s", err.message);
    if (name == net_last(net)->inner)
        (void)!netlink_redirect(net->netlink, link.index, 0, 0);
    const struct net_tap *known = tap_known(net, link.index);
    if (restore && known)
        tap_restore(net, known, link.index);
}

void net_host_clear(struct net *net, bool restore)
{
    for (size_t i = 0; i < net->module_count; i++) {
        tap_clear(net, net->modules[i].outer, restore);
        tap_clear(net, net->modules[i].inner, restore);
    }
    tap_clear(net, net_lan_tap(net), restore);
    if (net->membership_fd >= 0)
        close(net->membership_fd);
    net->membership_fd = -1;
}
