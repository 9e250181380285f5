// SPDX-License-Identifier: BSD-2-Clause
// The table of strake run --stats. Private to this room.
#ifndef STRAKE_CLI_STATS_H
#define STRAKE_CLI_STATS_H

#include <stdio.h>

#include "monitor/monitor.h"

// Writes what a monitor answers to "stats".
void cli_print_stats(FILE *out, const json_t *stats);

#endif
