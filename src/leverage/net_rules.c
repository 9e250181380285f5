// SPDX-License-Identifier: BSD-2-Clause
// net_rules: tables of the packet filter. A table is replaced as a whole, in one transaction, so no
// packet ever meets half of one.
//
// Fwd is final: a packet is handed to another device's queue, and whoever comes later at the hook
// does not see it. To a device that is not there any more it is lost: that is what keeps the path
// shut when all processes are gone (no `flags owner`). With it, the table is gone then.
#include <stdio.h>
#include <stdlib.h>

#include "leverage/net.h"

// Before what others have at these hooks.
#define PRIORITY (-450)

const char *const net_counter_names[NET_COUNTERS] = {
    [NET_SEEN_IN] = "seen_in",         [NET_SEEN_OUT] = "seen_out",
    [NET_RETURNED_IN] = "returned_in", [NET_RETURNED_OUT] = "returned_out",
    [NET_BYPASSED] = "bypassed",       [NET_DROPPED] = "dropped",
};

static void chain(FILE *text, const char *name, const char *hook, const char *device)
{
    fprintf(text, "chain %s { type filter hook %s device \"%s\" priority %d; policy accept;\n",
            name, hook, device, PRIORITY);
}

static void chain_end(FILE *text)
{
    fprintf(text, "}\n");
}

static const char *expression(const char *match)
{
    return match ? match : "";
}

// Whether what the host sends takes part: with `match` alone it does not.
static bool takes_outbound(const struct interceptor_definition *definition)
{
    return definition->match_out || !definition->match;
}

// Both hooks of the device, doing the same to whatever takes part.
static void device_chains(FILE *text, const struct net *net, const char *what)
{
    const struct interceptor_definition *definition = net->definition;

    chain(text, "device_in", "ingress", definition->device);
    fprintf(text, "%s %s\n", expression(definition->match), what);
    chain_end(text);
    chain(text, "device_out", "egress", definition->device);
    if (takes_outbound(definition))
        fprintf(text, "%s %s\n", expression(definition->match_out), what);
    chain_end(text);
}

// What comes from guests goes nowhere.
static void taps_closed(FILE *text, const struct net *net)
{
    for (size_t i = 0; i < net->module_count; i++) {
        const char *taps[] = {net->modules[i].outer, net->modules[i].inner};
        for (size_t side = 0; side < 2; side++) {
            char name[32];
            snprintf(name, sizeof(name), "tap_%zu_%zu", i, side);
            if (!net->tap_index[2 * i + side])
                continue;
            chain(text, name, "ingress", taps[side]);
            fprintf(text, "drop\n");
            chain_end(text);
        }
    }
}

// From one module to the next, and back.
static void between(FILE *text, const struct net *net)
{
    for (size_t i = 0; i + 1 < net->module_count; i++) {
        char name[32];
        snprintf(name, sizeof(name), "inwards_%zu", i);
        chain(text, name, "ingress", net->modules[i].inner);
        fprintf(text, "fwd to \"%s\"\n", net->modules[i + 1].outer);
        chain_end(text);
        snprintf(name, sizeof(name), "outwards_%zu", i);
        chain(text, name, "ingress", net->modules[i + 1].outer);
        fprintf(text, "fwd to \"%s\"\n", net->modules[i].inner);
        chain_end(text);
    }
}

static void counted(FILE *text, enum net_counter counter, const char *match, const char *then)
{
    fprintf(text, "%s counter name \"%s\" %s\n", expression(match), net_counter_names[counter],
            then);
}

static void fwd_to(FILE *text, const char *match, const char *device)
{
    fprintf(text, "%s fwd to \"%s\"\n", expression(match), device);
}

// What configures the device, by the kernel or by a program that listens there: router
// advertisements, answers of DHCP; and what asks for them.
#define CONFIGURING 2
static const char *const answers[CONFIGURING] = {"icmpv6 type nd-router-advert",
                                                 "udp dport { 68, 546 }"};
static const char *const questions[CONFIGURING] = {"icmpv6 type nd-router-solicit",
                                                   "udp dport { 67, 547 }"};

static void each(FILE *text, const char *const *list, const char *then)
{
    for (size_t i = 0; i < CONFIGURING; i++)
        fprintf(text, "%s %s\n", list[i], then);
}

// What leaves the first module goes out; what the host sends otherwise goes through the last one.
static void outwards(FILE *text, const struct net *net, const char *outer, const char *inner)
{
    const struct interceptor_definition *definition = net->definition;

    chain(text, "device_out", "egress", definition->device);
    fprintf(text, "meta mark %#x accept\n", NET_MARK);
    if (definition->nat) {  // the host has no address there any more, but what it gives the guest
        each(text, questions, "accept");
        counted(text, NET_DROPPED, NULL, "drop");
    } else if (takes_outbound(definition))
        fwd_to(text, definition->match_out, inner);
    chain_end(text);
    chain(text, "outer", "ingress", outer);
    counted(text, NET_RETURNED_OUT, NULL, "");
    fprintf(text, "meta mark set %#x fwd to \"%s\"\n", NET_MARK, definition->device);
    chain_end(text);
}

