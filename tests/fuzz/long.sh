#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# long.sh TARGET.c CORPUS BUILD SECONDS: builds a fuzz target with libFuzzer, address and undefined
# behaviour checks, and runs it that long from the corpus. New inputs stay in BUILD/fuzz/NAME.corpus,
# a failing one in BUILD/fuzz.
set -eu
source=$1 corpus=$2 build=$3 seconds=$4
top=$(cd "$(dirname "$source")/../.." && pwd)
name=$(basename "$source" .c)
mkdir -p "$build/fuzz/$name.corpus"
cd "$build/fuzz"
# shellcheck disable=SC2046 # one word a flag and a file
${FUZZ_CC:-clang-14} -g -O1 -std=gnu17 -D_GNU_SOURCE -DSTRAKE_VERSION='"0"' \
    -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=undefined -fno-strict-aliasing \
    -I "$top/src" -I "$top/tests" -I "$build" $(pkg-config --cflags slirp libuv liburing) \
    "$source" "$build/isa-generated.c" \
    $(find "$top/src" -name '*.c' ! -path '*/cli/*' | sort) \
    -o "$name" $(pkg-config --libs slirp libuv liburing) -lfdt -lm -lrt -pthread
exec "./$name" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 \
    "$name.corpus" "$corpus"
