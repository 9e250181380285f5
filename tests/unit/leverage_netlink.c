// SPDX-License-Identifier: BSD-2-Clause
// What a tap is given of a device: addresses and routes, which follow the device's and leave
// nothing behind. In a network namespace of its own; checked with what ip(8) shows.
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "unit/unit.h"

#include "leverage/netlink.h"

static struct netlink *netlink;

// ip(8), with all that it prints; "" when it fails.
static const char *ip(const char *arguments)
{
    static char output[8192];
    char command[512];
    size_t bytes = 0;

    snprintf(command, sizeof(command), "ip %s 2>&1", arguments);
    FILE *pipe = popen(command, "r");
    if (pipe) {
        bytes = fread(output, 1, sizeof(output) - 1, pipe);
        if (pclose(pipe)) {
            output[bytes] = 0;
            print_message("%s: %s", command, output);
            bytes = 0;
        }
    }
    output[bytes] = 0;
    return output;
}

// Whether a part of what ip(8) prints is there.
static bool shows(const char *arguments, const char *part)
{
    const char *output = ip(arguments);
    if (!strstr(output, part))
        print_message("no '%s' in: %s\n", part, output);
    return strstr(output, part);
}

static int setup(void **state)
{
    struct error err = {0};

    (void)state;
    if (unshare(CLONE_NEWNET)) {
        print_message("no network namespace: %s\n", strerror(errno));
        return 0;
    }
    if (system("ip link add nic type veth peer name far && ip tuntap add tap0 mode tap && "
               "ip link set nic up && ip link set far up && ip link set lo up && "
               "ip address add 192.0.2.1/24 brd + dev nic && "
               "ip address add 2001:db8::1/64 dev nic nodad && "
               "ip route add default via 192.0.2.9 mtu 1400 && "
               "ip route add 198.51.100.0/24 via 192.0.2.8 metric 70 src 192.0.2.1 && "
               "ip route add 198.51.100.0/24 dev nic table 77 && "
               "ip -6 route add default via 2001:db8::9")) {
        print_message("no network devices can be made here\n");
        return 0;
    }
    if (netlink_create(&netlink, NULL, NULL, NULL, &err))
        print_message("%s\n", err.message);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    netlink_destroy(netlink);
    return 0;
}

static void links(struct netlink_link *nic, struct netlink_link *tap)
{
    struct error err = {0};

    if (!netlink)
        skip();
    assert_int_equal(netlink_link_find(netlink, "nic", nic, &err), 0);
    assert_int_equal(netlink_link_find(netlink, "tap0", tap, &err), 0);
}

static void test_links(void **state)
{
    struct netlink_link nic, tap;
    struct error err = {0};

    (void)state;
    links(&nic, &tap);
    assert_string_equal(nic.kind, "veth");
    assert_string_equal(tap.kind, "tun");
    assert_true(nic.up && nic.ethernet && !tap.up);
    assert_int_equal(nic.mtu_bytes, 1500);
    assert_int_equal(netlink_link_find(netlink, "nowhere", &tap, &err), -ENODEV);
    print_message("%s\n", err.message);
    links(&nic, &tap);
    struct netlink_change change = {nic.mac, 1300, 0, true, LINK_UP};
    assert_int_equal(netlink_link_change(netlink, tap.index, &change, &err), 0);
    links(&nic, &tap);
    assert_true(tap.up && tap.mtu_bytes == 1300);
    assert_memory_equal(tap.mac, nic.mac, 6);
    print_message("a tap that goes up has no address of its own\n");
    assert_null(strstr(ip("address show dev tap0"), "inet"));
}

static void overlay(bool addresses, bool routes)
{
    struct netlink_link nic, tap;
    struct error err = {0};

    links(&nic, &tap);
    struct netlink_overlay wanted = {
        .from = nic.index, .to = tap.index, .addresses = addresses, .routes = routes};
    if (netlink_overlay(netlink, &wanted, &err))
        fail_msg("%s", err.message);
}

static void test_overlay(void **state)
{
    char before[8192], first[8192];

    (void)state;
    if (!netlink)
        skip();
    snprintf(before, sizeof(before), "%s", ip("route show table all type unicast"));
    overlay(true, true);
    assert_true(shows("address show dev tap0", "inet 192.0.2.1/24 brd 192.0.2.255"));
    assert_true(shows("address show dev tap0", "inet6 2001:db8::1/64"));
    print_message("what routes led through the device goes through the tap now\n");
    assert_true(shows("route get 192.0.2.77", "dev tap0 src 192.0.2.1"));
    assert_true(shows("route get 203.0.113.1", "via 192.0.2.9 dev tap0"));
    assert_true(shows("route show default", "dev tap0 proto 83 linkdown mtu 1400"));
    assert_true(shows("route get 198.51.100.1", "via 192.0.2.8 dev tap0"));
    assert_true(shows("route show table 77", "dev tap0"));
    assert_true(shows("-6 route get 2001:db8::77", "dev tap0"));
    assert_true(shows("-6 route get 2001:db8:1::1", "via 2001:db8::9 dev tap0"));
    snprintf(first, sizeof(first), "%s", ip("route show table all"));
    overlay(true, true);
    print_message("again: nothing changes\n");
    assert_string_equal(first, ip("route show table all"));

    print_message("it follows the device\n");
    ip("route del 198.51.100.0/24 via 192.0.2.8 metric 70 dev nic");
    ip("address add 192.0.2.2/32 dev nic");
    ip("address del 2001:db8::1/64 dev nic");
    overlay(true, true);
    assert_true(shows("address show dev tap0", "inet 192.0.2.2/32"));
    assert_null(strstr(ip("address show dev tap0"), "2001:db8::1"));
    assert_null(strstr(ip("route show 198.51.100.0/24"), "tap0"));
    ip("route add 198.51.100.0/24 via 192.0.2.8 dev nic metric 70 src 192.0.2.1");
    ip("address del 192.0.2.2/32 dev nic");
    ip("address add 2001:db8::1/64 dev nic nodad");
    overlay(true, true);

    print_message("without it everything is as before\n");
    overlay(false, false);
    ip("-6 route replace default via 2001:db8::9");  // went with the address that it needed
    assert_string_equal(before, ip("route show table all type unicast"));
    assert_null(strstr(ip("address show dev tap0"), "inet"));
}

