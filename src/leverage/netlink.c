// SPDX-License-Identifier: BSD-2-Clause
// netlink: rtnetlink(7) through libmnl. Routes are copied as the kernel shows them, attribute by
// attribute, so that a copy has all that is known of its original, and two are compared as bytes.
#include <net/if.h>  // before those of the kernel, which leave out what it has then

#include <arpa/inet.h>
#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/filter.h>
#include <linux/if_addr.h>
#include <linux/if_arp.h>
#include <linux/if_ether.h>
#include <linux/if_link.h>
#include <linux/pkt_cls.h>
#include <linux/pkt_sched.h>
#include <linux/rtnetlink.h>
#include <linux/tc_act/tc_mirred.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "leverage/netlink.h"

// Our copies are known by it. Not one of those that /etc/iproute2/rt_protos lists.
#define ROUTE_PROTOCOL 83
#define MESSAGE_BYTES 8192u
#define DUMP_BYTES 32768u  // that the kernel fills with messages of a list at once
#define DUMP_TRIES 5       // of a list that changes while it is read

struct netlink {
    struct mnl_socket *requests, *events;
    unsigned sequence;
    struct loop_watch *watch;
    void (*changed)(void *opaque);
    void *opaque;
    struct log_limit refused;  // routes
};

// Messages one after the other.
struct messages {
    char *bytes;
    size_t used, capacity;
};

// The one behind another, or (NULL) the first; NULL: there are no more.
static struct nlmsghdr *messages_next(const struct messages *list, const struct nlmsghdr *after)
{
    size_t offset = after ? (size_t)((const char *)after - list->bytes) : 0;

    offset += after ? NLMSG_ALIGN(after->nlmsg_len) : 0;
    return offset < list->used ? (struct nlmsghdr *)(list->bytes + offset) : NULL;
}

static int messages_add(struct messages *list, const struct nlmsghdr *message)
{
    size_t bytes = NLMSG_ALIGN(message->nlmsg_len);

    if (!list->bytes || bytes > list->capacity - list->used) {
        size_t capacity = 2 * list->capacity + MESSAGE_BYTES + bytes;
        char *grown = realloc(list->bytes, capacity);
        if (!grown)
            return -ENOMEM;
        list->bytes = grown;
        list->capacity = capacity;
    }
    memset(list->bytes + list->used + bytes - NLMSG_ALIGNTO, 0, NLMSG_ALIGNTO);
    memcpy(list->bytes + list->used, message, message->nlmsg_len);
    list->used += bytes;
    return 0;
}

// ---- Requests -----------------------------------------------------------------------------------

static struct nlmsghdr *begin(char *buffer, int type, int flags, const void *header, size_t bytes)
{
    struct nlmsghdr *message = mnl_nlmsg_put_header(buffer);

    message->nlmsg_type = (uint16_t)type;
    message->nlmsg_flags = (uint16_t)(NLM_F_REQUEST | flags);
    memcpy(mnl_nlmsg_put_extra_header(message, bytes), header, bytes);
    return message;
}

// Sends a request, and hands what is answered to `fn` until all has come. 0 or a negative errno.
static int exchange(struct netlink *netlink, struct nlmsghdr *message, mnl_cb_t fn, void *opaque)
{
    char buffer[DUMP_BYTES];
    unsigned port = mnl_socket_get_portid(netlink->requests);
    int result = MNL_CB_OK;

    message->nlmsg_seq = ++netlink->sequence;
    if (mnl_socket_sendto(netlink->requests, message, message->nlmsg_len) < 0)
        return -errno;
    while (result == MNL_CB_OK) {
        ssize_t bytes = mnl_socket_recvfrom(netlink->requests, buffer, sizeof(buffer));
        if (bytes < 0)
            return -errno;
        result = mnl_cb_run(buffer, (size_t)bytes, netlink->sequence, port, fn, opaque);
        // What is left of an answer that was given up has another number than the next one's.
        if (result < 0 && (errno == ESRCH || errno == EPROTO))
            result = MNL_CB_OK;
    }
    return result < 0 ? -errno : 0;
}

static int command(struct netlink *netlink, struct nlmsghdr *message)
{
    message->nlmsg_flags |= NLM_F_ACK;
    return exchange(netlink, message, NULL, NULL);
}

struct dump {
    struct messages *list;
    bool (*wanted)(const struct nlmsghdr *message, int index);
    int index;
    int failure;
};

static int dump_one(const struct nlmsghdr *message, void *opaque)
{
    struct dump *dump = opaque;

    if (dump->wanted(message, dump->index) && !dump->failure)
        dump->failure = messages_add(dump->list, message);
    return MNL_CB_OK;
}

