#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# All C sources are as clang-format-14 14 writes them, and every source names its licence.
set -eu
cd "$(dirname "$0")/../.."
files=$(git ls-files '*.c' '*.h')
count=$(echo "$files" | wc -l)
# shellcheck disable=SC2086 # one word a file
clang-format-14 --dry-run --Werror $files

missing=$(git ls-files '*.c' '*.h' '*.S' '*.py' '*.sh' '*.ld' 'Makefile' '*meson.build' |
    xargs grep -L 'SPDX-License-Identifier: BSD-2-Clause' || true)
if [ -n "$missing" ]; then
    echo "no licence line in: $missing"
    exit 1
fi
echo "checked the format of $count C files, and the licence line of every source"
