// SPDX-License-Identifier: BSD-2-Clause
// net: what the files of the kind `net` share. Private to them: net.c (its life), net_guest.c (its
// modules' guests), net_host.c (taps, addresses, routes), net_rules.c (tables of the packet
// filter), net_sample.c (latency). docs/leverage-net.md has the whole picture.
#ifndef STRAKE_LEVERAGE_NET_H
#define STRAKE_LEVERAGE_NET_H

#include "leverage/interceptor.h"
#include "leverage/netlink.h"
#include "leverage/nft.h"

// What packets that a guest has let out carry, so that they may pass the device, either way:
// "STRK".
#define NET_MARK 0x5354524bu

// Where packets go at this moment.
enum net_path {
    NET_UNTOUCHED,  // nothing has been done to the host
    NET_INHERITED,  // as a former process of this interceptor has left it: through the guests
    NET_OPEN,       // past the guests
    NET_SHUT,       // nowhere
    NET_ENGAGED,    // through the guests
    NET_DRAINING,   // what guests still have may come out; nothing new goes in
};

enum net_counter {
    NET_SEEN_IN,       // from the device, for the first guest
    NET_SEEN_OUT,      // from the host, for the last guest
    NET_RETURNED_IN,   // from the last guest, for the host
    NET_RETURNED_OUT,  // from the first guest, for the device
    NET_BYPASSED,
    NET_DROPPED,  // with no guest asked
    NET_COUNTERS
};

// One module, and its guest.
struct net_module {
    struct net *net;
    const struct interceptor_module *definition;
    const struct partition_view *view;  // NULL: not known yet
    bool up;                            // it was, when the view came
    const char *outer, *inner;          // taps, towards the device and towards the host; NULL: none
    enum { GUEST_UNKNOWN, GUEST_HEALTHY, GUEST_DOWN } guest;
    bool answered;     // it is there, and can be configured
    bool configured;   // since it was last found not to be healthy
    bool reload;       // it is to be configured again while it works
    bool asked_again;  // it could not be reached, for less than the time limit
    uint64_t unreachable_since_ns;
    struct guest_call *call;
    struct loop_timer *timer;
    char *pushed;  // the request that it was configured by last
    char why[ERROR_MESSAGE_BYTES];
};

// A tap as it was before it was used.
struct net_tap {
    char name[IFNAMSIZ];
    struct netlink_link link;
};
#define NET_TAPS_MAX (2 * INTERCEPTOR_MODULES_MAX + 1)

struct net_sampler;

struct net {
    struct interceptor *it;
    const struct interceptor_definition *definition;
    struct netlink *netlink;
    struct nft *nft;
    struct net_module modules[INTERCEPTOR_MODULES_MAX];
    size_t module_count;
    uint64_t not_before_ns;     // when the host has refused something
    struct loop_timer *settle;  // soon after something has changed

    enum net_path path;
    char table[INTERCEPTOR_NAME_MAX + 32];  // of the packet filter
    bool table_made, held;
    struct netlink_link device;         // as the table has it
    int tap_index[NET_TAPS_MAX];        // outer, inner, outer, inner, ..., lan; 0: there is none
    struct net_tap taps[NET_TAPS_MAX];  // as they were; unused ones have no name
    int taps_fd;                        // a copy of them, which outlives the process; -1: none
    int inside;  // the third byte of the inner network's addresses (mode nat); -1: not chosen
    bool hears;  // what configures the device comes to it from the last guest
    uint64_t counted[NET_COUNTERS];  // by tables that were replaced
    int membership_fd;               // keeps the device receiving all multicast; -1: none
    struct net_sampler *sampler;

    interceptor_done *removed;
    void *removed_opaque;
    struct loop_timer *drain;
};

static inline struct net_module *net_last(struct net *net)
{
    return &net->modules[net->module_count - 1];
}

static inline bool net_observes(const struct net *net)
{
    return net->definition->verdict == INTERCEPTOR_OBSERVE;
}

// ---- net.c

// Something has changed: where packets go is thought over, soon.
void net_changed(struct net *net);

// ---- net_guest.c

BASE_NODISCARD int net_guest_init(struct net_module *module);
void net_guest_fini(struct net_module *module);
// The guest is there, and is to be configured; the guest is gone.
void net_guest_start(struct net_module *module);
void net_guest_stop(struct net_module *module);
// Has it configured again. `always`: also when nothing would be new in it.
void net_guest_reload(struct net_module *module, bool always);

// ---- net_host.c

// Takes over what a former process knew of taps.
void net_host_take(struct net *net);
// The tap that further partitions are connected by (`lan`); NULL: none.
const char *net_lan_tap(struct net *net);
// Makes taps ready for packets; the host has nothing of it yet.
BASE_NODISCARD int net_host_prepare(struct net *net, struct error *err);
// Gives `strake0`, the last module's inner tap, the host's addresses, and routes.
BASE_NODISCARD int net_host_overlay(struct net *net, bool routes, struct error *err);
// Undoes both, as far as taps are there. `restore`: taps become what they were before, too.
void net_host_clear(struct net *net, bool restore);
// The host's and the guest's addresses of the inner network (mode nat), IPv4 and IPv6.
BASE_NODISCARD int net_host_inside(struct net *net, struct netlink_address own[2],
                                   struct netlink_address gateways[2], struct error *err);

// ---- net_rules.c

// What packets meet on `path`, as commands of nft(8), to be freed. NULL: no memory.
char *net_rules(struct net *net, enum net_path path);
extern const char *const net_counter_names[NET_COUNTERS];

// ---- net_sample.c

// Watches some of the packets that go into the chain of modules and that come out of it, and has
// counted how long they took, until it is destroyed (NULL is ignored). NULL: it cannot.
struct net_sampler *net_sampler_create(struct interceptor *it, const char *outer,
                                       const char *inner);
void net_sampler_destroy(struct net_sampler *sampler);
json_t *net_sampler_stats(const struct net_sampler *sampler);

#endif