// What the kernel has of a sort, as far as it is wanted. `list` is to be freed in any case.
static int dump(struct netlink *netlink, int type, const void *header, size_t bytes,
                bool (*wanted)(const struct nlmsghdr *message, int index), int index,
                struct messages *list)
{
    char buffer[MESSAGE_BYTES];
    int failure = 0;

    for (int i = 0; i < DUMP_TRIES; i++) {
        struct dump state = {list, wanted, index, 0};
        list->used = 0;
        failure =
            exchange(netlink, begin(buffer, type, NLM_F_DUMP, header, bytes), dump_one, &state);
        if (!failure)
            failure = state.failure;
        if (failure != -EINTR)
            break;
    }
    return failure;
}

// ---- Attributes ---------------------------------------------------------------------------------

struct attributes {
    const struct nlattr **list;
    unsigned max;
};

static int attribute(const struct nlattr *attr, void *opaque)
{
    const struct attributes *found = opaque;

    if (mnl_attr_get_type(attr) <= found->max)
        found->list[mnl_attr_get_type(attr)] = attr;
    return MNL_CB_OK;
}

// Those of a message behind its header, by type; others are NULL.
static void attributes(const struct nlmsghdr *message, size_t header_bytes,
                       const struct nlattr **list, unsigned max)
{
    struct attributes found = {list, max};

    for (unsigned type = 0; type <= max; type++)
        list[type] = NULL;
    mnl_attr_parse(message, (unsigned)header_bytes, attribute, &found);
}

static uint32_t attribute_u32(const struct nlattr *attr, uint32_t otherwise)
{
    return attr && mnl_attr_get_payload_len(attr) >= 4 ? mnl_attr_get_u32(attr) : otherwise;
}

// ---- Links --------------------------------------------------------------------------------------

static void link_kind(const struct nlattr *nested, char kind[IFNAMSIZ])
{
    const struct nlattr *attr;

    mnl_attr_for_each_nested(attr, nested) if (mnl_attr_get_type(attr) == IFLA_INFO_KIND)
        strncpy(kind, mnl_attr_get_str(attr), IFNAMSIZ - 1);
}

static int link_read(const struct nlmsghdr *message, void *opaque)
{
    struct netlink_link *link = opaque;
    const struct ifinfomsg *info = mnl_nlmsg_get_payload(message);
    const struct nlattr *list[IFLA_MAX + 1];

    attributes(message, sizeof(*info), list, IFLA_MAX);
    *link = (struct netlink_link){
        .index = info->ifi_index,
        .master = (int)attribute_u32(list[IFLA_MASTER], 0),
        .mtu_bytes = attribute_u32(list[IFLA_MTU], 0),
        .up = info->ifi_flags & IFF_UP,
        .ethernet = info->ifi_type == ARPHRD_ETHER,
    };
    if (list[IFLA_ADDRESS] && mnl_attr_get_payload_len(list[IFLA_ADDRESS]) == sizeof(link->mac))
        memcpy(link->mac, mnl_attr_get_payload(list[IFLA_ADDRESS]), sizeof(link->mac));
    if (list[IFLA_LINKINFO])
        link_kind(list[IFLA_LINKINFO], link->kind);
    return MNL_CB_OK;
}

int netlink_link_find(struct netlink *netlink, const char *name, struct netlink_link *link,
                      struct error *err)
{
    char buffer[MESSAGE_BYTES];
    struct ifinfomsg info = {0};

    *link = (struct netlink_link){0};
    struct nlmsghdr *message = begin(buffer, RTM_GETLINK, NLM_F_ACK, &info, sizeof(info));
    mnl_attr_put_strz(message, IFLA_IFNAME, name);
    int failure = exchange(netlink, message, link_read, link);
    if (failure == -ENODEV)
        return error_set(err, failure, "there is no network device \"%s\"", name);
    if (failure)
        return error_set_errno(err, failure, "cannot look up network device \"%s\"", name);
    return 0;
}

int netlink_link_change(struct netlink *netlink, int index, const struct netlink_change *change,
                        struct error *err)
{
    char buffer[MESSAGE_BYTES];
    struct ifinfomsg info = {.ifi_index = index};

