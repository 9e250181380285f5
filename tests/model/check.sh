#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# Checks the model of handle tables exhaustively, then that Spin finds fault with each way of breaking
# it that the model offers.
# usage: check.sh MODEL
set -eu
model=$(realpath "$1")
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"

# Prints the number of errors that Spin finds with these definitions, and the number of states.
explore() {
    # shellcheck disable=SC2086 # one word a definition
    spin -a $1 "$model" >spin.log || { cat spin.log >&2; exit 1; }
    gcc -w -O2 -DSAFETY -DCOLLAPSE -DMEMLIM=2000 -o pan pan.c
    ./pan -m10000 -w22 >pan.log
    if ! grep -q 'errors: 0' pan.log; then
        sed -n 's/.*assertion violated/assertion violated/p' pan.log | head -1 >fault
    fi
    if grep -Eq 'max search depth too small|out of memory|memory limit' pan.log; then
        cat pan.log >&2
        exit 1
    fi
    sed -n 's/.*errors: \([0-9]*\).*/\1/p' pan.log
}

status=0
for size in "" -DREUSE; do
    errors=$(explore "$size")
    states=$(sed -n 's/^ *\([0-9]*\) states, stored.*/\1/p' pan.log)
    echo "model ${size:-(growth)}: $states states, $errors errors"
    [ "$errors" = 0 ] || status=1
done
for mutant in $(grep -Eo 'MUTANT_[A-Z_]+[A-Z]' "$model" | sort -u); do
    case $mutant in
    MUTANT_GROWTH_*) size= ;;
    *) size=-DREUSE ;;
    esac
    errors=$(explore "$size -D$mutant")
    if [ "$errors" = 0 ]; then
        echo "$mutant: not found" >&2
        status=1
    else
        echo "$mutant: found, $(cat fault)"
    fi
done
exit $status
