#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# Meson runs it at an installation: the appliances that users have built (docs/appliances.md) go along, where
# `strake mount` looks for its own.
set -eu

for name in firewall ips clamav mount; do
    built=$MESON_BUILD_ROOT/appliance/$name
    [ -e "$built/initrd" ] || continue
    install -D -m 644 -t "$MESON_INSTALL_DESTDIR_PREFIX/share/strake/appliances/$name" \
        "$built/Image" "$built/initrd" "$built/versions"
done