    if (change->state != LINK_AS_IT_IS)
        info.ifi_change = IFF_UP;
    if (change->state == LINK_UP)
        info.ifi_flags = IFF_UP;
    struct nlmsghdr *message = begin(buffer, RTM_NEWLINK, 0, &info, sizeof(info));
    if (change->mac)
        mnl_attr_put(message, IFLA_ADDRESS, 6, change->mac);
    if (change->mtu_bytes)
        mnl_attr_put_u32(message, IFLA_MTU, change->mtu_bytes);
    if (change->master)
        mnl_attr_put_u32(message, IFLA_MASTER, change->master < 0 ? 0 : (uint32_t)change->master);
    if (change->no_own_address) {
        struct nlattr *families = mnl_attr_nest_start(message, IFLA_AF_SPEC);
        struct nlattr *inet6 = mnl_attr_nest_start(message, AF_INET6);
        mnl_attr_put_u8(message, IFLA_INET6_ADDR_GEN_MODE, IN6_ADDR_GEN_MODE_NONE);
        mnl_attr_nest_end(message, inet6);
        mnl_attr_nest_end(message, families);
    }
    int failure = command(netlink, message);
    if (failure) {
        char name[IFNAMSIZ] = "?";
        if_indextoname((unsigned)index, name);
        return error_set_errno(err, failure, "cannot change network device \"%s\"", name);
    }
    return 0;
}

// ---- Redirection, tc-bpf(8) and tc-mirred(8) ----------------------------------------------------

static void put_mirred(struct nlmsghdr *message, int to)
{
    const struct tc_mirred mirred = {
        .action = TC_ACT_STOLEN, .eaction = TCA_INGRESS_REDIR, .ifindex = (uint32_t)to};
    struct nlattr *actions = mnl_attr_nest_start(message, TCA_BPF_ACT);
    struct nlattr *first = mnl_attr_nest_start(message, 1);

    mnl_attr_put_strz(message, TCA_ACT_KIND, "mirred");
    struct nlattr *options = mnl_attr_nest_start(message, TCA_ACT_OPTIONS);
    mnl_attr_put(message, TCA_MIRRED_PARMS, sizeof(mirred), &mirred);
    mnl_attr_nest_end(message, options);
    mnl_attr_nest_end(message, first);
    mnl_attr_nest_end(message, actions);
}

static int redirect_marked(struct netlink *netlink, int from, int to, uint32_t mark)
{
    const struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (uint32_t)(SKF_AD_OFF + SKF_AD_MARK)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, mark, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, UINT32_MAX),
        BPF_STMT(BPF_RET | BPF_K, 0),
    };
    const struct tcmsg header = {.tcm_ifindex = from,
                                 .tcm_parent = TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_EGRESS),
                                 .tcm_handle = 1,
                                 .tcm_info = TC_H_MAKE(1u << 16, htons(ETH_P_ALL))};
    char buffer[MESSAGE_BYTES];
    struct nlmsghdr *message = begin(buffer, RTM_NEWTFILTER, NLM_F_CREATE, &header, sizeof(header));

    mnl_attr_put_strz(message, TCA_KIND, "bpf");
    struct nlattr *options = mnl_attr_nest_start(message, TCA_OPTIONS);
    put_mirred(message, to);
    mnl_attr_put_u16(message, TCA_BPF_OPS_LEN, BASE_COUNT_OF(code));
    mnl_attr_put(message, TCA_BPF_OPS, sizeof(code), code);
    mnl_attr_nest_end(message, options);
    return command(netlink, message);
}

int netlink_redirect(struct netlink *netlink, int from, int to, uint32_t mark)
{
    const struct tcmsg header = {
        .tcm_ifindex = from, .tcm_parent = TC_H_CLSACT, .tcm_handle = TC_H_MAKE(TC_H_CLSACT, 0)};
    char buffer[MESSAGE_BYTES];
    struct nlmsghdr *message = begin(buffer, to ? RTM_NEWQDISC : RTM_DELQDISC,
                                     to ? NLM_F_CREATE | NLM_F_EXCL : 0, &header, sizeof(header));

    mnl_attr_put_strz(message, TCA_KIND, "clsact");
    int failure = command(netlink, message);
    if (failure == -EEXIST)
        failure = 0;
    return failure || !to ? failure : redirect_marked(netlink, from, to, mark);
}

// ---- Addresses ----------------------------------------------------------------------------------

static bool address_wanted(const struct nlmsghdr *message, int index)
{
    const struct ifaddrmsg *header = mnl_nlmsg_get_payload(message);
    const struct nlattr *list[IFA_MAX + 1];

    attributes(message, sizeof(*header), list, IFA_MAX);
    uint32_t flags = attribute_u32(list[IFA_FLAGS], header->ifa_flags);
    return (!index || (int)header->ifa_index == index) && list[IFA_ADDRESS] &&
           (header->ifa_family == AF_INET || header->ifa_family == AF_INET6) &&
           !(flags & (IFA_F_DADFAILED | IFA_F_TENTATIVE));
}

