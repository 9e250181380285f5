#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# Installs the Debian packages of tools/packages.txt that this machine lacks. When it lacks none,
# which takes a moment to find out, nothing is done and no network is needed.
set -eu

list=$(dirname "$0")/packages.txt
wanted=$(sed 's/#.*//' "$list")

if ! command -v dpkg-query >/dev/null; then
    echo "setup: this is not a Debian machine; '$list' names the packages to look for" >&2
    exit 1
fi

# shellcheck disable=SC2086 # one word a package
there=$(dpkg-query --show --showformat '${db:Status-Abbrev} ${Package}\n' $wanted 2>/dev/null |
    sed -n 's/^ii *//p' || true)
missing=
for package in $wanted; do
    case "
$there
" in
    *"
$package
"*) ;;
    *) missing="$missing $package" ;;
    esac
done
[ -n "$missing" ] || exit 0

as_root=
if [ "$(id -u)" != 0 ]; then
    if ! command -v sudo >/dev/null; then
        echo "setup: cannot install packages: not root, and there is no sudo; missing:$missing" >&2
        exit 1
    fi
    as_root=sudo
fi

echo "setup: installing$missing"
$as_root apt-get update
# shellcheck disable=SC2086
$as_root env DEBIAN_FRONTEND=noninteractive \
    apt-get install --yes --no-install-recommends $missing
