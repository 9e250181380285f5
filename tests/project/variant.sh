#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# Builds the project another way and runs some suites of it there.
# usage: variant.sh NAME COMPILER SUITES MESON-OPTION...
set -eu
name=$1 compiler=$2 suites=$3
shift 3
cd "$(dirname "$0")/../.."
dir=build/variants/$name
mkdir -p build/variants

if [ ! -f "$dir/build.ninja" ]; then
    CC=$compiler meson setup "$dir" -Dbuildtype=debugoptimized -Doptimization=1 "$@" >"$dir.log" 2>&1 ||
        { cat "$dir.log"; exit 1; }
else
    meson setup --reconfigure "$dir" >"$dir.log" 2>&1 || { cat "$dir.log"; exit 1; }
fi
ninja -C "$dir" >"$dir.log" 2>&1 || { grep -E 'FAILED|error|warning' "$dir.log" | head -40; exit 1; }
echo "$name: built with $compiler $*"

export ASAN_OPTIONS=detect_leaks=1:abort_on_error=0 UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1
export LSAN_OPTIONS="print_suppressions=0:suppressions=$PWD/tests/project/lsan.supp"
export TSAN_OPTIONS="halt_on_error=1:suppressions=$PWD/tests/project/tsan.supp"
status=0
suite_args=
for suite in $(echo "$suites" | tr , ' '); do
    suite_args="$suite_args --suite $suite"
done
# shellcheck disable=SC2086 # one word a suite
meson test -C "$dir" --no-rebuild --num-processes 1 --print-errorlogs --timeout-multiplier 5 $suite_args \
    >"$dir.log" 2>&1 || status=1
if [ $status = 0 ]; then
    grep -E '^(Ok|Skipped|Fail)' "$dir.log"
else
    cat "$dir.log"
fi
exit $status
