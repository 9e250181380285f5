// SPDX-License-Identifier: BSD-2-Clause
// The table of strake run --stats. Private to this room.
#ifndef STRAKE_CLI_STATS_H
#define STRAKE_CLI_STATS_H

#include <stdio.h>

#include "partition/partition.h"

// Writes what the partition, which is paused, has counted in `wall_ns`; `jit` says that its engine
// is the translator.
void cli_print_stats(FILE *out, struct partition *partition, bool jit, uint64_t wall_ns);

#endif