static int addresses_dump(struct netlink *netlink, int index, struct messages *list,
                          struct error *err)
{
    struct ifaddrmsg header = {0};
    int failure = dump(netlink, RTM_GETADDR, &header, sizeof(header), address_wanted, index, list);

    return failure ? error_set_errno(err, failure, "cannot read addresses of the host") : 0;
}

static size_t family_bytes(int family)
{
    return family == AF_INET ? 4 : 16;
}

static void address_read(const struct nlmsghdr *message, struct netlink_address *address)
{
    const struct ifaddrmsg *header = mnl_nlmsg_get_payload(message);
    const struct nlattr *list[IFA_MAX + 1];

    attributes(message, sizeof(*header), list, IFA_MAX);
    const struct nlattr *attr = list[IFA_LOCAL] ? list[IFA_LOCAL] : list[IFA_ADDRESS];
    *address = (struct netlink_address){header->ifa_family, header->ifa_prefixlen, {0}};
    if (mnl_attr_get_payload_len(attr) >= family_bytes(address->family))
        memcpy(address->bytes, mnl_attr_get_payload(attr), family_bytes(address->family));
}

int netlink_addresses(struct netlink *netlink, int index, struct netlink_address *list,
                      size_t capacity, struct error *err)
{
    struct messages found = {0};
    size_t count = 0;
    int failure = addresses_dump(netlink, index, &found, err);

    if (!failure)
        for (struct nlmsghdr *message = NULL; (message = messages_next(&found, message));)
            if (count < capacity)
                address_read(message, &list[count++]);
    free(found.bytes);
    return failure ? failure : (int)count;
}

// What makes two addresses the same, and all that a request needs: the parts of an address that
// stay when it is on another link.
static struct nlmsghdr *address_rebuild(char *buffer, const struct nlmsghdr *original, int index)
{
    const struct ifaddrmsg *from = mnl_nlmsg_get_payload(original);
    const struct nlattr *list[IFA_MAX + 1];
    struct ifaddrmsg header = {
        .ifa_family = from->ifa_family,
        .ifa_prefixlen = from->ifa_prefixlen,
        .ifa_scope = from->ifa_scope,
        .ifa_index = (uint32_t)index,
    };

    attributes(original, sizeof(*from), list, IFA_MAX);
    struct nlmsghdr *message = begin(buffer, 0, 0, &header, sizeof(header));
    static const uint16_t kept[] = {IFA_ADDRESS, IFA_LOCAL, IFA_BROADCAST};
    for (size_t i = 0; i < BASE_COUNT_OF(kept); i++)
        if (list[kept[i]])
            mnl_attr_put(message, kept[i], mnl_attr_get_payload_len(list[kept[i]]),
                         mnl_attr_get_payload(list[kept[i]]));
    return message;
}

static struct nlmsghdr *address_own(char *buffer, const struct netlink_address *own, int index)
{
    struct ifaddrmsg header = {
        .ifa_family = (uint8_t)own->family,
        .ifa_prefixlen = (uint8_t)own->prefix_bits,
        .ifa_index = (uint32_t)index,
    };
    struct nlmsghdr *message = begin(buffer, 0, 0, &header, sizeof(header));

    mnl_attr_put(message, IFA_ADDRESS, family_bytes(own->family), own->bytes);
    if (own->family == AF_INET)
        mnl_attr_put(message, IFA_LOCAL, family_bytes(own->family), own->bytes);
    return message;
}

static int address_add(struct netlink *netlink, struct nlmsghdr *message, struct error *err)
{
    const struct ifaddrmsg *header = mnl_nlmsg_get_payload(message);
    // No route comes with it, and nobody else is asked whether it is free: it is the host's.
    uint32_t flags = IFA_F_NOPREFIXROUTE | (header->ifa_family == AF_INET6 ? IFA_F_NODAD : 0);

    message->nlmsg_type = RTM_NEWADDR;
    message->nlmsg_flags = NLM_F_REQUEST | NLM_F_CREATE | NLM_F_REPLACE;
    mnl_attr_put_u32(message, IFA_FLAGS, flags);
    int failure = command(netlink, message);
    return failure ? error_set_errno(err, failure, "cannot give the tap an address") : 0;
}

// ---- Routes -------------------------------------------------------------------------------------

