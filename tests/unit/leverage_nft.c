// SPDX-License-Identifier: BSD-2-Clause
// Tables of the packet filter: made and replaced as a whole, owned by a socket that others may
// hold, expressions checked without a trace. In a network namespace of its own.
#include <arpa/inet.h>
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "unit/unit.h"

#include "leverage/nft.h"

static struct nft *nft;

static int setup(void **state)
{
    struct error err = {0};

    (void)state;
    if (unshare(CLONE_NEWNET)) {
        print_message("no network namespace: %s\n", strerror(errno));
        return 0;
    }
    if (nft_create(&nft, NULL, NULL, NULL, &err))
        print_message("%s\n", err.message);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    nft_destroy(nft);
    return 0;
}

static void need_nft(void)
{
    if (!nft)
        skip();
}

static void count_table(void *opaque, const char *name)
{
    print_message("table %s\n", name);
    ++*(int *)opaque;
}

static int tables(struct nft *of)
{
    struct error err = {0};
    int count = 0;

    if (nft_each_table(of, count_table, &count, &err))
        fail_msg("%s", err.message);
    return count;
}

static void test_expressions(void **state)
{
    static const struct {
        const char *text;
        const char *complaint;  // NULL: it is one
    } cases[] = {
        {"tcp dport 80", NULL},
        {"ip saddr 192.0.2.0/24 tcp dport { 80, 443 }", NULL},
        {"ip6 saddr 2001:db8::/32", NULL},
        {"ether type vlan vlan id 7", NULL},
        {"meta l4proto icmp", NULL},
        {"tcp dprot 80", "at \"dprot\""},
        {"tcp dport 80 accept", "terminal statement"},
        {"tcp dport 80; drop", "one expression"},
        {"tcp dport 80 } chain x {", "one expression"},
        {"tcp dport { 80", "one expression"},
        {"\n", "one expression"},
        {"", "one expression"},
    };

    (void)state;
    need_nft();
    for (size_t i = 0; i < BASE_COUNT_OF(cases); i++) {
        struct error err = {0};
        int failure = nft_check_expression(nft, "match", cases[i].text, &err);
        print_message("'%s': %s\n", cases[i].text, failure ? err.message : "is one");
        assert_int_equal(failure, cases[i].complaint ? -EINVAL : 0);
        if (failure)
            assert_non_null(strstr(err.message, cases[i].complaint));
    }
    assert_int_equal(tables(nft), 0);
}

static void test_transaction(void **state)
{
    struct error err = {0};

    (void)state;
    need_nft();
    assert_int_equal(nft_run(nft, "table netdev one { }", &err), 0);
    print_message("a transaction with a mistake in it changes nothing\n");
    assert_int_not_equal(
        nft_run(nft, "delete table netdev one\nadd rule netdev nowhere chain accept", &err), 0);
    print_message("%s\n", err.message);
    assert_int_equal(tables(nft), 1);
    assert_int_equal(nft_run(nft, "delete table netdev one", &err), 0);
    assert_int_equal(tables(nft), 0);
}

static void read_counter(void *opaque, const char *name, uint64_t packets, uint64_t bytes)
{
    assert_string_equal(name, "lo_in");
    print_message("%s: %llu packets\n", name, (unsigned long long)packets);
    assert_true(bytes >= packets * 20);
    *(uint64_t *)opaque = packets;
}

static bool send_packet(void)
{
    struct sockaddr_in to = {AF_INET, htons(9), {htonl(INADDR_LOOPBACK)}, {0}};
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    bool sent = sendto(fd, "x", 1, 0, (struct sockaddr *)&to, sizeof(to)) == 1;

    close(fd);
    return sent;
}

static void test_counters(void **state)
{
    struct error err = {0};
    uint64_t packets = 0;

    (void)state;
    need_nft();
    assert_int_equal(nft_run(nft,
                             "table netdev count { counter lo_in { }; chain c { type filter hook "
                             "ingress device \"lo\" priority 0; counter name lo_in; }; }",
                             &err),
                     0);
    if (system("ip link set lo up") || !send_packet())
        print_message("no packet can be sent here\n");
    else {
        assert_int_equal(nft_each_counter(nft, "count", read_counter, &packets, &err), 0);
        assert_true(packets >= 1);
    }
    assert_int_equal(nft_run(nft, "delete table netdev count", &err), 0);
    assert_int_not_equal(nft_each_counter(nft, "count", read_counter, &packets, &err), 0);
}

static void test_lifeline(void **state)
{
    struct error err = {0};
    struct nft *other;

    (void)state;
    need_nft();
    assert_int_equal(nft_create(&other, NULL, NULL, NULL, &err), 0);
    assert_int_not_equal(nft_lifeline(other), nft_lifeline(nft));
    assert_int_equal(nft_run(other, "table netdev owned { flags owner; }", &err), 0);
    print_message("others cannot remove it\n");
    assert_int_not_equal(nft_run(nft, "delete table netdev owned", &err), 0);
    int lifeline = dup(nft_lifeline(other));
    nft_destroy(other);
    print_message("it stays while somebody holds the lifeline\n");
    assert_int_equal(tables(nft), 1);
    close(lifeline);
    print_message("and goes with it\n");
    assert_int_equal(tables(nft), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_expressions),
        cmocka_unit_test(test_transaction),
        cmocka_unit_test(test_counters),
        cmocka_unit_test(test_lifeline),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
