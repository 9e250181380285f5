#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# Random guest code for a while, in an optimised build: seed after seed, from one that differs each
# day. The line of a run that fails names its seed and input. usage: jit_long.sh SECONDS [SEED]
set -eu
seed=${2:-$(date +%Y%m%d000)}
end=$(($(date +%s) + $1))
while [ "$(date +%s)" -lt "$end" ]; do
    echo "seed $seed"
    "$FUZZ_JIT" --random 80000 --seed "$seed"
    seed=$((seed + 1))
done