// Of which the device is, or is among, the ways. Those of the table `local` come with addresses.
static bool route_through(const struct nlmsghdr *message, int index)
{
    const struct rtmsg *header = mnl_nlmsg_get_payload(message);
    const struct nlattr *list[RTA_MAX + 1];

    attributes(message, sizeof(*header), list, RTA_MAX);
    if (header->rtm_type != RTN_UNICAST || (header->rtm_flags & RTM_F_CLONED) ||
        attribute_u32(list[RTA_TABLE], header->rtm_table) == RT_TABLE_LOCAL ||
        (header->rtm_family != AF_INET && header->rtm_family != AF_INET6))
        return false;
    if ((int)attribute_u32(list[RTA_OIF], 0) == index)
        return true;
    if (!list[RTA_MULTIPATH])
        return false;
    const struct rtnexthop *hop = mnl_attr_get_payload(list[RTA_MULTIPATH]);
    int left = mnl_attr_get_payload_len(list[RTA_MULTIPATH]);
    for (; RTNH_OK(hop, left); left -= (int)RTNH_ALIGN(hop->rtnh_len), hop = RTNH_NEXT(hop))
        if (hop->rtnh_ifindex == index)
            return true;
    return false;
}

static bool route_original(const struct nlmsghdr *message, int index)
{
    const struct rtmsg *header = mnl_nlmsg_get_payload(message);
    return header->rtm_protocol != ROUTE_PROTOCOL && route_through(message, index);
}

static bool route_copy(const struct nlmsghdr *message, int index)
{
    const struct rtmsg *header = mnl_nlmsg_get_payload(message);
    return header->rtm_protocol == ROUTE_PROTOCOL && route_through(message, index);
}

static int routes_dump(struct netlink *netlink, int index,
                       bool (*wanted)(const struct nlmsghdr *message, int index),
                       struct messages *list, struct error *err)
{
    struct rtmsg header = {0};
    int failure = dump(netlink, RTM_GETROUTE, &header, sizeof(header), wanted, index, list);

    return failure ? error_set_errno(err, failure, "cannot read routes of the host") : 0;
}

int netlink_gateways(struct netlink *netlink, int index, struct netlink_address *list,
                     size_t capacity, struct error *err)
{
    struct messages found = {0};
    size_t count = 0;
    int failure = routes_dump(netlink, index, route_original, &found, err);

    if (!failure)
        for (struct nlmsghdr *message = NULL; (message = messages_next(&found, message));) {
            const struct rtmsg *header = mnl_nlmsg_get_payload(message);
            const struct nlattr *attrs[RTA_MAX + 1];
            attributes(message, sizeof(*header), attrs, RTA_MAX);
            const struct nlattr *gateway = attrs[RTA_GATEWAY];
            size_t bytes = family_bytes(header->rtm_family);
            if (header->rtm_dst_len || !gateway || count == capacity ||
                mnl_attr_get_payload_len(gateway) != bytes)
                continue;
            list[count] = (struct netlink_address){header->rtm_family, (unsigned)bytes * 8, {0}};
            memcpy(list[count++].bytes, mnl_attr_get_payload(gateway), bytes);
        }
    free(found.bytes);
    return failure ? failure : (int)count;
}

// Attributes that a copy has of its original. Not among them: what is the kernel's to say
// (RTA_CACHEINFO), and nexthop objects (RTA_NH_ID), of which the rest has what they stand for.
static bool route_attribute_kept(unsigned type)
{
    static const uint16_t kept[] = {RTA_DST,     RTA_SRC,       RTA_PRIORITY, RTA_PREFSRC,
                                    RTA_METRICS, RTA_MULTIPATH, RTA_GATEWAY,  RTA_VIA,
                                    RTA_TABLE,   RTA_PREF,      RTA_ENCAP,    RTA_ENCAP_TYPE};

    for (size_t i = 0; i < BASE_COUNT_OF(kept); i++)
        if (kept[i] == type)
            return true;
    return false;
}

static void route_put_multipath(struct nlmsghdr *message, const struct nlattr *multipath, int from,
                                int to)
{
    size_t bytes = mnl_attr_get_payload_len(multipath);
    char *start = mnl_nlmsg_get_payload_tail(message);

    mnl_attr_put(message, RTA_MULTIPATH, bytes, mnl_attr_get_payload(multipath));
    struct rtnexthop *hop = mnl_attr_get_payload((struct nlattr *)start);
    int left = (int)bytes;
    for (; RTNH_OK(hop, left); left -= (int)RTNH_ALIGN(hop->rtnh_len), hop = RTNH_NEXT(hop)) {
        hop->rtnh_flags &= RTNH_F_ONLINK;
        if (hop->rtnh_ifindex == from)
            hop->rtnh_ifindex = to;
    }
}

