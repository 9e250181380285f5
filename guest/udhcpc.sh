#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# What udhcpc calls with a lease.
[ "$1" = bound ] || exit 0
ip address add "$ip/$mask" dev "$interface"
ip route add default via "$router" dev "$interface"
for server in $dns; do
    echo "nameserver $server"
done >/etc/resolv.conf
