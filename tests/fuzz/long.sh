#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# Builds the fuzz targets with libFuzzer, ASan and UBSan and runs each for a while, from the corpus and
# from what earlier runs have found. An input that fails is kept, and named at the end.
# usage: long.sh SECONDS [TARGET...]
set -eu
export UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1
seconds=$1
shift
cd "$(dirname "$0")/../.."
dir=build/variants/fuzz
mkdir -p "$dir"
[ $# -gt 0 ] || set -- $(cd tests/fuzz && echo *.c | sed 's/\.c//g')

if [ -f "$dir/build.ninja" ]; then
    meson setup --reconfigure "$dir" >"$dir.log" 2>&1 || { cat "$dir.log"; exit 1; }
else
    CC=clang-14 meson setup "$dir" -Dc_args=-fsanitize=fuzzer-no-link \
        -Db_sanitize=address,undefined -Db_lundef=false -Doptimization=1 >"$dir.log" 2>&1 ||
        { cat "$dir.log"; exit 1; }
fi

status=0
for target in "$@"; do
    ninja -C "$dir" "tests/fuzz/fuzz-$target" >"$dir.log" 2>&1 || { cat "$dir.log"; exit 1; }
    mkdir -p "$dir/found/$target" "$dir/failed"
    if "$dir/tests/fuzz/fuzz-$target" -max_total_time="$seconds" -max_len=2048 -timeout=20 \
        -artifact_prefix="$dir/failed/$target-" "$dir/found/$target" "tests/fuzz/corpus/$target" \
        >"$dir/$target.log" 2>&1; then
        echo "$target: $(grep '^Done' "$dir/$target.log")"
    else
        tail -40 "$dir/$target.log"
        echo "$target: an input failed, see $dir/failed and $dir/$target.log"
        status=1
    fi
done
exit $status