static const struct netlink_address *of_family(const struct netlink_address *list, size_t count,
                                               int family)
{
    for (size_t i = 0; i < count; i++)
        if (list[i].family == family)
            return &list[i];
    return NULL;
}

// A route as it is to be on the other link; on the same one (from == to), what is there already.
// Attributes in the order of their numbers, so that the same route is the same bytes. NULL: it is
// not wanted there.
static struct nlmsghdr *route_rebuild(char *buffer, const struct nlmsghdr *original,
                                      const struct netlink_overlay *overlay)
{
    const struct rtmsg *from = mnl_nlmsg_get_payload(original);
    const struct nlattr *list[RTA_MAX + 1];
    const struct netlink_address *gateway =
        of_family(overlay->gateways, overlay->gateway_count, from->rtm_family);
    const struct netlink_address *own =
        of_family(overlay->own, overlay->own_count, from->rtm_family);
    bool copying = overlay->from != overlay->to;
    struct rtmsg header = *from;

    attributes(original, sizeof(*from), list, RTA_MAX);
    if (original->nlmsg_len > MESSAGE_BYTES / 2)
        return NULL;
    header.rtm_flags &= RTNH_F_ONLINK;
    header.rtm_protocol = ROUTE_PROTOCOL;
    if (copying && overlay->gateway_count) {
        const uint8_t *dst = list[RTA_DST] ? mnl_attr_get_payload(list[RTA_DST]) : NULL;
        bool link_local = header.rtm_family == AF_INET6 && dst && dst[0] == 0xfe;
        if (!gateway || link_local)
            return NULL;
        header.rtm_scope = RT_SCOPE_UNIVERSE;
        header.rtm_flags |= RTNH_F_ONLINK;
    }
    struct nlmsghdr *message = begin(buffer, 0, 0, &header, sizeof(header));
    for (unsigned type = 1; type <= RTA_MAX; type++) {
        bool replaced = copying && gateway &&
                        (type == RTA_GATEWAY || type == RTA_VIA || type == RTA_MULTIPATH ||
                         type == RTA_PREFSRC || type == RTA_ENCAP || type == RTA_ENCAP_TYPE);
        if (type == RTA_OIF && (!list[RTA_MULTIPATH] || (copying && gateway)))
            mnl_attr_put_u32(message, RTA_OIF, (uint32_t)overlay->to);
        else if (type == RTA_GATEWAY && replaced)
            mnl_attr_put(message, RTA_GATEWAY, family_bytes(gateway->family), gateway->bytes);
        else if (type == RTA_PREFSRC && replaced && own)
            mnl_attr_put(message, RTA_PREFSRC, family_bytes(own->family), own->bytes);
        else if (!list[type] || replaced || !route_attribute_kept(type))
            continue;
        else if (type == RTA_PRIORITY && copying && header.rtm_family == AF_INET6)
            mnl_attr_put_u32(message, type,
                             attribute_u32(list[type], 2) > 1 ? attribute_u32(list[type], 2) - 1
                                                              : 1);
        else if (type == RTA_MULTIPATH)
            route_put_multipath(message, list[type], overlay->from, overlay->to);
        else
            mnl_attr_put(message, (uint16_t)type, mnl_attr_get_payload_len(list[type]),
                         mnl_attr_get_payload(list[type]));
    }
    return message;
}

static bool route_has_gateway(const struct nlmsghdr *message)
{
    const struct nlattr *list[RTA_MAX + 1];

    attributes(message, sizeof(struct rtmsg), list, RTA_MAX);
    return list[RTA_GATEWAY] || list[RTA_VIA] || list[RTA_MULTIPATH];
}

// ---- Overlay ------------------------------------------------------------------------------------

static bool same(const struct nlmsghdr *a, const struct nlmsghdr *b)
{
    return a->nlmsg_len == b->nlmsg_len &&
           memcmp(mnl_nlmsg_get_payload(a), mnl_nlmsg_get_payload(b),
                  mnl_nlmsg_get_payload_len(a)) == 0;
}

static bool among(const struct messages *list, const struct nlmsghdr *message)
{
    for (struct nlmsghdr *other = NULL; (other = messages_next(list, other));)
        if (same(other, message))
            return true;
    return false;
}

static int addresses_wanted(struct netlink *netlink, const struct netlink_overlay *overlay,
                            struct messages *wanted, struct error *err)
{
    char buffer[MESSAGE_BYTES];
    struct messages found = {0};
    int failure = 0;