static void test_others_routes(void **state)
{
    (void)state;
    if (!netlink)
        skip();
    overlay(true, true);
    ip("route add 203.0.113.0/24 dev tap0");
    overlay(true, true);
    assert_true(shows("route show 203.0.113.0/24", "dev tap0"));
    overlay(true, false);
    print_message("a route that somebody else gave the tap is left alone\n");
    assert_true(shows("route show 203.0.113.0/24", "dev tap0"));
    assert_null(strstr(ip("route show"), "proto 83"));
    assert_true(shows("address show dev tap0", "inet 192.0.2.1/24"));
    ip("route del 203.0.113.0/24 dev tap0");
    overlay(false, false);
}

static void test_inside(void **state)
{
    struct netlink_link nic, tap;
    struct error err = {0};
    const struct netlink_address own[] = {{AF_INET, 24, {10, 83, 0, 2}},
                                          {AF_INET6, 64, {0xfd, 0x53, [15] = 2}}};
    const struct netlink_address gateways[] = {{AF_INET, 32, {10, 83, 0, 1}},
                                               {AF_INET6, 128, {0xfd, 0x53, [15] = 1}}};
    struct netlink_address list[8];

    (void)state;
    links(&nic, &tap);
    struct netlink_overlay wanted = {nic.index, tap.index, true, true, own, gateways, 2, 2};
    assert_int_equal(netlink_overlay(netlink, &wanted, &err), 0);
    assert_true(shows("address show dev tap0", "inet 10.83.0.2/24"));
    assert_true(shows("route get 203.0.113.1", "via 10.83.0.1 dev tap0 src 10.83.0.2"));
    assert_true(shows("route get 192.0.2.77", "via 10.83.0.1 dev tap0 src 10.83.0.2"));
    assert_true(shows("-6 route get 2001:db8:1::1", "via fd53::1 dev tap0 proto 83 src fd53::2"));
    assert_int_equal(netlink_addresses(netlink, tap.index, list, 8, &err), 2);
    assert_int_equal(netlink_gateways(netlink, nic.index, list, 8, &err), 2);
    wanted = (struct netlink_overlay){.from = nic.index, .to = tap.index};
    assert_int_equal(netlink_overlay(netlink, &wanted, &err), 0);
    assert_null(strstr(ip("route show table all"), "proto 83"));
    assert_null(strstr(ip("address show dev tap0"), "inet"));
}

// A packet socket at a device, whose frames have a mark.
static int packets_at(int index, unsigned mark)
{
    const struct sockaddr_ll address = {
        .sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL), .sll_ifindex = index};
    const struct timeval patience = {.tv_sec = 30};
    int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (const struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_MARK, &mark, sizeof(mark)), 0);
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)), 0);
    return fd;
}

static void frame_send(int fd, char what)
{
    char frame[60] = {[12] = (char)0x88, (char)0xb5, what};

    assert_int_equal(send(fd, frame, sizeof(frame), 0), (ssize_t)sizeof(frame));
}

// What the next frame of ours at a device is; 0: none comes.
static char frame_next(int fd)
{
    char frame[2048];
    ssize_t bytes;

    while ((bytes = recv(fd, frame, sizeof(frame), 0)) > 14)
        if (frame[12] == (char)0x88 && frame[13] == (char)0xb5)
            return frame[14];
    return 0;
}

static void test_redirect(void **state)
{
    struct netlink_link nic, tap, far, lo;
    struct error err = {0};

    (void)state;
    links(&nic, &tap);
    assert_int_equal(netlink_link_find(netlink, "far", &far, &err), 0);
    assert_int_equal(netlink_link_find(netlink, "lo", &lo, &err), 0);
    int failure = netlink_redirect(netlink, nic.index, lo.index, 77);
    if (failure == -ENOENT) {
        print_message("this kernel has no cls_bpf or no act_mirred\n");
        skip();
    }
    assert_int_equal(failure, 0);
    assert_int_equal(netlink_redirect(netlink, nic.index, lo.index, 77), 0);
    int marked = packets_at(nic.index, 77), other = packets_at(nic.index, 78);
    int at_far = packets_at(far.index, 0), at_lo = packets_at(lo.index, 0);
    frame_send(marked, 'a');
    frame_send(other, 'b');
    assert_int_equal(frame_next(at_lo), 'a');
    assert_int_equal(frame_next(at_far), 'b');
    assert_int_equal(netlink_redirect(netlink, nic.index, 0, 0), 0);
    frame_send(marked, 'c');
    assert_int_equal(frame_next(at_far), 'c');
    print_message("what has the mark comes in elsewhere, the rest goes on, and later all of it\n");
    for (size_t i = 0; i < 4; i++)
        close((int[]){marked, other, at_far, at_lo}[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_links),         cmocka_unit_test(test_overlay),
        cmocka_unit_test(test_others_routes), cmocka_unit_test(test_inside),
        cmocka_unit_test(test_redirect),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
