// SPDX-License-Identifier: BSD-2-Clause
// netlink: links, addresses and routes of the host, as the kind `net` reads and overlays them, and
// redirection of packets between links. Private to this room.
//
// What is done here is done to a tap of ours, and goes with it: the host's own device is only read.
//
// Threads: the loop's. Requests are answered by the kernel at once, so they are simply waited for.
#ifndef STRAKE_LEVERAGE_NETLINK_H
#define STRAKE_LEVERAGE_NETLINK_H

#include <net/if.h>

#include "base/base.h"

struct netlink;

// `changed` (NULL: of no interest) is called when links, addresses or routes may have changed; what
// has is to be looked up.
BASE_NODISCARD int netlink_create(struct netlink **out, struct loop *loop,
                                  void (*changed)(void *opaque), void *opaque, struct error *err);
void netlink_destroy(struct netlink *netlink);  // NULL is ignored

struct netlink_link {
    int index, master;  // master 0: none
    unsigned mtu_bytes;
    bool up, ethernet;
    uint8_t mac[6];
    char kind[IFNAMSIZ];  // "tun", "bridge", "veth"...; empty: a piece of hardware
};

// -ENODEV: there is none of that name (*err says so).
BASE_NODISCARD int netlink_link_find(struct netlink *netlink, const char *name,
                                     struct netlink_link *link, struct error *err);

struct netlink_change {
    const uint8_t *mac;   // NULL: as it is
    unsigned mtu_bytes;   // 0: as it is
    int master;           // index of a bridge; -1: none; 0: as it is
    bool no_own_address;  // it makes no IPv6 address of its own when it goes up
    enum { LINK_AS_IT_IS, LINK_UP, LINK_DOWN } state;
};
BASE_NODISCARD int netlink_link_change(struct netlink *netlink, int index,
                                       const struct netlink_change *change, struct error *err);

// What is about to leave link `from` with `mark` on it comes in by link `to` instead, until `from`
// is gone; `to` 0: no longer. It is tc's, so a `clsact` of others on `from` goes with it.
BASE_NODISCARD int netlink_redirect(struct netlink *netlink, int from, int to, uint32_t mark);

struct netlink_address {
    int family;  // AF_INET, AF_INET6
    unsigned prefix_bits;
    uint8_t bytes[16];
};

// All addresses of a link, at most `capacity`, or (index 0) of all links; how many, or a negative
// errno. Without those that are not used (yet, or any more).
int netlink_addresses(struct netlink *netlink, int index, struct netlink_address *list,
                      size_t capacity, struct error *err);
// Gateways of default routes through a link.
int netlink_gateways(struct netlink *netlink, int index, struct netlink_address *list,
                     size_t capacity, struct error *err);

// What a tap is to have of a device's: the same addresses, and copies of its routes which come
// before them (IPv4: in front at the same metric; IPv6: at a metric less by one). With a `gateway`
// for a family, the addresses are `own`, and routes lead to the gateway instead. What it has of
// former times and is not to have any more goes; what others have given it stays. May be repeated
// at any time. The tap is up when it is to have routes.
struct netlink_overlay {
    int from, to;
    bool addresses, routes;
    const struct netlink_address *own, *gateways;
    size_t own_count, gateway_count;
};
BASE_NODISCARD int netlink_overlay(struct netlink *netlink, const struct netlink_overlay *overlay,
                                   struct error *err);

#endif