    for (size_t i = 0; i < overlay->own_count && !failure; i++)
        failure = messages_add(wanted, address_own(buffer, &overlay->own[i], overlay->to));
    if (overlay->own_count)
        return failure;
    failure = addresses_dump(netlink, overlay->from, &found, err);
    if (!failure)
        for (struct nlmsghdr *message = NULL; (message = messages_next(&found, message));)
            if (!failure)
                failure = messages_add(wanted, address_rebuild(buffer, message, overlay->to));
    free(found.bytes);
    return failure;
}

static int addresses_overlay(struct netlink *netlink, const struct netlink_overlay *overlay,
                             struct error *err)
{
    char buffer[MESSAGE_BYTES];
    struct messages wanted = {0}, found = {0}, present = {0};
    int failure = overlay->addresses ? addresses_wanted(netlink, overlay, &wanted, err) : 0;

    if (!failure)
        failure = addresses_dump(netlink, overlay->to, &found, err);
    if (!failure)
        for (struct nlmsghdr *message = NULL; (message = messages_next(&found, message));) {
            struct nlmsghdr *known = address_rebuild(buffer, message, overlay->to);
            if (!failure)
                failure = messages_add(&present, known);
            if (among(&wanted, known))
                continue;
            known->nlmsg_type = RTM_DELADDR;
            command(netlink, known);  // fails only where it is gone
        }
    if (!failure)
        for (struct nlmsghdr *message = NULL; (message = messages_next(&wanted, message));)
            if (!failure && !among(&present, message)) {
                memcpy(buffer, message, message->nlmsg_len);
                failure = address_add(netlink, (struct nlmsghdr *)buffer, err);
            }
    free(wanted.bytes);
    free(found.bytes);
    free(present.bytes);
    return failure;
}

// To the network that an address of the tap's own is in, before any other way.
static struct nlmsghdr *route_own(char *buffer, const struct netlink_address *own, int to)
{
    struct rtmsg header = {
        .rtm_family = (uint8_t)own->family,
        .rtm_dst_len = (uint8_t)own->prefix_bits,
        .rtm_table = RT_TABLE_MAIN,
        .rtm_protocol = ROUTE_PROTOCOL,
        .rtm_scope = own->family == AF_INET ? RT_SCOPE_LINK : RT_SCOPE_UNIVERSE,
        .rtm_type = RTN_UNICAST,
    };
    uint8_t network[16] = {0};
    struct nlmsghdr *message = begin(buffer, 0, 0, &header, sizeof(header));

    memcpy(network, own->bytes, own->prefix_bits / 8);  // prefixes of ours are whole bytes
    mnl_attr_put(message, RTA_DST, family_bytes(own->family), network);
    mnl_attr_put_u32(message, RTA_OIF, (uint32_t)to);
    if (own->family == AF_INET6)
        mnl_attr_put_u32(message, RTA_PRIORITY, 1);
    mnl_attr_put(message, RTA_PREFSRC, family_bytes(own->family), own->bytes);
    mnl_attr_put_u32(message, RTA_TABLE, RT_TABLE_MAIN);
    if (own->family == AF_INET6)
        mnl_attr_put_u8(message, RTA_PREF, 0);
    return message;
}

static int routes_wanted(struct netlink *netlink, const struct netlink_overlay *overlay,
                         struct messages *wanted, struct error *err)
{
    char buffer[MESSAGE_BYTES];
    struct messages found = {0};
    int failure = routes_dump(netlink, overlay->from, route_original, &found, err);

    for (size_t i = 0; i < overlay->own_count && !failure; i++)
        failure = messages_add(wanted, route_own(buffer, &overlay->own[i], overlay->to));
    // Those without a gateway first: gateways are reached through them.
    for (int gateways = 0; gateways < 2 && !failure; gateways++)
        for (struct nlmsghdr *message = NULL; (message = messages_next(&found, message));) {
            const struct nlmsghdr *copy = route_rebuild(buffer, message, overlay);
            if (copy && route_has_gateway(copy) == gateways && !among(wanted, copy) && !failure)
                failure = messages_add(wanted, copy);
        }
    free(found.bytes);
    return failure;
}

// One that the kernel does not take is left out: packets go by the original then.
static void route_add(struct netlink *netlink, const struct nlmsghdr *copy)
{
    char buffer[MESSAGE_BYTES];
    struct nlmsghdr *message = (struct nlmsghdr *)buffer;

    memcpy(buffer, copy, copy->nlmsg_len);
    message->nlmsg_type = RTM_NEWROUTE;
    // Neither NLM_F_EXCL nor NLM_F_APPEND: in front of the one that is there.
    message->nlmsg_flags = NLM_F_REQUEST | NLM_F_CREATE;
    int failure = command(netlink, message);
    if (failure && failure != -EEXIST)
        log_limited(&netlink->refused, LOG_WARN, "a route cannot be copied to the tap: %s",
                    strerror(-failure));
}