// What the guest advertises on the bridge is for others: the host itself is behind `strake0`.
static void lan(FILE *text, const struct net *net)
{
    if (!net->definition->lan)
        return;
    chain(text, "lan", "ingress", net->definition->lan);
    fprintf(text, "icmpv6 type nd-router-advert drop\n");
    chain_end(text);
}

// The host's side of the last guest.
static void inwards(FILE *text, const struct net *net, const char *inner)
{
    chain(text, "inner_in", "ingress", inner);
    counted(text, NET_RETURNED_IN, NULL, "");
    if (net->hears) {
        char then[64];
        snprintf(then, sizeof(then), "meta mark set %#x fwd to \"%s\"", NET_MARK, inner);
        each(text, answers, then);
    }
    chain_end(text);
    chain(text, "inner_out", "egress", inner);
    if (net->hears)  // on its way to the device
        fprintf(text, "meta mark %#x accept\n", NET_MARK);
    counted(text, NET_SEEN_OUT, NULL, "");
    chain_end(text);
}

static void engaged(FILE *text, const struct net *net, bool draining)
{
    const char *outer = net->modules[0].outer;
    const char *inner = net->modules[net->module_count - 1].inner;

    if (!draining) {
        chain(text, "device_in", "ingress", net->definition->device);
        if (net->hears)
            fprintf(text, "meta mark %#x meta mark set 0 accept\n", NET_MARK);
        if (net->definition->nat)
            each(text, answers, "accept");
        counted(text, NET_SEEN_IN, net->definition->match, "");
        fwd_to(text, net->definition->match, outer);
        chain_end(text);
        outwards(text, net, outer, inner);
    } else {
        chain(text, "outer", "ingress", outer);
        counted(text, NET_RETURNED_OUT, NULL, "");
        fprintf(text, "meta mark set %#x fwd to \"%s\"\n", NET_MARK, net->definition->device);
        chain_end(text);
    }
    inwards(text, net, inner);
    lan(text, net);
    between(text, net);
}

// Guests get copies, and what comes back from them is counted only.
static void observed(FILE *text, const struct net *net)
{
    const struct interceptor_definition *definition = net->definition;
    const char *outer = net->modules[0].outer;
    const char *inner = net->modules[net->module_count - 1].inner;

    chain(text, "device_in", "ingress", definition->device);
    counted(text, NET_SEEN_IN, definition->match, "");
    fprintf(text, "%s dup to \"%s\"\n", expression(definition->match), outer);
    chain_end(text);
    chain(text, "device_out", "egress", definition->device);
    if (takes_outbound(definition)) {
        counted(text, NET_SEEN_OUT, definition->match_out, "");
        fprintf(text, "%s dup to \"%s\"\n", expression(definition->match_out), inner);
    }
    chain_end(text);
    chain(text, "outer", "ingress", outer);
    counted(text, NET_RETURNED_OUT, NULL, "drop");
    chain_end(text);
    chain(text, "inner_in", "ingress", inner);
    counted(text, NET_RETURNED_IN, NULL, "drop");
    chain_end(text);
    between(text, net);
}

char *net_rules(struct net *net, enum net_path path)
{
    const char *owned = net->definition->fail == INTERCEPTOR_FAIL_CLOSED ? "" : "flags owner;";
    char *commands = NULL;
    size_t bytes = 0;
    FILE *text = open_memstream(&commands, &bytes);

    if (!text)
        return NULL;
    // The first line makes sure that there is one to be deleted.
    fprintf(text, "table netdev %s { %s }\ndelete table netdev %s\n", net->table, owned,
            net->table);
    if (path != NET_UNTOUCHED) {
        fprintf(text, "table netdev %s { %s\n", net->table, owned);
        for (size_t i = 0; i < NET_COUNTERS; i++)
            fprintf(text, "counter %s { }\n", net_counter_names[i]);
        if (path == NET_OPEN)
            device_chains(text, net, "counter name \"bypassed\"");
        else if (path == NET_SHUT)
            device_chains(text, net, "counter name \"dropped\" drop");
        else if (net_observes(net))
            observed(text, net);
        else
            engaged(text, net, path == NET_DRAINING);
        if (path == NET_OPEN || path == NET_SHUT)
            taps_closed(text, net);
        fprintf(text, "}\n");
    }
    if (fclose(text)) {
        free(commands);
        return NULL;
    }
    return commands;
}