static int routes_overlay(struct netlink *netlink, const struct netlink_overlay *overlay,
                          struct error *err)
{
    char buffer[MESSAGE_BYTES];
    const struct netlink_overlay itself = {.from = overlay->to, .to = overlay->to};
    struct messages wanted = {0}, found = {0}, present = {0};
    int failure = overlay->routes ? routes_wanted(netlink, overlay, &wanted, err) : 0;

    if (!failure)
        failure = routes_dump(netlink, overlay->to, route_copy, &found, err);
    if (!failure)
        for (struct nlmsghdr *message = NULL; (message = messages_next(&found, message));) {
            struct nlmsghdr *known = route_rebuild(buffer, message, &itself);
            if (!known)
                continue;
            if (!failure)
                failure = messages_add(&present, known);
            if (among(&wanted, known))
                continue;
            known->nlmsg_type = RTM_DELROUTE;
            command(netlink, known);  // fails only where it is gone
        }
    if (!failure)
        for (struct nlmsghdr *message = NULL; (message = messages_next(&wanted, message));)
            if (!among(&present, message))
                route_add(netlink, message);
    free(wanted.bytes);
    free(found.bytes);
    free(present.bytes);
    return failure;
}

int netlink_overlay(struct netlink *netlink, const struct netlink_overlay *overlay,
                    struct error *err)
{
    int failure = 0;

    // Addresses first when they come, as routes name them, and last when they go.
    if (overlay->addresses)
        failure = addresses_overlay(netlink, overlay, err);
    if (!failure)
        failure = routes_overlay(netlink, overlay, err);
    if (!failure && !overlay->addresses)
        failure = addresses_overlay(netlink, overlay, err);
    return failure;
}

// ---- Its life -----------------------------------------------------------------------------------

// What has changed is not looked at: also when some of it was lost (ENOBUFS), everything is looked
// up again.
static void readable(void *opaque, unsigned events)
{
    struct netlink *netlink = opaque;
    char buffer[DUMP_BYTES];
    ssize_t bytes;

    (void)events;
    do
        bytes = recv(mnl_socket_get_fd(netlink->events), buffer, sizeof(buffer), MSG_DONTWAIT);
    while (bytes > 0 || (bytes < 0 && (errno == EINTR || errno == ENOBUFS)));
    netlink->changed(netlink->opaque);
}

static struct mnl_socket *socket_open(unsigned groups)
{
    struct mnl_socket *opened = mnl_socket_open2(NETLINK_ROUTE, SOCK_CLOEXEC);

    if (opened && mnl_socket_bind(opened, groups, MNL_SOCKET_AUTOPID) < 0) {
        mnl_socket_close(opened);
        return NULL;
    }
    return opened;
}

static int netlink_open(struct netlink *netlink, struct loop *loop)
{
    netlink->requests = socket_open(0);
    if (!netlink->requests)
        return -errno;
    if (!netlink->changed)
        return 0;
    netlink->events = socket_open(RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR |
                                  RTMGRP_IPV4_ROUTE | RTMGRP_IPV6_ROUTE);
    if (!netlink->events)
        return -errno;
    return loop_watch_create(loop, mnl_socket_get_fd(netlink->events), LOOP_READABLE, readable,
                             netlink, &netlink->watch);
}

int netlink_create(struct netlink **out, struct loop *loop, void (*changed)(void *opaque),
                   void *opaque, struct error *err)
{
    struct netlink *netlink = calloc(1, sizeof(*netlink));
    if (!netlink)
        return error_set_errno(err, -ENOMEM, "cannot ask for network devices");
    *netlink = (struct netlink){.changed = changed, .opaque = opaque, .refused = LOG_LIMIT_INIT};
    int failure = netlink_open(netlink, loop);
    if (failure) {
        netlink_destroy(netlink);
        return error_set_errno(err, failure, "cannot ask for network devices");
    }
    *out = netlink;
    return 0;
}

void netlink_destroy(struct netlink *netlink)
{
    if (!netlink)
        return;
    loop_watch_close(netlink->watch);
    if (netlink->events)
        mnl_socket_close(netlink->events);
    if (netlink->requests)
        mnl_socket_close(netlink->requests);
    free(netlink);
}
